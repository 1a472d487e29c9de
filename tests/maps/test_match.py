"""The one call, on shapes with a known map and on the real animals."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe.maps import coverage, geodesic_error, match
from geoframe.surface import load
from geoframe.surface.mesh import Mesh, PointCloud


@pytest.fixture(scope="module")
def pair(bumpy):
    order = torch.randperm(bumpy.n_verts, generator=torch.Generator().manual_seed(0))
    return bumpy, Mesh(3 * bumpy.verts[order], torch.argsort(order)[bumpy.faces]), order


def test_finds_the_map_from_landmarks(pair):
    mesh1, mesh2, order = pair
    at = torch.tensor([0, 100, 300, 500])
    steps = []
    found = match(mesh1, mesh2, torch.stack([order[at], at], 1), k=60, progress=lambda s, d: steps.append(d))
    assert torch.equal(found.p2p_21, order)
    assert torch.equal(found.p2p_12, torch.argsort(order))
    assert found.energies["round_trip"] == 0 and found.energies["coverage"] == pytest.approx(1)
    assert found.energies["inverted_share"] == 0
    assert found.ambiguity is None
    assert [c["start"] for c in found.candidates] in (
        ["landmarks", "descriptors"],
        ["descriptors", "landmarks"],
    )
    assert found.energies["distortion"] < 1e-6 and found.settings["refinement"] == "all functions"
    assert steps == sorted(steps) and steps[-1] == 1


def test_finds_the_map_without_landmarks(pair):
    mesh1, mesh2, order = pair
    found = match(mesh1, mesh2, k=60)
    assert torch.equal(found.p2p_21, order)
    assert 0 <= found.ambiguity < 0.5
    assert [c["rank"] for c in found.candidates] == list(range(1, len(found.candidates) + 1))
    energies = [c["energy"] for c in found.candidates]
    assert energies == sorted(energies)


def test_a_mirror_image_is_matched_only_without_the_orientation_term(pair):
    """The reflected surface is isometric, inside out: with its faces kept outward the true map inverts them all."""
    mesh1, _, _ = pair
    mirror = Mesh(mesh1.verts * mesh1.verts.new_tensor([-1, 1, 1]), mesh1.faces.flip(1))
    same = torch.arange(mesh1.n_verts)
    free = match(mesh1, mirror, k=60, orientation=0.0)
    assert torch.equal(free.p2p_21, same)
    assert free.energies["inverted_share"] == 1
    bound = match(mesh1, mirror, k=60)
    assert bound.energies["inverted_share"] < 0.5


def test_float32_follows_the_input(pair):
    mesh1, mesh2, order = (x.float() if isinstance(x, torch.Tensor) else x.to(torch.float32) for x in pair)
    at = torch.tensor([0, 100, 300, 500])
    found = match(mesh1, mesh2, torch.stack([order.long()[at], at], 1), k=40)
    assert found.C_12.dtype == torch.float32
    assert (found.p2p_21 == order.long()).double().mean() > 0.95


def test_bad_input(pair):
    mesh1, mesh2, _ = pair
    one = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(TypeError, match="mesh2: expected a Mesh, found PointCloud"):
        match(mesh1, PointCloud(mesh2.verts), one)
    with pytest.raises(ValueError, match="mesh1: expected one pose"):
        match(mesh1.with_verts(mesh1.verts[None]), mesh2, one)
    with pytest.raises(ValueError, match=r"mesh2: expected torch\.float64 on cpu, found torch\.float32"):
        match(mesh1, mesh2.to(torch.float32), one)
    with pytest.raises(ValueError, match="landmarks: expected at least 1 pair"):
        match(mesh1, mesh2, one[:0], k=20)
    with pytest.raises(ValueError, match="k: expected at most 642"):
        match(mesh1, mesh2, one, k=1000)


@pytest.mark.skipif("GEOFRAME_DATA" not in os.environ, reason="GEOFRAME_DATA is not set: no real animals")
def test_cat_to_lion():
    """The figures of the README, each with the bound that the project set itself."""
    folder = Path(os.environ["GEOFRAME_DATA"]) / "animals" / "cat_lion"
    cat, lion = load(folder / "cat-00.off"), load(folder / "lion-00.off")
    landmarks = torch.as_tensor(np.loadtxt(folder / "landmarks.txt", dtype=np.int64))[:13]
    markers = torch.as_tensor(np.loadtxt(folder / "markers_55.txt", dtype=np.int64))
    found = match(cat, lion, landmarks)
    assert float(geodesic_error(cat, found.p2p_21, markers).mean()) <= 0.030
    assert coverage(cat, found.p2p_21) >= 0.50
    assert found.energies["dirichlet"] <= 4
    assert found.energies["round_trip"] <= 0.02
    assert found.settings["refinement"] == "landmark coordinates"
