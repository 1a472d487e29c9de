"""Bones of the animals: named joints, smooth skinning weights, poses within limits, and changes of proportion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.spatial.transform import Rotation

from geoframe._types import Floats
from geoframe.zoo import _cage
from geoframe.zoo._cage import Key

Range = tuple[float, float]
Limits = Mapping[str, tuple[Range, Range, Range]]  # bone -> degrees about x, y and z, of the right side

# bone: parent, part, first ring it moves; sides are added to those of the limbs and ears
_MIDDLE = {
    "pelvis": ("", "body", 0),
    "spine": ("pelvis", "body", 4),
    "chest": ("spine", "body", 8),
    "neck": ("chest", "body", 12),
    "upper_neck": ("neck", "body", 14),
    "head": ("upper_neck", "body", 16),
    "muzzle": ("head", "body", 20),
    "upper_trunk": ("muzzle", "body", 22),
    "lower_trunk": ("upper_trunk", "body", 24),
    "tail": ("pelvis", "tail", 1),
    "tail_middle": ("tail", "tail", 3),
    "tail_end": ("tail_middle", "tail", 5),
}
_PAIRED = {
    "foreleg": ("chest", "fore", 1),
    "forearm": ("foreleg", "fore", 3),
    "forefoot": ("forearm", "fore", 6),
    "fingers": ("forefoot", "fore", 9),
    "thigh": ("pelvis", "hind", 1),
    "shank": ("thigh", "hind", 3),
    "hindfoot": ("shank", "hind", 6),
    "toes": ("hindfoot", "hind", 9),
    "ear": ("head", "ear", 1),
}


@dataclass(frozen=True, eq=False)
class Bones:
    """The skeleton that all animals share.

    Attributes:
        names: of the bones, parents before children.
        parents: (J,) numbers, -1 for the root.
        weights: (n, J) of the vertices of the cage, rows of sum 1.
        rings: for every bone the vertices of the cage whose mean is its joint.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    weights: Floats
    rings: tuple[tuple[int, ...], ...]

    def joints(self, cage_verts: Floats) -> Floats:
        """(J, 3) joints of an animal whose cage has these vertices (n, 3)."""
        return np.array([cage_verts[list(ring)].mean(0) for ring in self.rings])


@cache
def bones() -> Bones:
    """The shared skeleton; the same object at every call."""
    spec = {name: (parent, part, "", ring) for name, (parent, part, ring) in _MIDDLE.items()}
    for side in ("left", "right"):
        for name, (parent, part, ring) in _PAIRED.items():
            above = f"{side}_{parent}" if parent in _PAIRED else parent
            spec[f"{side}_{name}"] = (above, part, side, ring)
    names = tuple(spec)
    parents = tuple(names.index(s[0]) if s[0] else -1 for s in spec.values())
    c = _cage.cage()
    weights = np.array([_weights(key, spec, names) for key in c.keys])
    rings = tuple(tuple(c.number[k] for k in _joint_ring(*s[1:])) for s in spec.values())
    return Bones(names, parents, weights, rings)


def _joint_ring(part: str, side: str, ring: int) -> list[Key]:
    if part == "body":
        ring = 2 if ring == 0 else ring
        return [k for k in _cage.cage().keys if k[:3] == (part, "", ring)]
    if part in ("fore", "hind") and ring == 1:
        return _cage.limb_loop(part, side) + [(part, side, 1, k) for k in range(10)]
    if part == "ear":
        return _cage.ear_loop(side)
    if part == "tail" and ring == 1:
        return _cage.tail_loop()
    return [k for k in _cage.cage().keys if k[:3] == (part, side, ring)]


def _weights(key: Key, spec: Mapping[str, tuple[str, str, str, int]], names: tuple[str, ...]) -> Floats:
    """(J,) weights of one vertex of the cage: half and half at a joint's ring, whole one ring further."""
    part, side, ring, _ = key
    part, _, digit = part.partition("_digit")
    if digit:
        ring = _cage.LIMB_RINGS
    if part == "nose":
        part, ring = "body", _cage.BODY_RINGS
    if part == "rump":
        part, ring = "body", 0
    if part == "horn":
        part, side, ring = "body", "", 18
    chain = [(s[3], name) for name, s in spec.items() if s[1:3] == (part, side)]
    root = spec[chain[0][1]][0]
    links = ([root] if root else []) + [name for _, name in chain]
    reached = [1.0] * bool(root) + [float(np.clip((ring - first + 1) / 2, 0, 1)) for first, _ in chain]
    reached[0] = 1.0
    share = dict(zip(links, -np.diff([*reached, 0.0]), strict=True))
    return np.array([share.get(name, 0.0) for name in names])


def skin(verts: Floats, weights: Floats, joints: Floats, parents: tuple[int, ...], own: Floats) -> Floats:
    """Linear blend skinning: vertices moved by bones that map x to place + own @ (x - joint).

    A bone's place is where its parent takes its joint.

    Args:
        verts: (n, 3).
        weights: (n, J), of sum 1 in every row.
        joints: (J, 3) at rest.
        parents: of each bone the number of its parent, -1 for the root.
        own: (J, 3, 3) the turn of each bone, in the world's axes.
    """
    place = joints.copy()
    for j, p in enumerate(parents):
        if p >= 0:
            place[j] = place[p] + own[p] @ (joints[j] - joints[p])
    shift = place - np.einsum("jab,jb->ja", own, joints)
    affine = weights @ np.concatenate([own.reshape(-1, 9), shift], axis=1)
    return np.einsum("nab,nb->na", affine[:, :9].reshape(-1, 3, 3), verts) + affine[:, 9:]


def pose_angles(limits: Limits, seed: int) -> dict[str, tuple[float, float, float]]:
    """Angles in degrees about x, y and z of each bone, drawn evenly between the limits."""
    rng = np.random.default_rng(seed)
    angles = {}
    for name in bones().names:
        side, _, paired = name.partition("_")
        is_pair = side in ("left", "right")
        ranges = limits.get(paired if is_pair else name, ((0, 0), (0, 0), (0, 0)))
        x, y, z = (float(rng.uniform(low, high)) for low, high in ranges)
        angles[name] = (-x, -y, z) if side == "left" else (x, y, z)
    return angles


def pose_rotations(angles: Mapping[str, tuple[float, float, float]]) -> Floats:
    """(J, 3, 3) rotation of each bone in the world's axes: its own angles after those of its parents."""
    b = bones()
    own = Rotation.from_euler("xyz", [angles.get(n, (0, 0, 0)) for n in b.names], degrees=True).as_matrix()
    for j, p in enumerate(b.parents):
        if p >= 0:
            own[j] = own[p] @ own[j]
    return own
