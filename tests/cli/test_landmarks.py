"""`geoframe landmarks` from a folder of images, starting from a frame, and what it says of bad input."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from geoframe.cli import main
from geoframe.data.views import ViewPlan
from geoframe.models import object_frame, sparse_landmarks
from geoframe.warps import random_warp, to_pixels

MEAN = torch.tensor([[-0.3, -0.2], [0.3, -0.2], [0.0, 0.1], [-0.2, 0.35], [0.2, 0.35]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Discs with five landmarks in a JSON file, and four landmarks learned on them."""
    root = tmp_path_factory.mktemp("discs")
    warp = random_warp(6, rotation=10, scale=0.2, shift=0.15, bend=0, strong_bend=0, seed=0)
    own = warp.grid(40)
    colour = torch.cat([own / 2 + 0.5, torch.ones_like(own[..., :1])], -1)
    images = torch.where(own.norm(dim=-1, keepdim=True) < 0.6, colour, 0.0).clamp(0, 1)
    (root / "data").mkdir()
    for i in range(6):
        Image.fromarray((images[i].numpy() * 255).astype(np.uint8)).save(root / f"data/{i}.png")
    points = to_pixels(warp.inverse(MEAN)[0], 40, 40).tolist()
    (root / "data/landmarks.json").write_text(json.dumps({f"{i}.png": p for i, p in enumerate(points)}))
    data = ["--data", str(root / "data"), "--steps", "1", "--accelerator", "cpu"]
    more = ["--frame", str(root / "frame"), "--k", "4", "--out", str(root / "model")]
    views = ViewPlan(pairs=2, size=32, zoom=0.75)
    small = replace(object_frame.OURS, settings={"dim": 8, "width": 16}, views=views)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(object_frame.RECIPES, "geoframe", small)
        patch.setitem(sparse_landmarks.RECIPES, "geoframe", replace(sparse_landmarks.OURS, views=views))
        assert main(["frame", "train", *data, "--backbone", "small", "--out", str(root / "frame")]) == 0
        assert main(["landmarks", "train", *data, *more]) == 0
    return root


def test_own_landmarks_need_no_annotation(folder, tmp_path):
    words = [str(folder / "model"), "--data", str(folder / "data"), "--out", str(tmp_path)]
    assert main(["landmarks", "predict", *words]) == 0
    told = json.loads((tmp_path / "landmarks.json").read_text())
    assert len(told["images"]) == 6 and len(told["images"][0]["points"]) == 4
    assert (tmp_path / "landmarks.png").stat().st_size > 1000


def test_a_frame_gives_landmarks_too_once_some_are_annotated(folder, tmp_path):
    words = [
        str(folder / "frame"),
        "--data",
        str(folder / "data"),
        "--out",
        str(tmp_path),
        "--method",
        "linear",
    ]
    assert main(["landmarks", "predict", *words, "--labelled", str(folder / "data")]) == 0
    told = json.loads((tmp_path / "landmarks.json").read_text())
    assert len(told["images"]) == 6 and len(told["images"][0]["points"]) == 5


def test_given_landmarks_are_measured(folder, tmp_path):
    data = str(folder / "data")
    words = ["--data", data, "--labelled", data, "--out", str(tmp_path), "--labels", "4", "all"]
    assert main(["landmarks", "evaluate", str(folder / "model"), *words, "--method", "linear"]) == 0
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(told["iod_percent_5"]) == {"4", "all"} and "backward_percent" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train", "--data", "{data}", "--out", "o", "--recipe", "baseline"],
            "--recipe: expected geoframe, paper",
        ),
        (["train", "--data", "{data}", "--out", "o", "--recipe", "paper", "--frame", "{frame}"], "--frame"),
        (["train", "--data", "{data}", "--out", "o", "--minutes", "1", "--steps", "2"], "--steps"),
        (["train", "--data", "{data}", "--out", "o", "--k", "0"], "--k: expected an integer"),
        (["predict", "{data}", "--data", "{data}", "--out", "o"], "expected model.json"),
    ],
)
def test_bad_input_is_one_line_and_two(words, message, folder, capsys):
    named = {"data": folder / "data", "frame": folder / "frame"}
    assert main(["landmarks", *(w.format(**named) for w in words)]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.strip().splitlines()) == 1
