"""Inter-intra landmarks on faces, against their own baseline without the other subject and without the way back.

    python -m experiments.inter_intra.run --out DIR [--quick] [--seed S] [--variant NAME ...] [--minutes M | --steps N]
                                          [--start FOLDER]

Variants: geoframe and geoframe_baseline start from the same sparse landmarks (of --start, with K = 10, or trained here)
and have the same steps; geoframe_inter and geoframe_cycle have one of the two parts; paper and paper_baseline are the
published system, whose 200,000 steps are days on a CPU: give --minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.faces import load_faces, squares
from geoframe._files import to_json
from geoframe.models import inter_intra, object_frame, sparse_landmarks
from geoframe.models.inter_intra import BASELINE, OURS, PAPER, Recipe


def _parts(name: str, *, auxiliary: bool, cycle: bool) -> Recipe:
    return replace(OURS, name=name, losses=replace(OURS.losses, auxiliary=auxiliary, cycle=cycle))


VARIANTS = {
    "geoframe": OURS,
    "geoframe_baseline": _parts("geoframe_baseline", auxiliary=False, cycle=False),
    "geoframe_inter": _parts("geoframe_inter", auxiliary=True, cycle=False),
    "geoframe_cycle": _parts("geoframe_cycle", auxiliary=False, cycle=True),
    "paper": PAPER,
    "paper_baseline": BASELINE,
}


def main(argv: Sequence[str] | None = None) -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=["geoframe", "geoframe_baseline"])
    asked = parser.parse_args(argv)
    faces = load_faces(asked.out / "faces")
    labels: list[int | str] = [10, 50, "all"]
    if asked.quick:
        faces = type(faces)(*(part.only(range(12)) for part in (faces.train, faces.test, faces.unlabelled)))
        labels = [5, "all"]
    start = None if asked.start is None else sparse_landmarks.load(asked.start)
    if start is None and any(VARIANTS[v].settings.get("detector") == "frame" for v in asked.variant):
        plan = sparse_landmarks.OURS.with_k(10)
        frame = object_frame.OURS.with_steps(2) if asked.quick else object_frame.OURS
        start = sparse_landmarks.train(
            faces.unlabelled,
            out=asked.out / f"start_{asked.seed}",
            recipe=plan.with_steps(2) if asked.quick else plan,
            frame=frame,
            seed=asked.seed,
        )
    results: dict[str, Any] = {}
    for variant in asked.variant:
        recipe = VARIANTS[variant]
        if asked.quick or asked.steps is not None:
            recipe = recipe.with_steps(2 if asked.quick else asked.steps)
        elif asked.minutes is not None:
            recipe = recipe.with_minutes(asked.minutes)
        out = asked.out / f"{variant}_{asked.seed}"
        begin = start if recipe.settings.get("detector") == "frame" else None
        if not (out / "model.json").is_file():
            inter_intra.train(faces.unlabelled, out=out, recipe=recipe, start=begin, seed=asked.seed)
        predictor = inter_intra.load(out)
        labelled, test = squares(predictor, faces.train), squares(predictor, faces.test)
        for method in ("cascade", "linear"):
            results[f"{variant}/{asked.seed}/{method}"] = inter_intra.evaluate(
                predictor, labelled, test[:2], labels=labels, method=method, seed=asked.seed
            )
        (asked.out / "results.json").write_text(to_json(results), encoding="utf-8")


if __name__ == "__main__":
    main()
