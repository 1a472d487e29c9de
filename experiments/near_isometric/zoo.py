"""Maps from nothing between quadrupeds of the zoo of different species, in poses and bodies nothing was chosen on.

python -m experiments.near_isometric.zoo --out OUT [--pairs 60] [--seed 11] [--vertices 1000] [--quick]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import geoframe
from experiments.verdict.surfaces import FOUR_LEGGED, Pair
from geoframe import zoo
from geoframe._files import atomic_path, to_json
from geoframe.canonical import Surface
from geoframe.maps.verdict import RIGHT, SURE

BODIES = 2  # of each species


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--vertices", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="two pairs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    species = [s for s in dict.fromkeys(FOUR_LEGGED) for _ in range(BODIES)]
    rng = np.random.default_rng(options.seed)
    seeds = rng.integers(10_000, 1_000_000, (len(species), 2))
    made: dict[int, tuple[zoo.Animal, Surface]] = {}

    def animal(i: int) -> tuple[zoo.Animal, Surface]:
        if i not in made:
            body, pose = (int(x) for x in seeds[i])
            a = zoo.animal(species[i], options.vertices, seed=body, pose=pose)
            made[i] = a, Surface.of(a.mesh)
        return made[i]

    rows = []
    while len(rows) < (2 if options.quick else options.pairs):
        i, j = (int(x) for x in rng.choice(len(species), 2, replace=False))
        if species[i] == species[j]:
            continue
        (a, one), (b, two) = animal(i), animal(j)
        found = geoframe.match(one, two)
        truth = zoo.correspondence(a, b).p2p_21
        seen = torch.as_tensor(rng.choice(two.n_verts, min(200, two.n_verts), replace=False))
        error = Pair("", "", one, two, truth[seen], seen).error(found.p2p_21)
        name = f"{species[i]}{i} {species[j]}{j}"
        rows.append({"pair": name, "error": error, "sure": found.confidence})
        print(json.dumps(rows[-1]), flush=True)
    errors, sure = (np.array([r[k] for r in rows]) for k in ("error", "sure"))
    right = errors < RIGHT
    table = {
        "pairs": len(rows),
        "right": int(right.sum()),
        "error_of_right": float(errors[right].mean()),
        "right_called_sure": int((right & (sure >= SURE)).sum()),
        "wrong_called_sure": int((~right & (sure >= SURE)).sum()),
    }
    print(json.dumps(table, indent=1))
    with atomic_path(options.out / "zoo.json") as temporary:
        temporary.write_text(to_json({"rows": rows, **table}), encoding="utf-8")


if __name__ == "__main__":
    main()
