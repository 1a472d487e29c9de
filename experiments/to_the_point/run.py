"""To The Point in small: the paper's tables on renders of one category, with and without keypoints.

    python -m experiments.to_the_point.run --out DIR [--category car] [--quick] [--seed S] [--variant NAME ...]
        [--steps N]

Renders are made once in OUT/renders_CATEGORY (3,600 to train on, 400 of another seed to measure on; those in which the
whole object is seen are used). Every run has a folder, OUT/CATEGORY_VARIANT_SEED: one that is finished is measured as
it is, one that was killed goes on. results.json holds flat names -> numbers; CATEGORY_VARIANT.png shows images, the
mesh over them and the mesh from another side. `--quick` is a smoke test whose figures mean nothing. Variants:
keypoints, masks, paper, paper_masks, each of these followed by _less_LOSS to leave one of its losses out, and modes_K.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from geoframe._files import to_json
from geoframe.data.crops import Crop
from geoframe.data.object_crops import ObjectCrops, rendered_crops
from geoframe.data.object_templates import ObjectTemplate, zoo_template
from geoframe.data.rendered import render_set
from geoframe.data.rendered_files import to_disk
from geoframe.models.to_the_point import OURS, PAPER, Predictor, Recipe, evaluate, load, train
from geoframe.models.to_the_point.evaluate import reconstructed
from geoframe.models.to_the_point.recipe import THINGS_BEND
from geoframe.viz.images import contact_sheet
from geoframe.viz.reconstruction_page import draw_on_image, upright_views
from geoframe.viz.surfaces import draw_surface, save_picture
from geoframe.zoo.things import THINGS

UP = torch.tensor([0.0, 1.0, 0.0])


def variants(recipe: Recipe) -> dict[str, tuple[Recipe, bool]]:
    """Name -> recipe, and whether it has the keypoints."""
    out = {"keypoints": (recipe, True), "masks": (replace(recipe, n_modes=0), False)}
    out |= {f"modes_{k}": (replace(recipe, n_modes=k), True) for k in (0, 4, 8, 16, 32, 64)}
    paper = replace(PAPER, backbone=recipe.backbone, schedule=recipe.schedule, symmetric=recipe.symmetric)
    out |= {"paper": (paper, True), "paper_masks": (paper, False)}
    for name in ("keypoints", "masks", "paper", "paper_masks"):
        full, keypoints = out[name]
        for loss in losses_of(full):
            out[f"{name}_less_{loss}"] = (without(full, loss), keypoints)
    return out


def losses_of(recipe: Recipe) -> list[str]:
    """The losses that have a weight in a recipe."""
    return [k for k, weight in asdict(recipe.losses).items() if isinstance(weight, float) and weight]


def without(recipe: Recipe, loss: str) -> Recipe:
    """A recipe less one of its losses; equivariance has two forms, which go together."""
    changes = {loss: 0.0} | ({"flip_pose": 0.0} if loss == "equivariance" else {})
    return replace(recipe, losses=replace(recipe.losses, **changes))


def main() -> None:
    """Render, train, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--category", default="car")
    parser.add_argument("--variant", nargs="+", default=["keypoints", "masks"])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few pictures and steps")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    template = zoo_template(args.category)
    n = (60, 30) if args.quick else (3600, 400)
    own, unseen = (
        crops(args.out, args.category, template, k, seed) for k, seed in zip(n, (101, 202), strict=True)
    )
    recipe = replace(OURS, **THINGS_BEND) if args.category in THINGS else OURS
    recipe = recipe.lasting(steps=6 if args.quick else args.steps)
    if args.quick:
        recipe = replace(recipe, backbone="tiny", enlarged=1, fit_epochs=1, n_modes=4)
    results: dict[str, float] = {"crops.train": float(len(own)), "crops.test": float(len(unseen))}
    for name in args.variant:
        plan, keypoints = variants(recipe)[name]
        folder = args.out / f"{args.category}_{name}_{args.seed}"
        if (folder / "model.json").is_file():
            predictor = load(folder)
        else:
            predictor = train(
                own, template, out=folder, recipe=plan, keypoints=keypoints, up=UP, seed=args.seed
            )
        results |= measured(predictor, unseen, f"{args.category}/{name}/{args.seed}")
        save_picture(sheet(predictor, unseen), args.out / f"{args.category}_{name}.png")
        (args.out / "results.json").write_text(to_json(results), encoding="utf-8")
    print("\n".join(f"{k}: {v:.4g}" for k, v in results.items()))


def crops(out: Path, category: str, template: ObjectTemplate, n: int, seed: int) -> ObjectCrops:
    """The usable crops of a rendered set; both are kept in files."""
    file = out / f"{category}_{seed}_{n}.npz"
    if not file.is_file():
        pictures = render_set(category, n, size=96, seed=seed)
        rendered_crops(to_disk(pictures, out / f"renders_{category}_{seed}", verts=True), template).save(file)
    return ObjectCrops.load(file)


def measured(predictor: Predictor, unseen: ObjectCrops, name: str) -> Mapping[str, float]:
    """All measures; those of the mean shape, and of each number of alternations."""
    ways: dict[str, dict[str, Any]] = {"": {}, "/rigid": {"deform": False}}
    ways |= {f"/alternations_{k}": {"steps": k} for k in (1, 2, 3, 4)}
    return {
        f"{name}{way}/{k}": v
        for way, how in ways.items()
        for k, v in evaluate(predictor, unseen, **how).items()
    }


def sheet(predictor: Predictor, unseen: ObjectCrops) -> Any:
    """Eight crops: image, mesh over it, mesh as seen and from its side."""
    some = unseen[list(range(0, len(unseen), max(len(unseen) // 8, 1)))[:8]]
    found, posed = reconstructed(predictor.model, some)
    evidence = predictor.model.evidence(found, posed)
    whole, pictures = Crop((0, 0, some.size, some.size), (some.size, some.size)), []
    images = [*(some.image.float() / 255)]
    found_meshes = predictor.reconstructions(images, posed, evidence, [whole] * len(images))
    for image, r in zip(images, found_meshes, strict=True):
        views = upright_views(r, 4)[:2]
        pictures += [
            image,
            draw_on_image(image, r),
            *(draw_surface(r.mesh, view=v, size=(128, 128)) for v in views),
        ]
    return contact_sheet(pictures, columns=8, size=128)


if __name__ == "__main__":
    main()
