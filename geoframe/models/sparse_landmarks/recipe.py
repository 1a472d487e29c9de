"""How sparse landmarks are trained: network, losses with their weights, views, schedule.

`PAPER` is chapter 4 of the thesis. On loose crops it finds K fixed places of the picture instead of places of the
object: maps that do not move cost only the variance of the warps, which is small beside what diversity asks for.
`OURS` learns an object frame first, takes the clusters of its embedding that are most consistent and farthest apart as
landmarks, and refines them by the paper's losses.

Source: Thewlis 2019 (thesis), chapter 4; the ranges of its warps are those of a re-implementation, as the text says
    only "pre-determined". How OURS was chosen stands in experiments/sparse_landmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from geoframe._check import check_choice, check_int
from geoframe.data.views import ViewPlan, WarpRange
from geoframe.heads.points import N_ANCHORS
from geoframe.losses.landmarks import alignment_loss, diversity_loss
from geoframe.models.sparse_landmarks.network import NETWORKS
from geoframe.training import Schedule, Scheduled
from geoframe.warps import pixel_grid


@dataclass(frozen=True)
class Losses:
    """The losses of a batch with their weights.

    Attributes:
        alignment: of landmarks that move with the picture, in pixels of the maps.
        diversity: of landmarks that share a window.
        window: its side, in pixels of the maps.
        form: of the pooling, see `diversity_loss`.
    """

    alignment: float = 1.0
    diversity: float = 500.0
    window: int = 4
    form: str = "sum"

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised.

        Args:
            model: pictures to `Heatmaps`.
            batch: see `geoframe.data.views.ViewBatches`.
        """
        maps = model(torch.cat([batch["first"], batch["second"]])).maps
        p, q = maps.chunk(2)
        half = p.shape[-1] / 2  # pixels of a map in a unit of normalised coordinates
        places = pixel_grid(*p.shape[2:], like=p).reshape(-1, 2) * half
        parts = {
            "alignment": self.alignment * alignment_loss(p, q, places, batch["truth"].flatten(1, 2) * half)
        }
        if self.diversity:
            apart = diversity_loss(p, window=self.window, form=self.form)
            apart = apart + diversity_loss(q, window=self.window, form=self.form)
            parts["diversity"] = self.diversity * apart
        return parts


@dataclass(frozen=True)
class Recipe(Scheduled):
    """One way to train sparse landmarks.

    Attributes:
        name: under which models and tables tell of it.
        network: "chain" or "frame".
        losses: of a batch.
        views: what a step sees.
        schedule: length of the training (of "frame", after the object frame) and learning rate.
        settings: arguments of the network's constructor.
    """

    name: str
    network: str
    losses: Losses
    views: ViewPlan
    schedule: Schedule
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice(self.network, tuple(NETWORKS), "network")
        check_int(self.settings.get("k", 1), "k", low=1, high=N_ANCHORS)

    def with_k(self, k: int) -> Recipe:
        """The same recipe for another number of landmarks."""
        return replace(self, settings={**self.settings, "k": k})


PAPER = Recipe(
    name="paper",
    network="chain",
    settings={"k": 10},
    losses=Losses(),
    views=ViewPlan(
        pairs=32,
        size=128,
        zoom=0.88,
        first=WarpRange(rotation=16.0, scale=0.1, shift=0.05, bend=0.001, strong_bend=0.005),
        second=WarpRange(rotation=16.0, scale=0.1, shift=0.1, bend=0.001, strong_bend=0.01),
        border="zeros",
        flip=0.0,
    ),
    schedule=Schedule(epochs=100, lr=1e-4, decay="step", factor=0.1, every=80, weight_decay=5e-4),
)
# What keeps the paper's network from fixed places: warps that shift farther, no black border to see them by.
SHIFTED = replace(
    PAPER,
    name="shifted",
    settings={"k": 10, "last": False},
    views=replace(
        PAPER.views,
        zoom=0.7,
        border="reflection",
        second=WarpRange(rotation=16.0, scale=0.2, shift=0.3, bend=0.001, strong_bend=0.01),
    ),
)
OURS = Recipe(
    name="geoframe",
    network="frame",
    settings={"k": 20},
    losses=Losses(alignment=0.1, diversity=1.0, window=2),
    views=ViewPlan(
        pairs=12,
        size=96,
        zoom=0.8,
        first=WarpRange(rotation=8.0, scale=0.2, shift=0.06),
        second=WarpRange(rotation=15.0, scale=0.2, shift=0.1, bend=0.01, strong_bend=0.02),
    ),
    schedule=Schedule(steps=100, lr=2e-4, warmup=20, decay="cosine", weight_decay=0.1),
)
RECIPES = {recipe.name: recipe for recipe in (OURS, PAPER, SHIFTED)}
