"""Modes of deformation of birds, learned from keypoints and masks by the solver alone, without a network.

    GEOFRAME_DATA=DIR python -m experiments.fit_birds.collection --out OUT [--quick] [--seed S]

Two of three birds of each species are learned from, the third is tested. In every step `solve_pose` poses some birds
and finds their coefficients from the keypoints; the loss of silhouette and keypoints goes back through the solution, by
the implicit function theorem, to the mean shape and the modes. A tested bird is solved by its keypoints alone, then
fitted to keypoints and mask with the shape as it was learned; and each of its keypoints is looked for by the others.

Writes OUT/results.json (flat names -> numbers), OUT/shape.pt and OUT/collection.png.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from experiments.fit_birds.run import SIDE, Bird, Template, read, write_json
from geoframe import PointCloud, eigenbasis
from geoframe._files import atomic_path
from geoframe.fitting.collections import (
    Collection,
    CollectionLosses,
    Latents,
    collection_loss,
    fit_collection,
    on_screen,
)
from geoframe.layers.shape_modes import ShapeModes
from geoframe.render import rasterize
from geoframe.solve import solve_pose
from geoframe.viz.surfaces import save_picture

SMALL = 64  # pixels of the masks that are learned from; all measures are taken at 256
MODES = 16
FUNCTIONS = 48
EPOCHS, QUICK_EPOCHS = 15, 1
FIT_EPOCHS, QUICK_FIT_EPOCHS = 40, 5
BATCH = 16
RATE = 0.003
RIDGE = 0.02  # of the coefficients, beside squared distances in halves of the picture's side
LOSSES = CollectionLosses(points=100.0, arap=0.0, perspective=0.0)


class Setting(NamedTuple):
    """What is chosen on birds split off from those that are learned from."""

    modes: int = MODES
    functions: int = FUNCTIONS
    ridge: float = RIDGE
    rate: float = RATE
    losses: CollectionLosses = LOSSES


def main() -> None:
    """Learn on two thirds, measure on the rest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="few epochs")
    parser.add_argument("--seed", type=int, default=0, help="of the modes' start and the order of the birds")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.process_time()
    template, birds = read(Path(os.environ["GEOFRAME_DATA"], "birds"))
    learned = [b for b in birds if number(b) % 3 != 2]
    tested = [b for b in birds if number(b) % 3 == 2]
    epochs = QUICK_EPOCHS if args.quick else EPOCHS
    shape = learn(template, learned, Setting(), epochs=epochs, seed=args.seed)
    with atomic_path(args.out / "shape.pt") as temporary:
        torch.save(shape.state_dict(), temporary)
    results, picture = measured(
        template, tested, shape, Setting(), QUICK_FIT_EPOCHS if args.quick else FIT_EPOCHS
    )
    results |= {"learned": float(len(learned)), "cpu_minutes": (time.process_time() - start) / 60}
    write_json(results, args.out / "results.json")
    save_picture(picture, args.out / "collection.png")
    print("\n".join(f"{k}: {v:.4g}" for k, v in results.items()))


def number(bird: Bird) -> int:
    """Of a bird in its species."""
    return int(bird.name.split("/")[1])


def modes_of(template: Template, setting: Setting, seed: int) -> ShapeModes:
    """Smooth modes on the vertices and, after them, the keypoints, which need not be vertices."""
    verts = template.mesh.verts
    verts = torch.cat([verts, template.keypoints @ verts])
    middle = (verts.amax(0) + verts.amin(0)) / 2
    middle[1:] = verts.mean(0)[1:]
    verts = verts - middle
    verts = verts / verts.norm(dim=1).max()
    functions = eigenbasis(PointCloud(verts), setting.functions).vecs
    functions = functions / functions.square().mean(0).sqrt()
    reflection = torch.diag(torch.tensor([-1.0, 1, 1]).double())
    nearest = torch.cdist(verts @ reflection, verts).argmin(1)
    mirror = torch.eye(len(verts)).double()[nearest]
    return ShapeModes(
        *(verts.float(), functions.float(), setting.modes),
        mirror=mirror.float(),
        reflection=reflection.float(),
        n_symmetric=setting.modes,
        seed=seed,
    )


def collection(birds: list[Bird], size: int, shape: ShapeModes) -> Collection:
    """Masks of size x size, keypoints in halves of the side from the middle."""
    masks = torch.nn.functional.avg_pool2d(torch.stack([b.mask for b in birds]), SIDE // size).float()
    points = torch.stack([b.points for b in birds]).float() / (SIDE / 2) - 1
    seen = torch.stack([b.seen for b in birds]).float()
    n = len(shape.template())
    return Collection(masks, points, seen, torch.arange(n - points.shape[1], n))


def solved(few: Collection, shape: ShapeModes, ridge: float, modes: bool = True) -> Latents:
    """Poses and coefficients by the keypoints alone; differentiable in the shape."""
    at = few.vertices
    found = solve_pose(
        *(few.points.double(), few.weights.double(), shape.template()[at].double()),
        shape.basis()[:, at].double() if modes and shape.n_modes else None,
        ridge=ridge,
        scale="free",
        mode="joint",
    )
    alpha = found.alpha if modes and shape.n_modes else torch.zeros(len(few.points), shape.n_modes)
    return Latents.of(*(x.float() for x in (found.R, found.t, found.scale, alpha)))


def learn(template: Template, birds: list[Bird], setting: Setting, *, epochs: int, seed: int) -> ShapeModes:
    """Mean shape and modes by the gradient of the loss through the solution."""
    shape = modes_of(template, setting, seed)
    known = collection(birds, SMALL, shape)
    known = known.take(torch.nonzero((known.weights > 0).sum(1) >= 6)[:, 0])
    optimiser = torch.optim.Adam([shape.mean, shape.modes], lr=setting.rate, betas=(0.9, 0.98))
    draw = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(known.points) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, setting.rate, steps, pct_start=0.1)
    for _ in track(range(epochs), "modes"):
        for rows in torch.randperm(len(known.points), generator=draw).split(BATCH):
            few = known.take(rows)
            latents = solved(few, shape, setting.ridge)
            loss = collection_loss(few, shape, template.mesh.faces, latents, setting.losses, None)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return shape.requires_grad_(False)


def measured(
    template: Template, birds: list[Bird], shape: ShapeModes, setting: Setting, epochs: int
) -> tuple[dict[str, float], np.ndarray]:
    """IoU and PCK@0.1 of birds, and a picture of some."""
    known, faces = collection(birds, SMALL, shape), template.mesh.faces
    whole = collection(birds, SIDE, shape)
    plain = modes_of(template, setting._replace(modes=0), 0)
    ways = {
        "template": (plain, solved(known, plain, setting.ridge, modes=False)),
        "mean": (shape, solved(known, shape, setting.ridge, modes=False)),
        "keypoints": (shape, solved(known, shape, setting.ridge)),
    }
    start = ways["keypoints"][1]
    fitted, _ = fit_collection(
        *(known, shape, faces, start), epochs=epochs, batch=BATCH, losses=setting.losses, learn_shape=False
    )
    ways["both"] = (shape, fitted)
    results: dict[str, float] = {"tested": float(len(birds))}
    drawn = {name: silhouettes(latents, own, faces) for name, (own, latents) in ways.items()}
    for name, (own, latents) in ways.items():
        points = latents.project(own(latents.alpha))[:, known.vertices, :2]
        target = whole.masks > 0.5
        iou = (drawn[name] & target).sum((1, 2)) / (drawn[name] | target).sum((1, 2))
        results |= {f"{name}.iou": float(iou.mean()), f"{name}.pck": share_right(points, whole)}
    for name in ("mean", "keypoints"):
        points = left_out(known, shape, setting.ridge, modes=name == "keypoints")
        results[f"{name}.pck_left_out"] = share_right(points, whole)
    every = slice(None, None, max(1, len(birds) // 8))
    rows = []
    for name in ("mean", "keypoints", "both"):
        layers = torch.stack([drawn[name][every], whole.masks[every] > 0.5, whole.masks[every] > 0.5], -1)
        rows.append(torch.cat(list(layers[:8]), 1))
    return results, (torch.cat(rows).byte() * 255).numpy()


def left_out(known: Collection, shape: ShapeModes, ridge: float, *, modes: bool) -> Tensor:
    """(n, L, 2) where each keypoint is expected by the others: solved without it, one after another."""
    points = torch.zeros_like(known.points)
    for i in track(range(points.shape[1]), "keypoints left out"):
        weights = known.weights.clone()
        weights[:, i] = 0
        latents = solved(known._replace(weights=weights), shape, ridge, modes)
        points[:, i] = latents.project(shape(latents.alpha))[:, known.vertices[i], :2]
    return points


def silhouettes(latents: Latents, shape: ShapeModes, faces: Tensor) -> Tensor:
    """(n, 256, 256) bool."""
    out = []
    for rows in torch.arange(len(latents.t)).split(BATCH):
        few = latents.take(rows)
        out.append(rasterize(on_screen(few.project(shape(few.alpha)), SIDE), faces, (SIDE, SIDE)).mask)
    return torch.cat(out)


def share_right(points: Tensor, whole: Collection) -> float:
    """PCK@0.1: mean over birds of the share of seen keypoints within a tenth of the mask's box's longer side."""
    shares = []
    for p, q, seen, mask in zip(points, whole.points, whole.weights, whole.masks, strict=True):
        y, x = (mask > 0.5).nonzero().unbind(1)
        side = float(max(y.max() - y.min(), x.max() - x.min())) + 1
        away = (p - q).norm(dim=1)[seen > 0] * SIDE / 2
        shares.append((away < 0.1 * side).float().mean())
    return float(torch.stack(shares).mean())


if __name__ == "__main__":
    main()
