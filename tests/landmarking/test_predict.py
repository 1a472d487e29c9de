"""Landmarks of animals nobody trained on: where they are, what changes them and what must not, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geoframe import zoo
from geoframe.canonical.surface import Surface
from geoframe.landmarking import NamedLandmarks, predict_landmarks
from geoframe.landmarking.predict import WEIGHTS, without_noise
from geoframe.landmarking.sides import other
from geoframe.surface import Mesh, load
from geoframe.surface.shapes import box, grid, icosphere, torus

UNSEEN = (("dog", 41, 7), ("horse", 42, 8), ("human", 43, 9))  # species, individual, pose


@pytest.fixture(scope="module", params=UNSEEN, ids=lambda u: u[0])
def animal(request) -> zoo.Animal:
    name, seed, pose = request.param
    return zoo.animal(name, 1300, seed=seed, pose=pose)


@pytest.fixture(scope="module")
def dog() -> tuple[zoo.Animal, NamedLandmarks]:
    a = zoo.animal("dog", 1300, seed=41, pose=7)
    return a, predict_landmarks(a.mesh)


def errors(a: zoo.Animal, found: NamedLandmarks) -> torch.Tensor:
    """(L,) distances along the surface from the true landmarks, over sqrt(area)."""
    truth = torch.tensor([a.landmarks[n] for n in found.names])
    size = float(a.mesh.face_areas.sum()) ** 0.5
    return Surface.of(a.mesh).distances(truth).gather(1, found.vertices[:, None])[:, 0] / size


def test_landmarks_of_unseen_animals(animal):
    found = predict_landmarks(animal.mesh)
    assert found.names == tuple(zoo.landmark_names())
    error = errors(animal, found)
    sure = found.confidence >= 0.8
    assert found.known > 0.9 and sure.sum() >= 16
    assert float(error[sure].mean()) < 0.05 and float(error[sure].median()) < 0.04
    assert float((error[sure] < 0.1).float().mean()) >= 0.9


def test_a_mirror_image_exchanges_left_and_right(dog):
    a, found = dog
    swap = [found.names.index(other(n)) for n in found.names]
    for faces in (a.mesh.faces.flip(1), a.mesh.faces):  # outwards, and inwards
        flipped = predict_landmarks(Mesh(a.mesh.verts * torch.tensor([-1.0, 1.0, 1.0]).double(), faces))
        assert torch.equal(flipped.vertices[swap], found.vertices)
        torch.testing.assert_close(flipped.confidence[swap], found.confidence, atol=1e-3, rtol=0)
        assert flipped.known == pytest.approx(found.known, abs=1e-3)


def test_motion_scale_and_order_of_vertices_change_nothing(dog):
    a, found = dog
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator).double())[0]
    turn = turn * torch.linalg.det(turn)
    order = torch.randperm(a.mesh.n_verts, generator=generator)
    place = torch.argsort(order)
    for scale in (1e-3, 1e3):
        moved = Mesh((scale * a.mesh.verts @ turn.T + scale)[order], place[a.mesh.faces])
        again = predict_landmarks(moved)
        assert float((order[again.vertices] == found.vertices).float().mean()) >= 0.9  # but for ties
        gap = (a.mesh.verts[order[again.vertices]] - a.mesh.verts[found.vertices]).norm(dim=1)
        assert float(gap.max()) < 0.05 * float(a.mesh.face_areas.sum()) ** 0.5
        torch.testing.assert_close(again.confidence, found.confidence, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    "mesh", [icosphere(3), torus(1.0, 0.4), box((1.0, 1.0, 3.0), n=12)], ids=["ball", "ring", "box"]
)
def test_solids_are_refused(mesh):
    found = predict_landmarks(mesh)
    assert found.known < 0.2 and float(found.confidence.max()) < 0.2
    assert found.surest() == {}


def test_a_chair_is_refused():
    from geoframe.zoo.template import draft

    mesh, _ = draft(zoo.sample("chair", 977))
    assert predict_landmarks(mesh).known < 0.2


def test_what_is_cut_away_is_less_sure_than_what_is_left(dog):
    a, whole = dog
    x = a.mesh.verts[:, 0]
    keep = (x < x.quantile(0.75))[a.mesh.faces].all(1)
    used, faces = torch.unique(a.mesh.faces[keep], return_inverse=True)
    found = predict_landmarks(Mesh(a.mesh.verts[used], faces))
    gone = torch.tensor([a.landmarks[n] not in used for n in found.names])
    assert 6 <= gone.sum() <= 20
    assert float(found.confidence[gone].mean()) < 0.35
    assert float(found.confidence[~gone].mean()) > 0.5
    assert float(whole.confidence[gone].mean()) > 0.5


def test_noise_moves_the_landmarks_little():
    a = zoo.animal("horse", 1500, seed=44, pose=3)
    size = float(a.mesh.face_areas.sum()) ** 0.5
    noise = torch.randn(a.mesh.verts.shape, generator=torch.Generator().manual_seed(0)).double()
    noisy = Surface.of(Mesh(a.mesh.verts + 0.02 * size * noise, a.mesh.faces))
    smooth = without_noise(noisy)
    assert smooth is not noisy
    off = (smooth.verts - a.mesh.verts).norm(dim=1).mean() / size
    basis = noisy.basis(128)
    plain = (basis.lift(basis.project(noisy.verts)) - a.mesh.verts).norm(dim=1).mean() / size
    assert off < 0.013 and off < 0.9 * plain  # lengths lie, edges do not
    clean = Surface.of(a.mesh)
    assert without_noise(clean) is clean
    found = predict_landmarks(noisy)
    error = errors(a, found)[found.confidence >= 0.8]
    assert found.known > 0.9 and len(error) >= 12 and float(error.mean()) < 0.06


def test_the_surest_landmarks(dog):
    _, found = dog
    six = found.surest(6)
    assert len(six) == 6 and len(set(six.values())) == 6
    chosen = torch.tensor([found.names.index(n) for n in six])
    rest = np.setdiff1d(np.arange(len(found.names)), chosen.numpy())
    assert float(found.confidence[chosen].min()) >= float(found.confidence[rest].max()) - 1e-6
    assert set(six) < set(found.surest(at_least=0.0))
    assert ("left_eye", "right_eye") in found.mirrored and len(found.mirrored) == 10


def test_input_that_is_no_surface_is_refused():
    with pytest.raises(TypeError, match="expected a Mesh"):
        predict_landmarks("dog.obj")
    mesh = grid(3, 3)
    with pytest.raises(ValueError, match="one pose"):
        predict_landmarks(Mesh(mesh.verts.expand(2, -1, 3), mesh.faces))
    with pytest.raises(ValueError, match="verts"):
        predict_landmarks(Mesh(mesh.verts * torch.nan, mesh.faces))


def test_the_weights_stay_small():
    assert WEIGHTS.stat().st_size < 2_000_000


def test_two_people_have_the_same_landmarks():
    folder = Path(os.environ.get("GEOFRAME_DATA", "")) / "near_isometric" / "faust"
    if not os.environ.get("GEOFRAME_DATA") or not folder.is_dir():
        pytest.skip("needs the folder near_isometric/faust of GEOFRAME_DATA")
    truth = np.load(folder / "truth.npz")
    mesh1, mesh2 = (load(folder / f"tr_reg_08{i}.off") for i in (5, 7))
    found1, found2 = predict_landmarks(mesh1), predict_landmarks(mesh2)
    assert min(found1.known, found2.known) > 0.9
    rows1, rows2 = (torch.as_tensor(truth[f"tr_reg_08{i}"]).long() for i in (5, 7))
    both = torch.minimum(found1.confidence, found2.confidence).argsort(descending=True)[:12]
    at1, at2 = found1.vertices[both], found2.vertices[both]
    carried = rows2[torch.cdist(mesh1.verts[at1], mesh1.verts[rows1]).argmin(1)]
    size = float(mesh2.face_areas.sum()) ** 0.5
    error = Surface.of(mesh2).distances(carried).gather(1, at2[:, None])[:, 0] / size
    assert float(error.mean()) < 0.05 and float(error.max()) < 0.2
