"""Crops: a box of an image brought to a fixed size, and the exact map of points and pictures both ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe._check import as_floats, check_float, check_int, check_shape


@dataclass(frozen=True)
class Crop:
    """A box of an image, on whole pixels, seen at another size.

    The box may reach over the image's border; what lies outside is filled when the crop is cut. A point at
    ``(x, y)`` of the image is at ``((x - x0) * width / (x1 - x0), (y - y0) * height / (y1 - y0))`` of the crop.

    Attributes:
        box: x0, y0, x1, y1 in whole pixels of the image.
        size: (height, width) of the crop.

    Raises:
        ValueError: an empty box, an empty size.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.box
        if not (x1 > x0 and y1 > y0):
            raise ValueError(f"box: expected x0 < x1 and y0 < y1, found {self.box}")
        for n in self.size:
            check_int(n, "size", low=1)

    @classmethod
    def around(
        cls, box: Tensor | tuple[float, ...], size: int | tuple[int, int], *, padding: float = 0.1
    ) -> Crop:
        """The crop around a box, of the proportions of `size`, with the box in its middle.

        Args:
            box: (4,) x0, y0, x1, y1 in pixels.
            size: (height, width) of the crop; a number for a square one.
            padding: left free on each side, in parts of the box's longer side; negative cuts into the box.

        Raises:
            TypeError, ValueError: another shape, NaN, an empty box.
        """
        height, width = (size, size) if isinstance(size, int) else size
        x0, y0, x1, y1 = check_box(box).tolist()
        room = 2 * padding * max(x1 - x0, y1 - y0)
        unit = max((x1 - x0 + room) / width, (y1 - y0 + room) / height)  # image pixels a pixel of the crop
        if not unit > 0:
            raise ValueError(f"padding: expected some of the box to be left, found {padding}")
        w, h = max(round(unit * width), 1), max(round(unit * height), 1)
        left, top = round((x0 + x1 - w) / 2), round((y0 + y1 - h) / 2)
        return cls((left, top, left + w, top + h), (height, width))

    @classmethod
    def whole(cls, image_size: tuple[int, int], size: int | tuple[int, int]) -> Crop:
        """The crop that holds a whole image (height, width), without padding beyond its proportions."""
        return cls.around((0.0, 0.0, float(image_size[1]), float(image_size[0])), size, padding=0)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the crop a pixel of the image, along x and y."""
        x0, y0, x1, y1 = self.box
        return self.size[1] / (x1 - x0), self.size[0] / (y1 - y0)

    def to_crop(self, points: Tensor) -> Tensor:
        """Points (..., 2) of the image at their places in the crop."""
        points = as_floats(points, "points")
        check_shape(points, "... N 2", "points")
        return (points - points.new_tensor(self.box[:2])) * points.new_tensor(self.scale)

    def to_image(self, points: Tensor) -> Tensor:
        """Points (..., 2) of the crop at their places in the image."""
        points = as_floats(points, "points")
        check_shape(points, "... N 2", "points")
        return points / points.new_tensor(self.scale) + points.new_tensor(self.box[:2])

    def cut(self, image: Tensor, *, fill: float = 0.0, nearest: bool = False) -> Tensor:
        """The crop of a picture.

        Args:
            image: (..., C, H, W); floating, or of any type with `nearest`.
            fill: value outside the image.
            nearest: take the nearest pixel, for masks and numbers; otherwise bilinear, averaged where it shrinks.

        Returns:
            (..., C, height, width).

        Raises:
            TypeError, ValueError: not floating where it is interpolated, another shape.
        """
        if not nearest:
            check_float(image, "image")
        sizes = check_shape(image, "... C H W", "image")
        x0, y0, x1, y1 = self.box
        H, W = sizes["H"], sizes["W"]
        patch = image.new_full((*image.shape[:-2], y1 - y0, x1 - x0), fill)
        left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, W), min(y1, H)
        if right > left and bottom > top:
            patch[..., top - y0 : bottom - y0, left - x0 : right - x0] = image[..., top:bottom, left:right]
        return resized(patch, self.size, nearest=nearest)

    def paste(
        self, picture: Tensor, image_size: tuple[int, int], *, fill: float = 0.0, nearest: bool = False
    ) -> Tensor:
        """A picture of the crop back at its place in the image.

        Args:
            picture: (..., C, height, width), of the size of the crop or any other: it fills the box.
            image_size: (H, W).
            fill: value outside the crop.
            nearest: as in `cut`.

        Returns:
            (..., C, H, W).

        Raises:
            TypeError, ValueError: as `cut`.
        """
        if not nearest:
            check_float(picture, "picture")
        check_shape(picture, "... C h w", "picture")
        x0, y0, x1, y1 = self.box
        H, W = image_size
        patch = resized(picture, (y1 - y0, x1 - x0), nearest=nearest)
        out = picture.new_full((*picture.shape[:-2], H, W), fill)
        left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, W), min(y1, H)
        if right > left and bottom > top:
            out[..., top:bottom, left:right] = patch[..., top - y0 : bottom - y0, left - x0 : right - x0]
        return out


def resized(image: Tensor, size: tuple[int, int], *, nearest: bool = False) -> Tensor:
    """A picture (..., C, H, W) at another size (..., C, height, width).

    Args:
        image: floating, or of any type with `nearest`.
        size: (height, width).
        nearest: take the nearest pixel; otherwise bilinear, averaged where it shrinks.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    flat = image.reshape(-1, *image.shape[-3:])
    if nearest:
        H, W = image.shape[-2:]
        rows = ((torch.arange(size[0], device=image.device) + 0.5) * H / size[0]).long()
        cols = ((torch.arange(size[1], device=image.device) + 0.5) * W / size[1]).long()
        return image[..., rows, :][..., cols]
    out = torch.nn.functional.interpolate(
        flat, size=size, mode="bilinear", align_corners=False, antialias=True
    )
    return out.view(*image.shape[:-2], *size)


def check_box(box: Tensor | tuple[float, ...]) -> Tensor:
    """(4,) float64 x0, y0, x1, y1 with x0 < x1 and y0 < y1.

    Raises:
        TypeError, ValueError: another shape, NaN, an empty box.
    """
    box = as_floats(box, "box").double()
    check_shape(box, "4", "box")
    if not bool(torch.isfinite(box).all()) or not bool((box[2:] > box[:2]).all()):
        raise ValueError(f"box: expected finite x0 < x1 and y0 < y1, found {box.tolist()}")
    return box
