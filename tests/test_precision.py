"""Geometry leaves autocast and widens half precision: the decorator itself."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

import geoframe.camera
import geoframe.render
from geoframe._check import as_tensor
from geoframe._precision import full_precision, usual_precision
from geoframe.camera import pinhole_view
from geoframe.render import rasterize
from geoframe.surface import Mesh
from geoframe.surface.shapes import torus


@full_precision
def _product(a, b, *, rest=()):
    assert not torch.is_autocast_enabled("cpu")
    out = a @ b
    for r in rest:
        out = out + r
    return out


def test_autocast_stops_at_the_door():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 8, 8, generator=g)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ b).dtype == torch.bfloat16
        torch.testing.assert_close(_product(a, b), (a.double() @ b.double()).float())
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    a = torch.eye(3, dtype=half).requires_grad_()
    out = _product(a, b=torch.ones(3, 3), rest=[a.detach(), a.detach()])
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.ones(3, 3) + 2 * torch.eye(3))
    out.sum().backward()
    assert a.grad.dtype == half and (a.grad == 3).all()


def test_arrays_and_lists_at_the_door():
    x = torch.zeros(3)
    assert as_tensor(x, "x") is x
    array = np.arange(6.0).reshape(2, 3)[:, ::-1]
    array.flags.writeable = False
    assert as_tensor(array, "x").dtype == torch.float64
    assert as_tensor(array, "x").tolist() == array.tolist()
    assert as_tensor([[1, 2, 3]], "faces", like=x).dtype == torch.int64
    assert as_tensor([0.1, 2], "x", like=x.double()).tolist() == [0.1, 2.0]
    assert as_tensor(np.float32(2.5), "x", like=x.double()).dtype == torch.float64
    for bad in ("abc", [[1.0], [1.0, 2.0]], None, np.array(["a"])):
        with pytest.raises(TypeError, match="x: expected a tensor, a NumPy array or a list of numbers"):
            as_tensor(bad, "x")


MESH = torus(n_around=20, n_tube=10).to(torch.float32)
VIEW = pinhole_view(torch.tensor([1.0, 0.7, 2.2]), (20, 24), fov=60.0)
FRAGMENTS = rasterize(MESH.verts, MESH.faces, VIEW)
IMAGE = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
PLAIN = Mesh(MESH.verts, MESH.faces, uv=MESH.verts[:, :2] / 4 + 0.5)
SCREEN = VIEW.project(MESH.verts)
CALLS = {  # every public function of camera and render: arguments
    "box_around": (SCREEN,),
    "look_at": (torch.tensor([1.0, 0.7, 2.2]),),
    "pinhole_view": (torch.tensor([1.0, 0.7, 2.2]), (8, 8)),
    "weak_view": (torch.tensor([1.0, 0.7, 2.2]), (8, 8)),
    "mirrored": (VIEW, torch.tensor([0.6, 0.8, 0.0])),
    "from_opencv": (*geoframe.camera.to_opencv(VIEW), VIEW.size),
    "to_opencv": (VIEW,),
    "from_opengl": (*geoframe.camera.to_opengl(VIEW, near=0.1, far=9.0), VIEW.size),
    "to_opengl": (VIEW, {"near": 0.1, "far": 9.0}),
    "from_pytorch3d": (*geoframe.camera.to_pytorch3d(VIEW), VIEW.size),
    "to_pytorch3d": (VIEW,),
    "ndc_to_pixels": (MESH.verts, (8, 9)),
    "pixels_to_ndc": (SCREEN, (8, 9)),
    "pixels_to_normalised": (SCREEN[:, :2], (8, 9)),
    "normalised_to_pixels": (MESH.verts[:, :2], (8, 9)),
    "rasterize": (MESH.verts, MESH.faces, VIEW),
    "antialias": (FRAGMENTS, IMAGE),
    "shade": (FRAGMENTS, MESH.verts),
    "interpolate": (FRAGMENTS, MESH.faces, MESH.verts),
    "sample_image": (IMAGE, SCREEN[:, :2]),
    "image_texture": (FRAGMENTS, MESH.faces, SCREEN[:, :2], IMAGE),
    "uv_texture": (FRAGMENTS, MESH.faces, PLAIN.uv, IMAGE),
    "normal_map": (FRAGMENTS, MESH),
    "lambert": (IMAGE, torch.eye(3)),
    "paint": (FRAGMENTS, PLAIN, VIEW, {"texture": IMAGE}),
    "render": (PLAIN, VIEW, {"texture": IMAGE}),
    "soft_silhouette": (MESH.verts, MESH.faces, VIEW),
    "vertex_visibility": (FRAGMENTS, MESH.faces, SCREEN),
    "optical_flow": (FRAGMENTS, MESH.faces, MESH.verts * 1.01, VIEW),
}


def _tensors(x):
    """All tensors of a result."""
    if isinstance(x, torch.Tensor):
        return [x]
    if isinstance(x, tuple):
        return [t for y in x for t in _tensors(y)]
    fields = ("face_id", "barycentric", "depth", "alpha", "R_wc", "t", "scale", "focal", "principal")
    return [getattr(x, f) for f in fields if hasattr(x, f)]


@pytest.mark.parametrize("room", [geoframe.camera, geoframe.render], ids=["camera", "render"])
def test_every_public_function_leaves_autocast(room):
    functions = {n: f for n, f in vars(room).items() if inspect.isfunction(f)}
    assert functions.keys() <= CALLS.keys(), functions.keys() - CALLS.keys()
    for name, fn in functions.items():
        args = CALLS[name]
        options = args[-1] if isinstance(args[-1], dict) else {}
        args = args[:-1] if options else args
        expected = _tensors(fn(*args, **options))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = _tensors(fn(*args, **options))
        assert expected and len(got) == len(expected), name
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b), name


def test_cameras_leave_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = (
            VIEW.project(MESH.verts),
            VIEW.unproject(SCREEN),
            VIEW.rolled(20.0).t,
            VIEW.cropped([1.0, 2, 9, 9], (8, 8)).t,
        )
    expected = SCREEN, VIEW.unproject(SCREEN), VIEW.rolled(20.0).t, VIEW.t
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_vertices_are_drawn_in_float32(half):
    verts = MESH.verts.to(half).requires_grad_()
    fragments = rasterize(verts, MESH.faces, VIEW)
    assert fragments.depth.dtype == torch.float32
    assert torch.equal(fragments.face_id, rasterize(verts.detach().float(), MESH.faces, VIEW).face_id)
    geoframe.render.soft_silhouette(verts, MESH.faces, VIEW).sum().backward()
    assert verts.grad.dtype == half and verts.grad.isfinite().all()


@pytest.mark.parametrize(
    ("told", "accelerator", "want"),
    [
        ({"avx512_bf16": True}, "cpu", "bf16-mixed"),
        ({"amx_bf16": True}, "cpu", "bf16-mixed"),
        ({"avx512_bf16": False, "amx_bf16": False}, "cpu", "32-true"),
        ({}, "cpu", "32-true"),
        ({"avx512_bf16": True}, "cuda", "32-true"),
    ],
)
def test_networks_learn_in_bfloat16_where_the_processor_has_it(told, accelerator, want, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert usual_precision(accelerator) == want
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert usual_precision("auto") == (
        "bf16-mixed" if told.get("avx512_bf16") or told.get("amx_bf16") else "32-true"
    )
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert usual_precision("auto") == "32-true"
