"""Features from motion: train on frames with flow, without labels; describe and group the pixels of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoframe._check import as_floats, check_finite, check_int, check_shape
from geoframe._random import seeded
from geoframe.flow import dominant_motion
from geoframe.losses.flow import normalise_flow
from geoframe.models.flow_similarity.network import FlowFeatures, build
from geoframe.models.flow_similarity.recipe import OURS, Recipe
from geoframe.training import fit, load_model, save_model

KIND = "flow similarity"
_STEPS_AN_EPOCH = 100
_SMALLEST = 32  # pixels along a side


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network with what belongs to it.

    Attributes:
        model: in evaluation mode.
        about: how it was trained.
    """

    model: FlowFeatures
    about: dict[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def predict(self, image: Any, *, stride: int = 4) -> Tensor:
        """Features (D, h, w) of unit length, at the centres of squares of `stride` pixels of an image (3, H, W).

        Raises:
            TypeError, ValueError: see `as_frame`.
        """
        return self.model.field(as_frame(image, "image")[None], stride=stride)[0]

    @torch.no_grad()
    def columns(self, image: Any, *, stride: int = 4) -> Tensor:
        """What the backbone says, all its maps beside one another: (C, h, w)."""
        return self.model.head.column_field(as_frame(image, "image")[None], stride=stride)[0]

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors and model.json into a folder, which is made if need be."""
        save_model(folder, self.model, {"settings": self.model.settings, "about": self.about}, kind=KIND)


def load(folder: str | Path) -> Predictor:
    """Read what `Predictor.save` or `train` wrote.

    Raises:
        ValueError: nothing there, files of something else, weights that do not fit.
    """
    model, about = load_model(folder, lambda about: build(about["settings"]), kind=KIND)
    return Predictor(model.eval(), about["about"])


def as_frame(image: Any, name: str) -> Tensor:
    """An image (3, H, W) float32, if it is one: grey ones get three channels.

    Raises:
        TypeError: not numbers.
        ValueError: another shape, smaller than 32 pixels, NaN.
    """
    x = as_floats(image, name).float()
    sizes = check_shape(x, "C H W", name)
    if sizes["C"] not in (1, 3):
        raise ValueError(f"{name}: expected 1 or 3 channels first, found shape {tuple(x.shape)}")
    if min(sizes["H"], sizes["W"]) < _SMALLEST:
        found = f"{sizes['W']} x {sizes['H']}"
        raise ValueError(f"{name}: expected at least {_SMALLEST} pixels along each side, found {found}")
    check_finite(x, name, remedy="fill or crop them first")
    return x.expand(3, -1, -1)


def train(
    frames: Sequence[tuple[Tensor, Tensor]],
    *,
    out: str | Path,
    recipe: Recipe = OURS,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    progress: Callable[[str, float], None] | None = None,
) -> Predictor:
    """Learn features from frames and how their pixels move; a run that was killed goes on.

    Args:
        frames: (image (3, H, W) in [0, 1], flow (2, H, W) in pixels, NaN where it is unknown) each, of any sizes.
        out: folder for model, state and logs.
        recipe: loss, batches and schedule.
        seed: of weights, crops and sampled pixels.
        accelerator: see `geoframe.training.fit`.
        devices: see `geoframe.training.fit`.
        progress: called with (text, share done) after every step.

    Returns:
        The predictor, which is also in `out`.

    Raises:
        ValueError: no frames, images and flows of different sizes, a frame with hardly any known flow.
    """
    ready = [_checked(i, *frame, recipe) for i, frame in enumerate(frames)]
    if not ready:
        raise ValueError("frames: expected at least one frame with a flow, found none")
    with seeded(seed):
        model = build(recipe.settings)

    def batches(epoch: int, rank: int, world: int) -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch * world + rank)
        for _ in range(_STEPS_AN_EPOCH):
            chosen = torch.randint(len(ready), (recipe.batch_size,), generator=generator).tolist()
            drawn = [_sample(ready[i][0], ready[i][1], recipe, generator) for i in chosen]
            columns = (torch.stack(x) for x in zip(*drawn, strict=True))
            yield dict(zip(("image", "points", "flow"), columns, strict=True))

    about = {"recipe": recipe.name, "seed": seed, "frames": len(ready), "crop": recipe.crop}
    run = {**about, "settings": model.settings, "losses": asdict(recipe.losses), "points": recipe.n_points}
    fit(
        model,
        batches,
        recipe.losses,
        out=out,
        schedule=recipe.schedule,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        run=run,
        progress=progress,
    )
    predictor = Predictor(model.eval(), about)
    predictor.save(out)
    return predictor


def _checked(number: int, image: Tensor, flow: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """The image with its flow, the motion of most pixels subtracted where the recipe says so."""
    image = as_frame(image, f"image {number}")
    check_shape(flow, f"2 {image.shape[1]} {image.shape[2]}", f"flow {number}")
    known = torch.isfinite(flow).all(0).float().mean()
    if float(known) < 0.05:
        raise ValueError(
            f"flow {number}: expected a known flow at a twentieth of the pixels, found {float(known):.1%}"
        )
    return image, flow - dominant_motion(flow, seed=number) if recipe.residual else flow


def _sample(
    image: Tensor, flow: Tensor, recipe: Recipe, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A crop of a frame, changed in scale and colour, with sampled pixels and their normalised flow."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    H, W = image.shape[1:]
    side = min(H, W, recipe.crop * uniform(1.0, 1.6))
    scale = recipe.crop / side
    left, top = uniform(0, W - side), uniform(0, H - side)
    n = recipe.crop
    at = (torch.arange(n) + 0.5) / scale
    gx, gy = 2 * (at + left) / W - 1, 2 * (at + top) / H - 1
    grid = torch.stack(torch.meshgrid(gx, gy, indexing="xy"), dim=-1)[None]
    crop = torch.nn.functional.grid_sample(image[None], grid, align_corners=False)[0]
    motion = torch.nn.functional.grid_sample(flow[None], grid, mode="nearest", align_corners=False)[0] * scale
    if uniform(0, 1) < 0.5:
        crop, motion = crop.flip(2), motion.flip(2) * motion.new_tensor([-1.0, 1.0])[:, None, None]
    crop = (crop - crop.mean()) * uniform(0.6, 1.4) + crop.mean() + uniform(-0.12, 0.12)
    crop = crop * (1 + 0.1 * torch.randn(3, 1, 1, generator=generator))
    known = torch.isfinite(motion).all(0).flatten().nonzero()[:, 0]
    if not len(known):  # a crop of unknown flow teaches nothing: all its pixels move alike
        known, motion = torch.arange(n * n), torch.zeros_like(motion)
    picked = known[torch.randint(len(known), (recipe.n_points,), generator=generator)]
    points = torch.stack([picked % n + 0.5, picked // n + 0.5], dim=1).float()
    return crop.clamp(0, 1), points, normalise_flow(motion.flatten(1).T[picked])


def cluster(features: Sequence[Tensor], n_clusters: int, *, seed: int = 0, rounds: int = 30) -> list[Tensor]:
    """Group the pixels of pictures by their features: k-means, all pictures together.

    Args:
        features: (D, h, w) each.
        n_clusters: k.
        seed: of the first centres, which are far from one another.
        rounds: at most.

    Returns:
        (h, w) int64 each, the number of the cluster.
    """
    check_int(n_clusters, "n_clusters", low=1)
    x = torch.cat([f.flatten(1).T for f in features])
    generator = torch.Generator().manual_seed(seed)
    centres = x[torch.randint(len(x), (1,), generator=generator)]
    while len(centres) < min(n_clusters, len(x)):  # k-means++
        gap = torch.cdist(x, centres).amin(1).square()
        centres = torch.cat([centres, x[torch.multinomial(gap + 1e-12, 1, generator=generator)]])
    label = torch.zeros(len(x), dtype=torch.int64)
    for _ in range(rounds):
        again = torch.cdist(x, centres).argmin(1)
        if torch.equal(again, label) and _:
            break
        label = again
        for k in range(len(centres)):
            if bool((label == k).any()):
                centres[k] = x[label == k].mean(0)
    sizes = [f.shape[1] * f.shape[2] for f in features]
    return [part.reshape(f.shape[1:]) for part, f in zip(label.split(sizes), features, strict=True)]
