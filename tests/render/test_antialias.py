"""Outlines: coverage against many samples, gradients against differences, layers, batches, backends."""

from __future__ import annotations

import pytest
import torch

from geoframe.camera import pinhole_view, weak_view
from geoframe.render import Fragments, antialias, paint, rasterize, render, shade
from geoframe.surface import Mesh
from geoframe.surface.shapes import grid, icosahedron, icosphere, torus
from geoframe.transforms import random_rotations

backends = pytest.mark.parametrize("backend", ["numba", "torch"])
EYE = torch.tensor([1.0, 0.7, 2.2]).double()
SQUARE = torch.tensor([[0.0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]).double()
TWO = torch.tensor([[0, 1, 2], [0, 2, 3]])


def _square(low, high):
    return SQUARE * torch.tensor([high[0] - low[0], high[1] - low[1], 1.0]) + torch.tensor([*low, 0.0])


@backends
def test_a_square_covers_its_area(backend):
    """Straight sides are exact, wherever they lie; the four corners are cut off between pixel centres."""
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        low, high = torch.rand(2, generator=g) + 3.0, torch.rand(2, generator=g) + 9.0
        alpha = rasterize(_square(low.tolist(), high.tolist()), TWO, (14, 13), backend=backend).alpha
        rows, cols = torch.arange(14.0).double(), torch.arange(13.0).double()
        covered_x = (torch.minimum(cols + 1, high[0]) - torch.maximum(cols, low[0])).clamp(0, 1)
        covered_y = (torch.minimum(rows + 1, high[1]) - torch.maximum(rows, low[1])).clamp(0, 1)
        exact = covered_y[:, None] * covered_x
        off = (alpha - exact).abs()
        inner = (slice(5, 8), slice(None)), (slice(None), slice(5, 8))
        for part in inner:  # rows and columns that meet straight sides only
            torch.testing.assert_close(alpha[part], exact[part], rtol=0, atol=1e-6)
        assert off.max() < 0.3 and off.sum() < 1.5


@backends
@pytest.mark.parametrize("degrees", [10.0, 30.0, 45.0, 63.0])
def test_a_slanted_edge_is_exact(backend, degrees):
    """A half plane: each pixel's share equals that of 64 x 64 samples."""
    angle = torch.tensor(degrees).double().deg2rad()
    along = torch.stack([angle.cos(), angle.sin()])
    across = torch.stack([-angle.sin(), angle.cos()])
    middle = torch.tensor([10.3, 9.6]).double()
    xy = torch.stack([middle - 99 * along, middle + 99 * along, middle + 99 * across])
    verts = torch.cat([xy, torch.ones(3, 1).double()], 1)
    alpha = rasterize(verts, torch.tensor([[0, 1, 2]]), (20, 20), backend=backend).alpha
    sub = (torch.arange(20 * 64) + 0.5) / 64
    y, x = torch.meshgrid(sub, sub, indexing="ij")
    inside = ((x - middle[0]) * across[0] + (y - middle[1]) * across[1] > 0).double()
    exact = inside.view(20, 64, 20, 64).mean((1, 3))
    torch.testing.assert_close(alpha[1:-1, 1:-1], exact[1:-1, 1:-1], rtol=0, atol=6e-3)


@pytest.mark.parametrize("level", [1, 3, 5])  # faces of 12, 3 and 0.8 pixels
def test_coverage_of_spheres_against_many_samples(level):
    mesh = icosphere(level)
    view = pinhole_view(EYE, (48, 52), fov=60.0)
    fragments = rasterize(mesh.verts, mesh.faces, view)
    fine = rasterize(mesh.verts, mesh.faces, view.resized((48 * 16, 52 * 16))).mask.double()
    exact = fine.view(48, 16, 52, 16).mean((1, 3))
    off, hard = (fragments.alpha - exact).abs(), (fragments.mask.double() - exact).abs()
    assert off.max() < 0.06 and off.sum() < 0.05 * hard.sum()


def _body(seed, kind, g):
    """Vertices and faces: a convex body, a ring with outlines before itself, or four bodies one before another."""
    if kind == "ring":
        ring = torus(n_around=30, n_tube=16)
        return ring.verts / ring.verts.norm(dim=1).max() * (
            0.7 + 0.3 * torch.rand(3, generator=g).double()
        ), ring.faces
    if kind == "several":
        ball, n = icosphere(2), icosphere(2).n_verts
        turns, shifts = (
            random_rotations(4, generator=g).double(),
            0.55 * torch.randn(4, 1, 3, generator=g).double(),
        )
        verts = ball.verts * (0.25 + 0.35 * torch.rand(4, 1, 3, generator=g).double()) @ turns + shifts
        verts = verts.flatten(0, 1)
        return verts / verts.norm(dim=1).max(), torch.cat([ball.faces + k * n for k in range(4)])
    mesh = (icosphere(2), icosphere(3), icosphere(1), icosahedron())[seed % 4]
    return mesh.verts * (0.6 + 0.4 * torch.rand(3, generator=g, dtype=torch.float64)), mesh.faces


def _scene(seed, kind="convex", size=(40, 44)):
    """A body over a coloured background, and the shift (V, 3) that moves it by a pixel."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    verts, faces = _body(seed, kind, g)
    colors = 0.6 + 0.3 * torch.sin(verts @ normal(3, 3))
    direction = torch.nn.functional.normalize(normal(2), dim=0)
    eye = torch.nn.functional.normalize(normal(3), dim=0) * 4
    if seed % 2:
        view = weak_view(eye, size, extent=1.5)
        pixel = 1 / view.scale
    else:
        view = pinhole_view(eye, size, fov=42.0)
        pixel = 4 / view.focal[0]
    step = pixel * view.R_wc.T @ torch.cat([direction, torch.zeros(1)]).double()
    return faces, verts, colors, view, step, 0.2 * torch.rand(3, generator=g, dtype=torch.float64)


def _losses(seed, *scene):
    """Squared differences to a picture shifted by 2.5 pixels, of colours, of colours but for slivers, and of masks."""
    faces, verts, colors, view, step, background = _scene(seed, *scene)
    p = view.project(verts)[faces][..., :2]
    (ux, uy), (vx, vy) = (p[:, 1] - p[:, 0]).unbind(1), (p[:, 2] - p[:, 0]).unbind(1)
    height = (ux * vy - uy * vx).abs() / (p - p.roll(1, 1)).norm(dim=2).amax(1)

    def picture(t):
        fragments = rasterize(verts + t * step, faces, view)
        thick = (height[fragments.face_id.clamp_min(0)] > 0.2) | ~fragments.mask
        return shade(fragments, colors, background=background), fragments.alpha, thick

    color_goal, mask_goal, _ = (x.detach() for x in picture(torch.tensor(2.5).double()))

    def losses(t):
        color, alpha, thick = picture(torch.as_tensor(t).double())
        off = (color - color_goal).square()
        return torch.stack([off.sum(), (off * thick).sum(), (alpha - mask_goal).square().sum()])

    return losses


def _slopes(losses, t):
    t = torch.tensor(t).double().requires_grad_()
    values = losses(t)
    return torch.stack([torch.autograd.grad(x, t, retain_graph=True)[0] for x in values])


@pytest.mark.parametrize("scenes", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_gradients_are_differences(scenes):
    """The mean slope over a pixel against the difference over that pixel; and the slope against the
    difference of a millionth of a pixel, but for the colours of faces so thin that their gradient is bounded."""
    off, off_small = [], []
    for seed in range(scenes):
        losses = _losses(seed)
        with torch.no_grad():
            small = (losses(1e-6) - losses(-1e-6)) / 2e-6
        off.append(_off_over_a_pixel(losses, 3))
        off_small.append((_slopes(losses, 0.0) / small - 1).abs()[1:])
    off, off_small = torch.stack(off), torch.stack(off_small)
    assert off.max() < 0.05 and off.median() < 0.01
    assert off_small.max() < 1e-3


@pytest.mark.parametrize("scenes", [6, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["ring", "several"])
def test_gradients_where_outlines_end_behind_others(kind, scenes):
    """Also where two outlines pass between the same two pixel centres, so that no centre sees what is between them."""
    off = torch.stack([_off_over_a_pixel(_losses(seed, kind, (64, 70)), 5) for seed in range(scenes)])
    assert off.max() < 0.05 and off.median() < 0.015


def _off_over_a_pixel(losses, n):
    """How far the mean of n slopes is from the difference over a pixel, of colours and of masks."""
    with torch.no_grad():
        pixel = losses(0.5) - losses(-0.5)
    mean = sum(_slopes(losses, (k + 0.5) / n - 0.5) for k in range(n)) / n
    return (mean / pixel - 1).abs()[[0, 2]]


def test_a_white_ball_that_slides():
    """The gradient of brightness times position is the area, to two per cent, where pixel centres alone give 0."""
    mesh = icosphere(3)
    view = weak_view(torch.tensor([0.0, 0.0, 1.0]).double(), (96, 96), extent=2.0)
    ramp = torch.arange(96).double() + 0.5
    slopes = {}
    for mixed in (True, False):
        x = torch.zeros(1).double().requires_grad_()
        verts = mesh.verts + torch.cat([x, torch.zeros(2)])
        white = shade(
            rasterize(verts, mesh.faces, view), torch.ones(mesh.n_verts, 1).double(), antialias=mixed
        )
        total = (white * ramp).sum()
        slopes[mixed] = torch.autograd.grad(total, x)[0].item() if total.requires_grad else 0.0
    area = rasterize(mesh.verts, mesh.faces, view.resized((960, 960))).mask.sum().item() / 100
    assert slopes[True] == pytest.approx(24 * area, rel=0.02) and abs(slopes[False]) < 1e-9


def test_every_shaded_thing_has_gradients_at_outlines():
    mesh = icosphere(2)
    view = pinhole_view(EYE, (24, 24), fov=60.0)
    values = {
        "vertices": torch.ones(mesh.n_verts, 2),
        "corners": torch.ones(mesh.n_faces, 3, 2),
        "faces": torch.ones(mesh.n_faces, 2),
        "pixels": torch.ones(2, 24, 24),
    }
    pictures = []
    for at, x in values.items():
        verts = mesh.verts.clone().requires_grad_()
        picture = shade(rasterize(verts, mesh.faces, view), x.double(), at=at)
        pictures.append(picture.detach())
        (grad,) = torch.autograd.grad((picture[0] * torch.arange(24.0)).sum(), verts)
        assert grad.abs().max() > 1
    for picture in pictures[1:]:
        torch.testing.assert_close(pictures[0], picture)
    verts = mesh.verts.clone().requires_grad_()
    fragments = rasterize(verts, mesh.faces, view)
    depth = antialias(fragments, fragments.depth[None])
    (grad,) = torch.autograd.grad(depth.sum(), verts)
    still = torch.autograd.grad(rasterize(verts, mesh.faces, view).depth.sum(), verts)[0]
    assert (grad - still).abs().max() > 1


def test_constant_values_over_the_same_background_stay_constant():
    mesh = torus()
    view = pinhole_view(EYE, (30, 31), fov=60.0)
    fragments = rasterize(mesh.verts, mesh.faces, view)
    picture = shade(fragments, torch.full((mesh.n_verts, 3), 0.4).double(), background=0.4)
    torch.testing.assert_close(picture, torch.full_like(picture, 0.4))
    assert fragments.alpha.min() >= 0 and fragments.alpha.max() <= 1


def test_the_nearer_of_two_layers_covers_the_other():
    """A red square before a green one: where the red one's side passes a pixel, the two colours share it."""
    near, far = _square((2.3, 2.0), (6.7, 9.0)), _square((0.0, 0.0), (12.0, 12.0)) + torch.tensor([0, 0, 1.0])
    colors = torch.eye(3).double()[[0] * 4 + [1] * 4]
    picture = shade(rasterize(torch.cat([near, far]), torch.cat([TWO, TWO + 4]), (12, 12)), colors)
    torch.testing.assert_close(picture[:, 5, 2], torch.tensor([0.7, 0.3, 0]).double())
    torch.testing.assert_close(picture[:, 5, 6], torch.tensor([0.7, 0.3, 0]).double())


def test_backgrounds_show_through():
    """The background under a half-covered pixel is that pixel's own, not its neighbour's."""
    g = torch.Generator().manual_seed(0)
    photo = torch.rand(3, 12, 12, generator=g).double()
    fragments = rasterize(_square((2.3, 2.0), (6.7, 9.0)), TWO, (12, 12))
    picture = shade(fragments, torch.ones(4, 3).double(), background=photo)
    torch.testing.assert_close(picture[:, 5, 2], 0.7 + 0.3 * photo[:, 5, 2])
    torch.testing.assert_close(picture[:, 5, 6], 0.7 + 0.3 * photo[:, 5, 6])
    row = shade(fragments, torch.ones(4, 3).double(), background=torch.tensor([0.1, 0.2, 0.3]))[:, 5, 2]
    torch.testing.assert_close(row, 0.7 + 0.3 * torch.tensor([0.1, 0.2, 0.3]).double())
    with pytest.raises(ValueError, match=r"background: expected shape \(3, 12, 12\)"):
        shade(fragments, torch.ones(4, 3).double(), background=photo[:, :5])


def test_backends_batches_and_choices_agree():
    mesh = torus(n_around=20, n_tube=10)
    g = torch.Generator().manual_seed(0)
    verts = mesh.verts + 0.05 * torch.randn(3, mesh.n_verts, 3, generator=g, dtype=torch.float64)
    views = pinhole_view(torch.randn(3, 3, generator=g).double() + EYE, (26, 31), fov=60.0)
    many = rasterize(verts, mesh.faces, views)
    other = rasterize(verts, mesh.faces, views, backend="torch")
    torch.testing.assert_close(many.alpha, other.alpha, rtol=0, atol=1e-12)
    for i in range(3):
        one = rasterize(verts[i], mesh.faces, views[i])
        torch.testing.assert_close(one.alpha, many.alpha[i], rtol=0, atol=1e-12)
    index = torch.tensor([2, 0, 2])
    torch.testing.assert_close(many[index].alpha, many.alpha[index], rtol=0, atol=1e-12)
    torch.testing.assert_close(many[1].alpha, many.alpha[1], rtol=0, atol=1e-12)
    listed = rasterize([verts[0], verts[1]], [mesh.faces, mesh.faces.flip(1)], views[:2])
    torch.testing.assert_close(listed.alpha, many.alpha[:2], rtol=0, atol=1e-12)


def _strips(left, right):
    """Two half planes with a slit from x = left to right between them, and a wall far behind them."""
    verts = torch.cat(
        [_square((-20.0, -5.0), (left, 20.0)), _square((right, -5.0), (40.0, 20.0))]
    ) + torch.tensor([0, 0, 1.0])
    return verts, torch.cat([TWO, TWO + 4])


@backends
@pytest.mark.parametrize("width", [0.1, 0.4, 0.8])
def test_a_slit_thinner_than_a_pixel(backend, width):
    """Wherever it lies: with a wedge that is wide enough below to show the background, each row is as open as it is."""
    for left in torch.linspace(3.02, 4.02, 9).tolist():
        verts, faces = _strips(left, left + width)
        verts[5:7, 0] = verts[5, 0]
        wide = verts.clone()
        wide[1:3, 0] -= torch.tensor([0.0, 1.5]).double()  # the slit opens downwards
        alpha = rasterize(wide, faces, (14, 9), backend=backend).alpha
        rows = torch.arange(14.0).double() + 0.5
        opening = left + width - (wide[1, 0] + (wide[2, 0] - wide[1, 0]) * (rows + 5) / 25)
        torch.testing.assert_close((1 - alpha).sum(1)[7:12], opening[7:12], rtol=0, atol=0.02)


@backends
@pytest.mark.parametrize("width", [0.1, 0.4, 0.8])
def test_a_bar_thinner_than_a_pixel(backend, width):
    """It covers its width, whether a pixel centre sees it or not."""
    for left in torch.linspace(3.02, 4.02, 9).tolist():
        bar = _square((left, -3.0), (left + width, 20.0))
        alpha = rasterize(bar, TWO, (14, 9), backend=backend).alpha
        torch.testing.assert_close(alpha.sum(1)[2:-2], torch.full((10,), width).double(), rtol=0, atol=1e-6)


@backends
def test_a_picture_does_not_tell_what_shows_between_two_pixels(backend):
    """Where another surface shows from behind, a mask of the front one is mixed by its own outline alone; and a bar
    that no centre sees leaves a picture as it is."""
    front = _square((-20.0, -3.0), (3.6, 20.0)).requires_grad_()
    behind = (_square((-20.0, -3.0), (3.7, 20.0)) + torch.tensor([0, 0, 1.0])).requires_grad_()
    fragments = rasterize(torch.cat([front, behind]), torch.cat([TWO, TWO + 4]), (14, 9), backend=backend)
    mask = ((fragments.face_id >= 0) & (fragments.face_id < 2)).double()[None]
    mixed = antialias(fragments, mask)[0]
    torch.testing.assert_close(mixed.detach()[4:10, 3], torch.full((6,), 0.6).double(), rtol=0, atol=1e-6)
    moved = torch.autograd.grad(mixed[4:10].sum(), [front, behind])
    assert moved[0][:, 0].sum() == pytest.approx(6) and float(moved[1].abs().max()) < 1e-9
    bar = rasterize(_square((3.6, -3.0), (3.9, 20.0)), TWO, (14, 9), backend=backend)
    ramp = torch.arange(9.0).double().expand(1, 14, 9)
    assert bar.alpha[5, 3] == pytest.approx(0.3)
    torch.testing.assert_close(antialias(bar, ramp)[0, 5, 3], ramp[0, 5, 3])


@pytest.mark.parametrize("kind", ["ring", "several"])
def test_backends_agree_where_outlines_meet(kind):
    """Pictures and gradients, at faces larger and smaller than pixels."""
    bands = 0
    for seed, size in ((3, (64, 70)), (4, (64, 70)), (0, (33, 30))):
        faces, verts, colors, view, _, background = _scene(seed, kind, size)
        found = []
        for backend in ("numba", "torch"):
            points = verts.clone().requires_grad_()
            fragments = rasterize(points, faces, view, backend=backend)
            picture = shade(fragments, colors, background=background)
            (grad,) = torch.autograd.grad((picture - colors[0, :, None, None]).square().sum(), points)
            found.append((picture.detach(), grad))
            bands += int((fragments.outline._found.band > 0).sum())
        torch.testing.assert_close(*(x for x, _ in found), rtol=0, atol=1e-10)
        torch.testing.assert_close(*(g for _, g in found), rtol=0, atol=1e-7)
    assert bands > 8


def test_inconsistent_winding_and_borders():
    """Faces wound either way are one surface; a missing face is a hole with an outline of its own."""
    mesh = grid(6, 6, (2.0, 2.0))
    view = weak_view(torch.tensor([0.0, 0.0, 1.0]).double(), (60, 60), extent=1.3)
    alpha = rasterize(mesh.verts, mesh.faces, view).alpha
    turned = torch.where((torch.arange(mesh.n_faces) % 3 == 0)[:, None], mesh.faces.flip(1), mesh.faces)
    torch.testing.assert_close(rasterize(mesh.verts, turned, view).alpha, alpha)
    holed = rasterize(mesh.verts, mesh.faces[torch.arange(mesh.n_faces) != mesh.n_faces // 2], view).alpha
    missing = (alpha - holed).sum().item()
    one_face = 2.0 * 2.0 / mesh.n_faces * view.scale.item() ** 2
    assert missing == pytest.approx(one_face, rel=0.05)


def test_paint_and_render():
    mesh = icosphere(2)
    view = pinhole_view(EYE, (24, 24), fov=60.0)
    fragments = rasterize(mesh.verts, mesh.faces, view)
    torch.testing.assert_close(paint(fragments, mesh, view), render(mesh, view))
    fine = render(mesh, view, samples=4)
    assert (fine - render(mesh, view)).abs().max() < 0.1
    two = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).double()
    one_by_one = [
        render(mesh, view, light=t, ambient=0.0, background=0.0, light_color=c)
        for t, c in zip(two, torch.eye(3).double()[:2], strict=True)
    ]
    both = render(mesh, view, light=two, ambient=0.0, background=0.0, light_color=torch.eye(3)[:2])
    torch.testing.assert_close(both, sum(one_by_one))
    views = pinhole_view(torch.stack([EYE, -EYE]), (24, 24), fov=60.0)
    lights = torch.stack([two, -two])
    pictures = render(mesh, views, light=lights)
    torch.testing.assert_close(pictures[1], render(mesh, views[1], light=-two))
    coats = torch.rand(2, mesh.n_verts, 3).double()
    torch.testing.assert_close(render(mesh, views, colors=coats)[1], render(mesh, views[1], colors=coats[1]))
    skins = torch.rand(2, 3, 9, 9).double()
    dressed = Mesh(mesh.verts, mesh.faces, uv=mesh.verts[:, :2] / 2 + 0.5)
    torch.testing.assert_close(
        render(dressed, views, texture=skins)[0], render(dressed, views[0], texture=skins[0])
    )
    with pytest.raises(ValueError, match="found both"):
        render(dressed, views, texture=skins, colors=coats)


def test_bad_input():
    mesh = icosphere(1)
    fragments = rasterize(mesh.verts, mesh.faces, pinhole_view(EYE, (8, 9)))
    bare = Fragments(fragments.face_id, fragments.barycentric, fragments.depth)
    with pytest.raises(ValueError, match="fragments: expected those of rasterize"):
        antialias(bare, torch.zeros(1, 8, 9))
    with pytest.raises(ValueError, match="faces: expected"):
        shade(bare, mesh.verts, antialias=False)
    with pytest.raises(ValueError, match="image: expected "):
        antialias(fragments, torch.zeros(1, 9, 8))
    with pytest.raises(ValueError, match="at: expected one of"):
        shade(fragments, mesh.verts, at="edges")
    with pytest.raises(TypeError, match="values: expected a floating dtype"):
        shade(fragments, mesh.faces)
