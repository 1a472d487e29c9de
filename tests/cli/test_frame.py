"""`geoframe frame` from a folder of images to landmarks and measures, and what it says of bad input."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from geoframe.cli import main
from geoframe.data.views import ViewPlan
from geoframe.models.object_frame import OURS, RECIPES
from geoframe.warps import random_warp, to_pixels

MEAN = torch.tensor([[-0.3, -0.2], [0.3, -0.2], [0.0, 0.1], [-0.2, 0.35], [0.2, 0.35]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of discs with five landmarks in a CSV, one picture of the second being cut off."""
    root = tmp_path_factory.mktemp("discs")
    for part, n in (("train", 6), ("test", 3)):
        warp = random_warp(n, rotation=10, scale=0.2, shift=0.15, bend=0, strong_bend=0, seed=n)
        own = warp.grid(40)
        colour = torch.cat([own / 2 + 0.5, torch.ones_like(own[..., :1])], -1)
        images = torch.where(own.norm(dim=-1, keepdim=True) < 0.6, colour, 0.0).clamp(0, 1)
        points = to_pixels(warp.inverse(MEAN)[0], 40, 40)
        (root / part / "images").mkdir(parents=True)
        with open(root / part / "landmarks.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "identity", *(f"{a}{i}" for i in range(5) for a in "xy")])
            for i in range(n):
                Image.fromarray((images[i].numpy() * 255).astype(np.uint8)).save(
                    root / part / f"images/{i}.png"
                )
                rows.writerow([f"{i}.png", i, *(f"{v:.2f}" for v in points[i].flatten().tolist())])
    return root


@pytest.fixture(scope="module")
def model(folders):
    out = folders / "model"
    words = ["--data", str(folders / "train"), "--out", str(out), "--backbone", "small", "--steps", "1"]
    small = replace(OURS, settings={"dim": 8, "width": 16}, views=ViewPlan(pairs=2, size=32, zoom=0.75))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "geoframe", small)
        assert main(["frame", "train", *words, "--accelerator", "cpu"]) == 0
    return out


def test_predict_with_a_few_annotated_images_and_again_without(folders, model, tmp_path, capsys):
    words = [str(model), "--data", str(folders / "test/images"), "--out", str(tmp_path / "p"), "--page"]
    known = ["--labelled", str(folders / "train"), "--save", str(tmp_path / "fitted")]
    assert main(["frame", "predict", *words, *known]) == 0
    told = json.loads((tmp_path / "p/landmarks.json").read_text())
    assert [i["image"] for i in told["images"]] == ["0.png", "1.png", "2.png"]
    assert len(told["images"][0]["points"]) == 5 and 0 < told["images"][0]["confidence"] < 1
    for name in ("landmarks.png", "frame.png", "warped.png", "landmarks.html"):
        assert (tmp_path / "p" / name).stat().st_size > 1000
    again = [str(tmp_path / "fitted"), *words[1:4], str(tmp_path / "q")]
    assert main(["frame", "predict", *again]) == 0
    assert json.loads((tmp_path / "q/landmarks.json").read_text())["images"] == told["images"]
    assert "3 images" in capsys.readouterr().out


def test_evaluate_writes_errors_by_number_of_labels(folders, model, tmp_path):
    words = ["--data", str(folders / "test"), "--labelled", str(folders / "train"), "--out", str(tmp_path)]
    assert main(["frame", "evaluate", str(model), *words, "--labels", "3", "all", "--method", "linear"]) == 0
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(told["iod_percent_5"]) == set(told["iod_median_5"]) == {"3", "all"}
    assert told["images"] == 3 and told["labelled"] == 6


def test_a_bad_picture_is_a_part_that_failed(folders, model, tmp_path, capsys):
    bad = tmp_path / "bad"
    bad.mkdir()
    data = (folders / "test/images/0.png").read_bytes()
    (bad / "whole.png").write_bytes(data)
    (bad / "cut.png").write_bytes(data[: len(data) // 2])
    words = [str(model), "--data", str(bad), "--out", str(tmp_path / "p")]
    assert main(["frame", "predict", *words]) == 1
    assert "cut.png" in capsys.readouterr().err and (tmp_path / "p/frame.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--data", "{none}", "--out", "o"], "expected a folder of images"),
        (["train", "--data", "{train}", "--out", "o", "--group", "star"], "--group: expected 'none'"),
        (
            ["train", "--data", "{train}", "--out", "o", "--recipe", "dense", "--backbone", "small"],
            "--backbone",
        ),
        (["predict", "{train}", "--data", "{train}", "--out", "o"], "expected model.json"),
        (
            ["evaluate", "{model}", "--data", "{train}/images", "--labelled", "{train}", "--out", "o"],
            "with landmarks",
        ),
        (
            [
                "evaluate",
                "{model}",
                "--data",
                "{train}",
                "--labelled",
                "{train}",
                "--out",
                "o",
                "--labels",
                "x",
            ],
            "--labels",
        ),
    ],
)
def test_bad_input_is_one_line_and_two(words, message, folders, model, capsys):
    named = {"none": folders / "nowhere", "train": folders / "train", "model": model}
    assert main(["frame", *(w.format(**named) for w in words)]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.strip().splitlines()) == 1
