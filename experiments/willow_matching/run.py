"""Keypoints of PF-WILLOW between pictures of a category: frozen features, and a frame on top of them.

    python -m experiments.willow_matching.run --out DIR [--quick]

PCK at 0.1 of the longer side of the keypoints' box in the target, over all ordered pairs of pictures of a category,
then the mean over the categories in GEOFRAME_DATA/willow. Nothing is trained.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from geoframe._files import to_json
from geoframe.data.face_files import LandmarkSet, load_landmark_images
from geoframe.data.image_files import read_image
from geoframe.heads import backbone
from geoframe.heads.registered import joined_features, match_registered
from geoframe.metrics.embeddings import pck
from geoframe.metrics.landmarks import box_side
from geoframe.warps import to_normalised, to_pixels

SIZES, FIELD = (192, 256, 320), 32
WEIGHTS = (0.0, 0.0, 0.5, 1.0, 1.0)  # of Lite0's maps of strides 2 to 32


@torch.no_grad()
def category_scores(images: LandmarkSet, *, limit: int | None = None) -> dict[str, float]:
    """PCK (percent) of copied coordinates, of the features and of the frame, between pictures of a category."""
    net = backbone("efficientnet-lite0")
    count = len(images) if limit is None else min(limit, len(images))
    pictures = [read_image(p) for p in images.images[:count]]  # type: ignore[arg-type]
    sizes = [(p.shape[1], p.shape[2]) for p in pictures]
    maps = [m for size in SIZES for m in net(torch.stack([_stretched(p, size) for p in pictures]))]
    field = joined_features(maps, WEIGHTS * len(SIZES), FIELD, centred=True)
    points = torch.stack([to_normalised(images.points[i], *sizes[i]) for i in range(count)])
    side = box_side(images.points)
    scores: dict[str, list[float]] = {"copied": [], "features": [], "frame": []}
    for i in range(count):
        others = [j for j in range(count) if j != i]
        source, target = field[i].expand(len(others), -1, -1, -1), field[others]
        own = points[i].expand(len(others), -1, -1)
        found = {"copied": own}
        for name, strength in (("features", 0.0), ("frame", 0.1)):
            found[name] = match_registered(source, target, own, strength=strength)[0]
        for name, place in found.items():
            for row, j in enumerate(others):
                score = pck(to_pixels(place[row], *sizes[j]), images.points[j], side[j])
                scores[name].append(float(score))
    return {name: 100 * sum(x) / len(x) for name, x in scores.items()}


def _stretched(picture: Tensor, size: int) -> Tensor:
    return torch.nn.functional.interpolate(
        picture[None], size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )[0]


def main(argv: Sequence[str] | None = None) -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(argv)
    root = Path(os.environ.get("GEOFRAME_DATA", "")) / "willow"
    if not root.is_dir():
        raise ValueError("GEOFRAME_DATA: expected a folder with willow, found none; set it")
    results: dict[str, dict[str, float]] = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        results[folder.name] = category_scores(load_landmark_images(folder), limit=3 if asked.quick else None)
    names = list(next(iter(results.values())))
    results["mean"] = {n: sum(r[n] for r in results.values()) / len(results) for n in names}
    asked.out.mkdir(parents=True, exist_ok=True)
    flat = {f"{name}/{k}": v for name, scores in results.items() for k, v in scores.items()}
    (asked.out / "results.json").write_text(to_json(flat), encoding="utf-8")


if __name__ == "__main__":
    main()
