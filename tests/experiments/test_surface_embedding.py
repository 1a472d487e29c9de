"""The studies of surface embeddings: pictures told on another surface, and that each study runs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from experiments.surface_embedding import run
from experiments.surface_embedding.renders import kinds_of
from geoframe.data.pixel_samples import PixelSamples
from geoframe.data.rendered import render_set
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


def test_what_makes_a_picture_hard_is_told():
    images = render_set("horse", 8, size=64, seed=5, augmentation=0)
    faces, batch = images.surfaces()[0].faces, images[list(range(8))]
    told = [set(words) for words in kinds_of(batch, faces)]
    hard = {"cut off", "hidden", "small"}
    assert all(len(words & {"side", "quarter", "end on"}) == 1 for words in told)
    assert all(("clear" in words) != bool(words & hard) for words in told)
    assert any("clear" in words for words in told)
    column = torch.arange(64) < 32
    halves = [set(words) for words in kinds_of(batch._replace(mask=batch.mask & column), faces)]
    across = (batch.mask & ~column).sum((1, 2)) > 0.1 * batch.mask.sum((1, 2))
    assert bool(across.any()) and all("hidden" in halves[i] for i in torch.nonzero(across)[:, 0].tolist())
    moved = replace(batch.camera, principal=batch.camera.principal + 40)
    assert all("cut off" in words for words in kinds_of(batch._replace(camera=moved), faces))


def test_rows_of_a_killed_run_are_kept_and_those_of_other_settings_are_not_written_over(tmp_path):
    file, about = tmp_path / "results.json", {"seed": 0, "size": {"steps": 3}}

    def two_rows(results, fail):
        rows = run.Rows("a", results, file)
        rows.add("first", lambda: {"gps": 0.5})
        rows.add("second", lambda: {"gps": 1 / 0 if fail else 0.75})
        return rows.found

    with pytest.raises(ZeroDivisionError):
        two_rows(run.begun(file, about), True)
    left = run.begun(file, about)
    assert left == {**about, "a": {"first": {"gps": 0.5}}}
    left["a"]["first"]["gps"] = 0.6  # it is not measured again
    assert two_rows(left, False) == {"first": {"gps": 0.6}, "second": {"gps": 0.75}}
    with pytest.raises(ValueError, match="--out: expected no results or those of"):
        run.begun(file, {"seed": 1, "size": {"steps": 3}})


@pytest.mark.slow
@pytest.mark.parametrize("study", ["a", "b", "c", "d", "e", "r", "w"])
def test_each_study_runs(study, tmp_path):
    run.main(["--study", study, "--quick", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "results.json").read_text())
    assert found[study] and found[f"{study}_minutes"] < 2
