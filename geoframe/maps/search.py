"""The search for a map: what it starts from, how far candidates are taken, and which one is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from geoframe._threads import together
from geoframe.maps.candidates import Candidate, believed
from geoframe.maps.convert import p2p_to_fmap
from geoframe.maps.evidence import Evidence
from geoframe.maps.quality import (
    GeodesicDistortion,
    coverage,
    cycle_error,
    dirichlet_energy,
    flipped_triangles,
    orthogonality,
)
from geoframe.maps.ready import PROBES
from geoframe.maps.refine import Refined, chosen, refined
from geoframe.maps.starts import (
    MANY,
    Pair,
    Start,
    in_a_plane,
    oriented_start,
    starts_from_landmarks,
    starts_from_named_landmarks,
    starts_from_shape,
)
from geoframe.maps.verdict import SURE, confidence
from geoframe.surface.sampling import spread_vertices

TRIED = 3  # candidates, at most, that are taken to the end where the ones before are doubted
RETURNS = 500  # vertices whose way to the other surface and back is measured


@dataclass(frozen=True, eq=False)
class Found:
    """The map that was kept of several.

    Attributes:
        maps: those it was chosen from.
        best: the one that was kept.
        energies: its measures, see `Match`.
        confidence: the chance that it is right.
    """

    maps: list[Refined]
    best: Refined
    energies: dict[str, float]
    confidence: float


def begun(
    pair: Pair, landmarks: Tensor | None
) -> tuple[Evidence, list[Start], Callable[[], list[Start]] | None]:
    """What maps are compared with, the starts, and what makes more starts where they may be needed.

    Args:
        pair: the surfaces.
        landmarks: (L, 2) rows (vertex of 1, vertex of 2), or None.
    """

    def evidence() -> Evidence:
        return Evidence.of(pair.one, pair.two, GeodesicDistortion(pair.one, pair.two, n=PROBES))

    found: list[Any]
    if landmarks is None:
        found = together(evidence, lambda: starts_from_shape(pair), lambda: starts_from_named_landmarks(pair))
        return found[0], [*found[2], *found[1]], None

    def more() -> list[Start]:
        oriented = [] if len(landmarks) >= MANY else [oriented_start(pair, landmarks)]
        return [*oriented, *starts_from_named_landmarks(pair)]

    found = together(evidence, lambda: starts_from_landmarks(pair, landmarks))
    if in_a_plane(pair, landmarks):
        return found[0], [*found[1], oriented_start(pair, landmarks)], None
    return found[0], found[1], more


def surest(pair: Pair, candidates: list[Candidate], evidence: Evidence, most: int) -> Found:
    """The best candidate taken to the end; where it is doubted the next candidates that are different are tried as
    well, and the map of highest confidence is taken.

    Args:
        pair: the surfaces.
        candidates: the best first.
        evidence: of the two surfaces.
        most: how many are tried in all.
    """
    tried: list[Candidate] = []
    found: list[Found] = []
    for candidate in candidates:
        if any(not pair.differ(candidate.C_12, other.C_12) for other in tried):
            continue
        tried.append(candidate)
        found.append(judged(pair, refined(pair, candidate, None, evidence.distortion), evidence))
        if found[-1].confidence >= SURE or len(tried) == most:
            break
    return max(found, key=lambda f: f.confidence)


def by_landmarks(pair: Pair, candidates: list[Candidate], landmarks: Tensor, evidence: Evidence) -> Found:
    """The best candidate refined, held to the landmarks it believes; where its confidence is low also the next one,
    unless there are many landmarks and it is the same map. Of all their maps the best.

    Args:
        pair: the surfaces.
        candidates: the best first.
        landmarks: (L, 2) rows (vertex of 1, vertex of 2).
        evidence: of the two surfaces.
    """
    maps: list[Refined] = []
    for candidate in candidates[:2]:
        if maps and len(landmarks) >= MANY and not pair.differ(candidate.C_12, candidates[0].C_12):
            break  # of fewer landmarks a start that differs little may end elsewhere (a pose of the cat, from five)
        held = believed(pair, candidate, evidence, landmarks)
        maps += refined(pair, candidate, held, evidence.distortion)
        found = judged(pair, maps, evidence)
        if found.confidence >= SURE:
            break
    return found


def judged(pair: Pair, maps: list[Refined], evidence: Evidence) -> Found:
    """The best of several maps, its measures and confidence.

    Args:
        pair: the surfaces.
        maps: between them.
        evidence: of the two surfaces.
    """
    best = chosen(pair, maps, evidence.distortion)
    energies = measures(pair, best, evidence)
    return Found(list(maps), best, energies, confidence(energies))


def measures(pair: Pair, best: Refined, evidence: Evidence) -> dict[str, float]:
    """The `energies` of a `Match`: of large surfaces those of the map between their proxies.

    Args:
        pair: the surfaces.
        best: a map between them.
        evidence: of the two surfaces.
    """
    one, two, p2p_21, p2p_12 = pair.one, pair.two, best.p2p_21, best.p2p_12
    some = spread_vertices(two, RETURNS)
    back = cycle_error(two, p2p_21, p2p_12, vertices=some)
    equal_areas = (pair.basis1.mass.sum() / pair.basis2.mass.sum()).sqrt()
    return {
        "dirichlet": dirichlet_energy(one, two, p2p_21),
        "coverage": coverage(one, p2p_21),
        "cycle_error": float(back[back.isfinite()].mean()),
        "flipped_triangles": flipped_triangles(one, two, p2p_21),
        "orthogonality": orthogonality(p2p_to_fmap(p2p_21, pair.basis1, pair.basis2) * equal_areas),
        **evidence.measures(p2p_21, p2p_12),
    }
