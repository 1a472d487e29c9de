"""How far keypoints move when clouds are corrupted, and which of them are flagged.

    python -m experiments.keypoint_confidence.run --out DIR [--model DIR] [--clouds N] [--quick] [--seed S]

With GEOFRAME_DATA the clouds are those of its folder modelnet10, whose test parts are corrupted, 100 of each kind;
without it, or with --procedural, procedural ones and a model of the package. --model is a folder of `keypoints train`;
without one a model is trained by the default recipe into OUT/model first. `--quick` takes 16 clouds of each kind.
results.json has flat names -> numbers, table.md the table, and clouds.png one cloud of every kind.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from torch import Tensor

from geoframe._files import atomic_path, to_json
from geoframe.data import CloudSet, load_clouds
from geoframe.data.corruptions import corrupted, corruptions
from geoframe.metrics.clouds import INCLUSIVITY_REACH
from geoframe.models.category_keypoints import Predictor, load, train
from geoframe.placing.confidence import MOVED
from geoframe.surface.clouds import nearest_distances
from geoframe.viz.clouds import draw_clouds
from geoframe.viz.surfaces import save_picture
from geoframe.zoo.rigid import CATEGORIES

REAL = ("chair", "table", "bed")


def main() -> None:
    """Corrupt, predict, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--category", default="chair")
    parser.add_argument("--procedural", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clouds", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    real = bool(os.environ.get("GEOFRAME_DATA")) and not args.procedural
    data = str(Path(os.environ["GEOFRAME_DATA"]) / "modelnet10") if real else "procedural"
    n = 16 if args.quick else args.clouds
    if args.model is None and real:
        made = args.out / "model"
        train(load_clouds(data, args.category), out=made, category=args.category, seed=args.seed)
        predictor = load(made)
    else:
        predictor = load(args.model or args.category)
    clouds = _upright(load_clouds(data, args.category, split="test", limit=n), predictor)
    others = [c for c in (REAL if real else CATEGORIES) if c != args.category]
    args.out.mkdir(parents=True, exist_ok=True)
    rows, pictures = measure(predictor, clouds, seed=args.seed)
    for name in others:
        found = predictor.predict(_upright(load_clouds(data, name, split="test", limit=n), predictor).points)
        rows[f"other: {name}"] = {"flagged": float((found.score < predictor.limit).double().mean())}
    flat = {f"{kind}/{name}": x for kind, row in rows.items() for name, x in row.items()}
    with atomic_path(args.out / "results.json") as temporary:
        temporary.write_text(to_json(flat), encoding="utf-8")
    text = markdown(rows)
    with atomic_path(args.out / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    names = list(pictures)
    drawn = [[x.numpy() for x in some] for some in zip(*pictures.values(), strict=True)]
    save_picture(
        draw_clouds(*drawn, up=predictor.up, titles=names, columns=6, size=260), args.out / "clouds.png"
    )
    print(text)


def _upright(clouds: CloudSet, predictor: Predictor) -> CloudSet:
    """Normalised clouds with the model's vertical axis."""
    return clouds.normalised().standing(predictor.up)


def measure(
    predictor: Predictor, clouds: CloudSet, *, seed: int = 0
) -> tuple[dict[str, dict[str, float]], dict[str, tuple[Tensor, Tensor]]]:
    """Numbers of every kind of corruption, and of each one cloud with its keypoints.

    `moved` is the distance of the keypoints from where they are found on the clean clouds, at scale 2: mean and median
    over the clouds, and the shares that moved by more than 0.1 (`far`), that are flagged, and that are flagged among
    those that moved far. `far_unflagged` is the share of all clouds that fail silently. `uncertainty_holds` is the
    share of the keypoints that are nearer than their uncertainty says. The trade-off is that of the clean clouds
    against all that moved far: the area under its curve, and of the latter the share that is flagged by a limit that
    flags 2, 5, 7 or 10 % of the former. Of the clean clouds `near` is the share whose keypoints are all near the
    points, as inclusivity counts, and `flagged_of_near` the share of these that is flagged all the same.
    """
    truth = predictor.predict(clouds.points.double())
    rows, pictures = {}, {}
    every: list[Tensor] = []
    for kind in corruptions():
        worse, motion = corrupted(clouds.points, kind, up=predictor.up, seed=seed)
        began = time.process_time()
        found = predictor.predict(worse)
        seconds = time.process_time() - began
        off = (motion.inverse()(found.keypoints) - truth.keypoints).norm(dim=-1)
        flagged, far = found.score < predictor.limit, off.mean(1) > MOVED
        every.append(torch.stack([flagged.double(), far.double(), found.score.double()], 1))
        rows[kind] = {
            "moved": float(off.mean()),
            "moved_median": float(off.mean(1).median()),
            "far": _share(far),
            "flagged": _share(flagged),
            "flagged_of_far": _share(flagged[far]),
            "far_unflagged": _share(far & ~flagged),
            "uncertainty_holds": _share(off <= found.uncertainty / motion.scale[:, None]),
            "cpu_ms_a_cloud": 1000 * seconds / len(worse),
        }
        pictures[kind] = (worse[0], found.keypoints[0])
    off = nearest_distances(truth.keypoints.float(), clouds.points).amax(1)
    near, doubted = off <= INCLUSIVITY_REACH, truth.score < predictor.limit
    rows["clean"] |= {"near": _share(near), "flagged_of_near": _share(doubted[near])}
    flagged, far, score = torch.cat(every).unbind(1)
    flagged, far, clean = flagged.bool(), far.bool(), every[0][:, 2]
    bad = score[far]
    rows["trade-off"] = {"area": float((bad[:, None] < clean).double().mean())}
    for percent in (2, 5, 7, 10):
        limit = clean.quantile(percent / 100, interpolation="higher")
        rows["trade-off"][f"caught_at_{percent}_percent"] = _share(bad < limit)
    rows["all of these"] = {
        "far": _share(far),
        "flagged": _share(flagged),
        "flagged_of_far": _share(flagged[far]),
        "far_unflagged": _share(far & ~flagged),
    }
    return rows, pictures


def _share(x: Tensor) -> float:
    """Of True; NaN of nothing."""
    return float(x.double().mean())


def markdown(rows: dict[str, dict[str, float]]) -> str:
    """A table with a row for every kind."""
    names = {
        "moved": "moved, mean",
        "moved_median": "median",
        "far": "moved > .1, %",
        "flagged": "flagged, %",
        "flagged_of_far": "of those that moved, %",
        "far_unflagged": "silent, %",
    }
    lines = ["| kind | " + " | ".join(names.values()) + " |", "|---" * (len(names) + 1) + "|"]
    for kind, row in rows.items():
        if kind == "trade-off":
            continue
        cells = [
            ""
            if name not in row or row[name] != row[name]
            else f"{row[name]:.3f}"
            if name.startswith("moved")
            else f"{100 * row[name]:.0f}"
            for name in names
        ]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    told = [f"{name} {x:.3f}" for name, x in rows.get("trade-off", {}).items()]
    return "\n".join([*lines, "", "trade-off: " + ", ".join(told)]) + "\n"


if __name__ == "__main__":
    main()
