"""Object frames on faces: landmarks from few labels, matching, symmetry, for each recipe.

    python -m experiments.object_frame.run --out DIR [--quick] [--seed S ...] [--variant NAME ...] [--steps N]
                                           [--develop] [--labels N ...] [--draws N] [--method NAME ...]

The faces are those of GEOFRAME_DATA/faces, split by people (experiments/faces.py). Every run has a folder,
OUT/VARIANT_SEED: one that is finished is measured as it is, one that was killed goes on. results.json holds flat names
-> numbers, of all runs in OUT; VARIANT_SEED.png shows the frame of some faces of the test as colours,
VARIANT_SEED_landmarks.png what 50 labels give.
`--develop` measures on a third of the training people instead: settings are chosen there. `--quick` is a smoke test on
few pictures and steps, whose figures mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.faces import add_results, face_options, faces_of, squares, trained
from geoframe.models.object_frame import COMPRESSED, DENSE, OURS, SYMMETRIC, Recipe, load, train
from geoframe.models.object_frame.evaluate import landmark_errors, matching_errors
from geoframe.viz.images import contact_sheet, draw_points
from geoframe.viz.surfaces import save_picture
from geoframe.warps import to_pixels


def _with_exchange(recipe: Recipe, name: str) -> Recipe:
    """The recipe with half of its steps through other faces."""
    return replace(recipe, name=name, losses=replace(recipe.losses, exchange=0.5))


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
    asked = face_options(__doc__, VARIANTS, ["geoframe"]).parse_args(argv)
    faces, labels = faces_of(asked)
    for seed, variant in product(asked.seed, asked.variant):
        recipe = recipe_of(variant, 2 if asked.quick else asked.steps)
        out = asked.out / f"{variant}_{seed}"
        learn = partial(train, faces.unlabelled, out=out, recipe=recipe, seed=seed)
        predictor, spent = trained(out, learn, load)
        labelled, test = squares(predictor, faces.train), squares(predictor, faces.test)
        add_results(
            asked.out, f"{variant}/{seed}", spent | matching_errors(predictor, labelled, test[:2], seed=seed)
        )
        for method in asked.method:
            numbers = landmark_errors(
                predictor, labelled, test[:2], labels=labels, draws=asked.draws, method=method, seed=seed
            )
            add_results(asked.out, f"{variant}/{seed}/{method}", numbers)
        _draw(asked.out, f"{variant}_{seed}", predictor, labelled, test)


def recipe_of(variant: str, steps: int | None) -> Recipe:
    """The recipe of a variant, of another length if asked for; what exchanges does so from a quarter of it on."""
    recipe = VARIANTS[variant] if steps is None else VARIANTS[variant].with_steps(steps)
    if variant.startswith("paper") or not recipe.losses.exchange:
        return recipe
    assert recipe.schedule.steps is not None
    return replace(recipe, losses=replace(recipe.losses, exchange_after=recipe.schedule.steps // 4))


def _draw(out: Path, name: str, predictor: Any, labelled: Any, test: Any) -> None:
    """The frame as colours, and landmarks from 50 labels."""
    shown = torch.arange(0, len(test[0]), max(1, len(test[0]) // 24))[:24]
    images = test[0][shown]
    pictures = [np.ascontiguousarray(x.movedim(0, -1).numpy()) for x in images]
    colours = predictor.colours(images)
    pairs = [x for pair in zip(pictures, colours, strict=True) for x in pair]
    save_picture(contact_sheet(pairs, columns=12), out / f"{name}.png")
    order = torch.randperm(len(labelled[0]), generator=torch.Generator().manual_seed(0))[:50]
    fitted = predictor.with_landmarks(*(x[order] for x in labelled[:2]), groups=labelled[2][order])
    points = to_pixels(fitted.landmarks(images).points, images.shape[-1], images.shape[-1])
    drawn = [draw_points(p, q, scale=2) for p, q in zip(pictures, points, strict=True)]
    save_picture(contact_sheet(drawn, columns=8), out / f"{name}_landmarks.png")


if __name__ == "__main__":
    main()
