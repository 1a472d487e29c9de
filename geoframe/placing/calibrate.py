"""What follows the training: tilt, walls and confidence are learned, and their limits chosen on clouds set aside."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoframe import metrics
from geoframe._random import seeded
from geoframe.data import CloudSet, normalise
from geoframe.data.corruptions import corrupted
from geoframe.layers import symmetry_frame
from geoframe.placing.confidence import (
    MOVED,
    Confidence,
    Occupancy,
    doubt_terms,
    evidence,
    fit_doubt,
    keypoint_gaps,
)
from geoframe.placing.judge import Cases, Judge, looks, train_judge
from geoframe.placing.locate import INFERENCE_BATCH, Located, locate, settle
from geoframe.placing.look_again import sides_of_box
from geoframe.placing.placement import N_SEEN, Placement, train_placement
from geoframe.placing.unusual import objects, unusual
from geoframe.transforms import Similarity, rotation_about_axis

_EVERY = 8  # so many-th cloud is set aside
_FEWEST = 8  # of them: fewer say nothing about a few percent
_FOLDS = 4  # parts of the clouds: where points of a category lie is learned from the other parts
_STEPS = (
    400  # of the training of the placement for which the numbers below are meant; with fewer they are smaller
)
_JUDGE_STEPS = 3000


class Amount(NamedTuple):
    """How many shapes go through how many kinds of corruption each, besides being looked at as they are."""

    shapes: int
    kinds: int


_LEARNED, _LEARNED_ODD = Amount(800, 4), Amount(2400, 4)  # what the judge learns from
_ASIDE, _ASIDE_ODD = Amount(128, 10), Amount(512, 7)  # what its verdict is weighed on
_OBJECTS, _OBJECTS_ASIDE = 2400, 800  # of no category
_OBJECT_POINTS = 1024
_FITTING = 0.98  # of the clean clouds are nearer to the category than objects that are called others
_CLEAN = ("clean", "turned 75", "turned 180")
_KINDS = (  # of `geoframe.data.corruptions`, and the two of `_looked_at`
    *_CLEAN,
    "stray point",
    "outliers around",
    "outliers inside",
    "floor",
    "tilted 10",
    "tilted 15",
    "upside down",
    "another axis up",
    "cut 30 %",
    "cut 30 % below",
    "half",
    "lateral half",
    "nearer half",
    "one view",
    "top-heavy",
    "noise 2 %",
    "few points",
    "another turn",
    "another side",
)


class Calibrated(NamedTuple):
    """What `calibrate` makes; `about` says on how many clouds, and the shares that are flagged there."""

    placement: Placement
    confidence: Confidence
    about: dict[str, Any]


def set_aside(clouds: CloudSet) -> tuple[CloudSet, CloudSet | None]:
    """Clouds to learn from, and those to calibrate with, every eighth; None where these would be fewer than eight."""
    n = len(clouds)
    aside = range(_EVERY - 1, n, _EVERY)
    if len(aside) < _FEWEST:
        return clouds, None
    return clouds.only(i for i in range(n) if i not in aside), clouds.only(aside)


class _Table(NamedTuple):
    """What was measured of clouds: evidence (n, 16), looks (n, 512), gaps and moves of keypoints, which are clean."""

    evidence: Tensor
    looks: Tensor
    gaps: Tensor
    moved: Tensor
    clean: Tensor

    @property
    def bad(self) -> Tensor:
        """(n,) whose keypoints moved."""
        return self.moved.mean(1) > MOVED

    @property
    def features(self) -> Tensor:
        """(n, 528) what the judge sees."""
        return torch.cat([self.looks, self.evidence], 1)


class _Setting(NamedTuple):
    """What clouds are measured with: the parts of the model, `turns` that leave the category alike, and a seed."""

    model: Any
    placement: Placement
    occupancies: list[Occupancy]
    group: Tensor
    turns: int
    seed: int


@torch.no_grad()
def calibrate(
    model: Any, group: Tensor, learned: CloudSet, aside: CloudSet, steps: int, seed: int = 0
) -> Calibrated:
    """Learn placement and confidence of a trained network.

    A judge learns from the clouds of the training, as they are and made odd, corrupted in every way; its verdict is
    weighed, and the limit set, on clouds that were set aside, likewise.

    Args:
        model: in evaluation mode.
        group: (K,) final keypoint of each of the network's.
        learned: the clouds that it was trained on, normalised.
        aside: clouds that it was not trained on, normalised.
        steps: of the training of the placement; fewer than 400 make the rest smaller, too.
        seed: of all that is random.
    """
    whole, other = (_upright(model, x.points) for x in (learned, aside))
    with torch.enable_grad():
        placement = train_placement(whole, steps=steps, seed=seed)
    placement.requires_grad_(False).set_limits(other)
    with seeded(seed):
        confidence = Confidence(int(group.max()) + 1)
    confidence.occupancy.learn(whole)
    occupancies = [_occupancy_without(whole, part) for part in range(_FOLDS)] + [confidence.occupancy]
    turns = metrics.symmetry_turns(other)
    setting = _Setting(model, placement, occupancies, group, turns, seed)
    share = min(1.0, steps / _STEPS)
    fold = torch.arange(len(whole)) % _FOLDS
    mine = _measured(setting, learned.points, whole, fold, _LEARNED, _LEARNED_ODD, share)
    alien = _objects(setting, mine, max(1, math.ceil(share * _OBJECTS)), seed)
    confidence.judge = _judge(mine, alien, math.ceil(share * _JUDGE_STEPS), seed)
    fold = torch.full((len(other),), _FOLDS)  # those set aside are in none of the parts
    theirs = _measured(setting, aside.points, other, fold, _ASIDE, _ASIDE_ODD, share)
    more = _objects(setting, mine, max(1, math.ceil(share * _OBJECTS_ASIDE)), seed + 1)
    foreign = torch.arange(len(theirs.clean) + len(more.clean)) >= len(theirs.clean)
    both = _joined([theirs, more])
    told = confidence.judged(both.evidence, both.looks)
    confidence.calibrate(told, both.gaps, both.moved, both.clean, foreign)
    flagged = confidence(told, both.gaps)[0] < confidence.limit
    kinds = {"clean": both.clean, "moved": both.bad & ~foreign, "objects": foreign}
    kinds["others"] = ~both.bad & ~both.clean & ~foreign
    about: dict[str, Any] = {"clouds": len(whole) + len(other), "looks": [len(mine.clean), len(theirs.clean)]}
    about["flagged"] = {k: float(flagged[rows].double().mean()) for k, rows in kinds.items()}
    about |= {"planes": len(metrics.symmetry_planes(other)), "turns": turns}
    return Calibrated(placement, confidence, about)


def _measured(
    s: _Setting, points: Tensor, whole: Tensor, fold: Tensor, plain: Amount, odd: Amount, share: float
) -> _Table:
    """What is measured of clouds as they are and of odd shapes made of them, clean and corrupted.

    Args:
        s: what they are measured with.
        points: (n, N, 3) the clouds.
        whole: (n, N, 3) the same in the frame of the plane of symmetry.
        fold: (n,) by which model of where points lie each is judged.
        plain: how many clouds at most go through how many kinds.
        odd: how many odd shapes go through how many kinds.
        share: of both numbers of shapes.
    """
    n, generator = len(points), torch.Generator().manual_seed(s.seed)
    few = torch.linspace(0, n - 1, min(n, max(_FEWEST, round(share * plain.shapes)))).round().long()
    made = [_corrupted(s, points[few], fold[few], plain.kinds, s.seed)]
    left, turn = max(_FEWEST, round(share * odd.shapes)), 1
    while left > 0:
        some = torch.randperm(n, generator=generator)[:left]
        shapes = unusual(whole[some], generator) @ symmetry_frame(s.model.basis)
        made.append(_corrupted(s, shapes, fold[some], odd.kinds, s.seed + turn))
        left, turn = left - len(some), turn + 1
    return _joined(made)


def _corrupted(s: _Setting, points: Tensor, fold: Tensor, kinds: int, seed: int) -> _Table:
    """What is measured of clouds (n, N, 3) as they are and after some kinds of corruption."""
    made: list[_Table] = []
    truth: Tensor | None = None
    for kind, rows in _plan(len(points), kinds, seed):
        located, motion = _looked_at(s, points[rows], kind, seed)
        keypoints, told, looked, gaps = _seen(s, fold[rows], located)
        back = motion.inverse().after(located.motion)
        ways = torch.stack([back(k.double()) for k in _alike(keypoints, s.model.up, s.turns)])
        truth = ways[0] if truth is None else truth  # of all clouds, as they are clean in the first run
        off = (ways - truth[rows]).norm(dim=-1).float()
        moved = off[off.mean(-1).argmin(0), torch.arange(len(rows))]
        made.append(_Table(told, looked, gaps, moved, torch.full((len(rows),), kind in _CLEAN)))
    return _joined(made)


def _looked_at(s: _Setting, points: Tensor, kind: str, seed: int) -> tuple[Located, Similarity]:
    """Where the objects of clouds are found after a corruption, or in the frames of `geoframe.placing.look_again`."""
    up, which = s.model.up, torch.arange(len(points))
    if kind == "another turn":
        R = rotation_about_axis((1 + which % 3).double() * (math.pi / 2), up)
    elif kind == "another side":
        R = torch.stack(sides_of_box(up))[which % 5]
    else:
        worse, motion = corrupted(points, kind, up=up, seed=seed)
        return locate(s.model, s.placement, worse), motion
    motion = Similarity(R, R.new_zeros(len(R), 3), R.new_ones(len(R)))
    return locate(s.model, s.placement, motion(points.double()), any_turn=kind != "another turn"), motion


def _objects(s: _Setting, mine: _Table, n: int, seed: int) -> _Table:
    """What is measured of objects of no category, less those that by the evidence may be of this one.

    Args:
        s: what they are measured with.
        mine: of clouds of the category.
        n: how many objects are made.
        seed: of their shapes.
    """
    shapes = objects(n, _OBJECT_POINTS, torch.Generator().manual_seed(seed))
    located = locate(s.model, s.placement, shapes @ symmetry_frame(s.model.basis))
    keypoints, told, looked, gaps = _seen(s, torch.full((n,), _FOLDS), located)
    middle, spread = mine.evidence[mine.clean].mean(0), mine.evidence[mine.clean].std(0).clamp(min=1e-4)
    terms = doubt_terms((mine.evidence - middle) / spread).double()
    weights = fit_doubt(terms, mine.bad, mine.clean)
    most = (terms[mine.clean] @ weights).quantile(_FITTING)
    far = doubt_terms((told - middle) / spread).double() @ weights > most
    moved = torch.full(keypoints.shape[:2], torch.inf)
    clean = torch.zeros(len(far), dtype=torch.bool)
    return _Table(told[far], looked[far], gaps[far], moved[far], clean[far])


def _judge(mine: _Table, alien: _Table, steps: int, seed: int) -> Judge:
    """A judge that has learned from clouds of the category and from other objects."""
    both = _joined([mine, alien])
    other = torch.arange(len(both.clean)) >= len(mine.clean)
    with torch.enable_grad():
        judge = train_judge(Cases(both.features, both.bad, both.clean, other), steps=steps, seed=seed)
    return judge.requires_grad_(False)


def _joined(tables: list[_Table]) -> _Table:
    return _Table(*(torch.cat(x) for x in zip(*tables, strict=True)))


def _plan(n: int, kinds: int, seed: int) -> list[tuple[str, Tensor]]:
    """Which of n clouds go through which kind of corruption: first all as they are, then each through some others.

    Every kind has about as many clouds as every other one.
    """
    corrupting = _KINDS[1:]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    first = torch.arange(n) * kinds % len(corrupting)
    plan = [(_KINDS[0], torch.arange(n))]
    for i, kind in enumerate(corrupting):
        rows = order[(i - first) % len(corrupting) < kinds]
        plan += [(kind, rows)] if len(rows) else []
    return plan


def _occupancy_without(whole: Tensor, part: int) -> Occupancy:
    """Where the points of upright clouds lie, learned without every fourth of them."""
    made = Occupancy()
    left = torch.arange(len(whole)) % _FOLDS != part
    made.learn(whole[left] if int(left.sum()) > 1 else whole)
    return made


def _alike(keypoints: Tensor, up: int, turns: int) -> tuple[Tensor, ...]:
    """Keypoints (B, K, 3) in the canonical frame after each of the turns that leave the category alike."""
    angles = torch.arange(turns, dtype=torch.float64) * (2 * math.pi / turns)
    return tuple(keypoints @ R.to(keypoints).mT for R in rotation_about_axis(angles, up))


def _upright(model: Any, points: Tensor) -> Tensor:
    """Clouds (n, N, 3) in the frame of the plane of symmetry, boxes at scale 2."""
    settled, _, _, rotation = settle(model, points)
    return normalise(settled @ rotation @ symmetry_frame(model.basis).mT)[0]


def _seen(s: _Setting, fold: Tensor, located: Located) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Final keypoints of located clouds in the canonical frame, the evidence against them, their looks, their gaps.

    Args:
        s: what they are measured with.
        fold: (B,) int64, by which model of where points lie each cloud is judged.
        located: what `locate` says of them.
    """
    made = []
    parts = (x.split(INFERENCE_BATCH) for x in (located.points.float(), located.left.float(), fold))
    for p, left, f in zip(*parts, strict=True):
        found = s.model(p, torch.eye(3).expand(len(p), 3, 3), node_points=N_SEEN)
        found = found._replace(keypoints=metrics.merged(found.keypoints, s.group))
        told = evidence(s.model, partial(_judged, s.occupancies, f), p, found, left)
        gaps = keypoint_gaps(found.keypoints, found.nodes, p)
        made.append((found.keypoints, told, looks(s.model, s.placement, p), gaps))
    keypoints, told, looked, gaps = (torch.cat(x) for x in zip(*made, strict=True))
    return keypoints, told, looked, gaps


def _judged(models: list[Occupancy], which: Tensor, points: Tensor) -> Tensor:
    """(B, 2) of clouds (B, N, 3), each judged by one of several models of where points lie, `which` (B,)."""
    out = points.new_zeros(len(points), 2)
    for i in which.unique().tolist():
        rows = which == i
        out[rows] = models[i](points[rows])
    return out
