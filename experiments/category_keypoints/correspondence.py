"""Whether ordered keypoints are at corresponding places: exact, on procedural shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe.data import normalise
from geoframe.metrics import random_pairs
from geoframe.surface.clouds import gather_rows, nearest_sq
from geoframe.zoo import rigid
from geoframe.zoo.template import counterpart


def correspondence_distance(
    keypoints: Tensor, points: Tensor, canonical: Tensor, names: tuple[str, ...], *, pairs: int = 300
) -> float:
    """Mean distance, at scale 2, between keypoint k of shape b and the place on b of what it is nearest to on a.

    Pairs (k, a, b) are left out where b has no such place, or where keypoint k is NaN, not found, on a or b.

    Args:
        keypoints: (n, K, 3), points: (n, N, 3), both in the aligned and normalised frame of each shape.
        canonical: (n, N, 3) names of the surface points. names: "CATEGORY_SEED" of each shape.
    """
    at = gather_rows(canonical, nearest_sq(keypoints.nan_to_num(), points)[1])  # (n, K, 3)
    known = keypoints.isfinite().all(-1)
    chosen = random_pairs(len(points), pairs)
    found = []
    for b in chosen[:, 1].unique().tolist():
        category, seed = names[b].rsplit("_", 1)
        member = rigid.sample(category, int(seed))
        raw, _, _ = rigid.sample_points(category, int(seed), points.shape[1])
        _, centre, half = normalise(raw)
        for a in chosen[chosen[:, 1] == b, 0].tolist():
            place, exists = counterpart(member, at[a].double(), tolerance=1e-3)
            off = ((place - centre) / half - keypoints[b]).norm(dim=-1)
            found.append(off[exists & known[a] & known[b]])
    return float(torch.cat(found).mean())
