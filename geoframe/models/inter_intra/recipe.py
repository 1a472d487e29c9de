"""How inter-intra landmarks are trained: network, losses with their weights, views, schedule.

`PAPER` is the published system, `BASELINE` the same without the other subject and without the way back. `OURS` refines
the landmarks of an object frame instead of a detector from scratch, paints smaller pictures than the detector sees by
a smaller painter, has a cheaper perceptual loss, and sends half of the pictures through somebody else, one way: a step
costs 1.2 times one without, instead of 2.5 times. One painter paints both straight and through others, so that it can
hardly hide the first picture's shape in what it paints between. Painting counts near the landmarks only: in loose
crops that matters most (experiments/inter_intra).

Source: Li et al. 2020, section IV.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._check import check_choice, check_int
from geoframe.data.views import ViewPlan, WarpRange
from geoframe.losses.landmarks import perceptual_loss
from geoframe.models.inter_intra.network import PERCEPTIONS, SHAPES, InterIntra, shrunk
from geoframe.training import Schedule, Scheduled
from geoframe.warps import pixel_grid


@dataclass(frozen=True)
class Losses:
    """The losses of a batch with their weights.

    Attributes:
        reconstruction: mean squared difference of painted and true pictures.
        perceptual: of the features of a fixed network.
        perception: that network: "vgg16", "efficientnet-lite0", or "none".
        auxiliary: share of the pictures whose painting goes through the shape of somebody else, the next picture of
            the batch, from 0 to 1; at least one of a batch unless it is 0.
        shapes: of which view that shape is: "first", as published, or "second", whose landmarks are known anyway, so
            that the way through somebody else costs one more painting and nothing else.
        cycle: whether both views are painted.
        window: where painting counts: in a bell around the middle of the landmarks, so many times as wide (standard
            deviation) as they are spread; 0, as published, everywhere. In loose crops most of a picture is not the
            object, and landmarks wander off to tell where that is, above all if the painting went through somebody
            else's shape.
    """

    reconstruction: float = 1.0
    perceptual: float = 1.0
    perception: str = "vgg16"
    auxiliary: float = 1.0
    shapes: str = "first"
    cycle: bool = True
    window: float = 0.0

    def __post_init__(self) -> None:
        check_choice(self.perception, PERCEPTIONS, "perception")
        check_choice(self.shapes, SHAPES, "shapes")
        if not 0 <= self.auxiliary <= 1:
            raise ValueError(f"auxiliary: expected a share from 0 to 1, found {self.auxiliary}")
        if not self.window >= 0:
            raise ValueError(f"window: expected a width of at least 0, found {self.window}")

    def __call__(
        self, model: nn.Module, batch: Mapping[str, Tensor], see: nn.Module | None = None
    ) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised.

        Args:
            model: an `InterIntra`.
            batch: see `geoframe.data.views.ViewBatches`.
            see: the network of the perceptual loss, see `Perception`.
        """
        first, second = batch["first"], batch["second"]
        order = torch.arange(len(first), device=first.device).roll(1)  # no picture is its own: a derangement
        among = order[: max(1, round(self.auxiliary * len(first)))] if self.auxiliary else None
        painted = model(first, second, among, cycle=self.cycle, shapes=self.shapes)
        times = first.shape[-1] // painted.second.shape[-1]
        true = [shrunk(x, times) for x in (second, first)]
        found, points = (painted.second, painted.first), (painted.second_points, painted.first_points)
        pairs = [
            (counted(a, b, p, self.window), b)
            for a, b, p in list(zip(found, true, points, strict=True))[: 1 + self.cycle]
        ]
        parts = {
            "reconstruction": self.reconstruction * torch.stack([F.mse_loss(a, b) for a, b in pairs]).sum()
        }
        if see is not None and self.perceptual:
            differences = [perceptual_loss(see(a), see(b)) for a, b in pairs]
            parts["perceptual"] = self.perceptual * torch.stack(differences).sum()
        return parts


_NARROWEST = 0.1  # of half a side: those of faces are wider


def counted(painted: Tensor, true: Tensor, points: Tensor, width: float) -> Tensor:
    """Painted pictures as they are near the landmarks, and as they should be far from them.

    Middle and spread are medians: a few landmarks that wander off do not take the window with them. A spread below
    `_NARROWEST`, as of one or two landmarks, counts as that.

    Args:
        painted: (B, 3, H, W).
        true: (B, 3, H, W), as it should be.
        points: (B, K, 2) landmarks, normalised; taken as constant.
        width: of the window, see `Losses.window`; 0 for the painted pictures as they are.
    """
    if not width:
        return painted
    points = points.detach()
    middle = points.median(1, keepdim=True).values
    spread = (points - middle).norm(dim=-1).median(1).values.clamp_min(_NARROWEST)
    away = (pixel_grid(*painted.shape[2:], like=points) - middle[:, None]).norm(dim=-1)
    weight = torch.exp(-0.5 * (away / (width * spread[:, None, None])).square())[:, None]
    return torch.lerp(true, painted, weight)


@dataclass(frozen=True)
class Recipe(Scheduled):
    """One way to train inter-intra landmarks.

    Attributes:
        name: under which models and tables tell of it.
        losses: of a batch.
        views: what a step sees.
        schedule: length of the training and learning rate.
        settings: arguments of the network's constructor.
    """

    name: str
    losses: Losses
    views: ViewPlan
    schedule: Schedule
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_int(self.settings.get("k", 1), "k", low=1)

    def with_k(self, k: int) -> Recipe:
        """The same recipe for another number of landmarks."""
        return replace(self, settings={**self.settings, "k": k})

    def build(self) -> InterIntra:
        """The network."""
        return InterIntra(**self.settings)


_VIEWS = ViewPlan(
    pairs=32,
    size=128,
    zoom=0.8,
    first=WarpRange(rotation=15.0, scale=0.05, shift=0.04),
    second=WarpRange(rotation=30.0, scale=0.05, shift=0.04),
    flip=0.0,
    colour=0.0,
)
PAPER = Recipe(
    name="paper",
    losses=Losses(),
    views=_VIEWS,
    schedule=Schedule(
        steps=2500 * 80, lr=1e-3, decay="step", factor=0.1, every=2500 * 30, weight_decay=0.5, clip=1.0
    ),
    settings={"k": 10},
)
BASELINE = replace(PAPER, name="baseline", losses=Losses(auxiliary=0.0, cycle=False))
OURS = Recipe(
    name="geoframe",
    losses=Losses(
        perception="efficientnet-lite0",
        perceptual=0.05,
        auxiliary=0.5,
        shapes="second",
        cycle=False,
        window=1.5,
    ),
    views=replace(
        _VIEWS,
        pairs=8,
        size=96,
        first=WarpRange(rotation=8.0, scale=0.15, shift=0.06),
        second=WarpRange(rotation=15.0, scale=0.15, shift=0.1, bend=0.005, strong_bend=0.01),
    ),
    schedule=Schedule(
        steps=400,
        lr=1e-3,
        warmup=20,
        decay="cosine",
        weight_decay=0.05,
        clip=1.0,
        lr_factors={"detector": 0.1},
    ),
    settings={"k": 10, "detector": "frame", "width": 16, "sigma": 0.7, "blocks": 2, "reduce": 2},
)
RECIPES = {recipe.name: recipe for recipe in (OURS, PAPER, BASELINE)}
