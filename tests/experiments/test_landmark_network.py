"""The training set of the landmark network, its loss, and a short run of the whole."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("fast_simplification")

from experiments.landmark_network import run, shapes
from experiments.landmark_network.train import NAMES, SWAP, Lesson, calibrate, lesson, loss_of, trial
from geoframe.landmarking.network import Heatmaps
from geoframe.landmarking.predict import WEIGHTS, load_networks
from geoframe.surface.shapes import box


@pytest.fixture(scope="module")
def carrier() -> shapes.Carrier:
    return shapes.carriers(("dog",), 1, (650,))[0]


@pytest.fixture(scope="module")
def lessons(carrier) -> list[Lesson]:
    mesh = box(n=9)
    other = shapes.other_example(mesh.verts.double().numpy(), mesh.faces.numpy(), 4)
    return [lesson(x) for x in (shapes.animal_example(carrier, 1), shapes.animal_example(carrier, 5), other)]


def test_examples_are_of_unit_area_and_differ_from_seed_to_seed(carrier):
    a, b, again = (shapes.animal_example(carrier, seed) for seed in (1, 5, 1))
    for e in (a, b):
        assert shapes.area(e.verts, e.faces) == pytest.approx(1.0)
        assert float(e.mass.sum()) == pytest.approx(1.0)
        np.testing.assert_allclose(e.vecs.T @ (e.mass[:, None] * e.vecs), np.eye(128), atol=1e-4)
    np.testing.assert_array_equal(a.verts, again.verts)
    assert a.verts.shape != b.verts.shape or np.abs(a.verts - b.verts).max() > 0.05


def test_landmarks_of_an_undamaged_animal_are_its_vertices(carrier):
    verts, faces, places = shapes.animal_surface(carrier, np.random.default_rng(0))
    e = shapes.example(verts, faces, places, True)
    assert e.distance.argmin(1).tolist() == carrier.pins.tolist()
    assert (e.distance.min(1) == 0).all()


def test_a_landmark_that_was_cut_away_is_nowhere(carrier):
    verts, faces, places = shapes.animal_surface(carrier, np.random.default_rng(0))
    nose = places[NAMES.index("nose")]
    gone = (np.linalg.norm(verts - nose, axis=1) < 0.15)[faces].any(1)
    verts, faces = shapes.largest_piece(verts, faces[~gone])
    e = shapes.example(verts, faces, places, True)
    assert np.isinf(e.distance[NAMES.index("nose")]).all()
    assert np.isfinite(e.distance[NAMES.index("left_hind_paw")]).all()


class Fixed(torch.nn.Module):
    """Says the same of every surface."""

    def __init__(self, said: Heatmaps) -> None:
        super().__init__()
        self.said = said

    def forward(self, x, side=1.0):
        return self.said


def test_the_loss_is_least_for_the_truth(lessons):
    """Cross entropy: no density does better than the one that is wanted."""
    x = lessons[0]
    batch = (type(x.seen)(*(f[None] for f in x.seen)), x.distance[None], torch.ones(1), torch.ones(1, 1, 1))
    wanted = torch.exp(-(x.distance.clamp(max=10) ** 2) / (2 * 0.04**2))
    wanted = wanted / (x.seen.mass @ wanted).clamp(min=1e-9)
    absent = torch.where(torch.isfinite(x.distance).any(0), -30.0, 0.0)[None]
    truth = loss_of(
        Fixed(Heatmaps(wanted.clamp(min=1e-12).log()[None], absent, torch.full((1,), 30.0))), *batch
    )
    for power in (0.8, 1.25):
        other = wanted**power
        other = other / (x.seen.mass @ other).clamp(min=1e-9)
        said = Heatmaps(other.clamp(min=1e-12).log()[None], absent, torch.full((1,), 30.0))
        assert float(loss_of(Fixed(said), *batch)) > float(truth)
    flipped = Heatmaps(wanted[:, SWAP].clamp(min=1e-12).log()[None], absent, torch.full((1,), 30.0))
    assert float(loss_of(Fixed(flipped), *batch)) > float(truth) + 5


def test_the_shipped_networks_do_well_on_new_examples(lessons):
    networks = load_networks(WEIGHTS)
    found = trial(networks.models, lessons)
    assert float(found.error[found.there].median()) < 0.05
    assert (found.verdict[:2] > 0).all() and found.verdict[2] < 0
    told = calibrate(found)
    assert told["slope"] > 0 and told["known_slope"] > 0


@pytest.mark.slow
def test_quick_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run", "--out", str(tmp_path), "--quick"])
    run.main()
    values = json.loads((tmp_path / "results.json").read_text())
    assert 0 <= values["zoo_error"] < 1 and values["minutes"] < 5
    assert load_networks(tmp_path / "weights.safetensors").names == NAMES
