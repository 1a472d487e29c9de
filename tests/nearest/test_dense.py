"""nearest: identical to brute force in float64, in every dimension, with ties, duplicates and any block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geoframe.nearest.dense import lowest_score, nearest


def naive(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """A loop over queries and a stable sort: the definition."""
    index, distance = [], []
    for q in query.double():
        d = ((q - points.double()) ** 2).sum(1)
        order = torch.argsort(d, stable=True)[:k]
        index.append(order)
        distance.append(d[order].sqrt())
    return torch.stack(index), torch.stack(distance)


@pytest.mark.parametrize("D", [1, 2, 3, 4, 17, 256])
@pytest.mark.parametrize("k", [1, 3, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_brute_force(D: int, k: int, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(D)
    query = torch.randn(37, D, generator=g, dtype=dtype)
    points = torch.randn(301, D, generator=g, dtype=dtype)
    index, distance = nearest(query, points, k=k)
    want_index, want_distance = naive(query, points, k)
    assert index.dtype == torch.int64 and distance.dtype == dtype
    assert index.shape == ((37,) if k == 1 else (37, k)) == distance.shape
    assert torch.equal(index.reshape(37, k), want_index)
    torch.testing.assert_close(distance.reshape(37, k).double(), want_distance, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("D", [3, 8])
@pytest.mark.parametrize("block", [1, 100, 3000, 2**20])
def test_any_block_gives_the_same(D: int, block: int) -> None:
    g = torch.Generator().manual_seed(0)
    query, points = torch.randn(20, D, generator=g), torch.randn(1500, D, generator=g)
    index, distance = nearest(query, points, k=5, block=block)
    want_index, want_distance = naive(query, points, 5)
    assert torch.equal(index, want_index)
    torch.testing.assert_close(distance.double(), want_distance)


@pytest.mark.parametrize("D", [2, 3, 6])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_ties_go_to_the_lowest_index(D: int, k: int) -> None:
    """Integer grids: most queries have several nearest points, and every point appears three times."""
    g = torch.Generator().manual_seed(1)
    points = torch.randint(0, 3, (90, D), generator=g).double().repeat(3, 1)
    query = torch.randint(0, 6, (50, D), generator=g) / 2.0
    index, _ = nearest(query.double(), points, k=k)
    assert torch.equal(index.reshape(50, k), naive(query, points, k)[0])


@pytest.mark.parametrize("D", [3, 5])
def test_all_points_equal(D: int) -> None:
    index, distance = nearest(torch.zeros(4, D), torch.ones(200, D), k=3)
    assert index.tolist() == [[0, 1, 2]] * 4
    torch.testing.assert_close(distance, torch.full((4, 3), D**0.5))


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_differences_below_float32_are_seen(scale: float, shift: float) -> None:
    """Points that float32 cannot tell apart, far from the origin, in any unit."""
    g = torch.Generator().manual_seed(2)
    points = (1 + 1e-9 * torch.randn(400, 32, generator=g, dtype=torch.float64) + shift) * scale
    query = points[:50] + 1e-11 * torch.randn(50, 32, generator=g, dtype=torch.float64) * scale
    index, _ = nearest(query, points)
    assert torch.equal(index, naive(query, points, 1)[0][:, 0])
    assert torch.equal(index, torch.arange(50))


def test_a_far_outlier_costs_no_precision() -> None:
    """It makes the float32 bound useless: the rows are sieved again in float64."""
    g = torch.Generator().manual_seed(6)
    query, points = torch.randn(40, 16, generator=g), torch.randn(2000, 16, generator=g)
    points[7] = 1e6
    query[3] = 2e6
    index, _ = nearest(query, points, k=2)
    assert torch.equal(index, naive(query, points, 2)[0])
    assert index[3, 0] == 7


@pytest.mark.parametrize("k", [1, 4])
def test_lowest_score_with_bias(k: int) -> None:
    g = torch.Generator().manual_seed(3)
    query, points = torch.randn(30, 12, generator=g), torch.randn(500, 12, generator=g)
    bias = 10 * torch.randn(500, generator=g).double()
    index = lowest_score(query, points, bias, k=k, block=2000)
    s = bias - 2 * query.double() @ points.double().T
    order = torch.argsort(s, dim=1, stable=True)[:, :k]
    assert torch.equal(index.reshape(30, k), order)


def test_bias_alone_decides_between_equal_points() -> None:
    bias = torch.tensor([3e9, 2.0, -1e-9, 5.0, -1e-9], dtype=torch.float64)
    for query, points in [(torch.zeros(2, 4), torch.ones(5, 4)), (torch.ones(2, 4), torch.zeros(5, 4))]:
        index = lowest_score(query, points, bias, k=3)
        assert index.tolist() == [[2, 4, 1]] * 2


def test_bias_of_squared_norms_is_nearest() -> None:
    g = torch.Generator().manual_seed(4)
    query, points = torch.randn(100, 20, generator=g), torch.randn(800, 20, generator=g)
    want, _ = nearest(query, points)
    assert torch.equal(lowest_score(query, points, points.double().pow(2).sum(1)), want)
    assert torch.equal(lowest_score(query, points), want)


def test_reduced_matmul_precision_changes_nothing() -> None:
    g = torch.Generator().manual_seed(5)
    query, points = torch.randn(64, 64, generator=g), torch.randn(600, 64, generator=g)
    want = nearest(query, points)[0]
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(nearest(query, points)[0], want)
    finally:
        torch.set_float32_matmul_precision(before)


def test_no_query() -> None:
    for D in (3, 9):
        index, distance = nearest(torch.zeros(0, D), torch.zeros(5, D))
        assert index.shape == distance.shape == (0,)


@pytest.mark.parametrize(
    ("query", "points", "k", "error", "match"),
    [
        (torch.zeros(2, 3).long(), torch.zeros(2, 3), 1, TypeError, "query: expected a floating dtype"),
        (torch.zeros(2, 3), torch.zeros(2, 4), 1, ValueError, "points: expected 3 columns as query, found 4"),
        (torch.zeros(3), torch.zeros(2, 3), 1, ValueError, "query: expected shape"),
        (torch.zeros(2, 3), torch.zeros(0, 3), 1, ValueError, "points: expected at least one point"),
        (torch.zeros(2, 3), torch.zeros(2, 3), 3, ValueError, "k: expected an integer from 1 to 2, found 3"),
        (torch.full((2, 3), torch.nan), torch.zeros(2, 3), 1, ValueError, "query: expected finite"),
        (torch.zeros(2, 5), torch.full((2, 5), torch.inf), 1, ValueError, "points: expected finite"),
    ],
)
def test_bad_input(query: Tensor, points: Tensor, k: int, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        nearest(query, points, k=k)


def test_bad_bias() -> None:
    x = torch.zeros(4, 5)
    with pytest.raises(ValueError, match=r"bias: expected shape \(4,\)"):
        lowest_score(x, x, torch.zeros(3))
    with pytest.raises(ValueError, match="bias: expected finite"):
        lowest_score(x, x, torch.full((4,), torch.inf))


@pytest.mark.parametrize("bias", [False, True])
def test_many_equal_rows(bias: bool) -> None:
    """Vertices without area are all zeros in every coordinate: all pairs of them tie."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4000, 12, generator=generator, dtype=torch.float64)
    query = points.flip(0).clone()
    points[1000:] = 0
    query[:2500] = 0
    query[3000:] += 1e-3
    weight = torch.zeros(4000, dtype=torch.float64) if bias else None
    found = lowest_score(query, points, points.square().sum(1) + weight if bias else None)
    assert torch.equal(
        found, torch.cdist(query, points, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    )
