"""The models of procedural categories that come with the package.

    python -m experiments.keypoint_confidence.ship --out DIR [--category NAME ...] [--epochs N] [--again] [--quick]

Each is trained by the default recipe on the 256 procedural shapes of its category (512 chairs of any make, 50 epochs),
one in eight set aside to calibrate it, and written small, a byte a weight, to OUT/CATEGORY; the run itself is kept in
OUT/runs/CATEGORY, to go on with. `--again` takes the networks as they come with the package, and calibrates them on
the same shapes without training. results.json has the figures of `evaluate` on the 64 procedural shapes to test and,
with GEOFRAME_DATA, those of the chairs and tables of ModelNet10. To ship them, copy the folders to
geoframe/placing/categories.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from geoframe._files import atomic_path, to_json
from geoframe.data import CloudSet, load_clouds
from geoframe.models.category_keypoints import OURS, Predictor, evaluate, load, train
from geoframe.models.category_keypoints.network import build
from geoframe.placing import CATEGORY_MODELS
from geoframe.placing.calibrate import calibrate, set_aside
from geoframe.placing.parts import unpacked
from geoframe.zoo.rigid import CATEGORIES, sample_points


def main() -> None:
    """Train, calibrate, write, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--category", nargs="+", default=list(CATEGORIES), choices=CATEGORIES)
    parser.add_argument("--epochs", type=int, help="80, of the chair 50")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="calibrate what comes with the package")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    numbers: dict[str, float] = {}
    for category in args.category:
        began = time.process_time()
        clouds = _shapes(category, args.quick)
        recipe = OURS.with_epochs(1 if args.quick else args.epochs or (50 if category == "chair" else 80))
        if args.again:
            made = _calibrated_again(CATEGORY_MODELS / category, clouds, args.seed, args.quick)
        else:
            made = train(
                clouds,
                out=args.out / "runs" / category,
                category=category,
                recipe=recipe,
                seed=args.seed,
                accelerator="cpu",
            )
        made.save(args.out / category, small=True)
        predictor = load(args.out / category)
        test = load_clouds("procedural", category, split="test", limit=8 if args.quick else None)
        found = {f"procedural/{k}": x for k, x in evaluate(predictor, test).items()}
        if "GEOFRAME_DATA" in os.environ and category in ("chair", "table"):
            real = load_clouds(Path(os.environ["GEOFRAME_DATA"]) / "modelnet10", category, split="test")
            figures = evaluate(predictor, real.standing(predictor.up))
            found |= {f"modelnet10/{k}": x for k, x in figures.items()}
        numbers |= {f"{category}/{k}": x for k, x in found.items()}
        numbers[f"{category}/cpu_minutes"] = (time.process_time() - began) / 60
        with atomic_path(args.out / "results.json") as temporary:
            temporary.write_text(to_json(numbers), encoding="utf-8")
        print(category, f"{numbers[f'{category}/cpu_minutes']:.1f} CPU minutes", flush=True)


def _calibrated_again(folder: Path, clouds: CloudSet, seed: int, quick: bool) -> Predictor:
    """The network of a model that was stored small, with scores of this version."""
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    state = load_file(folder / "model.safetensors")
    unpacked(state)
    about = described["about"]
    network = build(about["network"], described["settings"])
    network.load_state_dict({k.removeprefix("model."): x for k, x in state.items() if k.startswith("model.")})
    group, canonical = torch.tensor(described["group"]), torch.tensor(described["canonical"])
    learned, aside = set_aside(clouds.normalised())
    assert aside is not None
    made = calibrate(network.eval(), group, learned, aside, 8 if quick else OURS.placement_steps, seed)
    about = about | {"calibration": made.about}
    return Predictor(network, described["category"], group, canonical, about, made.placement, made.confidence)


def _shapes(category: str, quick: bool) -> CloudSet:
    """The procedural shapes to train on."""
    if quick:
        return load_clouds("procedural", category, limit=64)
    if category != "chair":
        return load_clouds("procedural", category)
    numbers = [1000 * i + j for i in range(2) for j in range(256)]
    points = torch.stack([sample_points(category, i, 1024, wide=True)[0] for i in numbers])
    return CloudSet(points.float(), tuple(f"{category}_{i}" for i in numbers), 1)


if __name__ == "__main__":
    main()
