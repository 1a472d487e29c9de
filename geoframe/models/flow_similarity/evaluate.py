"""How good features from motion are: a linear probe for the foreground, and the foreground found without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe.flow import dominant_motion, moving_pixels, otsu_threshold
from geoframe.models.flow_similarity.predictor import Predictor, cluster

Describe = Callable[[Tensor], Tensor]  # an image (3, H, W) to features (C, h, w)


def overlap(found: Tensor, mask: Tensor) -> float:
    """Intersection over union of two masks (H, W) bool; 1 where both are empty."""
    union = int((found | mask).sum())
    return int((found & mask).sum()) / union if union else 1.0


def linear_probe(
    describe: Describe,
    train: Sequence[tuple[Tensor, Tensor]],
    test: Sequence[tuple[Tensor, Tensor]],
    *,
    per_image: int = 300,
    seed: int = 0,
) -> float:
    """Mean intersection over union, in percent, of a linear classifier of frozen features.

    A logistic regression with a small ridge is fitted to features of random pixels of the training pictures; its
    threshold is the one best on those. At the test, scores are enlarged to the picture.

    Args:
        describe: gives the features of a picture.
        train: (image (3, H, W), mask (H, W) bool) each.
        test: likewise.
        per_image: pixels of a training picture.
        seed: of their choice.
    """
    generator = torch.Generator().manual_seed(seed)
    columns, labels = [], []
    for image, mask in train:
        field = describe(image)
        small = F.interpolate(mask[None, None].float(), size=field.shape[1:], mode="area")[0, 0].flatten()
        at = torch.randint(len(small), (per_image,), generator=generator)
        columns.append(field.flatten(1).T[at])
        labels.append((small[at] > 0.5).float())
    x, y = torch.cat(columns), torch.cat(labels)
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    weight, bias = _logistic((x - mean) / spread, y)
    score = ((x - mean) / spread) @ weight + bias
    cuts = torch.quantile(score, torch.linspace(0.02, 0.98, 49))
    best = max(cuts.tolist(), key=lambda c: overlap(score > c, y > 0.5))
    found = []
    for image, mask in test:
        field = describe(image)
        z = ((field.flatten(1).T - mean) / spread) @ weight + bias
        whole = F.interpolate(
            z.reshape(1, 1, *field.shape[1:]), size=mask.shape, mode="bilinear", align_corners=False
        )
        found.append(overlap(whole[0, 0] > best, mask))
    return 100 * sum(found) / len(found)


def _logistic(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(x.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x @ weight + bias, y) + 1e-3 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def foreground(
    features: Sequence[Tensor], flows: Sequence[Tensor], *, n_clusters: int = 8, seed: int = 0
) -> list[Tensor]:
    """The foreground of the frames of a sequence without labels: clusters of features that move otherwise than most.

    The pixels of all frames are grouped by their features; a group's motion is the mean, over its pixels, of how far
    they are off the affine motion of their frame, relative to that frame; Otsu's threshold, over pixels, says which
    groups move.

    Args:
        features: (D, h, w) of each frame.
        flows: (2, H, W) of each.
        n_clusters: groups a sequence.
        seed: of the groups.

    Returns:
        (H, W) bool each.
    """
    labels = cluster(features, n_clusters, seed=seed)
    moved = []
    for flow, label in zip(flows, labels, strict=True):
        residual = (flow - dominant_motion(flow)).norm(dim=0)
        small = F.interpolate(residual[None, None], size=label.shape, mode="area")[0, 0]
        moved.append(small / small.mean().clamp(min=1e-6))
    every, motion = torch.cat([x.flatten() for x in labels]), torch.cat([x.flatten() for x in moved])
    count = torch.bincount(every, minlength=n_clusters).clamp(min=1)
    mean = torch.bincount(every, motion, minlength=n_clusters) / count
    moving = mean > otsu_threshold(mean[every])
    found = []
    for flow, label in zip(flows, labels, strict=True):
        share = F.interpolate(
            moving[label][None, None].float(), size=flow.shape[1:], mode="bilinear", align_corners=False
        )
        found.append(share[0, 0] > 0.5)
    return found


def foreground_by_motion(features: Sequence[Tensor], flows: Sequence[Tensor]) -> list[Tensor]:
    """The foreground of the frames of a sequence without labels: what looks like that which moves otherwise.

    In each frame `moving_pixels` moves otherwise than most do. A logistic regression tells from the features of all
    frames which pixels these are; what it says, split by Otsu's threshold, is the foreground. Pixels that did not move
    but look like those that did are in it, and noise of the flow is not.

    Args:
        features: (D, h, w) of each frame.
        flows: (2, H, W) of each.

    Returns:
        (H, W) bool each.
    """
    columns = torch.cat([f.flatten(1).T for f in features])
    columns = (columns - columns.mean(0)) / columns.std(0).clamp(min=1e-6)
    moved = [
        F.interpolate(moving_pixels(flow)[None, None].float(), size=f.shape[1:], mode="area").flatten()
        for f, flow in zip(features, flows, strict=True)
    ]
    weight, bias = _logistic(columns, torch.cat(moved))
    said = torch.sigmoid(columns @ weight + bias).split([f.shape[1] * f.shape[2] for f in features])
    whole = [
        F.interpolate(
            part.reshape(1, 1, *f.shape[1:]), size=flow.shape[1:], mode="bilinear", align_corners=False
        )[0, 0]
        for part, f, flow in zip(said, features, flows, strict=True)
    ]
    threshold = otsu_threshold(torch.cat([x.flatten() for x in whole]))
    return [x > threshold for x in whole]


def evaluate(
    predictor: Predictor, pictures: Sequence[tuple[Tensor, Tensor]], *, seed: int = 0, stride: int = 4
) -> dict[str, Any]:
    """Measure features on pictures with masks: every second one is for the probe to learn from, the others test it.

    - probe_iou: `linear_probe` of the backbone's maps, percent;
    - probe_iou_embedding: of the embedding;
    - train, test: how many pictures.

    Args:
        predictor: that `train` or `load` gave.
        pictures: (image (3, H, W) in [0, 1], mask (H, W) bool) each.
        seed: of the sampled pixels.
        stride: pixels between features.

    Raises:
        ValueError: fewer than two pictures.
    """
    if len(pictures) < 2:
        raise ValueError(f"pictures: expected at least two, found {len(pictures)}")
    train, test = pictures[::2], pictures[1::2]
    return {
        "probe_iou": linear_probe(lambda x: predictor.columns(x, stride=stride), train, test, seed=seed),
        "probe_iou_embedding": linear_probe(
            lambda x: predictor.predict(x, stride=stride), train, test, seed=seed
        ),
        "train": len(train),
        "test": len(test),
    }
