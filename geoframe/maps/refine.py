"""From the best coarse map to one on all vertices: all functions, bending, landmark coordinates, and the choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geoframe.maps.candidates import Candidate
from geoframe.maps.landmark_coordinates import landmark_coordinates
from geoframe.maps.quality import GeodesicDistortion, coverage, dirichlet_energy, flipped_triangles
from geoframe.maps.shells import shell_refine
from geoframe.maps.starts import Pair
from geoframe.maps.zoomout import zoomout
from geoframe.nearest import nearest

FLIPPED = 0.25  # share of flipped triangles from which a map is taken for a mirror image, or partly one
ROUGHER = 1.5  # factor by which the Dirichlet energy may grow with all k functions; else they are dropped
HELD = 3.0  # weight of all landmarks together where they are rows of the fit, the surface having 1
# The last bending. Where all functions correspond, more intrinsic coordinates and finer displacements: chosen on half
# of the FAUST and TOSCA meshes. Of a bent map, the last steps on all vertices: chosen on cat to lion,
# among four ways, so that its figures there flatter.
FINE: dict[str, Any] = {"sizes": (60, 100, 150, 200), "intrinsic": 128, "normals": (0.5, 0.2), "polish": 1}
LAST: dict[str, Any] = {"sizes": (80, 100, 100), "normals": (0.4, 0.2), "polish": 2}


@dataclass(frozen=True, eq=False)
class Refined:
    """A pair of vertex maps and the way it was refined."""

    how: str
    p2p_21: Tensor
    p2p_12: Tensor


def refined(
    pair: Pair, best: Candidate, landmarks: Tensor | None, distortion: GeodesicDistortion
) -> list[Refined]:
    """The candidate's map bent, or that of landmark coordinates, and the one of all functions if it stays smooth.

    Args:
        pair: the surfaces.
        best: the candidate.
        landmarks: (L, 2) given ones. Without, if the candidate comes from landmarks that a network named, these are
            taken for landmark coordinates, but not held; there are so many that bending alone was never better.
        distortion: of the two surfaces.
    """
    one, two = pair.basis1, pair.basis2
    every1, every2 = (torch.arange(s.n_verts, device=s.device) for s in (pair.one, pair.two))
    start = pair.places_21(best.C_12, every2), pair.places_12(best.C_21, every1)
    limit = ROUGHER * dirichlet_energy(pair.one, pair.two, start[0])
    finer = _to_all_functions(pair, best, landmarks, limit)
    marks = best.landmarks if landmarks is None else landmarks
    bent = []
    if marks is None or landmarks is not None:
        bent.append(Refined("bent", *shell_refine(pair.one, pair.two, *start, one, two, polish=0)))
    if marks is not None:
        f1, f2 = (landmark_coordinates(m, marks[:, i]) for i, m in enumerate((pair.one, pair.two)))
        start = nearest(f2, f1)[0], nearest(f1, f2)[0]
        found = shell_refine(pair.one, pair.two, *start, one, two, functions=(f1, f2), polish=0)
        bent.append(Refined("landmark coordinates", *found))
    first = min(bent, key=lambda m: distortion(m.p2p_21, m.p2p_12))
    last = shell_refine(pair.one, pair.two, first.p2p_21, first.p2p_12, one, two, **LAST)
    maps = [Refined(first.how, *last)]
    if finer is not None:
        maps.insert(0, Refined("all functions", *shell_refine(pair.one, pair.two, *finer, one, two, **FINE)))
    return maps


def _to_all_functions(
    pair: Pair, best: Candidate, landmarks: Tensor | None, limit: float
) -> tuple[Tensor, Tensor] | None:
    """p2p_21 and p2p_12 of all k functions, refined one way at a time, landmarks held; None where p2p_21 is rougher
    than the limit, as the other way is then of no use."""
    first, k = len(best.C_12), pair.basis1.k
    sizes = sorted({first, *range(first, k // 2, 8), *range(max(first, k // 2), k, 32), k})
    held: list[dict[str, Any]] = [{}, {}]
    if landmarks is not None:
        held = [{"landmarks": x, "landmark_weight": HELD} for x in (landmarks, landmarks.flip(1))]
    one, two, s1, s2 = pair.basis1, pair.basis2, pair.samples1, pair.samples2
    p2p_21 = zoomout(best.C_12, one, two, sizes=sizes, samples=(s1, s2), **held[0]).p2p_21
    if dirichlet_energy(pair.one, pair.two, p2p_21) > limit:
        return None
    return p2p_21, zoomout(best.C_21, two, one, sizes=sizes, samples=(s2, s1), **held[1]).p2p_21


def chosen(pair: Pair, maps: list[Refined], distortion: GeodesicDistortion) -> Refined:
    """The smoothest that changes distances least, of those that keep the outside outside, if any does."""

    def key(m: Refined) -> tuple[bool, float]:
        # over coverage, as a map is not smooth for sending much to little
        rough = dirichlet_energy(pair.one, pair.two, m.p2p_21) / coverage(pair.one, m.p2p_21)
        flipped = flipped_triangles(pair.one, pair.turned2, m.p2p_21) > FLIPPED
        return flipped, rough * distortion(m.p2p_21, m.p2p_12) ** 2

    return maps[0] if len(maps) == 1 else min(maps, key=key)
