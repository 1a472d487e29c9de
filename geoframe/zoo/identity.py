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
    rng = np.random.default_rng(seed)
    drawn = {group: [rng.uniform(*r) for r in ranges] for group, ranges in _RANGES.items()}
    b = bones()
    place = b.joints(cage_verts)
    out = np.empty((len(b.names), 3, 3))
    for j, name in enumerate(b.names):
        length, girth = drawn[_GROUP[name.removeprefix("left_").removeprefix("right_")]]
        children = [i for i, p in enumerate(b.parents) if p == j]
        end = place[children].mean(0) if children else cage_verts[b.weights[:, j] > 0.9].mean(0)
        axis = (end - place[j]) / max(
            np.linalg.norm(end - place[j]), 1e-9
        )  # of no length where a tail is none
        out[j] = girth * np.eye(3) + (length - girth) * np.outer(axis, axis)
    return out
