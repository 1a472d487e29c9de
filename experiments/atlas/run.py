"""The atlas: maps between all pairs of the articulated zoo from 12 landmarks, against the exact ground truth.

python -m experiments.atlas.run --out OUT [--direct] [--quick] [--seed S] [--pyfm N]

Every species stands in another pose, as another individual, with a triangulation of its own. All are matched with
the dog, and any two of them through it, so that maps compose: from a to b to c is from a to c. `--direct` matches
every pair for itself instead, a little more exact and six times the work. OUT/maps holds the results of `match-all`
(both directions of a pair in one file); a second run reuses them. OUT/results.json, table.md and pattern.png (a
pattern of the human on every species) are written at the end.

The ground truth is exact within and across families: all animals are forms of one cage (`geoframe.zoo`), so that
a human's hand is a cat's front paw. Errors are heat geodesic distances (1 to 3 % off) at 200 random vertices of the
target, between the vertex found and the vertex nearest to the true point, over the square root of the source's area.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import geoframe
from experiments.gallery.contact_sheet import captioned, turned
from experiments.real_animals.run import pyfm
from geoframe import batch, eigenbasis, zoo
from geoframe._files import atomic_path
from geoframe.maps import p2p_to_fmap, transfer_spectral
from geoframe.nearest.dense import nearest
from geoframe.surface.geodesics import HeatGeodesics
from geoframe.viz.surfaces import draw_surface, position_colors, save_picture

LANDMARKS = (
    *("nose", "rump"),
    *(f"{s}_{name}" for name in ("ear", "elbow", "front_paw", "hock", "hind_paw") for s in ("left", "right")),
)
HUB = "dog"
BIPEDS = ("human", "chimp", "bird")
PROBES = 200
CARRIED, DIMENSIONS = 120, 60  # functions that carry an embedding, and its dimensions


def main() -> None:
    """Match all pairs, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--direct", action="store_true", help="match every pair for itself")
    parser.add_argument("--quick", action="store_true", help="three species of 1,500 vertices")
    parser.add_argument("--seed", type=int, default=0, help="of individuals, poses and probes")
    parser.add_argument(
        "--pyfm", type=int, default=0, metavar="N", help="this many ordered pairs by pyFM, too"
    )
    args = parser.parse_args()
    begin = time.perf_counter()
    names = ["cat", HUB, "human"] if args.quick else zoo.species()
    size = 1500 if args.quick else 5000
    animals = {
        name: zoo.animal(name, size, seed=args.seed + 1, pose=100 * args.seed + i)
        for i, name in enumerate(names)
    }
    folder = args.out / "meshes"
    folder.mkdir(parents=True, exist_ok=True)
    for name, animal in animals.items():
        geoframe.save(animal.mesh, folder / f"{name}.obj")
    pairs = [
        batch.Pair(folder / f"{a}.obj", folder / f"{b}.obj", _pairs(animals[a], animals[b]))
        for a, b in combinations(names, 2)
        if args.direct or HUB in (a, b)
    ]
    records = batch.match_all(pairs, args.out / "maps", progress=_tell)
    for record in records:
        if record["status"] != "done":
            raise SystemExit(f"{record['source']} to {record['target']}: {record['error']}")
    maps = _read(args.out / "maps", names, args.direct)
    results = {"seconds_maps": time.perf_counter() - begin}
    results |= measure(animals, maps, args.seed)
    results |= _embeddings(animals, maps, args.seed)
    for a, b in list(permutations(names, 2))[:: max(1, len(maps) // max(1, args.pyfm))][: args.pyfm]:
        p2p = pyfm(animals[a].mesh, animals[b].mesh, torch.tensor(_pairs(animals[a], animals[b])))
        if p2p is not None:
            heat = HeatGeodesics(animals[a].mesh)
            results[f"pyfm/{a}->{b}"] = _error(animals[a], animals[b], p2p, args.seed, heat)
            print(f"pyFM {a} to {b}: {results[f'pyfm/{a}->{b}']:.4f}, ours {results[f'{a}->{b}']:.4f}")
    results["seconds"] = time.perf_counter() - begin
    _write(results, names, args.out)
    save_picture(_pattern(animals, maps), args.out / "pattern.png")
    print(json.dumps({k: round(v, 4) for k, v in results.items() if "->" not in k}, indent=1))


def measure(
    animals: dict[str, zoo.Animal], maps: dict[tuple[str, str], Tensor], seed: int
) -> dict[str, float]:
    """Errors of all ordered pairs, their means, and how far a round trip over three species comes back."""
    results = {}
    for a, animal in animals.items():
        heat = HeatGeodesics(animal.mesh)
        for b in animals:
            if b != a:
                results[f"{a}->{b}"] = _error(animal, animals[b], maps[a, b], seed, heat)
    legs = {False: "quadrupeds", True: "mixed"}
    groups: dict[str, list[float]] = {}
    for a, b in maps:
        if "bird" not in (a, b):
            groups.setdefault(legs[a in BIPEDS or b in BIPEDS], []).append(results[f"{a}->{b}"])
        if "human" in (a, b) and not {a, b} & {"chimp", "bird"}:
            groups.setdefault("human_quadruped", []).append(results[f"{a}->{b}"])
    for group, errors in groups.items():
        results[f"mean/{group}"], results[f"max/{group}"] = float(np.mean(errors)), float(np.max(errors))
    rounds = []
    for a, b, c in list(combinations(animals, 3))[:: max(1, len(animals) - 2)]:
        # p2p of (x, y) gives vertices of y a vertex of x: a vertex of a goes to c, on to b, and back to a
        back = maps[a, b][maps[b, c][maps[c, a]]]
        mesh = animals[a].mesh
        some = torch.randperm(mesh.n_verts, generator=torch.Generator().manual_seed(seed))[:PROBES]
        rows = HeatGeodesics(mesh).rows(some)
        rounds.append(float(rows[torch.arange(len(some)), back[some]].mean() / mesh.area.sqrt()))
    results["round_trip_of_three"] = float(np.mean(rounds))
    return results


def _error(a: zoo.Animal, b: zoo.Animal, p2p_21: Tensor, seed: int, heat: HeatGeodesics) -> float:
    """Mean error of a map from b to a, over sqrt(area of a)."""
    at = torch.randperm(b.mesh.n_verts, generator=torch.Generator().manual_seed(seed))[:PROBES]
    truth = zoo.correspondence(a, b).p2p_21[at]
    rows = heat.rows(truth)
    return float(rows[torch.arange(len(at)), p2p_21[at]].mean() / a.mesh.area.sqrt())


def _pairs(a: zoo.Animal, b: zoo.Animal) -> tuple[tuple[int, int], ...]:
    return tuple((a.landmarks[name], b.landmarks[name]) for name in LANDMARKS)


def _read(folder: Path, names: list[str], direct: bool) -> dict[tuple[str, str], Tensor]:
    """(source, target) -> p2p_21: read, both directions of every file, or composed through the hub."""
    maps = {}
    for a, b in combinations(names, 2):
        if direct or HUB in (a, b):
            with np.load(folder / f"{a}--{b}.npz", allow_pickle=False) as file:
                maps[a, b] = torch.as_tensor(file["p2p_21"]).long()
                maps[b, a] = torch.as_tensor(file["p2p_12"]).long()
    return {
        (a, b): maps[a, b] if (a, b) in maps else maps[a, HUB][maps[HUB, b]]
        for a, b in permutations(names, 2)
    }


def _embeddings(
    animals: dict[str, zoo.Animal], maps: dict[tuple[str, str], Tensor], seed: int
) -> dict[str, float]:
    """E' = T E: a spectral embedding of the human carried to every species by the functional map, and how far a
    vertex of the species then is from its true place, if it goes to the human's vertex with the nearest embedding."""
    human, heat = animals["human"], HeatGeodesics(animals["human"].mesh)
    basis = eigenbasis(human.mesh, CARRIED)
    E = basis.vecs[:, 1:DIMENSIONS] / basis.vals[1:DIMENSIONS].sqrt()
    results = {}
    for name in animals:
        if name != "human":
            other = eigenbasis(animals[name].mesh, CARRIED)
            there = transfer_spectral(E, p2p_to_fmap(maps["human", name], basis, other), basis, other)
            results[f"embedding/human->{name}"] = _error(
                human, animals[name], nearest(there, E)[0], seed, heat
            )
    return results | {"mean/embedding": float(np.mean(list(results.values())))}


def _pattern(animals: dict[str, zoo.Animal], maps: dict[tuple[str, str], Tensor]) -> np.ndarray:
    """One pattern, drawn on the human and carried to every species by the maps."""
    human = animals["human"]
    colors = zoo.texture(human, "patches").numpy() * 0.35 + 0.65 * position_colors(
        human.mesh.verts.numpy(), turned(20, 5)
    )
    tiles = []
    for name in ("human", *(n for n in animals if n != "human")):
        mine = colors if name == "human" else colors[maps["human", name].numpy()]
        tiles.append(
            captioned(
                draw_surface(animals[name].mesh, colors=mine, view=turned(35, 12), size=(300, 330)), name
            )
        )
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 5)
    return np.concatenate([np.concatenate(tiles[i : i + 5], axis=1) for i in range(0, len(tiles), 5)])


def _write(results: dict[str, float], names: list[str], out: Path) -> None:
    with atomic_path(out / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    lines = ["| from \\ to | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for a in names:
        cells = ["" if a == b else f"{results[f'{a}->{b}']:.3f}" for b in names]
        lines.append(f"| {a} | " + " | ".join(cells) + " |")
    with atomic_path(out / "table.md") as path:
        path.write_text("\n".join(lines) + "\n")


def _tell(step: str, share: float) -> None:
    print(f"{100 * share:3.0f} % {step}", flush=True)


if __name__ == "__main__":
    main()
