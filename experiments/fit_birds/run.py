"""A template bird fitted to the keypoints and masks of real birds: rigid, bent by both, and by the mask alone.

    GEOFRAME_DATA=DIR python -m experiments.fit_birds.run --out OUT [--quick] [--seed S]

Writes OUT/results.json (flat names -> numbers), OUT/birds.json (one row a bird; a run that was stopped goes on from
it) and OUT/birds.png. Every fourth bird of a species belongs to the split-off part: the mean shape of the species comes
from it, how far it is drawn to the mean of all birds is chosen on it, and so were the settings; all figures but those
named split_off are of the others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from geoframe import Mesh
from geoframe._files import atomic_path
from geoframe.fitting import ImageLandmarks, TemplateFit, fit_template
from geoframe.fitting.masks import CREDIBLE
from geoframe.render import rasterize
from geoframe.solve import solve_pose
from geoframe.transforms import rotation_angle
from geoframe.viz.surfaces import save_picture

SIDE = 256  # pixels of the masks
HALF = 128  # of those that are fitted; all measures are taken at 256
RIGHT = 30.0  # degrees from the pose of the keypoints: the right view
STEPS, QUICK_STEPS = 12, 8  # of fit_template, a level
SHRINKAGES = (0.0, 0.25, 0.5, 0.75, 1.0)  # how far the mean of a species is drawn to that of all birds


class Bird(NamedTuple):
    """Keypoints (18, 2) in pixels, whether they are seen (18,), mask (256, 256)."""

    name: str
    points: Tensor
    seen: Tensor
    mask: Tensor
    split_off: bool

    @property
    def species(self) -> str:
        """The folder of its species."""
        return self.name.split("/")[0]


class Template(NamedTuple):
    """A mesh and its keypoints as weights of its vertices (18, V)."""

    mesh: Mesh
    keypoints: Tensor


def main() -> None:
    """Mean shapes of the split-off birds; the others rigidly, bent to keypoints and mask, and to the mask alone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one bird in twelve, fewer steps")
    parser.add_argument("--seed", type=int, default=0, help="nothing is random here; accepted for uniformity")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*explain them almost alike", category=UserWarning)
    folder = Path(os.environ["GEOFRAME_DATA"], "birds")
    template, birds = read(folder)
    args.out.mkdir(parents=True, exist_ok=True)
    steps = QUICK_STEPS if args.quick else STEPS
    stride = 12 if args.quick else 1
    start = time.perf_counter()
    own = [b for b in birds if b.split_off]
    shapes = fitted_shapes(template, own, steps, args.out / "shapes.pt")
    choice = {w: left_out(template, own, shapes, w) for w in SHRINKAGES}
    shrinkage = max(SHRINKAGES, key=lambda w: sum(choice[w]))
    means = species_means(template, own, shapes, shrinkage)
    rows = read_rows(args.out / "birds.json")
    fits = []
    others = [b for b in birds if not b.split_off]
    results = without_fits(means, others) | {"shrinkage": shrinkage}
    for w, (iou, pck) in choice.items():
        results |= {f"split_off.{w}.iou": iou, f"split_off.{w}.pck": pck}
    everything = template._replace(mesh=template.mesh.with_verts(shapes.mean(0)))
    results |= {f"quality.{k}": quality_of(everything, mask, steps) for k, mask in no_birds().items()}
    write_json(results, args.out / "results.json")
    for bird in track([b for k in range(5) for b in others[k::5]][::stride], "birds"):  # all species early
        if bird.name not in rows:
            rows[bird.name], fit = measured(means[bird.species], bird, steps)
            fits.append(fit)
            write_json(rows, args.out / "birds.json")
    results |= averages(rows) | {"minutes": (time.perf_counter() - start) / 60}
    write_json(results, args.out / "results.json")
    if fits:
        shown = torch.cat([fit.picture() for fit in fits[:: max(1, len(fits) // 8)][:8]], 2)
        save_picture((shown.permute(1, 2, 0) * 255).byte().numpy(), args.out / "birds.png")
    print("\n".join(f"{k}: {v:.4g}" for k, v in results.items()))


def read(folder: Path) -> tuple[Template, list[Bird]]:
    """The template and all birds; in each species the first, fifth, ninth ... are split off."""
    described = json.loads((folder / "template.json").read_text())
    mesh = Mesh(torch.tensor(described["V"]).double(), torch.tensor(described["F"]))
    birds = []
    with np.load(folder / "birds.npz") as data:
        for species in sorted({key.split("/")[0] for key in data}):
            keypoints, masks = data[f"{species}/keypoints"], data[f"{species}/masks"]
            for i, (k, m) in enumerate(zip(keypoints, masks, strict=True)):
                mask = torch.from_numpy(np.unpackbits(m, axis=-1)).double()
                k = torch.from_numpy(k).double()
                birds.append(Bird(f"{species}/{i}", k[:, :2], (k[:, 2] > 0).double(), mask, i % 4 == 0))
    return Template(mesh, torch.tensor(described["vert2kpt"]).double()), birds


def fitted_shapes(template: Template, birds: list[Bird], steps: int, path: Path) -> Tensor:
    """(n, V, 3) the template fitted to keypoints and masks of birds; kept in a file, as a run may be stopped."""
    if not path.is_file():
        shapes = [fit(template, bird, steps, marks=True).mesh.verts for bird in track(birds, "mean shapes")]
        with atomic_path(path) as temporary:
            torch.save(torch.stack(shapes), temporary)
    return torch.load(path, weights_only=True)


def species_means(
    template: Template, birds: list[Bird], shapes: Tensor, shrinkage: float
) -> dict[str, Template]:
    """For each species the mean of the shapes (n, V, 3) of its birds, drawn to the mean of all of them."""
    means = {}
    for name in {bird.species for bird in birds}:
        own = torch.stack([x for x, bird in zip(shapes, birds, strict=True) if bird.species == name]).mean(0)
        means[name] = template._replace(mesh=template.mesh.with_verts(own.lerp(shapes.mean(0), shrinkage)))
    return means


def left_out(template: Template, birds: list[Bird], shapes: Tensor, shrinkage: float) -> tuple[float, float]:
    """IoU and PCK of the rigid poses of birds by the mean shape of the others, each left out in turn."""
    rows = []
    for i, bird in enumerate(birds):
        others = [k for k in range(len(birds)) if k != i]
        means = species_means(template, [birds[k] for k in others], shapes[others], shrinkage)
        rows.append(rigid_pose(means.get(bird.species, template), bird)[1:])
    iou, pck = (math.fsum(x) / len(rows) for x in zip(*rows, strict=True))
    return iou, pck


def rigid_pose(template: Template, bird: Bird) -> tuple[Tensor, float, float]:
    """Rotation of a template posed by the keypoints alone, its IoU with the mask, and PCK."""
    places = template.keypoints @ template.mesh.verts
    pose = solve_pose(bird.points, bird.seen, places, scale="free", mode="joint")
    return (
        pose.R,
        overlap(template.mesh, pose.camera((SIDE, SIDE)), bird.mask),
        correct(pose.project(places), bird),
    )


def fit(template: Template, bird: Bird, steps: int, *, marks: bool) -> TemplateFit:
    """`fit_template` on the mask at half its size, with or without the keypoints."""
    mask = torch.nn.functional.avg_pool2d(bird.mask[None], SIDE // HALF)
    landmarks = ImageLandmarks(bird.points[None] * HALF / SIDE, template.keypoints, bird.seen[None])
    return fit_template(template.mesh, mask, steps=steps, landmarks=landmarks if marks else None)


def measured(template: Template, bird: Bird, steps: int) -> tuple[dict[str, float], TemplateFit]:
    """All figures of one bird."""
    rotation, row = rigid_pose(template, bird)[0], {}
    for name, marks in (("both", True), ("mask", False)):
        found = fit(template, bird, steps, marks=marks)
        camera = found.cameras.resized((SIDE, SIDE))
        degrees = rotation_angle(found.candidates.R_wc[0], rotation).rad2deg()
        degrees = degrees[torch.isfinite(found.energies[0])]
        row |= {
            f"{name}.iou": overlap(found.mesh, camera[0], bird.mask),
            f"{name}.pck": correct(camera.project(template.keypoints @ found.mesh.verts)[0, :, :2], bird),
            f"{name}.flipped": found.flipped,
            f"{name}.stretch": found.stretch,
            f"{name}.quality": float(found.quality),
            f"{name}.called_doubtful": float(found.quality < CREDIBLE),
            f"{name}.ambiguous": float(found.ambiguous),
            f"{name}.right_view": float(degrees[0] < RIGHT),
            f"{name}.right_view_among_candidates": float((degrees < RIGHT).any()),
            f"{name}.candidates": float(len(degrees)),
            f"{name}.energy": float(found.energies[0, 0]),
        }
    return row, found


def without_fits(means: dict[str, Template], birds: list[Bird]) -> dict[str, float]:
    """Mean IoU and PCK of the rigid poses by the keypoints alone."""
    rows = [rigid_pose(means[bird.species], bird)[1:] for bird in birds]
    iou, pck = (math.fsum(x) / len(rows) for x in zip(*rows, strict=True))
    return {"rigid.birds": float(len(rows)), "rigid.iou": iou, "rigid.pck": pck}


def no_birds() -> dict[str, Tensor]:
    """Masks (HALF, HALF) of what is no bird: simple shapes and letters."""
    from PIL import Image, ImageDraw, ImageFont

    line = torch.arange(HALF) + 0.5 - HALF / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    masks = {
        "disc": x.square() + y.square() < 40**2,
        "ellipse": (x + y / 2).square() / 4 + (y - x / 2).square() < 30**2,
        "bar": ((x + y / 3).abs() < 45) & ((y - x / 3).abs() < 16),
        "triangle": (y > -35) & (y + 2 * x.abs() < 50),
    }
    font = ImageFont.load_default(size=0.8 * HALF)
    for letter in "ABT":
        picture = Image.new("L", (HALF, HALF))
        ImageDraw.Draw(picture).text((HALF / 2, HALF / 2), letter, fill=255, font=font, anchor="mm")
        masks[f"letter {letter}"] = torch.from_numpy(np.array(picture)) > 127
    return {name: mask.double() for name, mask in masks.items()}


def quality_of(template: Template, mask: Tensor, steps: int) -> float:
    """Quality of the fit to a mask alone; below `CREDIBLE` it is called doubtful."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit_template(template.mesh, mask[None], steps=steps).quality


def overlap(mesh: Mesh, camera: Any, mask: Tensor) -> float:
    """Intersection over union of the mask and the silhouette."""
    seen, target = rasterize(mesh.verts, mesh.faces, camera).mask, mask > 0.5
    return float((seen & target).sum() / (seen | target).sum())


def correct(projected: Tensor, bird: Bird) -> float:
    """Share of the seen keypoints within a tenth of the longer side of the mask's box (PCK@0.1)."""
    y, x = (bird.mask > 0.5).nonzero().unbind(1)
    side = float(max(y.max() - y.min(), x.max() - x.min())) + 1
    away = (projected - bird.points).norm(dim=1)[bird.seen > 0]
    return float((away < 0.1 * side).double().mean())


def averages(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean of every figure over the birds; and of the views that are right where no warning is on."""
    if not rows:
        return {}
    names = [k for k in next(iter(rows.values())) if all(k in row for row in rows.values())]
    out = {"birds": float(len(rows))} | {k: math.fsum(r[k] for r in rows.values()) / len(rows) for k in names}
    told = [r for r in rows.values() if not r["mask.right_view"]]
    out["mask.told_where_wrong"] = math.fsum(r["mask.ambiguous"] for r in told) / max(1, len(told))
    return out


def read_rows(path: Path) -> dict[str, dict[str, float]]:
    """What an earlier run has measured."""
    return json.loads(path.read_text()) if path.is_file() else {}


def write_json(data: Any, path: Path) -> None:
    """Written whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
