"""`geoframe features`: a small run from training to measures, broken frames, and bad input in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from geoframe.cli import main


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Six frames of a bright square that moves before a texture, with masks beside them."""
    folder = tmp_path_factory.mktemp("video") / "square"
    folder.mkdir()
    noise = 0.4 * torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(0)).numpy()
    for i in range(6):
        frame, mask = noise.copy(), np.zeros((48, 64), np.uint8)
        frame[12:32, 8 + 3 * i : 28 + 3 * i] += 0.5
        mask[12:32, 8 + 3 * i : 28 + 3 * i] = 255
        Image.fromarray((255 * frame).astype(np.uint8)).save(folder / f"{i:05d}.jpg", quality=95)
        Image.fromarray(mask).save(folder / f"{i:05d}.png")
    return folder.parent


@pytest.fixture(scope="module")
def model(video, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    assert (
        main(["features", "train", "--data", str(video), "--out", str(out), "--steps", "3", "--gap", "1"])
        == 0
    )
    return out


def test_predict_and_evaluate(model, video, tmp_path, capsys):
    words = ["features", "predict", str(model), "--data", str(video / "square/00000.jpg"), "--clusters", "3"]
    assert main([*words, "--out", str(tmp_path / "p")]) == 0
    assert {p.name for p in (tmp_path / "p").iterdir()} == {"00000.npz", "00000.png", "features.json"}
    with np.load(tmp_path / "p/00000.npz") as found:
        assert found["features"].shape == (16, 12, 16) and found["clusters"].max() <= 2
    assert (
        main(
            [
                "features",
                "evaluate",
                str(model),
                "--data",
                str(video / "square"),
                "--out",
                str(tmp_path / "e"),
            ]
        )
        == 0
    )
    numbers = json.loads((tmp_path / "e/evaluation.json").read_text())
    assert 0 <= numbers["probe_iou"] <= 100 and numbers["train"] == 3
    assert "foreground by a linear probe" in capsys.readouterr().out


def test_a_broken_picture_is_told_and_the_others_are_done(model, video, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes((video / "square/00000.jpg").read_bytes())
    (folder / "b.jpg").write_bytes(b"nonsense")
    assert main(["features", "predict", str(model), "--data", str(folder), "--out", str(tmp_path / "p")]) == 1
    assert "b.jpg" in capsys.readouterr().err and (tmp_path / "p/a.npz").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train"], "--data, --renders: expected frames or a number of renders, found neither"),
        (["train", "--renders", "-1"], "--renders: expected an integer at least 0, found -1"),
        (["train", "--data", "EMPTY"], "expected at least one image"),
        (["predict", "missing", "--data", "EMPTY"], "missing"),
        (["evaluate", "MODEL", "--data", "EMPTY"], "expected at least two pictures"),
    ],
)
def test_bad_input_is_one_line(model, tmp_path, capsys, words, told):
    (tmp_path / "empty").mkdir()
    names = {"EMPTY": str(tmp_path / "empty"), "MODEL": str(model)}
    assert main(["features", *(names.get(w, w) for w in words), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
