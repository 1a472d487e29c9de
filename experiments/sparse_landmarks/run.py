"""Sparse landmarks on faces: K = 20 without labels, then given landmarks from few labels.

    python -m experiments.sparse_landmarks.run --out DIR [--quick] [--seed S ...] [--variant NAME ...] [--k K]
                                               [--steps N] [--frame FOLDER] [--labels N ...] [--draws N]

Variants: geoframe, which starts from an object frame (of --frame, or one that is trained here); paper, chapter 4 as it
is written; shifted, the same with larger shifts, reflected borders and free scores; paper_small and shifted_small, the
two on small views, which take a minute. `motion` in results.json is how far the landmarks go from picture to picture
over how far the given ones go: near 0 they are fixed places. Pictures show the landmarks of faces of the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from experiments.faces import add_results, draw_own_points, face_options, faces_of, squares, trained
from geoframe.models import object_frame, sparse_landmarks
from geoframe.models.sparse_landmarks import Recipe
from geoframe.training import Schedule


def _small(recipe: Recipe) -> Recipe:
    """The recipe on views of 64 pixels with fewer pairs and a faster rate: it collapses, or not, in a minute."""
    views = replace(recipe.views, size=64, pairs=6)
    schedule = Schedule(steps=100, lr=1e-3, decay="cosine", weight_decay=5e-4)
    return replace(recipe, name=f"{recipe.name}_small", views=views, schedule=schedule)


VARIANTS = {
    **sparse_landmarks.RECIPES,
    "paper_small": _small(sparse_landmarks.PAPER),
    "shifted_small": _small(sparse_landmarks.SHIFTED),
}


def main(argv: Sequence[str] | None = None) -> None:
    """See the top of this file."""
    parser = face_options(__doc__, VARIANTS, ["geoframe"])
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--frame", type=Path)
    asked = parser.parse_args(argv)
    faces, labels = faces_of(asked)
    frame: Any = object_frame.OURS.with_steps(2) if asked.quick else None
    if asked.frame is not None:
        frame = object_frame.load(asked.frame)
    for seed, variant in product(asked.seed, asked.variant):
        recipe = VARIANTS[variant].with_k(asked.k)
        steps = 2 if asked.quick else asked.steps
        recipe = recipe if steps is None else recipe.with_steps(steps)
        out = asked.out / f"{variant}_{seed}"
        learn = partial(
            sparse_landmarks.train, faces.unlabelled, out=out, recipe=recipe, frame=frame, seed=seed
        )
        predictor, spent = trained(out, learn, sparse_landmarks.load)
        labelled, test = squares(predictor, faces.train), squares(predictor, faces.test)
        numbers = sparse_landmarks.point_measures(predictor, labelled, test[:2], seed=seed)
        add_results(asked.out, f"{variant}/{seed}", spent | numbers)
        for method in asked.method:
            errors = object_frame.landmark_errors(
                predictor, labelled, test[:2], labels=labels, draws=asked.draws, method=method, seed=seed
            )
            add_results(asked.out, f"{variant}/{seed}/{method}", errors)
        draw_own_points(predictor, test[0], asked.out / f"{variant}_{seed}.png")


if __name__ == "__main__":
    main()
