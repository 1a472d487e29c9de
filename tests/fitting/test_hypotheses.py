"""Pose hypotheses from masks, and collections: true poses among the first, pictures that do not touch each other."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.fitting.collections import (
    Collection,
    CollectionLosses,
    Latents,
    collection_loss,
    fit_collection,
    on_screen,
    place,
    poses_of_keypoints,
)
from geoframe.fitting.hypotheses import mask_hypotheses
from geoframe.layers.shape_modes import ShapeModes
from geoframe.render import rasterize
from geoframe.solve.arap import Arap
from geoframe.surface.mesh import Mesh
from geoframe.surface.shapes import icosphere
from geoframe.transforms import rotation_angle, rotvec_to_rotation

S = 32


def _scene(n=4, lens=0.0):
    """An egg with a bent back, n poses, and masks."""
    ball = icosphere(2)
    x = ball.verts.float() * torch.tensor([1.0, 0.5, 0.35]) * (1 + 0.5 * ball.verts[:, :1].float())
    x[:, 1] += 0.3 * x[:, 0] ** 2
    x = x / x.norm(dim=1).max()
    draw = torch.Generator().manual_seed(0)
    R = rotvec_to_rotation(torch.randn(n, 3, generator=draw) * torch.tensor([0.15, 0.5, 0.15]))
    R = R @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    t, scale = 0.1 * torch.randn(n, 2, generator=draw), 0.7 + 0.1 * torch.rand(n, generator=draw)
    placed = place(x.expand(n, -1, -1), R, t, scale, torch.full((n,), lens))
    masks = rasterize(on_screen(placed, S), ball.faces, (S, S)).mask.float()
    vertices = torch.arange(0, len(x), 12)
    points = placed[:, vertices, :2]
    collection = Collection(masks, points, torch.ones(n, len(vertices)), vertices)
    return Mesh(x, ball.faces), collection, Latents.of(R, t, scale, torch.zeros(n, 0), lens)


def test_the_true_pose_is_among_the_first():
    mesh, collection, truth = _scene()
    up = torch.tensor([0.0, 1.0, 0.0])
    found = mask_hypotheses(mesh, collection.masks, n=4, up=up)
    angle = rotation_angle(found.R, truth.R[:, None]).rad2deg().amin(1)
    assert (angle < 30).all() and (found.overlap[:, 0] > 0.8).all()
    assert (found.overlap[:, :-1] >= found.overlap[:, 1:]).all()
    shown = found.R @ up
    assert (shown[..., 1] < 0).all()  # never upside down
    assert (shown[..., 2] < math.sin(math.radians(10))).all()  # never from far below
    free = mask_hypotheses(mesh, collection.masks, n=4, up=up, below=60.0)
    assert ((free.R @ up)[..., 2] > math.sin(math.radians(10))).any()
    best = found.t[:, 0] - truth.t
    assert best.norm(dim=1).max() < 0.2
    with pytest.raises(ValueError, match="masks: expected some foreground"):
        mask_hypotheses(mesh, 0 * collection.masks)


def _shape(mesh, n_modes=0):
    x = mesh.verts
    functions = torch.stack([torch.ones_like(x[:, 0]), *x.T, *(x.T * x[:, 0])], 1)
    return ShapeModes(x, functions, n_modes, spread=0.05)


def test_keypoints_give_the_pose():
    mesh, collection, truth = _scene()
    few = collection._replace(weights=collection.weights.clone())
    few.weights[1, 3:] = 0  # three points tell no pose
    found = poses_of_keypoints(few, _shape(mesh))
    assert found.log_scale.isfinite().tolist() == [True, False, True, True]
    ok = torch.tensor([0, 2, 3])
    assert rotation_angle(found.R[ok], truth.R[ok]).max() < 1e-3


def test_a_fit_goes_back_to_the_truth_and_pictures_do_not_touch_each_other():
    mesh, collection, truth = _scene(lens=0.15)
    shape, losses = _shape(mesh), CollectionLosses(arap=0.0, points=100.0)
    off = truth._replace(R=rotvec_to_rotation(torch.full((4, 3), 0.1)) @ truth.R, t=truth.t + 0.05)
    settings = {"epochs": 60, "batch": 4, "losses": losses, "learn_shape": False}
    found, history = fit_collection(collection, shape, mesh.faces, off, **settings)
    assert history[-1] < 0.4 * history[0]
    assert rotation_angle(found.R, truth.R).max() < 0.06 and (found.turn == 0).all()
    rows = torch.tensor([2])
    alone, _ = fit_collection(
        collection.take(rows), shape, mesh.faces, off.take(rows), **{**settings, "epochs": 5}
    )
    together, _ = fit_collection(collection, shape, mesh.faces, off, **{**settings, "epochs": 5})
    torch.testing.assert_close(together.R[2:3], alone.R, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_modes_are_learned_that_the_pictures_have():
    """Eggs of different length: one mode explains what a rigid template cannot."""
    mesh, collection, truth = _scene(n=8)
    length = torch.linspace(0.7, 1.3, 8)[:, None, None] * torch.tensor([1.0, 0, 0]) + torch.tensor(
        [0.0, 1, 1]
    )
    placed = place(mesh.verts * length, truth.R, truth.t, truth.log_scale.exp(), truth.perspective)
    masks = rasterize(on_screen(placed, S), mesh.faces, (S, S)).mask.float()
    data = replace_points(collection, masks, placed)
    losses = CollectionLosses(arap=0.0, points=100.0, lens=0.0)
    rigid, bent = _shape(mesh), _shape(mesh, 1)
    start = truth._replace(alpha=torch.linspace(-0.1, 0.1, 8)[:, None])
    settings = {"epochs": 60, "batch": 8, "losses": losses}
    _, without = fit_collection(data, rigid, mesh.faces, truth, learn_shape=False, **settings)
    found, history = fit_collection(data, bent, mesh.faces, start, rate=0.02, **settings)
    assert history[-1] < 0.8 * without[-1]  # 0.69; outlines of 32 pixels leave the rest
    order = torch.corrcoef(torch.stack([found.alpha[:, 0], torch.linspace(0, 1, 8)]))[0, 1]
    assert abs(float(order)) > 0.9


def test_stiffness_of_modes_is_that_of_the_shapes_and_of_no_picture():
    mesh, collection, truth = _scene()
    shape, arap = _shape(mesh, 2), Arap(mesh)
    losses = CollectionLosses(0.0, 0.0, 0.0, prior=0.0, arap=0.0, arap_modes=3.0, smooth=0.0, perspective=0.0)

    def stiffness(alpha):
        latents = truth._replace(alpha=alpha)
        return collection_loss(collection, shape, mesh.faces, latents, losses, arap)

    x, B = shape.template(), shape.basis()
    shapes = [x, x + B[0], x + B[1], x - B[0], x - B[1]]
    expected = 3.0 * sum(arap.energy(v[None])[0] for v in shapes) / 5 / len(x)
    torch.testing.assert_close(stiffness(torch.zeros(4, 2)), expected)
    torch.testing.assert_close(stiffness(torch.ones(4, 2)), expected)
    with torch.no_grad():
        shape.modes.zero_()
        shape.mean[0] = 0.3  # a shift of the whole
    assert float(stiffness(torch.zeros(4, 2)).detach()) < 1e-9 < float(expected.detach())


def replace_points(collection, masks, placed):
    """The collection with other masks and the keypoints of other positions."""
    return collection._replace(masks=masks, points=placed[:, collection.vertices, :2])


def test_perspective_is_that_of_a_pinhole():
    from geoframe.camera import Pinhole

    mesh, _, truth = _scene()
    p, focal = 0.2, 50.0
    R, distance = truth.R[0], 1 / p
    camera = Pinhole(R, torch.tensor([0.0, 0, distance]), torch.full((2,), focal), torch.zeros(2), (S, S))
    expected = camera.project(mesh.verts)[:, :2]
    scale = torch.tensor([focal / distance])
    found = place(mesh.verts[None], R[None], torch.zeros(1, 2), scale, torch.tensor([p]))[0, :, :2]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
