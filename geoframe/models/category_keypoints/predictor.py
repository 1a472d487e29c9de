"""Category keypoints in use: train on the clouds of a category, predict, register.

clouds = load_clouds("modelnet10", "chair")
predictor = train(clouds, out="chair")
found = predictor.predict(cloud).keypoints        # (K, 3) ordered, in the cloud's units
numbers = evaluate(predictor, load_clouds("modelnet10", "chair", split="test"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoframe import metrics
from geoframe._cache import cache_key
from geoframe._check import check_int
from geoframe._random import seeded
from geoframe.data import CloudBatches, CloudSet, normalise
from geoframe.models.category_keypoints.network import (
    NETWORKS,
    CategoryKeypoints,
    Keypoints,
    Network,
    build,
    symmetry_frame,
)
from geoframe.models.category_keypoints.recipe import OURS, Recipe
from geoframe.surface.clouds import as_points, box
from geoframe.training import fit, load_model, save_model
from geoframe.transforms import Similarity

KIND = "category keypoints"
_INFERENCE_BATCH = 32  # clouds; larger batches leave the cache of a CPU and take longer
_SETTLE_ROUNDS = 2  # the first rotation is found in the box of the rotated cloud, the second in its own


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained network with what belongs to it.

    Attributes:
        model: in evaluation mode.
        category: its name.
        group: (K,) int64, the final keypoint that each of the network's K ends in (non-maximum suppression).
        canonical: (K', 3) places of the final keypoints in the common frame, averaged over the training clouds.
        about: how it was trained: recipe, network, degrees, seed, epochs, shapes, points, data (a digest).
    """

    model: Network
    category: str
    group: Tensor
    canonical: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def n_keypoints(self) -> int:
        """K', the number of final keypoints."""
        return len(self.canonical)

    @property
    def up(self) -> int:
        """The vertical axis, 0 to 2."""
        return self.model.up

    def predict(self, points: Any) -> Keypoints:
        """Ordered keypoints of clouds of any position and size.

        Args:
            points: (..., N, 3) floating tensor, array or list, in any units.

        Returns:
            Keypoints and nodes (..., K', 3) and (..., M, 3) in the units and the frame of the clouds; canonical
            keypoints (..., K', 3) at scale 2; rotation (..., 3, 3); coefficients (..., C).

        Raises:
            TypeError: not numbers.
            ValueError: another shape, no cloud, too few points, NaN, a single point repeated.
        """
        points = as_points(points, "... N 3", "points")
        if not points.numel():
            raise ValueError(f"points: expected at least one cloud, found shape {tuple(points.shape)}")
        settled, centre, half = settle(self.model, points.reshape(-1, *points.shape[-2:]))
        found = self.predict_normalised(settled)
        keypoints, nodes = (
            x.to(points.dtype) * half[:, None, None] + centre[:, None] for x in (found.keypoints, found.nodes)
        )
        found = found._replace(keypoints=keypoints, nodes=nodes)
        return Keypoints(*(x.reshape(*points.shape[:-2], *x.shape[1:]) for x in found))

    @torch.no_grad()
    def predict_normalised(self, points: Tensor) -> Keypoints:
        """All that the network says of clouds (B, N, 3) that were normalised to scale 2; keypoints are the final K'."""
        weight = self.model.basis.basis  # says where and how precisely to compute
        parts = [self.model(p.to(weight)) for p in points.split(_INFERENCE_BATCH)]
        found = Keypoints(*(torch.cat(x).to(points.device) for x in zip(*parts, strict=True)))
        group = self.group.to(points.device)
        return found._replace(
            keypoints=metrics.merged(found.keypoints, group), canonical=metrics.merged(found.canonical, group)
        )

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors and model.json into a folder, which is made if need be."""
        about = {
            "category": self.category,
            "settings": self.model.settings,
            "group": self.group.tolist(),
            "canonical": self.canonical.tolist(),
            "about": self.about,
        }
        save_model(folder, self.model, about, kind=KIND)


def load(folder: str | Path) -> Predictor:
    """Read what `Predictor.save` or `train` wrote.

    Raises:
        ValueError: nothing there, files of something else, weights that do not fit.
    """

    def described(about: dict[str, Any]) -> Network:
        model = build(about["about"]["network"], about["settings"])
        numbers = sorted(set(about["group"]))
        if len(about["group"]) != model.basis.n_keypoints or numbers != list(range(len(about["canonical"]))):
            raise ValueError(f"{len(about['group'])} keypoints in {len(about['canonical'])} groups")
        return model

    model, about = load_model(folder, described, kind=KIND)
    group, canonical = torch.tensor(about["group"]), torch.tensor(about["canonical"])
    return Predictor(model, about["category"], group, canonical, about["about"])


def train(
    clouds: CloudSet,
    *,
    out: str | Path,
    category: str = "",
    recipe: Recipe = OURS,
    degrees: float = 45.0,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    progress: Callable[[str, float], None] | None = None,
) -> Predictor:
    """Learn the keypoints of a category from its clouds, without labels; a run that was killed goes on.

    Args:
        clouds: in any units; each is normalised.
        out: folder for model, state and logs.
        category: its name.
        recipe: network, losses, batches and schedule; `OURS`, `PAPER` or one of your own. Its batch is at most the
            number of clouds and is made a multiple of the devices.
        degrees: in [0, 180]; the largest rotation about the vertical, drawn anew for every batch, on top of what the
            clouds come with. For clouds that are not aligned among themselves pass 180.
        seed: of initial weights, batches and rotations.
        accelerator: see `geoframe.training.fit`.
        devices: see `geoframe.training.fit`.
        progress: called with (text, share done) after every step.

    Returns:
        The predictor, which is also in `out`.

    Raises:
        TypeError: clouds that are no `CloudSet`, a recipe that is no `Recipe`.
        ValueError: fewer clouds than two or than devices, arguments out of range, a folder with a run of other clouds
            or of another recipe.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe: expected a Recipe such as OURS or PAPER, found {type(recipe).__name__}")
    if not 0 <= degrees <= 180:
        raise ValueError(f"degrees: expected a number in [0, 180], found {degrees}")
    ready = _enough(clouds, check_int(devices, "devices", low=1)).normalised()
    key = cache_key(ready.points)
    model, ready = _begin(recipe, ready, degrees, seed)
    n, N = ready.points.shape[:2]
    plan = recipe.batches
    batches = CloudBatches(
        ready,
        batch_size=max(min(plan.size, n) // devices, 1) * devices,
        n_points=N,
        n_seen=None if plan.n_seen is None else min(N, plan.n_seen),
        degrees=degrees,
        missing=plan.missing,
        noise=plan.noise,
        seed=seed,
    )
    about = {"recipe": recipe.name, "network": recipe.network, "degrees": degrees, "seed": seed, "shapes": n}
    about |= {"epochs": recipe.schedule.epochs, "points": N, "data": key}
    said = {**asdict(plan), "size": batches.batch_size}
    run = {
        **about,
        "category": category,
        "settings": model.settings,
        "losses": asdict(recipe.losses),
        "batches": said,
    }
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
    predictor = _finish(model.eval(), category, ready, degrees, seed, about)
    predictor.save(out)
    return predictor


def register(predictor: Predictor, sources: Any, targets: Any) -> tuple[Similarity, Tensor, Tensor]:
    """Similarity transforms that bring each source cloud onto the target it fits best, by ordered keypoints alone.

    Clouds are rotated about the vertical, or about any axis where the network allows for that.

    Args:
        predictor: of the category of the clouds.
        sources: (S, N, 3) in any units.
        targets: (T, M, 3) in any units, the templates.

    Returns:
        motion: R (S, 3, 3), t (S, 3) and scale (S,); ``motion(sources)`` lie on the targets.
        target: (S,) int64, which one.
        residual: (S,) root mean square distance of the keypoints, over half the longest side of the target.

    Raises:
        TypeError, ValueError: as `Predictor.predict`.
    """
    moving, still = (predictor.predict(x).keypoints for x in (sources, targets))
    S, T = len(moving), len(still)
    fits = metrics.fit_similarity(
        moving[:, None].expand(-1, T, -1, -1), still[None].expand(S, -1, -1, -1), up=predictor.model.axis
    )
    size = normalise(targets)[2]
    off = (fits(moving[:, None].expand(-1, T, -1, -1)) - still).square().sum(-1).mean(-1).sqrt() / size
    residual, target = off.min(1)
    row = torch.arange(S)
    motion = Similarity(*(x[row, target] for x in fits))
    return motion, target, residual


@torch.no_grad()
def settle(model: Network, clouds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise clouds by the box that is aligned with their plane of symmetry, as far as the network knows it.

    The axis-aligned box of a rotated cloud is another one than that of the cloud before, and so is its centre. So the
    rotation is found and undone, the cloud is boxed again, and once more.

    Args:
        model: a trained network.
        clouds: (B, N, 3) in any units.

    Returns:
        points: (B, N, 3) at scale 2.
        centre: (B, 3).
        half: (B,), half the longest side; ``points * half + centre`` are the clouds.
    """
    points, centre, half = normalise(clouds)
    frame = symmetry_frame(model.basis)
    for _ in range(_SETTLE_ROUNDS):
        parts = [model.rotation(p.to(frame)) for p in points.split(_INFERENCE_BATCH)]
        axes = (torch.cat(parts) @ frame.mT).to(clouds)
        low, high = box(clouds @ axes)
        centre = (axes @ (low + high)[..., None] / 2)[..., 0]
        half = (high - low).amax(-1) / 2
        points = (clouds - centre[:, None]) / half[:, None, None]
    return points, centre, half


def _enough(clouds: CloudSet, devices: int) -> CloudSet:
    """The clouds, if there is something to train on."""
    if not isinstance(clouds, CloudSet):
        kind = type(clouds).__name__
        raise TypeError(
            f"clouds: expected a CloudSet, found {kind}; see load_clouds, or CloudSet(points, names)"
        )
    if len(clouds) < max(2, devices):
        raise ValueError(
            f"clouds: expected at least two to learn a category from, and one a device, found {len(clouds)}"
        )
    return clouds


def _begin(recipe: Recipe, ready: CloudSet, degrees: float, seed: int) -> tuple[Network, CloudSet]:
    """The network before training, and the clouds as it is to see them."""
    settings = NETWORKS[recipe.network].settings_of_data(up=ready.up, degrees=degrees)
    with seeded(seed):
        model = build(recipe.network, {**settings, **recipe.settings})
    for _ in range(
        recipe.pose_rounds
    ):  # where clouds come rotated, their boxes are right only once poses are known
        assert isinstance(model, CategoryKeypoints)  # a recipe has rounds only for this network
        model.prepare(ready.rotated(degrees, seed=seed)[0], seed=seed)
        ready = replace(ready, points=settle(model, ready.points)[0])
    return model, ready


def _finish(
    model: Network, category: str, ready: CloudSet, degrees: float, seed: int, about: dict[str, Any]
) -> Predictor:
    """Non-maximum suppression over the training clouds."""
    K = model.basis.n_keypoints
    every = Predictor(model, category, torch.arange(K), torch.zeros(K, 3))
    canonical = every.predict_normalised(ready.rotated(degrees, seed=seed)[0]).canonical
    group = metrics.merge_keypoints(canonical)
    return Predictor(model, category, group, metrics.merged(canonical, group).mean(0), about)
