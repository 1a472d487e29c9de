"""From what a frozen network says about pictures to given landmarks, learned from a few annotated pictures.

A network that was trained without labels finds points of its own, or gives each pixel an embedding whose clusters are
such points. Two ways lead from there to the landmarks that somebody annotated. "linear" is the papers': one ridge
regression from the points of the whole picture. "cascade" is ours: the points place the object first; then the picture
is cropped around it, upright and at one scale, and looked at again, so that what is small or turned is seen as large as
all else; and the embedding at each landmark tells how far it is off.

Source: Thewlis 2019 (thesis), chapters 4, 5 and 7, for regressions from frozen points. The second look and the local
    steps are ours; the latter are supervised descent (Xiong & De la Torre 2013) on learned embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_choice, check_shape
from geoframe._random import seeded
from geoframe.heads.points import (
    Look,
    Looker,
    clusters_of,
    mirror_swap,
    place_on,
    points_of,
    pooled_spread,
    similarity,
    undo,
)
from geoframe.layers.ridge import Ridge, cross_validated_ridge
from geoframe.warps import Warp, affine_warp, random_warp

METHODS = ("cascade", "linear")
_ROOM = 1.5  # side of a crop over that of the landmarks' mean shape
_LOOKS = 2  # at crops, after the one at the whole picture
_COMPONENTS = 200  # principal components of the embeddings at the landmarks
_COPIES = 8  # of an annotated picture at most, all together about _ENOUGH
_ENOUGH = 400
_JITTER = (0.15, 7.0, 0.04)  # logarithm of the scale, degrees, shift of the copies
_BATCH = 32
_LEAST = 1e-4  # error whose logarithm is taken
# of the logarithm of an error: slope in that of the last move, offset, how well they are known, deviation, as if of
# so many images; found on a third of the people that the object frame of experiments/object_frame learns from
_PRIOR, _PRIOR_WIDTH, _PRIOR_DEVIATION, _PRIOR_COUNT = (0.65, -0.4), (0.1, 0.3), 0.35, 10
_SURE = (0.01, 0.99)  # least and highest confidence: the tails of the errors are not known
RIGHT = 0.1  # of the landmarks' spread: an image is right if its mean error is below


class Landmarks(NamedTuple):
    """Landmarks of pictures.

    Attributes:
        points: (n, L, 2) normalised coordinates of the pictures given.
        confidence: (n,) how probable it is that the mean error is below a tenth of the landmarks' spread.
    """

    points: Tensor
    confidence: Tensor


@dataclass(frozen=True, eq=False)
class _Stage:
    """One look: where points are found, and what follows from them.

    Attributes:
        anchors: (K, D) cluster centres of the embedding; empty where the network has points of its own.
        shape: from points (K * 2) to landmarks (L * 2), both in the view.
        mean, basis: of the embeddings at the landmarks: (L * D,), (L * D, q).
        local: from their components (q) to what is missing (L * 2); None without.
    """

    anchors: Tensor
    shape: Ridge
    mean: Tensor
    basis: Tensor
    local: Ridge | None


@dataclass(frozen=True, eq=False)
class LandmarkRegressor:
    """Landmarks of pictures, from a frozen network's looks at them. Made by `fit_regressor`.

    Attributes:
        shape: (L, 2) mean landmarks in a crop.
        mean_points: (K, 2) mean points of the whole picture, landmarks upright and at one scale.
        spread: (K,) variance of each point there.
        frame: (L, 2) the mean landmarks that go with `mean_points`.
        stages: the whole picture, then crops.
        error_model: (3,) what to expect of the logarithm of an image's error: slope and offset in the logarithm of
            how far the last look has moved the landmarks, and the standard deviation around that.
        size: of the views of the whole picture and of the crops, in pixels.
    """

    shape: Tensor
    mean_points: Tensor
    spread: Tensor
    frame: Tensor
    stages: tuple[_Stage, ...]
    error_model: Tensor
    size: tuple[int, int]

    @torch.no_grad()
    def __call__(self, look: Looker, images: Tensor) -> Landmarks:
        """Find the landmarks of pictures.

        Args:
            look: the network that the regressor was fitted to.
            images: (n, 3, S, S) uint8, or floating in [0, 1].
        """
        found, before = [], []
        for part in images.split(_BATCH):
            shapes = [self._first(look, part)]
            for stage in self.stages[1:]:
                shapes.append(_refine(look, part, shapes[-1], stage, self.shape, self.size[1]))
            found.append(shapes[-1])
            before.append(shapes[-2] if len(shapes) > 1 else shapes[-1])
        points = torch.cat(found)
        return Landmarks(points, _confidence(points, torch.cat(before), self.error_model))

    def _first(self, look: Looker, images: Tensor) -> Tensor:
        view = _resized(images, self.size[0])
        stage = self.stages[0]
        points = points_of(look(view), stage.anchors)
        if len(self.stages) == 1:
            return stage.shape(points.flatten(1)).unflatten(1, (-1, 2))
        R, t = place_on(points, self.mean_points, self.spread)
        straight = points @ R.mT + t[:, None]
        return undo(stage.shape(straight.flatten(1)).unflatten(1, (-1, 2)), R, t)

    def tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors, to be saved."""
        out = {n: getattr(self, n) for n in ("shape", "mean_points", "spread", "frame", "error_model")}
        out["size"] = torch.tensor(self.size)
        for i, stage in enumerate(self.stages):
            ridges = {"shape": stage.shape} | ({} if stage.local is None else {"local": stage.local})
            parts = {n: getattr(stage, n) for n in ("anchors", "mean", "basis")}
            for name, ridge in ridges.items():
                parts |= {f"{name}.{n}": getattr(ridge, n) for n in ("x_mean", "weight", "y_mean")}
                parts[f"{name}.penalty"] = torch.tensor(ridge.penalty, dtype=torch.float64)
            out |= {f"stage{i}.{n}": v for n, v in parts.items()}
        return {n: v.contiguous() for n, v in out.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LandmarkRegressor:
        """The inverse of `tensors`.

        Raises:
            KeyError: tensors that are missing.
        """
        stages: list[_Stage] = []
        while f"stage{len(stages)}.anchors" in tensors:
            head = f"stage{len(stages)}."
            shape, local = (_read_ridge(tensors, f"{head}{name}.") for name in ("shape", "local"))
            if shape is None:
                raise KeyError(f"{head}shape.weight")
            anchors, mean, basis = (tensors[head + n] for n in ("anchors", "mean", "basis"))
            stages.append(_Stage(anchors, shape, mean, basis, local))
        size = tensors["size"].tolist()
        named = {n: tensors[n] for n in ("shape", "mean_points", "spread", "frame", "error_model")}
        return cls(**named, stages=tuple(stages), size=(size[0], size[1]))


@torch.no_grad()
def fit_regressor(
    look: Looker,
    images: Tensor,
    points: Tensor,
    *,
    size: tuple[int, int],
    method: str = "cascade",
    groups: Tensor | None = None,
    unlabelled: Tensor | None = None,
    copies: int | None = None,
    mirror: bool = True,
    seed: int = 0,
) -> LandmarkRegressor:
    """Learn to find landmarks from annotated pictures; the network stays as it is.

    Args:
        look: the frozen network, from views (B, 3, s, s) in [0, 1] to a `Look`.
        images: (n, 3, S, S) uint8, or floating in [0, 1]; ten are a good start.
        points: (n, L, 2) their landmarks in normalised coordinates, all known, at least two.
        size: sides of the views of the whole picture and of the crops, in pixels.
        method: "cascade", ours; "linear", the papers': one look and one regression.
        groups: (n,) int64, pictures of the same person or thing, which cross-validation leaves out together.
        unlabelled: (m, 3, S, S) more pictures, which help to find clusters.
        copies: jittered crops of each annotated picture; by default up to 8, fewer of many pictures. Of "linear":
            warped copies of the whole picture, by default none.
        mirror: add mirrored copies, if the landmarks' mean shape is its own mirror image.
        seed: of clusters, folds and copies.

    Returns:
        The regressor.

    Raises:
        ValueError: another method, landmarks that are not known or fewer than two.
    """
    check_choice(method, METHODS, "method")
    n = check_shape(images, "N 3 S S", "images")["N"]
    L = check_shape(points, f"{n} L 2", "points")["L"]
    if L < 2 or not bool(torch.isfinite(points).all()):
        raise ValueError(
            f"points: expected at least two landmarks, all known in each picture, found {L} and "
            f"{int((~torch.isfinite(points)).any(-1).sum())} unknown; leave those pictures out"
        )
    groups = torch.arange(n) if groups is None else groups
    if method == "linear":
        return _linear(look, images, points, size, groups, unlabelled, copies or 0, seed)
    return _Cascade(look, images, points, size, groups, unlabelled, copies, mirror, seed).fit()


def _linear(
    look: Looker,
    images: Tensor,
    points: Tensor,
    size: tuple[int, int],
    groups: Tensor,
    unlabelled: Tensor | None,
    copies: int,
    seed: int,
) -> LandmarkRegressor:
    """One look at the whole picture, one ridge regression."""
    if copies:
        draw = torch.Generator().manual_seed(seed)
        warps = [_jitter(len(images), draw) for _ in range(copies)]
        moved = [_from_source(w, images, images.shape[-1]) for w in warps]
        images = torch.cat([_floating(images), *moved])
        points = torch.cat([points, *(w.inverse(points)[0] for w in warps)])
        groups = groups.repeat(copies + 1)
    looks = _look_all(look, images, None, size[0])
    more = None if unlabelled is None else _look_all(look, unlabelled, None, size[0])
    anchors = clusters_of(looks, more, seed)
    found = points_of(looks, anchors)
    ridge, out = cross_validated_ridge(found.flatten(1), points.flatten(1), groups=groups, seed=seed)
    none = points.new_zeros(0)
    stage = _Stage(anchors, ridge, none, none, None)
    error = relative_error(out.unflatten(1, (-1, 2)), points)
    log_error, mean = error.clamp_min(_LEAST).log(), points.mean(0)
    model = torch.stack([log_error.new_zeros(()), log_error.mean(), _deviation(log_error - log_error.mean())])
    return LandmarkRegressor(mean, found.mean(0), found.var(0).sum(-1), mean, (stage,), model, size)


def _read_ridge(tensors: Mapping[str, Tensor], head: str) -> Ridge | None:
    if f"{head}weight" not in tensors:
        return None
    x_mean, weight, y_mean, penalty = (tensors[head + n] for n in ("x_mean", "weight", "y_mean", "penalty"))
    return Ridge(x_mean, weight, y_mean, float(penalty))


class _Cascade:
    """The training data as it goes from look to look: each picture's shape as if it had been left out."""

    def __init__(
        self,
        look: Looker,
        images: Tensor,
        points: Tensor,
        size: tuple[int, int],
        groups: Tensor,
        unlabelled: Tensor | None,
        copies: int | None,
        mirror: bool,
        seed: int,
    ) -> None:
        self.look, self.size, self.unlabelled, self.seed = look, size, unlabelled, seed
        self.draw = torch.Generator().manual_seed(seed)
        swap = mirror_swap(points) if mirror and len(images) < _ENOUGH else None
        if swap is not None:
            flipped = points[:, swap] * points.new_tensor([-1.0, 1.0])
            images, points = torch.cat([images, images.flip(-1)]), torch.cat([points, flipped])
            groups = groups.repeat(2)
        self.images, self.points, self.groups = images, points, groups
        n = len(images)
        self.copies = max(1, min(_COPIES, round(_ENOUGH / n))) if copies is None else copies

    def fit(self) -> LandmarkRegressor:
        first, mean_points, spread, frame, shapes, more = self.first_stage()
        # the crop: the mean shape in the middle, with some room around it
        middle, half = (frame.amax(0) + frame.amin(0)) / 2, (frame.amax(0) - frame.amin(0)).amax() / 2
        shape = (frame - middle) / (half * _ROOM)
        stages, before = [first], shapes
        for _ in range(_LOOKS):
            before = shapes
            stage, shapes = self.crop_stage(shape, shapes, more)
            if more is not None and self.unlabelled is not None:
                more = torch.cat(
                    [
                        _refine(self.look, x, s, stage, shape, self.size[1])
                        for x, s in zip(self.unlabelled.split(_BATCH), more.split(_BATCH), strict=True)
                    ]
                )
            stages.append(stage)
        model = _error_model(shapes, before, self.points)
        return LandmarkRegressor(shape, mean_points, spread, frame, tuple(stages), model, self.size)

    def first_stage(self) -> tuple[_Stage, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        looks = _look_all(self.look, self.images, None, self.size[0])
        more = None if self.unlabelled is None else _look_all(self.look, self.unlabelled, None, self.size[0])
        anchors = clusters_of(looks, more, self.seed)
        found, y = points_of(looks, anchors), self.points
        frame = y.mean(0)
        for _ in range(3):  # the mean shape, upright and at one scale
            R, t = similarity(y, frame.expand_as(y), torch.ones_like(y[..., 0]))
            frame = (y @ R.mT + t[:, None]).mean(0)
        straight = found @ R.mT + t[:, None]
        mean_points = straight.mean(0)
        spread = (straight - mean_points).square().sum(-1).mean(0)
        if more is not None:  # a few annotated pictures do not tell which points stray
            spread = pooled_spread(spread, len(found), points_of(more, anchors), mean_points)
        R, t = place_on(found, mean_points, spread)
        x, target = found @ R.mT + t[:, None], y @ R.mT + t[:, None]
        ridge, out = cross_validated_ridge(
            x.flatten(1), target.flatten(1), groups=self.groups, seed=self.seed
        )
        none = y.new_zeros(0)
        others = None
        if more is not None:
            far = points_of(more, anchors)
            Rm, tm = place_on(far, mean_points, spread)
            others = undo(ridge((far @ Rm.mT + tm[:, None]).flatten(1)).unflatten(1, (-1, 2)), Rm, tm)
        shapes = undo(out.unflatten(1, (-1, 2)), R, t)
        return _Stage(anchors, ridge, none, none, None), mean_points, spread, frame, shapes, others

    def crop_stage(self, shape: Tensor, shapes: Tensor, more: Tensor | None) -> tuple[_Stage, Tensor]:
        n, y = len(self.images), self.points
        starts = [shapes, *(self.jittered() for _ in range(self.copies - 1))]
        groups, looks, target = [], [], []
        for start in starts:
            warp, R, t = _crop_warp(start, shape)
            looks.append(_look_all(self.look, self.images, warp, self.size[1]))
            target.append(y @ R.mT + t[:, None])
            groups.append(self.groups)
            if start is shapes:
                own = R, t
        both, to, group = _joined(looks), torch.cat(target), torch.cat(groups)
        others = None
        if more is not None and self.unlabelled is not None:
            warp = _crop_warp(more, shape)[0]
            others = _look_all(self.look, self.unlabelled, warp, self.size[1])
        anchors = clusters_of(looks[0], others, self.seed)
        found = points_of(both, anchors)
        ridge, out = cross_validated_ridge(found.flatten(1), to.flatten(1), groups=group, seed=self.seed)
        place = out.unflatten(1, (-1, 2))
        stage = _Stage(anchors, ridge, y.new_zeros(0), y.new_zeros(0), None)
        if both.field is not None:
            stage, place = _with_local_step(stage, both.field, place, to, group, self.seed)
        return stage, undo(place[:n], *own)

    def jittered(self) -> Tensor:
        """The true shapes, scaled, turned and shifted a little."""
        y = self.points
        warp = _jitter(len(y), self.draw)
        middle = y.mean(1, keepdim=True)
        return warp(y - middle) + middle


def _with_local_step(
    stage: _Stage, field: Tensor, place: Tensor, to: Tensor, groups: Tensor, seed: int
) -> tuple[_Stage, Tensor]:
    """A step that reads from the embeddings at the landmarks how far these are off."""
    x = _at_landmarks(field, place)
    mean = x.mean(0)
    q = min(_COMPONENTS, len(x) - 1, x.shape[1])
    if q < 1:
        return stage, place
    with seeded(seed):
        basis = torch.pca_lowrank(x - mean, q=q, center=False, niter=2)[2]
    local, out = cross_validated_ridge((x - mean) @ basis, (to - place).flatten(1), groups=groups, seed=seed)
    return replace(stage, mean=mean, basis=basis, local=local), place + out.unflatten(1, (-1, 2))


def _refine(look: Looker, images: Tensor, shapes: Tensor, stage: _Stage, shape: Tensor, size: int) -> Tensor:
    """Landmarks (n, L, 2) from a second look around those found so far."""
    warp, R, t = _crop_warp(shapes, shape)
    seen = look(_from_source(warp, images, size))
    place = stage.shape(points_of(seen, stage.anchors).flatten(1)).unflatten(1, (-1, 2))
    if stage.local is not None and seen.field is not None:
        x = (_at_landmarks(seen.field, place) - stage.mean) @ stage.basis
        place = place + stage.local(x).unflatten(1, (-1, 2))
    return undo(place, R, t)


def crops_around(images: Tensor, points: Tensor, shape: Tensor, size: int) -> tuple[Tensor, Warp]:
    """Upright crops of pictures, in which their landmarks lie as near to a shape as they can.

    Args:
        images: (n, 3, S, S) uint8, or floating in [0, 1].
        points: (n, L, 2) landmarks, normalised; found or given.
        shape: (L, 2) in the crop, such as that of a `LandmarkRegressor`.
        size: side of the crops in pixels.

    Returns:
        crops: (n, 3, size, size) in [0, 1].
        warp: from places in the crops to places in the pictures.
    """
    warp = _crop_warp(points, shape)[0]
    return _from_source(warp, images, size), warp


def _crop_warp(shapes: Tensor, shape: Tensor) -> tuple[Warp, Tensor, Tensor]:
    """The crops in which shapes (n, L, 2) lie as near as they can to one shape (L, 2), and the way there."""
    R, t = similarity(shapes, shape.expand_as(shapes), torch.ones_like(shapes[..., 0]))
    back = torch.linalg.inv(R)
    return affine_warp(torch.cat([back, -back @ t[..., None]], 2)), R, t


def _at_landmarks(field: Tensor, place: Tensor) -> Tensor:
    """Unit embeddings at landmarks, beside each other: (n, L * D)."""
    out = [
        F.grid_sample(
            F.normalize(f.float(), dim=1), p[:, :, None], padding_mode="border", align_corners=False
        )
        for f, p in zip(field.split(_BATCH), place.split(_BATCH), strict=True)
    ]
    return torch.cat(out)[..., 0].flatten(1)


def _look_all(look: Looker, images: Tensor, warp: Warp | None, size: int) -> Look:
    """Look at views of all pictures, a few at a time; fields are kept in half precision."""
    looks = []
    for i in range(0, len(images), _BATCH):
        part = images[i : i + _BATCH]
        if warp is None:
            view = _resized(part, size)
        else:
            view = _from_source(affine_warp(warp.steps[0].affine[i : i + _BATCH]), part, size)
        seen = look(view)
        looks.append(seen._replace(field=None if seen.field is None else seen.field.half()))
    return _joined(looks)


def _joined(looks: list[Look]) -> Look:
    fields = [x.field for x in looks if x.field is not None]
    points = [x.points for x in looks if x.points is not None]
    return Look(torch.cat(fields) if fields else None, torch.cat(points) if points else None)


def _floating(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float() / 255


def _resized(images: Tensor, size: int) -> Tensor:
    x = _floating(images)
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def _from_source(warp: Warp, images: Tensor, size: int) -> Tensor:
    return warp.sample(_floating(images), size)


def _jitter(n: int, draw: torch.Generator) -> Warp:
    scale, degrees, shift = _JITTER
    return random_warp(n, rotation=degrees, scale=scale, shift=shift, bend=0, strong_bend=0, seed=draw)


def relative_error(found: Tensor, true: Tensor) -> Tensor:
    """Mean error (n,) of landmarks (n, L, 2) over the root mean square distance of the true ones from their middle."""
    size = (true - true.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt().clamp_min(1e-6)
    return (found - true).norm(dim=-1).mean(1) / size


def _moved(points: Tensor, before: Tensor) -> Tensor:
    """Logarithm (n,) of how far the last look has moved the landmarks, over their spread."""
    return relative_error(before, points).clamp_min(_LEAST).log()


def _confidence(points: Tensor, before: Tensor, model: Tensor) -> Tensor:
    """The chance (n,) of an error below `RIGHT`, whose logarithm is normally distributed."""
    expected = model[0] * _moved(points, before) + model[1]
    return torch.special.ndtr((math.log(RIGHT) - expected) / model[2]).clamp(*_SURE)


def _error_model(points: Tensor, before: Tensor, true: Tensor) -> Tensor:
    """Slope, offset and deviation (3,) of the logarithm of errors, from images that were left out.

    A Bayesian regression: ten images alone do not tell a slope. The prior is what holds for faces with 10 to 50 labels.
    """
    x = torch.stack([_moved(points, before), torch.ones(len(points))], 1).double()
    y = relative_error(points, true).clamp_min(_LEAST).log().double()
    prior = torch.tensor(_PRIOR, dtype=torch.float64)
    hold = torch.diag((_PRIOR_DEVIATION / torch.tensor(_PRIOR_WIDTH, dtype=torch.float64)).square())
    w = torch.linalg.solve(x.T @ x + hold, x.T @ y + hold @ prior)
    return torch.cat([w, _deviation(y - x @ w)[None]]).float()


def _deviation(residual: Tensor) -> Tensor:
    """Standard deviation (), held by the prior where there are few numbers (n,)."""
    total = residual.square().sum() + _PRIOR_COUNT * _PRIOR_DEVIATION**2
    return (total / (len(residual) + _PRIOR_COUNT)).sqrt()
