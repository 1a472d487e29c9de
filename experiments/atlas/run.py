"""The atlas: maps between all pairs of the articulated zoo from 12 landmarks, against the exact ground truth.

python -m experiments.atlas.run --out OUT [--quick] [--seed S] [--pyfm N]

Every species stands in another pose, as another individual, with a triangulation of its own. OUT/maps holds the
results of `match-all` (both directions of a pair in one file); a second run reuses them. OUT/results.json, table.md
and pattern.png are written at the end.

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
from experiments.real_animals.run import pyfm
from geoframe import batch, zoo
from geoframe._files import atomic_path
from geoframe.surface.geodesics import HeatGeodesics
from geoframe.viz import draw_match, save_picture

LANDMARKS = (
    *("nose", "poll", "tail_base", "throat"),
    *(f"{side}_{name}" for name in ("ear", "elbow", "front_paw", "hind_paw") for side in ("left", "right")),
)
BIPEDS = ("human", "chimp", "bird")
PROBES = 200


def main() -> None:
    """Match all pairs, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="three species of 1,500 vertices")
    parser.add_argument("--seed", type=int, default=0, help="of individuals, poses and probes")
    parser.add_argument(
        "--pyfm", type=int, default=0, metavar="N", help="this many ordered pairs by pyFM, too"
    )
    args = parser.parse_args()
    begin = time.perf_counter()
    names = ["cat", "horse", "human"] if args.quick else zoo.species()
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
    ]
    records = batch.match_all(pairs, args.out / "maps", progress=_tell)
    for record in records:
        if record["status"] != "done":
            raise SystemExit(f"{record['source']} to {record['target']}: {record['error']}")
    maps = _read(args.out / "maps", names)
    results = measure(animals, maps, args.seed)
    for a, b in list(permutations(names, 2))[:: max(1, len(maps) // max(1, args.pyfm))][: args.pyfm]:
        p2p = pyfm(animals[a].mesh, animals[b].mesh, torch.tensor(_pairs(animals[a], animals[b])))
        if p2p is not None:
            heat = HeatGeodesics(animals[a].mesh)
            results[f"pyfm/{a}->{b}"] = _error(animals[a], animals[b], p2p, args.seed, heat)
            print(f"pyFM {a} to {b}: {results[f'pyfm/{a}->{b}']:.4f}, ours {results[f'{a}->{b}']:.4f}")
    results["seconds"] = time.perf_counter() - begin
    _write(results, names, args.out)
    a, b = ("human", "cat") if "human" in names else names[:2]
    titles = (a, b)
    save_picture(
        draw_match(animals[a].mesh, animals[b].mesh, maps[a, b], titles=titles), args.out / "pattern.png"
    )
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


def _read(folder: Path, names: list[str]) -> dict[tuple[str, str], Tensor]:
    """(source, target) -> p2p_21, both directions of every file."""
    maps = {}
    for a, b in combinations(names, 2):
        with np.load(folder / f"{a}--{b}.npz", allow_pickle=False) as file:
            maps[a, b] = torch.as_tensor(file["p2p_21"]).long()
            maps[b, a] = torch.as_tensor(file["p2p_12"]).long()
    return maps


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
