"""Table 1 and figures 3 to 5 of the category-keypoint paper, on the categories at hand.

    python -m experiments.category_keypoints.run --out DIR [--quick] [--seed S] [--category NAME ...] [--epochs N]

Real categories (ModelNet10 chair, table, bed) are read from the folder GEOFRAME_DATA/modelnet10; without it the
procedural chair stands in. Writes results.json (flat names -> numbers), table.md and the pictures. A run that
was killed goes on where it was. `--quick` is a smoke test: few shapes, two epochs, figures that mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.category_keypoints.baseline import evaluate_baseline, train_baseline
from experiments.category_keypoints.correspondence import correspondence_distance
from geoframe import metrics
from geoframe.cli.keypoints import PUBLISHED
from geoframe.data import CloudSet, load_clouds, misalign
from geoframe.keypoints import Detector, PaperLosses, evaluate, train
from geoframe.layers import turn_by
from geoframe.viz import save_picture
from geoframe.viz_clouds import draw_clouds, keypoint_colors


@dataclass(frozen=True)
class Variant:
    """One way to train: recipe, misalignment in training and test, other arguments of `train`."""

    recipe: str = "geoframe"
    degrees: float = 45.0
    more: dict[str, Any] = field(default_factory=dict)


VARIANTS = {
    "geoframe": Variant(),
    "geoframe_180": Variant(degrees=180.0),
    "geoframe_plain": Variant(more={"settings": {"mode": "plain"}}),
    "geoframe_deformation": Variant(more={"settings": {"mode": "deformation"}}),
    "paper_45": Variant("paper"),
    "paper_22": Variant("paper", 22.5),
    "paper_aligned": Variant("paper", 0.0),
    "paper_aligned_sums": Variant("paper", 0.0, {"losses": PaperLosses(released=False)}),
}
QUICK = ("geoframe", "paper_45")
COLUMNS = ("coverage", "model_error", "correspondence", "inclusivity", "symmetry_error", "n_keypoints")


def main() -> None:
    """Train, measure, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--category", action="append")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS))
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    real = os.environ.get("GEOFRAME_DATA")
    data = str(Path(real) / "modelnet10") if real else "procedural"
    categories = args.category or (["chair", "table", "bed"] if real and not args.quick else ["chair"])
    epochs = args.epochs or (2 if args.quick else 200)
    names = args.variant or (QUICK if args.quick else tuple(VARIANTS))
    results: dict[str, float] = {}
    rows = []
    for category in categories:
        limit = (64, 16) if args.quick and real else (10, 4) if args.quick else (None, None)
        sets = [
            load_clouds(data, category, split=s, limit=n)
            for s, n in zip(("train", "test"), limit, strict=True)
        ]
        folder = args.out / category
        found, detectors = _variants(names, *sets, folder, category, epochs, args.seed)
        found["baseline"] = _baseline(*sets, folder, epochs, args.seed)
        _draw(detectors, sets[1], folder)
        if sets[1].canonical is not None:
            found["geoframe"] |= _exact(detectors["geoframe"], sets[1], folder)
        rows += [_row(category, n, numbers) for n, numbers in found.items()]
        results |= {f"{category}/{n}/{k}": v for n, numbers in found.items() for k, v in numbers.items()}
        if category in PUBLISHED:
            rows.append(
                f"| {category} | published | " + " | ".join(f"{v:g}" for v in PUBLISHED[category]) + " |"
            )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    head = f"| category | method | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 2)}|\n"
    (args.out / "table.md").write_text(head + "\n".join(rows) + "\n")
    print(head + "\n".join(rows))


def _variants(
    names: Any, learn: CloudSet, test: CloudSet, folder: Path, category: str, epochs: int, seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, Detector]]:
    """Measures and detectors of every variant."""
    found, detectors = {}, {}
    for name in names:
        v = VARIANTS[name]
        out = folder / f"{name}_{seed}"
        detector = train(
            learn,
            out=out,
            category=category,
            recipe=v.recipe,
            degrees=v.degrees,
            epochs=epochs,
            seed=seed,
            accelerator="cpu",
            progress=lambda text, _, name=name: print(f"\r{category} {name}: {text}   ", end="", flush=True),
            **v.more,
        )
        detectors[name] = detector
        found[name] = evaluate(detector, test, degrees=v.degrees)
        print(f"\n{category} {name}: " + ", ".join(f"{k} {x:.3g}" for k, x in found[name].items()))
    return found, detectors


def _baseline(learn: CloudSet, test: CloudSet, folder: Path, epochs: int, seed: int) -> dict[str, float]:
    model = train_baseline(
        learn.normalised(), out=folder / f"baseline_{seed}", degrees=45.0, epochs=epochs, seed=seed
    )
    return evaluate_baseline(model, test.normalised(), degrees=45.0)


def _row(category: str, name: str, numbers: dict[str, float]) -> str:
    ends = ("_percent", "_deg", "")
    cells = [next((f"{numbers[c + e]:.4g}" for e in ends if c + e in numbers), "") for c in COLUMNS]
    return f"| {category} | {name} | {' | '.join(cells)} |"


@torch.no_grad()
def _aligned_keypoints(detector: Detector, test: CloudSet, degrees: float) -> tuple[Tensor, Tensor]:
    """Keypoints found on turned clouds, in the clouds' frame and after undoing the known turn."""
    points, angle = misalign(
        test.normalised().points, degrees, up=test.up, generator=torch.Generator().manual_seed(1)
    )
    found = detector.predict(points).keypoints
    return found, found @ turn_by(angle, test.up)


def _draw(detectors: dict[str, Detector], test: CloudSet, folder: Path) -> None:
    """Figure 1 (shapes with keypoints), figure 3 (all keypoints over each other), figure 5 (registration)."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = test.normalised()
    clusters, titles, colors = [], [], []
    for name, detector in detectors.items():
        _, back = _aligned_keypoints(detector, test, VARIANTS[name].degrees)
        clusters.append(back.flatten(0, 1).numpy())
        colors.append(np.tile(keypoint_colors(back.shape[1]), (len(back), 1)))
        titles.append(name)
    save_picture(draw_clouds(clusters, up=test.up, colors=colors, titles=titles), folder / "figure3.png")
    first = next(iter(detectors.values()))
    shown = first.predict(ready.points[:12]).keypoints
    picture = draw_clouds([*ready.points[:12].numpy()], [*shown.numpy()], up=test.up)
    save_picture(picture, folder / "keypoints.png")
    _draw_registration(detectors, test, folder / "figure5.png")


def _draw_registration(detectors: dict[str, Detector], test: CloudSet, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    pairs = metrics.random_pairs(len(test), 2000, seed=1)
    for name, detector in detectors.items():
        points, angle = misalign(
            test.normalised().points,
            VARIANTS[name].degrees,
            up=test.up,
            generator=torch.Generator().manual_seed(1),
        )
        found = detector.predict(points).keypoints
        error = metrics.relative_rotation_error(found, turn_by(angle, test.up), pairs, up=test.up)
        axes.plot(np.sort(error.numpy()), np.linspace(0, 100, len(error)), label=name)
    axes.set(xlim=(0, 20), ylim=(0, 100), xlabel="rotation error, degrees", ylabel="pairs below, %")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _exact(detector: Detector, test: CloudSet, folder: Path) -> dict[str, float]:
    """Where correspondence and parts are known: distance to the true place, and figure 4."""
    from matplotlib.figure import Figure

    ready = test.normalised()
    _, back = _aligned_keypoints(detector, test, 45.0)
    assert ready.canonical is not None and ready.labels is not None
    matrix, number = metrics.semantic_consistency(back, ready.points, ready.labels)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set(xlabel="part", ylabel="keypoint", title=f"semantic consistency {number:.0f} %")
    figure.savefig(folder / "figure4.png", dpi=130)
    distance = correspondence_distance(back, ready.points, ready.canonical, ready.names)
    return {"correspondence_distance": distance}


if __name__ == "__main__":
    main()
