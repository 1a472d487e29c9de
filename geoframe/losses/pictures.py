"""Losses between a rendered picture and the image it should be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_choice, check_int


def region_loss(predicted: Tensor, mask: Tensor, *, form: str = "paper") -> Tensor:
    """Absolute difference of a rendered silhouette and a mask.

    Args:
        predicted: (B, H, W) in [0, 1].
        mask: (B, H, W).
        form: "paper" sums over the pixels of an image and divides by the mask's area, so that small objects count as
            much as large ones; "code" is the mean over all pixels.
    """
    check_choice(form, ("paper", "code"), "form")
    off = (predicted - mask.to(predicted)).abs()
    if form == "code":
        return off.mean()
    return (off.sum((1, 2)) / mask.to(predicted).sum((1, 2)).clamp_min(1)).mean()


def texture_loss(picture: Tensor, image: Tensor, mask: Tensor, *, levels: int = 3) -> Tensor:
    """Difference of colours and of their gradients inside a mask, on several scales; needs no pretrained network.

    Args:
        picture: (B, 3, H, W) rendered with its texture.
        image: (B, 3, H, W).
        mask: (B, H, W); both are black outside of it.
        levels: halvings of the size, from 1.

    Source: takes the place of the perceptual distance in L_pixel of Kokkinos & Kokkinos 2021;
        `geoframe.losses.landmarks.perceptual_loss` with the features of `geoframe.heads.vgg` is the nearer one.
    """
    check_int(levels, "levels", low=1)
    m = mask.to(picture)[:, None]
    a, b = picture * m, image * m
    total = picture.new_zeros(())
    for level in range(levels):
        if level:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        total = total + (a - b).abs().mean()
        for axis in (2, 3):
            total = total + (torch.diff(a, dim=axis) - torch.diff(b, dim=axis)).abs().mean()
    return total / levels
