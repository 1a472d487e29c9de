"""Cameras and coordinates of other programs: OpenCV, OpenGL, pytorch3d, and torch's normalised grids."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_float, check_shape
from geoframe._precision import full_precision
from geoframe.camera.cameras import Camera, Pinhole, WeakPerspective, check_size

_FLIP_YZ = (1.0, -1.0, -1.0)  # OpenGL's camera axes: y up, z backward
_FLIP_XY = (-1.0, -1.0, 1.0)  # pytorch3d's camera axes: x left, y up
_ORTHOGONAL = 5e-3  # R^T R of rotations written with three digits


@full_precision
def from_opencv(K: Tensor, R: Tensor, t: Tensor, size: tuple[int, int]) -> Pinhole:
    """Camera of OpenCV: ``Y = R X + t``.

    OpenCV counts pixel centres as integers, geoframe as integers + 0.5: the principal point moves by half a pixel.

    Args:
        K: (..., 3, 3) intrinsic matrix without skew.
        R: (..., 3, 3) rotation, world to camera.
        t: (..., 3).
        size: (H, W) of the image.

    Raises:
        ValueError: K has skew or its last row is not (0, 0, 1); R is scaled, sheared or left-handed.
    """
    K = as_tensor(K, "K")
    R, t = as_tensor(R, "R", like=K), as_tensor(t, "t", like=K)
    _check_rotation(R, "R")
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


@full_precision
def from_opengl(view: Tensor, projection: Tensor, size: tuple[int, int]) -> Camera:
    """Camera of OpenGL. Depth limits are dropped.

    Args:
        view: (..., 4, 4) world to eye for column vectors; y up, z backward.
        projection: (..., 4, 4) for column vectors.
        size: (H, W) of the image.

    Returns:
        A `Pinhole` for a perspective projection, a `WeakPerspective` for an orthographic one.

    Raises:
        ValueError: a projection with skew, or an orthographic one whose pixels would not be square; a view that
            scales, shears or mirrors.
    """
    view = as_tensor(view, "view")
    projection = as_tensor(projection, "projection", like=view)
    for x, name in ((view, "view"), (projection, "projection")):
        check_shape(check_float(x, name), "... 4 4", name)
    H, W = check_size(size)
    _check_rotation(view[..., :3, :3], "view")
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
    """(view, projection) of OpenGL, (..., 4, 4) each, for column vectors.

    Args:
        camera: any camera.
        near: depth that becomes -1.
        far: depth that becomes 1.
    """
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


@full_precision
def from_pytorch3d(R: Tensor, T: Tensor, focal: Tensor, principal: Tensor, size: tuple[int, int]) -> Pinhole:
    """Camera of pytorch3d: row vectors ``X R + T``, x left, y up; NDC spans [-1, 1] over the image's shorter side.

    Args:
        R: (..., 3, 3) rotation for row vectors.
        T: (..., 3).
        focal: (..., 2) in NDC.
        principal: (..., 2) in NDC.
        size: (H, W) of the image.

    Raises:
        ValueError: R is scaled, sheared or left-handed; shapes that do not fit.
    """
    H, W = check_size(size)
    R = as_tensor(R, "R")
    T, focal, principal = (
        as_tensor(x, name, like=R) for x, name in ((T, "T"), (focal, "focal"), (principal, "principal"))
    )
    _check_rotation(R, "R")
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


@full_precision
def ndc_to_pixels(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Normalised device coordinates of pytorch3d to pixels.

    Args:
        points: (..., 2) or (..., 3): x left, y up, the image's shorter side spanning [-1, 1]; a third column stays.
        size: (H, W) of the image.
    """
    H, W = check_size(size)
    points = as_tensor(points, "points")
    xy = points.new_tensor([W / 2, H / 2]) - points[..., :2] * (min(H, W) / 2)
    return torch.cat([xy, points[..., 2:]], -1)


@full_precision
def pixels_to_ndc(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels to normalised device coordinates of pytorch3d, the inverse of `ndc_to_pixels`.

    Args:
        pixels: (..., 2) or (..., 3): x right, y down; a third column stays.
        size: (H, W) of the image.
    """
    H, W = check_size(size)
    pixels = as_tensor(pixels, "pixels")
    xy = (pixels.new_tensor([W / 2, H / 2]) - pixels[..., :2]) / (min(H, W) / 2)
    return torch.cat([xy, pixels[..., 2:]], -1)


@full_precision
def pixels_to_normalised(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels to torch's normalised coordinates, as `grid_sample` takes them with align_corners=False.

    Args:
        pixels: (..., 2), x right, y down.
        size: (H, W) of the image.

    Returns:
        (..., 2), [-1, 1] over each side of the image.
    """
    H, W = check_size(size)
    pixels = as_tensor(pixels, "pixels")
    return pixels / pixels.new_tensor([W / 2, H / 2]) - 1


@full_precision
def normalised_to_pixels(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Torch's normalised coordinates to pixels, the inverse of `pixels_to_normalised`.

    Args:
        points: (..., 2), [-1, 1] over each side of the image.
        size: (H, W) of the image.
    """
    H, W = check_size(size)
    points = as_tensor(points, "points")
    return (points + 1) * points.new_tensor([W / 2, H / 2])


def _check_rotation(R: Tensor, name: str) -> None:
    """Require rotations (..., 3, 3), to three digits as files have them."""
    check_shape(check_float(R, name), "... 3 3", name)
    gram = R.detach().double().mT @ R.detach().double()
    off = float((gram - torch.eye(3, dtype=torch.float64, device=R.device)).abs().max()) if R.numel() else 0.0
    if not off < _ORTHOGONAL:
        raise ValueError(
            f"{name}: expected a rotation, found R^T R off the identity by {off:.3g}; divide by the scale, "
            "or project onto the nearest rotation (geoframe.transforms)"
        )
    if bool((torch.linalg.det(R.detach().double()) < 0).any()):
        raise ValueError(f"{name}: expected a rotation, found a reflection (determinant -1); flip one axis")
