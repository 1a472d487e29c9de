"""Optical flow of other libraries, to start from or to compare with."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_choice, check_shape
from geoframe._optional import require

_PRESETS = ("ultrafast", "fast", "medium")


def dis_flow(image0: Tensor, image1: Tensor, *, preset: str = "medium") -> Tensor:
    """The flow that OpenCV's dense inverse search finds; of the extra bench.

    Args:
        image0: (3, H, W) in [0, 1].
        image1: of the same size.
        preset: "ultrafast", "fast" or "medium".

    Returns:
        (2, H, W) float32, pixels.

    Raises:
        ImportError: OpenCV is missing; the line tells how to install it.
        ValueError: images of different sizes, another preset.
    """
    sizes = check_shape(image0, "3 H W", "image0")
    check_shape(image1, f"3 {sizes['H']} {sizes['W']}", "image1")
    preset = check_choice(preset, _PRESETS, "preset")
    cv2 = require("cv2", extra="bench")
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    grey = [(255 * (x * luma).sum(0)).round().clamp(0, 255).byte().numpy() for x in (image0, image1)]
    search = cv2.DISOpticalFlow_create(_PRESETS.index(preset))
    return torch.from_numpy(search.calc(grey[0], grey[1], None)).permute(2, 0, 1).contiguous()
