"""Fitting a template to masks: a known pose and deformation is found again."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path

import pytest
import torch

from geoframe import Mesh, load, template
from geoframe.camera import WeakPerspective, pinhole_view, weak_view
from geoframe.fitting import ImageLandmarks, fit_points
from geoframe.fitting._measures import hollow, turned_faces
from geoframe.fitting._modes import smooth_basis
from geoframe.fitting.masks import CREDIBLE, _silhouette, fit_template, landmark_picture
from geoframe.render import rasterize
from geoframe.surface.shapes import icosphere
from geoframe.transforms import procrustes, random_rotations, rotation_angle, rotvec_to_rotation


def _blob():
    """A lopsided animal of sorts: a ball with a head, a tail and a hump."""
    ball = icosphere(2).verts
    reach = torch.ones(len(ball), 1).double()
    for tip, size in (((1.0, 0.4, 0.1), 1.6), ((-0.9, -0.5, 0.3), 1.1), ((0.1, 0.9, -0.4), 0.8)):
        tip = torch.nn.functional.normalize(torch.tensor(tip).double(), dim=0)
        reach = reach + size * torch.exp(8 * ((ball @ tip)[:, None] - 1))
    verts = ball * reach
    verts = verts - (verts.amax(0) + verts.amin(0)) / 2
    return Mesh(verts / verts.norm(dim=1).max(), icosphere(2).faces)


def _views(n, size, make=pinhole_view, **options):
    turn = torch.arange(n) * 2 * math.pi / n
    lift = torch.tensor([0.1, 0.6]).repeat(n)[:n]
    eye = torch.stack([turn.sin() * lift.cos(), lift.sin(), turn.cos() * lift.cos()], 1).double()
    return make(2.9 * eye, size, **options)


def _deformed(mesh, degrees, seed):
    """Stretched, bent, turned, grown and moved; the deformation itself turns nothing. Positions and rotation."""
    g = torch.Generator().manual_seed(seed)
    v = mesh.verts
    stretch = 1 + 0.12 * (2 * torch.rand(3, generator=g).double() - 1)
    bend = torch.stack([torch.sin(2.2 * v[:, 1] + 0.3), 0 * v[:, 0], torch.cos(1.7 * v[:, 0]) - 0.8], 1)
    bent = v * stretch + 0.12 * bend
    net = procrustes(v, bent)
    bent = (bent - net.t) @ net.R
    axis = torch.nn.functional.normalize(torch.randn(3, generator=g).double(), dim=0)
    R = rotvec_to_rotation(math.radians(degrees) * axis)
    return 1.1 * bent @ R.T + 0.1 * torch.randn(3, generator=g).double(), R


def test_pose_alone():
    """A turned, grown and moved template is brought back by a similarity, to half a degree."""
    mesh = _blob()
    _, R = _deformed(mesh, 40, 0)
    target = 0.8 * mesh.verts @ R.T + torch.tensor([0.2, -0.1, 0.1]).double()
    views = _views(4, (80, 100), fov=60.0)
    masks = rasterize(target, mesh.faces, views).mask.double()
    fit = fit_template(mesh, masks, views, steps=12, n_basis=0, n_candidates=4)
    assert math.degrees(rotation_angle(fit.pose.R, R)) < 0.5
    assert fit.pose.scale == pytest.approx(0.8, abs=0.02) and fit.iou.min() > 0.93
    torch.testing.assert_close(fit.mesh.verts, fit.pose(mesh.verts))  # nothing but a similarity


def test_silhouette_has_hard_values_and_the_slope_of_the_area():
    """A sphere that grows: the covered share of each pixel exactly, and twice the area per relative growth."""
    ball = icosphere(3)
    view = _views(3, (96, 96), weak_view, extent=1.3)
    grow = torch.zeros((), dtype=torch.float64, requires_grad=True)
    share = _silhouette(grow.exp() * ball.verts, ball.faces, view, 0.2 / 24)
    hard = rasterize(ball.verts, ball.faces, view).mask.double()
    assert torch.equal(share.detach(), torch.nn.functional.avg_pool2d(hard, 2))
    (slope,) = torch.autograd.grad(share.sum(), grow)
    assert slope.item() == pytest.approx(2 * share.sum().item(), rel=0.1)


def test_shape_from_six_views():
    mesh = _blob()
    target, _ = _deformed(mesh, 20, 0)
    views = _views(6, (64, 80), fov=60.0)
    masks = rasterize(target, mesh.faces, views).mask.double()
    seen = []
    fit = fit_template(mesh, masks, views, steps=12, n_candidates=4, progress=lambda *x: seen.append(x))
    assert fit.iou.min() > 0.95
    begun = (fit.start.verts - target).norm(dim=1).mean()
    assert (fit.mesh.verts - target).norm(dim=1).mean() < 0.6 * begun
    assert [s[0] for s in seen] == list(range(1, 49)) and {s[1] for s in seen} == {48}
    assert fit.loss.tolist() == pytest.approx([s[2] for s in seen])
    picture = fit.picture()
    assert picture.shape == (3, 128, 480) and picture.min() >= 0 and picture.max() <= 1


@pytest.mark.filterwarnings("ignore:.*almost alike")
def test_views_that_are_not_known():
    """Weak perspective, every mask with a camera to find: the masks are met."""
    mesh = _blob()
    views = _views(5, (64, 64), weak_view, extent=1.4)
    masks = rasterize(mesh.verts, mesh.faces, views).mask.double()
    fit = fit_template(mesh, masks, steps=8, n_basis=8, n_candidates=6)
    assert fit.cameras.batch_shape == (5,) and fit.iou.min() > 0.95
    assert math.degrees(rotation_angle(fit.cameras.R_wc, views.R_wc).median()) < 10


@pytest.mark.parametrize(
    ("seed", "n", "side", "steps"),
    [(0, 4, 64, 15), *(pytest.param(s, 8, 160, 25, marks=pytest.mark.slow) for s in (0, 1, 2))],
)
def test_a_real_mesh_forty_degrees_off(seed, n, side, steps):
    folder = Path(os.environ.get("GEOFRAME_DATA", "")) / "objects"
    if not folder.is_dir():
        pytest.skip("needs the folder objects of GEOFRAME_DATA")
    mesh = load(folder / "spot_low_resolution.obj").to(torch.float64)
    verts = mesh.verts - (mesh.verts.amax(0) + mesh.verts.amin(0)) / 2
    mesh = Mesh(verts / verts.norm(dim=1).max(), mesh.faces)
    target, R = _deformed(mesh, 40, seed)
    views = _views(n, (side, side), fov=60.0)
    masks = rasterize(target, mesh.faces, views).mask.double()
    fit = fit_template(mesh, masks, views, steps=steps)
    assert math.degrees(rotation_angle(fit.pose.R, R)) < 3
    assert fit.iou.min() > 0.95


def test_picture_of_landmarks():
    """Before and after side by side; where a given point and its landmark agree the point covers it."""
    mesh = _blob()
    view = _views(1, (60, 80), weak_view, extent=1.4)[0]
    bent, _ = _deformed(mesh, 0, 0)
    points = view.project(bent)[::9, :2]
    fit = fit_points(mesh, points, vertices=torch.arange(0, mesh.n_verts, 9), stiffness=1e-7)
    picture = landmark_picture(fit, points, (60, 80))
    assert picture.shape == (3, 60, 160) and picture.min() >= 0 and picture.max() <= 1
    red = (picture[0] > 0.8) & (picture[1] < 0.15)
    assert red[:, 80:].sum() < 0.5 * red[:, :80].sum()
    y, x = int(points[0, 1]), int(points[0, 0])
    dark = picture.new_tensor([0.05, 0.1, 0.3])
    for shift in (0, 80):
        torch.testing.assert_close(picture[:, y, x + shift], dark)
    hidden = torch.ones(len(points)).double()
    hidden[0] = 0
    without = landmark_picture(fit, points, (60, 80), hidden)
    assert not torch.equal(without[:, y, x + 80], dark)
    none = landmark_picture(fit, points, (60, 80), 0 * hidden)
    assert not ((none[0] > 0.8) & (none[1] < 0.15)).any()


def _seen(mesh, n, side, seed=0):
    """Masks of a template from random rotations, and the rotations."""
    R = random_rotations(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scale = torch.full(
        (n,), 0.4 * side, dtype=torch.float64
    )  # the blob's radius is one, its middle the origin
    views = WeakPerspective(R, torch.full((n, 2), side / 2 + 2.0, dtype=torch.float64), scale, (side, side))
    return rasterize(mesh.verts, mesh.faces, views).mask.double(), views


@pytest.mark.filterwarnings("ignore:.*almost alike")
@pytest.mark.parametrize(
    ("name", "n"),
    [("blob", 3), *(pytest.param(x, 12, marks=pytest.mark.slow) for x in ("blob", "cat", "horse"))],
)
def test_the_true_pose_is_among_the_candidates_of_any_rotation(name, n):
    """And where the first is another one, the warning is on. Also for animals, whose silhouettes have twins."""
    mesh = _blob()
    if name != "blob":
        animal = template(name)
        verts = animal.verts.double() - (animal.verts.amax(0) + animal.verts.amin(0)).double() / 2
        mesh = Mesh(verts / verts.norm(dim=1).max(), animal.faces)
    masks, views = _seen(mesh, n, 80)
    fit = fit_template(mesh, masks, n_basis=0, steps=1)
    degrees = rotation_angle(fit.candidates.R_wc, views.R_wc[:, None]).rad2deg()
    degrees = torch.where(torch.isfinite(fit.energies), degrees, torch.inf)
    assert (degrees.amin(1) < 5).all() and ((degrees[:, 0] < 5) | fit.ambiguous).all()
    assert (fit.energies.diff(dim=1).nan_to_num(0) >= 0).all()


@pytest.mark.filterwarnings("ignore:.*hardly explains")
def test_unknown_pixels_and_landmarks():
    """A quarter of the picture hidden: with weight 0 it moves nothing; landmarks tell which pose it is."""
    mesh = _blob()
    masks, views = _seen(mesh, 1, 80, seed=3)
    hidden, weights = masks.clone(), torch.ones_like(masks)
    hidden[:, :, 48:] = 0
    weights[:, :, 48:] = 0
    ids = torch.arange(0, mesh.n_verts, 9)
    landmarks = ImageLandmarks(views.project(mesh.verts[ids])[..., :2], ids)
    known, lost = (
        fit_template(mesh, hidden, weights=w, landmarks=landmarks, n_basis=0, steps=5)
        for w in (weights, None)
    )
    errors = [rotation_angle(fit.cameras.R_wc, views.R_wc).rad2deg().item() for fit in (known, lost)]
    assert errors[0] < 2 and known.iou.item() > 0.95 and not known.ambiguous.any()
    assert known.energies[0, 0] < 0.5 * lost.energies[0, 0] and errors[0] < errors[1]


def test_how_much_of_a_hull_is_empty():
    """A square fills its hull, an L of three squares leaves a seventh of it empty, a frame what is inside."""
    masks = torch.zeros(4, 40, 40, dtype=torch.bool)
    masks[:3, 4:34, 4:34] = True
    masks[1, 4:19, 4:19] = False
    masks[2, 9:29, 9:29] = False
    expected = torch.tensor([0.0, 1 / 7, 4 / 9, 0.0]).double()
    torch.testing.assert_close(hollow(masks), expected)


def _spiked():
    """A ball with six long spikes, no two of them opposite."""
    ball = icosphere(3).verts
    g = torch.Generator().manual_seed(3)
    tips = torch.nn.functional.normalize(torch.randn(6, 3, generator=g).double(), dim=1)
    verts = ball * (1 + 2.5 * torch.exp(25 * (ball @ tips.T - 1))).amax(1, keepdim=True)
    verts = verts - (verts.amax(0) + verts.amin(0)) / 2
    return Mesh(verts / verts.norm(dim=1).max(), icosphere(3).faces)


@pytest.mark.filterwarnings("ignore:.*almost alike")
@pytest.mark.parametrize("shape", ["disc", "bar"])
def test_a_fit_to_a_simple_shape_is_doubtful(shape):
    """Though the deformed template covers it; its own mask, a little stretched, is not."""
    mesh = _spiked()
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    simple = (
        (x - 32).square() + (y - 31).square() < 20**2
        if shape == "disc"
        else (x - 32).abs() + 3 * (y - 31).abs() < 28
    )
    with pytest.warns(UserWarning, match="hardly explains the masks"):
        doubtful = fit_template(mesh, simple[None], steps=10, n_basis=24, n_candidates=3)
    assert doubtful.iou > 0.85 and doubtful.quality < CREDIBLE - 0.05
    masks, _ = _seen(mesh.with_verts(mesh.verts * torch.tensor([1.15, 1.0, 0.9])), 1, 64, seed=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*hardly explains")
        own = fit_template(mesh, masks, steps=4, n_basis=6, n_candidates=3)
    assert own.quality > CREDIBLE + 0.05


def test_a_fold_is_counted_as_flipped_faces():
    mesh = _blob()
    assert (turned_faces(mesh, mesh.verts) - 1).abs().max() < 1e-12
    tip = int(mesh.verts[:, 0].argmax())
    folded = mesh.verts.clone()
    folded[tip] = folded[tip] - 0.5 * mesh.verts[tip] / mesh.verts[tip].norm() - folded[tip].flip(0)
    assert (turned_faces(mesh, folded) < 0).any()


def test_smooth_functions_join_the_parts_of_a_template():
    """Two halves that touch bend together: no function of the basis lives on one of them alone."""
    ball = icosphere(2)
    left = ball.verts[ball.faces].mean(1)[:, 0] < 0
    faces = torch.cat([ball.faces[left], ball.faces[~left] + ball.n_verts])
    two = Mesh(torch.cat([ball.verts, ball.verts + 1e-3]), faces)
    basis = smooth_basis(two, 4)
    energy = (
        (basis.mass[:, None] * basis.vecs.square()).view(2, -1, 4).sum(1)
        if basis.vecs.shape[1] >= 4
        else None
    )
    assert energy is not None and (energy > 0.2).all() and (basis.vals > 0).all()


def test_bad_input():
    mesh = _blob()
    views = _views(2, (32, 32))
    masks, points = torch.ones(2, 32, 32).double(), torch.zeros(2, 3, 2)
    with pytest.raises(TypeError, match="landmarks: expected ImageLandmarks"):
        fit_template(mesh, masks, views, landmarks=points)
    with pytest.raises(ValueError, match="masks: expected something in every mask"):
        fit_template(mesh, masks * torch.tensor([1.0, 0.0])[:, None, None], views)
    with pytest.raises(ValueError, match=r"masks: expected values in \[0, 1\], found 255 to 255; divide"):
        fit_template(mesh, 255 * masks, views)
    with pytest.raises(ValueError, match="masks: expected finite numbers, found NaN"):
        fit_template(mesh, masks.where(masks < 1, math.nan), views)
    with pytest.raises(ValueError, match="masks: expected on the mesh's device cpu, found meta"):
        fit_template(mesh, masks.to("meta"), views)
    for bad, match in (
        ({"weights": -masks}, "weights: expected numbers of at least 0, found -1"),
        ({"weights": masks[:1]}, r"weights: expected shape \(2, 32, 32\)"),
        (
            {"landmarks": ImageLandmarks(points, torch.full((3,), 10**6))},
            "vertices: expected indices",
        ),
        (
            {"landmarks": ImageLandmarks(points[:, :1], torch.ones(1, mesh.n_verts))},
            "rows of weights that sum to 1",
        ),
        (
            {"landmarks": ImageLandmarks(points[:1], torch.arange(3))},
            r"landmarks.points: expected shape \(2, L, 2\)",
        ),
        (
            {"landmarks": ImageLandmarks(points, torch.arange(3), -torch.ones(2, 3))},
            "landmarks.visibility: expected weights of at least 0, found -1",
        ),
        (
            {"landmarks": ImageLandmarks(points / 0, torch.arange(3))},
            "landmarks.points: expected finite",
        ),
        (
            {"landmarks": ImageLandmarks(points, torch.arange(3), weight=-1.0)},
            "landmarks.weight: expected a number of at least 0, found -1",
        ),
        ({"n_candidates": 0}, "n_candidates: expected an integer at least 1"),
    ):
        with pytest.raises(ValueError, match=match):
            fit_template(mesh, masks, views, **bad)
    with pytest.raises(ValueError, match=r"cameras: expected batch \(1,\)"):
        fit_template(mesh, masks[:1], views)
    with pytest.raises(ValueError, match=r"masks: expected shape \(N, H, W\)"):
        fit_template(mesh, masks[0], views)
    with pytest.raises(ValueError, match="n_basis: expected an integer from 0"):
        fit_template(mesh, masks, views, n_basis=10**6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.filterwarnings("ignore:.*almost alike")
def test_cuda_agrees_with_the_cpu():
    mesh = _blob()
    masks, _ = _seen(mesh, 2, 64)
    here, there = (
        fit_template(mesh.to(device), masks.to(device), n_basis=8, steps=3, n_candidates=3)
        for device in ("cpu", "cuda")
    )
    assert math.degrees(rotation_angle(here.cameras.R_wc, there.cameras.R_wc.cpu()).max()) < 0.1
    torch.testing.assert_close(here.iou, there.iou.cpu(), rtol=0, atol=0.01)
