"""Measures of posed and deformed meshes against masks, keypoints and true shapes.

Source: the benchmark of To The Point's released code; 3D IoU as described with the evaluation of Tulsiani et al. 2017,
"Multi-view supervision for single-view reconstruction", on a 32^3 grid.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_float, check_int, check_shape
from geoframe._types import Array, Floats
from geoframe.surface.closest import TriangleTree
from geoframe.transforms import procrustes

_SHIFT = (0.7071e-6, 0.5772e-6)  # cells
_FACES = 256  # at once
REVERSED = 90.0  # degrees: a rotation farther off has front and back, or left and right, exchanged


def soft_iou(predicted: Tensor, true: Tensor) -> Tensor:
    """``sum(p t) / sum(p + t - p t)`` of masks in [0, 1], over the pixels of each image.

    Args:
        predicted: (n, H, W) p, such as soft silhouettes.
        true: (n, H, W) t.

    Returns:
        (n,) in [0, 1]; 1 where both are empty.
    """
    both = check_float(predicted, "predicted") * true.to(predicted.dtype)
    either = (predicted + true.to(predicted.dtype) - both).sum((-2, -1))
    return torch.where(either > 0, both.sum((-2, -1)) / either.clamp_min(1e-12), 1.0)


def keypoint_pck(
    predicted: Tensor, true: Tensor, visible: Tensor, size: Tensor | float, *, alpha: float = 0.1
) -> float:
    """Share of visible keypoints within `alpha` times the object's size, per keypoint, then averaged over keypoints.

    Args:
        predicted: (n, L, 2).
        true: (n, L, 2).
        visible: (n, L) bool; others do not count.
        size: (n,) or one number, the longer side of the object's box, in the unit of the points.
        alpha: the threshold.

    Returns:
        In [0, 1]; NaN where no keypoint is visible. A keypoint that is visible in no image does not count.
    """
    sizes = check_shape(check_float(predicted, "predicted"), "N L 2", "predicted")
    check_shape(true, f"{sizes['N']} {sizes['L']} 2", "true")
    check_shape(visible, f"{sizes['N']} {sizes['L']}", "visible")
    limit = torch.as_tensor(size, dtype=predicted.dtype).reshape(-1, 1) * alpha
    right = ((predicted - true).norm(dim=-1) <= limit) & visible
    seen = visible.sum(0)
    if not bool(seen.any()):
        return float("nan")
    return float((right.sum(0)[seen > 0] / seen[seen > 0]).mean())


def aligned(shapes: Tensor, true: Tensor) -> Tensor:
    """Shapes (n, V, 3) moved, turned and scaled, each on its own, so that their vertices are nearest to (n, V, 3)."""
    return procrustes(shapes, true, scale=True)(shapes)


def surface_error(shape: Tensor, true: Tensor, faces: Tensor) -> float:
    """Mean distance between two surfaces of one triangulation after a similarity alignment, in percent of the size.

    The mean of both directions, from vertices to the nearest point of the other surface. The size is the diagonal of
    the true shape's box.

    Args:
        shape: (V, 3).
        true: (V, 3), vertices in the same order.
        faces: (F, 3).
    """
    check_shape(shape, "V 3", "shape")
    x = aligned(shape.double()[None], true.double()[None])[0].numpy()
    y, table = true.double().numpy(), faces.numpy()
    size = float(np.linalg.norm(y.max(0) - y.min(0)))
    return 50.0 * (_away(x, TriangleTree(y, table)) + _away(y, TriangleTree(x, table))) / size


def _away(points: Floats, tree: TriangleTree) -> float:
    """Mean distance of points to a surface."""
    face, weights = tree.closest(points)
    return float(np.linalg.norm(tree.places(face, weights) - points, axis=1).mean())


def voxels(verts: Tensor, faces: Tensor, low: Tensor, side: float, *, n: int = 32) -> Array:
    """Which cells of a grid have their middle inside a closed mesh, (n, n, n) bool.

    Rays along z are cut with all triangles; a cell is inside where the crossings below it wind around it.

    Args:
        verts: (V, 3).
        faces: (F, 3), closed and oriented.
        low: (3,) the corner of the grid.
        side: its length.
        n: cells a side.
    """
    check_int(n, "n", low=1)
    unit = side / n
    x = (verts.double().numpy() - low.double().numpy()) / unit
    middle = np.arange(n) + 0.5
    u, v = (middle + shift for shift in _SHIFT)  # rays that pass no edge or vertex of a tidy mesh
    winding = np.zeros((n * n, n + 1))
    for part in np.array_split(faces.numpy(), max(len(faces) // _FACES, 1)):
        p, q, r = x[part].transpose(1, 2, 0)[..., None]  # (3, F, 1) each
        area = (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])
        safe = np.where(area == 0, 1.0, area)

        def share(a: Floats, b: Floats, safe: Floats = safe) -> Floats:
            """(F, n, n) the barycentric weight against the edge from a to b."""
            along_u = (u - a[0]) * (b[1] - a[1])
            along_v = (b[0] - a[0]) * (v - a[1])
            out: Floats = (along_u[:, :, None] - along_v[:, None, :]) / -safe[..., None]
            return out

        s, t = share(r, p), share(p, q)
        face, i, j = np.nonzero((s >= 0) & (t >= 0) & (s + t <= 1) & (area != 0)[..., None])
        s, t = s[face, i, j], t[face, i, j]
        z = p[2, face, 0] + s * (q[2] - p[2])[face, 0] + t * (r[2] - p[2])[face, 0]
        k = np.clip(np.ceil(z - 0.5), 0, n).astype(int)
        np.add.at(winding, (i * n + j, k), np.sign(area[face, 0]))
    inside: Array = np.abs(winding.cumsum(1)[:, :n]).reshape(n, n, n) > 0.5
    return inside


def iou_3d(shapes: Tensor, true: Tensor, faces: Tensor, *, n: int = 32) -> Tensor:
    """Overlap of predicted and true volumes in a canonical frame, on a grid of n^3 cells.

    The true shapes are each moved and scaled so that the box's middle is 0 and its longest side 1. Each prediction
    would need a translation and a scale of its own to fit its truth's box; the mean of these, one translation and one
    scale for all, is applied to every prediction.

    Args:
        shapes: (n_shapes, V, 3) predictions in the frame of the template.
        true: (n_shapes, V, 3) in the same frame.
        faces: (F, 3), closed and oriented.
        n: cells a side.

    Returns:
        (n_shapes,) in [0, 1].
    """

    def boxes(x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = x.amin(1), x.amax(1)
        return (low + high) / 2, high - low

    true, shapes = true.double(), shapes.double()
    middle, extent = boxes(true)
    true = (true - middle[:, None]) / extent.amax(1)[:, None, None]
    own, size = boxes(shapes)
    scale = (boxes(true)[1].prod(1) / size.prod(1).clamp_min(1e-12)).pow(1 / 3).mean()
    shapes = scale * shapes
    shapes = shapes - (scale * own).mean(0)
    low = torch.full((3,), -0.5, dtype=torch.float64)
    out = []
    for x, y in zip(shapes, true, strict=True):
        a, b = voxels(x, faces, low, 1.0, n=n), voxels(y, faces, low, 1.0, n=n)
        out.append(float((a & b).sum()) / max(float((a | b).sum()), 1.0))
    return torch.tensor(out)
