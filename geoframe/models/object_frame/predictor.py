"""Train an object frame, keep it, use it: embeddings, matches between pictures, landmarks from a few annotated ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._random import seeded
from geoframe._types import Array
from geoframe.data.face_files import LandmarkSet
from geoframe.data.views import FlowBatches, ViewBatches
from geoframe.heads.points import Look
from geoframe.heads.trained import LandmarkPredictor, about_run, learn, training_squares, view_batches
from geoframe.layers.correspondence import rows, soft_match
from geoframe.layers.groups import Group, named_group
from geoframe.models.object_frame.network import build, principal_colours
from geoframe.models.object_frame.recipe import OURS, Recipe
from geoframe.warps import pixel_grid

KIND = "object frame"
_BATCH = 32
_MATCH_TEMPERATURE = 0.02  # of cosines


class Predictor(LandmarkPredictor):
    """A trained object frame; see `LandmarkPredictor` for its landmarks."""

    kind = KIND

    @staticmethod
    def build(about: Mapping[str, Any]) -> nn.Module:
        """The network that `about` tells of."""
        return build(about["network"], about["settings"])

    @property
    def group(self) -> Group:
        """Of the frame."""
        return named_group(self.about["group"], int(self.about["settings"]["dim"]))

    @torch.no_grad()
    def look(self, views: Tensor) -> Look:
        """What a regressor sees of views (B, 3, s, s) in [0, 1]."""
        return Look(self.model(views), None)

    @torch.no_grad()
    def embed(self, images: Tensor, *, size: int | None = None) -> Tensor:
        """Embeddings of pictures.

        Args:
            images: (n, 3, S, S) uint8, or floating in [0, 1].
            size: side at which the network sees them; by default that of whole pictures.

        Returns:
            (n, D, h, w), h and w being that side over the network's stride.
        """
        return torch.cat([self.model(self.views(part, size)) for part in images.split(_BATCH)])

    def colours(self, images: Tensor) -> Array:
        """The frame of squares (n, 3, S, S) as pictures (n, S, S, 3) uint8: one colour, one place of the object."""
        colours, _ = principal_colours(self.embed(images))
        side = images.shape[-1]
        big = F.interpolate(colours, size=(side, side), mode="bilinear", align_corners=False)
        return np.ascontiguousarray((big * 255).round().to(torch.uint8).movedim(1, -1).numpy())

    def match(self, source: Tensor, target: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where points of pictures lie in other pictures, by their embeddings alone.

        Args:
            source: (n, 3, S, S) pictures.
            target: (n, 3, S, S) pictures.
            points: (n, P, 2) in the sources, normalised coordinates.

        Returns:
            points: (n, P, 2) in the targets.
            confidence: (n, P), how much of the soft match lies in one place; not calibrated.
        """
        f, g = self.embed(source), self.embed(target)
        return match_descriptors(describe(f, points), g)

    @torch.no_grad()
    def warp_onto(self, source: Tensor, target: Tensor) -> Tensor:
        """Pictures seen in the shape of others: each pixel of the target takes the colour of its match in the source.

        Args:
            source: (n, 3, S, S) pictures, whose colours are taken.
            target: (n, 3, S, S) pictures, whose shape is taken.

        Returns:
            (n, 3, S, S) in [0, 1].
        """
        f, g = self.embed(source), self.embed(target)
        side = f.shape[-1]
        places = pixel_grid(side, side, like=f).reshape(-1, 2)
        unit = rows(g, length=1.0), rows(f, length=1.0)
        grid = soft_match(*unit, places, temperature=_MATCH_TEMPERATURE)[0].mT.unflatten(2, (side, side))
        grid = F.interpolate(grid, size=target.shape[-2:], mode="bilinear", align_corners=False).movedim(
            1, -1
        )
        return F.grid_sample(self.views(source, source.shape[-1]), grid, align_corners=False)


def load(folder: str | Path) -> Predictor:
    """The object frame that `train` or `Predictor.save` left in a folder.

    Raises:
        ValueError: no model there, or one of another kind.
    """
    return Predictor.load(folder)


def train(
    images: LandmarkSet | Tensor | FlowBatches,
    *,
    out: str | Path,
    recipe: Recipe = OURS,
    crop: str = "whole",
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    progress: Callable[[str, float], None] | None = None,
    on_bad_file: Callable[[str], None] | None = None,
) -> Predictor:
    """Learn an object frame from pictures of a category, without labels.

    Args:
        images: pictures; their landmarks, if they have any, are not looked at. Or squares (n, 3, S, S) uint8. Or
            pairs of frames with their flow.
        out: folder for the model, its log and the state to go on from.
        recipe: `OURS`, `DENSE`, `SYMMETRIC`, `COMPRESSED` or a changed one.
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
        raise TypeError(f"recipe: expected a Recipe such as OURS or DENSE, found {type(recipe).__name__}")
    with seeded(seed):
        model = build(recipe.network, dict(recipe.settings))
    more: dict[str, Any] = {"network": recipe.network, "group": recipe.group}
    if isinstance(images, FlowBatches):
        batches: FlowBatches | ViewBatches = images
        squares, side = images.first, images.first.shape[-1]
        more |= {"size": side, "whole_size": side}
    else:
        squares = training_squares(images, crop, on_bad_file)
        batches = view_batches(squares, recipe, model, seed)
    return learn(
        Predictor,
        model,
        batches,
        partial(recipe.losses, group=recipe.symmetry()),
        recipe,
        about_run(recipe, model, squares, crop=crop, seed=seed, **more),
        out=out,
        accelerator=accelerator,
        devices=devices,
        progress=progress,
    )


def describe(field: Tensor, points: Tensor) -> Tensor:
    """Unit embeddings (n, P, D) of a field (n, D, h, w) at points (n, P, 2), bilinear; normalised coordinates."""
    unit = F.normalize(field, dim=1)
    found = F.grid_sample(unit, points[:, :, None].to(unit), padding_mode="border", align_corners=False)
    return F.normalize(found[..., 0].mT, dim=-1)


def match_descriptors(descriptors: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
    """Where descriptors (n, P, D) are found in fields (n, D, h, w): points (n, P, 2), normalised, and (n, P)."""
    places = pixel_grid(*field.shape[2:], like=field).reshape(-1, 2)
    return soft_match(descriptors, rows(field, length=1.0), places, temperature=_MATCH_TEMPERATURE)


def few_shot_points(descriptors: Tensor, fields: Tensor) -> Tensor:
    """Landmarks without a regressor: the mean descriptor of each over a few annotated pictures, matched.

    Args:
        descriptors: (m, L, D) of the annotated pictures.
        fields: (n, D, h, w).

    Returns:
        (n, L, 2) normalised.
    """
    mean = F.normalize(descriptors.mean(0), dim=-1)
    return match_descriptors(mean.expand(len(fields), -1, -1), fields)[0]
