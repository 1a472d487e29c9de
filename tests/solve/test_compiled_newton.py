"""The compiled search and Newton's method do what their torch references do."""

from __future__ import annotations

import pytest
import torch

from geoframe.solve import _search, _weak
from geoframe.solve._moments import Moments, moments
from geoframe.transforms import random_rotations

F64 = torch.float64


def _problem(K: int, B: int = 40, V: int = 30) -> tuple[Moments, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Moments, scale (B,) and ridge (B,) of noisy points, and random rotations, most of them far from any minimum."""
    g = torch.Generator().manual_seed(K)
    T = torch.randn(V, 3, generator=g, dtype=F64) * torch.tensor([1.0, 0.7, 0.5], dtype=F64)
    basis = 0.3 * torch.randn(K, V, 3, generator=g, dtype=F64)
    u = (T @ random_rotations(B, generator=g, dtype=F64).mT)[..., :2]
    u = u + 0.1 * torch.randn(B, V, 2, generator=g, dtype=F64)
    v = torch.rand(B, V, generator=g, dtype=F64)
    mom = moments(u, v, T, basis)
    scale, ridge = 0.5 + torch.rand(B, generator=g, dtype=F64), torch.rand(B, generator=g, dtype=F64)
    return mom, scale, ridge, random_rotations(B, generator=g, dtype=F64)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("K", [0, 1, 6])
def test_newton(K, free):
    mom, s, ridge, R = _problem(K)
    d = 4 if free else 3
    first = _weak.model(mom, R, s, ridge, free=free).values[:, d + 1 :].reshape(-1, d, d)
    assert (torch.linalg.eigvalsh(first)[:, 0] < 0).any()  # eigenvalues change sign on the way
    ours = _weak.minimise(mom, R, s, ridge, free=free)
    theirs = _weak.minimise_in_torch(mom, R, s, ridge, free=free)
    assert ours.strict.all() and torch.equal(ours.strict, theirs.strict)
    assert (ours.R - theirs.R).abs().max() < 1e-10 and (ours.s - theirs.s).abs().max() < 1e-10
    assert torch.allclose(ours.values, theirs.values, rtol=1e-9, atol=1e-7)
    assert (ours.steps - theirs.steps).abs().max() <= 1 and ours.steps.double().mean() > 3


def test_newton_leaves_its_input_alone():
    mom, s, ridge, R = _problem(2)
    before = R.clone(), s.clone()
    _weak.minimise(mom, R, s, ridge, free=True)
    assert torch.equal(R, before[0]) and torch.equal(s, before[1])


@pytest.mark.parametrize("degenerate", ["nothing seen", "no template", "all on a line"])
def test_newton_stops_where_nothing_is_determined(degenerate):
    mom, s, ridge, R = _problem(3)
    if degenerate == "nothing seen":
        mom = Moments(*(0 * x for x in mom))
    elif degenerate == "no template":
        mom = mom._replace(G=0 * mom.G, H=0 * mom.H)
    else:
        line = torch.diag(torch.tensor([1.0, 0, 0], dtype=F64))
        mom = mom._replace(G=line @ mom.G @ line, H=mom.H @ line)
    ours = _weak.minimise(mom, R, s, 0 * ridge, free=False)
    theirs = _weak.minimise_in_torch(mom, R, s, 0 * ridge, free=False)
    assert not ours.strict.any() and not theirs.strict.any()
    assert torch.isfinite(ours.R).all() and torch.isfinite(ours.values).all()
    assert torch.allclose(ours.values[:, 0], theirs.values[:, 0], atol=1e-9)


@pytest.mark.parametrize("K", [0, 1, 6])
def test_search(K):
    mom, s, ridge, _ = _problem(K)
    frames, _ = _search._half_sphere(s.device)
    height, at = _search.heights(mom, s, ridge, frames)
    height_ref, at_ref = _search.heights_in_torch(mom, s, ridge, frames)
    assert height.shape == (40, 162)
    assert torch.allclose(height, height_ref, rtol=1e-11, atol=1e-10)
    apart = (at - at_ref).abs() > 1e-8  # two turns as good as each other
    assert apart.double().mean() < 0.01


@pytest.mark.parametrize("n_starts", [1, 3])
def test_starts(n_starts):
    """Also of almost flat shapes, where two peaks are about as high."""
    mom, s, ridge, _ = _problem(2)
    flat = torch.diag(torch.tensor([1.0, 1.0, 0.02], dtype=F64))
    flat_ones = mom._replace(G=flat @ mom.G @ flat, H=mom.H @ flat)
    mom = Moments(*(torch.cat(x)[20:60] for x in zip(mom, flat_ones, strict=True)))
    frames, neighbours = _search._half_sphere(s.device)
    height, at = _search.heights(mom, s, ridge, frames)
    R = _search.starts(mom, s, ridge, n_starts)
    theirs = _search.picked_in_torch(height, at, frames, neighbours, n_starts)
    assert R.shape == (40, n_starts, 3, 3) and (R - theirs).abs().max() < 1e-14
    if n_starts > 1:  # in some problems only one peak is worth a start
        same = (R[:, 0] - R[:, 1]).abs().amax((1, 2)) == 0
        assert same.any() and not same.all()


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("K", [0, 3])
def test_reflected_starts(K, free):
    """Of flat shapes, whose reflection explains the points as well, and of thick ones, where it is not followed."""
    mom, s, ridge, _ = _problem(K)
    flat = torch.diag(torch.tensor([1.0, 1.0, 0.02], dtype=F64))
    moved: list[torch.Tensor] = []
    for moments_ in (mom, mom._replace(G=flat @ mom.G @ flat, H=mom.H @ flat)):
        start = _search.starts(moments_, s, ridge, 1)[:, 0]
        best = _weak.minimise(moments_, start, s, ridge, free=free)
        ours = _weak.reflected(moments_, best, ridge, free=free)
        theirs = _weak.reflected_in_torch(moments_, best, ridge, free=free)
        assert (ours.R - theirs.R).abs().max() < 1e-8 and torch.allclose(
            ours.values, theirs.values, atol=1e-6
        )
        moved.append((ours.R - best.R).abs().amax((1, 2)) > 0.1)
    assert moved[1].any() and moved[0].sum() < moved[1].sum()


@pytest.mark.parametrize("K", [0, 4])
def test_the_height_of_the_search_is_what_the_objective_falls_by(K):
    """At the pose a direction and its turn give, found here by trying turns one by one."""
    mom, s, ridge, _ = _problem(K, B=3)
    frames, _ = _search._half_sphere(s.device)
    height, at = _search.heights(mom, s, ridge, frames)
    turns = torch.arange(0, 2 * torch.pi, 0.02, dtype=F64)

    def falls(pick: int, turn: torch.Tensor) -> torch.Tensor:  # (3, n) for turns (3, n)
        each = torch.arange(3).repeat_interleave(turn.shape[1])
        R = _search._rotation(frames, torch.full(turn.shape, pick), turn).flatten(0, 1)
        values = _weak.model(mom.take(each), R, s[each], ridge[each], free=False).values
        return mom.uu[:, None] - values[:, 0].view(3, -1)

    tolerance = 1e-3 if K == 0 else 2e-2  # with a basis a parabola through three of sixteen turns
    for pick in (0, 80, 81):  # the last one: the direction opposite to the first
        best = falls(pick, turns.expand(3, -1)).amax(1)
        assert torch.allclose(falls(pick, at[:, [pick]])[:, 0], best, rtol=tolerance)
        assert torch.allclose(height[:, pick], best, rtol=tolerance)


@pytest.mark.parametrize("free", [False, True])
def test_alternation(free):
    mom, s, ridge, R = _problem(6)
    start = _weak.minimise(mom.collapse(torch.zeros(40, 6, dtype=F64)), R, s, ridge, free=free)
    ours = _weak.alternate(mom, start.R, start.s, ridge, 3, free=free)
    theirs = _weak.alternate_in_torch(mom, start.R, start.s, ridge, 3, free=free)
    assert len(ours.s) == len(theirs.s) == 3 and len(ours.at(1).s) == 40
    assert (ours.R - theirs.R).abs().max() < 1e-9 and (ours.s - theirs.s).abs().max() < 1e-9
    assert torch.equal(ours.strict, theirs.strict)
    assert torch.allclose(ours.values, theirs.values, rtol=1e-8, atol=1e-6)
    assert (ours.at(0).R - ours.at(2).R).abs().max() > 1e-3  # the shape moves the pose


def test_coefficients():
    mom, s, ridge, R = _problem(6)
    ours, theirs = _weak.coefficients(mom, R, s, ridge), _weak.coefficients_in_torch(mom, R, s, ridge)
    assert ours.shape == (40, 6) and torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    again, value = _weak.coefficients_and_value(mom, R, s, ridge)
    there = _weak.model(mom, R, s, ridge, free=False)
    assert torch.equal(ours, again) and torch.allclose(value, there.values[:, 0], rtol=1e-10)
    unseen = Moments(*(0 * x for x in mom))
    assert (_weak.coefficients(unseen, R, s, 0 * ridge) == 0).all()


def test_many_problems_are_shared_between_threads():
    """More work than one thread is given: each problem is still solved as if it were alone."""
    mom, s, ridge, R = _problem(6, B=900)
    many = _weak.minimise(mom, R, s, ridge, free=False)
    few = _weak.minimise(mom.take(torch.arange(5)), R[:5], s[:5], ridge[:5], free=False)
    for x, y in zip(many, few, strict=True):
        assert torch.equal(x[:5], y)
