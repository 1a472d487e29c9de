"""The keypoint commands on what users have: flat folders, files of other kinds, equal names."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")

from geoframe.cli import main
from geoframe.data import load_clouds
from geoframe.models.category_keypoints.predictor import train


@pytest.fixture(scope="module")
def made():
    """Eight procedural chairs."""
    return load_clouds("procedural", "chair", n_points=400, limit=8)


@pytest.fixture(scope="module")
def model(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    train(made, out=out, category="chair", n_keypoints=6, epochs=1, batch_size=4, accelerator="cpu")
    return str(out)


@pytest.fixture
def flat(made, tmp_path):
    """A folder with three clouds and things that are none."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for i in range(3):
        np.save(folder / f"c{i}.npy", made.points[i].numpy())
    for name in (".DS_Store", "c0.mtl", "c0.json"):
        (folder / name).write_text("{}")
    return folder


def _predicted(model, data, out, *more):
    assert main(["keypoints", "predict", model, "--data", str(data), "--out", str(out), *more]) == 0
    return list(json.loads((out / "keypoints.json").read_text())["keypoints"])


def test_a_flat_folder_is_predicted_whole(model, flat, tmp_path):
    assert _predicted(model, flat, tmp_path / "p") == ["c0", "c1", "c2"]
    assert len(list((tmp_path / "p").glob("*.keypoints.ply"))) == 3
    chair = flat.rename(tmp_path / "chair")
    assert _predicted(model, tmp_path, tmp_path / "p") == ["c0", "c1", "c2"]
    (chair / "test").mkdir()
    (chair / "c1.npy").rename(chair / "test" / "c1.npy")
    assert _predicted(model, tmp_path, tmp_path / "p") == ["c1"]
    assert _predicted(model, tmp_path, tmp_path / "p", "--split", "all") == ["c0", "c2", "c1"]


def test_equal_stems_are_both_predicted(model, flat, tmp_path):
    np.savetxt(flat / "c0.xyz", np.load(flat / "c0.npy"))
    assert _predicted(model, flat, tmp_path / "p") == ["c0.npy", "c0.xyz", "c1.npy", "c2.npy"]
    assert (tmp_path / "p" / "c0.xyz.keypoints.ply").is_file()


def test_a_flat_folder_is_evaluated_on_the_test_or_whole(model, flat, tmp_path, capsys):
    command = ["keypoints", "evaluate", model, "--data", str(flat), "--out", str(tmp_path / "e")]
    assert main(command) == 2
    assert "take split 'all'" in capsys.readouterr().err
    assert main([*command, "--split", "all"]) == 0
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["shapes"] == 3


def test_register_takes_only_meshes_and_clouds(model, flat, tmp_path, capsys):
    command = ["keypoints", "register", model, str(flat), str(flat / "c0.npy"), "--out", str(tmp_path / "r")]
    assert main(command) == 0
    assert len(json.loads((tmp_path / "r" / "registration.json").read_text())) == 3
    for file in flat.glob("*.npy"):
        file.unlink()
    capsys.readouterr()
    assert main(command) == 2
    assert "expected a folder of mesh or cloud files, found none in it" in capsys.readouterr().err


def test_the_vertical_axis_of_data_and_model_is_to_be_one(model, flat, tmp_path, capsys):
    """The model's clouds have y up; a folder says nothing, other layouts do."""
    command = ["keypoints", "predict", model, "--data", str(flat), "--out", str(tmp_path / "p")]
    assert main([*command, "--up", "z"]) == 2
    assert "expected clouds with the model's vertical axis, y, found z" in capsys.readouterr().err
    assert main([*command, "--up", "y", "--show", "2", "--points", "300"]) == 0
    assert main([*command, "--show", "0"]) == 2
    assert "--show: expected an integer at least 1, found 0" in capsys.readouterr().err


def test_options_of_the_paper_and_of_the_measures(flat, tmp_path, capsys):
    data = ["--data", str(flat), "--category", "chair", "--up", "y"]
    short = ["--epochs", "1", "--points", "300", "--accelerator", "cpu"]
    out = str(tmp_path / "m")
    assert main(["keypoints", "train", *data, "--out", out, *short, "--rotation", "any"]) == 2
    assert "only with --recipe paper" in capsys.readouterr().err
    paper = ["--recipe", "paper", "--mode", "plain", "--rotation", "any", "--forms", "written"]
    assert main(["keypoints", "train", *data, "--out", out, *short, *paper, "--batch-size", "2"]) == 0
    about = json.loads((tmp_path / "m" / "model.json").read_text())
    assert about["settings"]["mode"] == "plain" and about["settings"]["rotation"] == "any"
    command = [
        "keypoints",
        "evaluate",
        out,
        "--data",
        str(flat),
        "--out",
        str(tmp_path / "e"),
        "--split",
        "all",
    ]
    assert main([*command, "--planes", "w"]) == 2
    assert "--planes: expected letters of axes" in capsys.readouterr().err
    assert main([*command, "--planes", "z"]) == 0
    assert "symmetry_error_deg" not in json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert "|  | " in (tmp_path / "e" / "evaluation.md").read_text()
