"""The training set: animals of the zoo in other bodies and poses than the zoo's own, damaged, and other things.

One triangulation of a species carries many bodies: all animals of the zoo are deformations of one dense surface, so
a triangulation of one is a triangulation of every other, and of every mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import fast_simplification
import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial.transform import Rotation

from geoframe import zoo
from geoframe.surface import Mesh, laplacian
from geoframe.surface import shapes as solids
from geoframe.surface.implicit import Limb, body, implicit_surface
from geoframe.zoo import _cage
from geoframe.zoo._species import SPECIES
from geoframe.zoo.animals import individual
from geoframe.zoo.skeleton import bones, pose_angles, pose_rotations, skin

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rng = np.random.Generator

UPRIGHT = ("human", "chimp")
FOUR_LEGGED = tuple(n for n in zoo.species() if n not in (*UPRIGHT, "bird"))
SIZES = (650, 1000, 2600)  # vertices of the triangulations; the largest are decimated
STILL = (0.0, 0.0)
HUMAN_POSES = {  # degrees about x (forwards), y (up) and z (to the right), of the right side
    "spine": ((-10, 10), (-18, 18), (-25, 15)),
    "chest": ((-10, 10), (-18, 18), (-22, 12)),
    "neck": ((-8, 8), (-25, 25), (-15, 12)),
    "upper_neck": ((-8, 8), (-20, 20), (-12, 10)),
    "head": ((-10, 10), (-15, 15), (-12, 12)),
    "foreleg": ((-125, 25), (-40, 40), (-45, 95)),
    "forearm": ((-15, 15), (-20, 45), (-5, 125)),
    "forefoot": ((-20, 20), (-15, 15), (-35, 35)),
    "fingers": (STILL, STILL, (-15, 45)),
    "thigh": ((-40, 6), (-20, 20), (-30, 90)),
    "shank": (STILL, STILL, (-105, 0)),
    "hindfoot": ((-10, 10), (-15, 15), (-25, 20)),
    "toes": (STILL, STILL, (-10, 15)),
}
GIRTH = {  # relative ranges of length along a bone and girth across it
    **dict.fromkeys(("pelvis", "spine", "chest"), ((0.82, 1.2), (0.75, 1.4))),
    **dict.fromkeys(("foreleg", "forearm", "thigh", "shank"), ((0.78, 1.25), (0.75, 1.4))),
    **dict.fromkeys(("forefoot", "hindfoot", "fingers", "toes"), ((0.75, 1.25), (0.8, 1.3))),
    **dict.fromkeys(("neck", "upper_neck"), ((0.7, 1.3), (0.8, 1.3))),
    "head": ((0.85, 1.18), (0.85, 1.2)),
    **dict.fromkeys(("muzzle", "upper_trunk", "lower_trunk"), ((0.75, 1.3), (0.85, 1.2))),
    **dict.fromkeys(("tail", "tail_middle", "tail_end"), ((0.5, 1.5), (0.8, 1.3))),
    "ear": ((0.5, 1.5), (0.8, 1.3)),
}

LEGS = ("foreleg", "forearm", "forefoot", "fingers", "thigh", "shank", "hindfoot", "toes", "ear")


class Example(NamedTuple):
    """One surface, of unit area, with what a network is to be told of it.

    Attributes:
        verts: (V, 3). faces: (F, 3). vals: (K,), vecs: (V, K), mass: (V,) its eigenbasis.
        distance: (L, V) float16, geodesic distance from each landmark; infinite where the surface lacks it.
        known: whether it is an animal.
    """

    verts: Floats
    faces: Ints
    vals: Floats
    vecs: Floats
    mass: Floats
    distance: NDArray[np.float16]
    known: bool


@dataclass(frozen=True, eq=False)
class Carrier:
    """A triangulation of the dense surface.

    Attributes:
        owner: whose shape it was made for. faces: (F, 3). pins: (L,) vertices that are the landmarks.
        rest: species -> (n, 3) its vertices on that species, of unit area. bones: (n, J) skinning weights.
    """

    owner: str
    faces: Ints
    pins: Ints
    rest: Mapping[str, Floats]
    bones: Floats


@cache
def joints_of() -> dict[str, tuple[float, Floats]]:
    """species -> (scale to unit area, (J, 3) joints)."""
    out = {}
    for name in zoo.species():
        cage, dense = individual(name, 0)
        a, b, c = dense[_cage.template().faces].transpose(1, 0, 2)
        scale = float(np.sqrt(0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()))
        out[name] = (scale, bones().joints(cage) / scale)
    return out


def carriers(names: tuple[str, ...], seed: int, sizes: tuple[int, ...] = SIZES) -> list[Carrier]:
    """One triangulation of each size for each species; two to three seconds each."""
    dense_bones = _cage.template().smooth @ bones().weights
    out = []
    for name in names:
        for size in sizes:
            a = zoo.animal(name, size, seed=seed)
            corners = _cage.template().faces[a.truth.face.numpy()]
            weights = a.truth.barycentric.numpy()
            rest = {
                s: np.einsum("nc,ncd->nd", weights, individual(s, 0)[1][corners]) / joints_of()[s][0]
                for s in zoo.species()
            }
            own = np.einsum("nc,ncd->nd", weights, dense_bones[corners])
            pins = np.array([a.landmarks[n] for n in zoo.landmark_names()])
            out.append(Carrier(name, a.mesh.faces.numpy(), pins, rest, own))
    return out


def mixture(owner: str, rng: Rng) -> dict[str, float]:
    """Shares of species in an animal that is mostly one of them."""
    if owner == "bird" or rng.uniform() < 0.35:
        return {owner: 1.0}
    if owner in UPRIGHT:
        share = rng.uniform(0.0, 0.5)
        return {owner: 1 - share, UPRIGHT[owner == "human"]: share}
    others = rng.choice([n for n in FOUR_LEGGED if n != owner], 2, replace=False)
    shares = rng.dirichlet((3.0, 1.0, 1.0))
    return {owner: shares[0], others[0]: shares[1], others[1]: shares[2]}


def stretches(joints: Floats, verts: Floats, weights: Floats, rng: Rng, width: float) -> Floats:
    """(J, 3, 3) stretch of each bone along and across its axis, both sides alike."""
    b = bones()
    drawn: dict[str, tuple[float, float]] = {}
    body_girth = np.exp(width * rng.normal(0, 0.12))
    out = np.empty((len(b.names), 3, 3))
    for j, name in enumerate(b.names):
        kind = name.removeprefix("left_").removeprefix("right_")
        if kind not in drawn:
            low, high = np.array(GIRTH[kind]).T
            drawn[kind] = tuple(np.exp(width * rng.uniform(np.log(low), np.log(high))))
        length, girth = drawn[kind]
        girth *= body_girth
        children = [i for i, p in enumerate(b.parents) if p == j]
        mine = weights[:, j] > 0.9
        end = joints[children].mean(0) if children else verts[mine].mean(0) if mine.any() else joints[j]
        axis = (end - joints[j]) / max(np.linalg.norm(end - joints[j]), 1e-9)
        out[j] = girth * np.eye(3) + (length - girth) * np.outer(axis, axis)
    return out


def bumps(verts: Floats, faces: Ints, thin: NDArray[np.bool_], rng: Rng, n: int) -> Floats:
    """Smooth swellings and hollows along the normals, most of them on both sides; small ones on `thin` vertices."""
    normal = normals(verts, faces)
    height = np.zeros(len(verts))
    for _ in range(n):
        here = rng.integers(len(verts))
        centre = verts[here]
        radius = rng.uniform(0.03, 0.07) if thin[here] else rng.uniform(0.06, 0.22)
        top = radius * rng.uniform(-0.2, 0.3)
        both = (centre, centre * (1, 1, -1)) if rng.uniform() < 0.8 else (centre,)
        for c in both:
            height += np.where(thin, min(top, 0.02), top) * np.exp(-((verts - c) ** 2).sum(1) / radius**2)
    return verts + height[:, None] * normal


def normals(verts: Floats, faces: Ints) -> Floats:
    """(V, 3) unit normals."""
    return Mesh(torch.as_tensor(verts), torch.as_tensor(faces)).vertex_normals.numpy()


def wide(limits: Mapping[str, tuple[tuple[float, float], ...]], factor: float) -> dict:
    """Limits of a species' joints, wider, with a little play where there was none."""
    return {
        bone: tuple((factor * low - 4, factor * high + 4) for low, high in ranges)
        for bone, ranges in limits.items()
    }


def human_limits(rng: Rng) -> dict:
    """Limits of the joints on two legs: arms and legs move more or less, apart from each other."""
    legs = ("thigh", "shank", "hindfoot", "toes")
    of_legs = rng.uniform(0.05, 0.3) if rng.uniform() < 0.4 else rng.uniform(0.3, 1.0)
    of_arms = rng.uniform(0.2, 1.1)
    out = {
        bone: tuple(((of_legs if bone in legs else of_arms) * np.array(r)).tolist() for r in ranges)
        for bone, ranges in HUMAN_POSES.items()
    }
    if rng.uniform() < 0.3:  # hands to the head, the chest or the hips
        out["forearm"] = ((-15, 15), (-20, 60), (70, 145))
    return out


def animal_surface(carrier: Carrier, rng: Rng) -> tuple[Floats, Ints, Floats]:
    """Vertices, faces and the places (L, 3) of the landmarks of a new animal in a new pose."""
    shares = mixture(carrier.owner, rng)
    rest = sum(w * carrier.rest[s] for s, w in shares.items())
    joints = sum(w * joints_of()[s][1] for s, w in shares.items())
    b, weights = bones(), carrier.bones
    own = stretches(joints, rest, weights, rng, rng.uniform(0.2, 1.0))
    formed = skin(rest, weights, joints, b.parents, own)
    placed = joints.copy()
    for j, p in enumerate(b.parents):
        if p >= 0:
            placed[j] = placed[p] + own[p] @ (joints[j] - joints[p])
    leg = [n.split("_", 1)[-1] in LEGS or n.startswith("tail") for n in b.names]
    formed = bumps(formed, carrier.faces, weights[:, leg].sum(1) > 0.6, rng, rng.poisson(8))
    if carrier.owner in UPRIGHT:
        limits = human_limits(rng)
    else:
        limits = wide(SPECIES[carrier.owner].limits, rng.uniform(0.8, 2.0))
    turn = pose_rotations(pose_angles(limits, int(rng.integers(2**31))))
    posed = skin(formed, weights, placed, b.parents, turn)
    return posed, carrier.faces, posed[carrier.pins]


def simplify(verts: Floats, faces: Ints, n_verts: int) -> tuple[Floats, Ints]:
    """Decimated by quadric errors, unless it is as small already."""
    if 2 * n_verts >= len(faces):
        return verts, faces
    scale = np.abs(verts).max()
    v, f = fast_simplification.simplify(
        (verts / scale).astype(np.float32), faces.astype(np.int32), target_count=2 * n_verts
    )
    return v.astype(np.float64) * scale, f.astype(np.int64)


def damage(verts: Floats, faces: Ints, rng: Rng) -> tuple[Floats, Ints]:
    """Decimated, stretched, jittered, noisy, with holes or a part cut away; each by chance."""
    if len(verts) > 1500:
        verts, faces = simplify(verts, faces, int(rng.uniform(600, 1200)))
    if rng.uniform() < 0.3:
        turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
        verts = verts @ turn @ np.diag(np.exp(rng.uniform(-0.13, 0.13, 3))) @ turn.T
    size = np.sqrt(area(verts, faces))
    if rng.uniform() < 0.3:
        i, j = faces.ravel(), np.roll(faces, -1, 1).ravel()
        total = np.bincount(i, minlength=len(verts)).clip(1)[:, None]
        mean = np.stack([np.bincount(i, verts[j, c], len(verts)) for c in range(3)], 1) / total
        step = mean - verts
        normal = normals(verts, faces)
        step -= (step * normal).sum(1, keepdims=True) * normal
        verts = verts + rng.uniform(-0.6, 0.6, (len(verts), 1)) * step
    if rng.uniform() < 0.35:
        verts = verts + size * rng.uniform(0.002, 0.02) * rng.normal(size=verts.shape)
    keep = np.ones(len(faces), bool)
    if rng.uniform() < 0.25:
        for _ in range(rng.integers(1, 4)):
            centre = verts[rng.integers(len(verts))]
            near = np.linalg.norm(verts - centre, axis=1) < size * rng.uniform(0.03, 0.12)
            keep &= ~near[faces].all(1)
    if rng.uniform() < 0.2:
        way = rng.normal(size=3)
        height = verts @ (way / np.linalg.norm(way))
        keep &= (height < np.quantile(height, rng.uniform(0.65, 0.97)))[faces].all(1)
    return largest_piece(verts, faces[keep])


def largest_piece(verts: Floats, faces: Ints) -> tuple[Floats, Ints]:
    """The component with the most triangles, without unused vertices."""
    n = len(verts)
    links = sp.coo_matrix(
        (np.ones(2 * len(faces)), (faces[:, :2].T.ravel(), faces[:, 1:].T.ravel())), shape=(n, n)
    )
    piece = connected_components(links, directed=False)[1][faces[:, 0]]
    faces = faces[piece == np.bincount(piece).argmax()]
    used, faces = np.unique(faces, return_inverse=True)
    return verts[used], faces.reshape(-1, 3)


def area(verts: Floats, faces: Ints) -> float:
    """Of a surface."""
    a, b, c = verts[faces].transpose(1, 0, 2)
    return 0.5 * float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())


def example(verts: Floats, faces: Ints, places: Floats | None, known: bool, k: int = 128) -> Example | None:
    """A surface with its eigenbasis and the distances from its landmarks; None where it is too small."""
    size = np.sqrt(area(verts, faces))
    verts = verts / size
    if len(verts) < 350:
        return None
    W, M = laplacian(Mesh(torch.as_tensor(verts), torch.as_tensor(faces)))
    s = 1 / np.sqrt(M)
    dense = (sp.diags(s) @ W @ sp.diags(s)).toarray()
    vals, vecs = scipy.linalg.eigh(dense, subset_by_index=[0, k - 1], check_finite=False, overwrite_a=True)
    n_landmarks = len(zoo.landmark_names())
    distance = np.full((n_landmarks, len(verts)), np.inf, np.float16)
    if places is not None:
        i, j = faces.ravel(), np.roll(faces, -1, 1).ravel()
        length = np.linalg.norm(verts[i] - verts[j], axis=1)
        graph = sp.csr_matrix((length, (i, j)), shape=(len(verts),) * 2)
        gap = np.linalg.norm(verts[:, None] - places / size, axis=2)
        nearest = gap.argmin(0)
        there = np.flatnonzero(gap.min(0) < 0.06)
        distance[there] = dijkstra(graph, directed=False, indices=nearest[there])
    return Example(
        verts,
        faces,
        vals.clip(0).astype(np.float32),
        (vecs * s[:, None]).astype(np.float32),
        M,
        distance,
        known,
    )


def animal_example(carrier: Carrier, seed: int) -> Example | None:
    """A new animal from a seed, damaged."""
    rng = np.random.default_rng([seed, 1])
    verts, faces, places = animal_surface(carrier, rng)
    size = np.sqrt(area(verts, faces))
    verts, faces, places = verts / size, faces, places / size
    # landmarks move along with a stretch: they are vertices until decimation, then the nearest ones
    tagged = np.concatenate([verts, places])
    state = np.random.default_rng([seed, 2])
    damaged, new_faces = damage(verts, faces, state)
    again = np.random.default_rng([seed, 2])
    places = _same_stretch(tagged, verts, faces, again)[len(verts) :]
    return example(damaged, new_faces, places, True)


def _same_stretch(points: Floats, verts: Floats, faces: Ints, rng: Rng) -> Floats:
    """`points` under the stretch that `damage` draws from the same generator."""
    if len(verts) > 1500:
        rng.uniform(600, 1200)
    if rng.uniform() < 0.3:
        turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
        return points @ turn @ np.diag(np.exp(rng.uniform(-0.13, 0.13, 3))) @ turn.T
    return points


def other_bases(seed: int, n_each: int) -> list[tuple[Floats, Ints]]:
    """Surfaces of other things: furniture, vehicles, heads, solids, and stars of limbs."""
    from geoframe.zoo.template import draft

    out = []
    for category in (*zoo.CATEGORIES, "head"):
        for i in range(n_each):
            member = zoo.sample_head(seed + i) if category == "head" else zoo.sample(category, seed + i)
            mesh, _ = draft(member)
            out.append(largest_piece(*simplify(mesh.verts.numpy(), mesh.faces.numpy(), 2000)))
    for mesh in (
        *(solids.icosphere(3), solids.torus(), solids.torus(1.0, 0.2), solids.cylinder(), solids.capsule()),
        *(solids.box(n=10), solids.box((3.0, 1.0, 0.3), n=10), solids.ellipsoid((1.0, 0.5, 0.25))),
    ):
        out.append((mesh.verts.double().numpy(), mesh.faces.numpy()))
    rng = np.random.default_rng(seed)
    for _ in range(3 * n_each):
        mesh = limbs(rng)
        out.append((mesh.verts.numpy(), mesh.faces.numpy()))
    return out


def limbs(rng: Rng) -> Mesh:
    """A ball or a rod with 0 to 9 bent limbs where no animal of the zoo has them."""
    n = int(rng.choice([0, 1, 2, 3, 6, 7, 8, 9]))
    trunk = np.stack([np.zeros(3), rng.normal(size=3) * rng.uniform(0.1, 0.8)])
    thick = rng.uniform(0.2, 0.4, 2)
    parts = [Limb(torch.as_tensor(trunk), torch.as_tensor(thick))]
    for _ in range(n):
        t = rng.uniform()
        way = rng.normal(size=3)
        way /= np.linalg.norm(way)
        bend = way + rng.normal(size=3) * 0.5
        start = trunk[0] + t * (trunk[1] - trunk[0])
        length = rng.uniform(0.3, 1.0)
        chain = np.stack([start, start + length * way, start + length * (way + bend / np.linalg.norm(bend))])
        radii = thick.min() * rng.uniform(0.25, 0.6) * np.array([1.0, 0.9, rng.uniform(0.5, 0.9)])
        parts.append(Limb(torch.as_tensor(chain), torch.as_tensor(radii), blend=0.1))
    every = np.concatenate([p.joints.numpy() for p in parts])
    low, high = torch.as_tensor(every.min(0) - 0.6), torch.as_tensor(every.max(0) + 0.6)
    return implicit_surface(body(parts), low, high, 1300, thinnest=0.1, seed=int(rng.integers(1000)))


def other_example(verts: Floats, faces: Ints, seed: int) -> Example | None:
    """Another thing, bent and stretched, damaged."""
    rng = np.random.default_rng([seed, 3])
    verts = verts / np.sqrt(area(verts, faces))
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    verts = verts @ turn @ np.diag(np.exp(rng.uniform(-0.35, 0.35, 3)))
    angle = rng.uniform(-1.5, 1.5) * verts[:, 0]  # twisted about x
    c, s = np.cos(angle), np.sin(angle)
    if rng.uniform() < 0.3:
        verts = np.stack(
            [verts[:, 0], c * verts[:, 1] - s * verts[:, 2], s * verts[:, 1] + c * verts[:, 2]], 1
        )
    if len(verts) > 1500 or rng.uniform() < 0.3:
        verts, faces = simplify(verts, faces, int(rng.uniform(600, 1200)))
    verts, faces = damage(verts, faces, rng)
    return example(verts, faces, None, False)
