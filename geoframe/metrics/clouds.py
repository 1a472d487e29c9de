"""How good ordered keypoints are: the measures of the category-keypoint papers, each exactly defined.

All take clouds (B, N, 3) of scale 2 (boxes with longest side 2 before they were turned), and return one number a
shape, (B,), unless said otherwise. The paper gives them in words only; where a word leaves a choice, ours is in
the docstring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_float, check_shape
from geoframe._types import Floats
from geoframe.surface.closest import closest_weights
from geoframe.surface.clouds import box, gather_rows, nearest_sq
from geoframe.surface.mesh import Mesh

INCLUSIVITY_REACH = math.sqrt(0.015)
# The paper's table 1: coverage, model error, correspondence and inclusivity in percent, symmetry error in degrees, N'.
PUBLISHED = {
    "chair": (88.83, 0.72, 100, 90.46, 0.40, 10),
    "table": (93.33, 0.99, 100, 93.38, 2.86, 6),
    "bed": (80.31, 0.94, 100, 95.33, 0.13, 6),
    "airplane": (89.15, 0.64, 100, 96.35, 0.20, 8),
    "car": (92.39, 0.72, 100, 97.77, 2.21, 8),
    "motorbike": (96.13, 0.79, 100, 90.53, 1.42, 8),
}


def coverage(keypoints: Tensor, points: Tensor) -> Tensor:
    """Volume of the keypoints' axis-aligned box over that of the cloud's: (B, K, 3), (B, N, 3) -> (B,) in [0, 1]."""
    return (_volume(*box(keypoints)) / _volume(*box(points)).clamp(min=1e-12)).clamp(max=1)


def box_overlap(keypoints: Tensor, points: Tensor) -> Tensor:
    """Intersection over union of the axis-aligned boxes of keypoints (B, K, 3) and cloud, in [0, 1]."""
    (low1, high1), (low2, high2) = box(keypoints), box(points)
    both = _volume(torch.maximum(low1, low2), torch.minimum(high1, high2))
    return both / (_volume(low1, high1) + _volume(low2, high2) - both).clamp(min=1e-12)


def points_covered(keypoints: Tensor, points: Tensor) -> Tensor:
    """Share of the cloud's points inside the keypoints' axis-aligned box: (B, K, 3), (B, N, 3) -> (B,) in [0, 1]."""
    low, high = box(keypoints)
    inside = (points >= low[:, None]) & (points <= high[:, None])
    return inside.all(-1).to(points.dtype).mean(-1)


def model_error(nodes: Tensor, keypoints: Tensor, *, squared: bool = True) -> Tensor:
    """Chamfer distance of nodes (B, M, 3) and keypoints (B, K, 3) over the scale 2: mean of both sides, then their sum.

    Args:
        squared: of squared distances, as in equation 5; else of distances.
    """
    sides = [nearest_sq(nodes, keypoints)[0], nearest_sq(keypoints, nodes)[0]]
    return sum((d if squared else d.sqrt()).mean(-1) for d in sides) / 2  # type: ignore[return-value]


def inclusivity(keypoints: Tensor, points: Tensor, *, reach: float = INCLUSIVITY_REACH) -> Tensor:
    """Share of the keypoints no farther than `reach` from the cloud: (B, K, 3), (B, N, 3) -> (B,) in [0, 1].

    The paper's threshold of 0.015 at scale 2 is read as a squared distance, so 0.122: the points of a cloud of
    2,000 are farther than 0.015 from each other. Given a dense sample of a mesh, pass ``reach=0.015``.
    """
    return (nearest_sq(keypoints, points)[0].sqrt() <= reach).to(points.dtype).mean(-1)


def surface_distance(keypoints: Tensor, surfaces: Sequence[Mesh]) -> Tensor:
    """Distance (B, K) of keypoints (B, K, 3) to the surface of their shape, exact; ``(d <= 0.015)`` is inclusivity.

    Args:
        surfaces: one a shape, in the frame of the keypoints.
    """
    if len(surfaces) != len(keypoints):
        raise ValueError(f"surfaces: expected {len(keypoints)}, one a shape, found {len(surfaces)}")
    rows = [
        _mesh_distance(k.double().cpu().numpy(), m.verts.double().cpu().numpy()[m.faces.cpu().numpy()])
        for k, m in zip(keypoints, surfaces, strict=True)
    ]
    return torch.as_tensor(np.stack(rows)).to(keypoints)


def _mesh_distance(points: Floats, corners: Floats) -> Floats:
    """(n,) distances of points (n, 3) to triangles (F, 3, 3), looking only where a bound does not exclude it."""
    centre = corners.mean(1)
    reach = np.linalg.norm(corners - centre[:, None], axis=-1).max(1)
    gap = np.linalg.norm(points[:, None] - centre, axis=-1)
    i, f = np.nonzero(gap - reach <= gap.min(1, keepdims=True))
    place = np.einsum("nc,ncd->nd", closest_weights(points[i], corners[f]), corners[f])
    nearest = np.full(len(points), np.inf)
    np.minimum.at(nearest, i, np.linalg.norm(points[i] - place, axis=-1))
    return nearest


def symmetry_error(normal: Tensor, rotation: Tensor, true_normals: Tensor, true_rotation: Tensor) -> Tensor:
    """Degrees (B,), 0 to 90, between the predicted plane of symmetry, turned with the cloud, and the nearest true one.

    Args:
        normal: (3,) of the canonical frame. rotation: (B, 3, 3) predicted, canonical to cloud.
        true_normals: (P, 3) in the frame of the data; a table has two. true_rotation: (B, 3, 3), data to cloud.
    """
    check_shape(true_normals, "P 3", "true_normals")
    found = rotation @ (normal / normal.norm())  # (B, 3)
    true = true_rotation @ (true_normals / true_normals.norm(dim=-1, keepdim=True)).mT  # (B, 3, P)
    sine = torch.linalg.cross(found[..., None].expand_as(true), true, dim=1).norm(dim=1)
    cosine = (found[..., None] * true).sum(1).abs()
    return torch.atan2(sine, cosine).rad2deg().amin(-1)


def asymmetry(points: Tensor, axis: int) -> Tensor:
    """Mean distance (B,) from the points of clouds (B, N, 3) to the mirror image of their cloud, coordinate `axis`
    negated."""
    mirror = points.new_ones(3)
    mirror[axis] = -1
    return nearest_sq(points, points * mirror)[0].sqrt().mean(-1)


def merge_keypoints(canonical: Tensor, *, distance: float = 0.2) -> Tensor:
    """Non-maximum suppression: (K,) int64 number of the group of every keypoint, groups by first member.

    Two keypoints whose distance, averaged over the shapes (n, K, 3), is below `distance` are linked, and what
    is linked is one group (single linkage, as the released code's DBSCAN). The number of groups is the paper's
    "definition" N'.
    """
    check_shape(check_float(canonical, "canonical"), "n K 3", "canonical")
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    gap = (canonical[:, :, None] - canonical[:, None]).norm(dim=-1).mean(0)
    _, group = connected_components(csr_array((gap < distance).cpu().numpy()), directed=False)
    first = {g: i for i, g in reversed(list(enumerate(group.tolist())))}
    rank = {g: i for i, g in enumerate(sorted(first, key=lambda g: first[g]))}
    return torch.tensor([rank[g] for g in group.tolist()], device=canonical.device)


def merged(keypoints: Tensor, group: Tensor) -> Tensor:
    """Means (B, N', 3) of the keypoints (B, K, 3) of each group (K,)."""
    member = torch.nn.functional.one_hot(group).to(keypoints.dtype)
    return torch.einsum("bkd,kg->bgd", keypoints, member / member.sum(0))


def repeatability(keypoints: Tensor, true_rotation: Tensor) -> Tensor:
    """Spread (K,) of every keypoint over the shapes, after undoing the known rotation, over the scale 2.

    Root mean square distance of keypoints (B, K, 3) turned back by true_rotation (B, 3, 3) to their mean. It
    holds the real variation of the shapes too. Keypoints that are NaN on a shape are left out there.
    """
    back = keypoints @ true_rotation
    return (back - back.nanmean(0)).square().sum(-1).nanmean(0).sqrt() / 2


def clusters(keypoints: Tensor, true_rotation: Tensor, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An order for keypoints that have none, by k-means as the paper does for its baseline.

    All keypoints (B, K, 3), turned back by true_rotation (B, 3, 3), are put into K clusters; a cluster is found
    on a shape if exactly one of the shape's keypoints is in it.

    Returns:
        ordered: (B, K, 3), the keypoint of every cluster, as given; NaN where it is not found.
        found: (B, K) bool; its mean is the correspondence of keypoints without order.
    """
    from scipy.cluster.vq import kmeans2

    B, K, _ = keypoints.shape
    flat = (keypoints @ true_rotation).reshape(-1, 3).double().cpu().numpy()
    best = None
    for i in range(5):
        centres, label = kmeans2(flat, K, minit="++", rng=seed + i)
        spread = float(((flat - centres[label]) ** 2).sum())
        if best is None or spread < best[0]:
            best = (spread, label)
    assert best is not None
    member = torch.nn.functional.one_hot(torch.as_tensor(best[1]).long().view(B, K), K)
    found = (member.sum(1) == 1).to(keypoints.device)
    ordered = torch.einsum("bkg,bkd->bgd", member.to(keypoints), keypoints)
    return torch.where(found[..., None], ordered, torch.nan), found


def semantic_consistency(keypoints: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Which part each keypoint lies on, over the shapes, by the label (B, N) of the nearest point.

    Keypoints that are NaN on a shape are left out there.

    Returns:
        matrix: (K, L) share of the shapes on which keypoint k lies on part l, the paper's figure 4.
        number: percent of (shape, keypoint) on the keypoint's most common part.
    """
    check_shape(labels, "B N", "labels")
    known = ~keypoints.isnan().any(-1)
    part = gather_rows(labels[..., None], nearest_sq(keypoints.nan_to_num(), points)[1])[..., 0]
    count = (torch.nn.functional.one_hot(part, int(labels.max()) + 1) * known[..., None]).sum(0)
    matrix = count.double() / count.sum(1, keepdim=True).clamp(min=1)
    return matrix, 100 * float(count.amax(1).sum() / known.sum().clamp(min=1))


def dual_alignment_score(keypoints: Tensor, points: Tensor, labels: Tensor, *, reference: int = 0) -> float:
    """Dual alignment score in percent: whether keypoint k lies on the same part as on a reference shape, both ways.

    Forward: the part at the reference's keypoint k is also at the shape's keypoint k. Backward: the reference's
    keypoint k is the nearest of its keypoints to some point of the part at the shape's keypoint k. Mean of both
    over shapes and keypoints.

    Source: after Shi et al. 2021 (Skeleton Merger), whose score this is for labelled parts.
    """
    part = gather_rows(labels[..., None], nearest_sq(keypoints, points)[1])[..., 0]
    forward = (part == part[reference]).double().mean()
    owner = nearest_sq(points[reference : reference + 1], keypoints[reference : reference + 1])[1][0]
    L = int(labels.max()) + 1
    near = torch.zeros(keypoints.shape[1], L, dtype=torch.bool, device=keypoints.device)
    near[owner, labels[reference]] = True
    K = torch.arange(keypoints.shape[1], device=keypoints.device)
    backward = near[K[None].expand_as(part), part].double().mean()
    return 50 * float(forward + backward)


def _volume(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)
