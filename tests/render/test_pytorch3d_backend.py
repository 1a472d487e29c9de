"""The bridge to pytorch3d's rasterizer, against a stand-in that follows its documented conventions.

pytorch3d has no build for the CPU on PyPI. What can go wrong here is the translation: NDC with x left and y up, the
shorter side [-1, 1], squared NDC distances, numbers of triangles over the whole batch. With the real one installed
(`pytorch3d._C`) the same comparisons run against it.
"""

from __future__ import annotations

import sys
import types

import pytest
import torch

from geoframe.camera import pinhole_view, weak_view
from geoframe.render import rasterize, soft_silhouette
from geoframe.surface.shapes import icosphere, torus


class _Meshes:
    def __init__(self, verts, faces):
        self.triangles = [v[f] for v, f in zip(verts, faces, strict=True)]


def _rasterize_meshes(
    meshes, *, image_size, faces_per_pixel, blur_radius=0.0, perspective_correct=False, max_faces_per_bin
):
    H, W = image_size
    half = min(H, W) / 2
    y, x = torch.meshgrid(
        (H / 2 - torch.arange(H) - 0.5) / half, (W / 2 - torch.arange(W) - 0.5) / half, indexing="ij"
    )
    q = torch.stack([x, y], -1)[:, :, None]
    owners, depths, distances, first = [], [], [], 0
    for p in meshes.triangles:
        assert len(p) <= max_faces_per_bin and (p[..., 2] > 0).all()
        r, edge = q[..., None, :] - p[..., :2], (p.roll(-1, 1) - p)[..., :2]
        cross = edge[..., 0] * r[..., 1] - edge[..., 1] * r[..., 0]
        t = ((r * edge).sum(-1) / edge.square().sum(-1).clamp_min(1e-12)).clamp(0, 1)
        d = (r - t[..., None] * edge).square().sum(-1).amin(-1)
        inside = (cross > 0).all(-1) | (cross < 0).all(-1)
        b = cross.roll(-1, -1) / cross.sum(-1, keepdim=True)
        z = 1 / (b / p[..., 2]).sum(-1) if perspective_correct else (b * p[..., 2]).sum(-1)
        area = cross.sum(-1).abs() > 1e-8
        kept = (inside | (d < blur_radius)) & area
        order = torch.where(kept, z, torch.inf).argsort(-1)[..., :faces_per_pixel]
        owner = torch.where(kept, torch.arange(len(p)) + first, -1).gather(-1, order)
        owners.append(owner)
        distances.append(torch.where(owner >= 0, torch.where(inside, -d, d).gather(-1, order), -1.0))
        depths.append(z.gather(-1, order))
        first += len(p)
    return torch.stack(owners), torch.stack(depths), None, torch.stack(distances)


@pytest.fixture
def pytorch3d(monkeypatch):
    try:
        from pytorch3d import _C as _C
    except ImportError:
        for name in ("pytorch3d", "pytorch3d.renderer", "pytorch3d.structures"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["pytorch3d.renderer"].rasterize_meshes = _rasterize_meshes
        sys.modules["pytorch3d.structures"].Meshes = _Meshes


@pytest.mark.usefixtures("pytorch3d")
@pytest.mark.parametrize("size", [(18, 24), (24, 18)])
def test_the_same_pictures(size):
    mesh = torus(n_around=10, n_tube=6).to(torch.float32)
    verts = torch.stack([mesh.verts, mesh.verts * 0.8]) + 0.01
    eye = torch.tensor([0.7, 1.1, 2.3])
    for view in (pinhole_view(eye, size, fov=60.0), weak_view(eye, size, extent=1.6)):
        ours = rasterize(verts, mesh.faces, view, backend="torch")
        theirs = rasterize(verts, mesh.faces, view, backend="pytorch3d")
        assert torch.equal(ours.face_id, theirs.face_id) and ours.mask.sum() > 100
        torch.testing.assert_close(ours.depth, theirs.depth)
        torch.testing.assert_close(ours.barycentric, theirs.barycentric)
        grads = []
        for backend in ("torch", "pytorch3d"):
            moving = verts.clone().requires_grad_()
            alpha = soft_silhouette(moving, mesh.faces, view, sigma=1e-3, backend=backend)
            grads.append((alpha.detach(), *torch.autograd.grad(alpha.square().sum(), moving)))
        torch.testing.assert_close(grads[0][0], grads[1][0], rtol=0, atol=2e-5)
        torch.testing.assert_close(grads[0][1], grads[1][1], rtol=1e-3, atol=1e-3)


def test_it_says_how_to_install():
    if "pytorch3d" in sys.modules:
        pytest.skip("pytorch3d is loaded")
    try:
        import pytorch3d  # noqa: F401
    except ImportError:
        mesh = icosphere(0)
        with pytest.raises(
            ImportError, match=r"pytorch3d.renderer is needed here .*install 'geoframe\[pytorch3d\]"
        ):
            rasterize(mesh.verts, mesh.faces, weak_view(mesh.verts[0], (8, 8)), backend="pytorch3d")
