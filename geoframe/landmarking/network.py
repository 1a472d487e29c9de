"""The network that names landmarks: diffusion on the surface, its gradients, and small perceptrons at each vertex.

Source: Sharp, Attaiki, Crane and Ovsjanikov 2022, DiffusionNet. Differs: inputs that no motion alters, with odd ones
that tell left from right; landmarks that may be absent; a verdict whether the surface is of the kind at all.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geoframe.landmarking.inputs import N_EVEN, N_ODD, Inputs


class Heatmaps(NamedTuple):
    """What the network says of S vertices of a surface.

    Attributes:
        log_density: (S, L) logarithm of each landmark's probability per area, of a surface of unit area.
        log_absent: (L,) logarithm of the probability that the surface lacks the landmark; the integral of the
            density over the surface and this probability add up to 1.
        known: () logit that the surface is of the kind the network was trained on.
    """

    log_density: Tensor
    log_absent: Tensor
    known: Tensor


class LandmarkNetwork(nn.Module):
    """Heatmaps of L landmarks over the vertices of a surface.

    Args:
        n_landmarks: L.
        width: number of features at each vertex.
        n_blocks: how many times they spread.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, n_landmarks: int, width: int = 64, n_blocks: int = 4) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(N_EVEN))
        self.register_buffer("spread", torch.ones(N_EVEN + N_ODD))
        self.first = nn.Linear(N_EVEN + N_ODD, width)
        self.blocks = nn.ModuleList(DiffusionBlock(width) for _ in range(n_blocks))
        self.last = nn.Linear(width, n_landmarks)
        self.whole = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, n_landmarks + 1))

    def forward(self, x: Inputs, side: float | Tensor = 1.0) -> Heatmaps:
        """Heatmaps of one surface, or of a batch of them.

        Args:
            x: S vertices; with a batch dimension before the others where there are several surfaces.
            side: -1 sees the mirror image of the surface, with the same vertices; (B, 1, 1) for each of a batch.
        """
        even = (x.even - self.mean) / self.spread[:N_EVEN]
        odd = side * x.odd / self.spread[N_EVEN:]
        h = self.first(torch.cat([even, odd], -1))
        for block in self.blocks:
            h = block(h, x, side)
        logits, mass = self.last(h), x.mass[..., None]
        mean = (mass * h).sum(-2, keepdim=True)
        deviation = ((mass * (h - mean) ** 2).sum(-2) + 1e-6).sqrt()
        said = self.whole(torch.cat([mean[..., 0, :], deviation], -1))
        absent, known = said[..., :-1], said[..., -1]
        total = torch.logaddexp(torch.logsumexp(logits + mass.clamp(min=1e-12).log(), -2), absent)
        return Heatmaps(logits - total[..., None, :], absent - total, known)


class DiffusionBlock(nn.Module):
    """Features spread by diffusion, the angles between their gradients, and a perceptron, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        times = torch.linspace(math.log(1e-3), math.log(0.3), width)
        self.log_time = nn.Parameter(times[torch.randperm(width)])
        self.real = nn.Linear(width, width, bias=False)
        self.turned = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(3 * width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
        )
        with torch.no_grad():
            self.mlp[-1].weight.mul_(0.3)  # type: ignore[operator, union-attr]

    def forward(self, h: Tensor, x: Inputs, side: float | Tensor) -> Tensor:
        """(..., S, width) to the same; `side` -1 turns the gradients the other way."""
        time = self.log_time.clamp(-9, 1).exp()
        kept = torch.exp(-(x.vals[..., None] * time).clamp(max=30))  # beyond that numbers are slow, and zero
        coefficients = kept * (x.vecs.mT @ (x.mass[..., None] * h))
        spread, gx, gy = x.vecs @ coefficients, x.grad_x @ coefficients, x.grad_y @ coefficients
        along = self.real(gx) - side * self.turned(gy)
        across = self.real(gy) + side * self.turned(gx)
        angles = torch.tanh(0.1 * (gx * along + gy * across))
        return h + self.mlp(torch.cat([h, spread, angles], -1))
