"""The steps are those of torch.optim.Adam."""

from __future__ import annotations

import torch

from geoframe.fitting._adam import BETAS, Adam


def test_steps():
    g = torch.Generator().manual_seed(0)
    starts = [torch.randn(3, generator=g).double(), torch.randn(2, 4, generator=g).double()]
    goals = [torch.randn_like(x) for x in starts]

    def loss(xs):
        return sum(((x - y) ** 4).sum() + (x * y).sin().sum() for x, y in zip(xs, goals, strict=True))

    ours, theirs = ([x.clone().requires_grad_() for x in starts] for _ in range(2))
    descent = Adam(list(zip(ours, (0.1, 0.02), strict=True)))
    groups = [{"params": [x], "lr": lr} for x, lr in zip(theirs, (0.1, 0.02), strict=True)]
    optimiser = torch.optim.Adam(groups, betas=BETAS)
    for _ in range(20):
        descent.step(loss(ours))
        optimiser.zero_grad()
        loss(theirs).backward()
        optimiser.step()
    for x, y, start in zip(ours, theirs, starts, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12)
        assert (x - start).abs().max() > 0.1
