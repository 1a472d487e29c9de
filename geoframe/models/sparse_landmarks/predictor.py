"""Train sparse landmarks, keep them, use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._random import seeded
from geoframe.data.face_files import LandmarkSet
from geoframe.heads.points import stable_directions
from geoframe.heads.trained import PointPredictor, about_run, learn, training_squares, view_batches
from geoframe.models import object_frame
from geoframe.models.sparse_landmarks.network import NETWORKS, FrameLandmarks
from geoframe.models.sparse_landmarks.recipe import OURS, Recipe

KIND = "sparse landmarks"
_BATCH = 32
_SEEN = 300  # pictures whose embeddings the landmarks are chosen by


class Predictor(PointPredictor):
    """Trained sparse landmarks; see `PointPredictor`."""

    kind = KIND

    @staticmethod
    def build(about: Mapping[str, Any]) -> nn.Module:
        """The network that `about` tells of."""
        return NETWORKS[about["network"]](**about["settings"])

    def points(self, views: Tensor) -> Tensor:
        """The landmarks (B, K, 2) of views (B, 3, s, s) in [0, 1]."""
        found: Tensor = self.model(views).points
        return found


def load(folder: str | Path) -> Predictor:
    """The sparse landmarks that `train` or `Predictor.save` left in a folder.

    Raises:
        ValueError: no model there, or one of another kind.
    """
    return Predictor.load(folder)


def train(
    images: LandmarkSet | Tensor,
    *,
    out: str | Path,
    recipe: Recipe = OURS,
    frame: object_frame.Predictor | object_frame.Recipe | None = None,
    crop: str = "whole",
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    progress: Callable[[str, float], None] | None = None,
    on_bad_file: Callable[[str], None] | None = None,
) -> Predictor:
    """Learn K landmarks from pictures of a category, without labels.

    Args:
        images: pictures, whose landmarks are not looked at, or squares (n, 3, S, S) uint8.
        out: folder for the model, its log and the state to go on from; the object frame, if one is trained, lies in
            its folder "frame".
        recipe: `OURS`, `PAPER`, `SHIFTED` or a changed one.
        frame: of network "frame", the object frame to start from, or the recipe to train one by; ours by default.
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
        ValueError: fewer pictures than two, a folder with a run of other pictures or of another recipe.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe: expected a Recipe such as OURS or PAPER, found {type(recipe).__name__}")
    images = training_squares(images, crop, on_bad_file)
    common: dict[str, Any] = {"accelerator": accelerator, "devices": devices, "progress": progress}
    if recipe.network == "frame":
        if not isinstance(frame, object_frame.Predictor):
            plan = frame or object_frame.OURS
            frame = object_frame.train(
                images, out=Path(out) / "frame", recipe=plan, crop=crop, seed=seed, **common
            )
        model, recipe = _from_frame(frame, images, recipe, seed)
    else:
        with seeded(seed):
            model = NETWORKS[recipe.network](**recipe.settings)
    return learn(
        Predictor,
        model,
        view_batches(images, recipe, model, seed),
        recipe.losses,
        recipe,
        about_run(recipe, model, images, crop=crop, seed=seed, network=recipe.network),
        out=out,
        **common,
    )


@torch.no_grad()
def _from_frame(
    frame: object_frame.Predictor, images: Tensor, recipe: Recipe, seed: int
) -> tuple[nn.Module, Recipe]:
    """The network whose directions are the best clusters of a frame, and the recipe with the frame's sizes.

    Raises:
        ValueError: a frame of another network than "field".
    """
    if frame.about["network"] != "field":
        raise ValueError(
            f"frame: expected one of network 'field', found {frame.about['network']!r}; train recipe geoframe"
        )
    settings = {**frame.about["settings"], **recipe.settings}
    with seeded(seed):
        model = FrameLandmarks(**settings)
    model.head.load_state_dict(frame.model.head.state_dict())  # type: ignore[union-attr]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    fields = torch.cat([frame.embed(part).half() for part in images[order[:_SEEN]].split(_BATCH)])
    model.directions.copy_(
        F.normalize(
            stable_directions(fields, int(settings["k"]), sharpness=model.sharpness, seed=seed), dim=1
        )
    )
    return model, replace(recipe, settings=settings)
