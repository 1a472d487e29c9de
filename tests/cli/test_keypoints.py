"""The keypoint commands on what users have: flat folders, files of other kinds, equal names."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch

from geoframe.cli import main
from geoframe.cli.keypoints import _standing
from geoframe.data import load_clouds
from geoframe.models.category_keypoints import OURS, Predictor, train
from geoframe.placing.look_again import sides_of_box
from geoframe.transforms import rotation_about_axis
from geoframe.zoo import rigid


@pytest.fixture(scope="module")
def made():
    """Eight procedural chairs."""
    return load_clouds("procedural", "chair", n_points=400, limit=8)


@pytest.fixture(scope="module")
def model(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    recipe = OURS.with_epochs(1).with_settings(n_keypoints=6).with_batch_size(4)
    train(made, out=out, category="chair", recipe=recipe, accelerator="cpu")
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


def test_several_files_are_predicted_by_name(model, flat, tmp_path, capsys):
    out, files = tmp_path / "p", [str(flat / f"c{i}.npy") for i in (2, 0)]
    assert main(["keypoints", "predict", model, *files, "--out", str(out), "--up", "y"]) == 0
    several = json.loads((out / "keypoints.json").read_text())["keypoints"]
    assert list(several) == ["c2", "c0"]
    assert main(["keypoints", "predict", model, files[0], "--out", str(out), "--up", "y"]) == 0
    alone = json.loads((out / "keypoints.json").read_text())["keypoints"]
    np.testing.assert_allclose(alone["c2"], several["c2"], atol=1e-5)
    (tmp_path / "more").mkdir()
    twin = shutil.copy(flat / "c1.npy", tmp_path / "more" / "c0.npy")
    capsys.readouterr()
    absent = [str(flat / f"none.{kind}") for kind in ("npy", "txt")]
    assert main(["keypoints", "predict", model, files[1], str(twin), *absent, "--out", str(out)]) == 1
    err = capsys.readouterr().err
    assert all(f"cannot read {x}" in err for x in absent)
    assert list(json.loads((out / "keypoints.json").read_text())["keypoints"]) == ["0000_c0", "0001_c0"]


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


def test_clouds_of_another_vertical_axis_are_turned_and_their_keypoints_turned_back(
    model, flat, tmp_path, capsys
):
    """The model's clouds have y up; a folder says nothing, and may be told."""
    command = ["keypoints", "predict", model, str(flat), "--show", "2", "--points", "300"]
    assert main([*command, "--out", str(tmp_path / "y"), "--up", "y"]) == 0
    for file in flat.glob("*.npy"):
        np.save(file, np.roll(np.load(file), 1, 1))  # now z is up
    assert main([*command, "--out", str(tmp_path / "z"), "--up", "z"]) == 0
    first, second = (json.loads((tmp_path / k / "keypoints.json").read_text()) for k in "yz")
    for name, places in first["keypoints"].items():
        np.testing.assert_allclose(np.roll(places, 1, 1), second["keypoints"][name], atol=1e-4)
    assert first["scores"] == {"c0": None, "c1": None, "c2": None}  # eight clouds are too few to calibrate
    assert first["warnings"] == {} and len(first["uncertainties"]["c0"]) == len(first["keypoints"]["c0"])
    assert main([*command, "--out", str(tmp_path / "z"), "--show", "0"]) == 2
    assert "--show: expected an integer at least 1, found 0" in capsys.readouterr().err
    assert main([*command, "--data", str(flat)]) == 2
    assert "expected the clouds once" in capsys.readouterr().err


@pytest.mark.parametrize("axis", ["x", "z"])
def test_the_vertical_axis_of_a_folder_is_found(axis, tmp_path, capsys):
    """The model's clouds have y up; those of the folder have not, and nobody says so."""
    chairs = load_clouds("procedural", "chair", n_points=1024, limit=5).points
    there = chairs.roll("xyz".index(axis) - 1, 2)
    for folder, clouds in (("y", chairs), (axis, there)):
        (tmp_path / folder).mkdir()
        for i, cloud in enumerate(clouds):
            np.save(tmp_path / folder / f"c{i}.npy", cloud.numpy())
        capsys.readouterr()
        assert _predicted("chair", tmp_path / folder, tmp_path / f"of_{folder}") == [
            f"c{i}" for i in range(5)
        ]
        told = f"the clouds are taken to stand along {folder} "
        assert (told in capsys.readouterr().err) == (folder != "y")
    found = [json.loads((tmp_path / f"of_{x}" / "keypoints.json").read_text()) for x in ("y", axis)]
    assert all(not x["warnings"] for x in found)
    for name, places in found[0]["keypoints"].items():
        turned = np.roll(places, "xyz".index(axis) - 1, 1)
        np.testing.assert_allclose(turned, found[1]["keypoints"][name], atol=0.02)


def test_a_cloud_that_cannot_be_used_does_not_hide_the_axis_of_the_others(tmp_path, capsys):
    chairs = load_clouds("procedural", "chair", n_points=1024, limit=3).points.roll(1, 2)
    for i, cloud in enumerate(chairs):
        np.save(tmp_path / f"c{i}.npy", cloud.numpy())
    np.save(tmp_path / "one.npy", np.eye(1024)[:, :3] * [1, 0, 0])  # a single point away from all the others
    assert main(["keypoints", "predict", "chair", str(tmp_path), "--out", str(tmp_path / "p")]) == 1
    err = capsys.readouterr().err
    assert "are taken to stand along z" in err and "one: points: expected at least 6 points" in err
    told = json.loads((tmp_path / "p" / "keypoints.json").read_text())
    assert list(told["keypoints"]) == ["c0", "c1", "c2"] and told["up"] == "z"


@pytest.mark.parametrize(("own", "told"), [(0.8, True), (0.5, False), (0.97, False)])
def test_a_cloud_that_makes_more_sense_along_another_axis_is_told(own, told, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "c.npy", load_clouds("procedural", "chair", n_points=1024, limit=1).points[0].numpy())
    monkeypatch.setattr(Predictor, "common_up", lambda *_: ("y", {"x": 0.1, "y": own, "z": 0.95}))
    command = ["keypoints", "predict", "chair", str(tmp_path / "c.npy"), "--out", str(tmp_path / "p")]
    assert main(command) == 0
    assert ("it is not clear which axis is up, y is taken" in capsys.readouterr().err) == told
    assert main([*command, "--up", "y"]) == 0
    assert "not clear" not in capsys.readouterr().err


def test_folders_are_given_alone(model, flat, tmp_path, capsys):
    assert main(["keypoints", "predict", model, str(flat / "c0.npy"), str(flat), "--out", str(tmp_path)]) == 2
    assert "expected files of one cloud each, found one of several; give it alone" in capsys.readouterr().err
    assert main(["keypoints", "predict", model, "--out", str(tmp_path)]) == 2
    assert "found neither" in capsys.readouterr().err


def test_a_folder_of_other_things_keeps_the_axis_of_the_model(tmp_path, capsys):
    folder = tmp_path / "balls"
    folder.mkdir()
    for i, ball in enumerate(torch.randn(3, 500, 3, generator=torch.Generator().manual_seed(0))):
        np.save(folder / f"c{i}.npy", ball.numpy())
    _predicted("chair", folder, tmp_path / "p")
    err = capsys.readouterr().err
    assert "are taken to stand" not in err and err.count("not to be trusted") == 3


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
    assert about["about"]["recipe"] == "paper"
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
    assert "| symmetry error deg |  |" in (tmp_path / "e" / "evaluation.md").read_text()


def _spoil(folder):
    """Files that are no clouds, each in another way."""
    (folder / "notes.txt").write_text("the third chair is from the attic\n")
    np.save(folder / "c4.npy", np.full((50, 3), np.nan))
    np.save(folder / "c5.npy", np.ones((50, 3)))  # one point repeated
    np.save(folder / "c6.npy", np.eye(3)[:2].repeat(30, 0))  # two points repeated
    (folder / "c7.off").write_text("OFF\n8 6")
    (folder / "c8.npy").write_bytes(np.zeros(3).tobytes())
    return {"notes.txt", "c4.npy", "c5.npy", "c6", "c7.off", "c8.npy"}


def test_a_bad_file_in_a_folder_is_told_and_the_rest_goes_on(model, flat, tmp_path, capsys):
    bad = _spoil(flat)
    out = tmp_path / "p"
    assert main(["keypoints", "predict", model, "--data", str(flat), "--out", str(out)]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1] == "geoframe keypoints predict: 6 of 9 clouds were left out, see above"
    assert len(told) == 7 and all(line.startswith("warning: ") for line in told[:-1])
    for name in bad:
        assert sum(bool(re.search(rf"\b{re.escape(name)}\b", line)) for line in told) == 1, name
    results = json.loads((out / "keypoints.json").read_text())
    assert list(results["keypoints"]) == ["c0", "c1", "c2"] and len(results["failed"]) == 6
    assert len(list(out.glob("*.keypoints.ply"))) == 3
    command = ["keypoints", "register", model, str(flat), str(flat / "c0.npy"), "--out", str(tmp_path / "r")]
    assert main(command) == 1
    assert len(json.loads((tmp_path / "r" / "registration.json").read_text())) == 3
    command = ["keypoints", "evaluate", model, "--data", str(flat), "--out", str(tmp_path / "e")]
    assert main([*command, "--split", "all"]) == 1
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["shapes"] == 3


def test_a_folder_of_bad_files_is_bad_input(model, flat, tmp_path, capsys):
    for file in flat.iterdir():
        file.unlink()
    _spoil(flat)
    for command in (
        ["predict", model, "--data", str(flat)],
        ["evaluate", model, "--data", str(flat), "--split", "all"],
        ["register", model, str(flat), str(flat)],
        ["train", "--data", str(flat), "--category", "chair"],
    ):
        assert main(["keypoints", *command, "--out", str(tmp_path / "x")]) == 2, command
    assert not (tmp_path / "x").exists()


def test_bad_clouds_of_an_npz_file_are_told(model, made, tmp_path, capsys):
    points = made.points[:3].numpy().copy()
    points[1] = np.nan
    np.savez(tmp_path / "chair.npz", test=points)
    command = ["keypoints", "predict", model, "--data", str(tmp_path), "--out", str(tmp_path / "p")]
    assert main(command) == 1
    assert "chair.npz: test[1]: expected finite numbers" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "p" / "keypoints.json").read_text())["keypoints"]) == [
        "test_0000",
        "test_0002",
    ]


def test_train_leaves_bad_files_out(flat, tmp_path, capsys):
    (flat / "notes.txt").write_text("four chairs\n")
    command = ["keypoints", "train", "--data", str(flat), "--category", "chair", "--up", "y"]
    short = ["--epochs", "1", "--points", "200", "--accelerator", "cpu", "--keypoints", "6"]
    assert main([*command, "--out", str(tmp_path / "m"), *short]) == 0
    assert "warning: " in (err := capsys.readouterr().err) and "notes.txt" in err
    assert json.loads((tmp_path / "m" / "model.json").read_text())["about"]["shapes"] == 3


def test_tables_fit_into_80_columns(model, flat, tmp_path, capsys):
    command = ["keypoints", "evaluate", model, "--data", str(flat), "--out", str(tmp_path / "e")]
    assert main([*command, "--split", "all"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert max(map(len, table)) <= 80
    assert "| coverage % |" in table[2] and table[2].endswith("| 88.83 |")


def test_both_spellings_of_a_procedural_category_are_understood(made, monkeypatch):
    found = load_clouds("procedural", "procedural-chair", n_points=400, limit=8)
    assert found.names == made.names and torch.equal(found.points, made.points)
    asked = []

    def sample_points(category, i, n):
        asked.append(category)
        return sampled("chair", i, n)

    sampled = rigid.sample_points
    monkeypatch.setattr(rigid, "sample_points", sample_points)
    for name in ("airplane", "procedural-airplane", "aeroplane"):
        assert load_clouds("procedural", name, n_points=9, limit=1).names == ("aeroplane_0",)
    assert asked == ["aeroplane"] * 3


def test_a_model_from_raw_files_to_registration(made, tmp_path, capsys):
    """The four commands, one after the other."""
    np.savez(tmp_path / "chair.npz", train=made.points.numpy(), test=made.points[:4].numpy())
    data, model = ["--data", str(tmp_path), "--up", "y"], str(tmp_path / "model")
    short = ["--epochs", "1", "--points", "400", "--accelerator", "cpu"]
    assert main(["keypoints", "train", *data, "--category", "chair", "--out", model, *short]) == 0
    assert main(["keypoints", "predict", model, *data, "--out", str(tmp_path / "p")]) == 0
    found = json.loads((tmp_path / "p" / "keypoints.json").read_text())["keypoints"]
    assert list(found) == [f"test_{i:04d}" for i in range(4)]
    assert (tmp_path / "p" / "keypoints.png").stat().st_size > 10_000
    assert "test_0003" in (tmp_path / "p" / "keypoints.html").read_text()
    assert main(["keypoints", "evaluate", model, *data, "--out", str(tmp_path / "e")]) == 0
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["shapes"] == 4
    R = rotation_about_axis(torch.tensor(0.3), 1).numpy()
    first, second = (tmp_path / "one.xyz", tmp_path / "two.xyz")
    np.savetxt(first, made.points[0].numpy())
    np.savetxt(second, 2 * made.points[0].numpy() @ R.T + 5)
    assert main(["keypoints", "register", model, str(first), str(second), "--out", str(tmp_path / "r")]) == 0
    (row,) = json.loads((tmp_path / "r" / "registration.json").read_text())
    assert row["residual"] < 0.05 and row["scale"] == pytest.approx(2, rel=0.03)
    np.testing.assert_allclose(row["rotation"], R, atol=0.03)
    capsys.readouterr()
    assert main(["keypoints", "train", *data, "--category", "boat", "--out", model]) == 2
    assert "boat" in capsys.readouterr().err
    assert main(["keypoints", "predict", str(tmp_path), *data, "--out", str(tmp_path / "p")]) == 2
    assert "expected model.json" in capsys.readouterr().err


@pytest.mark.parametrize("up", [0, 1, 2])
def test_objects_on_another_side_are_drawn_on_their_feet(up):
    upright = torch.rand(1, 20, 3, generator=torch.Generator().manual_seed(up))
    about = rotation_about_axis(torch.tensor(0.4), up).double()  # as the object is turned and a little tilted
    tilted = about @ rotation_about_axis(torch.tensor(0.2), (up + 1) % 3).double()
    for side in [torch.eye(3).double(), *sides_of_box(up)]:
        lying = (upright.double() @ side).float()
        (drawn,) = _standing(lying, (side.mT @ tilted)[None].float(), up, up)
        np.testing.assert_allclose(drawn, upright[0], atol=1e-6)
