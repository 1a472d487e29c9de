"""The studies of To The Point: what a variant leaves out, and all of it in small."""

from __future__ import annotations

import json
import sys

import pytest

from experiments.to_the_point import run
from geoframe.models.to_the_point import OURS, PAPER


def test_each_variant_leaves_out_one_loss():
    found = run.variants(OURS)
    assert {"keypoints", "masks", "paper", "paper_masks", "modes_0", "modes_64"} <= set(found)
    assert found["keypoints"] == (OURS, True) and found["paper"][0].losses == PAPER.losses
    for name, (recipe, keypoints) in found.items():
        start, _, left_out = name.partition("_less_")
        full, same = found[start]
        missing = set(run.losses_of(full)) - set(run.losses_of(recipe))
        assert missing == ({left_out} if left_out else set()) | (
            {"flip_pose"} if left_out == "equivariance" else set()
        )
        assert keypoints == same


@pytest.mark.slow  # a quarter of a minute
def test_the_quick_run_measures_and_draws(tmp_path, monkeypatch):
    words = ["run", "--quick", "--out", str(tmp_path), "--variant", "keypoints_less_heat", "masks"]
    monkeypatch.setattr(sys, "argv", words)
    run.main()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["crops.test"] > 5
    for name in ("keypoints_less_heat", "masks"):
        assert 0 <= results[f"car/{name}/0/iou_hard"] <= 1
        assert (tmp_path / f"car_{name}.png").is_file()
