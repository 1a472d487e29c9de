"""Queries in balls: the answer of brute force, whatever the queries, their order and the block."""

from __future__ import annotations

import pytest
import torch

from geoframe.nearest import coherent as module
from geoframe.nearest import lowest_score, nearest_coherent


@pytest.fixture(scope="module")
def sheet():
    """A curved sheet of points in 9 dimensions, and queries over it with a hole, a cliff and a distance to it."""
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(5, 9, generator=draw)

    def lift(u, v):
        return torch.stack([u, v, (2 * u).sin(), (3 * v).cos(), u * v], 1) @ mix

    points = lift(*(torch.rand(2, 700, generator=draw) * 2))
    u, v = torch.meshgrid(torch.linspace(0, 1, 70), torch.linspace(0, 1, 60), indexing="ij")
    u = torch.where(v > 0.6, u, u + 1)
    query = lift(u.flatten(), v.flatten()) + 0.3 * torch.randn(9, generator=draw)
    return query, points


def _brute(query, points):
    return torch.cdist(query.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_answer_is_that_of_brute_force(sheet, dtype):
    query, points = (x.to(dtype) for x in sheet)
    expected = _brute(query, points)
    assert torch.equal(nearest_coherent(query, points), expected)
    mixed = torch.randperm(len(query), generator=torch.Generator().manual_seed(1))
    assert torch.equal(nearest_coherent(query[mixed], points), expected[mixed]), "whatever the order"
    assert torch.equal(nearest_coherent(query, points, block=3000), expected), "whatever the block"


def test_queries_that_have_nothing_in_common():
    draw = torch.Generator().manual_seed(2)
    query, points = torch.randn(900, 16, generator=draw), torch.randn(500, 16, generator=draw)
    assert torch.equal(nearest_coherent(query, points), _brute(query, points))


def test_equally_near_points_and_equal_queries(sheet):
    query, points = sheet
    twice = torch.cat([points, points, points[:50]])
    assert torch.equal(nearest_coherent(query, twice), _brute(query, points)), "the lowest index"
    alike = query[:1].expand(1000, -1)
    assert torch.equal(nearest_coherent(alike, points), _brute(alike, points))
    grid = torch.cartesian_prod(*[torch.arange(7.0)] * 3)
    ties = grid[torch.randint(343, (2000,), generator=torch.Generator().manual_seed(3))] + 0.5
    assert torch.equal(nearest_coherent(ties, grid), lowest_score(ties, grid))


def test_differences_below_the_rounding_of_float32():
    draw = torch.Generator().manual_seed(4)
    points = torch.randn(1, 6, dtype=torch.float64, generator=draw)
    points = points + 1e-7 * torch.randn(400, 6, dtype=torch.float64, generator=draw)
    query = points[torch.randint(400, (600,), generator=draw)]
    assert torch.equal(nearest_coherent(query, points), _brute(query, points))


def test_most_points_are_not_tried(sheet, monkeypatch):
    """The bound is of use: on a smooth sheet, some twenty of 700 points are left for a ball."""
    from geoframe.nearest import _leaves

    counts = []
    within = _leaves._within
    monkeypatch.setattr(_leaves, "_within", lambda *a: counts.append(within(*a)) or counts[-1])
    monkeypatch.setattr(_leaves, "nearest_of_leaves", _leaves.nearest_of_leaves.py_func)
    query, points = sheet
    found = nearest_coherent(query, points)
    assert torch.equal(found, _brute(query, points))
    assert sum(counts) / len(counts) < 0.15 * len(points)
    assert len(counts) <= 2 * len(query) / module.LEAF + 8


def test_bad_input_is_told(sheet):
    query, points = sheet
    with pytest.raises(ValueError, match="query: expected finite"):
        nearest_coherent(query * torch.nan, points)
    with pytest.raises(ValueError, match="points: expected 9 columns"):
        nearest_coherent(query, points[:, :4])
    with pytest.raises(ValueError, match="block: expected"):
        nearest_coherent(query, points, block=0)
