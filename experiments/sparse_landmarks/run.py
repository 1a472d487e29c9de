"""Sparse landmarks on faces: K = 20 without labels, then given landmarks from few labels.

    python -m experiments.sparse_landmarks.run --out DIR [--quick] [--seed S] [--variant NAME ...] [--k K] [--steps N]
                                               [--frame FOLDER]

Variants: geoframe, which starts from an object frame (of --frame, or one that is trained here); paper, chapter 4 as it
is written; shifted, the same with larger shifts, reflected borders and free scores. `motion` in results.json is how far
the landmarks go from picture to picture over how far the given ones go: near 0 they are fixed places. Pictures show the
landmarks of faces of the test.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.faces import load_faces, squares
from geoframe._files import to_json
from geoframe.models import object_frame, sparse_landmarks
from geoframe.viz.images import contact_sheet, draw_points
from geoframe.viz.surfaces import save_picture
from geoframe.warps import to_pixels


def main(argv: Sequence[str] | None = None) -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--frame", type=Path)
    parser.add_argument("--variant", nargs="+", choices=sparse_landmarks.RECIPES, default=["geoframe"])
    asked = parser.parse_args(argv)
    faces = load_faces(asked.out / "faces")
    labels: list[int | str] = [10, 50, "all"]
    frame: Any = object_frame.OURS.with_steps(2) if asked.quick else None
    if asked.quick:
        faces = type(faces)(*(part.only(range(12)) for part in (faces.train, faces.test, faces.unlabelled)))
        labels = [5, "all"]
    if asked.frame is not None:
        frame = object_frame.load(asked.frame)
    results: dict[str, Any] = {}
    for variant in asked.variant:
        recipe = sparse_landmarks.RECIPES[variant].with_k(asked.k)
        steps = 2 if asked.quick else asked.steps
        recipe = recipe if steps is None else recipe.with_steps(steps)
        out = asked.out / f"{variant}_{asked.seed}"
        if not (out / "model.json").is_file():
            sparse_landmarks.train(faces.unlabelled, out=out, recipe=recipe, frame=frame, seed=asked.seed)
        predictor = sparse_landmarks.load(out)
        labelled, test = squares(predictor, faces.train), squares(predictor, faces.test)
        for method in ("cascade", "linear"):
            numbers = sparse_landmarks.evaluate(
                predictor, labelled, test[:2], labels=labels, method=method, seed=asked.seed
            )
            results[f"{variant}/{asked.seed}/{method}"] = numbers
        images = test[0][:: max(1, len(test[0]) // 24)][:24]
        points = to_pixels(predictor.own_points(images), images.shape[-1], images.shape[-1])
        drawn = [
            draw_points(np.ascontiguousarray(x.movedim(0, -1).numpy()), p, scale=2)
            for x, p in zip(images, points, strict=True)
        ]
        save_picture(contact_sheet(drawn, columns=8), asked.out / f"{variant}.png")
        (asked.out / "results.json").write_text(to_json(results), encoding="utf-8")


if __name__ == "__main__":
    main()
