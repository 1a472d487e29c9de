"""The node branch: farthest points of a cloud, moved by what a small PointNet sees around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geoframe._check import check_int
from geoframe.layers.mlp import BatchNorm, linear, shared_mlp
from geoframe.surface.clouds import check_clouds, gather_rows
from geoframe.surface.sampling import farthest_points


def farthest_nodes(points: Tensor, n: int) -> Tensor:
    """Farthest points of clouds, the first of them the one farthest from the centroid.

    So the choice does not depend on the order of the points (but for exact ties).

    Args:
        points: (B, N, 3).
        n: how many, at most N.

    Returns:
        (B, n) int64 indices into the points.
    """
    first = (points - points.mean(1, keepdim=True)).square().sum(-1).argmax(1, keepdim=True)
    led = torch.cat([gather_rows(points, first), points], dim=1).detach()
    rest = (
        farthest_points(led, n)[:, 1:] - 1
    )  # position 0 repeats the first point, which is never chosen again
    return torch.cat([first, rest], dim=1)


class NodeBranch(nn.Module):
    """Clouds to nodes in no particular order.

    M farthest points are the seeds, and every point belongs to the nearest of them. Two PointNets look at the points
    less the mean of their cluster, a third one gathers the k nearest clusters of each, and a head moves the node away
    from the mean of its cluster.

    Args:
        n_nodes: M, at least 2.
        neighbours: k, the cluster itself included.
        n_extra: E + 3, if `forward` gets features of the whole cloud (B, E); else 0.
        width: channels of a point's features; a cluster's has twice as many.

    Source: Fernandez-Labrador et al. 2020, section 4 and figure 2; widths are those of the released code.
    """

    def __init__(self, n_nodes: int, *, neighbours: int = 3, n_extra: int = 0, width: int = 64) -> None:
        super().__init__()
        self.n_nodes = check_int(n_nodes, "n_nodes", low=2)
        self.neighbours = check_int(neighbours, "neighbours", low=1, high=n_nodes)
        w = check_int(width, "width", low=1)
        self.point_mlp = shared_mlp((3, w, w, w), activate_last=False)
        self.spread = linear(
            w, 2 * w, bias=False
        )  # the second PointNet's first layer, split: the point's own
        self.spread_pooled = linear(
            w, 2 * w, bias=False
        )  # feature, and its cluster's, which is computed once
        self.spread_norm = BatchNorm(2 * w)
        self.cluster_mlp = linear(2 * w, 2 * w)
        self.before = shared_mlp((3 + 2 * w + n_extra, 4 * w, 4 * w, 4 * w))
        self.after = shared_mlp((8 * w, 8 * w, 8 * w), activate_last=False)
        self.head = shared_mlp((8 * w + 2 * w + n_extra, 8 * w, 4 * w))
        self.offset = nn.Linear(4 * w, 3)
        nn.init.normal_(self.offset.weight, std=1e-4)
        nn.init.zeros_(self.offset.bias)

    def forward(self, points: Tensor, extra: Tensor | None = None) -> Tensor:
        """Nodes of clouds; before any training they are near the means of their clusters.

        Args:
            points: (B, N, 3).
            extra: (B, E) features of the whole cloud; with them the cluster's position is a feature as well, and nodes
                no longer move with a cloud that is moved.

        Returns:
            (B, M, 3).

        Raises:
            TypeError, ValueError: not floating, another shape, NaN, fewer than M points that differ.
        """
        B, M = len(points), self.n_nodes
        check_clouds(points, M)
        seeds = gather_rows(points, farthest_nodes(points, M))
        _check_different(seeds)
        nearest = torch.cdist(points.detach(), seeds).argmin(-1)
        owner = (nearest + M * torch.arange(B, device=points.device)[:, None]).reshape(-1)
        x = points.reshape(-1, 3)
        count = torch.bincount(owner, minlength=B * M).clamp(min=1)[:, None].to(x.dtype)
        mean = torch.zeros(B * M, 3, dtype=x.dtype, device=x.device).index_add(0, owner, x) / count

        h = self.point_mlp(x - mean.index_select(0, owner))
        h = self._spread(h, _pool(h, owner, B * M), owner)
        local = _pool(self.cluster_mlp(h), owner, B * M).view(B, M, -1)

        centres = mean.view(B, M, 3)
        if extra is not None:
            local = torch.cat([local, centres, extra[:, None].expand(-1, M, -1)], dim=-1)
        wide = self._gather_neighbours(centres, local)
        return centres + self.offset(self.head(torch.cat([local, wide], dim=-1)))

    def _spread(self, h: Tensor, pooled: Tensor, owner: Tensor) -> Tensor:
        """First layer of the second PointNet: (n, 2 width) of the points' features and those of their clusters."""
        if self.training:
            h = self.spread(h) + self.spread_pooled(pooled).index_select(0, owner)
            return torch.relu(self.spread_norm(h))
        shared = self.spread_norm.folded(self.spread_pooled, pooled).index_select(0, owner)
        return (self.spread_norm.folded(self.spread, h, shift=False) + shared).relu_()

    def _gather_neighbours(self, centres: Tensor, features: Tensor) -> Tensor:
        """(B, M, 8 width): features pooled over the nearest clusters of each, by relative position."""
        near = torch.cdist(centres.detach(), centres.detach()).topk(self.neighbours, largest=False).indices
        relative = gather_rows(centres, near) - centres[:, :, None]
        h = self.before(torch.cat([relative, gather_rows(features, near)], dim=-1))  # (B, M, k, 4 width)
        both = torch.cat([h.amax(2, keepdim=True).expand_as(h), h], dim=-1)
        return self.after(both).amax(2)


def _check_different(seeds: Tensor) -> None:
    """Farthest points fall on each other only if a cloud has fewer points that differ."""
    M = seeds.shape[1]
    same = (seeds[:, :, None] == seeds[:, None]).all(-1).sum((1, 2)) > M
    if bool(same.any()):
        raise ValueError(
            f"points: expected at least {M} points that differ, found fewer in cloud {int(same.nonzero()[0])}"
        )


def _pool(x: Tensor, owner: Tensor, n: int) -> Tensor:
    """Maxima (n, C) over the rows of x (N, C) that each of n clusters owns; a cluster without rows gets zeros.

    The gradient goes to one row only where several are highest (corrupted clouds repeat points).
    """
    index = owner[:, None].expand_as(x)
    with torch.no_grad():
        top = x.new_zeros(n, x.shape[1]).scatter_reduce_(0, index, x, "amax", include_self=False)
        if not x.requires_grad:
            return top
        number = torch.arange(1, len(x) + 1, device=x.device, dtype=torch.int32)[:, None]
        rows = (x == top.index_select(0, owner)) * number
        winner = rows.new_zeros(top.shape).scatter_reduce_(0, index, rows, "amax").long()
    return torch.where(winner > 0, x.gather(0, (winner - 1).clamp(min=0)), top)
