"""How object frames are trained: network, group, losses with their weights, views, schedule.

A recipe is a value. `DENSE`, `SYMMETRIC` and `COMPRESSED` are chapters 5, 6 and 7 of the thesis; `OURS` is what
`geoframe frame train` uses by default. `dataclasses.replace` makes others.

Source: Thewlis 2019 (thesis); warps, batches and rates are those of the released code of chapter 7. The numbers of OURS
    were chosen on a third of the people of the training part of a set of faces (experiments/object_frame).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from geoframe._check import check_choice
from geoframe.data.views import ViewPlan, WarpRange
from geoframe.layers.correspondence import rows
from geoframe.layers.groups import Group, named_group
from geoframe.losses.frames import FORMS, equivariance_costs
from geoframe.models.object_frame.network import NETWORKS
from geoframe.training import Schedule, Scheduled
from geoframe.warps import pixel_grid


@dataclass(frozen=True)
class Losses:
    """The loss of a batch of pairs.

    Attributes:
        form: "distance" or "log", see `equivariance_costs`.
        gamma: power of the distance.
        temperature: of the softmax.
        length: embeddings are normalised to it; None leaves them, so that their length tells how sure they are.
        pixels: how many of the second view's, drawn by chance, look for their place; None for all.
        exchange: how probable it is that a step writes the embeddings in those of other pictures.
        exchange_after: steps before the first of these.
        auxiliary: pictures that the embeddings are written in.
        relaxed: the group acts on the object only, and each pair takes the element that suits it best; otherwise
            pictures are mirrored or turned with their embeddings.
    """

    form: str = "distance"
    gamma: float = 0.5
    temperature: float = 1.0
    length: float | None = None
    pixels: int | None = None
    exchange: float = 0.0
    exchange_after: int = 0
    auxiliary: int = 1
    relaxed: bool = False

    def __post_init__(self) -> None:
        check_choice(self.form, FORMS, "form")

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor], group: Group) -> dict[str, Tensor]:
        """Named scalars whose sum is minimised.

        Args:
            model: pictures to embeddings.
            batch: see `geoframe.data.views.ViewBatches`.
            group: of the frame.
        """
        first, truth = batch["first"], batch["truth"].flatten(1, 2)
        element = 0 if self.relaxed or len(group) == 1 else int(torch.randint(len(group), ()))
        if element:  # psi(h x) = rho(h) psi(x)
            first, truth = group.warp(element, len(first)).sample(first), group.move(element, truth)
        field = model(torch.cat([first, batch["second"]]))
        f, s = field.chunk(2)
        if element:
            s = group.act(element, s)
        target, source = rows(f, length=self.length), rows(s, length=self.length)
        auxiliary = None
        if self.exchange and int(batch["step"]) >= self.exchange_after and torch.rand(()) < self.exchange:
            shifts = range(1, 1 + min(self.auxiliary, max(1, len(source) - 1)))
            auxiliary = torch.cat([source.roll(k, 0) for k in shifts], 1)
        valid = batch["valid"].flatten(1)
        if self.pixels is not None and self.pixels < source.shape[1]:
            chosen = torch.randperm(source.shape[1])[: self.pixels]
            source, truth, valid = source[:, chosen], truth[:, chosen], valid[:, chosen]
        places = pixel_grid(*f.shape[2:], like=f).reshape(-1, 2)

        def costs(x: Tensor) -> Tensor:
            return equivariance_costs(
                x,
                target,
                truth,
                places,
                form=self.form,
                gamma=self.gamma,
                temperature=self.temperature,
                auxiliary=auxiliary,
                valid=valid,
            )

        if self.relaxed:
            all_costs = torch.stack([costs(source @ rho.to(source).mT) for rho in group.channels])
            return {"equivariance": all_costs.amin(0).mean()}
        return {"equivariance": costs(source).mean()}


@dataclass(frozen=True)
class Recipe(Scheduled):
    """One way to train an object frame.

    Attributes:
        name: under which models and tables tell of it.
        network: "simple", "dilations" or "field".
        settings: arguments of the network's constructor.
        group: "none", "mirror" or "rotation-N".
        losses: of a batch.
        views: what a step sees.
        schedule: length of the training and learning rate.

    Raises:
        ValueError: an unknown network or group.
    """

    name: str
    network: str
    losses: Losses
    views: ViewPlan
    schedule: Schedule
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: str = "none"

    def __post_init__(self) -> None:
        check_choice(self.network, NETWORKS, "network")
        self.symmetry()

    def symmetry(self) -> Group:
        """The group and its action on the embedding."""
        return named_group(self.group, int(self.settings.get("dim", 3)))


_FIRST = WarpRange(rotation=5.0, scale=0.1, shift=0.1, bend=0.0005, strong_bend=0.005, control=10)
_SECOND = WarpRange(rotation=5.0, scale=0.1, shift=0.1, bend=0.001, strong_bend=0.01, control=10)
_PAPER_VIEWS = ViewPlan(
    pairs=32, size=70, zoom=0.7, first=_FIRST, second=_SECOND, border="zeros", flip=0.0, jpeg=1.0
)
_PAPER_SCHEDULE = Schedule(epochs=100, lr=1e-3, decay="step", factor=0.1, every=70, weight_decay=5e-4)

DENSE = Recipe(
    name="dense",
    network="dilations",
    settings={"dim": 3},
    losses=Losses(),
    views=_PAPER_VIEWS,
    schedule=_PAPER_SCHEDULE,
)
SYMMETRIC = replace(DENSE, name="symmetric", group="mirror")
COMPRESSED = replace(DENSE, name="compressed", settings={"dim": 64}, losses=Losses(exchange=1.0))
OURS = Recipe(
    name="geoframe",
    network="field",
    settings={"dim": 32},
    group="mirror",
    losses=Losses(temperature=0.05, length=1.0, pixels=256),
    views=ViewPlan(
        pairs=12,
        size=96,
        zoom=0.8,
        first=WarpRange(rotation=8.0, scale=0.2, shift=0.06),
        second=WarpRange(rotation=15.0, scale=0.2, shift=0.1, bend=0.01, strong_bend=0.02),
    ),
    schedule=Schedule(steps=800, lr=1e-3, warmup=50, decay="cosine", weight_decay=0.1, floor=1e-5),
)
RECIPES = {recipe.name: recipe for recipe in (OURS, DENSE, SYMMETRIC, COMPRESSED)}
