"""Rows of the geodesic matrix, computed once each."""

from __future__ import annotations

import pytest
import torch

from geoframe import Mesh, Surface
from geoframe.canonical import GeodesicRows
from geoframe.surface import geodesic_distances
from geoframe.surface.shapes import icosphere


def test_rows_are_distances_over_the_root_of_the_area():
    mesh = icosphere(3, radius=5.0)
    rows = GeodesicRows(mesh)
    asked = torch.tensor([7, 3, 7, 100])
    true = geodesic_distances(mesh, asked) / mesh.area.sqrt()
    assert torch.allclose(rows.rows(asked).double(), true, atol=1e-6)
    assert len(rows) == 3
    assert torch.allclose(rows.rows(torch.tensor([100, 50, 3]))[0].double(), true[3], atol=1e-6)
    assert len(rows) == 4
    scaled = GeodesicRows(icosphere(3, radius=0.1))  # the unit does not matter
    assert torch.allclose(scaled.rows(asked), rows.rows(asked), atol=1e-5)
    half = GeodesicRows(mesh, dtype="float16").rows(asked)
    assert torch.allclose(half, rows.rows(asked), atol=1e-3)


def test_pairs_and_missing_ones():
    rows = GeodesicRows(icosphere(2))
    a, b = torch.tensor([0, 1, 0, 5]), torch.tensor([3, -1, 0, 9])
    found = rows.pairs(a, b)
    assert found[1] == torch.inf and found[2] == 0
    assert torch.allclose(found[[0, 3]], rows.rows(a)[[0, 3], b[[0, 3]]])


def test_another_component_is_at_infinity():
    ball = icosphere(1)
    two = Mesh(torch.cat([ball.verts, ball.verts + 5]), torch.cat([ball.faces, ball.faces + ball.n_verts]))
    assert GeodesicRows(two).rows(torch.tensor([0]))[0, ball.n_verts :].isinf().all()


def test_bad_rows_are_told():
    rows = GeodesicRows(Surface.of(icosphere(1)))
    with pytest.raises(ValueError, match="vertices: expected indices in"):
        rows.rows(torch.tensor([42]))
    with pytest.raises(ValueError, match="b: expected shape"):
        rows.pairs(torch.tensor([1]), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="dtype: expected one of"):
        GeodesicRows(icosphere(1), dtype="int8")
