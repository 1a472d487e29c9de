"""A frozen network that finds landmarks: what object frames, sparse and inter-intra landmarks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._cache import cache_key
from geoframe._check import check_shape
from geoframe._files import atomic_path
from geoframe.data.face_files import LandmarkSet, Squares
from geoframe.data.views import FlowBatches, ViewBatches, ViewPlan
from geoframe.heads.landmarks import LandmarkRegressor, Landmarks, fit_regressor
from geoframe.heads.points import Look
from geoframe.training import Schedule, fit, load_model, save_model
from geoframe.training.loop import Losses
from geoframe.warps import to_pixels

REGRESSOR = "regressor.safetensors"
SOURCE_SIZE = 128  # side of the squares that pictures are kept in; crops are cut from them
_BATCH = 32
_SURE = 0.5  # below: a warning


class Found(NamedTuple):
    """Landmarks of images.

    Attributes:
        points: (n, L, 2) in pixels of the images.
        confidence: (n,) in [0, 1], see `geoframe.heads.landmarks.Landmarks`; NaN for landmarks of the network's own,
            of which nobody has said what is right.
        names: of the images.
        warnings: one line for each image that the confidence is low for, or one that there is none.
    """

    points: Tensor
    confidence: Tensor
    names: tuple[str, ...]
    warnings: tuple[str, ...]


class LandmarkPredictor(ABC):
    """A trained network and, once some images are annotated, a regressor to their landmarks.

    Attributes:
        kind: of the model, see `geoframe.training.save_model`.
        model: frozen.
        about: how it was trained; `crop` tells how pictures were cut, `whole_size` and `size` how large they are seen.
        regressor: to given landmarks; None before `with_landmarks`.
    """

    kind = ""

    def __init__(
        self, model: nn.Module, about: dict[str, Any], regressor: LandmarkRegressor | None = None
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.about, self.regressor = about, regressor

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """What `save` left in a folder.

        Raises:
            ValueError: no model there, or one of another kind.
        """
        folder = Path(folder)
        model, about = load_model(folder, cls.build, kind=cls.kind)
        return cls(model, about, read_regressor(folder))

    @staticmethod
    @abstractmethod
    def build(about: Mapping[str, Any]) -> nn.Module:
        """The network that `about` tells of, its weights not yet read."""

    @abstractmethod
    def look(self, views: Tensor) -> Look:
        """What a regressor sees of views (B, 3, s, s) in [0, 1]."""

    def own_points(self, images: Tensor) -> Tensor | None:
        """Points of the network itself (n, K, 2), normalised; None where it has none."""
        return None

    @property
    def can_predict(self) -> bool:
        """Whether there are landmarks to predict."""
        return self.regressor is not None

    @property
    def sizes(self) -> tuple[int, int]:
        """Sides in pixels of a view of the whole picture and of a crop."""
        return int(self.about["whole_size"]), int(self.about["size"])

    def squares(
        self, images: LandmarkSet, *, on_bad_file: Callable[[str], None] | None = None
    ) -> tuple[LandmarkSet, Squares]:
        """Images as the squares that all else here takes; see `LandmarkSet.squares`."""
        return images.squares(
            int(self.about["source_size"]), crop=self.about["crop"], on_bad_file=on_bad_file
        )

    def views(self, images: Tensor, size: int | None = None) -> Tensor:
        """Squares (n, 3, S, S), uint8 or in [0, 1], as whole views (n, 3, size, size) in [0, 1]."""
        check_shape(images, "N 3 S S", "images")
        x = images if images.is_floating_point() else images.float() / 255
        s = size or self.sizes[0]
        if x.shape[-1] == s:
            return x
        return F.interpolate(x, size=(s, s), mode="bilinear", align_corners=False, antialias=True)

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
    ) -> Self:
        """The same network with a regressor to given landmarks; see `fit_regressor`.

        Args:
            images: (n, 3, S, S) uint8 annotated squares.
            points: (n, L, 2) their landmarks, normalised; images with an unknown one are left out.
            method: "cascade" or "linear".
            groups: (n,) pictures of one person or thing.
            unlabelled: (m, 3, S, S) more squares.
            seed: of everything random.
            **options: `copies`, `mirror`.

        Raises:
            ValueError: no image with all its landmarks.
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
        return type(self)(self.model, self.about, regressor)

    def landmarks(self, images: Tensor) -> Landmarks:
        """Landmarks of squares (n, 3, S, S), in normalised coordinates of these.

        Raises:
            ValueError: a network without a regressor.
        """
        if self.regressor is None:
            raise ValueError(
                "model: expected one with landmarks, found none; annotate a few images, see with_landmarks"
            )
        return self.regressor(self.look, images)

    def predict(self, images: LandmarkSet, *, on_bad_file: Callable[[str], None] | None = None) -> Found:
        """Landmarks of images, in their own pixels: the annotated ones or, without a regressor, the network's own.

        Args:
            images: to look at; their own landmarks, if any, are not used, unless the model crops by them.
            on_bad_file: called with a line about each image that cannot be read, which is left out.

        Raises:
            ValueError: a network with neither.
        """
        kept, squares = self.squares(images, on_bad_file=on_bad_file)
        own = None if self.regressor is not None else self.own_points(squares.images)
        found = (
            self.landmarks(squares.images)
            if own is None
            else Landmarks(own, torch.full((len(own),), torch.nan))
        )
        side = squares.images.shape[-1]
        points = [
            c.to_image(to_pixels(p, side, side)) for c, p in zip(squares.crops, found.points, strict=True)
        ]
        doubtful = [
            f"{name}: landmarks are doubtful, confidence {c:.2f}"
            for name, c in zip(kept.names, found.confidence.tolist(), strict=True)
            if c < _SURE
        ]
        if own is not None:
            doubtful.append(
                "landmarks learned without labels have no confidence; annotate a few images for one"
            )
        return Found(torch.stack(points), found.confidence, kept.names, tuple(doubtful))

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors, model.json and, if there are landmarks, regressor.safetensors."""
        from safetensors.torch import save

        folder = Path(folder)
        save_model(folder, self.model, self.about, kind=self.kind)
        if self.regressor is not None:
            with atomic_path(folder / REGRESSOR) as temporary:
                temporary.write_bytes(save(self.regressor.tensors()))


class PointPredictor(LandmarkPredictor):
    """A network with K points of its own, learned without labels."""

    @abstractmethod
    def points(self, views: Tensor) -> Tensor:
        """The K points (B, K, 2) of views (B, 3, s, s) in [0, 1], normalised."""

    @torch.no_grad()
    def look(self, views: Tensor) -> Look:
        """The points of views (B, 3, s, s) in [0, 1], and nothing else."""
        return Look(None, self.points(views))

    @torch.no_grad()
    def own_points(self, images: Tensor) -> Tensor:
        """The points (n, K, 2) of squares (n, 3, S, S), in normalised coordinates."""
        return torch.cat([self.points(self.views(part)) for part in images.split(_BATCH)])


class ViewRecipe(Protocol):
    """What recipes of systems that learn from pairs of views have in common."""

    @property
    def name(self) -> str:
        """Of the recipe."""

    @property
    def losses(self) -> Any:
        """A dataclass."""

    @property
    def views(self) -> ViewPlan:
        """What a step sees."""

    @property
    def schedule(self) -> Schedule:
        """Length of the run, and rates."""


def about_run(
    recipe: ViewRecipe, model: nn.Module, images: Tensor, *, crop: str, seed: int, **more: Any
) -> dict[str, Any]:
    """What a model tells of its training: `LandmarkPredictor.about`.

    Args:
        recipe: of the training.
        model: with its `settings`.
        images: (n, 3, S, S) squares that it learns from.
        crop: how they were cut.
        seed: of everything random.
        **more: what else there is to tell, or what differs.
    """
    told = {"recipe": recipe.name, "settings": model.settings, "seed": seed, "crop": crop}
    told |= {"images": len(images), "data": cache_key(images), "source_size": images.shape[-1]}
    return told | {"size": recipe.views.size, "whole_size": recipe.views.whole_size} | more


def view_batches(images: Tensor, recipe: ViewRecipe, model: nn.Module, seed: int) -> ViewBatches:
    """Pairs of views for a network with a `stride`; as many steps an epoch as it takes to see each picture once."""
    steps = max(1, -(-len(images) // recipe.views.pairs))
    assert isinstance(model.stride, int)
    return ViewBatches(images, recipe.views, stride=model.stride, steps=steps, seed=seed)


_P = TypeVar("_P", bound=LandmarkPredictor)


def learn(
    predictor: type[_P],
    model: nn.Module,
    batches: ViewBatches | FlowBatches,
    losses: Losses,
    recipe: ViewRecipe,
    about: dict[str, Any],
    *,
    out: str | Path,
    **options: Any,
) -> _P:
    """Train a network by a recipe and keep the predictor in a folder.

    Args:
        predictor: its class.
        model: the network.
        batches: what it learns from.
        losses: of a batch.
        recipe: whose schedule counts; its losses and views tell runs apart.
        about: see `about_run`; the steps that were done are added.
        out: folder for the model, its log and the state to go on from.
        **options: accelerator, devices and progress of `geoframe.training.fit`.
    """
    history = fit(
        model,
        batches,
        losses,
        out=out,
        schedule=recipe.schedule,
        seed=about["seed"],
        run={**about, "losses": asdict(recipe.losses), "views": asdict(recipe.views)},
        **options,
    )
    trained = predictor(model, about | {"steps": history[-1]["step"]})
    trained.save(out)
    return trained


def training_squares(
    images: LandmarkSet | Tensor, crop: str, on_bad_file: Callable[[str], None] | None
) -> Tensor:
    """Pictures as squares (n, 3, S, S) uint8 to learn a category from; squares are taken as they are.

    Args:
        images: pictures, whose landmarks are not looked at unless `crop` says so, or squares.
        crop: see `LandmarkSet.squares`.
        on_bad_file: called with a line about each picture that cannot be read, which is left out.

    Raises:
        ValueError: fewer pictures than two.
    """
    if isinstance(images, LandmarkSet):
        images = images.squares(SOURCE_SIZE, crop=crop, on_bad_file=on_bad_file)[1].images
    if len(images) < 2:
        raise ValueError(f"images: expected at least two to learn a category from, found {len(images)}")
    return images


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
        raise ValueError(
            f"{file}: expected a regressor to landmarks, found something else; remove it"
        ) from err
