"""The rasterizer: a double loop in fractions, pytorch3d's numbers, cracks, clipping, gradients, batches."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe.camera import Pinhole, WeakPerspective, look_at, ndc_to_pixels, pinhole_view, weak_view
from geoframe.render import rasterize, render, shade, soft_silhouette
from geoframe.render.rasterize import load_backend
from geoframe.surface.shapes import icosahedron, icosphere, torus

BACKENDS = ["numba", "torch"]
backends = pytest.mark.parametrize("backend", BACKENDS)


def reference(name):
    """A file of pytorch3d's results, which lies beside the folder of real data."""
    folder = os.environ.get("GEOFRAME_DATA")
    path = Path(folder or "").parent / "reference" / f"{name}.npz"
    if not folder or not path.is_file():
        pytest.skip(f"needs reference/{name}.npz beside the folder named by GEOFRAME_DATA")
    return {k: torch.as_tensor(v) for k, v in np.load(path).items()}


def _naive(verts, faces, size, perspective):
    """Face ids, weights and depths by a double loop in exact arithmetic."""
    H, W = size
    owner = torch.full(size, -1)
    bary, depth = torch.zeros(H, W, 3).double(), torch.zeros(size).double()
    exact = [[Fraction(float(x)) for x in v] for v in verts]
    for row in range(H):
        for col in range(W):
            qx, qy = Fraction(2 * col + 1, 2), Fraction(2 * row + 1, 2)
            best = None
            for f, face in enumerate(faces.tolist()):
                p = [exact[i] for i in face]
                e = []
                for i in range(3):
                    (bx, by, _), (cx, cy, _) = p[(i + 1) % 3], p[(i + 2) % 3]
                    e.append((bx - qx) * (cy - qy) - (cx - qx) * (by - qy))
                total = sum(e)
                if total == 0:
                    continue
                sign = 1 if total > 0 else -1
                hit = True
                for i in range(3):
                    dx, dy = (sign * (p[(i + 2) % 3][k] - p[(i + 1) % 3][k]) for k in (0, 1))
                    hit &= sign * e[i] > 0 or (e[i] == 0 and (dy < 0 or (dy == 0 and dx > 0)))
                if not hit:
                    continue
                w = [x / total for x in e]
                if perspective:
                    w = [x / q[2] for x, q in zip(w, p, strict=True)]
                    w = [x / sum(w) for x in w]
                z = sum(x * q[2] for x, q in zip(w, p, strict=True))
                if best is None or z < best:
                    best, owner[row, col], depth[row, col] = z, f, float(z)
                    bary[row, col] = torch.tensor([float(x) for x in w], dtype=torch.float64)
    return owner, bary, depth


def _soup(seed, n=12, size=(9, 13)):
    """Random triangles, some with corners and edges exactly on pixel centres."""
    g = torch.Generator().manual_seed(seed)
    verts = torch.rand(3 * n, 3, generator=g, dtype=torch.float64) * torch.tensor(
        [1.4 * size[1], 1.4 * size[0], 3.0]
    )
    verts = verts - torch.tensor([2.0, 2.0, -0.5])
    verts[: 2 * n, :2] = verts[: 2 * n, :2].round() + 0.5
    return verts, torch.arange(3 * n).view(n, 3), size


@backends
@pytest.mark.parametrize("perspective", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_double_loop(backend, perspective, dtype):
    for seed in range(2):
        verts, faces, size = _soup(seed)
        verts = verts.to(dtype)
        owner, bary, depth = _naive(verts, faces, size, perspective)
        got = rasterize(verts, faces, size, perspective=perspective, backend=backend)
        assert (owner >= 0).sum() > 30
        assert torch.equal(got.face_id, owner)
        assert torch.equal(got.mask, owner >= 0)
        tol = 1e-12 if dtype == torch.float64 else 1e-6
        torch.testing.assert_close(got.barycentric.double(), bary, rtol=0, atol=tol)
        torch.testing.assert_close(got.depth.double(), depth, rtol=tol, atol=0)


@backends
@pytest.mark.parametrize("name", ["sphere_64", "sphere_48x80", "bumpy_perspective_64"])
def test_equals_pytorch3d(backend, name):
    d = reference(name)
    size = tuple(d["image_size"].tolist())
    screen = ndc_to_pixels(d["verts_ndc"].double(), size)
    got = rasterize(screen, d["faces"], size, perspective=bool(d["perspective_correct"]), backend=backend)
    assert torch.equal(got.face_id, d["hard_pix_to_face"].long())  # no pixel centre lies on an edge here
    seen = got.mask
    # pytorch3d adds 1e-8 to a triangle's area before it divides: its weights do not sum to one
    theirs = d["hard_bary"][seen].double()
    total = theirs.sum(1, keepdim=True)
    assert (total - 1).abs().max() < 5e-5
    # and it places pixel centres in float32, which a thin triangle amplifies by 1 / area
    u, v = (d["verts_ndc"][d["faces"][got.face_id[seen]]][:, i, :2].double() for i in (1, 2))
    w = d["verts_ndc"][d["faces"][got.face_id[seen]]][:, 0, :2].double()
    area = ((u - w)[:, 0] * (v - w)[:, 1] - (u - w)[:, 1] * (v - w)[:, 0]).abs() / 2
    error = (got.barycentric[seen] - theirs / total).abs().amax(1)
    assert (error <= 1e-5).float().mean() > 0.99 and (error <= 1e-5 + 1e-8 / area).all()
    torch.testing.assert_close(
        got.depth[seen].double(), d["hard_zbuf"][seen] / total[:, 0], rtol=0, atol=1e-5
    )


@backends
def test_a_square_of_two_triangles_has_no_crack(backend):
    """At 200 placements, sizes and turns, half of them on the pixel grid: each centre is drawn exactly once."""
    g = torch.Generator().manual_seed(0)
    H, W = size = (32, 40)
    rows, cols = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    for i in range(200):
        low, side = torch.rand(2, generator=g) * 16 - 2, 1 + torch.rand(1, generator=g) * 28
        if i % 2:
            low, side = (2 * low).round() / 2, side.round()
        square = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]) * side + low
        if i % 4 >= 2:
            angle = torch.rand(1, generator=g) * 6.3
            turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
            square = (square - 16) @ turn + 16
        verts = torch.cat([square, torch.ones(4, 1)], 1)
        faces = torch.tensor([[0, 1, 2], [0, 2, 3]] if i % 3 else [[1, 2, 3], [3, 0, 1]])
        lists = [verts] * 3, [faces[:1], faces[1:], faces]
        one, two, both = rasterize(*lists, size, backend=backend).mask
        assert not (one & two).any()
        assert torch.equal(both, one | two)
        edge = square.roll(-1, 0) - square
        q = torch.stack([cols, rows], -1)[..., None, :] - square
        e = edge[:, 0] * q[..., 1] - edge[:, 1] * q[..., 0]
        inside = (e > 1e-4).all(-1)
        outside = (e < -1e-4).any(-1)
        assert both[inside].all() and not both[outside].any()
        if i % 4 == 1:  # on the grid, half open: exactly side^2 pixels where it fits in the image
            x, y = low.tolist()
            if x >= 0 and y >= 0 and x + side <= W and y + side <= H:
                assert both.sum() == int(side) ** 2


@backends
def test_neighbours_never_share_a_pixel(backend):
    """A closed surface seen at random covers each pixel of its picture an even number of times."""
    mesh = torus()
    view = weak_view(torch.tensor([1.0, 0.5, 2.0]).double(), (40, 40), extent=1.6)
    front = rasterize(mesh.verts, mesh.faces, view, cull=True, backend=backend)
    back = rasterize(mesh.verts, mesh.faces.flip(1), view, cull=True, backend=backend)
    assert torch.equal(front.mask, back.mask) and front.mask.sum() > 300
    everything = rasterize(mesh.verts, mesh.faces, view, backend=backend)
    assert torch.equal(everything.face_id, front.face_id)  # nothing nearer than the front is culled
    assert (back.depth >= front.depth)[front.mask].all()


@backends
def test_unprojected_fragments_lie_on_their_faces(backend):
    mesh = torus().to(torch.float64)
    eye = torch.tensor([1.0, 2.0, 2.5]).double()
    rows, cols = torch.meshgrid(torch.arange(30) + 0.5, torch.arange(50) + 0.5, indexing="ij")
    for view in (pinhole_view(eye, (30, 50)), weak_view(eye, (30, 50), extent=1.5)):
        got = rasterize(mesh.verts, mesh.faces, view, backend=backend)
        pixels = torch.stack([cols, rows, got.depth], -1)[got.mask]
        corners = mesh.verts[mesh.faces[got.face_id[got.mask]]]
        on_face = (got.barycentric[got.mask][..., None] * corners).sum(1)
        torch.testing.assert_close(view.unproject(pixels), on_face, rtol=0, atol=1e-10)


@backends
def test_near_clipping_equals_rays(backend):
    """Inside a torus that reaches behind the camera: every pixel against the ray through it."""
    mesh = torus(n_around=12, n_tube=6).to(torch.float64)
    R, t = look_at(torch.tensor([1.0, 0.05, 0.02]).double(), (0.0, 1.0, 0.1))
    focal, principal = torch.tensor([9.0, 9.0]).double(), torch.tensor([8.0, 6.0]).double()
    view = Pinhole(R, t, focal, principal, (12, 16))
    near = 0.11
    got = rasterize(mesh.verts, mesh.faces, view, near=near, backend=backend)
    p = view.to_camera(mesh.verts)[mesh.faces]
    behind = (p[..., 2] < near).any(1)
    assert behind.sum() > 10 and not behind.all() and got.mask.all()
    assert behind[got.face_id].any()  # some faces that are seen were cut
    rows, cols = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(16) + 0.5, indexing="ij")
    ray = torch.stack([(cols.double() - 8) / 9, (rows.double() - 6) / 9, torch.ones(12, 16)], -1)
    normal = torch.linalg.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
    depth = (normal * p[:, 0]).sum(1) / (ray[..., None, :] * normal).sum(-1)
    hit = depth[..., None] * ray[..., None, :]
    sides = [
        torch.linalg.cross((p[:, (i + 1) % 3] - p[:, i]).expand_as(hit), hit - p[:, i]) for i in range(3)
    ]
    inside = torch.stack([(s * normal).sum(-1) > 0 for s in sides]).all(0) & (depth >= near)
    nearest, face = torch.where(inside, depth, torch.inf).min(-1)
    torch.testing.assert_close(got.depth, nearest)
    assert torch.equal(got.face_id, face)
    corners = p[got.face_id]
    on_ray = (got.barycentric[..., None] * corners).sum(-2)
    torch.testing.assert_close(on_ray, ray * nearest[..., None], atol=1e-9, rtol=0)


@backends
def test_gradients(backend):
    """gradcheck of depth and weights to vertices and camera, on faces thicker than a quarter of a pixel."""
    mesh = icosahedron()
    g = torch.Generator().manual_seed(1)
    verts = (mesh.verts + 0.05 * torch.randn(2, 12, 3, generator=g, dtype=torch.float64)).requires_grad_()
    R, t = look_at(torch.tensor([0.3, 0.2, 2.5]).double())
    focal, principal = torch.tensor([9.0, 10.0]).double(), torch.tensor([4.2, 4.1]).double()
    weight = torch.randn(2, 8, 9, 4, generator=g, dtype=torch.float64)

    def pinhole(verts, R, t, focal, principal):
        got = rasterize(verts, mesh.faces, Pinhole(R, t, focal, principal, (8, 9)), backend=backend)
        return torch.cat([got.barycentric, got.depth[..., None]], -1) * weight

    inputs = [verts, *(x.requires_grad_() for x in (R, t, focal, principal))]
    assert torch.autograd.gradcheck(pinhole, inputs, eps=1e-7, atol=1e-5, fast_mode=True)

    def weak(verts, R, t, scale):
        got = rasterize(verts, mesh.faces, WeakPerspective(R, t, scale, (8, 9)), backend=backend)
        return torch.cat([got.barycentric, got.depth[..., None]], -1) * weight

    scale = torch.tensor(3.5).double().requires_grad_()
    assert torch.autograd.gradcheck(weak, [verts, R, principal, scale], eps=1e-7, atol=1e-5, fast_mode=True)


def test_gradients_through_the_near_plane():
    verts = torch.tensor([[-0.5, 0.3, 2.0], [0.7, 0.5, 1.0], [0.1, -0.6, -0.4]]).double().requires_grad_()
    both = torch.tensor([[0, 1, 2], [2, 1, 0]])
    view = Pinhole(torch.eye(3), torch.zeros(3), torch.full((2,), 5.0), torch.full((2,), 4.1), (8, 8)).to(
        verts
    )
    weight = torch.randn(8, 8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for faces in (both[[0]], both[[0]] * 0 + torch.tensor([2, 0, 1])):

        def run(v, faces=faces):
            got = rasterize(v, faces, view, near=0.1)
            return torch.cat([got.barycentric, got.depth[..., None]], -1) * weight

        assert run(verts).abs().sum() > 1
        assert torch.autograd.gradcheck(run, [verts], eps=1e-7, atol=1e-5, fast_mode=True)


@backends
def test_slivers_have_bounded_gradients(backend):
    size = (256, 256)
    for angle in torch.linspace(0.0, 3.0, 7):
        across = torch.stack([-angle.sin(), angle.cos()])
        along = torch.stack([angle.cos(), angle.sin()])
        for width in (1e-6, 1e-4, 1e-2):
            ends = torch.stack([-0.7 * along, 0.7 * along, width * across]).double()
            depth = torch.tensor([1.0, 2.0, 3.0])[:, None].double()
            ndc = torch.cat([ends + 1 / 256, depth], 1).requires_grad_()
            for perspective in (False, True):
                face = torch.tensor([[0, 1, 2]])
                got = rasterize(
                    ndc_to_pixels(ndc, size), face, size, perspective=perspective, backend=backend
                )
                loss = got.depth.sum() / got.mask.sum().clamp_min(1) + got.barycentric[..., 0].mean()
                (grad,) = torch.autograd.grad(loss, ndc)
                assert grad.isfinite().all() and grad.abs().max() <= 1e3


def _same(one, two):
    assert torch.equal(one.face_id, two.face_id)
    torch.testing.assert_close(one.barycentric, two.barycentric, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.depth, two.depth, rtol=0, atol=1e-12)


@backends
def test_batches_are_single_images_one_after_another(backend):
    mesh = icosphere(1)
    g = torch.Generator().manual_seed(0)
    verts = mesh.verts + 0.1 * torch.randn(2, 3, 42, 3, generator=g, dtype=torch.float64)
    R, t = look_at(torch.randn(3, 3, generator=g, dtype=torch.float64) + torch.tensor([0.0, 0, 4]))
    focal, principal = torch.full((2,), 20.0).double(), torch.full((2,), 8.0).double()
    views = Pinhole(R, t, focal, principal, (16, 16))
    got = rasterize(verts, mesh.faces, views, backend=backend)
    assert got.face_id.shape == (2, 3, 16, 16) and got.barycentric.shape == (2, 3, 16, 16, 3)
    for i in range(2):
        for j in range(3):
            one = rasterize(verts[i, j], mesh.faces, views[j], backend=backend)
            _same(one, got[i, j])
    other = torus(n_around=8, n_tube=5)
    lists = [verts[0, 0], other.verts, verts[1, 2]], [mesh.faces, other.faces, mesh.faces]
    many = rasterize(*lists, views, backend=backend)
    for i in range(3):
        one = rasterize(lists[0][i], lists[1][i], views[i], backend=backend)
        _same(one, many[i])


def test_threads_do_not_change_the_result():
    mesh = icosphere(3)
    view = pinhole_view(torch.tensor([1.0, 1.0, 2.0]).double(), (70, 50))
    before = torch.get_num_threads()
    try:
        results = []
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(rasterize(mesh.verts, mesh.faces, view))
    finally:
        torch.set_num_threads(before)
    for name in ("face_id", "barycentric", "depth", "alpha"):
        assert torch.equal(*(getattr(r, name) for r in results)), name


@backends
def test_nothing_to_see(backend):
    mesh = icosphere(1).to(torch.float32)
    R, t = look_at(torch.tensor([0.0, 0.0, 5.0]), (0.0, 0.0, 9.0))  # everything is behind
    view = Pinhole(R, t, torch.full((2,), 10.0), torch.full((2,), 4.0), (8, 8))
    for near in (None, 0.1):
        verts = mesh.verts.clone().requires_grad_()
        got = rasterize(verts, mesh.faces, view, near=near, backend=backend)
        assert not got.mask.any() and not got.depth.any()
        (grad,) = torch.autograd.grad(got.depth.sum() + got.barycentric.sum(), verts)
        assert not grad.any()
    flat = torch.tensor([[1.0, 1, 1], [7, 7, 1], [3, 3, 1]])
    assert not rasterize(flat, torch.tensor([[0, 1, 2]]), (8, 8), backend=backend).mask.any()
    assert not rasterize(flat, torch.zeros(0, 3).long(), (8, 8), backend=backend).mask.any()


@backends
def test_unused_vertices_and_far_planes_hide_nothing(backend):
    """A far vertex in no face, and a ground plane to the horizon, leave what is near in the picture."""
    view = Pinhole(torch.eye(3), torch.zeros(3), torch.full((2,), 16.0), torch.full((2,), 8.0), (16, 16))
    near = torch.tensor([[-1.0, -1.0, 2.0], [1.0, -1.0, 2.0], [-1.0, 1.0, 2.0], [0.0, 0.0, 2.0]])
    stray = torch.stack([near, near])
    stray[1, 3, 2] = 3e9
    got = rasterize(stray, torch.tensor([[0, 1, 2]]), view, backend=backend)
    assert torch.equal(got.mask[0], got.mask[1]) and got.mask[0].sum() > 100 and not got.clipped.any()
    ground = torch.tensor([[-1e4, 1.5, -1e4], [1e4, 1.5, -1e4], [0.0, 1.5, 1e4]])
    both = rasterize(
        torch.cat([near, ground]), torch.tensor([[0, 1, 2], [4, 6, 5]]), view.to(near), backend=backend
    )
    assert (both.face_id == 0).sum() == got.mask[0].sum() and both.clipped == 1
    rows = torch.arange(9, 16)  # the ground at each row below the horizon: depth 1.5 f / (y - cy)
    seen = both.face_id[rows, 15] == 1
    assert seen.all()
    torch.testing.assert_close(both.depth[rows, 15], 1.5 * 16 / (rows + 0.5 - 8), rtol=1e-5, atol=0)
    told = rasterize(near, torch.tensor([[0, 1, 2]]), view, near=3.0, backend=backend)
    assert not told.mask.any() and told.clipped == 1


@backends
def test_a_clipped_surface_stays_connected(backend):
    """Cut edges are shared by neighbours: inside a cut ball there is no outline."""
    mesh = icosphere(2).to(torch.float64)
    view = pinhole_view(torch.tensor([0.0, 0.1, 0.6]).double(), (24, 24), fov=90.0)
    got = rasterize(mesh.verts, mesh.faces, view, near=0.2, backend=backend)
    assert got.clipped > 0 and got.mask.all()
    torch.testing.assert_close(got.alpha, torch.ones(24, 24).double())
    assert not len(got.outline.mixing.into)


@backends
def test_batches_of_none(backend):
    mesh = icosphere(1)
    views = pinhole_view(torch.zeros(0, 3).double() + 3, (6, 7))
    got = rasterize(mesh.verts, mesh.faces, views, backend=backend)
    assert (
        got.face_id.shape == (0, 6, 7)
        and got.barycentric.shape == (0, 6, 7, 3)
        and got.alpha.shape == (0, 6, 7)
    )
    none = rasterize(mesh.verts.expand(0, -1, -1), mesh.faces, views, backend=backend)
    assert none.depth.shape == (0, 6, 7)
    assert soft_silhouette(mesh.verts, mesh.faces, views, backend=backend).shape == (0, 6, 7)
    assert render(mesh, views, backend=backend).shape == (0, 3, 6, 7)


@pytest.mark.parametrize("field", ["R_wc", "t", "focal", "principal"])
def test_a_camera_of_nan_is_refused(field):
    mesh = icosphere(1)
    view = pinhole_view(torch.tensor([0.0, 1.0, 3.0]).double(), (6, 7))
    broken = replace(view, **{field: getattr(view, field) * torch.nan})
    for draw in (rasterize, soft_silhouette):
        with pytest.raises(ValueError, match=f"view.{field}: expected finite numbers"):
            draw(mesh.verts, mesh.faces, broken)


def test_second_derivatives_are_refused():
    mesh = icosphere(1)
    view = pinhole_view(torch.tensor([0.0, 1.0, 3.0]).double(), (6, 7))
    for draw in (soft_silhouette, lambda *x: rasterize(*x).depth):
        verts = mesh.verts.clone().requires_grad_()
        (grad,) = torch.autograd.grad(draw(verts, mesh.faces, view).sum(), verts, create_graph=True)
        with pytest.raises(RuntimeError, match="has first derivatives only"):
            grad.square().sum().backward()


def test_arrays_and_lists_are_taken():
    mesh = icosphere(1)
    view = pinhole_view(np.array([0.0, 1.0, 3.0]), (6, 7))
    expected = rasterize(mesh.verts, mesh.faces, view)
    assert (expected.face_id >= 0).any()
    _same(rasterize(mesh.verts.numpy(), mesh.faces.numpy(), view), expected)
    _same(rasterize(mesh.verts.tolist(), mesh.faces.tolist(), view), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_the_cpu():
    mesh = torus(n_around=24, n_tube=12)
    view = pinhole_view(torch.tensor([[1.0, 0.7, 2.2], [0.0, 2.0, 2.0]]).double(), (40, 42))
    here = rasterize(mesh.verts, mesh.faces, view)
    there = rasterize(mesh.verts.cuda(), mesh.faces.cuda(), view.to("cuda"))
    assert torch.equal(here.face_id, there.face_id.cpu())
    torch.testing.assert_close(here.alpha, there.alpha.cpu(), rtol=0, atol=1e-10)
    torch.testing.assert_close(render(mesh, view), render(mesh.to("cuda"), view.to("cuda")).cpu())
    grads = []
    for device in ("cpu", "cuda"):
        verts = mesh.verts.to(device).requires_grad_()
        faces, eyes = mesh.faces.to(device), view.to(device)
        picture = shade(rasterize(verts, faces, eyes), mesh.verts.to(device))
        total = picture.square().sum() + soft_silhouette(verts, faces, eyes).square().sum()
        grads.append(torch.autograd.grad(total, verts)[0].cpu())
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-8)


def test_bad_input():
    verts, faces = torch.zeros(4, 3), torch.tensor([[0, 1, 2]])
    with pytest.raises(TypeError, match="view: expected a camera or a tuple"):
        rasterize(verts, faces, 64)
    with pytest.raises(ValueError, match=r"faces: expected indices in \[0, 3\]"):
        rasterize(verts, faces + 2, (8, 8))
    with pytest.raises(ValueError, match="verts: expected finite numbers"):
        rasterize(verts + torch.nan, faces, (8, 8))
    with pytest.raises(TypeError, match="verts, faces: expected two tensors, or two lists"):
        rasterize([verts], faces, (8, 8))
    with pytest.raises(ValueError, match="faces: expected one tensor for each of 2 verts"):
        rasterize([verts, verts], [faces], (8, 8))
    with pytest.raises(ValueError, match="backend: expected one of"):
        rasterize(verts, faces, (8, 8), backend="opengl")
    with pytest.raises(ValueError, match="backend: 'numba' runs on the CPU, verts are on cuda"):
        load_backend("numba", torch.device("cuda"))
    assert load_backend(None, torch.device("cuda")).__name__.endswith("_torch")
    views = weak_view(torch.tensor([[0.0, 1.0, 1.0]]).expand(3, 3), (8, 8))
    with pytest.raises(ValueError, match=r"view: expected batch \(2,\)"):
        rasterize([verts, verts], [faces, faces], views)
    with pytest.raises(ValueError, match="near: expected a positive depth"):
        rasterize(verts, faces, pinhole_view(torch.tensor([0.0, 1.0, 1.0]), (8, 8)), near=0.0)
