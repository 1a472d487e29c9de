"""What follows the training: tilt, walls and confidence are learned, and their limits chosen on clouds set aside."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoframe import metrics
from geoframe.data import CloudSet, normalise
from geoframe.data.corruptions import corrupted
from geoframe.layers import symmetry_frame
from geoframe.placing.confidence import MOVED, Confidence, evidence, keypoint_gaps
from geoframe.placing.locate import INFERENCE_BATCH, locate, settle
from geoframe.placing.placement import Placement, train_placement

_EVERY = 8  # so many-th cloud is set aside
_FEWEST = 8  # of them: fewer say nothing about a few percent
_MOST = 96  # of them are corrupted in every way
_SOUND = 512  # of those that were learned from say what is odd and yet sound
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
    some = aside.first(_MOST)
    planes = len(metrics.symmetry_planes(other))
    told, gaps, moved, clean = [], [], [], []
    truth: Tensor | None = None
    for kind in _KINDS:
        worse, motion = corrupted(some.points, kind, up=some.up, seed=seed)
        located = locate(model, placement, worse)
        seen = [_seen(model, placement, confidence, group, p) for p in located.points.split(INFERENCE_BATCH)]
        keypoints, e, g = (torch.cat(x) for x in zip(*seen, strict=True))
        back = motion.inverse().after(located.motion)
        ways = torch.stack([back(k.double()) for k in _alike(keypoints, model.up, planes)])
        truth = ways[0] if truth is None else truth
        off = (ways - truth).norm(dim=-1).float()
        told.append(e)
        gaps.append(g)
        moved.append(off[off.mean(-1).argmin(0), torch.arange(len(e))])
        clean.append(torch.full((len(e),), kind in _CLEAN))
    tables = [torch.cat(x) for x in (told, gaps, moved, clean)]
    sound = learned.only(torch.linspace(0, len(learned) - 1, min(len(learned), _SOUND)).long().tolist())
    located = locate(model, placement, sound.points)
    parts = located.points.split(INFERENCE_BATCH)
    more = torch.cat([_seen(model, placement, confidence, group, p)[1] for p in parts])
    confidence.calibrate(tables[0], tables[1], tables[2], tables[3], more)
    score = confidence(tables[0], tables[1])[0]
    flagged, bad = score < confidence.limit, tables[2].mean(1) > MOVED
    shares = {
        "clean": float(flagged[tables[3]].double().mean()),
        "moved": float(flagged[bad].double().mean()),
        "others": float(flagged[~bad & ~tables[3]].double().mean()),
    }
    about = {"clouds": len(some), "kinds": len(_KINDS), "flagged": shares}
    about["planes"] = planes
    return Calibrated(placement, confidence, about)


def _alike(keypoints: Tensor, up: int, planes: int) -> tuple[Tensor, ...]:
    """Keypoints (B, K, 3) in the canonical frame, and those half a turn off where two planes make that the same."""
    if planes < 2:
        return (keypoints,)
    half = -torch.ones(3)
    half[up] = 1
    return keypoints, keypoints * half.to(keypoints)


def _upright(model: Any, points: Tensor) -> Tensor:
    """Clouds (n, N, 3) in the frame of the plane of symmetry, boxes at scale 2."""
    settled, _, _, rotation = settle(model, points)
    return normalise(settled @ rotation @ symmetry_frame(model.basis).mT)[0]


def _seen(
    model: Any, placement: Placement, confidence: Confidence, group: Tensor, points: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Final keypoints of clouds in the canonical frame, the evidence against them, and their gaps."""
    found = model(points, torch.eye(3).expand(len(points), 3, 3))
    found = found._replace(keypoints=metrics.merged(found.keypoints, group))
    told = evidence(model, placement, confidence.occupancy, points, found)
    return found.keypoints, told, keypoint_gaps(found.keypoints, found.nodes, points)
