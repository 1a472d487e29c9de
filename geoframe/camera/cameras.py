"""Cameras: how points of the world land on an image.

One convention throughout. Camera axes: x right, y down, z forward. Pixels: x right, y down, continuous, so that
the centre of the first pixel is (0.5, 0.5) and the image is [0, W] x [0, H]. ``R_wc`` takes the world to the camera.
A camera is a frozen dataclass of tensors whose leading dimensions are a batch; `size` is (H, W).

`WeakPerspective`: ``u = scale * (R_wc X)_xy + t``; depth ``(R_wc X)_z`` in world units, from the world's origin.
`Pinhole`:         ``Y = R_wc X + t``, ``u = focal * Y_xy / Y_z + principal``; depth ``Y_z``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from geoframe._check import as_tensor, broadcast_shapes, check_float, check_int, check_shape
from geoframe._precision import full_precision
from geoframe.transforms import reflection


@dataclass(frozen=True, eq=False)
class _Camera:
    _RANKS: ClassVar[
        tuple[int, ...]
    ]  # dimensions of each tensor behind those of the batch, in the order of the fields

    R_wc: Tensor
    t: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions, those of all tensors broadcast together."""
        return broadcast_shapes(
            **{
                k: x.shape[: x.ndim - n]
                for (k, x), n in zip(self.tensors().items(), self._RANKS, strict=True)
            }
        )

    def tensors(self) -> dict[str, Tensor]:
        """All fields but `size`, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "size"}

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast like `torch.Tensor.to`."""
        return replace(self, **{n: x.to(*args, **kwargs) for n, x in self.tensors().items()})

    def __getitem__(self, index: Any) -> Self:
        """The cameras of some batch members."""
        full = {
            name: x.expand(*self.batch_shape, *x.shape[x.ndim - n :])
            for (name, x), n in zip(self.tensors().items(), self._RANKS, strict=True)
        }
        return replace(self, **{name: x[index] for name, x in full.items()})


@dataclass(frozen=True, eq=False)
class WeakPerspective(_Camera):
    """Scaled orthographic camera, as in To-The-Point (section 3.1): ``u = scale * (R_wc X)_xy + t``.

    Fields are tensors, NumPy arrays or lists; half precision becomes float32.

    Attributes:
        R_wc: (..., 3, 3) world to camera.
        t: (..., 2) pixels, where the world's origin lands.
        scale: (...) pixels a world unit, positive.
        size: (H, W) of the image.

    Raises:
        TypeError: no floating numbers.
        ValueError: shapes, or dtypes and devices of two fields, that do not fit.
    """

    _RANKS = (2, 1, 0)

    scale: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_fields(self, {"R_wc": "... 3 3", "t": "... 2", "scale": "..."})

    @full_precision
    def project(self, points: Tensor) -> Tensor:
        """(..., N, 3) world points to (..., N, 3): pixel x, pixel y, depth; batches broadcast."""
        Y = _turn(self.R_wc, points)
        xy = self.scale[..., None, None] * Y[..., :2] + self.t[..., None, :]
        return torch.cat([xy, Y[..., 2:].expand(*xy.shape[:-1], 1)], -1)

    @full_precision
    def unproject(self, pixels: Tensor) -> Tensor:
        """Inverse of `project`: (..., N, 3) pixel x, y and depth to world points."""
        pixels = as_tensor(pixels, "pixels", like=self.R_wc)
        check_shape(check_float(pixels, "pixels"), "... N 3", "pixels")
        xy = (pixels[..., :2] - self.t[..., None, :]) / self.scale[..., None, None]
        return torch.cat([xy, pixels[..., 2:].expand(*xy.shape[:-1], 1)], -1) @ self.R_wc

    def resized(self, size: tuple[int, int]) -> WeakPerspective:
        """The same view on an image of another size and the same proportions.

        Args:
            size: (H, W) of the other image.

        Raises:
            ValueError: other proportions, which one scale cannot express.
        """
        sy, sx = size[0] / self.size[0], size[1] / self.size[1]
        if abs(sx / sy - 1) > 1e-9:
            raise ValueError(
                f"size: expected the proportions of {self.size}, found {size}; pad or crop first"
            )
        return replace(self, t=self.t * sx, scale=self.scale * sx, size=size)

    @full_precision
    def cropped(self, box: Tensor, size: tuple[int, int]) -> WeakPerspective:
        """The camera of the part of the image inside a box, resampled to another size.

        A pixel u of this image is pixel ``(u - corner) * size / extent`` of the other one.

        Args:
            box: (..., 4) pixels x0, y0, x1, y1; it may reach beyond the image. See `box_around`.
            size: (H, W) of the new image, of the proportions of the box.

        Returns:
            A camera whose batch is that of this one and the box, broadcast.

        Raises:
            ValueError: an empty box; other proportions than those of `size`, which one scale cannot express.
        """
        corner, ratio, size = _box_to_size(box, size, self.R_wc)
        if bool(((ratio[..., 0] / ratio[..., 1]).log().abs() > 1e-4).any()):
            raise ValueError(
                f"box: expected the proportions of size {size}, found others; use box_around(..., aspect=W / H)"
            )
        return replace(self, t=(self.t - corner) * ratio, scale=self.scale * ratio[..., 0], size=size)

    @full_precision
    def rolled(self, degrees: Tensor | float) -> WeakPerspective:
        """The camera of the image turned clockwise about its centre.

        Args:
            degrees: (...) angles.

        Returns:
            A camera whose batch is that of this one and the angles, broadcast.
        """
        roll, centre = _roll(degrees, self.size, self.R_wc)
        t = (roll @ (self.t - centre)[..., None])[..., 0] + centre
        return replace(self, R_wc=_about_axis(roll) @ self.R_wc, t=t)


@dataclass(frozen=True, eq=False)
class Pinhole(_Camera):
    """Perspective camera without distortion: ``Y = R_wc X + t``, ``u = focal * Y_xy / Y_z + principal``.

    Fields are tensors, NumPy arrays or lists; half precision becomes float32.

    Attributes:
        R_wc: (..., 3, 3) world to camera.
        t: (..., 3) world units.
        focal: (..., 2) pixels, along x and y.
        principal: (..., 2) pixels, where the optical axis meets the image.
        size: (H, W) of the image.

    Raises:
        TypeError: no floating numbers.
        ValueError: shapes, or dtypes and devices of two fields, that do not fit.
    """

    _RANKS = (2, 1, 1, 1)

    focal: Tensor
    principal: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_fields(self, {"R_wc": "... 3 3", "t": "... 3", "focal": "... 2", "principal": "... 2"})

    @property
    def centre(self) -> Tensor:
        """(..., 3) where the camera stands, in the world."""
        return -(self.t[..., None, :] @ self.R_wc)[..., 0, :]

    @full_precision
    def to_camera(self, points: Tensor) -> Tensor:
        """(..., N, 3) world points to camera axes (x right, y down, z forward); batches broadcast."""
        return _turn(self.R_wc, points) + self.t[..., None, :]

    @full_precision
    def to_image(self, points: Tensor) -> Tensor:
        """(..., N, 3) points in camera axes to pixel x, pixel y, depth. Depth zero gives infinite pixels."""
        points = as_tensor(points, "points", like=self.R_wc)
        xy = points[..., :2] / points[..., 2:] * self.focal[..., None, :] + self.principal[..., None, :]
        return torch.cat([xy, points[..., 2:].expand(*xy.shape[:-1], 1)], -1)

    @full_precision
    def project(self, points: Tensor) -> Tensor:
        """(..., N, 3) world points to (..., N, 3): pixel x, pixel y, depth; batches broadcast.

        A point behind the camera has negative depth and a pixel without meaning; `rasterize` clips first.
        """
        return self.to_image(self.to_camera(points))

    @full_precision
    def unproject(self, pixels: Tensor) -> Tensor:
        """Inverse of `project`: (..., N, 3) pixel x, y and depth to world points."""
        pixels = as_tensor(pixels, "pixels", like=self.R_wc)
        check_shape(check_float(pixels, "pixels"), "... N 3", "pixels")
        z = pixels[..., 2:]
        xy = (pixels[..., :2] - self.principal[..., None, :]) / self.focal[..., None, :] * z
        return (torch.cat([xy, z.expand(*xy.shape[:-1], 1)], -1) - self.t[..., None, :]) @ self.R_wc

    def resized(self, size: tuple[int, int]) -> Pinhole:
        """The same view on an image of another size.

        Args:
            size: (H, W) of the other image.
        """
        ratio = self.focal.new_tensor([size[1] / self.size[1], size[0] / self.size[0]])
        return replace(self, focal=self.focal * ratio, principal=self.principal * ratio, size=size)

    @full_precision
    def cropped(self, box: Tensor, size: tuple[int, int]) -> Pinhole:
        """The camera of the part of the image inside a box, resampled to another size.

        A pixel u of this image is pixel ``(u - corner) * size / extent`` of the other one.

        Args:
            box: (..., 4) pixels x0, y0, x1, y1; it may reach beyond the image. See `box_around`.
            size: (H, W) of the new image.

        Returns:
            A camera whose batch is that of this one and the box, broadcast.

        Raises:
            ValueError: an empty box.
        """
        corner, ratio, size = _box_to_size(box, size, self.R_wc)
        return replace(self, focal=self.focal * ratio, principal=(self.principal - corner) * ratio, size=size)

    @full_precision
    def rolled(self, degrees: Tensor | float) -> Pinhole:
        """The camera of the image turned clockwise about its centre.

        Args:
            degrees: (...) angles.

        Returns:
            A camera whose batch is that of this one and the angles, broadcast.

        Raises:
            ValueError: two focal lengths, whose picture cannot be turned.
        """
        if bool(((self.focal[..., 0] / self.focal[..., 1]).log().abs() > 1e-6).any()):
            raise ValueError("focal: expected equal numbers along x and y, found two; roll before resizing")
        roll, centre = _roll(degrees, self.size, self.R_wc)
        principal = (roll @ (self.principal - centre)[..., None])[..., 0] + centre
        turn = _about_axis(roll)
        return replace(self, R_wc=turn @ self.R_wc, t=(turn @ self.t[..., None])[..., 0], principal=principal)


Camera = WeakPerspective | Pinhole


@full_precision
def box_around(points: Tensor, *, margin: float = 0.1, aspect: float | None = 1.0) -> Tensor:
    """The box around points of an image, for `cropped`.

    Args:
        points: (..., N, 2) pixels, or (..., N, 3) as `project` returns them.
        margin: added on every side, as a share of the box's longer side.
        aspect: width over height, to which the shorter side is widened; None leaves the box as it is.

    Returns:
        (..., 4) pixels x0, y0, x1, y1.

    Raises:
        ValueError: no points; shapes that do not fit; aspect that is not positive.
    """
    points = check_float(as_tensor(points, "points"), "points")
    if points.ndim < 2 or points.shape[-1] not in (2, 3) or not points.shape[-2]:
        raise ValueError(
            f"points: expected shape (..., N, 2) or (..., N, 3) with N > 0, found {tuple(points.shape)}"
        )
    low, high = points[..., :2].amin(-2), points[..., :2].amax(-2)
    middle, extent = (low + high) / 2, high - low
    extent = extent + 2 * margin * extent.amax(-1, keepdim=True)
    if aspect is not None:
        if not aspect > 0:
            raise ValueError(f"aspect: expected a positive number, found {aspect}")
        width = torch.maximum(extent[..., 0], extent[..., 1] * aspect)
        extent = torch.stack([width, width / aspect], -1)
    return torch.cat([middle - extent / 2, middle + extent / 2], -1)


@full_precision
def look_at(
    eye: Tensor,
    target: Tensor | tuple[float, float, float] = (0.0, 0.0, 0.0),
    up: Tensor | tuple[float, float, float] = (0.0, 1.0, 0.0),
) -> tuple[Tensor, Tensor]:
    """Rotation and translation of a camera at `eye` that looks at `target`; the arguments broadcast.

    Args:
        eye: (..., 3) where the camera stands.
        target: (..., 3) what is in the middle of the image.
        up: (..., 3) direction of the world that points up in the image.

    Returns:
        ``R_wc`` (..., 3, 3) and ``t`` (..., 3).

    Raises:
        ValueError: `eye` is the target, or the view is along `up`.
    """
    eye = as_tensor(eye, "eye")
    check_shape(check_float(eye, "eye"), "... 3", "eye")
    target, up = (as_tensor(x, name, like=eye).to(eye) for x, name in ((target, "target"), (up, "up")))
    forward = target - eye
    distance = forward.norm(dim=-1, keepdim=True)
    right = torch.linalg.cross(*torch.broadcast_tensors(forward, up))
    least = 1e-6 * distance * up.norm(dim=-1, keepdim=True)
    if bool((right.norm(dim=-1, keepdim=True) <= least).any()):
        raise ValueError(
            "eye: expected a point off the axis through the target along up, found one on it; choose another up"
        )
    forward, right = forward / distance, right / right.norm(dim=-1, keepdim=True)
    forward = forward.expand_as(right)
    R_wc = torch.stack([right, torch.linalg.cross(forward, right), forward], -2)
    return R_wc, -(R_wc @ eye[..., None])[..., 0]


@full_precision
def pinhole_view(
    eye: Tensor,
    size: tuple[int, int],
    *,
    target: Tensor | tuple[float, float, float] = (0.0, 0.0, 0.0),
    up: Tensor | tuple[float, float, float] = (0.0, 1.0, 0.0),
    fov: float = 40.0,
) -> Pinhole:
    """A pinhole that looks at a point.

    Args:
        eye: (..., 3) where the camera stands.
        size: (H, W) of the image.
        target: (..., 3) what is in the middle of the image.
        up: (..., 3) direction of the world that points up in the image.
        fov: degrees that the shorter side of the image spans.

    Raises:
        ValueError: `fov` outside (0, 180); `eye` is the target, or the view is along `up`.
    """
    eye = as_tensor(eye, "eye")
    if not 0 < fov < 180:
        raise ValueError(f"fov: expected degrees between 0 and 180, found {fov}")
    R_wc, t = look_at(eye, target, up)
    H, W = check_size(size)
    focal = eye.new_full((2,), min(H, W) / 2 / math.tan(math.radians(fov) / 2))
    return Pinhole(R_wc, t, focal, eye.new_tensor([W / 2, H / 2]), size)


@full_precision
def weak_view(
    eye: Tensor,
    size: tuple[int, int],
    *,
    target: Tensor | tuple[float, float, float] = (0.0, 0.0, 0.0),
    up: Tensor | tuple[float, float, float] = (0.0, 1.0, 0.0),
    extent: float = 1.0,
) -> WeakPerspective:
    """Weak perspective from a direction.

    Args:
        eye: (..., 3) a point in the direction from which the camera looks.
        size: (H, W) of the image.
        target: (..., 3) what is in the middle of the image.
        up: (..., 3) direction of the world that points up in the image.
        extent: half of the world units that the shorter side of the image shows.

    Raises:
        ValueError: `eye` is the target, or the view is along `up`.
    """
    eye = as_tensor(eye, "eye")
    R_wc, _ = look_at(eye, target, up)
    H, W = check_size(size)
    scale = min(H, W) / 2 / extent
    middle = (R_wc @ as_tensor(target, "target", like=eye).to(eye)[..., None])[..., :2, 0]
    return WeakPerspective(R_wc, eye.new_tensor([W / 2, H / 2]) - scale * middle, eye.new_tensor(scale), size)


@full_precision
def mirrored(camera: Camera, normal: tuple[float, float, float] | Tensor = (1.0, 0.0, 0.0)) -> Camera:
    """The camera that sees the mirrored object as the flipped image: the second view of a bilateral object.

    With S the reflection ``X - 2 (n X) n`` through the origin, ``mirrored(c).project(S X)`` is ``c.project(X)``
    with x replaced by W - x. Its `R_wc` is a rotation again, so a symmetric object needs no other mesh.

    Args:
        camera: of the first view.
        normal: (3,) of the mirror plane through the origin.
    """
    n = as_tensor(normal, "normal", like=camera.R_wc).to(camera.R_wc)
    flip = n.new_tensor([-1.0, 1.0, 1.0])
    R_wc = flip[:, None] * (camera.R_wc @ reflection(n))
    W = camera.size[1]
    if isinstance(camera, Pinhole):
        principal = camera.principal * flip[:2] + flip.new_tensor([W, 0.0])
        return replace(camera, R_wc=R_wc, t=camera.t * flip, principal=principal)
    return replace(camera, R_wc=R_wc, t=camera.t * flip[:2] + flip.new_tensor([W, 0.0]))


def _turn(R_wc: Tensor, points: Tensor) -> Tensor:
    points = as_tensor(points, "points", like=R_wc)
    check_shape(check_float(points, "points"), "... N 3", "points")
    if points.dtype != R_wc.dtype:
        raise TypeError(f"points: expected dtype {R_wc.dtype} as the camera, found {points.dtype}; use .to()")
    return points @ R_wc.transpose(-1, -2)


def _box_to_size(box: Tensor, size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Corner (..., 2) of the box, new pixels an old one (..., 2), the size."""
    H, W = size = check_size(size)
    box = as_tensor(box, "box", like=like).to(like)
    check_shape(box, "... 4", "box")
    extent = box[..., 2:] - box[..., :2]
    if not bool((extent > 0).all()):
        raise ValueError("box: expected x0 < x1 and y0 < y1, found an empty one or NaN")
    return box[..., :2], box.new_tensor([W, H]) / extent, size


def _roll(degrees: Tensor | float, size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 2, 2) rotation of pixels, clockwise as y points down, and the image's centre (2,)."""
    angle = torch.as_tensor(degrees, dtype=like.dtype, device=like.device).deg2rad()
    c, s = angle.cos(), angle.sin()
    roll = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    return roll, like.new_tensor([size[1] / 2, size[0] / 2])


def _about_axis(roll: Tensor) -> Tensor:
    """(..., 3, 3) the rotation about the optical axis that turns pixels by `roll`."""
    turn = torch.eye(3, dtype=roll.dtype, device=roll.device).repeat(*roll.shape[:-2], 1, 1)
    turn[..., :2, :2] = roll
    return turn


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """Require (H, W), positive whole numbers."""
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise TypeError(f"size: expected a tuple (H, W), found {size!r}")
    return check_int(size[0], "size", low=1), check_int(size[1], "size", low=1)


def _check_fields(camera: Any, patterns: dict[str, str]) -> None:
    object.__setattr__(camera, "size", check_size(camera.size))
    like = camera.R_wc if isinstance(camera.R_wc, Tensor) else None
    for name, pattern in patterns.items():
        x = check_float(as_tensor(getattr(camera, name), name, like=like), name)
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        object.__setattr__(camera, name, x)
        like = x if like is None else like
        check_shape(x, pattern, name)
        if x.dtype != camera.R_wc.dtype or x.device != camera.R_wc.device:
            raise ValueError(
                f"{name}: expected {camera.R_wc.dtype} on {camera.R_wc.device} as R_wc, "
                f"found {x.dtype} on {x.device}; use .to()"
            )
