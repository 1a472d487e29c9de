"""Train an object frame, keep it, use it: embeddings, matches between pictures, landmarks from a few annotated ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._cache import cache_key
from geoframe._check import check_shape
from geoframe._files import atomic_path
from geoframe._types import Array
from geoframe.data.face_files import LandmarkSet, Squares
from geoframe.data.views import FlowBatches, ViewBatches
from geoframe.heads.landmarks import LandmarkRegressor, Landmarks, Look, fit_regressor
from geoframe.layers.correspondence import rows, soft_match
from geoframe.layers.groups import Group, named_group
from geoframe.models.object_frame.network import build, principal_colours
from geoframe.models.object_frame.recipe import OURS, Recipe
from geoframe.training import fit, load_model, save_model
from geoframe.warps import pixel_grid, to_pixels

KIND = "object frame"
REGRESSOR = "regressor.safetensors"
SOURCE_SIZE = 128  # side of the squares that pictures are kept in; crops are cut from them
_BATCH = 32
_SURE = 0.5  # below: a warning
_MATCH_TEMPERATURE = 0.02  # of cosines


class Found(NamedTuple):
    """Landmarks of images.

    Attributes:
        points: (n, L, 2) in pixels of the images.
        confidence: (n,) in [0, 1], see `geoframe.heads.landmarks.Landmarks`.
        names: of the images.
        warnings: one line for each image that the confidence is low for.
    """

    points: Tensor
    confidence: Tensor
    names: tuple[str, ...]
    warnings: tuple[str, ...]


class Predictor:
    """A trained object frame.

    Attributes:
        model: pictures to embeddings; frozen.
        group: of the frame.
        about: how it was trained; `crop` tells how pictures were cut.
        regressor: to given landmarks; None before `with_landmarks`.
    """

    def __init__(
        self, model: nn.Module, group: Group, about: dict[str, Any], regressor: LandmarkRegressor | None = None
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.group, self.about, self.regressor = group, about, regressor

    @property
    def sizes(self) -> tuple[int, int]:
        """Sides in pixels of a view of the whole picture and of a crop."""
        return int(self.about["whole_size"]), int(self.about["size"])

    @property
    def can_predict(self) -> bool:
        """Whether there are landmarks to predict."""
        return self.regressor is not None

    def colours(self, images: Tensor) -> Array:
        """The frame of squares (n, 3, S, S) as pictures (n, S, S, 3) uint8: one colour, one place of the object."""
        colours, _ = principal_colours(self.embed(images))
        side = images.shape[-1]
        big = F.interpolate(colours, size=(side, side), mode="bilinear", align_corners=False)
        return np.ascontiguousarray((big * 255).round().to(torch.uint8).movedim(1, -1).numpy())

    def squares(
        self, images: LandmarkSet, *, on_bad_file: Callable[[str], None] | None = None
    ) -> tuple[LandmarkSet, Squares]:
        """Images as the squares that all else here takes; see `LandmarkSet.squares`."""
        return images.squares(int(self.about["source_size"]), crop=self.about["crop"], on_bad_file=on_bad_file)

    @torch.no_grad()
    def embed(self, images: Tensor, *, size: int | None = None) -> Tensor:
        """Embeddings of pictures.

        Args:
            images: (n, 3, S, S) uint8, or floating in [0, 1].
            size: side at which the network sees them; by default that of whole pictures.

        Returns:
            (n, D, h, w), h and w being that side over the network's stride.
        """
        check_shape(images, "N 3 S S", "images")
        out = []
        for part in images.split(_BATCH):
            x = part if part.is_floating_point() else part.float() / 255
            s = size or self.sizes[0]
            if x.shape[-1] != s:
                x = F.interpolate(x, size=(s, s), mode="bilinear", align_corners=False, antialias=True)
            out.append(self.model(x))
        return torch.cat(out)

    @torch.no_grad()
    def look(self, views: Tensor) -> Look:
        """What a regressor sees of views (B, 3, s, s) in [0, 1]."""
        return Look(self.model(views), None)

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

    def with_landmarks(
        self,
        images: Tensor,
        points: Tensor,
        *,
        method: str = "cascade",
        groups: Tensor | None = None,
        unlabelled: Tensor | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Predictor:
        """The same frame with a regressor to given landmarks; see `fit_regressor`.

        Args:
            images: (n, 3, S, S) uint8 annotated squares.
            points: (n, L, 2) their landmarks, normalised; images with an unknown one are left out.
            method: "cascade" or "linear".
            groups: (n,) pictures of one person or thing.
            unlabelled: (m, 3, S, S) more squares.
            seed: of everything random.
            **options: `copies`, `mirror`.
        """
        known = torch.isfinite(points).all(-1).all(-1)
        if not bool(known.any()):
            raise ValueError("points: expected at least one image with all its landmarks, found none")
        regressor = fit_regressor(
            self.look,
            images[known],
            points[known],
            size=self.sizes,
            method=method,
            groups=None if groups is None else groups[known],
            unlabelled=unlabelled,
            seed=seed,
            **options,
        )
        return Predictor(self.model, self.group, self.about, regressor)

    def landmarks(self, images: Tensor) -> Landmarks:
        """Landmarks of squares (n, 3, S, S), in normalised coordinates of these.

        Raises:
            ValueError: a frame that has no regressor yet.
        """
        if self.regressor is None:
            raise ValueError("model: expected one with landmarks, found none; annotate images, see with_landmarks")
        return self.regressor(self.look, images)

    def predict(self, images: LandmarkSet, *, on_bad_file: Callable[[str], None] | None = None) -> Found:
        """Landmarks of images, in their own pixels.

        Args:
            images: to look at; their own landmarks, if any, are not used, unless the model crops by them.
            on_bad_file: called with a line about each image that cannot be read, which is left out.
        """
        kept, squares = self.squares(images, on_bad_file=on_bad_file)
        found = self.landmarks(squares.images)
        side = squares.images.shape[-1]
        points = [
            c.to_image(to_pixels(p, side, side)) for c, p in zip(squares.crops, found.points, strict=True)
        ]
        doubtful = (
            f"{name}: landmarks are doubtful, confidence {c:.2f}"
            for name, c in zip(kept.names, found.confidence.tolist(), strict=True)
            if c < _SURE
        )
        return Found(torch.stack(points), found.confidence, kept.names, tuple(doubtful))

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors, model.json and, if there are landmarks, regressor.safetensors."""
        from safetensors.torch import save

        folder = Path(folder)
        save_model(folder, self.model, self.about, kind=KIND)
        if self.regressor is not None:
            with atomic_path(folder / REGRESSOR) as temporary:
                temporary.write_bytes(save(self.regressor.tensors()))


def load(folder: str | Path) -> Predictor:
    """The object frame that `train` or `Predictor.save` left in a folder.

    Raises:
        ValueError: no model there, or one of another kind.
    """
    folder = Path(folder)
    model, about = load_model(folder, lambda a: build(a["network"], a["settings"]), kind=KIND)
    group = named_group(about["group"], int(about["settings"]["dim"]))
    return Predictor(model, group, about, read_regressor(folder))


def read_regressor(folder: Path) -> LandmarkRegressor | None:
    """The regressor of a folder, None where there is none.

    Raises:
        ValueError: a file that holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as read

    file = folder / REGRESSOR
    if not file.is_file():
        return None
    try:
        return LandmarkRegressor.from_tensors(read(file.read_bytes()))
    except (SafetensorError, KeyError) as err:
        raise ValueError(f"{file}: expected a regressor to landmarks, found something else; remove it") from err


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
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build(recipe.network, dict(recipe.settings))
    if isinstance(images, LandmarkSet):
        images = images.squares(SOURCE_SIZE, crop=crop, on_bad_file=on_bad_file)[1].images
    if isinstance(images, Tensor):
        if len(images) < 2:
            raise ValueError(f"images: expected at least two to learn a category from, found {len(images)}")
        key, n, source_size = cache_key(images), len(images), images.shape[-1]
        steps = max(1, -(-n // recipe.views.pairs))
        batches: Any = ViewBatches(images, recipe.views, stride=model.stride, steps=steps, seed=seed)
        whole = recipe.views.whole_size
    else:
        batches, key, n = images, cache_key(images.first), len(images.first)
        whole = source_size = images.first.shape[-1]
    group = recipe.symmetry()
    about: dict[str, Any] = {
        "recipe": recipe.name,
        "network": recipe.network,
        "settings": model.settings,
        "group": recipe.group,
        "seed": seed,
        "images": n,
        "data": key,
        "crop": crop,
        "size": recipe.views.size if isinstance(images, Tensor) else whole,
        "whole_size": whole,
        "source_size": source_size,
    }
    run = {**about, "losses": asdict(recipe.losses), "views": asdict(recipe.views)}
    history = fit(
        model,
        batches,
        partial(recipe.losses, group=group),
        out=out,
        schedule=recipe.schedule,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        run=run,
        progress=progress,
    )
    about["steps"] = history[-1]["step"]
    predictor = Predictor(model, group, about)
    predictor.save(out)
    return predictor


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


