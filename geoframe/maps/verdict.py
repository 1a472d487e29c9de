"""Whether a map can be trusted, told by its measures."""

from __future__ import annotations

from collections.abc import Mapping

# Right maps were measured at a distortion of 0.03 to 0.12 (people, poses, quadrupeds of different species), 0.00 to
# 0.05 flipped triangles and a cycle error of 0.002 to 0.01; maps with head and tail exchanged at 0.2 and more, mirror
# images at 0.9 flipped triangles (`python -m experiments.verdict.run`).
DISTORTED = 0.16  # `distortion` from which a map is doubted
FLIPPED = 0.25  # `flipped_triangles` from which it is
LOOSE = 0.03  # `cycle_error` from which it is
TIED = 0.95  # `ambiguity` from which it is


def doubts(energies: Mapping[str, float], ambiguity: float | None = None) -> tuple[str, ...]:
    """Reasons to doubt a map, in sentences; empty for one that looks right.

    A mirror image of the right map between two symmetric surfaces changes no distance, so that only its flipped
    triangles tell; a map that is wrong in a small place is not found out.

    Args:
        energies: of a `Match`.
        ambiguity: of a `Match`, None with landmarks.
    """
    found = []
    if not energies["distortion"] < DISTORTED:
        found.append(
            f"distances change by {energies['distortion']:.2f} on average (right maps: below {DISTORTED}): limbs may "
            "be mixed up, or the surfaces have little in common"
        )
    if not energies["flipped_triangles"] < FLIPPED:
        found.append(
            f"{energies['flipped_triangles']:.0%} of the triangles are turned over: the map may be a mirror image, or "
            "one surface is inside out (geoframe.repair(mesh, orient=True))"
        )
    if not energies["cycle_error"] < LOOSE:
        found.append(
            f"vertices come back {energies['cycle_error']:.3f} away after both maps (right maps: below {LOOSE})"
        )
    if ambiguity is not None and ambiguity >= TIED:
        found.append(
            f"another, really different map is as good (ambiguity {ambiguity:.2f}): give a few landmarks"
        )
    return tuple(found)
