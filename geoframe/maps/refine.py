"""From the best coarse map to one on all vertices: all functions, bending, landmark coordinates, and the choice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from geoframe._threads import together
from geoframe.maps.candidates import Candidate
from geoframe.maps.landmark_coordinates import landmark_coordinates
from geoframe.maps.quality import GeodesicDistortion, coverage, dirichlet_energy, flipped_triangles
from geoframe.maps.shells import OPEN, shell_refine
from geoframe.maps.starts import Pair
from geoframe.maps.zoomout import zoomout
from geoframe.nearest import nearest
from geoframe.spectral.basis import Eigenbasis
from geoframe.surface.mesh import Mesh

FLIPPED = 0.25  # share of flipped triangles from which a map is taken for a mirror image, or partly one
ROUGHER = 1.5  # factor by which the Dirichlet energy may grow with all k functions; else they are dropped
HELD = 3.0  # weight of all landmarks together where they are rows of the fit, the surface having 1
# The last bending. Where all functions correspond, more intrinsic coordinates and finer displacements, at once on all
# vertices or from coarse to fine: which of the two is better depends on how far the poses are from each other. Chosen
# on half of the FAUST and TOSCA meshes and on a pose of the cat. Of a bent map, the last steps on all vertices: chosen
# on cat to lion, among four ways, so that its figures there flatter.
FINE: tuple[dict[str, Any], ...] = (
    {"sizes": (200, 200), "intrinsic": 128, "normals": (0.2, 0.2), "polish": 2},
    {"sizes": (60, 100, 150, 200), "intrinsic": 128, "normals": (0.5, 0.2), "polish": 1},
)
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
    tracks: list[Any] = together(
        lambda: _finer_21(pair, best, landmarks), lambda: _bent(pair, best, landmarks, distortion)
    )
    finer_21, first = tracks

    def last() -> Refined:
        return Refined(
            first.how, *shell_refine(pair.one, pair.two, first.p2p_21, first.p2p_12, one, two, **LAST)
        )

    if finer_21 is None:
        return [last()]
    tracks = together(last, lambda: _finer_12(pair, best, landmarks))
    bent, finer_12 = tracks
    finest = together(
        *(partial(shell_refine, pair.one, pair.two, finer_21, finer_12, one, two, **way) for way in FINE)
    )
    return [*(Refined("all functions", *maps) for maps in finest), bent]


def _finer_21(pair: Pair, best: Candidate, landmarks: Tensor | None) -> Tensor | None:
    """p2p_21 of all k functions; None where it is rougher than that of few, as the other way is then of no use."""
    every = torch.arange(pair.two.n_verts, device=pair.two.device)
    limit = ROUGHER * dirichlet_energy(pair.one, pair.two, pair.places_21(best.C_12, every))
    bases, samples = (pair.basis1, pair.basis2), (pair.samples1, pair.samples2)
    p2p_21 = _to_all_functions(best.C_12, bases, samples, landmarks)
    return None if dirichlet_energy(pair.one, pair.two, p2p_21) > limit else p2p_21


def _finer_12(pair: Pair, best: Candidate, landmarks: Tensor | None) -> Tensor:
    """p2p_12 of all k functions."""
    turned = None if landmarks is None else landmarks.flip(1)
    return _to_all_functions(best.C_21, (pair.basis2, pair.basis1), (pair.samples2, pair.samples1), turned)


def _bent(pair: Pair, best: Candidate, landmarks: Tensor | None, distortion: GeodesicDistortion) -> Refined:
    """The candidate's map bent, or that of landmark coordinates, whichever changes distances less."""
    marks = best.landmarks if landmarks is None else landmarks
    s1, s2 = pair.samples1, pair.samples2

    def bent(how: str, to_21: Tensor, to_12: Tensor, **options: Any) -> Refined:
        """From maps of the samples alone: the steps up to the last ones run on these."""
        start = _everywhere(pair.two, s2, to_21), _everywhere(pair.one, s1, to_12)
        found = shell_refine(pair.one, pair.two, *start, pair.basis1, pair.basis2, polish=0, **options)
        return Refined(how, *found)

    maps = []
    if marks is None or landmarks is not None:
        maps.append(bent("bent", pair.places_21(best.C_12, s2), pair.places_12(best.C_21, s1)))
    if marks is not None:
        f1, f2 = (landmark_coordinates(m, marks[:, i]) for i, m in enumerate((pair.one, pair.two)))
        start = nearest(f2[s2], f1)[0], nearest(f1[s1], f2)[0]
        maps.append(bent("landmark coordinates", *start, functions=(f1, f2)))
    return min(maps, key=lambda m: _change(pair, m, distortion))


def _change(pair: Pair, m: Refined, distortion: GeodesicDistortion) -> float:
    """The distortion of a map; where a surface is cut open, of what both have."""
    if max(pair.rims) < OPEN:
        return distortion(m.p2p_21, m.p2p_12)
    places_12 = m.p2p_12[distortion.probes1]
    return distortion.of_common(m.p2p_21[distortion.probes2], places_12, m.p2p_21[places_12])


def _everywhere(mesh: Mesh, at: Tensor, to: Tensor) -> Tensor:
    """(V,) a map of some vertices `at` (N,) on all: each vertex goes where the nearest of those goes."""
    out = to[nearest(mesh.verts, mesh.verts[at])[0]]
    out[at] = to
    return out


def _to_all_functions(
    C_12: Tensor,
    bases: tuple[Eigenbasis, Eigenbasis],
    samples: tuple[Tensor, Tensor],
    landmarks: Tensor | None,
) -> Tensor:
    """p2p_21 of all functions of two bases from a functional map of few, this way alone, landmarks held."""
    first, k = len(C_12), bases[0].k
    sizes = sorted({first, *range(first, k // 2, 8), *range(max(first, k // 2), k, 32), k})
    held: dict[str, Any] = {}
    if landmarks is not None:
        held = {"landmarks": landmarks, "landmark_weight": HELD}
    return zoomout(C_12, *bases, sizes=sizes, samples=samples, **held).p2p_21


def chosen(pair: Pair, maps: list[Refined], distortion: GeodesicDistortion) -> Refined:
    """The smoothest that changes distances least, of those that keep the outside outside, if any does."""

    def key(m: Refined) -> tuple[bool, float]:
        # over coverage, as a map is not smooth for sending much to little
        rough = dirichlet_energy(pair.one, pair.two, m.p2p_21) / coverage(pair.one, m.p2p_21)
        flipped = flipped_triangles(pair.one, pair.turned2, m.p2p_21) > FLIPPED
        return flipped, rough * _change(pair, m, distortion) ** 2

    return maps[0] if len(maps) == 1 else min(maps, key=key)
