"""Inter-intra landmarks on faces, against their own baseline without the other subject and without the way back.

    python -m experiments.inter_intra.run --out DIR [--quick] [--seed S ...] [--variant NAME ...]
                                          [--minutes M | --steps N] [--start FOLDER] [--labels N ...] [--draws N]

Variants: geoframe, half of whose pictures go through somebody else, and geoframe_baseline, none, start from the same
sparse landmarks (of --start, with K = 10, or trained here), which are measured, too (start), and have the same steps
unless each has a command of its own; of geoframe_inter all go through somebody else, geoframe_cycle has the way back
alone and geoframe_both is the whole of the paper; with geoframe_open and its baseline painting counts everywhere, not
only near the landmarks; paper and paper_baseline are the published system, whose 200,000
steps are days on a CPU: give --minutes. With several variants, gain/VARIANT/SEED is by how much the error of 5 points
by one regression from all labels is below that of the last variant of the list: its mean over the pictures, and the
standard error of that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.faces import Faces, add_results, draw_own_points, face_options, faces_of, squares, trained
from geoframe._cache import cache_key
from geoframe._files import to_json
from geoframe.data.face_files import eye_distance, five_of_68
from geoframe.metrics.landmarks import percent_error
from geoframe.models import inter_intra, object_frame, sparse_landmarks
from geoframe.models.inter_intra import BASELINE, OURS, PAPER, Recipe


def _parts(name: str, **losses: Any) -> Recipe:
    return replace(OURS, name=name, losses=replace(OURS.losses, **losses))


VARIANTS = {
    "geoframe": OURS,
    "geoframe_baseline": _parts("geoframe_baseline", auxiliary=0.0),
    "geoframe_inter": _parts("geoframe_inter", auxiliary=1.0),
    "geoframe_cycle": _parts("geoframe_cycle", auxiliary=0.0, cycle=True),
    "geoframe_both": _parts("geoframe_both", auxiliary=1.0, shapes="first", cycle=True),
    "geoframe_open": _parts("geoframe_open", window=0.0),
    "geoframe_open_baseline": _parts("geoframe_open_baseline", auxiliary=0.0, window=0.0),
    "paper": PAPER,
    "paper_baseline": BASELINE,
}


def main(argv: Sequence[str] | None = None) -> None:
    """See the top of this file."""
    parser = face_options(__doc__, VARIANTS, ["geoframe", "geoframe_baseline"])
    parser.add_argument("--minutes", type=float, help="of each training, instead of --steps")
    parser.add_argument("--start", type=Path)
    asked = parser.parse_args(argv)
    faces, labels = faces_of(asked)
    for seed in asked.seed:
        start = _start(asked, faces, seed)
        if start is not None:
            check_start(asked.out, start, seed)
        errors: dict[str, Tensor] = {}
        for variant in asked.variant:
            recipe = VARIANTS[variant]
            if asked.quick or asked.steps is not None:
                recipe = recipe.with_steps(2 if asked.quick else asked.steps)
            elif asked.minutes is not None:
                recipe = recipe.with_minutes(asked.minutes)
            out = asked.out / f"{variant}_{seed}"
            begin = start if recipe.settings.get("detector") == "frame" else None
            learn = partial(
                inter_intra.train, faces.unlabelled, out=out, recipe=recipe, start=begin, seed=seed
            )
            predictor, spent = trained(out, learn, inter_intra.load)
            _measure(asked, f"{variant}/{seed}", predictor, faces, labels, seed, spent)
            errors[variant] = _errors(predictor, faces, seed)
        _gains(asked.out, errors, seed)
        if start is not None and not _known(asked, f"start/{seed}"):
            _measure(asked, f"start/{seed}", start, faces, labels, seed, {})


def _start(asked: Any, faces: Faces, seed: int) -> sparse_landmarks.Predictor | None:
    """The sparse landmarks that ours and its baseline begin with, trained here unless --start tells them."""
    if asked.start is not None:
        return sparse_landmarks.load(asked.start)
    if all(VARIANTS[v].settings.get("detector") != "frame" for v in asked.variant):
        return None
    out = asked.out / f"start_{seed}"
    if (out / "model.json").is_file():
        return sparse_landmarks.load(out)
    plan = sparse_landmarks.OURS.with_k(10)
    return sparse_landmarks.train(
        faces.unlabelled,
        out=out,
        recipe=plan.with_steps(2) if asked.quick else plan,
        frame=object_frame.OURS.with_steps(2) if asked.quick else object_frame.OURS,
        seed=seed,
    )


def check_start(out: Path, start: sparse_landmarks.Predictor, seed: int) -> None:
    """Note the start of a seed in OUT/starts.json: a folder holds the trainings from one start only.

    Args:
        out: the folder.
        start: the landmarks that the trainings of this seed begin with.
        seed: of the trainings.

    Raises:
        ValueError: what lies there began with another start.
    """
    file, key = out / "starts.json", cache_key(*start.model.state_dict().values())
    noted = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if noted.setdefault(str(seed), key) != key:
        raise ValueError(
            f"--out: expected a folder whose trainings of seed {seed} began with this start, found those of another; "
            "name another folder"
        )
    file.write_text(to_json(noted), encoding="utf-8")


def _measure(
    asked: Any, name: str, predictor: Any, faces: Faces, labels: Any, seed: int, spent: dict[str, float]
) -> None:
    labelled, test = squares(predictor, faces.train), squares(predictor, faces.test)
    numbers = sparse_landmarks.point_measures(predictor, labelled, test[:2], seed=seed)
    if isinstance(predictor, inter_intra.Predictor):
        numbers["painting_error"] = inter_intra.painting_error(predictor, test[0], seed=seed)
    add_results(asked.out, name, spent | numbers)
    for method in asked.method:
        errors = object_frame.landmark_errors(
            predictor, labelled, test[:2], labels=labels, draws=asked.draws, method=method, seed=seed
        )
        add_results(asked.out, f"{name}/{method}", errors)
    draw_own_points(predictor, test[0], asked.out / f"{name.replace('/', '_')}.png")


def _known(asked: Any, name: str) -> bool:
    """Whether results.json has the last of the errors of a name already."""
    file = asked.out / "results.json"
    last = f"{name}/{asked.method[-1]}/iod_percent_5/{asked.labels[-1]}"
    return file.is_file() and last in json.loads(file.read_text(encoding="utf-8"))


def _errors(predictor: inter_intra.Predictor, faces: Faces, seed: int) -> Tensor:
    """Errors of 5 points (n,) of the pictures of the test, in percent, by one regression from all labels."""
    labelled, test = squares(predictor, faces.train), squares(predictor, faces.test)
    fitted = predictor.with_landmarks(*labelled[:2], groups=labelled[2], method="linear", seed=seed)
    found, true = (five_of_68(x) for x in (fitted.landmarks(test[0]).points, test[1]))
    return percent_error(found, true, eye_distance(true))


def _gains(out: Path, errors: dict[str, Tensor], seed: int) -> None:
    """What each variant gains against the last one, on the same pictures."""
    *others, last = errors
    for variant in others:
        gain = errors[last] - errors[variant]
        numbers = {"mean": float(gain.mean()), "standard_error": float(gain.std() / len(gain) ** 0.5)}
        add_results(out, f"gain/{variant}/{seed}", numbers)


if __name__ == "__main__":
    main()
