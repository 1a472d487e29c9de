"""Whether the keypoints of a cloud are to be trusted, and how far each may be off: calibrated after the training.

What speaks against an answer is measured where the object was found, in the canonical frame: keypoints that no node
confirms, keypoints away from the points, points away from all keypoints, a cloud that does not fit the template of the
pose, and one whose points lie where those of the category do not. A small network judges all of it together with what
the networks make of the points; its verdict is evidence, too, weighed on clouds that it has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geoframe.layers import symmetry_frame
from geoframe.layers.logistic import fit_logistic
from geoframe.placing.judge import N_LOOKS, Judge
from geoframe.placing.placement import N_SEEN
from geoframe.surface.clouds import nearest_distances

MOVED = 0.1  # at scale 2: keypoints that moved farther, on average, are not to be trusted
_CELLS = (6, 12, 12)  # across (folded), along, up
_RANK = 24
_PENALTY = 1e-2  # of the weights of the evidence
_SHARES = (
    1.0,
    1.0,
    0.3,
)  # of clouds to be flagged, of clean ones, and of those that were corrupted and did not move
_CAP = 6.0  # standard deviations of the evidence that count
_CLEAN = 0.955  # of the clean clouds are trusted, most of which are odder than those of a collection
_CLEAN_ALONE = 0.965  # of them are not doubted by the measured evidence alone
_LEAST_MOVE = 0.005


class Occupancy(nn.Module):
    """Where the points of a category lie: a low-rank model of how many are in each cell of the canonical box.

    Args:
        rank: of the model.
    """

    mean: Tensor
    directions: Tensor
    spread: Tensor

    def __init__(self, rank: int = _RANK) -> None:
        super().__init__()
        n = _CELLS[0] * _CELLS[1] * _CELLS[2]
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("directions", torch.zeros(rank, n))
        self.register_buffer("spread", torch.ones(rank))

    @staticmethod
    def describe(points: Tensor) -> Tensor:
        """(B, cells) square roots of the shares of points (B, N, 3), in the frame of the plane of symmetry.

        Points count in the eight cells around them; what is outside of the box counts in the outermost ones.
        """
        from geoframe.placing._loops import count_in_cells

        clouds = points.detach().cpu().to(torch.promote_types(points.dtype, torch.float32)).contiguous()
        total = clouds.new_empty(len(clouds), math.prod(_CELLS))
        count_in_cells(clouds.numpy(), np.array(_CELLS), total.numpy())
        return total.to(points.device).sqrt()

    def learn(self, points: Tensor) -> None:
        """Mean and directions from clouds (n, N, 3)."""
        x = self.describe(points)
        self.mean.copy_(x.mean(0))
        rank = min(len(self.spread), len(x) - 1)
        _, s, v = torch.linalg.svd(x - self.mean, full_matrices=False)
        self.directions.zero_()
        self.directions[:rank] = v[:rank]
        self.spread[:rank] = (s[:rank] / (len(x) - 1) ** 0.5).clamp(min=1e-4)

    def forward(self, points: Tensor) -> Tensor:
        """(B, 2) how far clouds are from the model's subspace, and within it (root mean square, in its spreads)."""
        x = self.describe(points) - self.mean
        inside = x @ self.directions.mT
        rest = (x.square().sum(1) - inside.square().sum(1)).clamp(min=0).sqrt()
        return torch.stack([rest, (inside / self.spread).square().mean(1).sqrt()], 1)


@torch.no_grad()
def evidence(
    model: Any, occupancy: Callable[[Tensor], Tensor], points: Tensor, found: Any, left: Tensor
) -> Tensor:
    """What speaks against the keypoints of clouds; higher is worse, but for the sixth and seventh number.

    A cloud is compared with the category both ways: what of it lies where the category has nothing, and what of the
    category it lacks. Of what is left of a shape after a cut, its mirror image and other rotations tell.

    Args:
        model: a trained network.
        occupancy: what an `Occupancy` of the same category gives.
        points: (B, N, 3) in the canonical frame, boxes at scale 2.
        found: what the network says of them.
        left: (B, 2) tilt and walls that are still found, see `geoframe.placing.locate.Located`.

    Returns:
        (B, 16): logarithms of distances (keypoints to nodes, mean and largest; nodes to keypoints; keypoints to points,
        mean and largest; points to keypoints or nodes, mean and largest), of those from the low-rank model of the
        points and within it, and of those from the points to their mirror image, mean and nineteenth twentieth;
        misfit and asymmetry of the pose, its lead over rotations farther away, with a minus; tilt and walls that are
        still found.
    """
    K, N = found.keypoints, found.nodes
    some = points[:, :: max(1, points.shape[1] // N_SEEN)][:, :N_SEEN]
    to_node, to_point = keypoint_gaps(K, N, points).unbind(-1)
    from_node = nearest_distances(N, K)
    from_point = nearest_distances(some, torch.cat([K, N], 1))
    local = some @ symmetry_frame(model.basis).mT
    fits = model.pose.fit_upright(some)
    off = occupancy(local)
    mirrored = nearest_distances(local, local * local.new_tensor([-1.0, 1.0, 1.0]))
    distances = (
        to_node.mean(1),
        to_node.amax(1),
        from_node.mean(1),
        to_point.mean(1),
        to_point.amax(1),
        from_point.mean(1),
        from_point.amax(1),
    )
    apart = mirrored.mean(1), mirrored.kthvalue(math.ceil(0.95 * mirrored.shape[1]), 1).values
    logs = torch.stack([*distances, *off.unbind(1), *apart], 1).clamp(min=1e-4).log()
    rest = torch.stack([1 - fits[:, 0], 1 - fits[:, 1], -fits[:, 2]], 1)
    return torch.cat([logs, rest, left.to(logs)], 1)


FORMAT = 18  # of what a stored `Confidence` holds: raise it when that changes
N_MEASURED = 16  # numbers of `evidence`
N_EVIDENCE = N_MEASURED + 1  # with the verdict of the judge
_OF_MEASURED = [
    *range(N_MEASURED),
    *range(N_EVIDENCE, N_EVIDENCE + N_MEASURED),
    2 * N_EVIDENCE,
]  # of `doubt_terms`


class Confidence(nn.Module):
    """Scores of clouds and uncertainties of keypoints from the evidence; to be calibrated first.

    Args:
        n_keypoints: final ones.

    Attributes:
        occupancy: where the points of the category lie.
        judge: what judges the evidence together with the looks of the networks.
        alone: weights of the measured evidence without the judge.
        beside: what is added to its doubt, to be compared with that of all.
        limit: score below which keypoints are not to be trusted.
    """

    middle: Tensor
    spread: Tensor
    weights: Tensor
    alone: Tensor
    beside: Tensor
    limit: Tensor
    moves: Tensor

    def __init__(self, n_keypoints: int) -> None:
        super().__init__()
        self.occupancy = Occupancy()
        self.judge = Judge(N_LOOKS + N_MEASURED)
        self.register_buffer("middle", torch.zeros(N_EVIDENCE))
        self.register_buffer("spread", torch.ones(N_EVIDENCE))
        self.register_buffer("weights", torch.zeros(2 * N_EVIDENCE + 1))
        self.register_buffer("alone", torch.zeros(2 * N_MEASURED + 1))
        self.register_buffer("beside", torch.tensor(-1e9))
        self.register_buffer("limit", torch.tensor(0.0))
        self.register_buffer("moves", torch.zeros(n_keypoints + 3))

    def judged(self, evidence: Tensor, looks: Tensor) -> Tensor:
        """(B, 17) the evidence (B, 16), and what the judge says of it with the looks (B, 512) of the networks."""
        return torch.cat([evidence, self.judge(torch.cat([looks, evidence], 1))[:, None]], 1)

    def forward(self, evidence: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """How sure the keypoints of clouds are.

        Args:
            evidence: (B, 17), see `judged`.
            gaps: (B, K, 2) of the final keypoints, see `keypoint_gaps`.

        Returns:
            score: (B,) in [0, 1]: where there are as many clean clouds as such as do not keep their keypoints, and a
                third as many corrupted ones that do, the share that keeps them among the ones like this by the judge;
                less where the measured evidence alone is beyond that of clean clouds; 0 where it is not a number.
            uncertainty: (B, K) at scale 2: nine of ten keypoints like this are nearer to where they would be found on
                the whole, clean cloud.
        """
        doubt = self._doubt(evidence)
        far = self._features(doubt, gaps) @ self.moves
        return torch.sigmoid(-doubt), far.exp().clamp(max=2.0)

    def calibrate(
        self, evidence: Tensor, gaps: Tensor, moved: Tensor, clean: Tensor, other: Tensor | None = None
    ) -> None:
        """Learn the weights of the evidence, the limit and the uncertainties.

        The doubt is that of the evidence with the judge's verdict, or of the measured evidence alone where that is
        beyond what 96.5 % of the clean clouds have: a judge knows the objects that it has learned from. The limit lets
        through 95.5 % of all clean clouds.

        Args:
            evidence: (n, 17) of clouds, clean and corrupted ones, that the judge has not seen.
            gaps: (n, K, 2).
            moved: (n, K) how far keypoints moved by the corruption, at scale 2.
            clean: (n,) bool, which clouds are clean.
            other: (n,) bool, which are of another category: to be flagged, wherever their keypoints are. None for none.
        """
        other = torch.zeros_like(clean) if other is None else other
        bad = (moved.mean(1) > MOVED) | other
        self.middle.copy_(evidence[clean].mean(0))
        self.spread.copy_(evidence[clean].std(0).clamp(min=1e-4))
        self.weights.copy_(fit_doubt(self._terms(evidence), bad, clean))
        mine = self._terms(evidence)[:, _OF_MEASURED]
        self.alone.copy_(fit_doubt(mine[~other], bad[~other], clean[~other]))
        judged = self._terms(evidence) @ self.weights
        self.beside.copy_(judged[clean].quantile(_CLEAN) - (mine @ self.alone)[clean].quantile(_CLEAN_ALONE))
        doubt = self._doubt(evidence)
        self.limit.copy_(torch.sigmoid(-doubt[clean].quantile(_CLEAN)))
        features = self._features(doubt, gaps)[~other].flatten(0, 1).double()
        target = (moved[~other].flatten() + _LEAST_MOVE).log().double()
        ridge = 1e-3 * len(features) * torch.eye(features.shape[1], dtype=torch.float64)
        moves = torch.linalg.solve(features.mT @ features + ridge, features.mT @ target)
        rest = (target - features @ moves).quantile(0.9)
        moves[:-3] += rest
        self.moves.copy_(moves)

    def _terms(self, evidence: Tensor) -> Tensor:
        return doubt_terms((evidence - self.middle) / self.spread)

    def _doubt(self, evidence: Tensor) -> Tensor:
        """(B,) log-odds, the larger of those with the judge's verdict and those of what was measured alone."""
        terms = self._terms(evidence)
        both = torch.maximum(terms @ self.weights, terms[:, _OF_MEASURED] @ self.alone + self.beside)
        return both.nan_to_num(nan=_CAP * 10)  # what cannot be measured is not trusted

    def _features(self, doubt: Tensor, gaps: Tensor) -> Tensor:
        """(B, K, K + 3) of every keypoint: which one it is, the doubt about its cloud, logarithms of its distances."""
        B, K = gaps.shape[:2]
        which = torch.eye(K, dtype=gaps.dtype, device=gaps.device).expand(B, K, K)
        cloud = doubt.clamp(-_CAP, _CAP)[:, None, None].expand(B, K, 1)
        return torch.cat([which, cloud, (gaps + 0.01).log()], -1)


def doubt_terms(z: Tensor) -> Tensor:
    """(B, 2 n + 1): evidence (B, n) in its spreads among clean clouds, squares of what is worse, and 1."""
    z = z.clamp(-_CAP, _CAP)
    return torch.cat([z, z.clamp(min=0).square() / 4, torch.ones_like(z[:, :1])], 1)


def fit_doubt(terms: Tensor, bad: Tensor, clean: Tensor) -> Tensor:
    """Weights (d,), float64, of `doubt_terms` (n, d): log-odds that a cloud is bad, where each kind counts as it is to.

    Args:
        terms: of clouds.
        bad: (n,) bool, which are to be flagged.
        clean: (n,) bool, which are clean.
    """
    weight = torch.zeros(len(bad), dtype=torch.float64)
    for rows, share in zip((bad & ~clean, clean, ~bad & ~clean), _SHARES, strict=True):
        weight[rows] = share / max(1, int(rows.sum()))
    return fit_logistic(terms, bad, penalty=_PENALTY, weight=weight * len(bad) / weight.sum())


def keypoint_gaps(keypoints: Tensor, nodes: Tensor, points: Tensor) -> Tensor:
    """(B, K, 2) distances of every keypoint to the nearest node and to the nearest point."""
    return torch.stack([nearest_distances(keypoints, x) for x in (nodes, points)], -1)
