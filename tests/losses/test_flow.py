"""Losses of matches and of flow similarity: equal to double loops, what they leave out, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe.losses.flow import (
    displacement_cross_entropy,
    displacement_in_samples,
    feature_kernel,
    flow_kernel,
    flow_similarity_loss,
    kernel_alignment,
    normalise_flow,
    structured_hinge_loss,
)


def test_the_loss_equals_its_definition():
    scores = torch.rand(1, 3, 2, 5, 5, dtype=torch.float64)
    truth = torch.tensor(
        [[0.2, -1.9], [2.0, 2.0], [3.0, 0.0], [torch.nan, 0.0], [0.0, 0.0], [1.4, 0.0]]
    ).double()
    scores[0, 2, 0, 2, 2] = -torch.inf  # the true place of patch 4 has no score
    total, n = 0.0, 0
    for p in range(6):
        S = scores.reshape(6, 5, 5)[p]
        if not torch.isfinite(truth[p]).all() or (truth[p].abs() > 2).any():
            continue
        y, x = (truth[p].round().long() + 2).tolist()
        if not torch.isfinite(S[y, x]):
            continue
        n += 1
        for m, k in np.ndindex(5, 5):
            far = (m - y) ** 2 + (k - x) ** 2
            if far:
                total += max(0.0, 0.7 * (1 - np.exp(-far / 2 / 1.5**2)) + float(S[m, k] - S[y, x]))
    found = structured_hinge_loss(scores, truth.reshape(1, 3, 2, 2), alpha=0.7, sigma=1.5)
    assert n == 3 and float(found) == pytest.approx(total / n, rel=1e-12)


def test_a_clear_winner_costs_nothing_and_nothing_known_costs_nothing():
    scores = torch.zeros(1, 1, 1, 5, 5)
    scores[..., 3, 1] = 1.0
    assert float(structured_hinge_loss(scores, torch.tensor([1.0, -1.0]).reshape(1, 1, 1, 2))) == 0
    scores.requires_grad_()
    none = structured_hinge_loss(scores, torch.full((1, 1, 1, 2), torch.nan))
    none.backward()
    assert float(none.detach()) == 0 and not scores.grad.any()


def test_gradients():
    scores = torch.rand(1, 2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    truth = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]])[None].double()
    assert torch.autograd.gradcheck(lambda s: structured_hinge_loss(s, truth), scores)
    assert torch.autograd.gradcheck(lambda s: displacement_cross_entropy(s, truth), scores)


def test_the_cross_entropy_equals_its_definition():
    scores = torch.rand(1, 2, 2, 5, 5, dtype=torch.float64)
    truth = torch.tensor([[0.2, -1.9], [2.0, 1.5], [3.0, 0.0], [torch.nan, 0.0]]).double()
    scores[0, 0, 0, 4] = -torch.inf  # a row without scores
    total = 0.0
    for p in range(2):
        S = scores.reshape(4, 5, 5)[p].numpy()
        y, x = (truth[p] + 2).tolist()
        bump, weight = np.zeros((5, 5)), np.where(np.isfinite(S), np.exp(S / 0.3), 0.0)
        for m, k in np.ndindex(5, 5):
            bump[m, k] = np.exp(-((m - y) ** 2 + (k - x) ** 2) / 2) if np.isfinite(S[m, k]) else 0.0
        kept = bump > 0
        total -= (bump[kept] / bump.sum() * np.log(weight[kept] / weight.sum())).sum()
    found = displacement_cross_entropy(scores, truth.reshape(1, 2, 2, 2), temperature=0.3, sigma=1.0)
    assert float(found) == pytest.approx(total / 2, rel=1e-12)


def test_what_is_not_known_costs_no_entropy():
    scores = torch.rand(1, 1, 1, 5, 5, requires_grad=True)
    none = displacement_cross_entropy(scores, torch.full((1, 1, 1, 2), torch.nan))
    none.backward()
    assert float(none.detach()) == 0 and not scores.grad.any()
    with pytest.raises(ValueError, match="temperature, sigma: expected positive numbers, found 0 and"):
        displacement_cross_entropy(scores, torch.zeros(1, 1, 1, 2), temperature=0.0)


def test_displacements_in_samples_of_a_level():
    flow = torch.stack([torch.full((16, 24), 8.0), torch.full((16, 24), -4.0)])[None]
    found = displacement_in_samples(flow, 1, (3, 4), stride=8, step=2)
    assert found.shape == (1, 3, 4, 2)
    assert found.reshape(-1, 2).unique(dim=0).tolist() == [[-1.0, 2.0]]


def test_alignment_equals_its_definition_and_lies_between_0_and_1():
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        features, flow = (torch.randn(7, d, generator=generator, dtype=torch.float64) for d in (4, 2))
        K, T = feature_kernel(features), flow_kernel(0.1 * flow)
        top = sum(float(K[p, q] * T[p, q]) for p in range(7) for q in range(7))
        below = [sum(float(M[p, q]) ** 2 for p in range(7) for q in range(7)) for M in (K, T)]
        found = float(kernel_alignment(K, T))
        assert found == pytest.approx(top / (below[0] * below[1]) ** 0.5, abs=1e-14)
        assert 0 <= found <= 1
        assert float(kernel_alignment(T, 3 * T)) == pytest.approx(1, abs=1e-14)
    assert float(kernel_alignment(torch.zeros(3, 3), T[:3, :3].float())) == 0


def test_kernels_equal_their_definitions():
    features = torch.randn(2, 5, 3, dtype=torch.float64)
    K = feature_kernel(features)
    a, b = features[1, 2], features[1, 4]
    assert float(K[1, 2, 4]) == pytest.approx(float(a @ b / a.norm() / b.norm() / 4), abs=1e-14)
    torch.testing.assert_close(K.diagonal(dim1=1, dim2=2), torch.full((2, 5), 0.25).double())
    flow = torch.tensor([[0.0, 0.0], [0.06, 0.08]], dtype=torch.float64)
    assert float(flow_kernel(flow)[0, 1]) == pytest.approx(np.exp(-0.01 / 0.0072), rel=1e-12)
    logs = normalise_flow(torch.tensor([0.0, -56.0, 3.0, 1e6]))
    torch.testing.assert_close(
        logs, torch.tensor([0.0, -1.0, np.log(4) / np.log(57), 1.0], dtype=torch.float32)
    )


@pytest.mark.parametrize("form", ["ce", "ce-rev"])
def test_cross_entropy_equals_its_definition(form):
    """The diagonal counts 1 in every sum, so that neither kernel's own value there matters."""
    features, flow = (
        torch.randn(1, 6, 3, dtype=torch.float64),
        0.1 * torch.randn(1, 6, 2, dtype=torch.float64),
    )
    K, T = feature_kernel(features)[0].numpy(), flow_kernel(flow)[0].numpy()

    def distribution(M: np.ndarray) -> np.ndarray:
        S = np.zeros((6, 6))
        for p in range(6):
            total = sum(np.exp(M[p, q]) for q in range(6) if q != p) + 1
            for q in range(6):
                S[p, q] = (1 if p == q else np.exp(M[p, q])) / total
        return S

    ours, theirs = distribution(K), distribution(T)
    first, second = (theirs, ours) if form == "ce" else (ours, theirs)
    want = -(first * np.log(second)).sum() / 6
    assert float(flow_similarity_loss(features, flow, form=form)) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("form", ["kta", "ce", "ce-rev"])
def test_losses_of_similarity_have_gradients_and_do_not_mix_images(form):
    features = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    flow = 0.1 * torch.randn(2, 5, 2, dtype=torch.float64)
    variance = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f, v: flow_similarity_loss(f, flow, form=form, variance=v), (features, variance)
    )
    parts = [flow_similarity_loss(features[i : i + 1], flow[i : i + 1], form=form) for i in (0, 1)]
    both = flow_similarity_loss(features, flow, form=form)
    torch.testing.assert_close(both, (parts[0] + parts[1]) / 2)
    with pytest.raises(ValueError, match="form: expected one of 'kta', 'ce', 'ce-rev', found 'x'"):
        flow_similarity_loss(features, flow, form="x")
