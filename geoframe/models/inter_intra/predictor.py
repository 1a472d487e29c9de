"""Train inter-intra landmarks, keep them, use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geoframe._random import seeded
from geoframe.data.face_files import LandmarkSet
from geoframe.heads.trained import PointPredictor, about_run, learn, training_squares, view_batches
from geoframe.models import sparse_landmarks
from geoframe.models.inter_intra.network import InterIntra, Painted, Perception
from geoframe.models.inter_intra.recipe import OURS, Recipe

KIND = "inter-intra landmarks"


class Predictor(PointPredictor):
    """Trained inter-intra landmarks; see `PointPredictor`."""

    kind = KIND
    model: InterIntra

    @staticmethod
    def build(about: Mapping[str, Any]) -> nn.Module:
        """The network that `about` tells of."""
        return InterIntra(**about["settings"])

    def points(self, views: Tensor) -> Tensor:
        """The landmarks (B, K, 2) of views (B, 3, s, s) in [0, 1]."""
        return self.model.points(views)

    @torch.no_grad()
    def paint(self, looks: Tensor, shape: Tensor) -> Tensor:
        """Pictures with the looks of some and the landmarks of others.

        Args:
            looks: (n, 3, S, S) squares.
            shape: (n, 3, S, S) squares.

        Returns:
            (n, 3, s, s) in [0, 1], s being the size of what is painted in training.
        """
        a, b = (self.views(x, self.sizes[1]) for x in (looks, shape))
        found: Painted = self.model(a, b, None, cycle=False)
        return found.second


def load(folder: str | Path) -> Predictor:
    """The landmarks that `train` or `Predictor.save` left in a folder.

    Raises:
        ValueError: no model there, or one of another kind.
    """
    return Predictor.load(folder)


def train(
    images: LandmarkSet | Tensor,
    *,
    out: str | Path,
    recipe: Recipe = OURS,
    start: sparse_landmarks.Predictor | None = None,
    crop: str = "whole",
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    progress: Callable[[str, float], None] | None = None,
    on_bad_file: Callable[[str], None] | None = None,
) -> Predictor:
    """Learn K landmarks from pictures of a category by painting one from another, without labels.

    Args:
        images: pictures, whose landmarks are not looked at, or squares (n, 3, S, S) uint8.
        out: folder for the model, its log and the state to go on from; the sparse landmarks that detector "frame"
            starts from lie in its folder "sparse", if they are trained here.
        recipe: `OURS`, `PAPER`, `BASELINE` or a changed one.
        start: of detector "frame", sparse landmarks of network "frame" with as many landmarks.
        crop: how pictures become squares, see `LandmarkSet.squares`.
        seed: of everything random.
        accelerator: see `geoframe.training.fit`.
        devices: see `geoframe.training.fit`.
        progress: called with (text, share done) after every step.
        on_bad_file: called with a line about each picture that cannot be read, which is left out.

    Returns:
        The predictor, which is also in `out`.

    Raises:
        TypeError: a recipe that is no `Recipe`.
        ValueError: fewer pictures than two, sparse landmarks of another number, a folder with another run.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe: expected a Recipe such as OURS or PAPER, found {type(recipe).__name__}")
    images = training_squares(images, crop, on_bad_file)
    common: dict[str, Any] = {"accelerator": accelerator, "devices": devices, "progress": progress}
    if recipe.settings.get("detector") == "frame":
        k = int(recipe.settings.get("k", 10))
        if start is None:
            plan = sparse_landmarks.OURS.with_k(k)
            start = sparse_landmarks.train(
                images, out=Path(out) / "sparse", recipe=plan, crop=crop, seed=seed, **common
            )
        if start.about["network"] != "frame" or start.about["settings"]["k"] != k:
            raise ValueError(
                f"start: expected {k} landmarks of network 'frame', found {start.about['settings']['k']} of "
                f"{start.about['network']!r}"
            )
        recipe = replace(recipe, settings={**recipe.settings, "frame": dict(start.about["settings"])})
    with seeded(seed):
        model = recipe.build()
    if start is not None:
        model.detector.load_state_dict(start.model.state_dict())
    losses = recipe.losses
    see = Perception(losses.perception) if losses.perception != "none" and losses.perceptual else None
    sizes = {} if start is None else {n: start.about[n] for n in ("size", "whole_size")}
    return learn(
        Predictor,
        model,
        view_batches(images, recipe, model, seed),
        partial(losses, see=see),
        recipe,
        about_run(recipe, model, images, crop=crop, seed=seed, **sizes),
        out=out,
        **common,
    )
