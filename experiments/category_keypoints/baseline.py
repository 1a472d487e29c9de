"""The paper's baseline: an order-free detector trained with a Siamese rotation task, per category."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.category_keypoints.order_free import OrderFreeKeypoints
from geoframe import metrics
from geoframe.data import CloudBatches, CloudSet
from geoframe.losses import chamfer_loss, inclusivity_loss
from geoframe.training import Schedule, fit, load_model, save_model
from geoframe.transforms import rotation_about_axis

KIND = "keypoints without order"


@dataclass(frozen=True)
class SiameseLosses:
    """Nodes of a cloud and of a rotated copy are to agree once it is undone, and to lie on the cloud (as USIP)."""

    up: int = 2

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars; the sum is minimised."""
        points = batch["seen"]
        R = rotation_about_axis(2 * torch.pi * torch.rand(len(points), device=points.device), self.up)
        both = model(torch.cat([points, points @ R.mT]))
        first, second = both.chunk(2)
        return {
            "repeat": chamfer_loss(first @ R.mT, second, form="mean"),
            "on_cloud": inclusivity_loss(first, points, form="mean"),
        }


def train_baseline(
    clouds: CloudSet,
    *,
    out: Path,
    n_keypoints: int = 12,
    degrees: float,
    epochs: int,
    seed: int,
    progress: Callable[[str, float], None] | None = None,
) -> OrderFreeKeypoints:
    """Train on normalised clouds; leaves model.safetensors and model.json in `out`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = OrderFreeKeypoints(n_keypoints)
    n = clouds.points.shape[1]
    batches = CloudBatches(clouds, batch_size=min(16, len(clouds)), n_points=n, degrees=degrees, seed=seed)
    schedule = Schedule(epochs=epochs, every=max(1, epochs // 5))
    losses = SiameseLosses(clouds.up)
    fit(
        model,
        batches,
        losses,
        out=out,
        schedule=schedule,
        seed=seed,
        accelerator="cpu",
        run={"degrees": degrees, "points": n, "shapes": len(clouds)},
        progress=progress,
    )
    save_model(out, model, {"settings": model.settings, "epochs": epochs}, kind=KIND)
    return model


def load_baseline(folder: Path) -> tuple[OrderFreeKeypoints, int]:
    """What `train_baseline` left, and for how many epochs it was trained."""
    model, about = load_model(folder, lambda about: OrderFreeKeypoints(**about["settings"]), kind=KIND)
    return model, about["epochs"]


@torch.no_grad()
def evaluate_baseline(
    model: OrderFreeKeypoints, clouds: CloudSet, *, degrees: float, seed: int = 1
) -> tuple[dict[str, float], Tensor]:
    """The measures of the paper's table that make sense without order, and those that k-means makes possible.

    The clusters are of keypoints after undoing the known rotation: an order that a user does not have.

    Returns:
        numbers, repeatability and parts over what is found; and the keypoints (n, K, 3) in the order of the clusters,
        the rotation undone, NaN where not found.
    """
    points, R = clouds.rotated(degrees, seed=seed)
    found = torch.cat([model(p) for p in points.split(16)])
    ordered, known = metrics.clusters(found, R, seed=seed)
    numbers = {
        "coverage_percent": 100 * float(metrics.box_coverage(found, points).mean()),
        "correspondence_percent": 100 * float(known.double().mean()),
        "inclusivity_percent": 100 * float(metrics.inclusivity(found, points).mean()),
        "n_keypoints": float(found.shape[1]),
        "repeatability_percent": 100 * float(metrics.repeatability(ordered, R).nanmean()),
    }
    if clouds.labels is not None:
        consistent = metrics.semantic_consistency(ordered, points, clouds.labels)[1]
        numbers["semantic_consistency_percent"] = consistent
    if clouds.surfaces is not None:
        gap = metrics.surface_distance(found @ R, clouds.surfaces)
        numbers["distance_to_surface"] = float(gap.mean())
        numbers["inclusivity_surface_percent"] = 100 * float((gap <= 0.015).double().mean())
    return numbers, ordered @ R
