"""Object frames on faces: landmarks from few labels, matching, symmetry, for each recipe.

    python -m experiments.object_frame.run --out DIR [--quick] [--seed S] [--variant NAME ...] [--steps N] [--develop]

The faces are those of GEOFRAME_DATA/faces, split by people (experiments/faces.py). Every run has a folder,
OUT/VARIANT_SEED: one that is finished is measured as it is, one that was killed goes on. results.json holds flat names
-> numbers; VARIANT.png shows the frame of some faces of the test as colours, VARIANT_landmarks.png what 50 labels give.
`--develop` measures on a third of the training people instead: settings are chosen there. `--quick` is a smoke test on
few pictures and steps, whose figures mean nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.faces import load_faces, squares
from geoframe._files import to_json
from geoframe.models.object_frame import COMPRESSED, DENSE, OURS, SYMMETRIC, Recipe, evaluate, load, train
from geoframe.models.object_frame.evaluate import landmark_errors
from geoframe.viz.images import contact_sheet, draw_points
from geoframe.viz.surfaces import save_picture
from geoframe.warps import to_pixels


def _with_exchange(recipe: Recipe, name: str) -> Recipe:
    """The recipe with half of its later steps through other faces."""
    losses = replace(recipe.losses, exchange=0.5, exchange_after=200)
    return replace(recipe, name=name, losses=losses)


VARIANTS = {
    "geoframe": OURS,
    "plain": replace(OURS, name="plain", group="none"),
    "exchange": _with_exchange(replace(OURS, group="none"), "exchange"),
    "mirror_exchange": _with_exchange(OURS, "mirror_exchange"),
    "paper_dense": DENSE,
    "paper_symmetric": SYMMETRIC,
    "paper_compressed": COMPRESSED,
}


def main(argv: Sequence[str] | None = None) -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--develop", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=["geoframe"])
    asked = parser.parse_args(argv)
    faces = load_faces(asked.out / "faces", development=asked.develop)
    labels: list[int | str] = [10, 50, "all"]
    if asked.quick:
        parts = (faces.train, faces.test, faces.unlabelled)
        faces = type(faces)(*(part.only(range(12)) for part in parts))
        labels = [5, "all"]
    results: dict[str, Any] = {}
    for variant in asked.variant:
        recipe = VARIANTS[variant]
        steps = 2 if asked.quick else asked.steps
        if steps is not None:
            recipe = recipe.with_steps(steps)
        out = asked.out / f"{variant}_{asked.seed}"
        if not (out / "model.json").is_file():
            train(faces.unlabelled, out=out, recipe=recipe, seed=asked.seed)
        predictor = load(out)
        labelled, test = squares(predictor, faces.train), squares(predictor, faces.test)
        numbers = evaluate(predictor, labelled, test[:2], labels=labels, seed=asked.seed)
        linear = landmark_errors(
            predictor, labelled, test[:2], labels=labels, method="linear", seed=asked.seed
        )
        numbers |= {f"linear_{k}": v for k, v in linear.items()}
        results |= _flat(f"{variant}/{asked.seed}", numbers)
        _draw(asked.out, variant, predictor, labelled, test)
        (asked.out / "results.json").write_text(to_json(results), encoding="utf-8")


def _flat(head: str, numbers: dict[str, Any]) -> dict[str, float]:
    out = {}
    for name, value in numbers.items():
        pairs = value.items() if isinstance(value, dict) else [("", value)]
        out |= {"/".join(filter(None, (head, name, str(k)))): v for k, v in pairs}
    return out


def _draw(out: Path, variant: str, predictor: Any, labelled: Any, test: Any) -> None:
    """The frame as colours, and landmarks from 50 labels."""
    shown = torch.arange(0, len(test[0]), max(1, len(test[0]) // 24))[:24]
    images = test[0][shown]
    pictures = [np.ascontiguousarray(x.movedim(0, -1).numpy()) for x in images]
    colours = predictor.colours(images)
    pairs = [x for pair in zip(pictures, colours, strict=True) for x in pair]
    save_picture(contact_sheet(pairs, columns=12), out / f"{variant}.png")
    order = torch.randperm(len(labelled[0]), generator=torch.Generator().manual_seed(0))[:50]
    fitted = predictor.with_landmarks(*(x[order] for x in labelled[:2]), groups=labelled[2][order])
    points = to_pixels(fitted.landmarks(images).points, images.shape[-1], images.shape[-1])
    drawn = [draw_points(p, q, scale=2) for p, q in zip(pictures, points, strict=True)]
    save_picture(contact_sheet(drawn, columns=8), out / f"{variant}_landmarks.png")


if __name__ == "__main__":
    main()
