"""What speaks for a map: exact on a surface and itself, opposite on its mirror image."""

import pytest
import torch

from geoframe import zoo
from geoframe.canonical import Surface
from geoframe.maps import GeodesicDistortion
from geoframe.maps.evidence import FAR, Evidence
from geoframe.surface.mesh import Mesh


@pytest.fixture(scope="module")
def cat():
    return zoo.animal("cat", 700, seed=1, pose=1)


def _evidence(one: Mesh, two: Mesh) -> Evidence:
    surfaces = Surface.of(one), Surface.of(two)
    return Evidence.of(*surfaces, GeodesicDistortion(*surfaces, n=40))


def test_a_surface_is_like_itself_and_its_mirror_image_of_the_other_hand(cat):
    same = torch.arange(cat.mesh.n_verts)
    here = _evidence(cat.mesh, cat.mesh).measures(same, same)
    assert here["shape_correlation"] == pytest.approx(1, abs=1e-6)
    assert here["handedness_correlation"] == pytest.approx(1, abs=1e-6)
    assert here["named_landmark_error"] == 0
    assert here["distortion"] < here["distortion_spread"] < 0.04  # heat distances are not quite symmetric
    mirror = Mesh(cat.mesh.verts * cat.mesh.verts.new_tensor([1, 1, -1]), cat.mesh.faces.flip(1))
    there = _evidence(cat.mesh, mirror).measures(same, same)
    assert there["shape_correlation"] == pytest.approx(1, abs=1e-3)
    assert there["handedness_correlation"] == pytest.approx(-1, abs=1e-3)
    assert there["named_landmark_error"] > 0.05  # left and right are exchanged


def test_the_other_side_is_told_from_the_same_side(cat):
    """The left-right flip of a symmetric animal changes no distance; only handedness and the names tell."""
    rest = zoo.animal("cat", 700)
    evidence = _evidence(rest.mesh, rest.mesh)
    found = evidence.measures(rest.symmetry, rest.symmetry)
    assert found["distortion"] < 0.03 and found["shape_correlation"] > 0.99
    assert found["handedness_correlation"] < -0.99 and 0.05 < found["named_landmark_error"] <= FAR


def test_spread_is_the_root_mean_square_of_the_changes(bumpy):
    other = torch.roll(torch.arange(bumpy.n_verts), 7)
    distortion = GeodesicDistortion(bumpy, bumpy, n=30)
    mean, spread = distortion.mean_and_spread(other, other)
    assert mean == distortion(other, other) and spread > mean > 0


def test_what_is_no_animal_has_no_named_landmarks(bumpy):
    same = torch.arange(bumpy.n_verts)
    assert "named_landmark_error" not in _evidence(bumpy, bumpy).measures(same, same)
