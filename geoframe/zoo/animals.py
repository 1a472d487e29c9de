"""Articulated animals of one template: any species, any size of mesh, identities, poses, and the exact ground truth.

All animals are deformations of one dense surface of 65,282 vertices, so a point of it, a face and the weights of
its corners, names the same place on every animal. An animal's own mesh is made independently of the others' and
carries for each of its vertices its point of the dense surface.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from geoframe._check import check_choice, check_int
from geoframe._types import Floats, Ints
from geoframe.surface.mesh import Mesh
from geoframe.surface.sampling import SurfaceSamples
from geoframe.zoo import _cage
from geoframe.zoo._blueprint import Blueprint, finish, place_cage, ring_size
from geoframe.zoo._remesh import Points, follow_curvature, symmetric_mesh
from geoframe.zoo._species import SPECIES
from geoframe.zoo.identity import proportions
from geoframe.zoo.skeleton import bones, pose_angles, pose_rotations, skin

_MIDDLE = {
    "nose": ("nose", "", 0, 2),
    "chin": ("body", "", 25, 6),
    "forehead": ("body", "", 19, 0),
    "poll": ("body", "", 17, 0),
    "throat": ("body", "", 16, 6),
    "chest": ("body", "", 12, 6),
    "withers": ("body", "", 10, 0),
    "back": ("body", "", 6, 0),
    "rump": ("body", "", 1, 0),
    "belly": ("body", "", 6, 6),
    "tail_base": ("tail", "", 1, 0),
    "tail_tip": ("tail", "", 6, 0),
}
_PAIRED = {
    "eye": ("body", "", 19, 2),
    "ear": ("ear", "right", 3, 1),
    "shoulder": ("fore", "right", 1, 2),
    "elbow": ("fore", "right", 3, 5),
    "wrist": ("fore", "right", 6, 0),
    "front_paw": ("fore", "right", 11, 0),
    "hip": ("hind", "right", 1, 2),
    "knee": ("hind", "right", 3, 0),
    "hock": ("hind", "right", 6, 5),
    "hind_paw": ("hind", "right", 11, 0),
}


@dataclass(frozen=True, eq=False)
class Animal:
    """One animal, in metres, looking along +x, y up, its left at -z.

    Attributes:
        name: the species.
        mesh: its own closed manifold triangulation, verts (V, 3).
        landmarks: name -> vertex, equal names of all animals mark the same point of the dense surface.
        symmetry: (V,) int64, the vertex on the other side; an involution.
        truth: points (V, 3), face (V,), barycentric (V, 3): the dense surface's point at each vertex.
        dense: the dense surface in this shape and pose; its faces are the same for all animals.
        rest: (V, 3) the vertices before the pose.
        dense_rest: the dense vertices before the pose.
    """

    name: str
    mesh: Mesh
    landmarks: dict[str, int]
    symmetry: Tensor
    truth: SurfaceSamples
    dense: Mesh
    rest: Tensor
    dense_rest: Tensor


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Where each vertex of animal b lies on animal a.

    Attributes:
        on_dense: points (V_b, 3) of a's dense surface, exact, with face and barycentric coordinates there.
        p2p_21: (V_b,) int64, the vertex of a's own mesh nearest to it, found in the rest pose.
    """

    on_dense: SurfaceSamples
    p2p_21: Tensor


def species() -> list[str]:
    """Names of the animals, sorted."""
    return sorted(SPECIES)


def landmark_names() -> list[str]:
    """The names that all animals share: 12 on the midline, and 10 on each side."""
    return [*_MIDDLE, *(f"{side}_{name}" for name in _PAIRED for side in ("left", "right"))]


def animal(name: str, n_verts: int = 5000, *, seed: int = 0, pose: int | None = None) -> Animal:
    """An animal of a species as a mesh of about `n_verts` vertices.

    Args:
        name: one of `species()`.
        n_verts: 500 to 50,000.
        seed: of the individual: 0 is the species' own form; others differ in proportions and triangulation.
        pose: None stands at rest; a seed draws every joint within its limits.

    Raises:
        ValueError: unknown name, a size out of range, negative seeds.
    """
    check_choice(name, tuple(species()), "name")
    check_int(n_verts, "n_verts", low=500, high=50_000)
    check_int(seed, "seed", low=0)
    cage_verts, rest = individual(name, seed)
    points, faces, mirror, pinned = _triangulation(name, n_verts, seed)
    posed = rest
    if pose is not None:
        posed = _posed(SPECIES[name], cage_verts, rest, check_int(pose, "pose", low=0))
    verts = torch.as_tensor(points.on(posed))
    t = _cage.template()
    return Animal(
        name,
        Mesh(verts, torch.as_tensor(faces)),
        {k: int(v) for k, v in zip(landmark_names(), pinned, strict=True)},
        torch.as_tensor(mirror),
        SurfaceSamples(verts, torch.as_tensor(points.faces), torch.as_tensor(points.weights)),
        Mesh(torch.as_tensor(posed), torch.as_tensor(t.faces)),
        torch.as_tensor(points.on(rest)),
        torch.as_tensor(rest),
    )


def correspondence(a: Animal, b: Animal) -> Correspondence:
    """The ground truth: for each vertex of `b` the same place of `a`, and the vertex of `a` nearest to it.

    Args:
        a: any animal, of any species and in any pose.
        b: another one.
    """
    points = Points(b.truth.face.numpy(), b.truth.barycentric.numpy())
    near = cKDTree(a.rest.numpy()).query(points.on(a.dense_rest.numpy()))[1]
    place = torch.as_tensor(points.on(a.dense.verts.numpy()))
    return Correspondence(
        SurfaceSamples(place, b.truth.face, b.truth.barycentric), torch.as_tensor(near.astype(np.int64))
    )


def joints(name: str, *, seed: int = 0) -> dict[str, Tensor]:
    """Where the bones of an animal are jointed in the rest pose.

    Args:
        name: a species.
        seed: of the individual, as in `animal`.

    Returns:
        Name of each bone -> (3,) its joint.
    """
    check_choice(name, tuple(species()), "name")
    cage_verts, _ = individual(name, seed)
    return dict(zip(bones().names, torch.as_tensor(bones().joints(cage_verts)), strict=True))


def joint_angles(name: str, pose: int) -> Mapping[str, tuple[float, float, float]]:
    """The angles by which each bone turns in a pose; a left bone mirrors the right one's range.

    Args:
        name: a species.
        pose: its number, as in `animal`; 0 is the rest pose.

    Returns:
        Name of each bone -> degrees about x, y and z.
    """
    check_choice(name, tuple(species()), "name")
    return pose_angles(SPECIES[name].limits, pose)


@lru_cache(maxsize=32)
def individual(name: str, seed: int) -> tuple[Floats, Floats]:
    """Cage (n, 3) and dense vertices (V, 3) of an individual at rest, its feet on y = 0."""
    plan = SPECIES[name]
    cage_verts = place_cage(plan)
    if seed:
        b = bones()
        own = proportions(cage_verts, seed_number(name, seed))
        cage_verts = skin(cage_verts, b.weights, b.joints(cage_verts), b.parents, own)
    dense = finish(plan, cage_verts)
    low = dense[:, 1].min()
    return cage_verts - (0, low, 0), dense - (0, low, 0)


@lru_cache(maxsize=64)
def _triangulation(name: str, n_verts: int, seed: int) -> tuple[Points, Ints, Ints, Ints]:
    """Points, faces, mirror map and landmark vertices, these in the order of `landmark_names`."""
    _, dense = individual(name, seed)
    c = _cage.cage()
    pins = np.array([c.number[key] for key in (*_MIDDLE.values(), *_PAIRED.values())])
    size = follow_curvature(dense, _cage.template().smooth @ ring_size(SPECIES[name]), n_verts)
    points, faces, mirror, pinned = symmetric_mesh(dense, size, n_verts, pins, seed_number(name, seed))
    middle, right = pinned[: len(_MIDDLE)], pinned[len(_MIDDLE) :]
    both = np.stack([mirror[right], right], axis=1).ravel()
    return points, faces, mirror, np.concatenate([middle, both])


def _posed(plan: Blueprint, cage_verts: Floats, rest: Floats, seed: int) -> Floats:
    """(V, 3) dense vertices in a pose."""
    b = bones()
    own = pose_rotations(pose_angles(plan.limits, seed))
    weights = _cage.template().smooth @ b.weights
    return skin(rest, weights, b.joints(cage_verts), b.parents, own)


def seed_number(name: str, seed: int) -> int:
    """A seed that differs between species."""
    return zlib.crc32(f"{name} {seed}".encode())
