"""Invertible warps: inverses, closed forms, monotonicity, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geoframe.zoo.deform import Push, Scale, Shift, Step, Warp, push, smooth_step, stretch


def cloud(n: int = 400, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4 - 2


STEPS: dict[str, Step] = {
    "shift": Shift(1, lambda p: 0.3 * p[:, 0] ** 2 - p[:, 2]),
    "scale": Scale(2, lambda p: 1.5 + p[:, 1].sin()),
    "stretch": stretch(0, (-1, 0, 0.5, 1), (-3, -0.1, 0.1, 2)),
    "stretch along": stretch(0, (-1, 0, 1), {-1.0: (-1, 0, 1), 0.5: (-2, 0.5, 0.6), 1.0: (0, 1, 2)}, along=2),
    "stretch along a function": stretch(
        1, (-1, 1), {0.0: (-1, 1), 1.0: (-0.1, 0.1)}, along=lambda p: p[:, 0] * p[:, 2]
    ),
    "push": push(1, 0.35, (0.2, 0.1, 0.3), (0.5, 0.4, 0.6)),
    "pair of pushes": push(2, -0.16, (0.2, 0.1, 0.21), (0.5, 0.4, 0.3), pair=True),
}


@pytest.mark.parametrize("name", STEPS)
def test_inverse_and_one_axis(name: str) -> None:
    step, points = STEPS[name], cloud()
    moved = step.forward(points)
    torch.testing.assert_close(step.inverse(moved), points, atol=1e-12, rtol=0)
    torch.testing.assert_close(step.forward(step.inverse(points)), points, atol=1e-12, rtol=0)
    kept = [i for i in range(3) if i != step.axis]  # type: ignore[attr-defined]
    assert torch.equal(moved[:, kept], points[:, kept])
    assert not torch.allclose(moved, points, atol=0.05)


@pytest.mark.parametrize("name", STEPS)
def test_increasing(name: str) -> None:
    axis = STEPS[name].axis  # type: ignore[attr-defined]
    line = torch.tensor([[0.2, 0.1, 0.3]], dtype=torch.float64).repeat(2000, 1)
    line[:, axis] = torch.linspace(-3, 3, 2000, dtype=torch.float64)
    assert (STEPS[name].forward(line)[:, axis].diff() > 0).all()


def test_a_warp_is_its_steps_in_order() -> None:
    warp, points = Warp(tuple(STEPS.values())), cloud()
    expected = points
    for step in STEPS.values():
        expected = step.forward(expected)
    moved = warp.forward(points)
    assert torch.equal(moved, expected)
    torch.testing.assert_close(warp.inverse(moved), points, atol=1e-10, rtol=0)
    assert torch.equal(warp.forward(points.view(20, 20, 3)), moved.view(20, 20, 3))


def test_stretch_hits_its_knots_and_is_linear_where_they_are() -> None:
    step = stretch(0, (-1, 0, 1, 2), (-2, 0, 2, 4))
    points = cloud()
    torch.testing.assert_close(step.forward(points)[:, 0], 2 * points[:, 0])
    knots = torch.tensor([[-1.0, 0, 0], [0.5, 0, 0], [2, 0, 0]], dtype=torch.float64)
    bent = stretch(0, (-1, 0.5, 2), (-1, 1, 5)).forward(knots)
    torch.testing.assert_close(bent[:, 0], torch.tensor([-1.0, 1, 5], dtype=torch.float64))


def test_stretch_has_no_kink() -> None:
    step = stretch(0, (-1, 0, 0.5, 1), (-3, -0.1, 0.1, 2))
    for knot in (-1, 0, 0.5, 1):
        x = torch.tensor([[knot - 1e-6, 0, 0], [knot, 0, 0], [knot + 1e-6, 0, 0]], dtype=torch.float64)
        before, after = (step.forward(x)[:, 0].diff() / 1e-6).tolist()
        assert before == pytest.approx(after, rel=1e-3)


def test_a_pair_of_pushes_is_symmetric() -> None:
    mirror = torch.tensor([1, 1, -1], dtype=torch.float64)
    for axis in range(3):
        step = push(axis, 0.16, (0.2, 0.1, 0.4), (0.5, 0.4, 0.3), pair=True)
        torch.testing.assert_close(step.forward(cloud() * mirror), step.forward(cloud()) * mirror)


def test_smooth_step() -> None:
    x = torch.tensor([-1.0, 0, 0.5, 1, 2], dtype=torch.float64)
    assert smooth_step(x, 0, 1).tolist() == [0, 0, 0.5, 1, 1]
    assert smooth_step(x, 1, 0).tolist() == [1, 1, 0.5, 0, 0]


def test_what_could_not_be_inverted_is_refused() -> None:
    with pytest.raises(ValueError, match="knots, places: expected at least 2 columns and increasing rows"):
        stretch(0, (0, 1), (1, 0))
    with pytest.raises(ValueError, match="levels: expected increasing"):
        stretch(0, (0, 1), {1.0: (0, 1), 0.0: (0, 1)}, along=1)
    with pytest.raises(ValueError, match="levels: expected one for each row"):
        stretch(0, (0, 1), {0.0: (0, 1), 1.0: (0, 1)}, along=0)
    with pytest.raises(ValueError, match=r"amount: expected at most 0\.9 of the radius 0\.3"):
        Push(1, 0.28, torch.zeros(3), torch.full((3,), 0.3))
    with pytest.raises(ValueError, match=r"amount: expected at most 0\.55 of the radius 0\.3"):
        Push(1, 0.2, torch.zeros(3), torch.full((3,), 0.3), pair=True)
