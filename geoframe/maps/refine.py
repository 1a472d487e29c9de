"""From the best coarse map to one on all vertices: all functions, bending, landmark coordinates, and the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from geoframe._threads import together
from geoframe.maps.candidates import Candidate
from geoframe.maps.landmark_coordinates import landmark_coordinates
from geoframe.maps.placing import REACH, Anchors, placed_by_anchors, placed_by_landmarks
from geoframe.maps.quality import GeodesicDistortion, coverage, dirichlet_energy, flipped_triangles
from geoframe.maps.shells import OPEN, shell_refine
from geoframe.maps.starts import Pair
from geoframe.maps.zoomout import ZoomoutResult, zoomout
from geoframe.nearest import nearest
from geoframe.spectral.basis import Eigenbasis
from geoframe.surface.mesh import Mesh

FLIPPED = 0.25  # share of flipped triangles from which a map is taken for a mirror image, or partly one
ROUGHER = 1.5  # factor by which the Dirichlet energy may grow with all k functions; else they are dropped
# Distortion below which surfaces are poses of one body, so that distances tell: cut people and dogs have 0.04 to 0.09,
# a person and a cut cat 0.3, which placing by distances made worse.
ISOMETRIC = 0.12
FAR_ROUGHER = 2.0  # times that, of half of them: TOSCA's michael3 to michael12 has 1.8, and 0.5 with all
# Distortion of the map of all functions below which they are taken to correspond, so that nothing else is tried: of
# half of FAUST and TOSCA (0.03 to 0.08) and of five pairs of species of the zoo (0.06 to 0.09) all had them as best.
ALIKE = 0.08
ENOUGH = 128  # functions from which on this holds: with few of them bent maps may be finer
TELLING = 4  # landmarks from which on distances to them tell where a vertex lies
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

    def exchanged(self) -> Refined:
        """The same with surface 2 as surface 1."""
        return Refined(self.how, self.p2p_12, self.p2p_21)


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
    finer = _finer(pair, best, landmarks)
    finest = [] if finer is None else [partial(_bent_finely, pair, finer, way) for way in FINE]
    if finer is not None and _is_settled(pair, finer, distortion):
        return together(*finest)
    several: list[Refined] = together(*_bent(pair, best, landmarks))
    first = min(several, key=lambda m: _change(pair, m, distortion))

    def last() -> Refined:
        return Refined(
            first.how, *shell_refine(pair.one, pair.two, first.p2p_21, first.p2p_12, one, two, **LAST)
        )

    marks = best.landmarks if landmarks is None else landmarks
    placed = [] if max(pair.rims) < OPEN else [_placed(pair, first, marks, distortion)]
    placed = [m for m in placed if _change(pair, m, distortion) < ISOMETRIC]
    return [*together(*finest, last), *placed]


def _is_settled(pair: Pair, finer: Refined, distortion: GeodesicDistortion) -> bool:
    """Whether the map of all functions is good enough to be the only one that is bent finely."""
    if max(pair.rims) >= OPEN or pair.basis1.k < ENOUGH or _change(pair, finer, distortion) >= ALIKE:
        return False
    return flipped_triangles(pair.one, pair.turned2, finer.p2p_21) <= FLIPPED


def _bent_finely(pair: Pair, finer: Refined, way: dict[str, Any]) -> Refined:
    """The maps of all functions bent in a way of `FINE`."""
    one, two = pair.basis1, pair.basis2
    return Refined(finer.how, *shell_refine(pair.one, pair.two, finer.p2p_21, finer.p2p_12, one, two, **way))


def _finer(pair: Pair, best: Candidate, landmarks: Tensor | None) -> Refined | None:
    """The maps of all k functions; None where they do not correspond."""
    dropped: list[bool] = []

    def to_1() -> Tensor | None:
        found = _finer_21(pair, best, landmarks)
        dropped.append(found is None)
        return found

    def to_2() -> Tensor | None:  # where the jobs run one after another the other one has told
        return None if any(dropped) else _finer_12(pair, best, landmarks)

    p2p_21, p2p_12 = together(to_1, to_2)
    return None if p2p_21 is None or p2p_12 is None else Refined("all functions", p2p_21, p2p_12)


def _placed(pair: Pair, first: Refined, marks: Tensor | None, distortion: GeodesicDistortion) -> Refined:
    """From the surface that is cut open to the other one by distances, bent in between, and the other way by that.

    Args:
        pair: the surfaces.
        first: a map to start from; where there are landmarks, the one they tell by distances is tried, too.
        marks: (L, 2) landmarks or None.
        distortion: of the two surfaces.
    """
    cut1 = pair.rims[0] > pair.rims[1]
    part, whole, at = (pair.one, pair.two, pair.samples1) if cut1 else (pair.two, pair.one, pair.samples2)
    if marks is not None and not cut1:
        marks = marks.flip(1)

    def bent(p2p: Tensor, **options: Any) -> Refined:
        back = nearest(whole.verts, whole.verts[p2p])[0]
        maps = (back, p2p) if cut1 else (p2p, back)
        found = shell_refine(pair.one, pair.two, *maps, pair.basis1, pair.basis2, **options)
        return Refined("distances", *found)

    def mine(m: Refined) -> Tensor:
        return m.p2p_12 if cut1 else m.p2p_21

    def improved(m: Refined, reaches: Sequence[float]) -> Refined:
        anchored = placed_by_anchors(part, whole, mine(m), at, marks, reaches=reaches)
        found = bent(anchored, **FINE[1])
        settled = Anchors.of(part, whole, anchored, marks).settled(mine(found), anchored)
        return replace(found, p2p_12=settled) if cut1 else replace(found, p2p_21=settled)

    starts = [first]
    if marks is not None and len(marks) >= TELLING:
        told = _everywhere(part, at, placed_by_landmarks(part, whole, marks, at))
        starts.append(bent(told, polish=0))
    maps = together(*(partial(improved, m, REACH[0]) for m in starts))
    return improved(min(maps, key=lambda m: _change(pair, m, distortion)), REACH[1])


def _finer_21(pair: Pair, best: Candidate, landmarks: Tensor | None) -> Tensor | None:
    """p2p_21 of all k functions; None where it is rougher than that of few, as the other way is then of no use.

    Where the map of half of them is far rougher already, the others are not looked at.
    """
    every = torch.arange(pair.two.n_verts, device=pair.two.device)
    limit = ROUGHER * dirichlet_energy(pair.one, pair.two, pair.places_21(best.C_12, every))
    bases, samples = (pair.basis1, pair.basis2), (pair.samples1, pair.samples2)
    C_12 = best.C_12
    for k in sorted({max(len(C_12), pair.basis1.k // 2), pair.basis1.k}):
        found = _to_functions(k, C_12, bases, samples, landmarks)
        most = limit if k == pair.basis1.k else FAR_ROUGHER * limit
        if dirichlet_energy(pair.one, pair.two, found.p2p_21) > most:
            return None
        C_12 = found.C_12
    return found.p2p_21


def _finer_12(pair: Pair, best: Candidate, landmarks: Tensor | None) -> Tensor:
    """p2p_12 of all k functions."""
    turned = None if landmarks is None else landmarks.flip(1)
    bases, samples = (pair.basis2, pair.basis1), (pair.samples2, pair.samples1)
    return _to_functions(pair.basis1.k, best.C_21, bases, samples, turned).p2p_21


def _bent(pair: Pair, best: Candidate, landmarks: Tensor | None) -> list[Callable[[], Any]]:
    """What makes the candidate's map bent, and that of landmark coordinates."""
    marks = best.landmarks if landmarks is None else landmarks
    s1, s2 = pair.samples1, pair.samples2

    def bent(how: str, to_21: Tensor, to_12: Tensor, **options: Any) -> Refined:
        """From maps of the samples alone: the steps up to the last ones run on these."""
        start = _everywhere(pair.two, s2, to_21), _everywhere(pair.one, s1, to_12)
        found = shell_refine(pair.one, pair.two, *start, pair.basis1, pair.basis2, polish=0, **options)
        return Refined(how, *found)

    def of_coordinates(marks: Tensor) -> Refined:
        f1, f2 = (landmark_coordinates(m, marks[:, i]) for i, m in enumerate((pair.one, pair.two)))
        start = nearest(f2[s2], f1)[0], nearest(f1[s1], f2)[0]
        return bent("landmark coordinates", *start, functions=(f1, f2))

    def of_candidate() -> Refined:
        return bent("bent", pair.places_21(best.C_12, s2), pair.places_12(best.C_21, s1))

    if marks is None:
        return [of_candidate]
    return [partial(of_coordinates, marks), *([of_candidate] if landmarks is not None else [])]


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


def _to_functions(
    k: int,
    C_12: Tensor,
    bases: tuple[Eigenbasis, Eigenbasis],
    samples: tuple[Tensor, Tensor],
    landmarks: Tensor | None,
) -> ZoomoutResult:
    """From a functional map of few to one of k functions of two bases, this way alone, landmarks held."""
    first, half = len(C_12), bases[0].k // 2
    sizes = {first, *range(first, half, 8), *range(max(first, half), k, 32), k}
    held: dict[str, Any] = {}
    if landmarks is not None:
        held = {"landmarks": landmarks, "landmark_weight": HELD}
    return zoomout(C_12, *bases, sizes=sorted(n for n in sizes if n <= k), samples=samples, **held)


def chosen(pair: Pair, maps: list[Refined], distortion: GeodesicDistortion) -> Refined:
    """The smoothest that changes distances least, of those that keep the outside outside, if any does."""

    def key(m: Refined) -> tuple[bool, float]:
        # over coverage, as a map is not smooth for sending much to little
        rough = dirichlet_energy(pair.one, pair.two, m.p2p_21) / coverage(pair.one, m.p2p_21)
        flipped = flipped_triangles(pair.one, pair.turned2, m.p2p_21) > FLIPPED
        return flipped, rough * _change(pair, m, distortion) ** 2

    return maps[0] if len(maps) == 1 else min(maps, key=key)
