"""From sparse matches to a dense flow that breaks where the image has edges.

Every pixel belongs to the match that is nearest to it along paths that avoid edges; every match fits an affine motion
to the matches near it in the same sense, and its pixels move by that.

Source: the locally affine interpolation of EpicFlow (Revaud et al. 2015). Differences: edges are image gradients
instead of a learned edge detector's, and the fit is made robust by reweighting instead of removing matches beforehand.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_finite, check_int, check_shape
from geoframe._types import Array
from geoframe.flow._interpolate_loops import fit_affine, nearest_seeds, nearest_through
from geoframe.flow.descriptors import gradients, smooth


def edge_strength(image: Tensor, *, sigma: float = 1.0, scale: float = 0.1) -> Tensor:
    """How much an edge each pixel is, in [0, 1).

    Args:
        image: (3, H, W) or (1, H, W) in [0, 1].
        sigma: of the smoothing, pixels.
        scale: the change per pixel, of all channels together, that counts as 0.63.

    Returns:
        (H, W).
    """
    gx, gy = gradients(smooth(image[None], sigma))
    size = (gx.square() + gy.square()).sum(1)[0].sqrt()
    return 1 - torch.exp(-size / scale)


def interpolate_matches(
    points0: Tensor,
    points1: Tensor,
    edges: Tensor,
    *,
    weights: Tensor | None = None,
    n_neighbours: int = 64,
    flat: float = 0.02,
    reach: float = 1.2,
    inlier: float = 1.5,
) -> tuple[Tensor, Tensor]:
    """A dense flow from matches.

    Args:
        points0: (N, 2) x and y in image 0, pixels.
        points1: (N, 2) in image 1.
        edges: (H, W) of image 0, as of `edge_strength`.
        weights: (N,) how far each match is trusted; by default all alike.
        n_neighbours: matches that an affine motion is fitted to, at most.
        flat: cost of a step of one pixel where there is no edge; an edge adds its strength.
        reach: a neighbour that is so many times as far as the twelfth nearest counts 1 / e.
        inlier: pixels; a match that is off by more counts little in a fit.

    Returns:
        flow: (2, H, W) float32.
        distance: (H, W) float32, cost of the way to the nearest match.

    Raises:
        ValueError: no matches, NaN, points of another shape.
    """
    H, W = edges.shape
    N = check_shape(points0, "N 2", "points0")["N"]
    check_shape(points1, f"{N} 2", "points1")
    if not N:
        raise ValueError(
            "points0: expected at least one match, found none; the images have nothing in common"
        )
    for name, x in (("points0", points0), ("points1", points1)):
        check_finite(x, name, remedy="leave such matches out")
    check_int(n_neighbours, "n_neighbours", low=1)
    p0, p1 = (x.double().numpy() for x in (points0, points1))
    trust = np.ones(N) if weights is None else weights.double().numpy()
    cost = (flat + edges.numpy()).astype(np.float32)
    column, line = (np.clip(p0[:, k].astype(np.int64), 0, n - 1) for k, n in ((0, W), (1, H)))
    label, distance = nearest_seeds(cost, line * W + column)
    start, to, length = _graph(label, distance, cost, N)
    near, far = nearest_through(start, to, length, min(n_neighbours, N))
    affine = fit_affine(near, far, p0, p1 - p0, trust, reach, inlier)
    centre = p0[label]
    rows, columns = np.mgrid[:H, :W] + 0.5
    own = affine[label]
    dx, dy = columns - centre[..., 0], rows - centre[..., 1]
    flow = own[..., 0, :] + own[..., 1, :] * dx[..., None] + own[..., 2, :] * dy[..., None]
    return torch.from_numpy(flow.astype(np.float32)).permute(2, 0, 1).contiguous(), torch.from_numpy(distance)


def _graph(label: Array, distance: Array, cost: Array, n: int) -> tuple[Array, Array, Array]:
    """Matches whose regions touch, as compressed rows: starts (N + 1,), neighbours, lengths."""
    pairs, lengths = [], []
    for a, b in (
        ((slice(None), slice(-1)), (slice(None), slice(1, None))),
        ((slice(-1),), (slice(1, None),)),
    ):
        la, lb = label[a], label[b]
        apart = la != lb
        i, j = la[apart], lb[apart]
        way = distance[a][apart] + distance[b][apart] + (cost[a][apart] + cost[b][apart]) / 2
        pairs += [i * n + j, j * n + i]
        lengths += [way, way]
    key, way = np.concatenate(pairs), np.concatenate(lengths)
    order = np.argsort(key, kind="stable")
    key, way = key[order], way[order]
    first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]]) if len(key) else np.zeros(0, np.int64)
    shortest = np.minimum.reduceat(way, first) if len(first) else way
    key = key[first]
    start = np.searchsorted(key, np.arange(n + 1) * n)
    return start, key % n, shortest
