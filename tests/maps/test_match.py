"""The one call, on shapes with a known map and on the real animals."""

import functools
import importlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe import zoo
from geoframe.canonical import Surface
from geoframe.maps import coverage, dirichlet_energy, geodesic_error, match, match_both_ways
from geoframe.maps.search import begun
from geoframe.maps.starts import Pair
from geoframe.surface import load
from geoframe.surface.mesh import Mesh, PointCloud
from geoframe.surface.sampling import spread_vertices
from geoframe.transforms import random_rotations


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
    assert found.energies["cycle_error"] == 0 and found.energies["coverage"] == pytest.approx(1)
    assert found.energies["flipped_triangles"] == 0
    assert found.confidence > 0.9 and found.verdict == "good"
    assert {c["start"] for c in found.candidates} == {"landmarks", "descriptors"}
    assert found.energies["distortion"] < 0.015 and found.settings["refinement"] == "all functions"
    assert steps == sorted(steps) and steps[-1] == 1


def test_the_slow_start_is_tried_where_the_others_are_not_settled(pair):
    """From landmarks in the wrong places, the other starts change distances much."""
    mesh1, mesh2, order = pair
    at = torch.tensor([0, 100, 300, 500])
    found = match(mesh1, mesh2, torch.stack([order[at], at.flip(0)], 1), k=30)
    assert {c["start"] for c in found.candidates} == {"landmarks", "descriptors", "oriented"}


@pytest.mark.parametrize(
    ("sure", "marks", "differ", "n"),
    [(0.0, 4, False, 2), (0.0, 12, True, 2), (0.0, 12, False, 1), (1.0, 4, True, 1)],
)
def test_where_a_map_from_landmarks_is_doubted_the_next_start_is_refined_if_it_may_be_another_map(
    pair, monkeypatch, sure, marks, differ, n
):
    mesh1, mesh2, order = pair
    monkeypatch.setattr(Pair, "differ", lambda *_: differ)
    module, starts = importlib.import_module("geoframe.maps.search"), []
    refined = module.refined
    monkeypatch.setattr(module, "confidence", lambda measures: sure)
    monkeypatch.setattr(module, "refined", lambda *a: (starts.append(a[1].start), refined(*a))[1])
    at = torch.tensor([0, 100, 300, 500]) if marks == 4 else spread_vertices(mesh2, marks)
    found = match(mesh1, mesh2, torch.stack([order[at], at], 1), k=30)
    assert starts == [c["start"] for c in found.candidates][:n]
    assert (found.p2p_21 == order).double().mean() > 0.9 and found.confidence == sure


@pytest.mark.parametrize(("marks", "names"), [(7, ["oriented"]), (12, [])])
def test_from_twelve_landmarks_on_the_slow_start_is_left_out(pair, marks, names):
    one, two = (Surface.of(m) for m in pair[:2])
    at = spread_vertices(two, marks)
    more = begun(Pair.of(one, two, 30), torch.stack([pair[2][at], at], 1))[2]
    assert [s.name for s in more()] == names


@pytest.mark.parametrize(("k", "flipped", "alone"), [(150, 0.0, True), (60, 0.0, False), (150, 1.0, False)])
def test_where_all_functions_change_distances_little_nothing_else_is_tried(
    pair, monkeypatch, k, flipped, alone
):
    """With few of them, or where the map is a mirror image, bent maps are compared with it."""
    module, how = importlib.import_module("geoframe.maps.refine"), []
    monkeypatch.setattr(module, "flipped_triangles", lambda *_: flipped)
    search = importlib.import_module("geoframe.maps.search")
    judged = search.judged
    monkeypatch.setattr(search, "judged", lambda *a: (how.extend(m.how for m in a[1]), judged(*a))[1])
    mesh1, mesh2, order = pair
    at = torch.tensor([0, 100, 300, 500])
    found = match(mesh1, mesh2, torch.stack([order[at], at], 1), k=k)
    assert torch.equal(found.p2p_21, order)
    assert (set(how) == {"all functions"}) == alone and "all functions" in how


def test_a_landmark_in_the_wrong_place_is_told_and_not_believed(pair):
    mesh1, mesh2, order = pair
    at = spread_vertices(mesh2, 9)
    given = torch.stack([order[at], at], 1)
    given[4, 0] = torch.cdist(mesh1.verts[given[4, :1]], mesh1.verts).argmax()
    found = match(mesh1, mesh2, given, k=60)
    told = [w for w in found.warnings if w.startswith("landmark ")]
    assert len(told) == 1 and told[0].startswith(f"landmark {int(given[4, 0])} {int(given[4, 1])} lies")
    assert (found.p2p_21 == order).double().mean() > 0.99


@pytest.mark.parametrize("given", [True, False])
def test_both_ways_are_the_match_and_one_with_the_surfaces_exchanged(pair, given):
    mesh1, mesh2, order = pair
    at = torch.tensor([0, 100, 300, 500])
    marks = torch.stack([order[at], at], 1) if given else None
    there, back = match_both_ways(mesh1, mesh2, marks, k=60)
    one = match(mesh1, mesh2, marks, k=60)
    assert torch.equal(there.p2p_21, one.p2p_21) and there.energies == one.energies
    assert there.warnings == one.warnings and there.settings == one.settings
    assert back.p2p_21.shape == (mesh1.n_verts,) and back.p2p_12.shape == (mesh2.n_verts,)
    assert (order[back.p2p_21] == torch.arange(mesh1.n_verts)).double().mean() > 0.9
    assert back.energies["dirichlet"] == pytest.approx(dirichlet_energy(mesh2, mesh1, back.p2p_21))
    assert back.energies["distortion"] == pytest.approx(one.energies["distortion"], rel=0.2)
    assert torch.equal(back.basis1.vals, there.basis2.vals) and back.verdict == "good"
    if given:
        assert torch.equal(back.landmarks, marks.flip(1))


def test_what_was_done_to_a_surface_is_told_of_the_right_one_both_ways(pair):
    mesh1, mesh2, _ = pair
    far = Mesh(torch.cat([mesh2.verts, mesh2.verts[:1]]), mesh2.faces)  # a vertex in no face
    there, back = match_both_ways(mesh1, far, k=30)
    assert any(w.startswith("surface 2 has 1 vertices in no face") for w in there.warnings)
    assert any(w.startswith("surface 1 has 1 vertices in no face") for w in back.warnings)


def test_finds_the_map_without_landmarks(pair):
    mesh1, mesh2, order = pair
    found = match(mesh1, mesh2, k=60)
    assert torch.equal(found.p2p_21, order)
    assert found.confidence > 0.9
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
    assert free.energies["flipped_triangles"] == 1
    bound = match(mesh1, mirror, k=60)
    assert bound.energies["flipped_triangles"] < 0.5


@functools.cache
def _two_cats():
    """Two individuals in two poses, 700 vertices each, and for each vertex of the second its place on the first."""
    a, b = zoo.animal("cat", 700, seed=1, pose=1), zoo.animal("cat", 700, seed=2, pose=5)
    return a, b, zoo.correspondence(a, b).p2p_21


def _cats(names, *, k=None, inside_out=False, scale=1.0, dtype=torch.int64, extra=0):
    """Error and match of the two cats, the second changed as asked for."""
    a, b, truth = _two_cats()
    landmarks = torch.tensor([(a.landmarks[n], b.landmarks[n]) for n in names], dtype=dtype)
    verts = torch.cat([scale * b.mesh.verts, torch.zeros(extra, 3).double()])
    mesh2 = Mesh(verts, b.mesh.faces.flip(1) if inside_out else b.mesh.faces)
    found = match(a.mesh, mesh2, landmarks, k=k)
    error = geodesic_error(a.mesh, found.p2p_21[: len(truth)], truth, method="dijkstra").mean()
    return float(error), found


FIVE = ("nose", "rump", "left_front_paw", "right_hind_paw", "left_ear")


@functools.cache
def _plainly():
    """Error and match of the two cats from five landmarks."""
    return _cats(FIVE, k=60)


@pytest.mark.parametrize("inside_out", [False, True])
def test_landmarks_on_the_plane_of_symmetry_are_enough(inside_out):
    """They do not tell left from right; the orientation does, even if one surface is inside out."""
    error, found = _cats(("nose", "rump", "chest"), inside_out=inside_out, k=60)
    assert error < 0.03
    assert found.candidates[0]["start"] == "oriented"


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_motion_size_and_order_do_not_matter(size):
    """The second surface turned, moved, larger or smaller, with its vertices in another order: the same map."""
    a, b, _ = _two_cats()
    landmarks = torch.tensor([(a.landmarks[n], b.landmarks[n]) for n in FIVE])
    plain = _plainly()[1]
    g = torch.Generator().manual_seed(1)
    R = random_rotations(1, generator=g, dtype=torch.float64)[0]
    order = torch.randperm(b.mesh.n_verts, generator=g)
    number = torch.argsort(order)
    mesh2 = Mesh(size * (b.mesh.verts @ R.T + 1.0)[order], number[b.mesh.faces])
    found = match(a.mesh, mesh2, torch.stack([landmarks[:, 0], number[landmarks[:, 1]]], 1), k=60)
    assert float((found.p2p_21 == plain.p2p_21[order]).double().mean()) > 0.99
    assert found.confidence == pytest.approx(plain.confidence, abs=0.01)


def test_a_cloud_of_points_is_matched_by_triangles_between_neighbours(pair):
    mesh1, mesh2, order = pair
    at = torch.tensor([0, 100, 300, 500])
    found = match(mesh1, PointCloud(mesh2.verts), torch.stack([order[at], at], 1), k=60)
    assert "surface 2 is a cloud of points" in found.warnings[0] and found.verdict == "good"
    assert float(geodesic_error(mesh1, found.p2p_21, order, method="dijkstra").mean()) < 0.01


def test_units_do_not_matter_and_a_landmark_counts_once():
    error, found = _plainly()
    assert error < 0.03
    other = _cats((*FIVE, "nose"), k=60, scale=1e5, dtype=torch.int16)[1]
    assert float((found.p2p_21 == other.p2p_21).double().mean()) > 0.99
    for name, value in found.energies.items():
        assert other.energies[name] == pytest.approx(value, rel=0.02, abs=1e-3), name


def test_vertices_without_faces_and_other_parts_do_not_spoil_it():
    error, found = _cats(FIVE, extra=400)
    assert error < 0.03 and found.settings["k"] == 233  # a third of the vertices that have faces
    assert math.isfinite(found.energies["cycle_error"])


def test_float32_follows_the_input(pair):
    mesh1, mesh2, order = (x.float() if isinstance(x, torch.Tensor) else x.to(torch.float32) for x in pair)
    at = torch.tensor([0, 100, 300, 500])
    found = match(mesh1, mesh2, torch.stack([order.long()[at], at], 1), k=40)
    assert found.C_12.dtype == torch.float32
    assert (found.p2p_21 == order.long()).double().mean() > 0.95


def test_bad_input(pair):
    mesh1, mesh2, _ = pair
    one = torch.zeros(1, 2, dtype=torch.int64)
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    small = Mesh(torch.cat([torch.zeros(1, 3), torch.eye(3)]).double(), faces)
    with pytest.raises(ValueError, match="expected at least 9 vertices with faces to match, found 4"):
        match(small, small, one)
    with pytest.raises(TypeError, match="mesh2: expected a Mesh or a PointCloud, found Tensor"):
        match(mesh1, mesh2.verts, one)
    with pytest.raises(ValueError, match="precise: expected triangles on surface 1, found a cloud"):
        match(PointCloud(mesh1.verts), mesh2, one, precise=True)
    with pytest.raises(ValueError, match="mesh1: expected one pose"):
        match(mesh1.with_verts(mesh1.verts[None]), mesh2, one)
    with pytest.raises(ValueError, match=r"mesh2: expected torch\.float64 on cpu, found torch\.float32"):
        match(mesh1, mesh2.to(torch.float32), one)
    with pytest.raises(ValueError, match="landmarks: expected at least 1 pair"):
        match(mesh1, mesh2, one[:0], k=20)
    with pytest.raises(ValueError, match="k: expected at most 642"):
        match(mesh1, mesh2, one, k=1000)


@pytest.mark.skipif("GEOFRAME_DATA" not in os.environ, reason="GEOFRAME_DATA is not set: no real animals")
@pytest.mark.long
def test_cat_to_lion():
    """The figures of the README, each within the bound that the project set itself."""
    folder = Path(os.environ["GEOFRAME_DATA"]) / "animals" / "cat_lion"
    cat, lion = load(folder / "cat-00.off"), load(folder / "lion-00.off")
    landmarks = torch.as_tensor(np.loadtxt(folder / "landmarks.txt", dtype=np.int64))[:13]
    markers = torch.as_tensor(np.loadtxt(folder / "markers_55.txt", dtype=np.int64))
    found = match(cat, lion, landmarks)
    assert float(geodesic_error(cat, found.p2p_21, markers).mean()) <= 0.020
    assert coverage(cat, found.p2p_21) >= 0.50
    assert found.energies["dirichlet"] <= 4
    assert found.energies["cycle_error"] <= 0.02
    assert found.settings["refinement"] in ("bent", "landmark coordinates")
