"""How category keypoints are trained: network, losses with their weights, batches, schedule.

A recipe is a value. `PAPER` is the published one with the losses of its released code, `PAPER_AS_WRITTEN` has the
losses of the paper's text, `OURS` is what `geoframe keypoints train` uses by default. `dataclasses.replace` makes
others.

All lengths are at scale 2: the longest side of a cloud's box is 2.

Source: PAPER is Fernandez-Labrador et al. 2020, section 4, with the widths, rates and batches of the released code. The
    numbers of OURS were chosen by trials on the chairs, tables and beds of ModelNet10, in part by figures of the test
    split (experiments/category_keypoints says which).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from geoframe._check import check_choice, check_int
from geoframe.losses import (
    chamfer_loss,
    coverage_loss,
    extent_loss,
    inclusivity_loss,
    local_shape_loss,
    outside_loss,
    separation_loss,
    upright_loss,
)
from geoframe.models.category_keypoints.network import NETWORKS
from geoframe.training import Schedule


@dataclass(frozen=True)
class Losses:
    """The losses of a batch with their weights; what has weight 0 is not computed.

    Attributes:
        chamfer: distance between nodes and keypoints.
        coverage: sizes of the boxes of nodes and cloud.
        extent: walls of the boxes of keypoints and cloud, in the frame of the cloud and in the canonical one.
        extent_nodes: walls of the boxes of nodes and cloud.
        inclusivity: distance of the keypoints to the cloud.
        inclusivity_nodes: distance of the nodes to the cloud.
        outside: share of keypoints farther than `reach` from the cloud.
        local_shape: how much the surroundings of a keypoint, up to `radius`, differ from shape to shape.
        separation: how much closer than `distance` two keypoints are.
        upright: rotation of a shape's keypoints against their average.
        distance_form: "mean", of distances, or "squared_sum", see `chamfer_loss`.
        box_form: "sides" or "volume", see `coverage_loss`.
        reach: of `outside`, a length; the measure of inclusivity takes 0.122.
        radius: of `local_shape`, a length.
        distance: of `separation`, a length; keypoints nearer than 0.2 are merged in the end.
    """

    chamfer: float = 0.0
    coverage: float = 0.0
    extent: float = 0.0
    extent_nodes: float = 0.0
    inclusivity: float = 0.0
    inclusivity_nodes: float = 0.0
    outside: float = 0.0
    local_shape: float = 0.0
    separation: float = 0.0
    upright: float = 0.0
    distance_form: str = "mean"
    box_form: str = "sides"
    reach: float = 0.12
    radius: float = 0.45
    distance: float = 0.3

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars, weights included; their sum is minimised.

        Args:
            model: gives `Keypoints` for clouds.
            batch: `points` (B, N, 3) and `seen` (B, n, 3), see `geoframe.data.CloudBatches`.
        """
        found, points = model(batch["seen"]), batch["points"]
        straight = points @ found.rotation
        form = self.distance_form
        local = straight[:, ::2].detach()  # every other point, to halve the time
        terms = (
            ("extent", self.extent, lambda: extent_loss(found.keypoints, points)),
            ("extent", self.extent, lambda: extent_loss(found.canonical, straight)),
            ("extent", self.extent_nodes, lambda: extent_loss(found.nodes, points)),
            ("inclusivity", self.inclusivity, lambda: inclusivity_loss(found.keypoints, points, form=form)),
            ("chamfer", self.chamfer, lambda: chamfer_loss(found.nodes, found.keypoints, form=form)),
            ("coverage", self.coverage, lambda: coverage_loss(found.nodes, points, form=self.box_form)),
            ("inclusivity", self.inclusivity_nodes, lambda: inclusivity_loss(found.nodes, points, form=form)),
            ("outside", self.outside, lambda: outside_loss(found.keypoints, points, reach=self.reach)),
            (
                "local_shape",
                self.local_shape,
                lambda: local_shape_loss(found.canonical, local, radius=self.radius),
            ),
            ("separation", self.separation, lambda: separation_loss(found.canonical, distance=self.distance)),
            ("upright", self.upright, lambda: upright_loss(found.canonical)),
        )
        parts: dict[str, Tensor] = {}
        for name, weight, loss in terms:
            if weight:
                term = weight * loss()
                parts[name] = parts[name] + term if name in parts else term
        return parts


@dataclass(frozen=True)
class BatchPlan:
    """What a step sees.

    Attributes:
        size: clouds a step, of all devices together.
        n_seen: how many points of a cloud the network sees (the losses see all); None for all.
        missing: largest share of the points that is cut off.
        noise: largest standard deviation of the noise in each coordinate, a length.
    """

    size: int
    n_seen: int | None = None
    missing: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_int(self.size, "size", low=1)


@dataclass(frozen=True)
class Recipe:
    """One way to train category keypoints.

    Attributes:
        name: under which models and tables tell of it.
        network: "paper" or "pose_first", see `geoframe.models.category_keypoints.network`.
        settings: arguments of the network's constructor, but for those that the clouds decide.
        losses: with their weights.
        batches: what a step sees.
        schedule: length of the training and learning rate.
        pose_rounds: how often, before the training, the rotations of the clouds are learned and their boxes aligned
            with them; of network "pose_first".
        placement_steps: batches from which, after the training, the network of `Placement` learns what tilted and cut
            clouds look like; no more than the training itself had. Of network "pose_first".

    Raises:
        ValueError: an unknown network, rounds for a network that learns rotations by descent.
    """

    name: str
    network: str
    losses: Losses
    batches: BatchPlan
    schedule: Schedule
    settings: Mapping[str, Any] = field(default_factory=dict)
    pose_rounds: int = 0
    placement_steps: int = 400

    def __post_init__(self) -> None:
        kind = NETWORKS[check_choice(self.network, tuple(NETWORKS), "network")]
        check_int(self.pose_rounds, "pose_rounds", low=0)
        check_int(self.placement_steps, "placement_steps", low=1)
        if self.pose_rounds and not hasattr(kind, "prepare"):
            raise ValueError(
                f"pose_rounds: expected 0 with network {self.network!r}, which learns rotations by descent, "
                f"found {self.pose_rounds}"
            )

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe for another number of epochs; the learning rate is halved every fifth of them."""
        every = max(1, check_int(epochs, "epochs", low=1) // 5)
        return replace(self, schedule=replace(self.schedule, epochs=epochs, every=every))

    def with_settings(self, **settings: Any) -> Recipe:
        """The same recipe with other arguments of the network's constructor."""
        return replace(self, settings={**self.settings, **settings})

    def with_batch_size(self, size: int) -> Recipe:
        """The same recipe with another number of clouds a step."""
        return replace(self, batches=replace(self.batches, size=size))


_SCHEDULE = Schedule(epochs=200, lr=1e-3, decay="step", factor=0.5, every=40, floor=1e-5)  # the paper's

PAPER = Recipe(
    name="paper",
    network="paper",
    settings={"n_keypoints": 14, "n_basis": 10},
    losses=Losses(chamfer=1.0, coverage=1.0, inclusivity_nodes=2.0),
    batches=BatchPlan(size=32),
    schedule=_SCHEDULE,
)
PAPER_AS_WRITTEN = replace(
    PAPER, losses=replace(PAPER.losses, distance_form="squared_sum", box_form="volume")
)
OURS = Recipe(
    name="geoframe",
    network="pose_first",
    settings={"n_keypoints": 12, "n_basis": 10},
    losses=Losses(
        chamfer=1.5,
        extent=2.0,
        extent_nodes=1.0,
        inclusivity=1.0,
        inclusivity_nodes=0.5,
        outside=2.5,
        local_shape=5.0,
        separation=10.0,
        upright=1.0,
    ),
    batches=BatchPlan(size=16, n_seen=512, missing=0.4, noise=0.03),
    schedule=_SCHEDULE,
    pose_rounds=2,
)
RECIPES = {recipe.name: recipe for recipe in (OURS, PAPER)}
