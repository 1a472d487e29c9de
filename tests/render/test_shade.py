"""Attributes, textures and light: a loop, closed forms, gradients."""

from __future__ import annotations

import pytest
import torch

from geoframe.camera import Pinhole, ndc_to_pixels, pinhole_view, weak_view
from geoframe.render import (
    Fragments,
    image_texture,
    interpolate,
    lambert,
    normal_map,
    rasterize,
    render,
    sample_image,
    uv_texture,
)
from geoframe.surface import Mesh
from geoframe.surface.shapes import grid, icosahedron, icosphere, torus

EYE = torch.tensor([1.0, 0.7, 2.2]).double()


def _scene(size=(24, 30), batch=()):
    mesh = torus(n_around=24, n_tube=12)
    verts = mesh.verts + 0.05 * torch.randn(
        *batch, *mesh.verts.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    view = pinhole_view(EYE, size, fov=60.0)
    return mesh.with_verts(verts), view, rasterize(verts, mesh.faces, view)


def test_interpolate_equals_the_loop():
    mesh, _, fragments = _scene(batch=(2,))
    values = torch.randn(2, mesh.n_verts, 4, generator=torch.Generator().manual_seed(0)).double()
    expected, shared = torch.zeros(2, 2, 4, 24, 30).double()
    for b in range(2):
        for row in range(24):
            for col in range(30):
                face = int(fragments.face_id[b, row, col])
                if face >= 0:
                    weights = fragments.barycentric[b, row, col]
                    expected[b, :, row, col] = weights @ values[b, mesh.faces[face]]
                    shared[b, :, row, col] = weights @ values[0, mesh.faces[face]]
    torch.testing.assert_close(interpolate(fragments, mesh.faces, values), expected)
    torch.testing.assert_close(interpolate(fragments, mesh.faces, values[0]), shared)
    with pytest.raises(ValueError, match=r"values: expected leading shape \(2,\)"):
        interpolate(fragments, mesh.faces, values[:, None])
    with pytest.raises(ValueError, match="faces: expected indices in"):
        interpolate(fragments, mesh.faces, values[:, :5])


def test_the_dense_map_of_positions_is_the_unprojected_picture():
    mesh, view, fragments = _scene()
    rows, cols = torch.meshgrid(torch.arange(24) + 0.5, torch.arange(30) + 0.5, indexing="ij")
    pixels = torch.stack([cols, rows, fragments.depth], -1)[fragments.mask]
    positions = interpolate(fragments, mesh.faces, mesh.verts).movedim(0, -1)
    torch.testing.assert_close(positions[fragments.mask], view.unproject(pixels))
    assert not positions[~fragments.mask].any()


def test_gradients_of_colors_to_vertices_camera_and_colors():
    mesh = icosahedron()
    g = torch.Generator().manual_seed(1)
    verts = (mesh.verts + 0.05 * torch.randn(12, 3, generator=g, dtype=torch.float64)).requires_grad_()
    colors = torch.rand(12, 3, generator=g, dtype=torch.float64).requires_grad_()
    view = pinhole_view(EYE, (9, 8), fov=60.0)
    inputs = [verts, colors, *(x.clone().requires_grad_() for x in (view.R_wc, view.t, view.focal))]

    def run(verts, colors, R, t, focal):
        camera = Pinhole(R, t, focal, view.principal, (9, 8))
        return render(Mesh(verts, mesh.faces, colors=colors), camera)

    assert torch.autograd.gradcheck(run, inputs, eps=1e-7, atol=1e-5, fast_mode=True)


def test_sampling_an_image():
    image = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).double()
    rows, cols = torch.meshgrid(torch.arange(5) + 0.5, torch.arange(7) + 0.5, indexing="ij")
    centres = torch.stack([cols, rows], -1).view(-1, 2).double()
    got = sample_image(image, centres)
    torch.testing.assert_close(got, image.flatten(2).mT)  # exact at pixel centres
    between = sample_image(image[0], torch.tensor([[3.0, 2.0]]).double())[0]
    torch.testing.assert_close(between, image[0, :, 1:3, 2:4].mean((1, 2)))
    outside = sample_image(image[1], torch.tensor([[-9.0, 99.0]]).double())[0]
    torch.testing.assert_close(outside, image[1, :, 4, 0])
    points = (centres[None, 8:20] + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(sample_image, [image.requires_grad_(), points], fast_mode=True)
    with pytest.raises(ValueError, match=r"pixels: expected shape \(..., N, 2\)"):
        sample_image(image, torch.zeros(4, 3).double())


def test_a_texture_lies_the_right_way_up():
    mesh = grid(3, 3, (2.0, 2.0))  # seen from +z: x to the right, y up
    uv = (mesh.verts[:, :2] + 1) / 2
    rows = torch.linspace(1, 0, 16).double()[:, None].expand(16, 16)  # top row 1
    texture = torch.stack([rows, torch.linspace(0, 1, 16).double().expand(16, 16), torch.ones(16, 16)])
    view = weak_view(torch.tensor([0.0, 0.0, 1.0]).double(), (16, 16))
    fragments = rasterize(mesh.verts, mesh.faces, view)
    assert fragments.mask.all()
    torch.testing.assert_close(uv_texture(fragments, mesh.faces, uv, texture), texture)  # pixel by pixel
    seams = torch.arange(3 * mesh.n_faces).view(-1, 3)
    again = uv_texture(fragments, seams, uv[mesh.faces].view(-1, 2), texture)
    torch.testing.assert_close(again, texture)
    textured = Mesh(mesh.verts, mesh.faces, uv=uv)
    light = torch.tensor([0.0, 0.0, 2.0]).double()
    torch.testing.assert_close(render(textured, view, texture=texture, light=light), texture)
    with pytest.raises(ValueError, match="texture: expected a mesh with uv"):
        render(mesh, view, texture=texture)


def test_painting_with_the_image_gives_the_image_back():
    """To-The-Point 3.3: sampled at the projected points, seen from the same side, an image returns."""
    mesh = _scene()[0]
    rows, cols = torch.meshgrid(torch.arange(48) / 48.0, torch.arange(60) / 60.0, indexing="ij")
    image = torch.stack([rows, cols, rows * cols]).double()
    weak = weak_view(EYE, (48, 60), extent=1.6)
    fragments = rasterize(mesh.verts, mesh.faces, weak)
    points = weak.project(mesh.verts)[:, :2].requires_grad_()
    painted = image_texture(fragments, mesh.faces, points, image)
    torch.testing.assert_close(painted, image * fragments.mask, rtol=0, atol=1e-9)
    (grad,) = torch.autograd.grad(painted.sum(), points)
    seen = torch.zeros(mesh.n_verts, dtype=torch.bool)
    seen[mesh.faces[fragments.face_id[fragments.mask]]] = True
    assert (grad[seen].abs().sum(1) > 0).float().mean() > 0.95 and not grad[~seen].any()


def test_normals_and_light_of_a_sphere():
    mesh = icosphere(4)
    view = weak_view(EYE, (40, 40), extent=1.2)
    fragments = rasterize(mesh.verts, mesh.faces, view)
    normals = normal_map(fragments, mesh)
    positions = interpolate(fragments, mesh.faces, mesh.verts)
    outward = positions / positions.norm(dim=0).clamp_min(1e-9)
    assert (normals - outward).norm(dim=0).max() < 1e-2
    torch.testing.assert_close(normals.norm(dim=0), fragments.mask.double(), rtol=0, atol=1e-6)
    light = torch.tensor([0.0, 3.0, 0.0]).double()
    expected = 0.2 + 0.8 * normals[1:2].clamp_min(0)
    torch.testing.assert_close(lambert(normals, light, ambient=0.2), expected, rtol=0, atol=1e-7)


def test_pictures_of_batches_and_of_colors():
    mesh, view, _ = _scene((12, 14), batch=(3,))
    many = render(mesh, view)
    assert many.shape == (3, 3, 12, 14) and many.min() >= 0 and many.max() <= 1
    torch.testing.assert_close(many[1], render(Mesh(mesh.verts[1], mesh.faces), view))
    views = pinhole_view(torch.stack([EYE, -EYE]), (12, 14))
    two = render(Mesh(mesh.verts[0], mesh.faces), views, background=0.0)
    assert two.shape == (2, 3, 12, 14) and not torch.equal(two[0], two[1])
    red = Mesh(
        mesh.verts[0], mesh.faces, colors=torch.tensor([0.8, 0.0, 0.0, 1.0]).double().expand(mesh.n_verts, 4)
    )
    picture = render(red, views[0], background=0.5, antialias=False)
    seen = rasterize(red.verts, red.faces, views[0]).mask
    assert (picture[:, ~seen] == 0.5).all() and not picture[1:, seen].any() and (picture[0, seen] > 0.2).all()


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_colors_of_slivers_have_bounded_gradients(backend):
    size = (256, 256)
    colors = torch.eye(3).double()
    for width in (0.0, 1e-6, 1e-3):
        ends = torch.tensor([[-0.7, 0.0, 1.0], [0.7, 0.0, 2.0], [0.0, width, 3.0]]).double() + 1 / 256 - 1e-8
        ndc = ends.requires_grad_()
        screen = ndc_to_pixels(ndc, size)
        picture = render(Mesh(screen, torch.tensor([[0, 1, 2]]), colors=colors), size, backend=backend)
        (grad,) = torch.autograd.grad(picture.mean(), ndc)
        assert grad.isfinite().all() and grad.abs().max() <= 1e3


def test_a_collapsed_mesh_has_finite_gradients():
    mesh = icosphere(1)
    verts = torch.zeros(mesh.n_verts, 3).double().requires_grad_()
    picture = render(mesh.with_verts(verts), weak_view(EYE, (8, 8)))
    normals = normal_map(
        Fragments(torch.zeros(1, 1).long(), torch.full((1, 1, 3), 1 / 3), torch.ones(1, 1)),
        mesh.with_verts(verts),
    )
    (grad,) = torch.autograd.grad(picture.sum() + normals.sum(), verts)
    assert grad.isfinite().all()
