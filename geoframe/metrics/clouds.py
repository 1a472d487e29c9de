"""How good ordered keypoints are: the measures of the category-keypoint papers, each exactly defined.

Clouds have scale 2: the longest side of their box is 2 before they are rotated. Points are taken as tensors, arrays or
lists. Measures return one number a shape, (B,), unless said otherwise. The paper gives them in words only; where a word
leaves a choice, ours is in the docstring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geoframe._check import as_tensor, check_index, check_shape
from geoframe._types import Floats
from geoframe.surface.closest import closest_weights
from geoframe.surface.clouds import Points, as_cloud_pair, as_clouds, as_points, box, gather_rows, nearest_sq
from geoframe.surface.mesh import Mesh
from geoframe.transforms import rotation_about_axis

SURFACE_REACH = 0.015  # the paper's threshold of inclusivity, at scale 2, for distances to the surface
INCLUSIVITY_REACH = math.sqrt(SURFACE_REACH)  # the same read as a squared distance, for distances to points
# Of `symmetry_planes`: chairs of ModelNet10 have 0.7 and 4.6, tables 0.8 and 0.8, beds 0.8 and 1.25. Of half a turn in
# `symmetry_turns`: chairs 3.2, tables 0.9, beds 1.16.
_SYMMETRIC = 1.05
_KMEANS_STARTS = 5
# The paper's table 1: coverage, model error, correspondence and inclusivity in percent, symmetry error in degrees,
# number of keypoints.
PUBLISHED = {
    "chair": (88.83, 0.72, 100, 90.46, 0.40, 10),
    "table": (93.33, 0.99, 100, 93.38, 2.86, 6),
    "bed": (80.31, 0.94, 100, 95.33, 0.13, 6),
    "airplane": (89.15, 0.64, 100, 96.35, 0.20, 8),
    "car": (92.39, 0.72, 100, 97.77, 2.21, 8),
    "motorbike": (96.13, 0.79, 100, 90.53, 1.42, 8),
}


def box_coverage(keypoints: Points, points: Points) -> Tensor:
    """Volume of the keypoints' axis-aligned box over that of the cloud's, the paper's coverage.

    Args:
        keypoints: (B, K, 3).
        points: (B, N, 3).

    Returns:
        (B,) in [0, 1]; higher is better.

    Raises:
        TypeError: not floating.
        ValueError: another shape, batches of different length, an empty cloud or batch.
    """
    keypoints, points = as_cloud_pair(keypoints, points, ("keypoints", "points"))
    return (_volume(*box(keypoints)) / _volume(*box(points)).clamp(min=1e-12)).clamp(max=1)


def box_overlap(keypoints: Points, points: Points) -> Tensor:
    """Intersection over union of the axis-aligned boxes of keypoints and cloud.

    Args:
        keypoints: (B, K, 3).
        points: (B, N, 3).

    Returns:
        (B,) in [0, 1]; higher is better.

    Raises:
        TypeError, ValueError: as `box_coverage`.
    """
    keypoints, points = as_cloud_pair(keypoints, points, ("keypoints", "points"))
    (low1, high1), (low2, high2) = box(keypoints), box(points)
    both = _volume(torch.maximum(low1, low2), torch.minimum(high1, high2))
    return both / (_volume(low1, high1) + _volume(low2, high2) - both).clamp(min=1e-12)


def points_covered(keypoints: Points, points: Points) -> Tensor:
    """Share of the cloud's points inside the keypoints' axis-aligned box.

    Args:
        keypoints: (B, K, 3).
        points: (B, N, 3).

    Returns:
        (B,) in [0, 1]; higher is better.

    Raises:
        TypeError, ValueError: as `box_coverage`.
    """
    keypoints, points = as_cloud_pair(keypoints, points, ("keypoints", "points"))
    low, high = box(keypoints)
    inside = (points >= low[:, None]) & (points <= high[:, None])
    return inside.all(-1).to(points.dtype).mean(-1)


def model_error(nodes: Points, keypoints: Points, *, squared: bool = True) -> Tensor:
    """Chamfer distance of nodes and keypoints over the scale 2: the mean over each side, then their sum.

    Args:
        nodes: (B, M, 3).
        keypoints: (B, K, 3).
        squared: of squared distances, as in equation 5; else of distances.

    Returns:
        (B,) of at least 0; lower is better.

    Raises:
        TypeError, ValueError: as `box_coverage`.
    """
    nodes, keypoints = as_cloud_pair(nodes, keypoints, ("nodes", "keypoints"))
    sides = [nearest_sq(nodes, keypoints)[0], nearest_sq(keypoints, nodes)[0]]
    return sum((d if squared else d.sqrt()).mean(-1) for d in sides) / 2  # type: ignore[return-value]


def inclusivity(keypoints: Points, points: Points, *, reach: float = INCLUSIVITY_REACH) -> Tensor:
    """Share of the keypoints no farther than `reach` from the nearest point of the cloud.

    The paper's threshold of 0.015 at scale 2 is read as a squared distance, which gives 0.122: the points of a cloud of
    2,000 are farther than 0.015 from each other. For a dense sample of a surface pass ``reach=0.015``.

    Args:
        keypoints: (B, K, 3).
        points: (B, N, 3).
        reach: a length.

    Returns:
        (B,) in [0, 1]; higher is better.

    Raises:
        TypeError, ValueError: as `box_coverage`.
    """
    keypoints, points = as_cloud_pair(keypoints, points, ("keypoints", "points"))
    return (nearest_sq(keypoints, points)[0].sqrt() <= reach).to(points.dtype).mean(-1)


def surface_distance(keypoints: Points, surfaces: Sequence[Mesh]) -> Tensor:
    """Exact distance of keypoints to the surface of their shape; ``(d <= 0.015)`` is inclusivity.

    Args:
        keypoints: (B, K, 3).
        surfaces: B meshes, in the frame of the keypoints.

    Returns:
        (B, K) of at least 0.

    Raises:
        TypeError: not floating.
        ValueError: another shape, another number of meshes, a mesh without faces.
    """
    keypoints = as_clouds(keypoints, "keypoints")
    if len(surfaces) != len(keypoints):
        raise ValueError(f"surfaces: expected {len(keypoints)}, one a shape, found {len(surfaces)}")
    if empty := [i for i, mesh in enumerate(surfaces) if not len(mesh.faces)]:
        raise ValueError(f"surfaces: expected meshes with faces, found none in mesh {empty[0]}")
    rows = [
        _mesh_distance(k.double().cpu().numpy(), m.verts.double().cpu().numpy()[m.faces.cpu().numpy()])
        for k, m in zip(keypoints, surfaces, strict=True)
    ]
    return torch.as_tensor(np.stack(rows)).to(keypoints)


def symmetry_error(normal: Points, rotation: Points, true_normals: Points, true_rotation: Points) -> Tensor:
    """Angle between the predicted plane of symmetry, rotated with the cloud, and the nearest true one.

    Args:
        normal: (3,) of the predicted plane, in the canonical frame.
        rotation: (B, 3, 3) predicted, from the canonical frame to the cloud.
        true_normals: (P, 3) of the true planes, in the frame of the data; a table has two.
        true_rotation: (B, 3, 3) from the data to the cloud.

    Returns:
        (B,) degrees in [0, 90]; lower is better.

    Raises:
        TypeError: not floating.
        ValueError: another shape, no true plane.
    """
    true_normals = as_points(true_normals, "P 3", "true_normals")
    rotation, true_rotation = _rotations(rotation, "rotation"), _rotations(true_rotation, "true_rotation")
    normal = as_tensor(normal, "normal", like=rotation)
    check_shape(normal, "3", "normal")
    found = rotation @ (normal / normal.norm())  # (B, 3)
    true = true_rotation @ (true_normals / true_normals.norm(dim=-1, keepdim=True)).mT  # (B, 3, P)
    sine = torch.linalg.cross(found[..., None].expand_as(true), true, dim=1).norm(dim=1)
    cosine = (found[..., None] * true).sum(1).abs()
    return torch.atan2(sine, cosine).rad2deg().amin(-1)


def asymmetry(points: Points, axis: int) -> Tensor:
    """Mean distance from the points of a cloud to its mirror image.

    Args:
        points: (B, N, 3).
        axis: the coordinate that the mirror negates, 0 to 2.

    Returns:
        (B,) of at least 0; 0 for a cloud that is its own mirror image.

    Raises:
        TypeError, ValueError: as `box_coverage`.
    """
    points = as_clouds(points, "points")
    mirror = points.new_ones(3)
    mirror[axis] = -1
    return nearest_sq(points, points * mirror)[0].sqrt().mean(-1)


def symmetry_planes(points: Points, up: int = 2) -> tuple[int, ...]:
    """Normals of the vertical planes that aligned clouds are symmetric about: two of a table, one of a chair.

    A cloud is its own mirror image if its points are no farther from those of the image than points of two samples of
    one surface are from each other. That is asked of half the clouds.

    Args:
        points: (n, N, 3) aligned and centred; 64 of the clouds are looked at.
        up: the vertical axis, 0 to 2.

    Returns:
        Axes, 0 to 2, those of the smallest asymmetry first; none where nothing is symmetric.

    Raises:
        TypeError, ValueError: as `box_coverage`.
    """
    points = as_clouds(points, "points")[:64]
    halves = nearest_sq(points[:, ::2].contiguous(), points[:, 1::2].contiguous())[0].sqrt().mean(-1)
    usual = halves / 2**0.5  # between samples of twice as many points of a surface
    axes = [(up + 1) % 3, (up + 2) % 3]
    off = {axis: float((asymmetry(points, axis) / usual.clamp(min=1e-12)).median()) for axis in axes}
    return tuple(axis for axis in sorted(axes, key=lambda a: off[a]) if off[axis] <= _SYMMETRIC)


def symmetry_turns(points: Points, up: int = 2) -> int:
    """How many turns about the vertical leave aligned clouds alike: one of a chair, two of a table, any of a vase.

    A cloud is alike after a turn if one half of its points, turned, is no farther from the other half than it was. That
    is asked of half the clouds.

    Args:
        points: (n, N, 3) aligned and centred; 64 of the clouds are looked at.
        up: the vertical axis, 0 to 2.

    Returns:
        1 where no turn does but the whole one, 2 where half a turn does, 4 where a quarter of one does, and 36, every
        ten degrees, where any does.

    Raises:
        TypeError, ValueError: as `box_coverage`.
    """
    points = as_clouds(points, "points")[:64]
    one, other = points[:, ::2], points[:, 1::2]
    usual = nearest_sq(one, other)[0].sqrt().mean(-1).clamp(min=1e-12)

    def alike(degrees: float) -> bool:
        turned = one @ rotation_about_axis(points.new_tensor(math.radians(degrees)), up).mT
        return float((nearest_sq(turned, other)[0].sqrt().mean(-1) / usual).median()) <= _SYMMETRIC

    if not alike(180):
        return 1
    if not alike(90):
        return 2
    return 36 if alike(45) and alike(20) else 4


def merge_keypoints(canonical: Points, *, distance: float = 0.2) -> Tensor:
    """Non-maximum suppression: which keypoints are to be one.

    Two keypoints whose distance, averaged over the shapes, is below `distance` are linked, and what is linked is one
    group (single linkage, as the released code's DBSCAN). The number of groups is the paper's N', the number of
    keypoints of the category.

    Args:
        canonical: (n, K, 3) keypoints of n shapes in the common frame.
        distance: a length; 0.2 is the released code's.

    Returns:
        (K,) int64 number of the group of every keypoint; groups are numbered by their first member.

    Raises:
        TypeError: not floating.
        ValueError: another shape, no shapes or keypoints.
    """
    canonical = as_clouds(canonical, "canonical")
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    gap = (canonical[:, :, None] - canonical[:, None]).norm(dim=-1).mean(0)
    _, group = connected_components(csr_array((gap < distance).cpu().numpy()), directed=False)
    first = {g: i for i, g in reversed(list(enumerate(group.tolist())))}
    rank = {g: i for i, g in enumerate(sorted(first, key=lambda g: first[g]))}
    return torch.tensor([rank[g] for g in group.tolist()], device=canonical.device)


def merged(keypoints: Points, group: Tensor) -> Tensor:
    """Means of the keypoints of each group.

    Args:
        keypoints: (B, K, 3).
        group: (K,) int64, see `merge_keypoints`.

    Returns:
        (B, K', 3), K' the number of groups.

    Raises:
        TypeError: not floating.
        ValueError: another shape.
    """
    keypoints = as_points(keypoints, "B K 3", "keypoints")
    member = torch.nn.functional.one_hot(as_tensor(group, "group")).to(keypoints.dtype)
    return torch.einsum("bkd,kg->bgd", keypoints, member / member.sum(0))


def repeatability(keypoints: Points, true_rotation: Points) -> Tensor:
    """Spread of every keypoint over the shapes, after undoing the known rotations, over the scale 2.

    The root mean square distance of a keypoint to its mean. It holds the real variation of the shapes, too. Keypoints
    that are NaN on a shape are left out there.

    Args:
        keypoints: (B, K, 3).
        true_rotation: (B, 3, 3) from the data to the cloud.

    Returns:
        (K,) of at least 0; lower is better.

    Raises:
        TypeError: not floating.
        ValueError: another shape, an empty batch.
    """
    back = as_clouds(keypoints, "keypoints") @ _rotations(true_rotation, "true_rotation")
    return (back - back.nanmean(0)).square().sum(-1).nanmean(0).sqrt() / 2


def clusters(keypoints: Points, true_rotation: Points, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An order for keypoints that have none, by k-means, as the paper does for its baseline.

    All keypoints, after undoing the known rotations, are put into K clusters; a cluster is found on a shape if exactly
    one of the shape's keypoints is in it.

    Args:
        keypoints: (B, K, 3), unordered.
        true_rotation: (B, 3, 3) from the data to the cloud.
        seed: of the starts of k-means.

    Returns:
        ordered: (B, K, 3), the keypoint of every cluster, as given; NaN where it is not found.
        found: (B, K) bool; its mean is the correspondence of keypoints without order.

    Raises:
        TypeError: not floating.
        ValueError: another shape, an empty batch.
    """
    from scipy.cluster.vq import kmeans2

    keypoints = as_clouds(keypoints, "keypoints")
    true_rotation = _rotations(true_rotation, "true_rotation")
    B, K, _ = keypoints.shape
    flat = (keypoints @ true_rotation).reshape(-1, 3).double().cpu().numpy()
    best = None
    for i in range(_KMEANS_STARTS):
        centres, label = kmeans2(flat, K, minit="++", rng=seed + i)
        spread = float(((flat - centres[label]) ** 2).sum())
        if best is None or spread < best[0]:
            best = (spread, label)
    assert best is not None
    member = torch.nn.functional.one_hot(torch.as_tensor(best[1]).long().view(B, K), K)
    found = (member.sum(1) == 1).to(keypoints.device)
    ordered = torch.einsum("bkg,bkd->bgd", member.to(keypoints), keypoints)
    return torch.where(found[..., None], ordered, torch.nan), found


def semantic_consistency(keypoints: Points, points: Points, labels: Points) -> tuple[Tensor, float]:
    """Which part each keypoint lies on, over the shapes, by the label of the nearest point.

    Keypoints that are NaN on a shape are left out there.

    Args:
        keypoints: (B, K, 3).
        points: (B, N, 3).
        labels: (B, N) int64, the part of every point.

    Returns:
        matrix: (K, L) share of the shapes on which keypoint k lies on part l, the paper's figure 4.
        percent: of (shape, keypoint) that lie on the keypoint's most common part; higher is better.

    Raises:
        TypeError: not floating, labels that are not integers.
        ValueError: another shape, batches of different length, an empty cloud or batch.
    """
    keypoints, points = as_cloud_pair(keypoints, points, ("keypoints", "points"))
    labels = _labels(labels, points)
    known = ~keypoints.isnan().any(-1)
    part = gather_rows(labels[..., None], nearest_sq(keypoints.nan_to_num(), points)[1])[..., 0]
    count = (torch.nn.functional.one_hot(part, int(labels.max()) + 1) * known[..., None]).sum(0)
    matrix = count.double() / count.sum(1, keepdim=True).clamp(min=1)
    return matrix, 100 * float(count.amax(1).sum() / known.sum().clamp(min=1))


def dual_alignment_score(keypoints: Points, points: Points, labels: Points, *, reference: int = 0) -> float:
    """Dual alignment score: whether keypoint k lies on the same part as on a reference shape, both ways.

    Forward: the part at the reference's keypoint k is also at the shape's keypoint k. Backward: the reference's
    keypoint k is the nearest of its keypoints to some point of the part at the shape's keypoint k. The score is the
    mean of both over shapes and keypoints.

    Args:
        keypoints: (B, K, 3).
        points: (B, N, 3).
        labels: (B, N) int64, the part of every point.
        reference: number of the reference shape, in [0, B).

    Returns:
        Percent; higher is better.

    Raises:
        TypeError, ValueError: as `semantic_consistency`.

    Source: after Shi et al. 2021 (Skeleton Merger), whose score this is for labelled parts.
    """
    keypoints, points = as_cloud_pair(keypoints, points, ("keypoints", "points"))
    labels = _labels(labels, points)
    part = gather_rows(labels[..., None], nearest_sq(keypoints, points)[1])[..., 0]
    forward = (part == part[reference]).double().mean()
    owner = nearest_sq(points[reference : reference + 1], keypoints[reference : reference + 1])[1][0]
    L = int(labels.max()) + 1
    near = torch.zeros(keypoints.shape[1], L, dtype=torch.bool, device=keypoints.device)
    near[owner, labels[reference]] = True
    K = torch.arange(keypoints.shape[1], device=keypoints.device)
    backward = near[K[None].expand_as(part), part].double().mean()
    return 50 * float(forward + backward)


def left_out_errors(x: Points, y: Points, *, ridge: float = 1e-2) -> Tensor:
    """How far answers are from what a linear regression gives that was fitted to all others (leave-one-out).

    The penalty is chosen by no one: it is a share of the mean square of the inputs, which are centred first.

    Args:
        x: (n, P) inputs, one row a shape, such as flattened keypoints.
        y: (n, D) answers, such as a labelled place.
        ridge: weight of the squared coefficients, over the sum of the mean squares of the inputs.

    Returns:
        (n,) Euclidean distances.

    Raises:
        TypeError: not floating.
        ValueError: other shapes, fewer than three rows.
    """
    x, y = as_points(x, "n P", "x").double(), as_points(y, "n D", "y").double()
    if len(x) != len(y) or len(x) < 3:
        raise ValueError(f"x, y: expected at least three rows, as many of both, found {len(x)} and {len(y)}")
    centred, rest = x - x.mean(0), y - y.mean(0)
    penalty = ridge * centred.square().sum(1).mean().clamp(min=1e-12)
    gram = centred @ centred.mT
    hat = torch.linalg.solve(gram + penalty * torch.eye(len(x), dtype=gram.dtype, device=gram.device), gram)
    hat = hat + 1 / len(x)  # the mean is fitted, too
    left = (1 - hat.diagonal()).clamp(min=1e-9)
    return ((rest - hat @ rest) / left[:, None]).norm(dim=-1)


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


def _rotations(x: Points, name: str) -> Tensor:
    """(B, 3, 3) as a tensor."""
    return as_points(x, "B 3 3", name)


def _labels(labels: Points, points: Tensor) -> Tensor:
    """(B, N) int64 of points (B, N, 3) as a tensor."""
    out = as_tensor(labels, "labels")
    check_shape(out, f"{len(points)} {points.shape[1]}", "labels")
    check_index(out, 1 + int(out.max()), "labels", what="parts")
    return out.long()


def _volume(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)
