"""What `fit_template` is given, checked and in the dtype of the mesh."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_finite, check_float, check_shape
from geoframe.camera import Camera
from geoframe.fitting.points import landmark_weights
from geoframe.fitting.views import Marks
from geoframe.surface.mesh import Mesh


def checked_masks(
    mesh: Mesh, masks: Tensor, weights: Tensor | None, cameras: Camera | None
) -> tuple[Tensor, Tensor]:
    """Masks and weights of their pixels, in the dtype of the mesh."""
    check_shape(mesh.verts, "V 3", "mesh.verts")
    masks = _floating(masks, "masks", mesh)
    N, H, W = (check_shape(masks, "N H W", "masks")[k] for k in "NHW")
    weights = torch.ones_like(masks) if weights is None else _floating(weights, "weights", mesh)
    check_shape(weights, f"{N} {H} {W}", "weights")
    for name, x in (("masks", masks), ("weights", weights)):
        if x.device != mesh.device:
            raise ValueError(
                f"{name}: expected on the mesh's device {mesh.device}, found {x.device}; move them with .to(...)"
            )
        if not bool(torch.isfinite(x).all()):
            raise ValueError(
                f"{name}: expected finite numbers, found NaN or infinity; give unknown pixels weight 0 in weights"
            )
    low, high = (float(x) for x in masks.detach().aminmax())
    if low < -1e-3 or high > 1 + 1e-3:  # but for rounding
        raise ValueError(
            f"masks: expected values in [0, 1], found {low:.4g} to {high:.4g}; divide 8-bit images by 255"
        )
    if bool((weights < 0).any()):
        raise ValueError(f"weights: expected numbers of at least 0, found {float(weights.min()):.3g}")
    if not bool(((masks >= 0.5) & (weights > 0)).any(2).any(1).all()):
        raise ValueError(
            "masks: expected something in every mask (values in [0, 1]), found an empty one; drop it"
        )
    if cameras is not None and (cameras.batch_shape != (N,) or cameras.size != (H, W)):
        raise ValueError(
            f"cameras: expected batch ({N},) and size {(H, W)} as masks, found {tuple(cameras.batch_shape)} "
            f"and {cameras.size}"
        )
    return masks, weights


def _floating(x: Tensor, name: str, mesh: Mesh) -> Tensor:
    """A tensor, array, list or boolean mask in the mesh's dtype, on its own device."""
    x = as_tensor(x, name, like=mesh.verts)
    x = x.to(mesh.dtype) if x.dtype == torch.bool else x
    return check_float(x, name).to(mesh.dtype)


class ImageLandmarks(NamedTuple):
    """2D landmarks of the views of one object, for `fit_template`.

    Attributes:
        points: (N, L, 2) pixels; NaN is allowed where a landmark is not seen.
        vertices: (L,) int64 vertex of each landmark; or (L, V) weights that sum to one along V, for landmarks between
            vertices.
        visibility: (N, L) weights, at least 0; 0 for landmarks that are not seen. None for ones.
        weight: of the mean squared landmark distance, in units of the root of the masks' area, against the share of
            the area where silhouette and mask differ.
    """

    points: Tensor
    vertices: Tensor
    visibility: Tensor | None = None
    weight: float = 10.0


def checked_marks(mesh: Mesh, masks: Tensor, landmarks: ImageLandmarks | None) -> Marks | None:
    """The landmarks in the dtype of the mesh."""
    if landmarks is None:
        return None
    if not isinstance(landmarks, ImageLandmarks):
        raise TypeError(
            f"landmarks: expected ImageLandmarks(points, vertices), found {type(landmarks).__name__}; wrap them"
        )
    points = _floating(landmarks.points, "landmarks.points", mesh)
    L = check_shape(points, f"{len(masks)} L 2", "landmarks.points")["L"]
    places = landmark_weights(mesh, landmarks.vertices, L)
    seen = landmarks.visibility
    v = torch.ones_like(points[..., 0]) if seen is None else _floating(seen, "landmarks.visibility", mesh)
    check_shape(v, f"{len(masks)} {L}", "landmarks.visibility")
    if bool((v < 0).any()):
        raise ValueError(f"landmarks.visibility: expected weights of at least 0, found {float(v.min()):.3g}")
    points = torch.where(v[..., None] > 0, points, 0.0)  # hidden ones may be NaN
    for name, x in (("landmarks.points", points), ("landmarks.visibility", v)):
        check_finite(x, name)
    if not landmarks.weight >= 0:
        raise ValueError(f"landmarks.weight: expected a number of at least 0, found {landmarks.weight}")
    return Marks(points, v, places, float(landmarks.weight))
