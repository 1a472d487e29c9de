"""Individuals of a species: bones longer or shorter, limbs thicker or thinner, the same on both sides."""

from __future__ import annotations

import numpy as np

from geoframe._types import Floats
from geoframe.zoo.skeleton import bones

# group of bones: range of the length along the bone, range of the girth across it
_RANGES = {
    "torso": ((0.94, 1.07), (0.90, 1.12)),
    "legs": ((0.90, 1.12), (0.90, 1.12)),
    "neck": ((0.88, 1.15), (0.90, 1.10)),
    "head": ((0.93, 1.08), (0.93, 1.08)),
    "muzzle": ((0.88, 1.14), (0.92, 1.08)),
    "tail": ((0.80, 1.20), (0.88, 1.15)),
    "ear": ((0.85, 1.20), (0.90, 1.15)),
}
_GROUP = {
    **dict.fromkeys(("pelvis", "spine", "chest"), "torso"),
    **dict.fromkeys(
        ("foreleg", "forearm", "forefoot", "thigh", "shank", "hindfoot", "fingers", "toes"), "legs"
    ),
    **dict.fromkeys(("neck", "upper_neck"), "neck"),
    **dict.fromkeys(("muzzle", "upper_trunk", "lower_trunk"), "muzzle"),
    **dict.fromkeys(("tail", "tail_middle", "tail_end"), "tail"),
    **{"head": "head", "ear": "ear"},
}


def proportions(cage_verts: Floats, seed: int) -> Floats:
    """(J, 3, 3) stretch of each bone in the world's axes, drawn from a seed: s I + (l - s) d d^T along its axis d."""
    b = bones()
    place = b.joints(cage_verts)
    ends = np.empty_like(place)
    for j in range(len(b.names)):
        children = [i for i, p in enumerate(b.parents) if p == j]
        ends[j] = place[children].mean(0) if children else cage_verts[b.weights[:, j] > 0.9].mean(0)
    return stretches(place, ends, *drawn_stretches(seed))


def drawn_stretches(seed: int | np.random.Generator, spread: float = 1.0) -> tuple[Floats, Floats]:
    """Length (J,) and girth (J,) of each bone relative to the species' own.

    Args:
        seed: an int, or a generator to draw from.
        spread: how far from 1 the factors go, relative to the usual ranges.
    """
    rng = np.random.default_rng(seed)
    drawn = {}
    for group, ranges in _RANGES.items():
        drawn[group] = [1 + spread * (rng.uniform(*r) - 1) for r in ranges]
    both = np.array([drawn[_GROUP[n.removeprefix("left_").removeprefix("right_")]] for n in bones().names])
    return both[:, 0], both[:, 1]


def stretches(joints: Floats, ends: Floats, length: Floats, girth: Floats) -> Floats:
    """(J, 3, 3) stretch of bones from `joints` (J, 3) to `ends` (J, 3): `length` (J,) along, `girth` (J,) across."""
    axis = ends - joints
    axis = axis / np.linalg.norm(axis, axis=1, keepdims=True).clip(1e-9)  # of no length where a tail is none
    along = axis[:, :, None] * axis[:, None, :]
    return girth[:, None, None] * np.eye(3) + (length - girth)[:, None, None] * along
