"""Measures of right and wrong maps between animals of the zoo, whose truth is known: where `doubts` draws its lines.

python -m experiments.verdict.run --out OUT [--quick] [--seed S]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from geoframe import zoo
from geoframe._files import atomic_path, to_json
from geoframe.maps import geodesic_error, match

SPECIES = ("cat", "dog", "horse", "lion", "cow", "giraffe", "bear", "elephant", "human", "chimp")
NAMES = (
    *("nose", "rump", "left_front_paw", "right_front_paw", "left_hind_paw", "right_hind_paw", "left_ear"),
    *("left_hand", "right_hand", "left_foot", "right_foot"),
)
RIGHT = 0.15  # mean error over sqrt(area) from which a map is called wrong


def _mirrored(name: str) -> str:
    return name.replace("left", "-").replace("right", "left").replace("-", "right")


def _reversed(name: str) -> str:
    """Head for tail, front for hind."""
    ends = {"nose": "rump", "rump": "nose"}
    return ends.get(name, name.replace("front", "-").replace("hind", "front").replace("-", "hind"))


WAYS = {"right": lambda name: name, "mirrored": _mirrored, "reversed": _reversed, "none": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="two pairs instead of twelve")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    rows = []
    for i in range(2 if options.quick else 12):
        names = rng.choice(SPECIES, 2, replace=False)
        a, b = (
            zoo.animal(str(s), 1000, seed=20 * j + i, pose=7 * j + i)
            for j, s in enumerate(names, options.seed)
        )
        truth = zoo.correspondence(a, b).p2p_21
        for way, rename in WAYS.items():
            pairs = None
            if rename is not None:
                both = [n for n in NAMES if n in a.landmarks and rename(n) in b.landmarks]
                pairs = torch.tensor([(a.landmarks[n], b.landmarks[rename(n)]) for n in both])
            began = time.perf_counter()
            found = match(a.mesh, b.mesh, pairs)
            error = float(geodesic_error(a.mesh, found.p2p_21, truth, method="dijkstra").mean())
            rows.append(
                {
                    "pair": f"{names[0]} {names[1]}",
                    "landmarks": way,
                    "error": error,
                    "verdict": found.verdict,
                    "ambiguity": found.ambiguity,
                    "seconds": time.perf_counter() - began,
                    **found.energies,
                }
            )
            told = {
                k: f"{v:.3f}" for k, v in found.energies.items() if k in ("distortion", "flipped_triangles")
            }
            print(f"{rows[-1]['pair']:20s} {way:9s} error {error:.3f}  {found.verdict:9s} {told}", flush=True)
    right = [r for r in rows if r["error"] < RIGHT]
    wrong = [r for r in rows if r["error"] >= RIGHT]
    summary = {
        "right": len(right),
        "wrong": len(wrong),
        "right_called_good": sum(r["verdict"] == "good" for r in right) / max(len(right), 1),
        "wrong_called_doubtful": sum(r["verdict"] == "doubtful" for r in wrong) / max(len(wrong), 1),
    }
    print(summary)
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.out / "results.json") as temporary:
        temporary.write_text(to_json({"summary": summary, "rows": rows}), encoding="utf-8")


if __name__ == "__main__":
    main()
