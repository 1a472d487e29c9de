"""First maps refined to a few functions, and which of them looks right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import mean

import torch
from torch import Tensor

from geoframe._threads import together
from geoframe.maps.evidence import FAR, Evidence
from geoframe.maps.quality import flipped_triangles
from geoframe.maps.shells import OPEN
from geoframe.maps.starts import Pair, Start, gaps, spectral_energy
from geoframe.maps.verdict import astray
from geoframe.maps.zoomout import zoomed_fmaps, zoomout
from geoframe.spectral.basis import Eigenbasis

COARSE = 4  # the candidates are compared with k / COARSE functions
# Without landmarks, what tells a map from its mirror image and from one turned by half a circle counts beside the
# distortion; chosen on half of FAUST, the last on the choosing half of `experiments.verdict`.
TURNED, UNLIKE, MISNAMED = 0.2, 0.3, 1.0
SETTLED = 0.12  # distortion: right maps between poses are mostly below, right or wrong ones of species above
TURNED_LEAST = 0.2  # handedness correlation, of right maps mostly above
AGAINST = 0.03  # another start that is so much farther from given landmarks than the best contradicts them
FAR_OFF = 0.3  # distance of a landmark that is not believed: maps of few functions may be half as much off at a tail
KEPT_LEAST = 4  # landmarks that have to be left where others are not believed
DOUBTED = 1.1  # factor of the distortion of the oriented start: landmarks that tell are to be believed


@dataclass(frozen=True, eq=False)
class Candidate:
    """A pair of functional maps and how it compares with others; `landmarks` are those of its `Start`."""

    start: str
    C_12: Tensor
    C_21: Tensor
    energy: float
    terms: dict[str, float]
    landmarks: Tensor | None = None


def ranked(
    pair: Pair,
    starts: list[Start],
    evidence: Evidence,
    orientation: float,
    *,
    landmarks: Tensor | None = None,
    more: Callable[[], list[Start]] | None = None,
) -> list[Candidate]:
    """All starts refined to k / 4 functions on the samples, the best first.

    Args:
        pair: the surfaces.
        starts: at least one.
        evidence: of the two surfaces.
        orientation: weight of what tells a map from its mirror image; 0 with landmarks, which tell that themselves.
        landmarks: (L, 2) given ones.
        more: makes more starts, which is slow; tried only where none of the others is settled: where the best of them
            changes distances by more than `SETTLED`, turns left to right, or takes a landmark elsewhere.
    """
    bases = pair.sampled()
    found = together(*(partial(_candidate, pair, s, bases, evidence, orientation) for s in starts))
    if max(pair.rims) >= OPEN:
        found += together(*(partial(_one_way, pair, s, evidence, orientation) for s in starts))
    if more is not None:
        best = min(found, key=lambda c: c.energy)
        if not is_settled(pair, best, evidence, landmarks):
            others = together(*(partial(_candidate, pair, s, bases, evidence, orientation) for s in more()))
            if landmarks is not None:  # those of named landmarks may be mirrored, which given ones tell
                most = _off(pair, best, landmarks) + AGAINST
                others = [c for c in others if _off(pair, c, landmarks) <= most]
            found += others
    return sorted(found, key=lambda c: c.energy * (DOUBTED if c.start == "oriented" else 1.0))


def is_settled(pair: Pair, best: Candidate, evidence: Evidence, landmarks: Tensor | None = None) -> bool:
    """Whether a candidate changes distances little, keeps left and right, and takes no given landmark elsewhere."""
    at = pair.samples2
    if best.energy > SETTLED or evidence.handedness(pair.places_21(best.C_12, at), at) < TURNED_LEAST:
        return False
    return landmarks is None or not astray(_gaps(pair, best, landmarks))


def believed(pair: Pair, best: Candidate, evidence: Evidence, landmarks: Tensor) -> Tensor:
    """The given landmarks (L, 2) less those that a settled candidate takes far elsewhere, unless few are left."""
    found = _gaps(pair, best, landmarks)
    off = [i for i in astray(found) if found[i] > FAR_OFF]
    kept = [i for i in range(len(landmarks)) if i not in off]
    if not off or len(kept) < KEPT_LEAST or not is_settled(pair, best, evidence):
        return landmarks
    return landmarks[kept]


def _gaps(pair: Pair, c: Candidate, landmarks: Tensor) -> list[float]:
    return gaps(pair.one, landmarks[:, 0], pair.places_21(c.C_12, landmarks[:, 1]))


def _off(pair: Pair, c: Candidate, landmarks: Tensor) -> float:
    """The mean distance over sqrt(area) of the landmarks to where the candidate takes them, each as `FAR` at most."""
    return mean(min(gap, FAR) for gap in _gaps(pair, c, landmarks))


def _candidate(
    pair: Pair, start: Start, bases: tuple[Eigenbasis, Eigenbasis], evidence: Evidence, orientation: float
) -> Candidate:
    """The start refined both ways on the samples that the bases are seen from, and measured."""
    C_12, C_21 = zoomed_fmaps(start.C_12, start.C_21, *bases, _sizes(pair, start))
    return _measured(pair, start, start.name, (C_12, C_21), evidence, orientation)


def _one_way(pair: Pair, start: Start, evidence: Evidence, orientation: float) -> Candidate:
    """The start refined from the surface that is cut open to the other one alone: that one holds more than it."""
    (one, two), (s1, s2) = (pair.basis1, pair.basis2), (pair.samples1, pair.samples2)
    if pair.rims[1] >= pair.rims[0]:
        C_12 = zoomout(start.C_12, one, two, sizes=_sizes(pair, start), samples=(s1, s2)).C_12
        C_21 = C_12.T / pair.scale**2
    else:
        C_21 = zoomout(start.C_21, two, one, sizes=_sizes(pair, start), samples=(s2, s1)).C_12
        C_12 = C_21.T * pair.scale**2
    return _measured(pair, start, f"{start.name}, one way", (C_12, C_21), evidence, orientation)


def _sizes(pair: Pair, start: Start) -> list[int]:
    """Numbers of functions, from those of the start to k / COARSE."""
    first = len(start.C_12)
    last = max(first, pair.basis1.k // COARSE)
    return sorted({*range(first, last, 8), last})


def _measured(
    pair: Pair,
    start: Start,
    name: str,
    fmaps: tuple[Tensor, Tensor],
    evidence: Evidence,
    orientation: float,
) -> Candidate:
    """The candidate with these functional maps."""
    C_12, C_21 = fmaps
    distortion = evidence.distortion
    to_1, to_2 = pair.places_21(C_12, distortion.probes2), pair.places_12(C_21, distortion.probes1)
    if max(pair.rims) >= OPEN:
        change = distortion.of_common(to_1, to_2, pair.places_21(C_12, to_2))
    else:
        change = distortion.of_probes(to_1, to_2)
    terms = {
        "distortion": change,
        "spectral": spectral_energy(C_12, C_21, pair.basis1, pair.basis2),
    }
    energy = terms["distortion"]
    if orientation:
        p2p_21 = pair.places_21(C_12, torch.arange(pair.two.n_verts, device=pair.two.device))
        terms["flipped_triangles"] = flipped_triangles(pair.one, pair.turned2, p2p_21)
        terms |= evidence.likeness(p2p_21)
        against = TURNED * terms["flipped_triangles"] + UNLIKE * (1 - terms["handedness_correlation"])
        energy += orientation * (against + MISNAMED * terms.get("named_landmark_error", 0.0))
    return Candidate(name, C_12, C_21, energy, terms, start.landmarks)
