"""Train the networks that name landmarks, on the zoo alone, and measure them on the zoo and on real surfaces.

``python -m experiments.landmark_network.run --out DIR [--quick] [--seed S]`` writes DIR/weights.safetensors, which is
what `geoframe.landmarking` ships, and DIR/results.json. With ``--weights FILE`` nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.landmark_network import evaluate, shapes
from experiments.landmark_network.train import NAMES, Lesson, Trial, calibrate, lesson, train, trial
from geoframe import zoo
from geoframe._files import atomic_path
from geoframe.landmarking.predict import load_networks, save_networks
from geoframe.landmarking.sides import BALL

N_ANIMALS, N_OTHERS, N_EACH, N_STEPS, N_NETWORKS = 1250, 300, 7, 2500, 3
KEPT = 12  # one in so many examples is kept for validation: it chooses and calibrates, no step sees it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a small set, one network, few steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="measure these instead of training")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    values: dict[str, Any] = {}
    weights = args.weights
    if weights is None:
        weights = args.out / "weights.safetensors"
        values |= train_all(weights, args.seed, quick=args.quick)
    folder = os.environ.get("GEOFRAME_DATA")
    if folder and not args.quick:
        values |= evaluate.real_figures(Path(folder), load_networks(weights))
    values["minutes"] = (time.perf_counter() - start) / 60
    with atomic_path(args.out / "results.json") as file:
        file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(values, indent=1))


def train_all(weights: Path, seed: int, *, quick: bool) -> dict[str, float]:
    """Make the set, train the networks, calibrate them together, write them; figures of validation."""
    lessons = training_set(seed, *((24, 6, 0) if quick else (N_ANIMALS, N_OTHERS, N_EACH)))
    kept, seen = lessons[::KEPT], [x for i, x in enumerate(lessons) if i % KEPT]
    models = []
    for i in range(1 if quick else N_NETWORKS):

        def tell(step: int, loss: float, i: int = i) -> None:
            if step % 100 == 99:
                print(f"network {i}, step {step + 1}, loss {loss:.3f}", flush=True)

        models.append(train(seen, 20 if quick else N_STEPS, seed + i + 1, tell))
    found = trial(models, kept)
    save_networks(weights, models, NAMES, calibrate(found))
    return figures(found)


def training_set(seed: int, n_animals: int, n_others: int, n_each: int) -> list[Lesson]:
    """Animals, a good half of them on two legs, and other things."""
    rng = np.random.default_rng(seed)
    quick = n_animals < 100
    carriers = shapes.carriers(
        ("human", "dog") if quick else tuple(zoo.species()), 1, (650,) if quick else shapes.SIZES
    )
    if not quick:
        carriers += shapes.carriers(("human",), 2) + shapes.carriers(("human",), 3)
    by_owner: dict[str, list[shapes.Carrier]] = {}
    for carrier in carriers:
        by_owner.setdefault(carrier.owner, []).append(carrier)
    examples: list[shapes.Example | None] = []
    for i in range(n_animals):
        draw = rng.uniform()
        owner = "human" if draw < 0.45 else "chimp" if draw < 0.53 else "bird" if draw < 0.58 else ""
        owner = (
            owner if owner in by_owner else str(rng.choice([n for n in by_owner if n in shapes.FOUR_LEGGED]))
        )
        some = by_owner[owner]
        examples.append(shapes.animal_example(some[rng.integers(len(some))], 100_000 * seed + i))
    bases = shapes.other_bases(seed, n_each)
    examples += [
        shapes.other_example(*bases[i % len(bases)], 100_000 * seed + 50_000 + i) for i in range(n_others)
    ]
    return [lesson(x) for x in examples if x is not None]


def figures(t: Trial) -> dict[str, float]:
    """Of validation: mean error over sqrt(area), shares of landmarks, and how well the verdict tells."""
    error = t.error[t.there]
    return {
        "zoo_error": float(error.clamp(max=1).mean()),
        "zoo_within_0.1": float((error < BALL).float().mean()),
        "zoo_left_right_swapped": float(t.swapped[t.there].float().mean()),
        "zoo_known_right": float(((t.verdict > 0) == t.known).float().mean()),
    }


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    main()
