"""Make of a trained model the one that geoframe comes with: its confidence and limits fitted anew, in half precision.

``python -m experiments.surface_embedding.ship --model MODEL --out geoframe/heads/animals [--categories horse cow ...]``

The weights of a learned backbone are moved a part of the way back to those of ImageNet, which photographs gain by; how
far is chosen on renders: as far as the error is within a fiftieth of the least. Confidence, limits and what tells which
way is up are fitted on renders of the model's categories that it was not trained on, and on pictures of other things:
bare backgrounds, and renders of other categories. See the README for the training itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoframe.data._backgrounds import background
from geoframe.data.pixel_samples import rendered_samples
from geoframe.data.rendered import render_set
from geoframe.metrics.embeddings import mean_scores
from geoframe.models.surface_embedding import load
from geoframe.models.surface_embedding.evaluate import calibrate, evaluate_each
from geoframe.zoo import species

SPECIES = ("horse", "cow", "sheep", "dog", "cat", "bear", "lion", "giraffe", "elephant", "zebra", "human")
OTHERS = ("car", "aeroplane", "motorbike", "chair", "horse", "human")
N_EACH, N_BARE, SIZE, SEED = 20, 20, 128, 20261129
TOLERANCE = 0.02  # of the least error: of shares that are as good the one that forgets least
SHARES, N_CHOOSING, CHOOSING = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5), 60, 4242


def other_things(
    categories: Sequence[str], n_each: int, n_bare: int, *, size: int = SIZE, seed: int = SEED
) -> Tensor:
    """(n, 3, size, size) in [0, 1]: backgrounds with nothing before them, and renders of other categories.

    Args:
        categories: of the zoo.
        n_each: of each category.
        n_bare: backgrounds.
        size: pixels.
        seed: of all of them.
    """
    rng = np.random.default_rng(seed)
    found = [
        torch.from_numpy(background(rng, size, (size * float(rng.uniform(0.2, 0.7)), 0.0)).copy())
        for _ in range(n_bare)
    ]
    images = [image.permute(2, 0, 1).float() for image in found]
    for category in categories:
        for batch in render_set(category, n_each, size=size, seed=seed).batches(16):
            images += [image.float() for image in batch.image]
    return torch.stack(images)


def error_of(model: Path, category: str, share: float) -> float:
    """Mean geodesic error on renders of a category with a share of the backbone's learned weights."""
    predictor = load(model)
    predictor.model.head.backbone.toward_pretrained(share)
    found = evaluate_each(predictor, render_set(category, N_CHOOSING, size=SIZE, seed=CHOOSING))
    return mean_scores(list(found.values()))["geodesic_error_mean"]


def main() -> None:
    """Read arguments, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder that geoframe embed train wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--categories", nargs="+", default=list(SPECIES), help="that it was trained on")
    parser.add_argument(
        "--share", type=float, help="of the learned weights of the backbone; chosen by default"
    )
    parser.add_argument("--n-each", type=int, default=N_EACH, help="renders of each category and each thing")
    args = parser.parse_args()
    predictor = load(args.model)
    if not predictor.model.head.backbone.frozen:
        shares = [args.share] if args.share is not None else SHARES
        errors = {share: error_of(args.model, args.categories[0], share) for share in shares}
        share = min(s for s in shares if errors[s] <= (1 + TOLERANCE) * min(errors.values()))
        predictor.model.head.backbone.toward_pretrained(share)
        predictor.about["learned_share"] = share
        print(", ".join(f"{share:g} of the learned weights: error {e:.4f}" for share, e in errors.items()))
    elif args.share is not None:
        raise SystemExit(
            f"--share: expected a model that has learned its backbone, found a frozen one in {args.model}"
        )
    animals = set(args.categories) <= set(species())
    surfaces = [predictor.names[0]] if animals else list(predictor.names)
    number = [0 if animals else surfaces.index(c) for c in args.categories]
    n, on = args.n_each * len(args.categories), surfaces[0] if animals else None
    pictures = render_set(args.categories, n, size=SIZE, seed=SEED, surface=on)
    samples = rendered_samples(pictures, surfaces, number, n_points=400, seed=SEED)
    others = [c for c in OTHERS if c not in args.categories and not (animals and c in species())]
    calibrate(predictor, samples, other_things(others, args.n_each, min(N_BARE, args.n_each)))
    predictor.about["categories"] = sorted(args.categories)
    predictor.save(args.out, half=True)
    limits = predictor.model.calibration.limits.tolist()  # type: ignore[union-attr, operator]
    print(f"score below {limits[0]:.3f} or sides below {limits[1]:.3f} are told; wrote {args.out}")


if __name__ == "__main__":
    main()
