"""PCD files: every way to store them gives the same points; broken ones are told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe.data import load_cloud
from geoframe.surface import PointCloud, load, save
from geoframe.surface._pcd import read_pcd, unpack_lzf
from geoframe.surface.shapes import tetrahedron

_HEAD = """# .PCD v0.7
VERSION 0.7
FIELDS x y intensity z
SIZE 4 4 1 4
TYPE F F U F
COUNT 1 1 2 1
WIDTH 3
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 3
DATA {}
"""
_POINTS = np.array([[1.5, -2, 3], [0, 0.25, 1e3], [4, 5, 6]], np.float32)


def _body(way):
    form = np.dtype([("x", "<f4"), ("y", "<f4"), ("i", "u1", 2), ("z", "<f4")])
    table = np.zeros(3, form)
    for k, column in zip("xyz", _POINTS.T, strict=True):
        table[k] = column
    if way == "ascii":
        return "\n".join(f"{x} {y} 7 8 {z}" for x, y, z in _POINTS.tolist()).encode()
    if way == "binary":
        return table.tobytes()
    plain = b"".join(np.ascontiguousarray(table[k]).tobytes() for k in ("x", "y", "i", "z"))
    packed = b"".join(
        bytes([len(part) - 1]) + part for part in (plain[i : i + 32] for i in range(0, len(plain), 32))
    )
    return np.array([len(packed), len(plain)], "<u4").tobytes() + packed


@pytest.mark.parametrize("way", ["ascii", "binary", "binary_compressed"])
def test_all_ways_to_store_points_give_the_same(tmp_path, way):
    file = tmp_path / "scan.pcd"
    file.write_bytes(_HEAD.format(way).encode() + _body(way))
    found = load(file)
    assert isinstance(found, PointCloud)
    np.testing.assert_array_equal(found.points.numpy(), _POINTS)


def test_lzf_repeats_what_it_has_made():
    assert unpack_lzf(bytes([1, 65, 66, (4 << 5) | 0, 1]), 8) == b"ABABABAB"  # 6 bytes from two back
    assert unpack_lzf(bytes([0, 65, (7 << 5) | 0, 3, 0]), 13) == b"A" * 13
    for broken in (bytes([1, 65]), bytes([(1 << 5), 9])):
        with pytest.raises(ValueError, match="broken"):
            unpack_lzf(broken, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_written_cloud_reads_back_the_same(tmp_path, dtype):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(50, 3, generator=generator, dtype=dtype) * 1e5
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator, dtype=dtype), dim=1)
    colors = torch.randint(256, (50, 3), generator=generator).to(dtype) / 255
    save(PointCloud(points, normals, colors), tmp_path / "c.pcd")
    again = load(tmp_path / "c.pcd", dtype=dtype)
    assert torch.equal(again.points, points) and torch.equal(again.normals, normals)
    torch.testing.assert_close(again.colors, colors)


def test_points_that_a_sensor_did_not_see_are_left_out(tmp_path):
    points = torch.rand(60, 3).double()
    points[::3] = float("nan")
    save(PointCloud(points), tmp_path / "c.pcd")
    cloud = load_cloud(tmp_path / "c.pcd", n_points=40)
    assert bool(cloud.isfinite().all()) and len(cloud.unique(dim=0)) == 40


def test_broken_files_and_meshes_are_told(tmp_path):
    whole = _HEAD.format("binary").encode() + _body("binary")
    for data, told in (
        (b"VERSION 0.7\n", "no line DATA"),
        (_HEAD.format("binary").replace("FIELDS x y intensity z\n", "").encode(), "no line FIELDS"),
        (_HEAD.format("binary").replace(" z\n", " w\n").encode(), "no field z"),
        (_HEAD.format("binary").replace("TYPE F", "TYPE Q").encode(), "TYPE Q"),
        (_HEAD.format("zip").encode(), "none of ascii"),
        (whole[:-5], "bytes of points"),
        (_HEAD.format("ascii").encode() + b"1 2 3\n", "lines of 5 numbers"),
        (_HEAD.format("ascii").encode() + b"a b c d e\n" * 3, "else than numbers"),
        (_HEAD.format("binary_compressed").encode() + b"1234", "sizes of the compressed"),
    ):
        with pytest.raises(ValueError, match=told):
            read_pcd(data)
    with pytest.raises(ValueError, match="which has no faces"):
        save(tetrahedron(), tmp_path / "m.pcd")
