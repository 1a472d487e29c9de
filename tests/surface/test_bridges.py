"""Round trips through other libraries' classes: nothing moves, nothing is renumbered.

pytorch3d has no CPU wheel; its structures import from the CUDA wheel put beside the environment:
``pip install --no-deps --target DIR easypytorch3d iopath portalocker`` and then PYTHONPATH=DIR pytest.
"""

from __future__ import annotations

import pytest
import torch

from geoframe.surface import (
    Mesh,
    PointCloud,
    from_pytorch3d,
    from_torch_geometric,
    from_trimesh,
    to_pytorch3d,
    to_torch_geometric,
    to_trimesh,
)


def mesh(dtype: torch.dtype = torch.float64, seam: bool = False) -> Mesh:
    """Seven vertices, the first unreferenced, the last a twin of the one before."""
    g = torch.Generator().manual_seed(0)
    verts = torch.randn(7, 3, generator=g, dtype=dtype)
    verts[6] = verts[5]
    faces = torch.tensor([[1, 2, 3], [3, 2, 4], [4, 2, 5], [3, 4, 6]])
    colors = (torch.rand(7, 3, generator=g) * 255).round().to(dtype) / 255
    uv = torch.rand(9 if seam else 7, 2, generator=g, dtype=dtype)
    return Mesh(
        verts, faces, colors, uv, torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 1, 2]]) if seam else None
    )


def cloud(dtype: torch.dtype = torch.float64) -> PointCloud:
    g = torch.Generator().manual_seed(0)
    points, normals = torch.randn(2, 6, 3, generator=g, dtype=dtype)
    return PointCloud(points, normals, (torch.rand(6, 4, generator=g) * 255).round().to(dtype) / 255)


def same(a: torch.Tensor | None, b: torch.Tensor | None, tol: float = 0.0) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a - b).abs() <= tol).all())


def test_trimesh_round_trip() -> None:
    m = mesh()
    t = to_trimesh(m)
    assert t.vertices.shape == (7, 3) and t.faces.tolist() == m.faces.tolist()
    back = from_trimesh(t)
    assert isinstance(back, Mesh)
    assert same(back.verts, m.verts) and same(back.faces, m.faces)
    assert same(back.uv, m.uv) and same(back.colors, m.colors, 1e-12)
    plain = from_trimesh(to_trimesh(Mesh(m.verts, m.faces, m.colors)), dtype=torch.float32)
    assert isinstance(plain, Mesh) and plain.uv is None and same(plain.verts, m.verts.float())
    assert same(plain.colors, m.colors.float(), 1e-6) if m.colors is not None else False
    bare = from_trimesh(to_trimesh(Mesh(m.verts, m.faces)))
    assert isinstance(bare, Mesh) and bare.colors is None and bare.uv is None
    assert from_trimesh(to_trimesh(mesh(seam=True))).uv is None  # type: ignore[union-attr]


def test_trimesh_cloud_round_trip() -> None:
    c = cloud()
    back = from_trimesh(to_trimesh(c))
    assert isinstance(back, PointCloud) and back.normals is None
    assert same(back.points, c.points) and same(back.colors, c.colors, 1e-12)


def test_from_trimesh_does_not_share_memory() -> None:
    t = to_trimesh(mesh())
    back = from_trimesh(t)
    t.vertices[0] = 9
    assert isinstance(back, Mesh) and (back.verts[0] != 9).all()


@pytest.mark.parametrize("seam", [False, True])
def test_torch_geometric_round_trip(seam: bool) -> None:
    m = mesh(torch.float32, seam)
    data = to_torch_geometric(m)
    assert data.face.shape == (3, 4) and data.num_nodes == 7
    back = from_torch_geometric(data)
    assert isinstance(back, Mesh)
    assert all(same(getattr(back, k), getattr(m, k)) for k in ("verts", "faces", "colors", "uv", "uv_faces"))
    c = cloud(torch.float32)
    again = from_torch_geometric(to_torch_geometric(c))
    assert isinstance(again, PointCloud)
    assert all(same(getattr(again, k), getattr(c, k)) for k in ("points", "normals", "colors"))


def test_torch_geometric_transforms_read_ours() -> None:
    from torch_geometric.transforms import FaceToEdge

    data = FaceToEdge(remove_faces=False)(to_torch_geometric(mesh()))
    assert data.edge_index.shape == (2, 2 * 9)


def test_wrong_inputs() -> None:
    from torch_geometric.data import Batch, Data

    batch = mesh().with_verts(mesh().verts.expand(2, 7, 3))
    for convert in (to_trimesh, to_torch_geometric):
        with pytest.raises(ValueError, match=r"expected one pose \(V, 3\), found \(2, 7, 3\)"):
            convert(batch)
        with pytest.raises(TypeError, match="expected a Mesh or PointCloud, found list"):
            convert([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"found Scene; for a Scene pass scene.to_mesh"):
        from_trimesh(to_trimesh(mesh()).scene())
    with pytest.raises(TypeError, match=r"expected torch_geometric.data.Data, found dict"):
        from_torch_geometric({})
    with pytest.raises(ValueError, match="found a Batch"):
        from_torch_geometric(Batch.from_data_list([to_torch_geometric(mesh())] * 2))
    with pytest.raises(ValueError, match=r"positions in data.pos"):
        from_torch_geometric(Data(x=torch.zeros(3, 1)))


def test_pytorch3d_meshes() -> None:
    structures = pytest.importorskip("pytorch3d.structures", reason="pytorch3d is not installed")
    m = mesh(torch.float32)
    verts = torch.stack([m.verts, 2 * m.verts, -m.verts]).requires_grad_()
    meshes = to_pytorch3d(m.with_verts(verts))
    assert isinstance(meshes, structures.Meshes) and len(meshes) == 3
    assert torch.equal(meshes.verts_padded(), verts) and torch.equal(meshes.faces_padded()[2], m.faces)
    # each doubled face has four times the area: pytorch3d reads our orientation and order as we do
    ours = m.with_verts(verts.detach())
    normals = torch.nn.functional.normalize(ours.face_normals_scaled[1], dim=-1)
    v = meshes.verts_list()[1][meshes.faces_list()[1]]
    theirs = torch.nn.functional.normalize(torch.linalg.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0]), dim=-1)
    assert torch.allclose(normals, theirs, atol=1e-6)
    back = from_pytorch3d(meshes)
    assert isinstance(back, Mesh) and torch.equal(back.verts, verts) and torch.equal(back.faces, m.faces)
    back.verts.sum().backward()
    assert verts.grad is not None and (verts.grad == 1).all()
    single = from_pytorch3d(to_pytorch3d(m))
    assert isinstance(single, Mesh) and torch.equal(single.verts, m.verts)
    with pytest.raises(ValueError, match="differ in faces"):
        from_pytorch3d(structures.Meshes([m.verts, m.verts], [m.faces, m.faces[:2]]))
    with pytest.raises(TypeError, match="expected pytorch3d Meshes or Pointclouds, found Mesh"):
        from_pytorch3d(m)
    with pytest.raises(TypeError, match="expected a Mesh or PointCloud, found list"):
        to_pytorch3d([])  # type: ignore[arg-type]


def test_pytorch3d_clouds() -> None:
    structures = pytest.importorskip("pytorch3d.structures", reason="pytorch3d is not installed")
    c = cloud(torch.float32)
    back = from_pytorch3d(to_pytorch3d(c))
    assert isinstance(back, PointCloud)
    assert all(same(getattr(back, k), getattr(c, k)) for k in ("points", "normals", "colors"))
    two = PointCloud(torch.stack([c.points, -c.points]), None, c.colors)
    clouds = to_pytorch3d(two)
    assert isinstance(clouds, structures.Pointclouds) and len(clouds) == 2
    again = from_pytorch3d(clouds)
    assert isinstance(again, PointCloud) and same(again.points, two.points) and same(again.colors, c.colors)
    with pytest.raises(ValueError, match="differ in faces or size"):
        from_pytorch3d(structures.Pointclouds([c.points, c.points[:3]]))


def test_pytorch3d_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.setitem(sys.modules, "pytorch3d.structures", None)
    with pytest.raises(ImportError, match=r"pytorch3d.structures is needed here .* README"):
        to_pytorch3d(mesh())
