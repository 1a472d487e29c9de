"""Losses of category keypoints against plain loops, their two forms, gradients."""

from __future__ import annotations

import pytest
import torch

from geoframe.losses import (
    chamfer_loss,
    coverage_loss,
    extent_loss,
    inclusivity_loss,
    local_shape_loss,
    outside_loss,
    separation_loss,
    upright_loss,
)
from geoframe.transforms import rotation_about_axis


@pytest.fixture
def sets():
    g = torch.Generator().manual_seed(0)
    return (torch.rand(2, n, 3, generator=g, dtype=torch.float64) * 2 - 1 for n in (4, 9))


def _nearest(a, b):
    """Lists of distances of every point of a to the nearest of b, by shape."""
    return [[min(float((p - q).norm()) for q in y) for p in x] for x, y in zip(a, b, strict=True)]


def _mean(rows):
    return sum(rows) / len(rows)


def test_chamfer_and_inclusivity_are_their_sums(sets):
    a, b = sets
    ab, ba = _nearest(a, b), _nearest(b, a)
    squared = [sum(d * d for d in row) for row in ab], [sum(d * d for d in row) for row in ba]
    assert float(chamfer_loss(a, b)) == pytest.approx(_mean(squared[0]) + _mean(squared[1]))
    assert float(inclusivity_loss(a, b)) == pytest.approx(_mean(squared[0]))
    plain = _mean([_mean(r) for r in ab]), _mean([_mean(r) for r in ba])
    assert float(chamfer_loss(a, b, form="mean")) == pytest.approx(sum(plain))
    assert float(inclusivity_loss(a, b, form="mean")) == pytest.approx(plain[0])


def test_coverage_compares_volumes_or_sides():
    def corners(*sides):
        unit = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.5, 0.2, 0.9]], dtype=torch.float64)
        return unit[None] * torch.tensor(sides, dtype=torch.float64)

    nodes, points = corners(1.0, 1.0, 2.0), corners(2.0, 1.0, 2.0)
    assert float(coverage_loss(nodes, points)) == pytest.approx(2 - 0.5)  # Huber of 4 - 2
    assert float(coverage_loss(nodes, points, form="sides")) == pytest.approx((0.5 * 1 + 0 + 0) / 3)
    assert float(coverage_loss(points + 3, points)) == pytest.approx(0)
    assert float(extent_loss(points, points)) == 0
    assert float(extent_loss(points + 3, points)) == pytest.approx(3)
    assert float(extent_loss(nodes, points)) == pytest.approx(1 / 6)


def test_outside_is_a_soft_share():
    points = torch.zeros(1, 1, 3)
    keypoints = torch.tensor([[[0.0, 0, 0], [0, 1.0, 0], [0.1, 0, 0]]])
    assert float(outside_loss(keypoints, points, reach=0.1)) == pytest.approx(
        (3.4e-4 + 1 + 0.5) / 3, abs=1e-5
    )


def test_separation_is_zero_from_a_distance_on():
    apart = torch.tensor([[[0.0, 0, 0], [0.3, 0, 0], [0, 0.6, 0]]])
    assert float(separation_loss(apart, distance=0.3)) == pytest.approx(0, abs=1e-12)
    assert float(separation_loss(apart, distance=0.5)) == pytest.approx(2 * 0.2**2 / 3)


def test_upright_measures_turns_against_the_average():
    g = torch.Generator().manual_seed(0)
    shape = torch.rand(8, 3, generator=g, dtype=torch.float64)
    angle = torch.tensor([0.03, -0.03], dtype=torch.float64)
    for up in range(3):
        turned = shape @ rotation_about_axis(angle, up).mT + 5
        assert float(upright_loss(turned)) == pytest.approx(0.03, rel=1e-2)
    sizes = torch.tensor([0.5, 1.5], dtype=torch.float64)[:, None, None]
    assert float(upright_loss(sizes * shape)) < 1e-6


def test_local_shape_is_the_spread_of_what_is_around_a_keypoint():
    g = torch.Generator().manual_seed(0)
    cloud = torch.rand(1, 40, 3, generator=g, dtype=torch.float64)
    keypoints = torch.rand(1, 3, 3, generator=g, dtype=torch.float64)
    shift = torch.rand(4, 1, 3, generator=g, dtype=torch.float64)
    same = local_shape_loss(keypoints + shift, cloud + shift, radius=0.2)
    assert float(same) < 1e-9
    assert float(local_shape_loss(keypoints + 0 * shift, cloud + shift, radius=0.2)) > 0.002
    lone = torch.zeros(2, 1, 3)  # clouds of one point: 0 and 0.2 away, or too far to tell
    points = torch.tensor([[[0.0, 0, 0]], [[9.0, 0, 0]]])
    d = torch.full((15,), 0.2)
    d[0] = 0
    d = torch.stack([d, torch.full((15,), 0.24)])
    expected = d.std(0, correction=0).mean()
    torch.testing.assert_close(local_shape_loss(lone, points, radius=0.2), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", ["squared_sum", "mean"])
def test_gradients(sets, form):
    a, b = (x.requires_grad_() for x in sets)
    assert torch.autograd.gradcheck(lambda x, y: chamfer_loss(x, y, form=form), (a, b))
    assert torch.autograd.gradcheck(lambda x, y: outside_loss(x, y, reach=0.1), (a, b))
    assert torch.autograd.gradcheck(extent_loss, (a, b))
    assert torch.autograd.gradcheck(lambda x: separation_loss(x, distance=2.0), (a,))
    box_form = {"squared_sum": "volume", "mean": "sides"}[form]
    assert torch.autograd.gradcheck(lambda x, y: coverage_loss(x, y, form=box_form), (a, b))


def test_gradients_are_finite_where_points_coincide():
    a = torch.zeros(1, 2, 3, requires_grad=True)
    total = chamfer_loss(a, a.detach(), form="mean") + separation_loss(a, distance=0.1)
    total.backward()
    assert bool(a.grad.isfinite().all())


def test_order_of_points_does_not_matter(sets):
    a, b = sets
    for loss in (chamfer_loss, coverage_loss, extent_loss, inclusivity_loss):
        torch.testing.assert_close(loss(a, b), loss(a.flip(1), b.flip(1)))


def test_bad_input_is_told(sets):
    a, b = sets
    with pytest.raises(ValueError, match="form: expected one of"):
        chamfer_loss(a, b, form="sum")
    with pytest.raises(ValueError, match="b: expected the 2 batch entries of a, found 1"):
        chamfer_loss(a, b[:1])
    with pytest.raises(ValueError, match="nodes: expected shape"):
        inclusivity_loss(a[0], b[0])


PAIRS = {
    "chamfer": chamfer_loss,
    "inclusivity": inclusivity_loss,
    "coverage": coverage_loss,
    "extent": extent_loss,
    "outside": lambda a, b: outside_loss(a, b, reach=0.2),
    "local_shape": lambda a, b: local_shape_loss(a, b, radius=0.4),
}
SINGLES = {"separation": lambda a: separation_loss(a, distance=0.3), "upright": upright_loss}


@pytest.mark.parametrize("name", [*PAIRS, *SINGLES])
def test_empty_clouds_and_batches_are_told(name, sets):
    a, b = sets
    calls = [(a[:, :0],), (a[:0],)]
    if name in PAIRS:
        calls = [(a[:, :0], b), (a, b[:, :0]), (a[:0], b[:0])]
    for call in calls:
        with pytest.raises(ValueError, match=r"expected at least one (point a cloud|cloud), found shape"):
            (PAIRS | SINGLES)[name](*call)


@pytest.mark.parametrize("name", [*PAIRS, *SINGLES])
def test_arrays_and_lists_are_taken(name, sets):
    call = tuple(sets)[: 2 if name in PAIRS else 1]
    loss = (PAIRS | SINGLES)[name]
    expected = loss(*call)
    torch.testing.assert_close(loss(*(x.numpy() for x in call)), expected)
    torch.testing.assert_close(loss(*(x.tolist() for x in call)).double(), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match=r"expected a floating dtype, found torch\.int64"):
        loss(*(x.long() for x in call))


def test_batches_of_another_length_are_told(sets):
    a, b = sets
    with pytest.raises(ValueError, match="points: expected the 2 batch entries of nodes, found 1"):
        inclusivity_loss(a, b[:1])
