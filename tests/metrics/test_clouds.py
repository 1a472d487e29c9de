"""Measures of category keypoints: closed forms, extremes, bad input."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe import metrics
from geoframe.surface import sample_surface
from geoframe.surface.shapes import box, icosphere
from geoframe.transforms import rotation_about_axis


@pytest.fixture
def cube():
    """2 clouds of 500 points in the cube of scale 2, corners among them."""
    g = torch.Generator().manual_seed(0)
    inner = torch.rand(2, 492, 3, generator=g) * 2 - 1
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    return torch.cat([inner, corners.expand(2, 8, 3)], dim=1)


def test_boxes(cube):
    corners = cube[:, -8:]
    for scale, share in ((1.0, 1.0), (0.5, 0.125), (2.0, 1.0)):
        torch.testing.assert_close(metrics.box_coverage(scale * corners, cube), torch.full((2,), share))
    torch.testing.assert_close(metrics.box_overlap(2 * corners, cube), torch.full((2,), 0.125))
    shifted = corners + torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(metrics.box_coverage(shifted, cube), torch.ones(2))
    torch.testing.assert_close(metrics.box_overlap(shifted, cube), torch.full((2,), 1 / 3))
    assert metrics.box_overlap(corners + 5, cube).tolist() == [0, 0]
    half = metrics.points_covered(shifted, cube)
    expected = (cube[..., 0] >= 0).float().mean(1)
    torch.testing.assert_close(half, expected)


def test_model_error_is_a_mean_over_scale():
    keypoints = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    nodes = torch.tensor([[[0.0, 0.2, 0], [1, 0, 0.4]]])
    assert float(metrics.model_error(nodes, keypoints)) == pytest.approx((0.1 + 0.1) / 2)
    assert float(metrics.model_error(nodes, keypoints, squared=False)) == pytest.approx((0.3 + 0.3) / 2)


def test_inclusivity_counts_by_distance():
    points = torch.zeros(1, 1, 3)
    keypoints = torch.tensor([[[0.1, 0, 0], [0, 0.12, 0], [0, 0, 0.13], [1, 0, 0]]])
    assert float(metrics.inclusivity(keypoints, points)) == 0.5
    assert float(metrics.inclusivity(keypoints, points, reach=0.015)) == 0


def test_surface_distance_is_that_of_all_triangles():
    g = torch.Generator().manual_seed(0)
    sphere, block = icosphere(2), box((2.0, 1.0, 0.5))  # few and long triangles
    keypoints = torch.rand(2, 20, 3, generator=g) * 3 - 1.5
    found = metrics.surface_distance(keypoints, (sphere, block))
    for k, mesh, d in zip(keypoints, (sphere, block), found, strict=True):
        dense = sample_surface(mesh, 100_000, generator=1).points.float()
        nearest = torch.cdist(k, dense).amin(1)
        assert bool((d <= nearest + 1e-6).all()) and bool((nearest - d < 0.02).all())
    beside = torch.tensor([[[1.3, 0.2, 0.1], [0.0, 0, 0], [1.4, 0.9, 0.25]]])
    torch.testing.assert_close(
        metrics.surface_distance(beside, (block,)), torch.tensor([[0.3, 0.25, 0.32**0.5]]), atol=1e-6, rtol=0
    )
    with pytest.raises(ValueError, match="surfaces: expected 2, one a shape, found 1"):
        metrics.surface_distance(keypoints, (block,))


def test_symmetry_error_is_an_angle_without_sign():
    angle = torch.tensor([0.0, 0.3, 1.0])
    R = rotation_about_axis(angle, 2)
    off = rotation_about_axis(angle + math.radians(5), 2)
    x, axes = torch.tensor([-3.0, 0, 0]), torch.eye(3)
    torch.testing.assert_close(metrics.symmetry_error(x, R, axes[:1], R), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        metrics.symmetry_error(x, off, axes[:1], R), torch.full((3,), 5.0), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        metrics.symmetry_error(x, R, axes[1:2], R), torch.full((3,), 90.0), atol=1e-3, rtol=0
    )
    assert float(metrics.symmetry_error(x, R, axes[:2], R).max()) < 1e-3


def test_merging_is_single_linkage_on_mean_distances():
    line = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0.15, 0, 0], [0.3, 0, 0], [2, 0, 0]])
    shapes = torch.stack([line, line + 1])
    group = metrics.merge_keypoints(shapes)
    assert group.tolist() == [0, 1, 0, 0, 2]
    torch.testing.assert_close(
        metrics.merged(shapes, group)[0], torch.tensor([[0.15, 0, 0], [0.5, 0, 0], [2, 0, 0]])
    )
    assert metrics.merge_keypoints(shapes, distance=0.01).tolist() == [0, 1, 2, 3, 4]
    apart = torch.tensor([[[0.0, 0, 0], [0.5, 0, 0]], [[0.0, 0, 0], [-0.5, 0, 0]]])  # their mean places agree
    assert metrics.merge_keypoints(apart).tolist() == [0, 1]


def test_asymmetry_is_the_distance_to_the_mirror_image():
    points = torch.tensor([[[0.3, 1.0, 0.2], [-0.3, 1.0, 0.2], [0.0, -0.4, 0.2]]])
    torch.testing.assert_close(metrics.asymmetry(points, 0), torch.zeros(1))
    # mirrored across y the first two are nearest to the third's image at y 0.4, and the third to theirs at y -1
    expected = (2 * math.hypot(0.3, 0.6) + math.hypot(0.3, 0.6)) / 3
    torch.testing.assert_close(metrics.asymmetry(points, 1), torch.tensor([expected]))


def test_repeatability_undoes_the_turn():
    R = rotation_about_axis(torch.tensor([0.3, -1.0, 2.0]), 1)
    places = torch.rand(1, 4, 3)
    same = places @ R.mT
    torch.testing.assert_close(metrics.repeatability(same, R), torch.zeros(4), atol=1e-6, rtol=0)
    shift = torch.tensor([0.0, 0.3, -0.3])[:, None, None] * torch.tensor([0, 1.0, 0])
    spread = metrics.repeatability((places + shift) @ R.mT, R)
    torch.testing.assert_close(spread, torch.full((4,), math.sqrt(0.06) / 2))


def test_clusters_tell_ordered_from_unordered():
    g = torch.Generator().manual_seed(0)
    R = torch.eye(3).expand(30, 3, 3)
    places = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)[:6]
    tight = places + 0.05 * torch.randn(30, 6, 3, generator=g)
    shuffled = torch.stack([x[torch.randperm(6, generator=g)] for x in tight])
    assert bool(metrics.clusters(shuffled, R)[1].all())
    ordered, found = metrics.clusters(shuffled, R)
    assert bool(found.all()) and float(metrics.repeatability(ordered, R).max()) < 0.06
    twice = torch.cat([shuffled[:, :5], shuffled[:, :1]], dim=1)  # one lost, one found twice, on every shape
    ordered, found = metrics.clusters(twice, R)
    assert torch.equal(ordered.isfinite().all(-1), found) and float(found.double().mean()) < 0.85
    assert float(metrics.clusters(torch.rand(30, 6, 3, generator=g), R)[1].double().mean()) < 0.6


def test_semantics():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]]).expand(4, 2, 3)
    labels = torch.tensor([[0, 1]] * 3 + [[2, 1]])
    keypoints = torch.tensor([[[0.1, 0, 0], [0.9, 0, 0]]]).expand(4, 2, 3)
    matrix, number = metrics.semantic_consistency(keypoints, points, labels)
    torch.testing.assert_close(matrix, torch.tensor([[0.75, 0, 0.25], [0, 1, 0]], dtype=torch.float64))
    assert number == pytest.approx(87.5)
    assert metrics.dual_alignment_score(keypoints, points, labels) == pytest.approx(87.5)
    assert metrics.dual_alignment_score(keypoints[:3], points[:3], labels[:3]) == pytest.approx(100)


def test_registration_of_turned_copies_is_exact():
    g = torch.Generator().manual_seed(0)
    shape = torch.rand(1, 6, 3, generator=g, dtype=torch.float64)
    R = rotation_about_axis(torch.rand(5, generator=g, dtype=torch.float64) * 6, 2)
    size = torch.tensor([1.0, 2, 0.5, 1, 3], dtype=torch.float64)[:, None, None]
    clouds = size * shape @ R.mT + torch.rand(5, 1, 3, generator=g, dtype=torch.float64)
    pairs = metrics.random_pairs(5, 40)
    assert bool((pairs[:, 0] != pairs[:, 1]).all()) and int(pairs.max()) == 4
    assert float(metrics.relative_rotation_error(clouds, R, pairs).max()) < 1e-5
    _, residual = metrics.register_pairs(clouds, pairs)
    assert float(residual.max()) < 1e-7
    wrong = rotation_about_axis(torch.tensor([0.1] * 5, dtype=torch.float64).cumsum(0), 2) @ R
    assert float(metrics.relative_rotation_error(clouds, wrong, torch.tensor([[0, 1]]))[0]) == pytest.approx(
        math.degrees(0.1), rel=1e-4
    )


@pytest.mark.parametrize("up", [0, 1, 2])
def test_turn_about_the_vertical_is_the_best_of_all_angles(up):
    g = torch.Generator().manual_seed(1)
    source, target = torch.rand(2, 3, 6, 3, generator=g, dtype=torch.float64)
    fit = metrics.fit_similarity(source, target, up=up)
    x = source - source.mean(1, keepdim=True)
    y = target - target.mean(1, keepdim=True)

    def error(angle, scale):
        return (scale[:, None, None] * x @ rotation_about_axis(angle, up).mT - y).square().sum((1, 2))

    best = (fit(source) - target).square().sum((1, 2))
    for angle in torch.linspace(-3.1, 3.1, 63, dtype=torch.float64):
        for factor in (0.98, 1.0, 1.02):
            assert bool((error(angle.expand(3), factor * fit.scale) >= best - 1e-12).all())
    same = metrics.fit_similarity(
        source, 2 * source @ rotation_about_axis(torch.tensor(0.7).double(), up).mT + 3, up=up
    )
    torch.testing.assert_close(same.R, rotation_about_axis(torch.full((3,), 0.7).double(), up))
    torch.testing.assert_close(same.scale, torch.full((3,), 2.0, dtype=torch.float64))


def test_left_out_errors_are_those_of_fits_without_a_row():
    """Each answer is regressed anew from the other rows, means included, with the penalty that all rows gave."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(9, 4, generator=g, dtype=torch.float64)
    y = x[:, :2] * 3 + 0.1 * torch.randn(9, 2, generator=g, dtype=torch.float64) + 5
    found = metrics.left_out_errors(x, y, ridge=0.1)
    penalty = 0.1 * (x - x.mean(0)).square().sum(1).mean()
    for i in range(9):
        rows = torch.arange(9) != i
        a, b = x[rows] - x[rows].mean(0), y[rows] - y[rows].mean(0)
        W = torch.linalg.solve(a.T @ a + penalty * torch.eye(4).double(), a.T @ b)
        said = y[rows].mean(0) + (x[i] - x[rows].mean(0)) @ W
        assert float(found[i]) == pytest.approx(float((said - y[i]).norm()), rel=1e-9)
    with pytest.raises(ValueError, match="x, y: expected at least three rows"):
        metrics.left_out_errors(x[:2], y[:2])


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="n: expected an integer at least 2"):
        metrics.random_pairs(1, 3)
    with pytest.raises(ValueError, match="canonical: expected shape"):
        metrics.merge_keypoints(torch.rand(4, 3))
    with pytest.raises(ValueError, match="labels: expected shape"):
        metrics.semantic_consistency(torch.rand(1, 2, 3), torch.rand(1, 5, 3), torch.zeros(5))


def _rotations(n):
    return rotation_about_axis(torch.linspace(-1, 1, n), 2)


CALLS = {  # with keypoints (3, 4, 3) and points (3, 30, 3)
    "box_coverage": metrics.box_coverage,
    "box_overlap": metrics.box_overlap,
    "points_covered": metrics.points_covered,
    "model_error": metrics.model_error,
    "inclusivity": metrics.inclusivity,
    "asymmetry": lambda k, p: metrics.asymmetry(k, 0),
    "merge_keypoints": lambda k, p: metrics.merge_keypoints(k),
    "repeatability": lambda k, p: metrics.repeatability(k, _rotations(len(k))),
    "clusters": lambda k, p: metrics.clusters(k, _rotations(len(k)))[0],
    "semantic_consistency": lambda k, p: metrics.semantic_consistency(k, p, _labels(p))[0],
    "dual_alignment_score": lambda k, p: torch.tensor(metrics.dual_alignment_score(k, p, _labels(p))),
    "register_pairs": lambda k, p: metrics.register_pairs(k, [[0, 1], [2, 0]], up=2)[1],
}


def _labels(points):
    return (torch.as_tensor(points)[..., 0] > 0).long().numpy()


@pytest.mark.parametrize("name", CALLS)
def test_arrays_are_taken_and_empty_input_is_told(name):
    g = torch.Generator().manual_seed(0)
    k, p = (torch.rand(3, n, 3, generator=g) * 2 - 1 for n in (4, 30))
    torch.testing.assert_close(CALLS[name](k.numpy(), p.numpy()), CALLS[name](k, p), equal_nan=True)
    for few in (k[:, :0], k[:0]):
        with pytest.raises(ValueError, match=r"expected at least one (point a cloud|cloud), found shape"):
            CALLS[name](few, p[: len(few)])


def _posts(*places, n=512, seed=0, noise=0.0):
    """(4, n, 3) noisy samples of round posts, each at a place (x, y) and with a height."""
    g = torch.Generator().manual_seed(seed)
    chosen = torch.tensor(places)[torch.randint(len(places), (4, n), generator=g)]
    angle = 2 * math.pi * torch.rand(4, n, generator=g)
    around = 0.15 * torch.stack([angle.cos(), angle.sin()], -1)
    height = torch.rand(4, n, generator=g) * chosen[..., 2]
    return torch.cat([chosen[..., :2] + around, height[..., None]], -1) + noise * torch.randn(
        4, n, 3, generator=g
    )


@pytest.mark.parametrize(
    ("places", "turns", "planes"),
    [
        ([(0.8, 0.5, 1), (-0.8, 0.5, 1), (0.8, -0.5, 0.4), (-0.8, -0.5, 0.4)], 1, (0,)),
        ([(0.8, 0.5, 1), (-0.8, 0.5, 1), (0.8, -0.5, 1), (-0.8, -0.5, 1)], 2, (0, 1)),
        ([(0.8, 0.2, 1), (-0.8, -0.2, 1)], 2, ()),
        ([(0.7, 0.7, 1), (-0.7, 0.7, 1), (0.7, -0.7, 1), (-0.7, -0.7, 1)], 4, (0, 1)),
        ([(0.8, 0.1, 1), (-0.3, 0.6, 0.7), (-0.5, -0.6, 0.3)], 1, ()),
    ],
)
def test_symmetry_of_a_category_is_found(places, turns, planes):
    points = _posts(*places)
    assert metrics.symmetry_turns(points) == turns
    assert tuple(sorted(metrics.symmetry_planes(points))) == planes
    assert metrics.symmetry_turns(_posts(*places, noise=0.05)) == turns  # then points fill a volume
    standing = points.roll(1, -1)  # another axis is the vertical one
    assert metrics.symmetry_turns(standing, 0) == turns


def test_any_turn_leaves_a_round_category_alike():
    g = torch.Generator().manual_seed(1)
    angle, height = 2 * math.pi * torch.rand(4, 512, generator=g), 2 * torch.rand(4, 512, generator=g) - 1
    radius = 0.4 + 0.2 * height.square()
    vase = torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1)
    assert metrics.symmetry_turns(vase) == 36
    assert len(metrics.symmetry_planes(vase)) == 2
