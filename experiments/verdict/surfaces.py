"""Pairs of surfaces whose correspondence is known: animals of the zoo, whole and damaged, and FAUST and TOSCA."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geoframe import Mesh, load_mesh, zoo
from geoframe.canonical import Surface

PROBES = 200  # vertices of surface 2 at which a map is compared with the truth
FOUR_LEGGED = (
    "cat",
    "dog",
    "horse",
    "lion",
    "cow",
    "giraffe",
    "bear",
    "elephant",
    "sheep",
    "zebra",
    "cat",
    "dog",
)
UPRIGHT = ("human", "human", "human", "chimp")
CHOSEN_ON = {
    "faust": ("tr_reg_081", "tr_reg_083", "tr_reg_084"),
    "tosca": ("dog0", "dog2", "dog5", "centaur0"),
}
NOISE, CUT = 0.006, 0.3  # of sqrt(area); share of the vertices


class Pair(NamedTuple):
    """Two surfaces and what is known of them.

    Attributes:
        name: of the pair.
        half: "choose" or "report".
        one, two: the surfaces.
        true: (N,) vertices of surface 1, and seen (N,) the vertices of surface 2 that belong there.
    """

    name: str
    half: str
    one: Surface
    two: Surface
    true: Tensor
    seen: Tensor

    def error(self, p2p_21: Tensor) -> float:
        """Mean distance on surface 1, over sqrt(area), of where the map takes vertices to where they belong."""
        rows = self.one.distances(self.true)
        found = rows.gather(1, p2p_21[self.seen][:, None])
        return float(found.mean() / self.one.area.sqrt())


Make = Callable[[], Pair]


def zoo_animals(seed: int) -> dict[str, zoo.Animal]:
    """Name -> animal of 1,000 vertices; about five seconds each."""
    out = {}
    for i, species in enumerate((*FOUR_LEGGED, *UPRIGHT)):
        out[f"{species}{i}"] = zoo.animal(species, 1000, seed=900 + 50 * seed + i, pose=50 + 50 * seed + i)
    return out


def zoo_pairs(animals: dict[str, zoo.Animal], seed: int, n: int) -> Iterator[tuple[str, Make]]:
    """n pairs, one in three of people and chimps; of six, one has a noisy and one a cut surface 2."""
    rng = np.random.default_rng(seed)
    four = [a for a in animals if not a.startswith(("human", "chimp"))]
    two = [a for a in animals if a not in four]
    for i in range(n):
        a, b = rng.choice(two if i % 3 == 0 else four, 2, replace=False)
        if i % 12 == 11:  # one that has no answer: a map between them is as doubtful as can be
            a = rng.choice(two)
        damage = {3: "noise", 5: "cut"}.get(i % 6, "")
        name = f"zoo-{i}-{a}-{b}{'-' + damage if damage else ''}"
        half = "report" if (i // 6) % 2 else "choose"
        yield (
            name,
            lambda name=name, half=half, a=a, b=b, damage=damage, i=i: _zoo_pair(  # type: ignore[misc]
                name, half, animals[a], animals[b], damage, np.random.default_rng([seed, i])
            ),
        )


def _zoo_pair(
    name: str, half: str, a: zoo.Animal, b: zoo.Animal, damage: str, rng: np.random.Generator
) -> Pair:
    truth, mesh = zoo.correspondence(a, b).p2p_21, b.mesh
    if damage == "noise":
        step = NOISE * float(mesh.area) ** 0.5 * torch.as_tensor(rng.normal(size=mesh.verts.shape))
        mesh = Mesh(mesh.verts + step.to(mesh.verts), mesh.faces)
    if damage == "cut":
        mesh, kept = cut_away(mesh, CUT, rng)
        truth = truth[kept]
    seen = torch.as_tensor(rng.choice(mesh.n_verts, min(PROBES, mesh.n_verts), replace=False))
    return Pair(name, half, Surface.of(a.mesh), Surface.of(mesh), truth[seen], seen)


def cut_away(mesh: Mesh, share: float, rng: np.random.Generator) -> tuple[Mesh, Tensor]:
    """The mesh without the share of its vertices that lies farthest in a random direction, and the vertices kept."""
    way = torch.as_tensor(rng.normal(size=3)).to(mesh.verts)
    height = mesh.verts @ way
    keep = height <= height.quantile(1 - share)
    faces = mesh.faces[keep[mesh.faces].all(1)]
    kept = torch.unique(faces)
    number = torch.full((mesh.n_verts,), -1)
    number[kept] = torch.arange(len(kept))
    return Mesh(mesh.verts[kept], number[faces]), kept


def real_pairs() -> Iterator[tuple[str, Make]]:
    """All ordered pairs of FAUST and, within a class, of TOSCA; none where GEOFRAME_DATA is not set."""
    data = os.environ.get("GEOFRAME_DATA")
    if not data:
        return
    for kind in ("faust", "tosca"):
        folder = Path(data) / "near_isometric" / kind
        with np.load(folder / "truth.npz") as file:
            truth = {
                n: torch.as_tensor(file[n].astype(np.int64)) for n in file.files if not n.endswith("_sym")
            }
        held: dict[str, Surface] = {}
        for a, b in permutations(truth, 2):
            if kind == "tosca" and a.rstrip("0123456789") != b.rstrip("0123456789"):
                continue
            half = "choose" if {a, b} <= set(CHOSEN_ON[kind]) else "report"
            yield (
                f"{kind}-{a}-{b}",
                lambda a=a, b=b, half=half, held=held, folder=folder, truth=truth: _real_pair(  # type: ignore[misc]
                    half, held, folder, truth, a, b
                ),
            )


def _real_pair(
    half: str, held: dict[str, Surface], folder: Path, truth: dict[str, Tensor], a: str, b: str
) -> Pair:
    for name in (a, b):
        if name not in held:
            held[name] = Surface.of(load_mesh(folder / f"{name}.off"))
    rows = torch.as_tensor(np.random.default_rng(5).choice(len(truth[a]), PROBES, replace=False))
    return Pair(f"{folder.name}-{a}-{b}", half, held[a], held[b], truth[a][rows], truth[b][rows])
