"""Rigid categories on one surface each: a mesh of every structure, kept on disk, and where it lies on the category's.

The surface of a category is that of a member of its usual structure. Members of this structure have a counterpart
everywhere; others where their canonical surfaces agree (see `geoframe.zoo.template`). It comes with geoframe, as
another processor triangulates the same solid in another way, by rounding, and models and image sets count its vertices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from geoframe._cache import cached_arrays
from geoframe._check import check_choice, check_int
from geoframe._types import Array, Bools, Floats, Ints
from geoframe.surface.closest import TriangleTree
from geoframe.zoo.face import EXPRESSIONS, sample_head
from geoframe.zoo.rigid import CATEGORIES, sample
from geoframe.zoo.template import Member, surface_mesh

THINGS = (*CATEGORIES, "head")
SIZE = 3000  # vertices of their surfaces, where nothing is said
_SURFACES = Path(__file__).parent / "surfaces"  # of experiments.gallery.make_thing_surfaces
_VERSION = 1  # of what the disk cache holds: raise it when meshes are made in another way
_USUAL = {
    "car": "car",
    "chair": "chair/four_legs/slats/no_arms",
    "table": "table/rectangular/four_legs/no_shelf",
    "aeroplane": "aeroplane/twin_jet",
    "motorbike": "motorbike/sport",
    "head": "head",
}


@dataclass(frozen=True, eq=False)
class ThingMesh:
    """The mesh of a structure, to be warped into any of its members.

    Attributes:
        canonical: (V, 3) canonical point of each vertex.
        verts: (V, 3) of the member that it was made for.
        faces: (F, 3).
        parts: (V,) into `labels`.
        labels: names of parts of the category.
        landmarks: name -> vertex.
        symmetry: (V,) the vertex on the other side.
    """

    canonical: Floats
    verts: Floats
    faces: Ints
    parts: Ints
    labels: tuple[str, ...]
    landmarks: dict[str, int]
    symmetry: Ints

    def of(self, member: Member) -> Floats:
        """(V, 3) where the canonical points of the vertices are on a member."""
        with torch.no_grad():
            out: Floats = member.warp.forward(torch.from_numpy(self.canonical)).numpy()
        return out


def thing(category: str, seed: int, expression: dict[str, float] | None = None) -> Member:
    """A member of a rigid category or a head.

    Raises:
        ValueError: unknown category, negative seed; an expression of something else than a head.
    """
    check_choice(category, THINGS, "category")
    if category == "head":
        return sample_head(seed, expression)
    if expression:
        raise ValueError(f"expression: expected none for {category!r}; heads have one")
    return sample(category, seed)


def draw_thing(category: str, rng: np.random.Generator) -> Member:
    """A member by chance; a head with an expression, more or less."""
    seed, strength, which = int(rng.integers(2**31)), rng.random(2), rng.integers(len(EXPRESSIONS), size=2)
    if category != "head" or rng.random() < 0.3:
        return thing(category, seed)
    drawn = {EXPRESSIONS[i]: float(s) for i, s in zip(which, strength, strict=True)}
    return thing(category, seed, drawn)


@lru_cache(maxsize=64)
def thing_mesh(category: str, structure: str | None = None, n_verts: int | None = None) -> ThingMesh:
    """The mesh of a structure; the same object at every call.

    Args:
        category: one of `THINGS`.
        structure: its name; None for the category's usual one, whose mesh is the category's surface.
        n_verts: about how many vertices, 200 or more; None for 3,000.

    Raises:
        ValueError: unknown category, too few vertices.
    """
    check_choice(category, THINGS, "category")
    structure, n_verts = structure or _USUAL[category], SIZE if n_verts is None else n_verts
    member = _first_of(category, structure)
    if structure == _USUAL[category] and n_verts == SIZE:
        x = _shipped(category)
    else:
        x = cached_arrays(("thing", _VERSION, structure, n_verts), lambda: made_mesh(member, n_verts))
    landmarks = dict(zip(x["names"].tolist(), x["landmarks"].tolist(), strict=True))
    parts = (x["canonical"], x["verts"], x["faces"], x["parts"])
    return ThingMesh(*parts, member.structure.labels, landmarks, x["symmetry"])


def thing_shapes(category: str, n: int, *, seed: int = 0) -> Floats:
    """(n, V, 3) random members of the usual structure, on the category's surface.

    Args:
        category: one of `THINGS`.
        n: how many.
        seed: of the members.

    Raises:
        ValueError: unknown category, n below 1.
    """
    check_int(n, "n", low=1)
    mesh, usual = thing_mesh(category), _USUAL[category]
    rng = np.random.default_rng(seed)
    found: list[Floats] = []
    while len(found) < n:
        member = draw_thing(category, rng)
        if member.structure.name == usual:
            found.append(mesh.of(member))
    return np.stack(found)


def usual_member(category: str) -> Member:
    """The member whose mesh is the category's surface.

    Args:
        category: one of `THINGS`.
    """
    return _first_of(check_choice(category, THINGS, "category"), _USUAL[category])


@cache
def _first_of(category: str, structure: str) -> Member:
    """The member of least seed."""
    seed = 0
    while (member := thing(category, seed)).structure.name != structure:
        seed += 1
    return member


def _shipped(category: str) -> dict[str, Array]:
    """The arrays of `made_mesh` of the category's own surface, as they come with geoframe."""
    with np.load(_SURFACES / f"{category}.npz", allow_pickle=False) as kept:
        wide = {"f": np.float64, "u": np.int64, "U": None}
        return {name: kept[name].astype(wide[kept[name].dtype.kind] or kept[name].dtype) for name in kept}


def made_mesh(member: Member, n_verts: int) -> dict[str, Array]:
    """The arrays of a `ThingMesh` of a member with about that many vertices, made on this processor: half a minute.

    Args:
        member: of a rigid category, or a head.
        n_verts: number of vertices V, about; at least 200.

    Returns:
        `canonical` (V, 3), `verts` (V, 3) on the ground, `faces` (F, 3), `parts` (V,), `names` and `landmarks` (n,),
        and `symmetry` (V,).
    """
    made = surface_mesh(member, n_verts)
    verts = made.mesh.verts.numpy()
    return {
        "canonical": made.canonical.numpy(),
        "verts": verts - (0, verts[:, 1].min(), 0),
        "faces": made.mesh.faces.numpy(),
        "parts": made.vertex_part.numpy(),
        "names": np.array(list(made.landmarks)),
        "landmarks": np.array(list(made.landmarks.values()), np.int64),
        "symmetry": made.symmetry.numpy(),
    }


@dataclass(frozen=True, eq=False)
class Bridge:
    """From the mesh of another structure to the surface of the category.

    Attributes:
        mesh: of the other structure.
        exists: (F,) faces of it that lie on the category's surface, too.
        back: (V,) which vertices of the category's surface lie on the other structure.
        tree: finds places on the category's canonical surface.
    """

    mesh: ThingMesh
    exists: Bools
    back: Bools
    tree: TriangleTree

    def cross(self, face: Ints, bary: Floats) -> tuple[Ints, Floats]:
        """Faces (...) of the other mesh, -1 for none, and weights (..., 3) there, as those of the category's surface.

        Where there is no counterpart the face is -1, and the weights are 0.
        """
        out, weights = np.full_like(face, -1), np.zeros_like(bary)
        here = face >= 0
        here[here] = self.exists[face[here]]
        if here.any():
            corners = self.mesh.canonical[self.mesh.faces[face[here]]]
            places = (bary[here][..., None] * corners).sum(1)
            out[here], weights[here] = self.tree.closest(places, 12)
        return out, weights


@lru_cache(maxsize=64)
def bridge(category: str, structure: str, n_verts: int | None = None) -> Bridge | None:
    """The way from a structure to the category's surface; None where it is the usual structure."""
    if structure == _USUAL[category]:
        return None
    mesh, usual = thing_mesh(category, structure, n_verts), thing_mesh(category, None, n_verts)
    here, there = (_first_of(category, name).structure for name in (structure, _USUAL[category]))
    with torch.no_grad():
        exists = (there.field(torch.from_numpy(mesh.canonical)).abs() <= 1e-4).numpy()
        back = (here.field(torch.from_numpy(usual.canonical)).abs() <= 1e-4).numpy()
    tree = TriangleTree(usual.canonical, usual.faces)
    return Bridge(mesh, np.logical_and.reduce(exists[mesh.faces], axis=1), back, tree)
