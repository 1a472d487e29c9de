"""To The Point on photographs of horses: what renders, surface embeddings and photographs each bring.

    GEOFRAME_DATA=DIR python -m experiments.to_the_point.photographs --out OUT [--model FOLDER] [--steps N] [--quick]
        [--variant photographs both] [--renders FILE.npz]

Of DIR/horses every third picture is tested; the others are learned from with their masks, without keypoints. Variants:

- renders: the model of --model, trained on renders alone (`geoframe reconstruct train`);
- photographs: trained on the photographs, poses to start from by the shipped surface embedding;
- masks: the same, poses to start from by the masks alone;
- both: photographs, and renders (--renders, crops kept by `experiments.to_the_point.run`), likewise without keypoints.

All horses of the data set look left (experiments/surface_embedding/labels.json, told by eye). `facing`: share of
pictures whose nose is left of the tail; those nearly from the front are left out. Writes OUT/results.json and
OUT/VARIANT.png.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments.to_the_point.run import UP, sheet
from geoframe._files import to_json
from geoframe.data.image_files import read_image, read_mask
from geoframe.data.object_crops import ObjectCrops, crop_object, crops_of
from geoframe.data.object_templates import zoo_shapes, zoo_template
from geoframe.heads.zoo_maps import ANIMALS
from geoframe.metrics.reconstruction import soft_iou
from geoframe.models import surface_embedding
from geoframe.models.to_the_point import OURS, Predictor, load, train
from geoframe.models.to_the_point.evaluate import reconstructed
from geoframe.models.to_the_point.network import embedded_points
from geoframe.render import rasterize
from geoframe.viz.surfaces import save_picture

LABELS = Path(__file__).parent.parent / "surface_embedding" / "labels.json"
VIEWS = 3000  # of all crops, whose maps are kept
NOSE, TAIL = "nose", "tail_base"


def main() -> None:
    """Train the variants and measure them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="trained on renders of horses")
    parser.add_argument("--variant", nargs="*", default=["photographs"])
    parser.add_argument("--renders", type=Path, help="crops of renders, for variant both")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--most", type=int, default=600, help="renders that are used")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    template = zoo_template("horse")
    shapes = zoo_shapes("horse", template)
    files = sorted(Path(os.environ["GEOFRAME_DATA"], "horses").glob("*.jpg"))[:: 20 if args.quick else 1]
    own, unseen = crops_in(files, test=False), crops_in(files, test=True)
    results: dict[str, Any] = {"photographs.train": len(own), "photographs.test": len(unseen)}
    if args.model is not None:
        results |= measured(load(args.model), unseen, "renders", args.out)
    for name in args.variant:
        start = time.process_time()
        crops = own
        if name == "both":
            renders = ObjectCrops.load(args.renders).without_keypoints()
            crops = joined(own, renders[range(min(args.most, len(renders)))])
        points = None
        if name != "masks":
            points = embedded_points(crops, template, surface_embedding.load(), "horse")
        recipe = replace(OURS, backbone=ANIMALS, views=100 if args.quick else VIEWS)
        recipe = recipe.lasting(steps=4 if args.quick else args.steps)
        predictor = train(
            crops,
            template,
            out=args.out / name,
            recipe=recipe,
            keypoints=False,
            points=points,
            shapes=shapes,
            up=UP,
            seed=args.seed,
        )
        results |= measured(predictor, unseen, name, args.out)
        results[f"{name}.cpu_minutes"] = (time.process_time() - start) / 60
        (args.out / "results.json").write_text(to_json(results), encoding="utf-8")
    (args.out / "results.json").write_text(to_json(results), encoding="utf-8")
    print("\n".join(f"{k}: {v:.4g}" for k, v in results.items()))


def crops_in(files: list[Path], *, test: bool, size: int = OURS.size) -> ObjectCrops:
    """Every third photograph, or the others."""
    rows = []
    for file in files[2::3] if test else [f for i, f in enumerate(files) if i % 3 != 2]:
        image, mask, crop = crop_object(read_image(file), read_mask(file.with_suffix(".png")), size)
        rows.append((image, mask, torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool), crop, file.name))
    return crops_of(rows, ())


def joined(a: ObjectCrops, b: ObjectCrops) -> ObjectCrops:
    """Two sets without keypoints as one; photographs first."""
    return ObjectCrops(
        *(torch.cat([getattr(a, name), getattr(b, name)]) for name in ("image", "mask", "points", "visible")),
        (),
        a.crops + b.crops,
        a.files + b.files,
    )


def measured(predictor: Predictor, unseen: ObjectCrops, name: str, out: Path) -> dict[str, float]:
    """Mean IoU of soft and hard silhouettes, facing, and what the confidence says of it."""
    posed = reconstructed(predictor.model, unseen)[1]
    S = unseen.size
    drawn = rasterize(posed.screen(S), predictor.model.faces, (S, S))
    mask = unseen.mask
    hard = (drawn.mask & mask).sum((1, 2)) / (drawn.mask | mask).sum((1, 2))
    nose, tail = predictor.vertices_of([NOSE, TAIL]).tolist()
    x = posed.projected[:, :, 0]
    left = x[:, nose] < x[:, tail]
    unclear = json.loads(LABELS.read_text(encoding="utf-8"))["unclear"]
    clear = torch.tensor([Path(f).stem not in unclear for f in unseen.files])
    save_picture(sheet(predictor, unseen), out / f"{name}.png")
    return {
        f"{name}.iou_soft": float(soft_iou(drawn.alpha, mask.float()).mean()),
        f"{name}.iou_hard": float(hard.mean()),
        f"{name}.facing": float(left[clear].float().mean()),
    }


if __name__ == "__main__":
    main()
