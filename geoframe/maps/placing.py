"""Vertices placed by distances: on another surface, as far from the places of others as here.

Eigenfunctions of a surface of which a part is missing are other functions than those of the whole, near and far.
Distances are the same, but for those whose path went through what is missing; near a vertex there are hardly any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe.canonical.surface import Surface
from geoframe.maps.shells import rim_edges
from geoframe.nearest import nearest
from geoframe.surface.sampling import spread_vertices

# Lengths are over sqrt(area) of the surface that holds more. Chosen on five pairs of FAUST 081, 083, 084 and TOSCA's
# dogs with 30 % cut away (seeds 0 and 1), with seven landmarks.
NEAR = 0.02  # added to distances, the inverses of which are the weights of landmarks
ANCHORS = 150  # vertices by which others are placed
USED = 24  # of them, those of largest weight, for each vertex
# Standard deviations of the weights of anchors by their distance: of the passes before the first bending, and of those
# before the second.
REACH = ((0.2, 0.2, 0.15, 0.15), (0.1,))
SETTLING = 0.15  # likewise, where a map is looked through for leaps
SHORT, LONG = 0.05, 0.4  # distances between the places of anchors from which the scale is read
RIM = 0.1  # distance to the rim from which an anchor counts in full; at the rim for `LEAST`
LEAST = 0.05
TRUSTED = 3.0  # weight of a landmark beside an anchor far from the rim
ROBUST = 0.02  # difference of distances up to which its square counts, then itself
LEAP = 0.05  # misfit by which a place has to be worse than another one to be given up
CANDIDATES = 300  # places around the present one, among which the best is taken
BLOCK = 4_000_000  # differences held at a time


def placed_by_landmarks(part: Surface, whole: Surface, landmarks: Tensor, at: Tensor) -> Tensor:
    """Where vertices of a part lie on the whole, by their distances to landmarks.

    A vertex goes where the weighted sum of the differences of these distances is least, those to near landmarks
    counting most. The scale of the part is that at which three of four distances between landmarks are no longer than
    on the whole, as a path around what is missing is too long.

    Args:
        part: V vertices.
        whole: W vertices.
        landmarks: (L, 2) rows (vertex of the part, vertex of the whole).
        at: (N,) vertices of the part.

    Returns:
        (N,) vertices of the whole.
    """
    here, there = part.distances(landmarks[:, 0]), whole.distances(landmarks[:, 1])
    scale = _ratio(there[:, landmarks[:, 1]], here[:, landmarks[:, 0]], 0.0, torch.inf, 0.75)
    size = float(whole.area) ** 0.5
    here, there = here[:, at].double() * (scale / size), there.double() / size
    weights = 1 / (here + NEAR)
    weights /= weights.sum(0)
    out = []
    for rows in torch.arange(len(at)).split(max(1, BLOCK // there.numel())):
        gaps = (there[:, None] - here[:, rows, None]).abs_()
        out.append((weights[:, rows, None] * gaps).sum(0).argmin(1))
    return torch.cat(out)


@dataclass(frozen=True, eq=False)
class Anchors:
    """Vertices of a part by which others are placed, with where they lie on the whole.

    Attributes:
        part: the surface of which a part is missing.
        whole: the other one.
        here: (A, V) distances from the anchors to all vertices of the part, over sqrt(area) of the whole, at its scale.
        there: (A, W) distances from their places to all vertices of the whole, likewise.
        trust: (A,) how much each counts.
    """

    part: Surface
    whole: Surface
    here: Tensor
    there: Tensor
    trust: Tensor

    @classmethod
    def of(cls, part: Surface, whole: Surface, p2p: Tensor, landmarks: Tensor | None = None) -> Anchors:
        """Evenly spread vertices of the part and where a map takes them, and landmarks.

        Args:
            part: V vertices.
            whole: W vertices.
            p2p: (V,) for each vertex of the part one of the whole.
            landmarks: (L, 2) rows (vertex of the part, vertex of the whole), or None.
        """
        at = spread_vertices(part, ANCHORS)
        places, trust = p2p[at], _trust(part, at)
        if landmarks is not None:
            at, places = torch.cat([at, landmarks[:, 0]]), torch.cat([places, landmarks[:, 1]])
            trust = torch.cat([trust, trust.new_full((len(landmarks),), TRUSTED)])
        size = float(whole.area) ** 0.5
        here, there = part.distances(at).double() / size, whole.heat.rows(places).double() / size  # not kept
        here = here * _ratio(there[:, places], here[:, at], SHORT, LONG, 0.5)
        return cls(part, whole, here, there, trust)

    def placed(self, to: Tensor, at: Tensor, reach: float) -> Tensor:
        """(N,) the place near `to` (N,) at which distances to the anchors around fit best, of the vertices `at` (N,).

        Args:
            to: vertices of the whole.
            at: vertices of the part.
            reach: standard deviation of the weights of anchors by their distance.
        """
        around = nearest(self.whole.verts[to], self.whole.verts, k=min(CANDIDATES, self.whole.n_verts))[0]
        best = self._misfit(around, at, reach).argmin(1, keepdim=True)
        return around.gather(1, best)[:, 0]

    def settled(self, to: Tensor, otherwise: Tensor) -> Tensor:
        """(V,) a map `to` (V,) of the part, but `otherwise` (V,) where distances fit that far better: a map that looks
        for what is near in space may leap from an arm to the side that it touches."""
        at = torch.arange(len(to), device=to.device)
        misfit = self._misfit(torch.stack([to, otherwise], 1), at, SETTLING)
        return torch.where(misfit[:, 0] > misfit[:, 1] + LEAP, otherwise, to)

    def _misfit(self, places: Tensor, at: Tensor, reach: float) -> Tensor:
        """(N, C) differences of distances to anchors, by weight, of vertices `at` (N,) at several places (N, C)."""
        here = self.here[:, at]
        weights = torch.exp(-here.square() / (2 * reach**2)) * self.trust[:, None]
        weights, used = weights.topk(min(USED, len(here)), dim=0)
        weights, used = (weights / weights.sum(0).clamp_min(1e-300)).T, used.T  # (N, U)
        goals = here.T.gather(1, used)
        out = []
        for rows in torch.arange(len(at)).split(max(1, BLOCK // (used.shape[1] * places.shape[1]))):
            gaps = (self.there[used[rows, :, None], places[rows, None, :]] - goals[rows, :, None]).abs_()
            out.append((weights[rows, :, None] * gaps.square() / (gaps + ROBUST)).sum(1))
        return torch.cat(out)


def placed_by_anchors(
    part: Surface,
    whole: Surface,
    p2p: Tensor,
    at: Tensor,
    landmarks: Tensor | None = None,
    *,
    reaches: Sequence[float] = REACH[0],
) -> Tensor:
    """A map from a part to the whole improved by distances to `Anchors`, in a few passes.

    Anchors near the rim count less: there a map may slide along the surface with nothing that holds it.

    Args:
        part: V vertices, with a rim.
        whole: W vertices.
        p2p: (V,) for each vertex of the part one of the whole; right on the whole.
        at: (N,) vertices of the part, far from each other, that are placed.
        landmarks: (L, 2) rows (vertex of the part, vertex of the whole), held as anchors, or None.
        reaches: standard deviation of the weights of anchors by their distance, pass by pass.

    Returns:
        (V,) the map; each vertex goes with the nearest of those that are placed.
    """
    near = nearest(part.verts, part.verts[at])[0]
    for reach in reaches:
        p2p = Anchors.of(part, whole, p2p, landmarks).placed(p2p[at], at, reach)[near]
    return p2p


def _ratio(there: Tensor, here: Tensor, low: float, high: float, quantile: float) -> float:
    """The quantile of ratios of distances (A, A), of those that lie between two bounds there."""
    some = (there > low) & (there < high) & there.isfinite() & here.isfinite() & (here > 0)
    return float((there[some] / here[some]).double().quantile(quantile)) if some.any() else 1.0


def _trust(surface: Surface, at: Tensor) -> Tensor:
    """(N,) in [LEAST, 1]: how far from the rim the vertices `at` (N,) are."""
    rim = rim_edges(surface).unique()
    if not len(rim):
        return torch.ones(len(at), dtype=torch.float64, device=surface.device)
    gap = nearest(surface.verts[at], surface.verts[rim])[1].double() / float(surface.area) ** 0.5
    return (gap / RIM).clamp(LEAST, 1.0)
