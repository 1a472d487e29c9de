"""Losses of landmarks learned without labels: linear time against brute force, minima, forms."""

from __future__ import annotations

import pytest
import torch

from geoframe.losses.landmarks import (
    alignment_loss,
    diversity_loss,
    overlap_loss,
    perceptual_loss,
    soft_alignment_loss,
)
from geoframe.warps import pixel_grid


def _maps(B=2, K=3, h=4, w=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(B, K, h * w, generator=draw, dtype=torch.float64)
    return torch.softmax(x, -1).unflatten(2, (h, w))


def test_alignment_in_linear_time_is_the_double_sum():
    p, q = _maps(seed=0), _maps(seed=1)
    places = pixel_grid(4, 5, like=p).reshape(-1, 2)
    truth = torch.rand(2, 20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    square = torch.cdist(places.expand(2, -1, -1), truth).square()
    brute = torch.einsum("bku,buv,bkv->bk", p.flatten(2), square, q.flatten(2)).mean()
    assert torch.allclose(alignment_loss(p, q, places, truth), brute)
    p.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: alignment_loss(x[:1, :1], q[:1, :1], places, truth[:1]), p)


def test_alignment_is_zero_for_points_that_correspond_only():
    places = pixel_grid(3, 3).reshape(-1, 2)
    p, q = torch.zeros(2, 1, 1, 3, 3).unbind()
    p[0, 0, 1, 2] = q[0, 0, 0, 0] = 1.0
    truth = torch.zeros(1, 9, 2)
    truth[0, 0] = places[5]
    assert float(alignment_loss(p, q, places, truth)) == pytest.approx(0, abs=1e-6)
    blurred = torch.full((1, 1, 3, 3), 1 / 9)
    assert float(alignment_loss(blurred, q, places, truth)) > 0.3


def test_diversity_counts_landmarks_that_share_a_window():
    apart = torch.zeros(1, 3, 8, 8)
    for k, (y, x) in enumerate([(0, 0), (0, 5), (6, 1)]):
        apart[0, k, y, x] = 1.0
    assert float(diversity_loss(apart, window=4)) == 0.0
    together = torch.zeros(1, 3, 8, 8)
    together[0, :, 2, 2] = 1.0
    assert float(diversity_loss(together, window=4)) == 2.0
    assert float(diversity_loss(together, window=4, form="mean")) == pytest.approx(2.0 / 16)
    near = torch.zeros(1, 2, 8, 8)
    near[0, 0, 0, 0] = near[0, 1, 1, 1] = 1.0
    assert float(diversity_loss(near, window=1)) == 0.0 and float(diversity_loss(near, window=2)) == 1.0


def test_diversity_is_k_minus_the_sum_of_maxima():
    p = _maps(h=6, w=6)
    pooled = p.reshape(2, 3, 3, 2, 3, 2).sum((3, 5))
    assert torch.allclose(diversity_loss(p, window=2), (3 - pooled.amax(1).sum((1, 2))).mean())


def test_overlap_is_the_sum_over_pairs():
    p = _maps()
    brute = sum(
        float((p[b, r] * p[b, s]).sum()) for b in range(2) for r in range(3) for s in range(3) if r != s
    )
    assert float(overlap_loss(p)) == pytest.approx(brute / 2 / 9)


def test_soft_alignment_and_perceptual_loss():
    a, b = torch.rand(2, 3, 2), torch.rand(2, 3, 2)
    assert torch.allclose(soft_alignment_loss(a, b), ((a - b) ** 2).sum(-1).mean())
    layers, same = (
        [torch.rand(1, 2, 3, 3), torch.rand(1, 4, 2, 2)],
        [torch.rand(1, 2, 3, 3), torch.rand(1, 4, 2, 2)],
    )
    brute = sum(((x - y) ** 2).mean() for x, y in zip(layers, same, strict=True))
    assert torch.allclose(perceptual_loss(layers, same), brute)
    with pytest.raises(ValueError, match="true: expected 2 layers"):
        perceptual_loss(layers, same[:1])
    with pytest.raises(ValueError, match="form: expected one of"):
        diversity_loss(_maps(), form="max")
    with pytest.raises(ValueError, match="truth: expected shape"):
        alignment_loss(_maps(), _maps(), torch.zeros(20, 2), torch.zeros(2, 19, 2))
