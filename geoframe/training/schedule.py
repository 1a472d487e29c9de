"""How long and how fast a model learns: the length of a run, its learning rate, its groups of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from torch import nn

from geoframe._check import check_choice, check_int

DECAYS = ("step", "cosine", "none")


@dataclass(frozen=True)
class Schedule:
    """Length of a run and its learning rate; the optimiser is AdamW.

    The length is given in epochs or in steps, in minutes, or in both: then what is reached first ends the run.
    A run measured in epochs changes its rate between epochs, one measured in steps between steps. With a budget in
    minutes the rate is a function of the time spent as well: the share of the run that is done is the larger of
    the shares of its count and of its minutes, so the rate comes down in time on a slow machine, too. Such a run is
    no longer a function of the seed alone.

    Attributes:
        epochs: passes over the batches; None for a run measured in steps or minutes.
        steps: batches learned from, over all epochs; None for a run measured in epochs or minutes.
        minutes: budget of wall time, over all parts of a run that was interrupted. It includes pictures and
            checkpoints, and is exceeded by at most one step.
        lr: the learning rate, before warm-up, decay and the factors of `lr_factors`.
        warmup: steps over which the rate rises linearly to its value; it multiplies the decay.
        decay: "step", multiplied by `factor` every `every`; "cosine", half a period down to `floor` at the end of
            the run; or "none".
        factor: in (0, 1], of "step".
        every: of "step", in epochs or, for a run measured in steps, in steps.
        floor: the decay does not go below this rate (nor above `lr`).
        weight_decay: of AdamW, per unit of learning rate; of weights only: parameters with fewer than two
            dimensions (biases, norms) have none.
        lr_factors: by name of a module or parameter ("backbone", "heads.mask"), the factor of its learning rate; the
            longest name that fits counts, and 0 leaves a part as it is.
        clip: largest norm of the gradient of all parameters together; longer ones are scaled down to it. None for
            no limit.

    Raises:
        TypeError: counts that are not integers.
        ValueError: no length, epochs and steps at once, "step" without a count, numbers out of range.
    """

    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    lr: float = 1e-3
    warmup: int = 0
    decay: str = "step"
    factor: float = 0.5
    every: int = 40
    floor: float = 1e-5
    weight_decay: float = 0.0
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.epochs is None and self.steps is None and self.minutes is None:
            raise ValueError("schedule: expected epochs, steps or minutes, found none of them")
        if self.epochs is not None and self.steps is not None:
            raise ValueError(
                f"schedule: expected epochs or steps, found both ({self.epochs} and {self.steps}); leave one out"
            )
        for name in ("epochs", "steps"):
            if (count := getattr(self, name)) is not None:
                check_int(count, name, low=1)
        check_int(self.warmup, "warmup", low=0)
        check_int(self.every, "every", low=1)
        check_choice(self.decay, DECAYS, "decay")
        if not self.lr > 0 or not 0 < self.factor <= 1 or not self.floor >= 0:
            raise ValueError(
                f"lr, factor, floor: expected lr > 0, factor in (0, 1] and floor >= 0, found {self.lr}, "
                f"{self.factor} and {self.floor}"
            )
        if not self.weight_decay >= 0 or not all(f >= 0 for f in self.lr_factors.values()):
            raise ValueError(
                f"weight_decay, lr_factors: expected numbers of at least 0, found {self.weight_decay} and "
                f"{dict(self.lr_factors)}"
            )
        for name in ("minutes", "clip"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name}: expected a positive number, found {value}")
        if self.decay == "step" and self.epochs is None and self.steps is None:
            raise ValueError(
                "decay: expected 'cosine' or 'none' with minutes alone, found 'step', which counts epochs or steps"
            )

    def lasting(self, *, steps: int | None = None, minutes: float | None = None) -> Schedule:
        """The same schedule of another length; without steps a rate that falls in steps falls by a cosine instead.

        Args:
            steps: batches learned from; None for no count.
            minutes: budget of wall time; None for no limit.
        """
        decay = "cosine" if steps is None and self.decay == "step" else self.decay
        return replace(self, epochs=None, steps=steps, minutes=minutes, decay=decay)

    def share(self, epoch: int, step: int, seconds: float) -> float:
        """Share of the run that is done, from 0; 1 and more where it is over.

        Args:
            epoch: epochs done.
            step: steps done, over all epochs.
            seconds: wall time spent on the run so far.
        """
        counts = [done / whole for done, whole in ((epoch, self.epochs), (step, self.steps)) if whole]
        return max(*counts, 0.0, self._spent(seconds))

    def rate(self, epoch: int, step: int = 0, seconds: float = 0.0) -> float:
        """Learning rate of a step.

        Args:
            epoch: of the step, counted from 0.
            step: counted from 0 over all epochs.
            seconds: wall time spent on the run before it.
        """
        low = min(self.floor, self.lr)
        rate = self.lr
        if self.decay == "cosine":
            turn = math.cos(math.pi * min(self.share(epoch, step, seconds), 1.0))
            rate = low + (self.lr - low) * (1 + turn) / 2
        elif self.decay == "step":
            done = epoch if self.steps is None else step
            done = max(done, int(self._spent(seconds) * (self.epochs or self.steps or 0)))
            rate = max(self.lr * self.factor ** (done // self.every), low)
        return rate * min(1.0, (step + 1) / self.warmup) if self.warmup else rate

    def identity(self) -> dict[str, Any]:
        """What has to agree for a run to go on.

        The length may change, but for that in epochs or steps of a cosine, whose rates depend on it.
        """
        said = asdict(self)
        free = ("minutes",) if self.decay == "cosine" else ("epochs", "steps", "minutes")
        return {k: v for k, v in said.items() if k not in free}

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameters of a model as AdamW takes them: those of one factor and weight decay together.

        Each group has `factor`, which multiplies the learning rate. Parameters of factor 0 and those that need no
        gradient are in none.

        Raises:
            ValueError: a name in `lr_factors` that no parameter has, nothing left to learn.
        """
        used: set[str] = set()
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            fitting = [p for p in self.lr_factors if name == p or name.startswith(f"{p}.")]
            used |= set(fitting)
            factor = self.lr_factors[max(fitting, key=len)] if fitting else 1.0
            if factor == 0 or not parameter.requires_grad:
                continue
            decay = self.weight_decay if parameter.ndim >= 2 else 0.0
            group = groups.setdefault(
                (factor, decay), {"factor": factor, "weight_decay": decay, "params": []}
            )
            group["params"].append(parameter)
        if unknown := sorted(set(self.lr_factors) - used):
            parts = ", ".join(name for name, _ in model.named_children()) or "none"
            raise ValueError(
                f"lr_factors: expected names of modules or parameters (here {parts}), found {', '.join(unknown)}"
            )
        if not groups:
            raise ValueError(
                "model: expected parameters to learn, found none; see requires_grad and lr_factors"
            )
        return list(groups.values())

    def _spent(self, seconds: float) -> float:
        """Share of the budget that is spent; 0 without one."""
        return 0.0 if self.minutes is None else seconds / (60 * self.minutes)


class Scheduled:
    """What recipes, frozen dataclasses with a schedule, have in common: the same one of another length."""

    schedule: Schedule

    def with_steps(self, steps: int) -> Self:
        """The same recipe with a number of steps."""
        return replace(self, schedule=self.schedule.lasting(steps=steps))  # type: ignore[type-var]

    def with_minutes(self, minutes: float) -> Self:
        """The same recipe with a budget of time."""
        return replace(self, schedule=self.schedule.lasting(minutes=minutes))  # type: ignore[type-var]
