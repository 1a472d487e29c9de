"""Nearest neighbours by a guess: identical to brute force in float64, whatever the guess, the cut and the points."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from geoframe.maps import zoomout
from geoframe.nearest import guided
from geoframe.nearest.guided import nearest_by_guess, patches
from geoframe.spectral import Eigenbasis

BLOCK = 2**20


def brute(query: Tensor, points: Tensor) -> Tensor:
    """The definition: argmin takes the first of equal distances."""
    return torch.stack([((q - points) ** 2).sum(1).argmin() for q in query])


def curve(n: int, k: int, seed: int) -> Tensor:
    """(n, k) smooth functions of mean square about one on n points of a circle, unevenly spread."""
    g = torch.Generator().manual_seed(seed)
    t = 2 * torch.pi * torch.rand(n, 1, generator=g, dtype=torch.float64) ** 1.5
    wave = torch.arange(1, k + 1, dtype=torch.float64)
    return 2**0.5 * torch.cos(wave * t + torch.rand(k, generator=g, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(25))
def test_equals_brute_force(seed: int) -> None:
    """Sizes, dimensions and noise at random; guesses good, bad, and all the same."""
    g = torch.Generator().manual_seed(seed)
    Q, N = (int(n) for n in torch.randint(1, 600, (2,), generator=g))
    D = int(torch.randint(1, 40, (1,), generator=g))
    x = curve(Q, D, seed)
    points = curve(N, D, seed) @ torch.linalg.qr(torch.randn(D, D, generator=g, dtype=torch.float64))[0]
    points += 0.1 * torch.randn(N, D, generator=g, dtype=torch.float64)
    cut = patches(x)
    want = brute(x, points)
    for guess in (want, torch.randint(0, N, (Q,), generator=g), torch.zeros(Q, dtype=torch.int64)):
        assert torch.equal(nearest_by_guess(x, points, guess, cut, block=BLOCK), want)


def test_few_points_are_tried() -> None:
    """It prunes: of points on a closed curve, those far along it are not in the reach of a cell."""
    x, points = curve(1000, 40, 0), curve(3000, 40, 0) + 0.01
    cut, p = patches(x), guided._point_rows(points, None)
    guess = brute(x, points)
    far, q = guided._Far.of(p), x.float()
    reach = (x - points[guess]).norm(dim=1).float()
    cells = guided._ball_rows(*guided._around(q, q, reach, cut), far)
    inside = cells @ p.T <= 0
    assert bool(inside[cut.cell, guess[cut.rows]].all())
    assert float(inside.double().mean()) < 0.3


def test_cells_are_small_and_near_their_sample() -> None:
    """Naive loop: farthest points of a patch until all are near one, each row in the cell of its nearest."""
    x = curve(300, 12, 5)
    cut = patches(x, 70)
    limit = guided.RADIUS**2 * 2 * 12
    for b, rows in enumerate(cut.rows.tolist()):
        square = (x[rows][:, None] - x[rows]).float().square().sum(2)
        samples = [0]
        while float(square[:, samples].amin(1).max()) > limit:
            samples.append(int(square[:, samples].amin(1).argmax()))
        assert cut.first[b + 1] - cut.first[b] == len(samples)
        assert torch.equal(cut.cell[b] - cut.first[b], square[:, samples].argmin(1))


@pytest.mark.parametrize("block", [400, 3000, 30_000])
def test_any_block_gives_the_same(block: int) -> None:
    x, points = curve(300, 12, 1), curve(500, 12, 2)
    guess = (points[None] - x[:, None]).norm(dim=2).topk(5, largest=False).indices[:, 4]
    found = nearest_by_guess(x, points, guess, patches(x, block // len(points)), block=block)
    assert torch.equal(found, brute(x, points))


def test_ties_go_to_the_lowest_index() -> None:
    """Integer grids, each point three times: most queries have several nearest points."""
    g = torch.Generator().manual_seed(3)
    points = torch.randint(0, 3, (90, 5), generator=g).double().repeat(3, 1)
    query = torch.randint(0, 6, (200, 5), generator=g) / 2.0
    query = query.double()
    last = torch.full((200,), 269)  # a guess that is never the lowest of its equals
    assert torch.equal(
        nearest_by_guess(query, points, last, patches(query), block=BLOCK), brute(query, points)
    )


@pytest.mark.parametrize("n", [1, 2, 40, 500])
def test_all_points_equal(n: int) -> None:
    """Everything ties: more in reach than is worth listing, so that brute force takes over."""
    query, points = torch.ones(120, 6).double(), torch.ones(n, 6).double()
    for shift in (0.0, 1.0):
        guess = torch.full((120,), n - 1)
        found = nearest_by_guess(query + shift, points, guess, patches(query), block=BLOCK)
        assert found.tolist() == [0] * 120


def test_one_query_and_one_point() -> None:
    x, points = curve(1, 7, 0), curve(300, 7, 1)
    zero = torch.zeros(1, dtype=torch.int64)
    assert torch.equal(nearest_by_guess(x, points, zero, patches(x), block=BLOCK), brute(x, points))
    assert (
        nearest_by_guess(points, x, torch.zeros(300).long(), patches(points), block=BLOCK).tolist()
        == [0] * 300
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("shift", [0.0, 1.0, 1e4])
def test_differences_below_float32_are_seen(scale: float, shift: float) -> None:
    """Points that float32 cannot tell apart, far from the origin, in any unit."""
    g = torch.Generator().manual_seed(4)
    points = (1 + 1e-9 * torch.randn(150, 16, generator=g, dtype=torch.float64) + shift) * scale
    query = points[:60] + 1e-11 * torch.randn(60, 16, generator=g, dtype=torch.float64) * scale
    guess = torch.arange(60).flip(0)
    assert torch.equal(
        nearest_by_guess(query, points, guess, patches(query / scale), block=BLOCK), torch.arange(60)
    )


@pytest.mark.parametrize("who", ["query", "point"])
def test_a_far_outlier(who: str) -> None:
    x, points = curve(200, 10, 5), curve(400, 10, 6)
    (x if who == "query" else points)[7] = 1e6
    guess = torch.arange(200)
    assert torch.equal(nearest_by_guess(x, points, guess, patches(x), block=BLOCK), brute(x, points))


@pytest.mark.parametrize("seed", range(5))
def test_short_for_longer_vectors(seed: int) -> None:
    """Two linear images of the queries, two parts of the points: distances of both from one short product."""
    g = torch.Generator().manual_seed(seed)
    U1, U2 = curve(350, 9, seed), curve(240, 11, seed + 50)
    A, B = torch.randn(9, 11, generator=g).double() / 3, torch.randn(9, 11, generator=g).double() / 3
    x1, x2 = torch.cat([U1, U1 @ B], 1), torch.cat([U2 @ A.T, U2], 1)
    carried, want = U1 @ (A + B), brute(x2, x1)
    guess = torch.randint(0, 350, (240,), generator=g)
    bias = x1.square().sum(1)
    found = nearest_by_guess(U2, carried, guess, patches(U2), block=BLOCK, bias=bias, whole=x2)
    assert torch.equal(found, want)


@pytest.mark.parametrize("size", [1, 2, 7, 80])
def test_patches_hold_every_query(size: int) -> None:
    """Every row is in a patch; a cell belongs to one patch and is no wider than it may be."""
    x = curve(333, 30, 0)
    cut = patches(x, size)
    assert torch.equal(torch.unique(cut.rows), torch.arange(333))
    assert cut.rows.shape[1] <= max(size, 2)
    first = torch.tensor(cut.first)
    assert bool((cut.cell >= first[:-1, None]).all()) and bool((cut.cell < first[1:, None]).all())
    assert torch.equal(torch.unique(cut.cell), torch.arange(cut.first[-1]))
    limit = 2 * guided.RADIUS * (2 * 30) ** 0.5
    for c in range(cut.first[-1]):
        members = x[cut.rows[cut.cell == c]]
        assert float(torch.cdist(members, members).max()) <= limit * (1 + 1e-5)


def test_patches_of_equal_rows() -> None:
    cut = patches(torch.ones(100, 8).double())
    assert cut.first == list(range(len(cut.rows) + 1))  # one cell a patch


@pytest.mark.parametrize("both", [False, True])
def test_zoomout_with_it_and_without(monkeypatch: pytest.MonkeyPatch, both: bool) -> None:
    """The same maps in every vertex and step, where there are many vertices a function."""
    bases = []
    for n, seed in ((900, 1), (700, 2)):
        mass = torch.rand(n, generator=torch.Generator().manual_seed(seed)).double() + 0.5
        mass /= mass.sum()
        root = mass.sqrt()[:, None]
        vecs = torch.linalg.qr(curve(n, 24, seed) * root)[0] / root
        bases.append(Eigenbasis(torch.arange(24, dtype=torch.float64), vecs, mass))
    C = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double())[0]
    calls: list[int] = []
    module = sys.modules["geoframe.maps.zoomout"]  # the function of this name hides it

    def spy(*args: Tensor, **options: Tensor) -> Tensor:
        calls.append(args[0].shape[1])
        return nearest_by_guess(*args, **options)

    monkeypatch.setattr(module, "nearest_by_guess", spy)
    found = zoomout(C, *bases, sizes=[10, 16, 24], bidirectional=both)
    assert calls == [k for k in (10, 16, 24) for _ in range(1 + both)]
    monkeypatch.setattr(module, "DENSE", 10**6)
    want = zoomout(C, *bases, sizes=[10, 16, 24], bidirectional=both)
    assert len(calls) == 3 * (1 + both)
    assert torch.equal(found.p2p_21, want.p2p_21) and torch.equal(found.C_12, want.C_12)
    if both:
        assert torch.equal(found.p2p_12, want.p2p_12)
