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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_choice, check_shape
from geoframe.layers.correspondence import rows
from geoframe.layers.ridge import Ridge, cross_validated_ridge
from geoframe.warps import Warp, affine_warp, pixel_grid, random_warp

METHODS = ("cascade", "linear")
N_ANCHORS = 160
_TEMPERATURE = 0.03  # of the soft-argmax of an anchor, whose scores are cosines
_ROOM = 1.5  # side of a crop over that of the landmarks' mean shape
_LOOKS = 2  # at crops, after the one at the whole picture
_COMPONENTS = 200  # principal components of the embeddings at the landmarks
_COPIES = 8  # of an annotated picture at most, all together about _ENOUGH
_ENOUGH = 400
_JITTER = (0.15, 7.0, 0.04)  # logarithm of the scale, degrees, shift of the copies
_STIFF = 0.003  # variance of a point, in squares of half a picture, below which all points count the same
_BATCH = 32
_SAMPLES = 30_000  # embeddings that clusters are learned from
_ROUNDS = 15
_RIGHT = 0.1  # of the landmarks' spread: an image is right if its mean error is below
_SWAP_LIMIT = 0.1  # of the shape's size: how far a mirrored mean shape may miss itself


class Look(NamedTuple):
    """What a frozen network says about views (B, 3, S, S).

    Attributes:
        field: (B, D, h, w) embeddings, or scores; None for a network that has only points.
        points: (B, K, 2) points of its own, normalised; None for a network that has only a field.
    """

    field: Tensor | None
    points: Tensor | None


Looker = Callable[[Tensor], Look]


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
        doubt: (2,) slope and offset of the logarithm of doubt in the logit of the confidence.
        size: of the views of the whole picture and of the crops, in pixels.
    """

    shape: Tensor
    mean_points: Tensor
    spread: Tensor
    frame: Tensor
    stages: tuple[_Stage, ...]
    doubt: Tensor
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
        return Landmarks(points, _confidence(points, torch.cat(before), self.doubt))

    def _first(self, look: Looker, images: Tensor) -> Tensor:
        view = _resized(images, self.size[0])
        stage = self.stages[0]
        points = _points(look(view), stage.anchors)
        if len(self.stages) == 1:
            return stage.shape(points.flatten(1)).unflatten(1, (-1, 2))
        R, t = _place(points, self.mean_points, self.spread)
        straight = points @ R.mT + t[:, None]
        return _undo(stage.shape(straight.flatten(1)).unflatten(1, (-1, 2)), R, t)

    def tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors, to be saved."""
        out = {n: getattr(self, n) for n in ("shape", "mean_points", "spread", "frame", "doubt")}
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
        stages = []
        while f"stage{len(stages)}.anchors" in tensors:
            head = f"stage{len(stages)}."
            ridges = [
                Ridge(
                    *(tensors[f"{head}{name}.{n}"] for n in ("x_mean", "weight", "y_mean")),
                    float(tensors[f"{head}{name}.penalty"]),
                )
                if f"{head}{name}.weight" in tensors
                else None
                for name in ("shape", "local")
            ]
            assert ridges[0] is not None
            anchors, mean, basis = (tensors[head + n] for n in ("anchors", "mean", "basis"))
            stages.append(_Stage(anchors, ridges[0], mean, basis, ridges[1]))
        size = tensors["size"].tolist()
        named = {n: tensors[n] for n in ("shape", "mean_points", "spread", "frame", "doubt")}
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
    anchors = _clusters(looks, more, seed)
    found = _points(looks, anchors)
    ridge, out = cross_validated_ridge(found.flatten(1), points.flatten(1), groups=groups, seed=seed)
    none = points.new_zeros(0)
    stage = _Stage(anchors, ridge, none, none, None)
    error = _spread_error(out.unflatten(1, (-1, 2)), points)
    share = float((error < _RIGHT).float().mean().clamp(0.02, 0.98))
    doubt = torch.tensor([0.0, _logit(share)])
    mean = points.mean(0)
    return LandmarkRegressor(mean, found.mean(0), found.var(0).sum(-1), mean, (stage,), doubt, size)


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
        doubt = _calibrate(shapes, before, self.points)
        return LandmarkRegressor(shape, mean_points, spread, frame, tuple(stages), doubt, self.size)

    def first_stage(self) -> tuple[_Stage, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        looks = _look_all(self.look, self.images, None, self.size[0])
        more = None if self.unlabelled is None else _look_all(self.look, self.unlabelled, None, self.size[0])
        anchors = _clusters(looks, more, self.seed)
        found, y = _points(looks, anchors), self.points
        frame = y.mean(0)
        for _ in range(3):  # the mean shape, upright and at one scale
            R, t = _similarity(y, frame.expand_as(y), torch.ones_like(y[..., 0]))
            frame = (y @ R.mT + t[:, None]).mean(0)
        straight = found @ R.mT + t[:, None]
        mean_points = straight.mean(0)
        spread = (straight - mean_points).square().sum(-1).mean(0)
        if more is not None:  # a few annotated pictures do not tell which points stray
            spread = _pooled_spread(spread, len(found), _points(more, anchors), mean_points)
        R, t = _place(found, mean_points, spread)
        x, target = found @ R.mT + t[:, None], y @ R.mT + t[:, None]
        ridge, out = cross_validated_ridge(
            x.flatten(1), target.flatten(1), groups=self.groups, seed=self.seed
        )
        none = y.new_zeros(0)
        others = None
        if more is not None:
            far = _points(more, anchors)
            Rm, tm = _place(far, mean_points, spread)
            others = _undo(ridge((far @ Rm.mT + tm[:, None]).flatten(1)).unflatten(1, (-1, 2)), Rm, tm)
        shapes = _undo(out.unflatten(1, (-1, 2)), R, t)
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
        anchors = _clusters(looks[0], others, self.seed)
        found = _points(both, anchors)
        ridge, out = cross_validated_ridge(found.flatten(1), to.flatten(1), groups=group, seed=self.seed)
        place = out.unflatten(1, (-1, 2))
        stage = _Stage(anchors, ridge, y.new_zeros(0), y.new_zeros(0), None)
        if both.field is not None:
            stage, place = _with_local_step(stage, both.field, place, to, group, self.seed)
        return stage, _undo(place[:n], *own)

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
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        basis = torch.pca_lowrank(x - mean, q=q, center=False, niter=2)[2]
    local, out = cross_validated_ridge((x - mean) @ basis, (to - place).flatten(1), groups=groups, seed=seed)
    return replace(stage, mean=mean, basis=basis, local=local), place + out.unflatten(1, (-1, 2))


def _refine(look: Looker, images: Tensor, shapes: Tensor, stage: _Stage, shape: Tensor, size: int) -> Tensor:
    """Landmarks (n, L, 2) from a second look around those found so far."""
    warp, R, t = _crop_warp(shapes, shape)
    seen = look(_from_source(warp, images, size))
    place = stage.shape(_points(seen, stage.anchors).flatten(1)).unflatten(1, (-1, 2))
    if stage.local is not None and seen.field is not None:
        x = (_at_landmarks(seen.field, place) - stage.mean) @ stage.basis
        place = place + stage.local(x).unflatten(1, (-1, 2))
    return _undo(place, R, t)


def _crop_warp(shapes: Tensor, shape: Tensor) -> tuple[Warp, Tensor, Tensor]:
    """The crops in which shapes (n, L, 2) lie as near as they can to one shape (L, 2), and the way there."""
    R, t = _similarity(shapes, shape.expand_as(shapes), torch.ones_like(shapes[..., 0]))
    back = torch.linalg.inv(R)
    return affine_warp(torch.cat([back, -back @ t[..., None]], 2)), R, t


def _similarity(a: Tensor, b: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """R (n, 2, 2), a turn times a scale, and t (n, 2), so that ``a @ R.mT + t`` is nearest to b (n, K, 2)."""
    w = weight / weight.sum(1, keepdim=True)
    ma, mb = ((w[..., None] * x).sum(1) for x in (a, b))
    da, db = a - ma[:, None], b - mb[:, None]
    size = (w * da.square().sum(-1)).sum(1).clamp_min(1e-8)
    c = (w * (da * db).sum(-1)).sum(1) / size
    s = (w * (da[..., 0] * db[..., 1] - da[..., 1] * db[..., 0])).sum(1) / size
    small = (c.square() + s.square()).sqrt() < 1e-3  # all points in one place: keep the picture as it is
    c, s = torch.where(small, 1.0, c), torch.where(small, 0.0, s)
    R = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], 1)
    return R, mb - (R @ ma[..., None])[..., 0]


def _place(points: Tensor, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """The similarity that brings points (n, K, 2) onto their means; what strays counts less."""
    weight = (1 / (spread + _STIFF)).expand(len(points), -1)
    goal = mean.expand_as(points)
    R, t = _similarity(points, goal, weight)
    for _ in range(4):
        off = (points @ R.mT + t[:, None] - mean).square().sum(-1)
        R, t = _similarity(points, goal, weight / (off + spread + 1e-6).sqrt())
    return R, t


def _pooled_spread(spread: Tensor, n: int, others: Tensor, mean: Tensor) -> Tensor:
    """Variances (K,) of n pictures, together with those of others (m, K, 2) that are laid onto the means."""
    pooled = spread
    for _ in range(2):
        R, t = _place(others, mean, pooled)
        off = (others @ R.mT + t[:, None] - mean).square().sum(-1)
        pooled = (spread * n + off.clamp_max(1.0).sum(0)) / (n + len(others))
    return pooled


def _undo(points: Tensor, R: Tensor, t: Tensor) -> Tensor:
    return torch.linalg.solve(R, (points - t[:, None]).mT).mT


def _points(look: Look, anchors: Tensor) -> Tensor:
    """The network's points (n, K, 2), or the soft-argmax of its clusters."""
    if look.points is not None:
        return look.points
    assert look.field is not None
    h, w = look.field.shape[2:]
    place = pixel_grid(h, w).reshape(-1, 2)
    found = [
        torch.softmax(anchors @ rows(f, length=1.0).mT / _TEMPERATURE, -1) @ place
        for f in look.field.float().split(_BATCH)
    ]
    return torch.cat(found)


def _clusters(look: Look, more: Look | None, seed: int) -> Tensor:
    """Unit vectors (K, D) in the middle of the clusters of the embedding."""
    if look.points is not None:
        return look.points.new_zeros(0)
    fields = [x.field for x in (look, more) if x is not None and x.field is not None]
    draw = torch.Generator().manual_seed(seed)
    x = torch.cat([f.flatten(2).mT.flatten(0, 1) for f in fields])
    x = F.normalize(x[torch.randperm(len(x), generator=draw)[:_SAMPLES]].float(), dim=-1)
    return cluster_directions(x, N_ANCHORS, seed=seed)


def cluster_directions(x: Tensor, k: int, *, rounds: int = _ROUNDS, seed: int = 0) -> Tensor:
    """k-means on the sphere.

    Args:
        x: (n, D) unit vectors.
        k: how many clusters; n if that is less.
        rounds: of Lloyd's algorithm.
        seed: of the first centres, which are rows of x.

    Returns:
        (k, D) unit vectors.
    """
    draw = torch.Generator().manual_seed(seed)
    centres = x[torch.randperm(len(x), generator=draw)[:k]]
    for _ in range(rounds):
        nearest = torch.cat([(part @ centres.T).argmax(1) for part in x.split(1 << 14)])
        total = torch.zeros_like(centres).index_add_(0, nearest, x)
        there = torch.bincount(nearest, minlength=len(centres)) > 0
        centres = torch.where(there[:, None], F.normalize(total, dim=1), centres)
    return centres


def mirror_swap(points: Tensor) -> Tensor | None:
    """Which landmark of a mirrored picture is which: (L,) int64, its own inverse; None if the shape has no mirror.

    Args:
        points: (n, L, 2) landmarks; their mean shape, mirrored, is laid onto itself.
    """
    from scipy.optimize import linear_sum_assignment

    y = points.double()
    mean = y.mean(0)
    R, t = _similarity(y, mean.expand_as(y), torch.ones_like(y[..., 0]))
    mean = (y @ R.mT + t[:, None]).mean(0)
    mean = mean - mean.mean(0)
    size = mean.square().sum(-1).mean().sqrt()
    flipped = mean * mean.new_tensor([-1.0, 1.0])
    far = torch.cdist(flipped, mean)
    swap = torch.as_tensor(linear_sum_assignment(far.square().numpy())[1])
    ok = bool((swap[swap] == torch.arange(len(swap))).all()) and bool(size > 0)
    worst = float(far.gather(1, swap[:, None]).amax() / size.clamp_min(1e-12))
    return swap if ok and worst < 4 * _SWAP_LIMIT and bool((swap != torch.arange(len(swap))).any()) else None


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


def _spread_error(found: Tensor, true: Tensor) -> Tensor:
    """Mean error (n,) over the root mean square distance of the landmarks from their middle."""
    size = (true - true.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt().clamp_min(1e-6)
    return (found - true).norm(dim=-1).mean(1) / size


def _doubt(points: Tensor, before: Tensor) -> Tensor:
    """Logarithm (n,) of how far the last look has moved the landmarks, over their spread."""
    return _spread_error(before, points).clamp_min(1e-4).log()


def _confidence(points: Tensor, before: Tensor, doubt: Tensor) -> Tensor:
    return torch.sigmoid(doubt[0] * _doubt(points, before) + doubt[1])


def _calibrate(points: Tensor, before: Tensor, true: Tensor) -> Tensor:
    """Slope and offset (2,) of a logistic regression of "right" on doubt, by Newton's method; a weak prior holds it."""
    x = torch.stack([_doubt(points, before), torch.ones(len(points))], 1).double()
    right = (_spread_error(points, true) < _RIGHT).double()
    w = torch.zeros(2, dtype=torch.float64)
    prior = torch.tensor([0.5, 0.1], dtype=torch.float64)
    for _ in range(20):
        p = torch.sigmoid(x @ w)
        slope = x.T @ (right - p) - prior * w
        curve = (x * (p * (1 - p))[:, None]).T @ x + torch.diag(prior)
        w = w + torch.linalg.solve(curve, slope)
    return w.float()


def _logit(share: float) -> float:
    return float(torch.logit(torch.tensor(share)))
