"""A small network that judges whether the keypoints of a cloud are where they would be on the whole, clean object.

It sees what the two networks that stand already make of the points, the one of the keypoints and the one of tilt and
walls, and the evidence of `geoframe.placing.confidence`. So it costs little, and needs few clouds to learn from.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._check import check_int
from geoframe._random import seeded
from geoframe.layers import symmetry_frame
from geoframe.placing.placement import N_SEEN, Placement
from geoframe.surface.clouds import thinned

N_LOOKS = 512  # numbers of `looks`
_WIDTHS = (128, 64)
_DROPPED = 0.2
_BATCH = 256
_LR = 1e-3
_DECAY = 1e-2
_SHARES = (0.33, 0.29, 0.21, 0.17)  # of a batch: what moved, what is clean, what did not move, other objects
_CAP = 8.0  # standard deviations of a feature that count


@torch.no_grad()
def looks(model: Any, placement: Placement, points: Tensor) -> Tensor:
    """(B, 512) what the networks of keypoints and of the placement make of clouds, pooled over their points.

    Args:
        model: a trained network.
        placement: of the same category.
        points: (B, N, 3) in the canonical frame, boxes at scale 2.
    """
    some = thinned(points, N_SEEN) @ symmetry_frame(model.basis).mT
    folded = torch.cat([some[..., :1].abs(), some[..., 1:]], dim=-1) if model.fold else some
    return torch.cat([placement.branch.pooled(some), model.global_branch.pooled(folded)], dim=-1)


class Judge(nn.Module):
    """Features of clouds to the log-odds that their keypoints moved; 0 before training.

    Args:
        n_features: of a cloud.
    """

    middle: Tensor
    spread: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("middle", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(n_features))
        layers: list[nn.Module] = []
        for a, b in zip((n_features, *_WIDTHS), _WIDTHS, strict=False):
            layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(_DROPPED)]
        last = nn.Linear(_WIDTHS[-1], 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, features: Tensor) -> Tensor:
        """Log-odds (B,) of clouds with these features (B, n_features)."""
        x = ((features - self.middle) / self.spread).clamp(-_CAP, _CAP)
        return self.layers(x)[:, 0]


class Cases(NamedTuple):
    """What a judge learns from.

    Attributes:
        features: (n, F).
        moved: (n,) bool, whether keypoints moved.
        clean: (n,) bool, whether the cloud is a clean one.
        other: (n,) bool, whether it is of another category; these are in `moved` too.
    """

    features: Tensor
    moved: Tensor
    clean: Tensor
    other: Tensor


def train_judge(cases: Cases, *, steps: int, seed: int = 0) -> Judge:
    """Learn to tell clouds whose keypoints moved from those that kept them.

    Args:
        cases: clouds of the four kinds; a kind may be empty.
        steps: batches of 256 clouds.
        seed: of the initial weights and of the batches.

    Returns:
        The network in evaluation mode.

    Raises:
        ValueError: no clouds at all.
    """
    check_int(steps, "steps", low=0)
    x = cases.features
    if not len(x):
        raise ValueError("cases: expected at least one cloud, found none")
    kinds = (
        cases.moved & ~cases.other & ~cases.clean,
        cases.clean,
        ~cases.moved & ~cases.clean,
        cases.other,
    )
    rows = [kind.nonzero()[:, 0] for kind in kinds]
    counts = [round(_BATCH * share) for share in _SHARES]
    with seeded(seed):
        model = Judge(x.shape[1])
        model.middle.copy_(x.mean(0))
        model.spread.copy_(x.std(0, correction=0) + 1e-3)
        optimiser = torch.optim.AdamW(model.parameters(), lr=_LR, weight_decay=_DECAY)
        model.train()
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = _LR * 0.5 * (1 + math.cos(math.pi * step / steps))
            chosen = torch.cat(
                [r[torch.randint(len(r), (n,))] for r, n in zip(rows, counts, strict=True) if len(r)]
            )
            loss = F.binary_cross_entropy_with_logits(model(x[chosen]), cases.moved[chosen].to(x))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval()
