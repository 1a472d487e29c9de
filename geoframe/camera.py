"""Cameras: how points of the world land on an image, and how other programs say the same.

One convention throughout. Camera axes: x right, y down, z forward. Pixels: x right, y down, continuous, so that
the centre of the first pixel is (0.5, 0.5) and the image is [0, W] x [0, H]. ``R_wc`` takes the world to the camera.
A camera is a frozen dataclass of tensors whose leading dimensions are a batch; `size` is (H, W).

`WeakPerspective`: ``u = scale * (R_wc X)_xy + t``; depth ``(R_wc X)_z`` in world units, from the world's origin.
`Pinhole`:         ``Y = R_wc X + t``, ``u = focal * Y_xy / Y_z + principal``; depth ``Y_z``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from geoframe._check import check_float, check_int, check_shape
from geoframe.transforms import reflection

_FLIP_YZ = (1.0, -1.0, -1.0)  # OpenGL's camera axes: y up, z backward
_FLIP_XY = (-1.0, -1.0, 1.0)  # pytorch3d's camera axes: x left, y up


@dataclass(frozen=True, eq=False)
class _Camera:
    R_wc: Tensor
    t: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        """Leading dimensions, those of all tensors broadcast together."""
        return torch.broadcast_shapes(
            *(x.shape[: x.ndim - n] for x, n in zip(self._tensors(), self._ranks(), strict=True))
        )

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, f.name) for f in fields(self) if f.name != "size"]

    def _ranks(self) -> tuple[int, ...]:
        raise NotImplementedError

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast like `torch.Tensor.to`."""
        names = [f.name for f in fields(self) if f.name != "size"]
        return replace(self, **{n: getattr(self, n).to(*args, **kwargs) for n in names})

    def __getitem__(self, index: Any) -> Self:
        """The cameras of some batch members."""
        names = [f.name for f in fields(self) if f.name != "size"]
        full = (
            x.expand(*self.batch_shape, *x.shape[x.ndim - n :])
            for x, n in zip(self._tensors(), self._ranks(), strict=True)
        )
        return replace(self, **{n: x[index] for n, x in zip(names, full, strict=True)})


@dataclass(frozen=True, eq=False)
class WeakPerspective(_Camera):
    """Scaled orthographic camera, as in To-The-Point (section 3.1): ``u = scale * (R_wc X)_xy + t``.

    Attributes:
        R_wc: (..., 3, 3) world to camera. t: (..., 2) pixels, where the world's origin lands.
        scale: (...) pixels a world unit, positive. size: (H, W) of the image.
    """

    scale: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_fields(self, {"R_wc": "... 3 3", "t": "... 2", "scale": "..."})

    def _ranks(self) -> tuple[int, ...]:
        return (2, 1, 0)

    def project(self, points: Tensor) -> Tensor:
        """(..., N, 3) world points to (..., N, 3): pixel x, pixel y, depth; batches broadcast."""
        Y = _turn(self.R_wc, points)
        xy = self.scale[..., None, None] * Y[..., :2] + self.t[..., None, :]
        return torch.cat([xy, Y[..., 2:].expand(*xy.shape[:-1], 1)], -1)

    def unproject(self, pixels: Tensor) -> Tensor:
        """Inverse of `project`: (..., N, 3) pixel x, y and depth to world points."""
        check_shape(check_float(pixels, "pixels"), "... N 3", "pixels")
        xy = (pixels[..., :2] - self.t[..., None, :]) / self.scale[..., None, None]
        return torch.cat([xy, pixels[..., 2:].expand(*xy.shape[:-1], 1)], -1) @ self.R_wc

    def resized(self, size: tuple[int, int]) -> WeakPerspective:
        """The same view on an image of another size and the same proportions.

        Raises:
            ValueError: other proportions, which one scale cannot express.
        """
        sy, sx = size[0] / self.size[0], size[1] / self.size[1]
        if abs(sx / sy - 1) > 1e-9:
            raise ValueError(
                f"size: expected the proportions of {self.size}, found {size}; pad or crop first"
            )
        return replace(self, t=self.t * sx, scale=self.scale * sx, size=size)


@dataclass(frozen=True, eq=False)
class Pinhole(_Camera):
    """Perspective camera without distortion: ``Y = R_wc X + t``, ``u = focal * Y_xy / Y_z + principal``.

    Attributes:
        R_wc: (..., 3, 3) world to camera. t: (..., 3) world units.
        focal, principal: (..., 2) pixels. size: (H, W) of the image.
    """

    focal: Tensor
    principal: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_fields(self, {"R_wc": "... 3 3", "t": "... 3", "focal": "... 2", "principal": "... 2"})

    def _ranks(self) -> tuple[int, ...]:
        return (2, 1, 1, 1)

    @property
    def centre(self) -> Tensor:
        """(..., 3) where the camera stands, in the world."""
        return -(self.t[..., None, :] @ self.R_wc)[..., 0, :]

    def to_camera(self, points: Tensor) -> Tensor:
        """(..., N, 3) world points to camera axes (x right, y down, z forward); batches broadcast."""
        return _turn(self.R_wc, points) + self.t[..., None, :]

    def to_image(self, points: Tensor) -> Tensor:
        """(..., N, 3) points in camera axes to pixel x, pixel y, depth. Depth zero gives infinite pixels."""
        xy = points[..., :2] / points[..., 2:] * self.focal[..., None, :] + self.principal[..., None, :]
        return torch.cat([xy, points[..., 2:].expand(*xy.shape[:-1], 1)], -1)

    def project(self, points: Tensor) -> Tensor:
        """(..., N, 3) world points to (..., N, 3): pixel x, pixel y, depth; batches broadcast.

        A point behind the camera has negative depth and a pixel without meaning; `rasterize` clips first.
        """
        return self.to_image(self.to_camera(points))

    def unproject(self, pixels: Tensor) -> Tensor:
        """Inverse of `project`: (..., N, 3) pixel x, y and depth to world points."""
        check_shape(check_float(pixels, "pixels"), "... N 3", "pixels")
        z = pixels[..., 2:]
        xy = (pixels[..., :2] - self.principal[..., None, :]) / self.focal[..., None, :] * z
        return (torch.cat([xy, z.expand(*xy.shape[:-1], 1)], -1) - self.t[..., None, :]) @ self.R_wc

    def resized(self, size: tuple[int, int]) -> Pinhole:
        """The same view on an image of another size."""
        ratio = self.focal.new_tensor([size[1] / self.size[1], size[0] / self.size[0]])
        return replace(self, focal=self.focal * ratio, principal=self.principal * ratio, size=size)


Camera = WeakPerspective | Pinhole


def look_at(
    eye: Tensor,
    target: Tensor | tuple[float, float, float] = (0.0, 0.0, 0.0),
    up: Tensor | tuple[float, float, float] = (0.0, 1.0, 0.0),
) -> tuple[Tensor, Tensor]:
    """Rotation ``R_wc (..., 3, 3)`` and translation ``t (..., 3)`` of a camera at `eye` that looks at `target`.

    The world's `up` direction points up in the image. All arguments (..., 3), broadcast.

    Raises:
        ValueError: `eye` is the target, or the view is along `up`.
    """
    check_shape(check_float(eye, "eye"), "... 3", "eye")
    target, up = (torch.as_tensor(x, dtype=eye.dtype, device=eye.device) for x in (target, up))
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


def pinhole_view(
    eye: Tensor,
    size: tuple[int, int],
    *,
    target: Tensor | tuple[float, float, float] = (0.0, 0.0, 0.0),
    up: Tensor | tuple[float, float, float] = (0.0, 1.0, 0.0),
    fov: float = 40.0,
) -> Pinhole:
    """A pinhole at `eye` (..., 3) that looks at `target`; `fov` in degrees spans the shorter side of the image."""
    if not 0 < fov < 180:
        raise ValueError(f"fov: expected degrees between 0 and 180, found {fov}")
    R_wc, t = look_at(eye, target, up)
    H, W = _check_size(size)
    focal = eye.new_full((2,), min(H, W) / 2 / math.tan(math.radians(fov) / 2))
    return Pinhole(R_wc, t, focal, eye.new_tensor([W / 2, H / 2]), size)


def weak_view(
    eye: Tensor,
    size: tuple[int, int],
    *,
    target: Tensor | tuple[float, float, float] = (0.0, 0.0, 0.0),
    up: Tensor | tuple[float, float, float] = (0.0, 1.0, 0.0),
    extent: float = 1.0,
) -> WeakPerspective:
    """Weak perspective from the direction of `eye` (..., 3), `target` in the middle of the image.

    The shorter side of the image shows 2 `extent` world units.
    """
    R_wc, _ = look_at(eye, target, up)
    H, W = _check_size(size)
    scale = min(H, W) / 2 / extent
    middle = (R_wc @ torch.as_tensor(target, dtype=eye.dtype, device=eye.device)[..., None])[..., :2, 0]
    return WeakPerspective(R_wc, eye.new_tensor([W / 2, H / 2]) - scale * middle, eye.new_tensor(scale), size)


def mirrored(camera: Camera, normal: tuple[float, float, float] | Tensor = (1.0, 0.0, 0.0)) -> Camera:
    """The camera that sees the mirrored object as the flipped image: the second view of a bilateral object.

    With S the reflection ``X - 2 (n X) n`` through the origin, ``mirrored(c).project(S X)`` is ``c.project(X)``
    with x replaced by W - x. Its `R_wc` is a rotation again, so a symmetric object needs no other mesh.
    """
    n = torch.as_tensor(normal, dtype=camera.R_wc.dtype, device=camera.R_wc.device)
    flip = n.new_tensor([-1.0, 1.0, 1.0])
    R_wc = flip[:, None] * (camera.R_wc @ reflection(n))
    W = camera.size[1]
    if isinstance(camera, Pinhole):
        principal = camera.principal * flip[:2] + flip.new_tensor([W, 0.0])
        return replace(camera, R_wc=R_wc, t=camera.t * flip, principal=principal)
    return replace(camera, R_wc=R_wc, t=camera.t * flip[:2] + flip.new_tensor([W, 0.0]))


def from_opencv(K: Tensor, R: Tensor, t: Tensor, size: tuple[int, int]) -> Pinhole:
    """Camera of OpenCV: K (..., 3, 3) without skew, ``Y = R X + t``.

    OpenCV counts pixel centres as integers, geoframe as integers + 0.5: the principal point moves by half a pixel.

    Raises:
        ValueError: K has skew or its last row is not (0, 0, 1).
    """
    check_shape(check_float(K, "K"), "... 3 3", "K")
    rest = K[..., [0, 1, 2, 2, 2], [1, 0, 0, 1, 2]]
    if not bool((rest == rest.new_tensor([0.0, 0, 0, 0, 1])).all()):
        raise ValueError("K: expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], found skew or another last row")
    return Pinhole(R, t, K[..., [0, 1], [0, 1]], K[..., :2, 2] + 0.5, size)


def to_opencv(camera: Pinhole) -> tuple[Tensor, Tensor, Tensor]:
    """(K, R, t) of OpenCV: (..., 3, 3), (..., 3, 3), (..., 3), pixel centres at integers."""
    focal, principal = torch.broadcast_tensors(camera.focal, camera.principal)
    K = torch.diag_embed(torch.cat([focal, torch.ones_like(focal[..., :1])], -1))
    K[..., :2, 2] = principal - 0.5
    return K, camera.R_wc, camera.t


def from_opengl(view: Tensor, projection: Tensor, size: tuple[int, int]) -> Camera:
    """Camera of OpenGL: column-vector `view` (world to eye; y up, z backward) and `projection`, (..., 4, 4).

    A perspective projection gives a `Pinhole`, an orthographic one a `WeakPerspective`. Depth limits are dropped.

    Raises:
        ValueError: a projection with skew, or an orthographic one whose pixels would not be square.
    """
    for x, name in ((view, "view"), (projection, "projection")):
        check_shape(check_float(x, name), "... 4 4", name)
    H, W = _check_size(size)
    half = view.new_tensor([W / 2, H / 2])
    sign = view.new_tensor(_FLIP_YZ)
    R_wc, t = sign[:, None] * view[..., :3, :3], sign * view[..., :3, 3]
    slope = projection[..., [0, 1], [0, 1]] * half
    if bool((projection[..., [0, 1], [1, 0]] != 0).any()):
        raise ValueError("projection: expected no skew, found one")
    last = projection[..., 3, :]
    if bool((last == last.new_tensor([0.0, 0, -1, 0])).all()):
        principal = half * (1 - projection[..., :2, 2] * view.new_tensor([1.0, -1.0]))
        return Pinhole(R_wc, t, slope, principal, size)
    if not bool((last == last.new_tensor([0.0, 0, 0, 1])).all()):
        raise ValueError("projection: expected a last row (0, 0, -1, 0) or (0, 0, 0, 1), found neither")
    if not torch.allclose(slope[..., 0], slope[..., 1], rtol=1e-4):
        raise ValueError(
            "projection: expected square pixels, found two scales; make size fit its proportions"
        )
    origin = half * (1 + projection[..., :2, 3] * view.new_tensor([1.0, -1.0]))
    return WeakPerspective(R_wc, origin + slope * t[..., :2], slope[..., 0], size)


def to_opengl(camera: Camera, *, near: float, far: float) -> tuple[Tensor, Tensor]:
    """(view, projection) of OpenGL, (..., 4, 4) for column vectors; depths near..far become -1..1."""
    H, W = camera.size
    batch = camera.batch_shape
    view = camera.R_wc.new_zeros(*batch, 4, 4)
    sign = view.new_tensor(_FLIP_YZ)
    view[..., :3, :3] = sign[:, None] * camera.R_wc
    view[..., 3, 3] = 1
    projection = torch.zeros_like(view)
    half = view.new_tensor([W / 2, H / 2])
    down = view.new_tensor([1.0, -1.0])
    if isinstance(camera, Pinhole):
        view[..., :3, 3] = sign * camera.t
        projection[..., [0, 1], [0, 1]] = camera.focal / half
        projection[..., :2, 2] = (1 - camera.principal / half) * down
        projection[..., 2, 2] = (far + near) / (near - far)
        projection[..., 2, 3] = 2 * far * near / (near - far)
        projection[..., 3, 2] = -1
    else:
        projection[..., [0, 1], [0, 1]] = camera.scale[..., None] / half
        projection[..., :2, 3] = (camera.t / half - 1) * down
        projection[..., 2, 2] = 2 / (near - far)
        projection[..., 2, 3] = (far + near) / (near - far)
        projection[..., 3, 3] = 1
    return view, projection


def from_pytorch3d(R: Tensor, T: Tensor, focal: Tensor, principal: Tensor, size: tuple[int, int]) -> Pinhole:
    """Camera of pytorch3d: row vectors ``X R + T``, x left, y up; focal (..., 2) and principal (..., 2) in NDC.

    NDC spans [-1, 1] over the shorter side of the image.
    """
    H, W = _check_size(size)
    sign = R.new_tensor(_FLIP_XY)
    half = min(H, W) / 2
    return Pinhole(
        sign[:, None] * R.transpose(-1, -2),
        sign * T,
        half * focal,
        R.new_tensor([W / 2, H / 2]) - half * principal,
        size,
    )


def to_pytorch3d(camera: Pinhole) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(R, T, focal, principal) of pytorch3d's PerspectiveCameras in NDC (row vectors, x left, y up)."""
    H, W = camera.size
    sign = camera.R_wc.new_tensor(_FLIP_XY)
    half = min(H, W) / 2
    principal = (camera.principal.new_tensor([W / 2, H / 2]) - camera.principal) / half
    return (
        (sign[:, None] * camera.R_wc).transpose(-1, -2),
        sign * camera.t,
        camera.focal / half,
        principal,
    )


def ndc_to_pixels(points: Tensor, size: tuple[int, int]) -> Tensor:
    """pytorch3d's NDC (..., 2 or 3; x left, y up, shorter side [-1, 1]) to pixels; a third column stays."""
    H, W = _check_size(size)
    xy = points.new_tensor([W / 2, H / 2]) - points[..., :2] * (min(H, W) / 2)
    return torch.cat([xy, points[..., 2:]], -1)


def pixels_to_ndc(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Inverse of `ndc_to_pixels`."""
    H, W = _check_size(size)
    xy = (pixels.new_tensor([W / 2, H / 2]) - pixels[..., :2]) / (min(H, W) / 2)
    return torch.cat([xy, pixels[..., 2:]], -1)


def pixels_to_normalised(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 2) pixels to [-1, 1] over each side, x right, y down: torch's grid with align_corners=False."""
    H, W = _check_size(size)
    return pixels / pixels.new_tensor([W / 2, H / 2]) - 1


def normalised_to_pixels(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Inverse of `pixels_to_normalised`."""
    H, W = _check_size(size)
    return (points + 1) * points.new_tensor([W / 2, H / 2])


def _turn(R_wc: Tensor, points: Tensor) -> Tensor:
    check_shape(check_float(points, "points"), "... N 3", "points")
    if points.dtype != R_wc.dtype:
        raise TypeError(f"points: expected dtype {R_wc.dtype} as the camera, found {points.dtype}; use .to()")
    return points @ R_wc.transpose(-1, -2)


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, tuple) or len(size) != 2:
        raise TypeError(f"size: expected a tuple (H, W), found {size!r}")
    return check_int(size[0], "size", low=1), check_int(size[1], "size", low=1)


def _check_fields(camera: Any, patterns: dict[str, str]) -> None:
    _check_size(camera.size)
    for name, pattern in patterns.items():
        x = check_float(getattr(camera, name), name)
        check_shape(x, pattern, name)
        if x.dtype != camera.R_wc.dtype or x.device != camera.R_wc.device:
            raise ValueError(
                f"{name}: expected {camera.R_wc.dtype} on {camera.R_wc.device} as R_wc, "
                f"found {x.dtype} on {x.device}; use .to()"
            )
