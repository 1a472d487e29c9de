"""Whether a map can be trusted, told by its measures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

RIGHT = 0.1  # mean geodesic error over sqrt(area) below which a map is called right
SURE = 0.65  # `confidence` below which it is doubted: the highest that costs no right map of the choosing half more
# Weights of `features`, and the constant first: logistic regressions on right and wrong maps of the choosing half of
# `experiments.verdict`, with named landmarks on both surfaces and without.
NAMED = (0.193, 2.115, 0.0, -1.095, -2.972, -36.18)
UNNAMED = (-4.063, 7.158, 0.0, -0.755, -7.772)
# Beyond these a measure is named among the reasons for doubt. Right maps were measured at a distortion of 0.03 to 0.12
# (people, poses, quadrupeds of different species), 0.00 to 0.05 flipped triangles and a cycle error of 0.002 to 0.01.
DISTORTED, FLIPPED, LOOSE, TURNED, MISNAMED = 0.16, 0.25, 0.03, 0.2, 0.1
NAMED_MOST = 4  # landmarks named in one reason
ASTRAY = 0.15  # distance from which one landmark disagrees with the others,
ALONE = 4.0  # if it is so many times the median


def features(measures: Mapping[str, float]) -> list[float]:
    """What the confidence weighs: handedness and shape correlation, the logarithm of the distortion's spread, the share
    of flipped triangles, and the error of named landmarks where there are any.

    Args:
        measures: `energies` of a `Match`.
    """
    out = [
        measures["handedness_correlation"],
        measures["shape_correlation"],
        math.log(max(measures["distortion_spread"], 0.01)),
        measures["flipped_triangles"],
    ]
    named = measures.get("named_landmark_error")
    return out if named is None else [*out, named]


def confidence(measures: Mapping[str, float]) -> float:
    """The chance that a map is right: that its mean geodesic error is below `RIGHT` times sqrt(area).

    It is calibrated on animals of the zoo, whole and damaged, and on people and animals (`experiments.verdict`), all of
    them maps found without landmarks. Of other things (chairs, aeroplanes) it ranks maps, but its value means less. A
    map that is wrong in a small place is not found out.

    Args:
        measures: `energies` of a `Match`; 0 where one could not be measured.
    """
    x = features(measures)
    if not all(map(math.isfinite, x)):
        return 0.0
    constant, *weights = NAMED if len(x) == len(NAMED) - 1 else UNNAMED
    score = constant + sum(w * v for w, v in zip(weights, x, strict=True))
    return 1 / (1 + math.exp(-min(max(score, -30.0), 30.0)))


def doubts(
    measures: Mapping[str, float], sure: float, named: Mapping[str, float] | None = None
) -> tuple[str, ...]:
    """Reasons to doubt a map, in sentences; empty for one that looks right.

    Args:
        measures: `energies` of a `Match`.
        sure: its `confidence`.
        named: name -> distance over sqrt(area) from each landmark that was named on both surfaces to where the map
            takes it; the farthest are told.
    """
    found = []
    if not measures["flipped_triangles"] < FLIPPED:
        found.append(
            f"{measures['flipped_triangles']:.0%} of the triangles are turned over: the map may be a mirror image, or "
            "one surface is inside out (geoframe.repair(mesh, orient=True))"
        )
    if not measures["cycle_error"] < LOOSE:
        found.append(
            f"vertices come back {measures['cycle_error']:.3f} away after both maps (right maps: below {LOOSE})"
        )
    if sure >= SURE:
        return tuple(found)
    if not measures["distortion"] < DISTORTED:
        found.append(
            f"distances change by {measures['distortion']:.2f} on average (right maps: mostly below {DISTORTED}): "
            "limbs may be mixed up, or the surfaces have little in common"
        )
    if not measures["handedness_correlation"] >= TURNED:
        found.append(
            f"the handedness of the local shape agrees by {measures['handedness_correlation']:.2f} only (right maps: "
            "mostly 0.2 and more): the map may be a mirror image, or turned by half a circle"
        )
    if not measures.get("named_landmark_error", 0.0) < MISNAMED:
        found.append(
            f"landmarks that were named on both surfaces lie {measures['named_landmark_error']:.2f} from where the map "
            f"takes them (right maps: below 0.08){_farthest(named or {})}"
        )
    return (f"the map is right with a chance of {sure:.2f} only: look at it, or give a few landmarks", *found)


def astray(gaps: Sequence[float]) -> list[int]:
    """Which of a few landmarks disagree with the others: a map made from all of them takes these elsewhere.

    Args:
        gaps: distance over sqrt(area) from each landmark to where the map takes it.
    """
    middle = median(gaps) if gaps else 0.0
    return [i for i, gap in enumerate(gaps) if gap > max(ASTRAY, ALONE * middle)]


def _farthest(named: Mapping[str, float]) -> str:
    """The few names that are off most, to follow a sentence; nothing where none is."""
    off = sorted(((gap, name) for name, gap in named.items() if gap > MISNAMED), reverse=True)[:NAMED_MOST]
    return f"; farthest off: {', '.join(f'{name} {gap:.2f}' for gap, name in off)}" if off else ""
