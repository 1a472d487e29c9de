"""Fitting a template to masks: a known pose and deformation is found again."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from geoframe import Mesh, load
from geoframe.camera import pinhole_view, weak_view
from geoframe.fitting import fit_points
from geoframe.fitting.masks import _silhouette, fit_template, landmark_picture
from geoframe.render import rasterize
from geoframe.surface.shapes import icosphere
from geoframe.transforms import procrustes, rotation_angle, rotvec_to_rotation


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
    views = _views(4, (96, 120), fov=60.0)
    masks = rasterize(target, mesh.faces, views).mask.double()
    fit = fit_template(mesh, masks, views, steps=20, n_basis=0)
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
    views = _views(6, (96, 120), fov=60.0)
    masks = rasterize(target, mesh.faces, views).mask.double()
    seen = []
    fit = fit_template(mesh, masks, views, steps=25, progress=lambda *x: seen.append(x))
    assert fit.iou.min() > 0.95
    begun = (fit.start.verts - target).norm(dim=1).mean()
    assert (fit.mesh.verts - target).norm(dim=1).mean() < 0.6 * begun
    assert [s[0] for s in seen] == list(range(1, 151)) and {s[1] for s in seen} == {150}
    assert fit.loss.tolist() == pytest.approx([s[2] for s in seen])
    picture = fit.picture()
    assert picture.shape == (3, 192, 720) and picture.min() >= 0 and picture.max() <= 1


def test_views_that_are_not_known():
    """Weak perspective, every mask with a camera to find: the masks are met."""
    mesh = _blob()
    views = _views(5, (80, 80), weak_view, extent=1.4)
    masks = rasterize(mesh.verts, mesh.faces, views).mask.double()
    fit = fit_template(mesh, masks, steps=25, n_basis=8)
    assert fit.cameras.batch_shape == (5,) and fit.iou.min() > 0.95
    assert math.degrees(rotation_angle(fit.cameras.R_wc, views.R_wc).median()) < 10


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_a_real_mesh_forty_degrees_off(seed):
    folder = Path(os.environ.get("GEOFRAME_DATA", "")) / "objects"
    if not folder.is_dir():
        pytest.skip("needs the folder objects of GEOFRAME_DATA")
    mesh = load(folder / "spot_low_resolution.obj").to(torch.float64)
    verts = mesh.verts - (mesh.verts.amax(0) + mesh.verts.amin(0)) / 2
    mesh = Mesh(verts / verts.norm(dim=1).max(), mesh.faces)
    target, R = _deformed(mesh, 40, seed)
    views = _views(8, (160, 160), fov=60.0)
    masks = rasterize(target, mesh.faces, views).mask.double()
    fit = fit_template(mesh, masks, views, steps=25)
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


def test_bad_input():
    mesh = _blob()
    views = _views(2, (32, 32))
    masks = torch.ones(2, 32, 32).double()
    with pytest.raises(ValueError, match="masks: expected something in every mask"):
        fit_template(mesh, masks * torch.tensor([1.0, 0.0])[:, None, None], views)
    with pytest.raises(ValueError, match=r"masks: expected values in \[0, 1\], found 255 to 255; divide"):
        fit_template(mesh, 255 * masks, views)
    with pytest.raises(ValueError, match="masks: expected finite numbers, found NaN"):
        fit_template(mesh, masks.where(masks < 1, math.nan), views)
    with pytest.raises(ValueError, match="masks: expected on the mesh's device cpu, found meta"):
        fit_template(mesh, masks.to("meta"), views)
    with pytest.raises(ValueError, match=r"cameras: expected batch \(1,\)"):
        fit_template(mesh, masks[:1], views)
    with pytest.raises(ValueError, match=r"masks: expected shape \(N, H, W\)"):
        fit_template(mesh, masks[0], views)
    with pytest.raises(ValueError, match="n_basis: expected an integer from 0"):
        fit_template(mesh, masks, views, n_basis=10**6)
