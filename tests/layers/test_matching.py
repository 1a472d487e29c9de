"""Deep matching as layers: equal to the recursive decoding, identities, gradients, the compiled volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from geoframe.layers.match_volume import MatchVolume
from geoframe.layers.matching import (
    aggregate,
    correlate,
    deep_scores,
    disaggregate,
    n_levels,
    patch_descriptors,
    pool,
    power,
    unpool,
)

EXPONENTS = (1.4, 1.2, 1.7)


def corners(level: int, i: int) -> tuple[int, int]:
    """Rows (or columns) of the patches of `level` that are the corners of patch i of the next one."""
    return (i - 1, i) if level == 0 else (i - 2 ** (level - 1), i + 2 ** (level - 1))


def recursive(S0: np.ndarray, exponents: tuple[float, ...]) -> tuple[list[np.ndarray], np.ndarray]:
    """Maps S_l by loops over their definition, and Q_0 by following every path down from every entry of the top."""
    maps, switches = [S0], []
    for level, exponent in enumerate(exponents):
        S = maps[-1]
        H, W, K = S.shape[:3]
        R = (K - 1) // 2
        r = -(-R // 2)
        pooled, at = np.zeros((H, W, 2 * r + 1, 2 * r + 1)), {}
        for i, j, m, n in np.ndindex(pooled.shape):
            y, x = 2 * (m - r) + R, 2 * (n - r) + R
            near = [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
            near = [(a, b) for a, b in near if 0 <= a < K and 0 <= b < K]
            at[i, j, m, n] = max(near, key=lambda q: S[i, j, q[0], q[1]])
            pooled[i, j, m, n] = S[i, j][at[i, j, m, n]]
        grid = (H + 1, W + 1) if level == 0 else (H, W)
        above = np.zeros((*grid, *pooled.shape[2:]))
        for i, j in np.ndindex(grid):
            inside = [
                pooled[a, b]
                for a in corners(level, i)
                for b in corners(level, j)
                if 0 <= a < H and 0 <= b < W
            ]
            if inside:
                above[i, j] = np.mean(inside, axis=0) ** exponent
        maps.append(above)
        switches.append(at)
    best = np.full(S0.shape, -np.inf)

    def descend(level: int, i: int, j: int, m: int, n: int, total: float) -> None:
        total += maps[level][i, j, m, n]
        if level == 0:
            best[i, j, m, n] = max(best[i, j, m, n], total)
            return
        H, W = maps[level - 1].shape[:2]
        for a in corners(level - 1, i):
            for b in corners(level - 1, j):
                if 0 <= a < H and 0 <= b < W:
                    descend(level - 1, a, b, *switches[level - 1][a, b, m, n], total)

    for entry in np.ndindex(maps[-1].shape):
        descend(len(exponents), *entry, 0.0)
    return maps, best


@pytest.mark.parametrize("shape", [(3, 4, 9), (5, 2, 11), (1, 1, 7), (4, 4, 5)])
def test_the_layers_equal_the_recursive_decoding(shape):
    """K of 11 has an odd R and pads by two; one patch alone has windows but no neighbours."""
    H, W, K = shape
    S0 = np.random.default_rng(K).random((H, W, K, K))
    maps, best = recursive(S0, EXPONENTS)
    found = deep_scores(torch.from_numpy(S0)[None], EXPONENTS)
    for ours, theirs in zip(found.up, maps, strict=True):
        np.testing.assert_allclose(ours[0], theirs, atol=1e-12)
    np.testing.assert_allclose(found.down[0][0], best, atol=1e-5)
    assert np.array_equal(np.isfinite(best), np.isfinite(found.down[0][0].numpy()))


def test_a_pair_of_a_batch_knows_nothing_of_its_mates():
    S0 = torch.rand(3, 2, 3, 7, 7, dtype=torch.float64)
    together, alone = deep_scores(S0, EXPONENTS), deep_scores(S0[1:2], EXPONENTS)
    torch.testing.assert_close(together.down[0][1:2], alone.down[0], rtol=0, atol=0)


def test_correlation_is_the_product_of_descriptors_at_each_displacement():
    source, target = torch.randn(2, 3, 2, 3).double(), torch.randn(2, 3, 9, 8).double()
    scores = correlate(source, target, 2, stride=3, offset=1, step=2)
    for b, i, j, m, n in np.ndindex(scores.shape):
        y, x = 3 * i + 1 + 2 * (m - 2), 3 * j + 1 + 2 * (n - 2)
        inside = 0 <= y < 9 and 0 <= x < 8
        want = float(source[b, :, i, j] @ target[b, :, y, x]) if inside else 0.0
        assert float(scores[b, i, j, m, n]) == pytest.approx(max(want, 0.0), abs=1e-12)


def test_patches_hold_the_features_around_their_centre():
    features = F.normalize(torch.rand(1, 3, 12, 11), dim=1)
    found = patch_descriptors(features, size=2, spacing=3)
    assert found.shape == (1, 12, 12, 11)
    torch.testing.assert_close(found[0, :3, 5, 5], features[0, :, 4, 4] / 2)
    torch.testing.assert_close(found[0, 9:, 5, 5], features[0, :, 7, 7] / 2)
    torch.testing.assert_close(found[0, :, 5, 5].norm(), torch.tensor(1.0))
    assert torch.equal(patch_descriptors(features, size=1), features)


def test_unpooling_puts_maxima_back_and_the_highest_wins():
    scores = torch.rand(1, 1, 1, 9, 9)
    pooled, switches = pool(scores)
    back = unpool(pooled, switches, 9)
    filled = torch.isfinite(back)
    assert torch.equal(back[filled], scores[filled])
    assert filled.sum() == switches.unique().numel()
    twice = unpool(torch.arange(25.0).reshape(1, 1, 1, 5, 5), torch.full((1, 1, 1, 5, 5), 40), 9)
    assert float(twice.reshape(-1)[40]) == 24 and torch.isfinite(twice).sum() == 1


@pytest.mark.parametrize("level", [0, 1, 2])
def test_equal_scores_aggregate_to_themselves_and_come_back(level):
    """Averages are over the corners on the grid only, so that a border changes nothing."""
    scores = torch.full((1, 6, 5, 3, 3), 0.7)
    above = aggregate(scores, level)
    assert above.shape[1:3] == ((7, 6) if level == 0 else (6, 5))
    has = disaggregate(above, level)
    reached = torch.isfinite(has)
    torch.testing.assert_close(has[reached], torch.full_like(has[reached], 0.7))
    assert bool(reached.all()) == (level < 2 or 2**level < 5)


@pytest.mark.parametrize("level", [0, 1])
def test_disaggregation_takes_the_highest_of_the_patches_around(level):
    above = torch.rand(1, 5, 4, 1, 1)
    found = disaggregate(above, level)
    H, W = found.shape[1:3]
    for i, j in np.ndindex(H, W):
        around = [
            float(above[0, a, b, 0, 0])
            for a in range(5)
            for b in range(4)
            if i in corners(level, a) and j in corners(level, b)
        ]
        assert float(found[0, i, j, 0, 0]) == max(around, default=-np.inf)


def test_gradients_of_every_layer():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    source, target, maps = draw(1, 3, 2, 2), draw(1, 3, 7, 7), draw(1, 2, 3, 5, 5)
    assert torch.autograd.gradcheck(lambda a, b: correlate(a, b, 2, stride=3, offset=1), (source, target))
    assert torch.autograd.gradcheck(lambda x: pool(x)[0], maps)
    switches = pool(maps)[1]
    small = draw(1, 2, 3, 3, 3)
    assert torch.autograd.gradcheck(
        lambda x: unpool(x, switches, 5)[torch.isfinite(unpool(x, switches, 5))], small
    )
    for level in (0, 1):
        assert torch.autograd.gradcheck(lambda x, level=level: aggregate(x, level), maps)
        assert torch.autograd.gradcheck(lambda x: disaggregate(x, 0), draw(1, 3, 4, 3, 3))
    assert torch.autograd.gradcheck(power, (draw(5), torch.tensor(1.4).double().requires_grad_()))
    assert torch.autograd.gradcheck(lambda x: patch_descriptors(x, size=2, spacing=2), draw(1, 2, 4, 5))


def test_gradients_of_the_whole():
    exponents = torch.tensor([1.4, 1.1], dtype=torch.float64, requires_grad=True)
    scores = torch.rand(1, 2, 3, 5, 5, dtype=torch.float64, requires_grad=True)

    def final(scores: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
        found = deep_scores(scores, list(exponents)).down[0]
        return found[torch.isfinite(found)]

    assert torch.autograd.gradcheck(final, (scores, exponents))


def test_the_power_is_harmless_at_zero():
    scores = torch.tensor([0.0, -1.0, 1.0], requires_grad=True)
    exponent = torch.tensor(0.5, requires_grad=True)
    power(scores, exponent).sum().backward()
    assert torch.isfinite(scores.grad).all() and torch.isfinite(exponent.grad)


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 2, 2, 2), (8, 8, 40, 4), (64, 128, 40, 6)])
def test_levels_stop_where_nothing_is_left_to_aggregate(size):
    height, width, radius, want = size
    assert n_levels(height, width, radius) == want


def test_bad_scores_are_told():
    with pytest.raises(ValueError, match="odd number of displacements, found 4 x 4"):
        deep_scores(torch.rand(1, 2, 2, 4, 4), EXPONENTS)
    with pytest.raises(ValueError, match=r"scores: expected shape \(B, H, W, K, K\)"):
        deep_scores(torch.rand(2, 2, 5, 5), EXPONENTS)
    with pytest.raises(TypeError, match="scores: expected a floating dtype"):
        deep_scores(torch.ones(1, 2, 2, 5, 5, dtype=torch.int64), EXPONENTS)


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 2e-4)])
@pytest.mark.parametrize("step", [1, 2])
def test_the_compiled_volume_equals_the_layers(half, tolerance, step):
    """Scores, places and reciprocity; 16 bits of each of the levels' scores are 1.5e-5 apart."""
    generator = torch.Generator().manual_seed(step)
    f0, f1 = (F.normalize(torch.rand(1, 3, 29, 41, generator=generator), dim=1) for _ in range(2))
    size, spacing, stride, radius = 2, 3, 8, 9
    first, second = (patch_descriptors(f, size=size, spacing=spacing) for f in (f0, f1))
    volume = correlate(first[:, :, 4::8, 4::8], second, radius, stride=stride, offset=4, step=step)
    Q = deep_scores(volume, EXPONENTS).down[0][0].numpy()
    (H, W), reach = Q.shape[:2], step * np.arange(-radius, radius + 1)
    y = 4 + 8 * np.arange(H)[:, None, None, None] + reach[:, None]
    x = 4 + 8 * np.arange(W)[None, :, None, None] + reach
    inside = (y >= 0) & (y < 29) & (x >= 0) & (x < 41)
    Q = np.where(inside, Q, -np.inf)
    compiled = MatchVolume(
        f0[0].numpy(), f1[0].numpy(), size=size, spacing=spacing, stride=stride, radius=radius, step=step,
        exponents=EXPONENTS, half=half,
    )  # fmt: skip
    found = compiled.decode(1, apart=0)
    best = Q.reshape(H, W, -1).max(-1)
    np.testing.assert_allclose(found.score, best, atol=tolerance)
    rows, columns = np.indices((H, W))
    m = (found.target[..., 0] - 4 - 8 * rows) // step + radius
    n = (found.target[..., 1] - 4 - 8 * columns) // step + radius
    np.testing.assert_allclose(Q[rows, columns, m, n], best, atol=tolerance)
    by_place = np.full((29, 41), -np.inf)
    full_y, full_x = np.broadcast_to(y, Q.shape)[inside], np.broadcast_to(x, Q.shape)[inside]
    np.maximum.at(by_place, (full_y, full_x), Q[inside])
    rival = by_place[found.target[..., 0], found.target[..., 1]]
    assert np.array_equal(found.reciprocal, found.score >= rival - tolerance)
