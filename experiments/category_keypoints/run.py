"""Table 1 and figures 3 to 5 of the category-keypoint paper, on the categories at hand.

    python -m experiments.category_keypoints.run --out DIR [--quick] [--seeds S ...] [--category NAME ...]
                                                 [--variant NAME ...] [--epochs N]

Real categories (ModelNet10 chair, table, bed) are read from the folder GEOFRAME_DATA/modelnet10; procedural-chair
needs no data and has parts and exact correspondence. Every run has a folder, OUT/CATEGORY/VARIANT_SEED: one that is
finished is measured as it is, whatever its epochs; one that was killed goes on. After every run results.json (flat
names -> numbers) and table.md are written anew. `--quick` is a smoke test: few shapes, two epochs, figures that mean
nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from experiments.category_keypoints.baseline import evaluate_baseline, load_baseline, train_baseline
from experiments.category_keypoints.correspondence import correspondence_distance
from experiments.category_keypoints.figures import draw_figures
from experiments.category_keypoints.tables import write_tables
from geoframe.data import CloudSet, load_clouds
from geoframe.models.category_keypoints import (
    OURS,
    PAPER,
    PAPER_AS_WRITTEN,
    Predictor,
    Recipe,
    evaluate,
    load,
    train,
)


@dataclass(frozen=True)
class Variant:
    """One way to train: recipe, None for the order-free baseline; largest rotation in training and test."""

    recipe: Recipe | None
    degrees: float = 45.0


VARIANTS = {
    "geoframe": Variant(OURS),
    "geoframe_180": Variant(OURS, 180.0),
    "geoframe_plain": Variant(OURS.with_settings(mode="plain")),
    "geoframe_deformation": Variant(OURS.with_settings(mode="deformation")),
    "paper_45": Variant(PAPER),
    "paper_22": Variant(PAPER, 22.5),
    "paper_aligned": Variant(PAPER, 0.0),
    "paper_aligned_sums": Variant(PAPER_AS_WRITTEN, 0.0),
    "baseline": Variant(None),
}
QUICK = ("geoframe", "paper_45", "baseline")
Progress = Callable[[str, float], None]


def main() -> None:
    """Train, measure, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--category", nargs="+")
    parser.add_argument("--variant", nargs="+", choices=list(VARIANTS))
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    real = bool(os.environ.get("GEOFRAME_DATA"))
    everything = ["chair", "table", "bed", "procedural-chair"] if real else ["procedural-chair"]
    categories = args.category or (everything[:1] if args.quick else everything)
    epochs = args.epochs or (2 if args.quick else 200)
    names = args.variant or (QUICK if args.quick else tuple(VARIANTS))
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for category in categories:
        learn, test = (_clouds(category, split, args.quick) for split in ("train", "test"))
        shown: dict[str, Tensor] = {}
        for name in names:
            for seed in args.seeds:
                out = args.out / category / f"{name}_{seed}"
                found[category, name, seed], back = run(name, learn, test, out, epochs, seed)
                write_tables(args.out, found)
                shown.setdefault(name, back)
        draw_figures(shown, category.removeprefix("procedural-"), test.normalised(), args.out / category)
    print((args.out / "table.md").read_text())


def run(
    name: str, learn: CloudSet, test: CloudSet, out: Path, epochs: int, seed: int
) -> tuple[dict[str, float], Tensor]:
    """Measures of one variant, and its keypoints (n, K, 3) the rotations undone; trains what is not trained yet."""
    v, finished = VARIANTS[name], (out / "model.json").is_file()
    ready = test.normalised()

    def tell(text: str, _share: float) -> None:
        print(f"\r{out.parent.name} {out.name}: {text}   ", end="", flush=True)

    if v.recipe is None:
        if not finished:
            train_baseline(
                learn.normalised(), out=out, degrees=v.degrees, epochs=epochs, seed=seed, progress=tell
            )
        model, done = load_baseline(out)
        numbers, back = evaluate_baseline(model, ready, degrees=v.degrees)
    else:
        category = out.parent.name.removeprefix("procedural-")
        if not finished:
            train(
                learn,
                out=out,
                category=category,
                recipe=v.recipe.with_epochs(epochs),
                degrees=v.degrees,
                seed=seed,
                accelerator="cpu",
                progress=tell,
            )
        predictor = load(out)
        done = predictor.about["epochs"]
        numbers = evaluate(predictor, test, degrees=v.degrees)
        back = aligned_keypoints(predictor, ready, v.degrees)
    if ready.canonical is not None:
        numbers["correspondence_distance"] = correspondence_distance(
            back, ready.points, ready.canonical, ready.names
        )
    numbers["epochs"] = float(done)
    print(f"\n{out.parent.name} {out.name}: " + ", ".join(f"{k} {x:.3g}" for k, x in numbers.items()))
    return numbers, back


def aligned_keypoints(predictor: Predictor, ready: CloudSet, degrees: float) -> Tensor:
    """Keypoints (n, K, 3) found on rotated clouds, after undoing the known rotations."""
    points, R = ready.rotated(degrees, seed=1)
    return predictor.predict_normalised(points).keypoints @ R


def _clouds(category: str, split: str, quick: bool) -> CloudSet:
    """A few or all clouds of a real or procedural category; of those to test the surfaces, too."""
    procedural = category.startswith("procedural-")
    data = "procedural" if procedural else str(Path(os.environ.get("GEOFRAME_DATA", ".")) / "modelnet10")
    few = {"train": 10, "test": 4} if procedural else {"train": 64, "test": 16}
    return load_clouds(
        data,
        category.removeprefix("procedural-"),
        split=split,
        limit=few[split] if quick else None,
        surfaces=split == "test" and not quick,
    )


if __name__ == "__main__":
    main()
