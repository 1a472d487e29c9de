"""What follows the training: tilt, walls and confidence are learned, and their limits chosen on clouds set aside."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoframe import metrics
from geoframe.data import CloudSet, normalise
from geoframe.data.corruptions import corrupted
from geoframe.layers import symmetry_frame
from geoframe.placing.confidence import MOVED, Confidence, Occupancy, evidence, keypoint_gaps
from geoframe.placing.locate import INFERENCE_BATCH, Located, locate, settle
from geoframe.placing.placement import N_SEEN, Placement, train_placement
from geoframe.transforms import rotation_about_axis

_EVERY = 8  # so many-th cloud is set aside
_FEWEST = 8  # of them: fewer say nothing about a few percent
_MOST = (
    512  # clouds that are corrupted: those set aside, and of those learned from as many as there is room for
)
_RUNS = 2400  # corrupted clouds, about, whatever the number of clouds
_FOLDS = 4  # parts of the clouds: where points of a category lie is learned from the other parts
_CLEAN = ("clean", "turned 75", "turned 180")
_KINDS = (
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


@torch.no_grad()
def calibrate(
    model: Any, group: Tensor, learned: CloudSet, aside: CloudSet, steps: int, seed: int = 0
) -> Calibrated:
    """Learn placement and confidence of a trained network.

    Args:
        model: in evaluation mode.
        group: (K,) final keypoint of each of the network's.
        learned: the clouds that it was trained on, normalised.
        aside: clouds that it was not trained on, normalised.
        steps: of the training of the placement.
        seed: of all that is random.
    """
    whole, other = (_upright(model, x.points) for x in (learned, aside))
    with torch.enable_grad():
        placement = train_placement(whole, steps=steps, seed=seed)
    placement.requires_grad_(False).set_limits(other)
    confidence = Confidence(int(group.max()) + 1)
    confidence.occupancy.learn(whole)
    chosen = torch.linspace(0, len(whole) - 1, min(len(whole), max(0, _MOST - len(aside)))).long()
    fold = torch.cat([chosen % _FOLDS, torch.full((len(aside),), _FOLDS)])  # those set aside are in none
    occupancies = [_occupancy_without(whole, part) for part in range(_FOLDS)] + [confidence.occupancy]
    points = torch.cat([learned.points[chosen], aside.points])
    turns = metrics.symmetry_turns(other)
    plan = _plan(len(points), seed)
    told, gaps, moved, clean = [], [], [], []
    truth: Tensor | None = None
    for kind, rows in plan:
        worse, motion = corrupted(points[rows], kind, up=aside.up, seed=seed)
        located = locate(model, placement, worse)
        keypoints, e, g = _seen(model, occupancies, fold[rows], group, located)
        back = motion.inverse().after(located.motion)
        ways = torch.stack([back(k.double()) for k in _alike(keypoints, model.up, turns)])
        truth = ways[0] if truth is None else truth  # of all clouds, as they are clean in the first run
        off = (ways - truth[rows]).norm(dim=-1).float()
        told.append(e)
        gaps.append(g)
        moved.append(off[off.mean(-1).argmin(0), torch.arange(len(e))])
        clean.append(torch.full((len(e),), kind in _CLEAN))
    tables = [torch.cat(x) for x in (told, gaps, moved, clean)]
    confidence.calibrate(*tables)
    score = confidence(tables[0], tables[1])[0]
    flagged, bad = score < confidence.limit, tables[2].mean(1) > MOVED
    shares = {
        "clean": float(flagged[tables[3]].double().mean()),
        "moved": float(flagged[bad].double().mean()),
        "others": float(flagged[~bad & ~tables[3]].double().mean()),
    }
    about = {"clouds": len(points), "kinds": len(_KINDS), "flagged": shares}
    about |= {"planes": len(metrics.symmetry_planes(other)), "turns": turns}
    return Calibrated(placement, confidence, about)


def _plan(n: int, seed: int) -> list[tuple[str, Tensor]]:
    """Which of n clouds go through which kind of corruption: first all as they are, then some through each other kind.

    Every cloud goes through about as many kinds as every other one.
    """
    each = min(n, max(1, _RUNS // len(_KINDS)))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    plan = [(_KINDS[0], torch.arange(n))]
    return plan + [(k, order[(i * each + torch.arange(each)) % n]) for i, k in enumerate(_KINDS[1:])]


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


def _seen(
    model: Any, occupancies: list[Occupancy], fold: Tensor, group: Tensor, located: Located
) -> tuple[Tensor, Tensor, Tensor]:
    """Final keypoints of located clouds in the canonical frame, the evidence against them, and their gaps.

    Args:
        model: as of `calibrate`.
        occupancies: where the points of the category lie.
        fold: (B,) int64, by which of these each cloud is judged.
        group: (K,) as of `calibrate`.
        located: what `locate` says of them.
    """
    keypoints, told, gaps = [], [], []
    parts = (x.split(INFERENCE_BATCH) for x in (located.points, located.left, fold))
    for p, left, f in zip(*parts, strict=True):
        found = model(p, torch.eye(3).expand(len(p), 3, 3), node_points=N_SEEN)
        found = found._replace(keypoints=metrics.merged(found.keypoints, group))
        keypoints.append(found.keypoints)
        told.append(evidence(model, partial(_judged, occupancies, f), p, found, left))
        gaps.append(keypoint_gaps(found.keypoints, found.nodes, p))
    return torch.cat(keypoints), torch.cat(told), torch.cat(gaps)


def _judged(models: list[Occupancy], which: Tensor, points: Tensor) -> Tensor:
    """(B, 2) of clouds (B, N, 3), each judged by one of several models of where points lie, `which` (B,)."""
    out = points.new_zeros(len(points), 2)
    for i in which.unique().tolist():
        rows = which == i
        out[rows] = models[i](points[rows])
    return out
