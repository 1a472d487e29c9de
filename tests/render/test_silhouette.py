"""The soft silhouette: a double loop, pytorch3d's numbers, gradients that are right and bounded."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe.camera import Pinhole, WeakPerspective, look_at, ndc_to_pixels, pinhole_view, weak_view
from geoframe.render import rasterize, soft_silhouette
from geoframe.surface.shapes import icosahedron, icosphere, torus

backends = pytest.mark.parametrize("backend", ["numba", "torch"])


def _naive(xy, faces, size, sigma, cutoff):
    """alpha by a double loop in plain numbers; sigma in pixels squared."""
    alpha = torch.zeros(size).double()
    for row in range(size[0]):
        for col in range(size[1]):
            q, clear = (col + 0.5, row + 0.5), 1.0
            for face in faces.tolist():
                p = [xy[i].tolist() for i in face]
                d, turns = math.inf, []
                for (ax, ay), (bx, by) in zip(p, p[1:] + p[:1], strict=True):
                    ex, ey, rx, ry = bx - ax, by - ay, q[0] - ax, q[1] - ay
                    t = min(max((rx * ex + ry * ey) / (ex**2 + ey**2), 0), 1)
                    d = min(d, (rx - t * ex) ** 2 + (ry - t * ey) ** 2)
                    turns.append(ex * ry - ey * rx)
                inside = all(x > 0 for x in turns) or all(x < 0 for x in turns)
                cover = 1 / (1 + math.exp((-d if inside else d) / sigma))
                if inside or cover > cutoff:
                    clear *= 1 - cover
            alpha[row, col] = 1 - clear
    return alpha


@backends
@pytest.mark.parametrize("cutoff", [1e-4, 0.1])
def test_equals_the_double_loop(backend, cutoff):
    g = torch.Generator().manual_seed(0)
    verts = torch.rand(24, 3, generator=g, dtype=torch.float64) * torch.tensor([18.0, 14, 1]) - 2
    faces = torch.arange(24).view(8, 3)
    for sigma in (0.3, 3.0):
        expected = _naive(verts[:, :2], faces, (10, 14), sigma, cutoff)
        options = {"sigma": sigma / 5**2, "cutoff": cutoff, "backend": backend}
        got = soft_silhouette(verts, faces, (10, 14), **options)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
        single = soft_silhouette(verts.float(), faces, (10, 14), **options)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), expected, rtol=0, atol=2e-5)


@backends
@pytest.mark.parametrize("name", ["sphere_64", "sphere_48x80", "bumpy_perspective_64"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_pytorch3d(backend, name, dtype):
    folder = os.environ.get("GEOFRAME_DATA")
    path = Path(folder or "").parent / "reference" / f"{name}.npz"
    if not folder or not path.is_file():
        pytest.skip(f"needs reference/{name}.npz beside the folder named by GEOFRAME_DATA")
    d = {k: torch.as_tensor(v) for k, v in np.load(path).items()}
    size = tuple(d["image_size"].tolist())
    verts = d["verts_ndc"].to(dtype).requires_grad_()
    alpha = soft_silhouette(
        ndc_to_pixels(verts, size), d["faces"], size, sigma=float(d["sigma"]), backend=backend
    )
    torch.testing.assert_close(alpha.detach().float(), d["alpha"], rtol=0, atol=1.1e-5)  # theirs is float32
    (grad,) = torch.autograd.grad((alpha * d["weight"]).sum(), verts)
    assert (grad - d["grad_verts"]).norm() <= 1e-4 * d["grad_verts"].norm()
    assert (grad - d["grad_verts"]).abs().max() <= 1e-4 * d["grad_verts"].abs().max()


@backends
def test_gradients_to_vertices_and_cameras(backend):
    mesh = icosahedron()
    g = torch.Generator().manual_seed(1)
    verts = (mesh.verts + 0.05 * torch.randn(2, 12, 3, generator=g, dtype=torch.float64)).requires_grad_()
    R, t = look_at(torch.tensor([0.3, 0.2, 2.5]).double())
    focal, principal = torch.tensor([9.0, 10.0]).double(), torch.tensor([4.2, 4.1]).double()

    def pinhole(verts, R, t, focal, principal):
        view = Pinhole(R, t, focal, principal, (8, 9))
        return soft_silhouette(verts, mesh.faces, view, sigma=3e-2, cutoff=1e-9, backend=backend)

    inputs = [verts, *(x.requires_grad_() for x in (R, t, focal, principal))]
    assert torch.autograd.gradcheck(pinhole, inputs, fast_mode=True)

    def weak(verts, R, t, scale):
        view = WeakPerspective(R, t, scale, (8, 9))
        return soft_silhouette(verts, mesh.faces, view, sigma=3e-2, cutoff=1e-9, backend=backend)

    scale = torch.tensor(3.5).double().requires_grad_()
    assert torch.autograd.gradcheck(weak, [verts, R, principal, scale], fast_mode=True)


@backends
def test_tends_to_the_hard_mask(backend):
    mesh = torus()
    view = weak_view(torch.tensor([1.0, 0.5, 2.0]).double(), (40, 60), extent=1.6)
    hard = rasterize(mesh.verts, mesh.faces, view, backend=backend).mask
    wrong = []
    for sigma in (1e-2, 1e-4, 1e-7):
        alpha = soft_silhouette(mesh.verts, mesh.faces, view, sigma=sigma, backend=backend)
        wrong.append(float((alpha - hard.double()).abs().mean()))
    assert wrong[0] > 2 * wrong[1] > 4 * wrong[2] and wrong[2] < 2e-3


@backends
def test_many_faces_on_a_pixel(backend):
    """3,000 faint faces over one pixel: every one counts, against the closed form."""
    n, sigma = 3000, 0.5
    triangle = torch.tensor([[4.0, 0.5, 1.0], [9.0, -9.0, 1.0], [9.0, 9.0, 1.0]]).double()
    alpha = soft_silhouette(
        triangle.repeat(n, 1),
        torch.arange(3 * n).view(n, 3),
        (1, 2),
        sigma=sigma,
        cutoff=1e-12,
        backend=backend,
    )
    for col, distance in ((0, 3.5), (1, 2.5)):
        cover = 1 / (1 + math.exp(distance**2 / (sigma / 4)))
        expected = -math.expm1(n * math.log1p(-cover))
        assert alpha[0, col].item() == pytest.approx(expected, rel=1e-6)


@backends
def test_slivers_have_bounded_gradients(backend):
    size = (256, 256)
    for angle in torch.linspace(0.0, 3.0, 7):
        across = torch.stack([-angle.sin(), angle.cos()])
        along = torch.stack([angle.cos(), angle.sin()])
        for width in (0.0, 1e-9, 1e-6, 1e-4, 1e-2):
            ends = torch.stack([-0.7 * along, 0.7 * along, width * across]).double()
            ndc = torch.cat([ends + 1 / 256, torch.ones(3, 1).double()], 1).requires_grad_()
            alpha = soft_silhouette(
                ndc_to_pixels(ndc, size), torch.tensor([[0, 1, 2]]), size, backend=backend
            )
            for loss in (alpha.mean(), alpha.max()):  # a unit of loss spread over the image, or on one pixel
                (grad,) = torch.autograd.grad(loss, ndc, retain_graph=True)
                assert grad.isfinite().all() and grad.abs().max() <= 1e3


@backends
def test_degenerate_faces_give_nothing(backend):
    verts = torch.tensor(
        [[4.0, 4, 1], [4, 4, 1], [4, 4, 1], [0, 0, 1], [2, 2, 1], [7, 7, 1]]
    ).requires_grad_()
    faces = torch.tensor([[0, 1, 2], [0, 0, 1], [3, 4, 5]])
    alpha = soft_silhouette(verts, faces, (8, 8), backend=backend)
    assert not alpha.any()
    (grad,) = torch.autograd.grad(alpha.sum(), verts)
    assert not grad.any()


@backends
def test_batches_are_single_images_one_after_another(backend):
    mesh, other = icosphere(1), torus(n_around=8, n_tube=5)
    g = torch.Generator().manual_seed(0)
    eyes = torch.randn(3, 3, generator=g, dtype=torch.float64) + torch.tensor([0.0, 0, 4])
    views = pinhole_view(eyes, (16, 20))
    lists = [mesh.verts, other.verts, mesh.verts + 0.1], [mesh.faces, other.faces, mesh.faces]
    many = soft_silhouette(*lists, views, sigma=1e-3, backend=backend)
    assert many.shape == (3, 16, 20)
    for i in range(3):
        one = soft_silhouette(lists[0][i], lists[1][i], views[i], sigma=1e-3, backend=backend)
        torch.testing.assert_close(many[i], one)
    moving = torch.stack([mesh.verts, mesh.verts + 0.1, mesh.verts * 0.9]).requires_grad_()
    together = soft_silhouette(moving, mesh.faces, views, sigma=1e-3, backend=backend)
    (grad,) = torch.autograd.grad(together.square().sum(), moving)
    for i in range(3):
        verts = moving[i].detach().requires_grad_()
        one = soft_silhouette(verts, mesh.faces, views[i], sigma=1e-3, backend=backend)
        torch.testing.assert_close(torch.autograd.grad(one.square().sum(), verts)[0], grad[i])


def test_descent_finds_a_moved_sphere():
    """The gradient points the right way: a translation is recovered from one mask to a tenth of a pixel."""
    mesh = icosphere(2)
    view = weak_view(torch.tensor([0.0, 0.0, 1.0]).double(), (32, 32), extent=2.0)
    goal = torch.tensor([0.4, -0.3, 0.0]).double()
    mask = soft_silhouette(mesh.verts + goal, mesh.faces, view, sigma=1e-3)
    shift = torch.zeros(3).double().requires_grad_()
    for sigma, lr in ((1e-2, 0.05), (1e-3, 0.01)):
        optimiser = torch.optim.Adam([shift], lr=lr)
        for _ in range(40):
            alpha = soft_silhouette(mesh.verts + shift, mesh.faces, view, sigma=sigma)
            optimiser.zero_grad()
            (alpha - mask).square().mean().backward()
            optimiser.step()
    assert (shift - goal)[:2].norm() * 8 < 0.1


def test_bad_input():
    verts, faces = torch.zeros(4, 3), torch.tensor([[0, 1, 2]])
    with pytest.raises(ValueError, match="sigma: expected a positive number, found 0"):
        soft_silhouette(verts, faces, (8, 8), sigma=0.0)
    with pytest.raises(ValueError, match=r"cutoff: expected a number between 0 and 0.5"):
        soft_silhouette(verts, faces, (8, 8), cutoff=0.5)
    with pytest.raises(TypeError, match="verts: expected a floating dtype"):
        soft_silhouette(verts.long(), faces, (8, 8))
