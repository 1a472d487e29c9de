"""Landmarks from a frozen network: on pictures whose pixels say exactly which point of the object they show."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from geoframe.heads.landmarks import RIGHT, LandmarkRegressor, _error_model, fit_regressor, relative_error
from geoframe.heads.points import Look, cluster_directions, mirror_swap
from geoframe.metrics.landmarks import calibration_gap
from geoframe.warps import pixel_grid, random_warp

SIDE = 48
MEAN = torch.tensor([[-0.3, -0.2], [0.3, -0.2], [0.0, 0.1], [-0.2, 0.35], [0.2, 0.35]])


def _pictures(n, seed):
    """Pictures of a disc whose red and green are its own coordinates, somewhere, small or large; its landmarks."""
    warp = random_warp(n, rotation=15, scale=0.3, shift=0.2, bend=0, strong_bend=0, seed=seed)
    own = warp.grid(SIDE)  # the place on the object that each pixel shows
    inside = own.norm(dim=-1, keepdim=True) < 0.6
    colour = torch.cat([own / 2 + 0.5, torch.ones_like(own[..., :1])], -1)
    return torch.where(inside, colour, 0.0).movedim(-1, 1), warp.inverse(MEAN)[0]


def _look(views):
    """A network that reads the coordinates: harmonics of them, so that cosines fall off with the distance."""
    x = F.avg_pool2d(views, 2)
    there = x[:, 2:] > 0.5
    u = torch.where(there, x[:, :2] * 2 - 1, 0.0)
    waves = torch.cat([f(k * u) for k in (1.0, 2.0, 4.0) for f in (torch.sin, torch.cos)], 1)
    return Look(torch.cat([waves * there, 4 * (~there).float()], 1), None)


@pytest.fixture(scope="module")
def unseen():
    return _pictures(30, seed=99)


def _error(found, true):
    return float((found - true).norm(dim=-1).mean()) / 0.3  # of half the distance between the "eyes"


@pytest.fixture(scope="module")
def regressors():
    images, points = _pictures(24, seed=1)
    return {
        method: fit_regressor(_look, images, points, size=(SIDE, SIDE), method=method)
        for method in ("cascade", "linear")
    }


def test_a_second_look_is_nearer(regressors, unseen):
    errors = {m: _error(r(_look, unseen[0]).points, unseen[1]) for m, r in regressors.items()}
    assert errors["cascade"] < 0.06 and errors["cascade"] < 0.6 * errors["linear"]


@pytest.mark.parametrize("n", [2, 5])
def test_few_labels_are_enough_where_the_frame_is_good(n, unseen):
    images, points = _pictures(n, seed=2)
    few = fit_regressor(_look, images, points, size=(SIDE, SIDE), unlabelled=_pictures(10, seed=3)[0])
    assert _error(few(_look, unseen[0]).points, unseen[1]) < 0.25


def test_confidence_is_a_probability_and_lower_for_noise(regressors, unseen):
    found = regressors["cascade"](_look, unseen[0])
    noise = regressors["cascade"](
        _look, torch.rand(30, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    )
    assert bool((found.confidence > 0).all()) and bool((found.confidence < 1).all())
    assert float(noise.confidence.mean()) < float(found.confidence.mean()) - 0.2


def test_the_model_of_the_error_is_found_and_held_where_little_is_known():
    """Errors that go with the root of the last move: from many images the slope is found, from two it is held."""
    draw = torch.Generator().manual_seed(0)
    for n, near in ((4000, 0.5), (2, 0.65)):
        true = torch.randn(1, 5, 2, generator=draw).expand(n, -1, -1)
        move = torch.exp(torch.randn(n, generator=draw) - 3)
        error = move.sqrt() * torch.exp(0.2 * torch.randn(n, generator=draw))
        away = F.normalize(torch.randn(n, 5, 2, generator=draw), dim=-1) * _spread(true)
        points = true + error[:, None, None] * away
        before = points + (move * _spread(points)[:, 0, 0])[:, None, None] * F.normalize(away.flip(1), dim=-1)
        slope, _, deviation = _error_model(points, before, true).tolist()
        assert abs(slope - near) < 0.09 and deviation == pytest.approx(0.2 if n > 100 else 0.3, abs=0.09)


def _spread(points):
    return (points - points.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt()[:, None, None]


def test_confidence_is_the_share_of_images_that_are_right(regressors, unseen):
    """Not on the images that it was fitted to."""
    images, points = _pictures(200, seed=50)
    found = regressors["cascade"](_look, images)
    right = relative_error(found.points, points) < RIGHT
    assert abs(float(found.confidence.mean()) - float(right.float().mean())) < 0.15
    assert calibration_gap(found.confidence, right) < 0.2


def test_batch_mates_do_not_matter(regressors, unseen):
    whole = regressors["cascade"](_look, unseen[0]).points
    alone = regressors["cascade"](_look, unseen[0][4:5]).points
    assert torch.allclose(whole[4:5], alone, atol=1e-5)


@pytest.mark.parametrize("method", ["cascade", "linear"])
def test_tensors_make_the_same_regressor(method, regressors, unseen):
    again = LandmarkRegressor.from_tensors(regressors[method].tensors())
    a, b = (r(_look, unseen[0]) for r in (again, regressors[method]))
    assert torch.equal(a.points, b.points) and torch.equal(a.confidence, b.confidence)


def test_points_of_the_network_serve_as_well(unseen):
    def look(views):
        seen = _look(views).field
        weight = (views[:, 2:] > 0.5).float()
        grid = pixel_grid(*views.shape[2:]).movedim(-1, 0)
        u = views[:, :2] * 2 - 1
        spots = torch.tensor([[-0.4, 0.0], [0.4, 0.0], [0.0, 0.4], [0.0, -0.4]])
        near = torch.exp(-((u[:, None] - spots[None, :, :, None, None]) ** 2).sum(2) / 0.02) * weight
        near = near / near.sum((2, 3), keepdim=True).clamp_min(1e-6)
        assert seen is not None
        return Look(None, (near[:, :, None] * grid).sum((3, 4)))

    images, points = _pictures(12, seed=5)
    fitted = fit_regressor(look, images, points, size=(SIDE, SIDE))
    assert _error(fitted(look, unseen[0]).points, unseen[1]) < 0.1


def test_warped_copies_help_the_linear_way(unseen):
    images, points = _pictures(6, seed=7)
    plain, more = (
        _error(
            fit_regressor(_look, images, points, size=(SIDE, SIDE), method="linear", copies=c)(
                _look, unseen[0]
            ).points,
            unseen[1],
        )
        for c in (0, 10)
    )
    assert more < plain


def test_which_landmark_is_which_in_the_mirror():
    points = _pictures(5, seed=0)[1]
    swap = mirror_swap(points)
    assert swap is not None and swap.tolist() == [1, 0, 2, 4, 3]
    lopsided = points.clone()
    lopsided[:, 2] += torch.tensor([0.5, 0.3])
    assert mirror_swap(lopsided) is None


def test_clusters_on_the_sphere_are_found():
    draw = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(4, 8, generator=draw), dim=1)
    x = F.normalize(centres.repeat_interleave(50, 0) + 0.05 * torch.randn(200, 8, generator=draw), dim=1)
    best = max(float((cluster_directions(x, 4, seed=s) @ centres.T).amax(0).min()) for s in range(5))
    assert best > 0.99


def test_bad_input_is_told():
    images, points = _pictures(2, seed=0)
    with pytest.raises(ValueError, match="method: expected one of"):
        fit_regressor(_look, images, points, size=(48, 48), method="forest")
    points[0, 0] = torch.nan
    with pytest.raises(ValueError, match="points: expected at least two landmarks, all known"):
        fit_regressor(_look, images, points, size=(48, 48))
    with pytest.raises(ValueError, match="points: expected shape"):
        fit_regressor(_look, images, points[:1], size=(48, 48))
