"""How deep matching is trained: descriptors, window, losses of the levels, schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from geoframe._check import check_choice, check_int
from geoframe.losses.flow import (
    displacement_cross_entropy,
    displacement_in_samples,
    structured_hinge_loss,
)
from geoframe.training import Schedule

LEARNED = ("exponents", "features")


@dataclass(frozen=True)
class Losses:
    """Weights of the losses at the levels of the pyramid.

    Attributes:
        up: weight by level l of the loss of S_l.
        down: of the loss of Q_l.
        form: "hinge", the paper's structured hinge loss, or "cross-entropy" of the displacements.
        alpha: the largest margin of the hinge loss.
        sigma: how fast that margin grows, or the width of the bump around the true place; samples.
        temperature: that scores are divided by in the cross entropy.
    """

    up: Mapping[int, float] = field(default_factory=dict)
    down: Mapping[int, float] = field(default_factory=lambda: {0: 1.0})
    form: str = "hinge"
    alpha: float = 1.0
    sigma: float = 1.0
    temperature: float = 0.1

    def __post_init__(self) -> None:
        check_choice(self.form, ("hinge", "cross-entropy"), "form")

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weighted losses by name of a batch with image0, image1 (B, 3, H, W) and flow (B, 2, H, W)."""
        pyramid = model(batch["image0"], batch["image1"])
        plain: Any = getattr(model, "module", model)
        found = {}
        for name, maps, weights in (("S", pyramid.up, self.up), ("Q", pyramid.down, self.down)):
            for level, weight in weights.items():
                if level >= len(maps):
                    continue
                size = (maps[level].shape[1], maps[level].shape[2])
                truth = displacement_in_samples(
                    batch["flow"], level, size, stride=plain.stride, step=plain.step
                )
                found[f"{name}_{level}"] = weight * self._of(maps[level], truth)
        return found

    def _of(self, scores: Tensor, truth: Tensor) -> Tensor:
        if self.form == "hinge":
            return structured_hinge_loss(scores, truth, alpha=self.alpha, sigma=self.sigma)
        return displacement_cross_entropy(scores, truth, temperature=self.temperature, sigma=self.sigma)


@dataclass(frozen=True)
class Recipe:
    """All that a training run is made of.

    Attributes:
        name: for the log.
        settings: arguments of `DeepMatcher`.
        learned: what is learned: "exponents", "features" or both.
        losses: weights of the levels.
        batch_size: pairs of images a step.
        schedule: length and learning rate.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    learned: tuple[str, ...] = LEARNED
    losses: Losses = field(default_factory=Losses)
    batch_size: int = 1
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=2000, lr=1e-3, decay="cosine"))

    def __post_init__(self) -> None:
        check_int(self.batch_size, "batch_size", low=1)
        if not self.learned or not set(self.learned) <= set(LEARNED):
            raise ValueError(f"learned: expected some of {', '.join(LEARNED)}, found {self.learned}")

    def with_steps(self, steps: int) -> Recipe:
        """The same recipe for another number of steps."""
        return replace(self, schedule=replace(self.schedule, steps=check_int(steps, "steps", low=1)))

    def with_settings(self, **settings: Any) -> Recipe:
        """The same recipe with other arguments of the network's constructor."""
        return replace(self, settings={**self.settings, **settings})


PAPER = Recipe(
    name="paper",
    settings={"descriptor": "small", "radius": 80, "step": 1, "levels": 6, "exponent": 1.4},
    losses=Losses(down={0: 1.0}),
)
OURS = Recipe(
    name="geoframe",
    settings={"descriptor": "small", "size": 2, "spacing": 4, "radius": 24, "levels": 4, "exponent": 1.4},
    losses=Losses(up={1: 0.3, 2: 0.3, 3: 0.3}, down={0: 1.0}, form="cross-entropy", sigma=0.7),
    schedule=Schedule(steps=2000, lr=2e-3, decay="cosine", lr_factors={"exponents": 3.0}),
)
EXPONENTS = replace(
    OURS.with_settings(descriptor="gradients", size=4, spacing=2), name="exponents", learned=("exponents",)
)
FEATURES = replace(OURS, name="features", learned=("features",))
RECIPES = {recipe.name: recipe for recipe in (OURS, PAPER, EXPONENTS, FEATURES)}
