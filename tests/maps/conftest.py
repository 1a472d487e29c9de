"""Surfaces that several tests of maps share."""

import pytest
import torch

from geoframe.surface.mesh import Mesh
from geoframe.surface.shapes import icosphere


@pytest.fixture(scope="package")
def bumpy() -> Mesh:
    """A surface without symmetry and without repeated eigenvalues."""
    mesh = icosphere(3)
    x, y, z = mesh.verts.double().unbind(-1)
    r = 1 + 0.2 * torch.sin(2 * x + 1) + 0.15 * y * z + 0.1 * torch.cos(3 * y + 0.5)
    stretch = torch.tensor([1.3, 1.0, 0.7], dtype=torch.float64)
    return Mesh(mesh.verts.double() * r[:, None] * stretch, mesh.faces)


@pytest.fixture(scope="package")
def cut(bumpy) -> tuple[Mesh, torch.Tensor]:
    """The same five times as large without the 30 % that lie farthest to one side, and the vertices that are left."""
    along = bumpy.verts[:, 0]
    faces = bumpy.faces[(along <= along.quantile(0.7))[bumpy.faces].all(1)]
    kept = torch.unique(faces)
    number = torch.full((bumpy.n_verts,), -1)
    number[kept] = torch.arange(len(kept))
    return Mesh(5 * bumpy.verts[kept], number[faces]), kept
