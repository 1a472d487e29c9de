"""Losses of surface embeddings against plain loops, their gradients, and that blocks and batch mates change nothing."""

from __future__ import annotations

import pytest
import torch

from geoframe.losses import (
    geodesic_cross_entropy,
    mask_loss,
    pixel_cycle_loss,
    shape_cycle_loss,
    vertex_cross_entropy,
)


@pytest.fixture
def sample():
    draw = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    x = torch.randn(7, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    table = unit(torch.randn(9, 4, generator=draw, dtype=torch.float64), dim=1).requires_grad_()
    place = torch.rand(9, 2, generator=draw, dtype=torch.float64)
    vertex = torch.randint(9, (7,), generator=draw)
    return x, table, vertex, torch.cdist(place, place)


def _brute(x, table, target, temperature, form):
    x = torch.nn.functional.normalize(x, dim=1)
    if form == "dot":
        logits = x @ table.T / temperature
    else:
        logits = -(x[:, None] - table).square().sum(-1) / temperature
    return -(target * logits.log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("form", ["dot", "distance"])
def test_cross_entropy_is_that_of_a_plain_softmax(sample, form):
    x, table, vertex, _ = sample
    true = _brute(x, table, torch.eye(9, dtype=torch.float64)[vertex], 0.2, form)
    want = torch.autograd.grad(true, (x, table))
    for block in (1, 20, 10**6):
        loss = vertex_cross_entropy(x, table, vertex, temperature=0.2, form=form, block=block)
        assert torch.allclose(loss, true)
        for a, b in zip(torch.autograd.grad(loss, (x, table)), want, strict=True):
            assert torch.allclose(a, b)


@pytest.mark.parametrize("form", ["dot", "distance"])
@pytest.mark.parametrize("target", ["squared", "first_power", "first_power_code"])
def test_smoothed_cross_entropy_is_that_of_its_targets(sample, form, target):
    x, table, vertex, D = sample
    sigma = 0.3
    score = {
        "squared": D**2 / (2 * sigma**2),
        "first_power": D / (2 * sigma**2),
        "first_power_code": D / sigma,
    }
    true = _brute(x, table, (-score[target]).softmax(1)[vertex], 0.2, form)
    want = torch.autograd.grad(true, (x, table))
    rows, row = torch.unique(vertex, return_inverse=True)
    options = {"temperature": 0.2, "sigma": sigma, "target": target, "form": form}
    for distances, at, block in ((D, None, 1), (D, None, 10**6), (D[rows], row, 20)):
        loss = geodesic_cross_entropy(x, table, vertex, distances, at, block=block, **options)
        assert torch.allclose(loss, true)
        for a, b in zip(torch.autograd.grad(loss, (x, table)), want, strict=True):
            assert torch.allclose(a, b)


def test_a_narrow_target_is_the_vertex_itself(sample):
    x, table, vertex, D = sample
    plain = vertex_cross_entropy(x, table, vertex, temperature=0.2)
    assert torch.allclose(geodesic_cross_entropy(x, table, vertex, D, temperature=0.2, sigma=1e-3), plain)
    apart = D.clone()
    apart[:, 4] = apart[4] = torch.inf  # another component gets no share
    apart[4, 4] = 0
    assert geodesic_cross_entropy(x, table, vertex, apart, temperature=0.2, sigma=0.3).isfinite()


def test_gradients_in_float64(sample):
    x, table, vertex, D = sample
    for form in ("dot", "distance"):
        torch.autograd.gradcheck(
            lambda a, b, form=form: vertex_cross_entropy(a, b, vertex, temperature=0.2, form=form, block=20),
            (x, table),
        )
        torch.autograd.gradcheck(
            lambda a, b, form=form: geodesic_cross_entropy(
                a, b, vertex, D, temperature=0.2, sigma=0.3, form=form, block=20
            ),
            (x, table),
        )
    pixels = torch.rand(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for reduction in ("mean", "norm"):
        torch.autograd.gradcheck(
            lambda a, b, r=reduction: pixel_cycle_loss(a, pixels, b, temperature=0.3, reduction=r), (x, table)
        )
        torch.autograd.gradcheck(
            lambda a, b, r=reduction: shape_cycle_loss(a, b, D[:7, :7], D, temperature=0.3, reduction=r),
            (x, table),
        )
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda a: mask_loss(a, logits.detach() > 0, overlap=0.5), (logits,))


def test_points_do_not_depend_on_their_mates(sample):
    x, table, vertex, D = sample
    one_by_one = [
        geodesic_cross_entropy(x[i : i + 1], table, vertex[i : i + 1], D, temperature=0.2, sigma=0.3)
        for i in range(len(x))
    ]
    together = geodesic_cross_entropy(x, table, vertex, D, temperature=0.2, sigma=0.3)
    assert torch.allclose(torch.stack(one_by_one).mean(), together)


def test_no_points_give_zero_with_a_gradient(sample):
    x, table, vertex, D = sample
    loss = geodesic_cross_entropy(x[:0], table, vertex[:0], D, temperature=0.2, sigma=0.3)
    loss.backward()
    assert loss == 0 and not table.grad.any()
    assert pixel_cycle_loss(x[:0], torch.zeros(0, 2, dtype=torch.float64), table) == 0


def test_memory_is_bounded_and_half_precision_is_widened(sample):
    x, table, vertex, D = (t.detach() for t in sample)
    exact = geodesic_cross_entropy(x, table, vertex, D, temperature=0.2, sigma=0.3)
    half = geodesic_cross_entropy(x.float(), table.float(), vertex, D.half(), temperature=0.2, sigma=0.3)
    assert torch.allclose(half.double(), exact, atol=5e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = vertex_cross_entropy(x.float(), table.float(), vertex, temperature=0.2)
    assert torch.allclose(inside.double(), vertex_cross_entropy(x, table, vertex, temperature=0.2), atol=1e-5)


def test_cycles_that_come_back_cost_nothing():
    table = torch.eye(6, dtype=torch.float64)
    D = torch.rand(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    D.fill_diagonal_(0)
    there = torch.tensor([3, 1, 0, 2, 5, 4])
    same = shape_cycle_loss(table, table[there], D, D[there][:, there], temperature=0.01)
    assert same < 1e-9
    lost = shape_cycle_loss(table, -table, D, D, temperature=0.01)
    assert lost > 0.05
    pixels = torch.rand(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert pixel_cycle_loss(3 * table, pixels, table, temperature=0.01, temperature_back=0.01) < 1e-9
    assert pixel_cycle_loss(torch.ones_like(table), pixels, table) > 0.01


def test_cycle_losses_are_those_of_loops(sample):
    x, table, _, D = (t.detach() for t in sample)
    unit = torch.nn.functional.normalize(x, dim=1)
    there = (unit @ table.T / 0.3).softmax(1)
    back = (table @ unit.T / 0.4).softmax(1)
    pixels = torch.rand(7, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    away = torch.cdist(pixels, pixels)
    for squared in (True, False):
        cost = (away**2 if squared else away) * (there @ back)
        whole = pixel_cycle_loss(
            x, pixels, table, temperature=0.3, temperature_back=0.4, squared=squared, reduction="norm"
        )
        rows = pixel_cycle_loss(x, pixels, table, temperature=0.3, temperature_back=0.4, squared=squared)
        assert torch.allclose(whole, cost.norm()) and torch.allclose(rows, cost.norm(dim=1).mean())
    one, two = table[:4], table[3:]
    P, Q = (one @ two.T / 0.3).softmax(1), (two @ one.T / 0.3).softmax(1)
    D1, D2 = D[:4, :4], D[3:, 3:]
    found = shape_cycle_loss(one, two, D1, D2, temperature=0.3, p=1, reduction="norm")
    assert torch.allclose(found, (D1 * (P @ Q)).sum() + (D2 * (Q @ P)).sum())


def test_mask_loss_is_least_at_the_truth():
    mask = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    right = torch.where(mask, 9.0, -9.0)
    assert mask_loss(right, mask) < 1e-3 and mask_loss(right, mask, overlap=1.0) < 2e-3
    assert mask_loss(-right, mask) > 8
    assert mask_loss(-right, mask, overlap=1.0) - mask_loss(-right, mask) > 0.8


def test_bad_input_is_told(sample):
    x, table, vertex, D = sample
    with pytest.raises(ValueError, match="vertex: expected indices in"):
        vertex_cross_entropy(x, table, vertex + 9, temperature=0.1)
    with pytest.raises(ValueError, match="vertex: expected shape"):
        vertex_cross_entropy(x, table, vertex[:3], temperature=0.1)
    with pytest.raises(ValueError, match="temperature: expected"):
        vertex_cross_entropy(x, table, vertex, temperature=-1)
    with pytest.raises(ValueError, match="target: expected one of"):
        geodesic_cross_entropy(x, table, vertex, D, temperature=0.1, sigma=1, target="third")
    with pytest.raises(ValueError, match="sigma: expected"):
        geodesic_cross_entropy(x, table, vertex, D, temperature=0.1, sigma=0)
    with pytest.raises(ValueError, match="distances: expected shape"):
        geodesic_cross_entropy(x, table, vertex, D[:, :4], temperature=0.1, sigma=1)
    with pytest.raises(ValueError, match="row: expected indices"):
        geodesic_cross_entropy(x, table, vertex, D[:1], torch.ones_like(vertex), temperature=0.1, sigma=1)
    with pytest.raises(ValueError, match="distances1: expected shape"):
        shape_cycle_loss(table, table, D[:3], D)
    with pytest.raises(ValueError, match="reduction: expected one of"):
        pixel_cycle_loss(x, torch.zeros(7, 2), table, reduction="sum")
    with pytest.raises(ValueError, match="pixels: expected shape"):
        pixel_cycle_loss(x, torch.zeros(6, 2), table)
    with pytest.raises(ValueError, match="mask: expected shape"):
        mask_loss(torch.zeros(2, 3, 3), torch.zeros(2, 3, 4))
