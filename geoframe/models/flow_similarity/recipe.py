"""How features are learned from motion: loss, sampled pixels, changes of colour, schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from geoframe._check import check_choice, check_int
from geoframe.losses.flow import flow_similarity_loss
from geoframe.training import Schedule

FORMS = ("ce", "ce-rev", "kta")


@dataclass(frozen=True)
class Losses:
    """The loss of a step.

    Attributes:
        form: see `geoframe.losses.flow.flow_similarity_loss`.
    """

    form: str = "ce"

    def __post_init__(self) -> None:
        check_choice(self.form, FORMS, "form")

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch with image (B, 3, H, W), points (B, N, 2) and normalised flow (B, N, 2)."""
        plain: Any = getattr(model, "module", model)
        features = model(batch["image"], batch["points"])
        variance = plain.log_variance.exp()
        return {self.form: flow_similarity_loss(features, batch["flow"], form=self.form, variance=variance)}


@dataclass(frozen=True)
class Recipe:
    """All that a training run is made of.

    Attributes:
        name: for the log.
        settings: arguments of `FlowFeatures`.
        losses: the loss.
        batch_size: images a step.
        n_points: pixels sampled of each.
        crop: side of the square that is cut out of each frame, pixels.
        residual: whether the motion of most pixels, an affine one, is subtracted from the flow before.
        schedule: length and learning rate.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)
    batch_size: int = 16
    n_points: int = 256
    crop: int = 128
    residual: bool = False
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=1000, lr=1e-3, decay="cosine"))

    def __post_init__(self) -> None:
        check_int(self.batch_size, "batch_size", low=1)
        check_int(self.n_points, "n_points", low=2)
        check_int(self.crop, "crop", low=32)

    def with_steps(self, steps: int) -> Recipe:
        """The same recipe for another number of steps."""
        return replace(self, schedule=replace(self.schedule, steps=check_int(steps, "steps", low=1)))

    def with_form(self, form: str) -> Recipe:
        """The same recipe with another loss."""
        return replace(self, losses=Losses(form))


PAPER = Recipe(
    name="paper",
    batch_size=96,
    n_points=512,
    crop=224,
    schedule=Schedule(steps=20_000, lr=1e-4, decay="none"),
)
OURS = Recipe(
    name="geoframe",
    losses=Losses("kta"),
    batch_size=8,
    crop=96,
    residual=True,
    schedule=Schedule(steps=1000, lr=2e-3, warmup=20, decay="cosine"),
)
RECIPES = {recipe.name: recipe for recipe in (OURS, PAPER)}
