"""Reading images at positions between their pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import as_tensor, broadcast_shapes, check_float, check_shape
from geoframe._precision import full_precision
from geoframe.camera import pixels_to_normalised


@full_precision
def sample_image(image: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear colours of an image at pixel positions; outside, the border is repeated.

    Args:
        image: (..., C, H, W).
        pixels: (..., N, 2) pixel x, pixel y; the centre of the first pixel is (0.5, 0.5).

    Returns:
        (..., N, C), differentiable in both; batches broadcast.

    Raises:
        TypeError: no floating numbers.
        ValueError: shapes that do not fit.
    """
    image = check_float(as_tensor(image, "image"), "image")
    pixels = check_float(as_tensor(pixels, "pixels", like=image), "pixels")
    check_shape(image, "... C H W", "image")
    check_shape(pixels, "... N 2", "pixels")
    h, w = image.shape[-2:]
    batch = broadcast_shapes(image=image.shape[:-3], pixels=pixels.shape[:-2])
    grid = pixels_to_normalised(pixels, (h, w)).to(image.dtype)
    if image.ndim == 3 or image.shape[:-3].numel() == 1:  # one image for all points: it is not copied
        images, grid = image.reshape(1, *image.shape[-3:]), grid.expand(*batch, *grid.shape[-2:])
        grid = grid.reshape(1, 1, -1, 2)
    else:
        images = image.expand(*batch, *image.shape[-3:]).reshape(-1, *image.shape[-3:])
        grid = grid.expand(*batch, *grid.shape[-2:]).reshape(len(images), 1, -1, 2)
    if not grid.numel():
        return image.new_zeros(*batch, pixels.shape[-2], image.shape[-3])
    out = torch.nn.functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    if len(images) == 1:
        return out[0, :, 0].T.reshape(*batch, pixels.shape[-2], -1)
    return out[:, :, 0].mT.reshape(*batch, pixels.shape[-2], -1)
