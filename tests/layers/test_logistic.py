"""Logistic regression: no gradient at the answer, repeated rows count as weights do, parted kinds have an answer."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from geoframe.layers.logistic import fit_logistic


def drawn(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(n, 2, generator=g), torch.ones(n, 1)], 1).double()
    return x, torch.rand(n, generator=g) < torch.sigmoid(2 * x[:, 0] - 1)


def test_the_loss_has_no_gradient_at_the_answer():
    x, y = drawn()
    w = fit_logistic(x, y, penalty=0.01).requires_grad_()
    loss = F.binary_cross_entropy_with_logits(x @ w, y.double(), reduction="sum") + 0.3 * w.square().sum()
    (gradient,) = torch.autograd.grad(loss, w)
    assert float(gradient.abs().max()) < 1e-8 and float(w[0].detach()) > 1


def test_weights_count_as_repeated_rows_do():
    x, y = drawn()
    twice = torch.where(torch.arange(len(x)) < 20, 2, 1)
    rows = torch.repeat_interleave(torch.arange(len(x)), twice)
    a = fit_logistic(x, y, penalty=0.01, weight=twice)
    b = fit_logistic(x[rows], y[rows], penalty=0.01 * len(x) / len(rows))
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_kinds_that_a_plane_parts_have_an_answer():
    x = torch.tensor([[-1.0, 1.0], [1.0, 1.0]])
    w = fit_logistic(x, x[:, 0] > 0, penalty=1e-4)
    assert torch.isfinite(w).all() and torch.sigmoid(x @ w.float())[1] > 0.99


def test_bad_input_is_told():
    x, y = drawn()
    with pytest.raises(ValueError, match=r"y: expected shape \(60\), found"):
        fit_logistic(x, y[:3], penalty=1.0)
    with pytest.raises(ValueError, match="x: expected at least one row"):
        fit_logistic(x[:0], y[:0], penalty=1.0)
    with pytest.raises(ValueError, match="penalty: expected a positive number, found 0"):
        fit_logistic(x, y, penalty=0)
