"""The blockwise matching kernel against brute force: values, gradients, any D, blocks, batch mates."""

from __future__ import annotations

import pytest
import torch

from geoframe.layers.correspondence import (
    best_match,
    exchange,
    expected_cost,
    gaussian_maps,
    match_log_likelihood,
    rows,
    soft_argmax,
    soft_match,
)
from geoframe.warps import pixel_grid, to_pixels


def _problem(dtype=torch.float64, B=2, N=7, M=11, D=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    f, g = (torch.randn(B, n, D, generator=draw, dtype=dtype) for n in (N, M))
    truth, places = (
        torch.rand(B, N, 2, generator=draw, dtype=dtype),
        torch.rand(M, 2, generator=draw, dtype=dtype),
    )
    return f, g, truth, places


def _brute(f, g, truth, places, gamma, temperature):
    p = torch.softmax(f @ g.mT / temperature, -1)
    return (p * torch.cdist(truth, places.expand(len(f), -1, -1)).pow(gamma)).sum(-1)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("D", [1, 3, 64])
def test_expected_cost_is_brute_force(gamma, D):
    problem = _problem(D=D)
    found = expected_cost(*problem, gamma=gamma, temperature=0.7, block=3)
    assert torch.allclose(found, _brute(*problem, gamma, 0.7), atol=1e-12)


def test_gradients_in_double_precision():
    f, g, truth, places = _problem(B=1, N=3, M=4, D=2)
    f.requires_grad_(), g.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: expected_cost(a, b, truth, places, block=2), (f, g))
    index = torch.tensor([[0, 3, 2]])
    assert torch.autograd.gradcheck(
        lambda a, b: match_log_likelihood(a, b, index, temperature=0.5, block=3), (f, g)
    )
    assert torch.autograd.gradcheck(lambda a, b: exchange(a, b, temperature=0.5), (f, g))


@pytest.mark.parametrize("block", [1, 4, 7, 100])
def test_blocks_change_nothing(block):
    f, g, truth, places = _problem()
    f.requires_grad_(), g.requires_grad_()
    whole = torch.autograd.grad(expected_cost(f, g, truth, places).sum(), (f, g))
    parts = torch.autograd.grad(expected_cost(f, g, truth, places, block=block).sum(), (f, g))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(whole, parts, strict=True))


def test_log_likelihood_is_the_log_softmax():
    f, g, _, _ = _problem()
    index = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(1))
    logs = torch.log_softmax(f @ g.mT / 0.3, -1)
    found = match_log_likelihood(f, g, index, temperature=0.3)
    assert torch.allclose(found, logs.gather(2, index[..., None])[..., 0], atol=1e-12)


def test_exchange_is_over_all_pixels_of_all_auxiliary_pictures():
    f, g, _, _ = _problem()
    more = torch.stack([g, g.flip(1) + 0.1, 2 * g], 1)
    flat = more.flatten(1, 2)
    brute = torch.softmax(f @ flat.mT / 0.4, -1) @ flat
    assert torch.allclose(exchange(f, more, temperature=0.4), brute, atol=1e-12)
    # among its own vectors, far apart, a cold exchange gives each vector back
    own = torch.eye(5, dtype=f.dtype)[None] * 10
    assert torch.allclose(exchange(own, own, temperature=0.1), own, atol=1e-9)


def test_batch_mates_do_not_matter():
    f, g, truth, places = _problem(dtype=torch.float32)
    assert torch.allclose(
        expected_cost(f, g, truth, places)[1:], expected_cost(f[1:], g[1:], truth[1:], places)
    )
    assert torch.allclose(exchange(f, g)[1:], exchange(f[1:], g[1:]), atol=1e-6)


def test_best_and_soft_match():
    f, g, _, places = _problem()
    assert torch.equal(best_match(f, g), (f @ g.mT).argmax(-1))
    assert torch.equal(best_match(f, g, metric="distance"), torch.cdist(f, g).argmin(-1))
    found, sure = soft_match(f, g, places, temperature=1e-3)
    assert torch.allclose(found, places[best_match(f, g)], atol=1e-6) and bool((sure > 0.99).all())
    each = soft_match(f, g, places.expand(2, -1, -1), temperature=0.5)
    assert torch.allclose(each[0], soft_match(f, g, places, temperature=0.5)[0])


def test_nothing_of_the_size_of_all_pairs_is_kept():
    kept: list[int] = []

    def count(x):
        kept.append(x.numel())
        return x

    f = torch.randn(2, 300, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        cost = expected_cost(f, f, torch.rand(2, 300, 2), torch.rand(300, 2))
        log = match_log_likelihood(f, f, torch.zeros(2, 300, dtype=torch.int64))
    assert kept and sum(kept) < 2 * 300 * 300 / 2
    (cost.sum() + log.sum()).backward()


def test_soft_argmax_finds_a_peak_and_moves_with_it():
    maps = torch.full((1, 2, 6, 9), -50.0)
    maps[0, 0, 2, 7] = maps[0, 1, 5, 0] = 50.0
    found = to_pixels(soft_argmax(maps), 6, 9)
    assert torch.allclose(found, torch.tensor([[[7.5, 2.5], [0.5, 5.5]]]), atol=1e-4)
    soft = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: soft_argmax(x, temperature=0.5), soft)
    p = torch.softmax(soft.flatten(2) / 0.5, -1)
    assert torch.allclose(soft_argmax(soft, temperature=0.5), p @ pixel_grid(3, 4, like=p).reshape(-1, 2))


def test_gaussian_maps_are_bumps_of_height_one_at_their_points():
    points = torch.rand(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    maps = gaussian_maps(points, (8, 12), sigma=0.8)
    centre, place = to_pixels(pixel_grid(8, 12, like=points), 8, 12), to_pixels(points, 8, 12)
    square = (centre[None, None] - place[:, :, None, None]).square().sum(-1)
    assert torch.allclose(maps, torch.exp(-square / (2 * 0.8**2)), atol=1e-12)


def test_bad_input_is_told():
    f, g, truth, places = _problem()
    with pytest.raises(ValueError, match=r"target: expected shape \(2, M, 5\)"):
        expected_cost(f, g[..., :3], truth, places)
    with pytest.raises(ValueError, match="gamma, temperature: expected positive"):
        expected_cost(f, g, truth, places, gamma=0)
    with pytest.raises(ValueError, match="metric: expected"):
        best_match(f, g, metric="cosine")
    with pytest.raises(TypeError, match="field: expected a floating"):
        rows(torch.zeros(1, 2, 3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="block: expected an integer at least 1"):
        expected_cost(f, g, truth, places, block=0)
