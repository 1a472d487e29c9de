"""How a cloud lies in the canonical frame when its box does not tell: because it is tilted, or cut.

A cloud that was cut has another box than the whole object, and one that stands on a slope another than one that stands
upright. A small network looks at the cloud as the pose and the box have placed it, and tells the tilt that is left and
how far the walls of the whole, upright object are from those of the cloud.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._check import check_int
from geoframe._random import seeded
from geoframe.layers import GlobalBranch
from geoframe.surface.clouds import box, gather_rows
from geoframe.transforms import rotvec_to_rotation

N_SEEN = 512  # points that the network looks at
_BATCH = 32
_LR = 2e-3
_LARGEST_TILT = math.radians(22)
_LARGEST_CUT = 0.55  # share of the points
_ODDITY = 1.0  # how much shapes are varied at most
_FLAT, _FROM_BELOW = 0.3, 0.1  # shares of the cuts that are vertical, and that are horizontal


class Placed(NamedTuple):
    """What is to be said of clouds in the frame of the plane of symmetry (across, along, up), boxes at scale 2.

    Attributes:
        tilt: (B, 3) rotation vector from the upright object to the cloud; its third number, about the vertical, is 0.
        walls: (B, 6) how far the object's walls are outside of those of the cloud once that is upright, three low and
            three high ones, at scale 2 of the upright cloud; negative where points are not of the object.
    """

    tilt: Tensor
    walls: Tensor


class Placement(nn.Module):
    """Tilt and walls of clouds; all 0 before training.

    Attributes:
        least_tilt: radians below which a tilt is noise, from clean clouds that were set aside.
        least_wall: the same of the largest of the six distances.
    """

    least_tilt: Tensor
    least_wall: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.branch = GlobalBranch(8, n_extra=6, hidden=(64, 128), head=(192, 96))
        nn.init.zeros_(self.branch.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.branch.head[-1].bias)  # type: ignore[arg-type]
        for name in ("least_tilt", "least_wall"):
            self.register_buffer(name, torch.tensor(torch.finfo(torch.float32).max))

    def forward(self, points: Tensor) -> Placed:
        """Look at clouds (B, N, 3), see `Placed`."""
        out = self.branch(points, torch.cat(box(points), dim=-1))
        return Placed(F.pad(out[:, :2], (0, 1)), out[:, 2:])

    def set_limits(self, points: Tensor, *, quantile: float = 0.97) -> None:
        """Take for noise what is said of clean clouds.

        Args:
            points: (n, N, 3), see `Placed`, that were not learned from.
            quantile: of the clouds of which all is noise.
        """
        with torch.no_grad():
            found = self(points[:, :N_SEEN])
        self.least_tilt.copy_(found.tilt.norm(dim=-1).quantile(quantile))
        self.least_wall.copy_(found.walls.abs().amax(-1).quantile(quantile))


def train_placement(points: Tensor, *, steps: int, seed: int = 0) -> Placement:
    """Learn from whole and upright clouds what they look like when they are tilted, cut or uneven.

    Args:
        points: (n, N, 3), see `Placed`.
        steps: batches of 32 clouds.
        seed: of the initial weights and of what the clouds go through.

    Returns:
        The network in evaluation mode; without limits, all that it says is noise.
    """
    check_int(steps, "steps", low=0)
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        model = Placement()
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LR)
    model.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _LR * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = torch.randint(len(points), (_BATCH,), generator=generator)
        seen, truth = misplaced(varied(points[chosen], generator), generator)
        found = model(seen)
        pairs = zip(found, truth, (0.05, 0.2), strict=True)  # errors below count by their squares
        loss = sum(F.smooth_l1_loss(x, y, beta=beta) for x, y, beta in pairs)
        assert isinstance(loss, Tensor)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def varied(points: Tensor, generator: torch.Generator) -> Tensor:
    """Whole shapes that are odder than those at hand: each is stretched, sheared and tapered at random.

    Along each axis goes a smooth map of the box to itself, so that a seat comes to lie higher, or legs are shorter, and
    a factor; the shape leans forward or back and narrows upwards or backwards. The plane of symmetry stays.

    Args:
        points: (B, N, 3) whole and upright, see `Placed`.
        generator: of all that is random.

    Returns:
        (B, N, 3), boxes at scale 2.
    """
    draw = _Draw(generator, points)
    B = len(points)
    low, high = box(points)
    half = ((high - low) / 2).clamp(min=1e-6)[:, None]
    u = (points - (low + high)[:, None] / 2) / half
    much = _ODDITY * draw.uniform(B, 1, 1)
    bend, bulge, size, lean, narrow = (much * (2 * draw.uniform(B, 1, 3) - 1) for _ in range(5))
    bend = bend * points.new_tensor([0.0, 1.0, 1.0])
    inside = 1 - u.square()
    x = (u + 0.3 * bend * inside + 0.15 * bulge * u * inside) * half * (0.4 * size).exp()
    up, along = u[..., 2:], u[..., 1:2]
    across = x[..., :1] * (1 + 0.2 * narrow[..., :1] * up + 0.15 * narrow[..., 1:2] * along)
    x = torch.cat([across, x[..., 1:2] + 0.25 * lean[..., :1] * up, x[..., 2:]], -1)
    low, high = box(x)
    return (x - (low + high)[:, None] / 2) / ((high - low).amax(-1) / 2)[:, None, None]


def misplaced(points: Tensor, generator: torch.Generator) -> tuple[Tensor, Placed]:
    """Clouds that are tilted, cut, uneven or noisy, boxed again, and what the network is to say of them.

    Args:
        points: (B, N, 3) whole and upright, see `Placed`.
        generator: of all that is random.

    Returns:
        points: (B, 512, 3), or fewer where N is smaller.
        placed: the truth.
    """
    draw = _Draw(generator, points)
    B = len(points)
    about = 2 * math.pi * draw.uniform(B)
    angle = torch.where(draw.uniform(B) < 0.4, 0.015 * draw.normal(B), _LARGEST_TILT * draw.uniform(B))
    tilt = F.pad(torch.stack([angle * about.cos(), angle * about.sin()], -1), (0, 1))
    spread = torch.where(draw.uniform(B) < 0.85, 0.05, 0.3)  # of what the pose leaves about the vertical
    turn = F.pad((spread * draw.normal(B))[:, None], (2, 0))
    turned = points @ rotvec_to_rotation(turn).mT
    seen = gather_rows(turned, _left(turned, draw))
    noise = 0.03 * draw.uniform(B, 1, 1) * (draw.uniform(B, 1, 1) < 0.5)
    seen = seen + noise * draw.normal(*seen.shape)
    low, high = box(seen)
    whole = box(points)
    walls = torch.cat([low - whole[0], whole[1] - high], -1) / ((high - low).amax(-1, keepdim=True) / 2)
    tilted = seen @ rotvec_to_rotation(tilt).mT
    low, high = box(tilted)
    half = (high - low).amax(-1) / 2
    tilted = (tilted - (low + high)[:, None] / 2) / half[:, None, None]
    return tilted, Placed(tilt, walls)


class _Draw(NamedTuple):
    """Random numbers like a tensor."""

    generator: torch.Generator
    like: Tensor

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator).to(self.like)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.like)


def _left(points: Tensor, draw: _Draw) -> Tensor:
    """(B, 512) which points are left of clouds, some of them repeated.

    Half of the clouds have lost what lies farthest on one side, a third are denser on one side than on the other.
    """
    B, N = points.shape[:2]
    kind, way = draw.uniform(B, 1), draw.normal(B, 3)
    across, above = points.new_tensor([1.0, 1.0, 0.0]), points.new_tensor([0.0, 0.0, 1.0])
    way = torch.where(kind < _FLAT, way * across, way)
    way = torch.where(kind > 1 - _FROM_BELOW, above, way)
    along = (points @ (way / way.norm(dim=-1, keepdim=True))[..., None])[..., 0]
    cut = _LARGEST_CUT * draw.uniform(B, 1) * (draw.uniform(B, 1) < 0.5)
    uneven = 2.5 * draw.normal(B, 1) * (draw.uniform(B, 1) < 0.35)
    rank = along.argsort(1).argsort(1) / N
    weight = (uneven * along).exp().clamp(0.03, 30) * (rank < 1 - cut)
    key = draw.uniform(B, N).clamp(min=1e-9).log() / weight.clamp(min=1e-12)
    chosen = key.argsort(1, descending=True)[:, : min(N, N_SEEN)]
    there = weight.gather(1, chosen) > 0  # what was cut comes last, and gives its place to what is left
    again = torch.arange(chosen.shape[1], device=points.device) % there.sum(1, keepdim=True).clamp(min=1)
    return torch.where(there, chosen, chosen.gather(1, again))
