"""An object frame from the motion of a robot arm: how far the centres of its capsules are found.

    python -m experiments.robot_arm.run --out DIR [--quick] [--seed S] [--steps N] [--pairs N]

The frame learns from pairs of poses and their exact flow, without labels. Then the mean embedding of each capsule's
centre over the training frames is looked for in frames of other poses. The error is in percent of the picture's width,
as in the thesis (chapter 5, table 1: 0.97 to 1.14).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.robot_arm.arm import film
from geoframe._files import to_json
from geoframe.data.views import FlowBatches
from geoframe.models.object_frame import OURS, train
from geoframe.models.object_frame.predictor import describe, few_shot_points
from geoframe.models.object_frame.recipe import Losses
from geoframe.training import Schedule
from geoframe.viz.images import contact_sheet
from geoframe.viz.surfaces import save_picture
from geoframe.warps import to_normalised, to_pixels

SIZE = 96  # a multiple of the network's largest stride; 90 in the thesis
RECIPE = replace(
    OURS,
    name="arm",
    settings={"dim": 8, "stride": 2},
    group="none",
    losses=Losses(form="log", temperature=0.05, length=1.0, pixels=256),
    schedule=Schedule(steps=400, lr=2e-3, warmup=20, decay="cosine"),
)


def main(argv: Sequence[str] | None = None) -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=2000)
    asked = parser.parse_args(argv)
    steps, n = (2, 20) if asked.quick else (asked.steps, asked.pairs)
    learned, test = film(n, size=SIZE, seed=asked.seed), film(min(n, 200), size=SIZE, seed=asked.seed + 1000)
    batches = FlowBatches(learned.first, learned.second, learned.flow, pairs=8, stride=2, seed=asked.seed)
    out = asked.out / f"arm_{asked.seed}"
    predictor = train(batches, out=out, recipe=RECIPE.with_steps(steps), seed=asked.seed)
    known = learned.second[:200]
    descriptors = describe(predictor.embed(known), to_normalised(learned.centres[:200], SIZE, SIZE))
    found = to_pixels(few_shot_points(descriptors, predictor.embed(test.second)), SIZE, SIZE)
    error = 100 * (found - test.centres).norm(dim=-1) / SIZE
    numbers = {"centre_error_percent": float(error.mean()), "centre_error_median": float(error.median())}
    numbers |= {f"link_{k}_percent": float(error[:, k].mean()) for k in range(error.shape[1])}
    results = {f"arm/{asked.seed}/{name}": value for name, value in numbers.items()}
    (asked.out / "results.json").write_text(to_json(results), encoding="utf-8")
    shown = test.second[:12]
    pictures = [np.ascontiguousarray(x.movedim(0, -1).numpy()) for x in shown]
    pairs = [x for pair in zip(pictures, predictor.colours(shown), strict=True) for x in pair]
    save_picture(contact_sheet(pairs, columns=8), asked.out / "arm.png")


if __name__ == "__main__":
    main()
