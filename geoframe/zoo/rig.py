"""Identities and poses of an animal on the triangulation of its canonical surface, many a second.

`animal` makes a mesh of its own for every individual, in seconds. Here the triangulation is that of
`geoframe.template(name)`, so equal vertices are corresponding places of all individuals and poses; any species can be
put on the triangulation of any other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from geoframe._cache import cached_arrays
from geoframe._check import check_choice, check_int
from geoframe._templates import template, template_landmarks, template_symmetry
from geoframe._types import Array, Floats, Ints
from geoframe.surface.closest import TriangleTree
from geoframe.zoo import _cage
from geoframe.zoo._blueprint import place_cage
from geoframe.zoo._remesh import Points
from geoframe.zoo._species import SPECIES
from geoframe.zoo.animals import animal, individual, seed_number
from geoframe.zoo.identity import drawn_stretches, stretches
from geoframe.zoo.skeleton import bones, pose_angles

_VERSION = 1  # of what the disk cache holds: raise it when rigs are made in another way


@dataclass(frozen=True, eq=False)
class Rig:
    """One species on the triangulation of a canonical surface, ready to be bent.

    Attributes:
        name: the species.
        on: whose canonical surface gives the triangulation.
        faces: (F, 3).
        symmetry: (V,) the vertex on the other side.
        landmarks: name -> vertex.
        points: of the dense template, one a vertex.
        smooth: (V, n) sparse, from the vertices of the cage.
        relief: (V, 3) what bumps, eyes and wool add to the species' own form.
        starts: (V + 1,) first entry of each vertex in `bones` and `shares`.
        bones: numbers of the bones that move the vertices.
        shares: by how much, of sum 1 for each vertex.
        cage: (n, 3) the species' own cage.
    """

    name: str
    on: str
    faces: Ints
    symmetry: Ints
    landmarks: dict[str, int]
    points: Points
    smooth: sp.csr_matrix
    relief: Floats
    starts: Ints
    bones: Ints
    shares: Floats
    cage: Floats

    @property
    def n_verts(self) -> int:
        """V."""
        return len(self.relief)

    def at_rest(self, cage: Floats) -> tuple[Floats, Floats]:
        """Vertices (V, 3) and joints (J, 3) of an individual whose cage is (n, 3), its feet on y = 0."""
        from geoframe.zoo._bend import weighted_sums

        verts, smooth = np.empty_like(self.relief), self.smooth
        weighted_sums(smooth.indptr, smooth.indices, smooth.data, cage, self.relief, verts)
        down = np.array([0, verts[:, 1].min(), 0])
        verts -= down
        return verts, bone_places(cage)[0] - down

    def bent(self, verts: Floats, joints: Floats, angles: Mapping[str, tuple[float, float, float]]) -> Floats:
        """(V, 3) vertices after each bone turned by its angles in degrees, as `draw_pose` gives them."""
        from geoframe.zoo._bend import bend

        own = turned(np.array([angles.get(name, (0.0, 0.0, 0.0)) for name in bones().names]), _parents())
        out = np.empty_like(verts)
        bend(verts, self.starts, self.bones, self.shares, bone_affine(joints, own).astype(verts.dtype), out)
        return out

    def normals(self, verts: Floats) -> Floats:
        """(V, 3) unit normals of vertices (V, 3)."""
        return unit_normals(verts, self.faces)


def pose_template(
    name: str,
    identities: Sequence[int],
    poses: Sequence[int | Mapping[str, tuple[float, float, float]] | None],
    *,
    on: str | None = None,
    n_verts: int | None = None,
) -> Tensor:
    """Individuals of a species in poses, on the triangulation of a canonical surface.

    Args:
        name: one of `species()`.
        identities: B seeds; 0 is the species' own form. Proportions are those of ``animal(name, seed=identity)``.
        poses: B of: None at rest, a seed as in `animal`, or angles by bone as `joint_angles` gives them.
        on: the species whose canonical surface gives the triangulation; default `name`.
        n_verts: None for `geoframe.template(on)`; else of about this size, as ``animal(on, n_verts)``.

    Returns:
        (B, V, 3) float64, metres; the faces and landmarks are those of the canonical surface.

    Raises:
        ValueError: unknown names, negative seeds, lists of different length.
    """
    if len(identities) != len(poses):
        raise ValueError(
            f"poses: expected one for each of {len(identities)} identities, found {len(poses)}; repeat them"
        )
    r = rig(name, on=on, n_verts=n_verts)
    out = np.empty((len(identities), r.n_verts, 3))
    for b, (identity, pose) in enumerate(zip(identities, poses, strict=True)):
        check_int(identity, "identities", low=0)
        cage = r.cage
        if identity:
            cage = shaped(cage, *drawn_stretches(seed_number(name, identity)))
        verts, joints = r.at_rest(cage)
        if pose is not None:
            if not isinstance(pose, Mapping):
                pose = pose_angles(SPECIES[name].limits, check_int(pose, "poses", low=0))
            verts = r.bent(verts, joints, pose)
        out[b] = verts
    return torch.as_tensor(out)


@lru_cache(maxsize=64)
def rig(name: str, *, on: str | None = None, n_verts: int | None = None) -> Rig:
    """A species on the triangulation of a canonical surface; the same object at every call.

    Args:
        name: one of `species()`.
        on: as in `pose_template`.
        n_verts: as in `pose_template`.

    Raises:
        ValueError: unknown names.
    """
    check_choice(name, tuple(sorted(SPECIES)), "name")
    on = name if on is None else check_choice(on, tuple(sorted(SPECIES)), "on")
    plans = (repr(SPECIES[name]), repr(SPECIES[on]))
    mesh = template(on)
    given = ("rig", _VERSION, name, on, n_verts, *plans, mesh.verts, mesh.faces)
    x = cached_arrays(given, partial(_rig_arrays, name, on, n_verts))
    smooth = sp.csr_matrix((x["smooth"], x["smooth_columns"], x["smooth_rows"]), shape=x["smooth_shape"])
    landmarks = dict(zip(x["landmark_names"].tolist(), x["landmarks"].tolist(), strict=True))
    points = Points(x["point_faces"], x["point_weights"])
    parts = (x["relief"], x["starts"], x["bones"], x["shares"], x["cage"])
    return Rig(name, on, x["faces"], x["symmetry"], landmarks, points, smooth, *parts)


def _rig_arrays(name: str, on: str, n_verts: int | None) -> dict[str, Array]:
    """All of a rig, as arrays for the disk cache."""
    points, faces, symmetry, landmarks = _surface(on, n_verts)
    corners = sp.csr_matrix(
        (
            points.weights.ravel(),
            _cage.template().faces[points.faces].ravel(),
            np.arange(len(points.faces) + 1) * 3,
        ),
        (len(points.faces), len(_cage.template().side)),
    )
    smooth = (corners @ _cage.template().smooth).tocsr()
    cage, dense = individual(name, 0)
    weights = smooth @ bones().weights
    weights[weights < 1e-3] = 0
    weights /= weights.sum(1, keepdims=True)
    sparse = sp.csr_matrix(weights)
    return {
        "faces": faces,
        "symmetry": symmetry,
        "landmark_names": np.array(list(landmarks)),
        "landmarks": np.array(list(landmarks.values()), np.int64),
        "point_faces": points.faces,
        "point_weights": points.weights,
        "smooth": smooth.data,
        "smooth_columns": smooth.indices,
        "smooth_rows": smooth.indptr,
        "smooth_shape": np.array(smooth.shape),
        "relief": points.on(dense) - smooth @ cage,
        "starts": sparse.indptr.astype(np.int64),
        "bones": sparse.indices.astype(np.int64),
        "shares": sparse.data,
        "cage": cage,
    }


@lru_cache(maxsize=32)
def _surface(on: str, n_verts: int | None) -> tuple[Points, Ints, Ints, dict[str, int]]:
    """Points of the dense template, faces, mirror map and landmarks of a canonical surface."""
    if n_verts is not None:
        made = animal(on, n_verts)
        points = Points(made.truth.face.numpy(), made.truth.barycentric.numpy())
        return points, made.mesh.faces.numpy(), made.symmetry.numpy(), made.landmarks
    mesh = template(on)
    tree = TriangleTree(individual(on, 0)[1], _cage.template().faces)
    points = Points(*tree.closest(mesh.verts.numpy(), 16))
    return points, mesh.faces.numpy(), template_symmetry(on).numpy(), template_landmarks(on)


def turned(angles: Floats, parents: Ints) -> Floats:
    """(J, 3, 3) rotation of each bone in the world's axes: angles (J, 3) in degrees after those of its parent."""
    from geoframe.zoo._bend import turn_bones

    out = np.empty((len(angles), 3, 3))
    turn_bones(angles, parents, out)
    return out


def unit_normals(verts: Floats, faces: Ints) -> Floats:
    """(V, 3) unit normals of vertices (V, 3), 0 where a vertex is in no face (F, 3)."""
    from geoframe.zoo._bend import normals

    out = np.empty_like(verts)
    normals(verts, faces, out)
    return out


def shaped(cage: Floats, length: Floats, girth: Floats) -> Floats:
    """(n, 3) the cage of an individual whose bones are `length` (J,) times as long and `girth` (J,) as thick."""
    joints, ends = bone_places(cage)
    from geoframe.zoo._bend import bend

    out = np.empty_like(cage)
    bend(cage, *_cage_shares(), bone_affine(joints, stretches(joints, ends, length, girth)), out)
    return out


def bone_places(cage: Floats) -> tuple[Floats, Floats]:
    """Joints (J, 3) of a cage (n, 3), and where each bone ends (J, 3)."""
    both = _bone_rows() @ cage
    return both[: len(both) // 2], both[len(both) // 2 :]


def bone_affine(joints: Floats, own: Floats) -> Floats:
    """(J, 12) matrix and shift of each bone that turns by own (J, 3, 3) and follows its parent."""
    from geoframe.zoo._bend import bone_maps

    out = np.empty((len(joints), 12))
    bone_maps(joints, own, _parents(), out)
    return out


@cache
def _parents() -> Ints:
    return np.array(bones().parents, np.int64)


@cache
def _cage_shares() -> tuple[Ints, Ints, Floats]:
    """`Rig.starts`, `Rig.bones` and `Rig.shares` of the cage's own vertices."""
    weights = sp.csr_matrix(bones().weights)
    return weights.indptr.astype(np.int64), weights.indices.astype(np.int64), weights.data


@cache
def _bone_rows() -> sp.csr_matrix:
    """(2 J, n) matrix that takes a cage to the joints, then to the ends of the bones: see `identity.proportions`."""
    b = bones()
    first = np.zeros((len(b.names), len(b.weights)))
    for j, ring in enumerate(b.rings):
        first[j, list(ring)] = 1 / len(ring)
    last = np.zeros_like(first)
    for j in range(len(b.names)):
        children = [i for i, p in enumerate(b.parents) if p == j]
        if children:
            last[j] = first[children].mean(0)
        else:
            tip = b.weights[:, j] > 0.9
            last[j] = tip / tip.sum()
    return sp.csr_matrix(np.concatenate([first, last]))


@lru_cache(maxsize=32)
def own_cage(name: str) -> Floats:
    """(n, 3) the cage of a species, as it was placed."""
    plan = SPECIES[name]
    return cached_arrays(("cage", _VERSION, repr(plan)), lambda: {"cage": place_cage(plan)})["cage"]
