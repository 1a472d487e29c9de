"""Arrays and lists at the public door: the same result as with tensors, dtypes kept, one clear line for the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe._check import as_floats, as_tensor
from geoframe.nearest import nearest
from geoframe.spectral import Eigenbasis, eigenbasis, hks, wks
from geoframe.surface import (
    Mesh,
    PointCloud,
    check_landmarks,
    farthest_points,
    geodesic_distances,
    health,
    knn,
)
from geoframe.surface.shapes import icosphere


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint8])
def test_an_array_keeps_its_dtype_and_is_copied_once(dtype: type) -> None:
    x = np.arange(6).astype(dtype).reshape(2, 3)
    found = as_tensor(x, "x")
    assert found.numpy().dtype == dtype and found.tolist() == x.tolist()
    found[0, 0] = 77
    assert x[0, 0] == 0  # the caller's array is his own
    assert as_floats(x, "x").dtype == (torch.float32 if dtype is np.float32 else torch.float64)
    reversed_view = x[::-1, ::-1].astype(x.dtype.newbyteorder(">"))
    assert as_tensor(reversed_view, "x").tolist() == reversed_view.tolist()


def test_lists_tensors_and_what_holds_no_numbers() -> None:
    assert as_tensor([[1, 2], [3, 4]], "x").dtype == torch.int64
    assert as_tensor((1.0, 2), "x").dtype == torch.float64
    t = torch.ones(3, requires_grad=True)
    assert as_tensor(t, "x") is t and as_floats(t, "x") is t  # gradients flow through
    with pytest.raises(
        TypeError, match=r"verts: expected .* list of numbers, found list; its rows differ in length"
    ):
        as_tensor([[1.0, 2], [3.0]], "verts")
    for bad in ("cat", None, {"a": 1}, [["a", "b"]], object()):
        with pytest.raises(TypeError, match=rf"verts: expected .* found {type(bad).__name__}"):
            as_tensor(bad, "verts")
    with pytest.raises(TypeError, match=r"verts: expected a floating dtype, found torch.int64"):
        as_floats(torch.tensor([1]), "verts")
    with pytest.raises(TypeError, match=r"verts: expected a floating dtype, found torch.complex128"):
        as_floats([1j], "verts")


def test_surfaces_take_arrays_and_lists() -> None:
    sphere = icosphere(1)
    lists = Mesh(
        sphere.verts.tolist(), sphere.faces.tolist(), colors=np.ones((sphere.n_verts, 3), np.float32)
    )  # type: ignore[arg-type]
    arrays = Mesh(sphere.verts.numpy(), sphere.faces.numpy().astype(np.int32))  # type: ignore[arg-type]
    for mesh in (lists, arrays):
        assert torch.equal(mesh.verts, sphere.verts) and torch.equal(mesh.faces, sphere.faces)
        assert mesh.faces.dtype == torch.int64 and health(mesh).problems == []
    assert Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]).area == 0.5  # type: ignore[arg-type]
    assert torch.equal(lists.with_verts(2 * sphere.verts.numpy()).verts, 2 * sphere.verts)  # type: ignore[arg-type]
    cloud = PointCloud(sphere.verts.numpy().astype(np.float32), normals=sphere.verts.tolist())  # type: ignore[arg-type]
    assert cloud.dtype == torch.float32 and cloud.normals is not None
    with pytest.raises(TypeError, match="faces: expected an integer dtype"):
        Mesh(sphere.verts, sphere.verts.numpy()[:4])  # type: ignore[arg-type]


def test_functions_take_arrays_and_lists() -> None:
    """Each gives what it gives for tensors."""
    sphere = icosphere(1)
    x, y = sphere.verts, sphere.verts[:7] + 0.01
    for kind in (torch.Tensor.numpy, torch.Tensor.tolist):
        a, b = kind(x), kind(y)
        for ours, theirs in (
            (nearest(b, a, k=3), nearest(y, x, k=3)),
            (knn(b, a, 2), knn(y, x, 2)),
            ((farthest_points(a, 9),), (farthest_points(x, 9),)),
        ):
            assert all(torch.equal(u, v) for u, v in zip(ours, theirs, strict=True))
    basis = eigenbasis(sphere, 12, cache=False)
    again = Eigenbasis(basis.vals.numpy(), basis.vecs.numpy(), basis.mass.tolist())  # type: ignore[arg-type]
    assert torch.equal(again.mass, basis.mass)
    f = sphere.verts[:, 0]
    assert torch.equal(basis.project(f.numpy()), basis.project(f))  # type: ignore[arg-type]
    assert torch.equal(basis.lift(f[:12].tolist()), basis.lift(f[:12]))  # type: ignore[arg-type]
    times = [0.1, 0.2, 0.4]
    assert torch.equal(hks(basis, times), hks(basis, torch.tensor(times, dtype=torch.float64)))
    assert torch.equal(wks(basis, np.array(times)), wks(basis, torch.tensor(times, dtype=torch.float64)))  # type: ignore[arg-type]
    assert torch.equal(hks(basis, np.int64(5), landmarks=np.array([3, 1])), hks(basis, 5, landmarks=[3, 1]))  # type: ignore[arg-type]
    pairs = [[0, 1], [2, 3]]
    assert torch.equal(check_landmarks(np.array(pairs), 9, 9), check_landmarks(torch.tensor(pairs), 9, 9))
    assert torch.equal(geodesic_distances(sphere, np.array([1, 2])), geodesic_distances(sphere, [1, 2]))  # type: ignore[arg-type]
