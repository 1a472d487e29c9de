"""The studies of surface embeddings: pictures told on another surface, and that each study runs."""

from __future__ import annotations

import json

import pytest
import torch

from experiments.surface_embedding import run
from geoframe.data.pixel_samples import PixelSamples
from geoframe.data.zoo_surfaces import zoo_surface


def test_landmarks_stay_where_they_are_on_the_anchor():
    cow, horse = zoo_surface("cow"), zoo_surface("horse")
    names = [n for n in cow.landmarks if n in horse.landmarks]
    vertex = torch.tensor([[cow.landmarks[n] for n in names] + [-1]])
    P = vertex.shape[1]
    image, mask = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1, 64, 64, dtype=torch.bool)
    many = (image, mask, mask[:, 0, 0], torch.zeros(1, P, 2), vertex, torch.zeros(1, dtype=torch.int64))
    moved = run.on_anchor(PixelSamples(*many, ("cow",)), "horse")
    assert moved.names == ("horse",) and int(moved.vertex[0, -1]) == -1
    want = horse.verts[torch.tensor([horse.landmarks[n] for n in names])]
    gap = (horse.verts[moved.vertex[0, :-1]] - want).norm(dim=1) / horse.area.sqrt()
    assert gap.median() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("study", ["a", "b", "c", "d", "e"])
def test_each_study_runs(study, tmp_path):
    run.main(["--study", study, "--quick", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "results.json").read_text())
    assert found[study] and found[f"{study}_minutes"] < 2
