"""Sets of clouds and their batches: normalisation, known rotations, corruption, seeds, shares of processes."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import linprog

from geoframe.data import CloudBatches, CloudSet, corrupt, normalise, rotate_randomly
from geoframe.transforms import rotation_about_axis


@pytest.fixture
def clouds():
    points = torch.rand(10, 50, 3, generator=torch.Generator().manual_seed(0))
    return CloudSet(points * torch.tensor([300.0, 20, 100]) + 7, tuple(map(str, range(10))))


def test_normalised_boxes_are_centred_with_longest_side_2(clouds):
    points, centre, half = normalise(clouds.points)
    low, high = points.amin(1), points.amax(1)
    torch.testing.assert_close((high - low).amax(1), torch.full((10,), 2.0))
    torch.testing.assert_close(high, -low, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(points * half[:, None, None] + centre[:, None], clouds.points)
    torch.testing.assert_close(normalise(1e5 * clouds.points - 3)[0], points, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("up", [1, 2])
def test_a_random_rotation_is_known(clouds, up):
    g = torch.Generator().manual_seed(0)
    points = clouds.points.expand(10, 50, 3).repeat(20, 1, 1)
    turned, angle = rotate_randomly(points, 30, up=up, generator=g)
    torch.testing.assert_close(turned @ rotation_about_axis(angle, up), points, atol=1e-3, rtol=1e-5)
    assert float(angle.abs().max()) <= math.radians(30)
    assert float(angle.max()) > math.radians(27) and float(angle.min()) < -math.radians(27)
    assert torch.equal(turned[..., up], points[..., up]) or torch.allclose(turned[..., up], points[..., up])


def test_corruption_takes_one_side_and_keeps_the_number(clouds):
    points = clouds.normalised().points
    worse = corrupt(points, missing=0.3, generator=torch.Generator().manual_seed(0))
    assert worse.shape == points.shape
    for b in range(10):
        kept = (points[b][:, None] == worse[b]).all(-1).any(1)
        assert int(kept.sum()) == 35
        # gone and kept are on two sides of a plane: the perceptron separates them
        sign = torch.where(kept, 1.0, -1.0)[:, None]
        rows = (-sign * torch.cat([points[b], torch.ones(50, 1)], dim=1)).numpy()
        assert linprog([0] * 4, A_ub=rows, b_ub=[-1e-6] * 50, bounds=[(-1e3, 1e3)] * 4).status == 0
    noisy = corrupt(points, noise=0.02, generator=torch.Generator().manual_seed(0)) - points
    assert float(noisy.std()) == pytest.approx(0.02, rel=0.1)


def test_batches_are_a_function_of_seed_and_epoch(clouds):
    make = CloudBatches(clouds.normalised(), batch_size=4, n_points=40, n_seen=20, missing=0.3, noise=0.1)
    first, again, other = (list(make(e)) for e in (3, 3, 4))
    assert len(first) == make.n_batches == 2
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(first[0]["index"], other[0]["index"])
    assert first[0]["points"].shape == (4, 40, 3) and first[0]["seen"].shape == (4, 20, 3)
    seen = torch.cat([b["index"] for b in first])
    assert len(set(seen.tolist())) == 8
    back = first[0]["points"] @ rotation_about_axis(first[0]["angle"], 2)
    source = clouds.normalised().points[first[0]["index"]]
    assert float(torch.cdist(back, source).amin(-1).max()) < 1e-3


def test_shares_of_processes_make_up_the_batch(clouds):
    make = CloudBatches(clouds.normalised(), batch_size=4, n_points=50)
    whole = next(iter(make(0)))
    shares = [next(iter(make(0, rank, 2))) for rank in range(2)]
    for name, x in whole.items():
        assert torch.equal(torch.stack([s[name] for s in shares], dim=1).flatten(0, 1), x)
    with pytest.raises(ValueError, match="multiple of 3 processes"):
        next(iter(make(0, 0, 3)))


def test_bad_sets_are_refused(clouds):
    with pytest.raises(ValueError, match="a is one point repeated"):
        CloudSet(torch.ones(1, 9, 3), ("a",))
    with pytest.raises(ValueError, match="at least one cloud"):
        CloudSet(torch.ones(0, 9, 3), ())
    with pytest.raises(ValueError, match="finite"):
        CloudSet(torch.full((1, 9, 3), math.nan), ("a",))
    with pytest.raises(ValueError, match="names: expected 10"):
        CloudSet(clouds.points, ("a",))
    with pytest.raises(ValueError, match="points: expected clouds of positive size"):
        normalise(torch.ones(1, 5, 3))
    with pytest.raises(ValueError, match=r"degrees: expected a number in \[0, 180\]"):
        rotate_randomly(clouds.points, 200)
    with pytest.raises(ValueError, match="missing, noise"):
        corrupt(clouds.points, missing=1)
    with pytest.raises(ValueError, match="n_points: expected an integer from 2 to 50"):
        CloudBatches(clouds)
