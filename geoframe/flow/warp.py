"""Images looked up where a flow leads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_shape


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Centres of all pixels.

    Args:
        height: H of the image.
        width: W of the image.
        like: a tensor whose dtype and device the result takes.

    Returns:
        (2, H, W): x and y, in pixels, the centre of the first at 0.5.
    """
    y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)])


def sample_at(image: Tensor, places: Tensor, *, mode: str = "bilinear", padding: str = "border") -> Tensor:
    """Values of images at places between pixels.

    Args:
        image: (B, C, H, W).
        places: (B, 2, h, w), x and y in pixels, the centre of the first pixel at 0.5.
        mode: "bilinear", "nearest" or "bicubic".
        padding: "border" continues the border, "zeros" is zero outside.

    Returns:
        (B, C, h, w).
    """
    H, W = image.shape[-2:]
    size = places.new_tensor([W, H])[:, None, None]
    grid = (2 * places / size - 1).permute(0, 2, 3, 1).to(image.dtype)
    return F.grid_sample(image, grid, mode=mode, padding_mode=padding, align_corners=False)


def values_at(field: Tensor, points: Tensor) -> Tensor:
    """Values of a field at points, interpolated; the border is continued.

    Args:
        field: (C, H, W).
        points: (N, 2) x and y in pixels, the centre of the first one at 0.5.

    Returns:
        (N, C).
    """
    return sample_at(field[None], points.T[None, :, None])[0, :, 0].T


def warp_back(image1: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Image 1 as image 0 would see it: each pixel of image 0 looks where its flow leads.

    Args:
        image1: (B, C, H1, W1).
        flow: (B, 2, H, W), x and y in pixels, from image 0 to image 1.

    Returns:
        image: (B, C, H, W).
        inside: (B, H, W) bool, whether the place lies on image 1.
    """
    check_shape(flow, "B 2 H W", "flow")
    H1, W1 = image1.shape[-2:]
    places = pixel_grid(flow.shape[-2], flow.shape[-1], like=flow) + flow
    x, y = places[:, 0], places[:, 1]
    return sample_at(image1, places), (x >= 0) & (x <= W1) & (y >= 0) & (y <= H1)
