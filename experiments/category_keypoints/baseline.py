"""The paper's baseline: an order-free detector trained with a Siamese rotation task, per category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from geoframe import metrics
from geoframe.data import CloudBatches, CloudSet, misalign
from geoframe.fit import Schedule, fit
from geoframe.layers import turn_by
from geoframe.losses import chamfer_loss, inclusivity_loss
from geoframe.models.order_free import OrderFreeKeypoints


@dataclass(frozen=True)
class SiameseLosses:
    """Nodes of a cloud and of a turned copy are to agree after turning back, and to lie on the cloud (as USIP)."""

    up: int = 2

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars; the sum is minimised."""
        points = batch["seen"]
        R = turn_by(2 * torch.pi * torch.rand(len(points), device=points.device), self.up)
        both = model(torch.cat([points, points @ R.mT]))
        first, second = both.chunk(2)
        return {
            "repeat": chamfer_loss(first @ R.mT, second, form="mean"),
            "on_cloud": inclusivity_loss(first, points, form="mean"),
        }


def train_baseline(
    clouds: CloudSet, *, out: Path, n_keypoints: int = 10, degrees: float, epochs: int, seed: int
) -> OrderFreeKeypoints:
    """Train on normalised clouds."""
    torch.manual_seed(seed)
    model = OrderFreeKeypoints(n_keypoints)
    n = clouds.points.shape[1]
    batches = CloudBatches(clouds, batch_size=min(16, len(clouds)), n_points=n, degrees=degrees, seed=seed)
    schedule = Schedule(epochs=epochs, every=max(1, epochs // 5))
    fit(model, batches, SiameseLosses(clouds.up), out=out, schedule=schedule, seed=seed, accelerator="cpu")
    return model


@torch.no_grad()
def evaluate_baseline(
    model: OrderFreeKeypoints, clouds: CloudSet, *, degrees: float, seed: int = 1
) -> dict[str, float]:
    """The measures of the paper's table that make sense without order; correspondence by k-means."""
    generator = torch.Generator().manual_seed(seed)
    points, angle = misalign(clouds.points, degrees, up=clouds.up, generator=generator)
    found = torch.cat([model(p) for p in points.split(16)])
    R = turn_by(angle, clouds.up)
    return {
        "coverage_percent": 100 * float(metrics.coverage(found, points).mean()),
        "correspondence_percent": metrics.correspondence_by_clusters(found, R, seed=seed),
        "inclusivity_percent": 100 * float(metrics.inclusivity(found, points).mean()),
        "n_keypoints": float(found.shape[1]),
    }
