"""Category keypoints from end to end, on small clouds: train, save, load, detect, evaluate, register, commands."""

from __future__ import annotations

import csv
import json

import pytest
import torch

pytest.importorskip("lightning_fabric")

from geoframe.cli import main
from geoframe.data import CloudSet, load_clouds, rotate_randomly
from geoframe.models.category_keypoints.predictor import (
    OurLosses,
    PaperLosses,
    evaluate,
    load_detector,
    register,
    settle,
    train,
)
from geoframe.transforms import rotation_about_axis


def _chairs(n, seed):
    """Crude chairs, up z, back at +y, plane x = 0; sizes vary."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 240, 3, generator=g) * 2 - 1
    part = torch.arange(240) % 3
    wide, deep, high = (0.4 + 0.25 * torch.rand(n, 1, generator=g) for _ in range(3))
    x, y, z = wide * u[..., 0], deep * u[..., 1], 0.05 * u[..., 2]
    y = torch.where(part == 1, deep + 0.03 * u[..., 1], y)
    z = torch.where(part == 1, high * (1 + u[..., 2]), z)
    leg = part == 2
    x = torch.where(leg, wide * torch.sign(u[..., 0]), x)
    y = torch.where(leg, deep * torch.sign(u[..., 1]), y)
    z = torch.where(leg, -0.4 + 0.4 * u[..., 2], z)
    half = torch.stack([x, y, z], dim=-1)
    points = torch.cat([half, half * torch.tensor([-1.0, 1, 1])], dim=1)
    return CloudSet(points * 50 + 7, tuple(f"c{i}" for i in range(n)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    train(_chairs(24, 0), out=out, category="chair", n_keypoints=8, epochs=5, batch_size=4, accelerator="cpu")
    return out


@pytest.fixture(scope="module")
def detector(folder):
    return load_detector(folder)


def test_it_learns(folder, detector):
    rows = (folder / "log.csv").read_text().splitlines()
    assert len(rows) == 6
    assert float(rows[-1].split(",")[3]) < 0.95 * float(rows[1].split(",")[3])
    numbers = evaluate(detector, _chairs(16, 1))
    assert numbers["symmetry_error_deg"] < 1.5
    assert numbers["registration_median_deg"] < 3
    assert numbers["coverage_percent"] > 60
    assert 2 <= numbers["n_keypoints"] <= 8


def test_keypoints_follow_any_similarity(detector):
    clouds = _chairs(8, 2).points
    R = rotation_about_axis(torch.linspace(-0.7, 0.7, 8), 2)
    shift = torch.tensor([100.0, -30, 5])
    a = detector.detect(clouds)
    b = detector.detect(3 * clouds @ R.mT + shift)
    size = (clouds.amax(1) - clouds.amin(1)).amax(-1)[:, None, None] / 2
    off = ((b - shift) @ R / 3 - a) / size
    assert float(off.norm(dim=-1).mean()) < 0.02
    assert detector.detect(clouds[0]).shape == (detector.n_keypoints, 3)
    torch.testing.assert_close(
        detector.detect(clouds[:1])[0], detector.detect(clouds)[0], atol=1e-3, rtol=1e-4
    )


def test_clouds_that_come_turned_are_boxed_like_the_others(detector):
    clouds = _chairs(8, 5).normalised().points
    R = rotation_about_axis(torch.linspace(-0.7, 0.7, 8), 2)
    settled, centre, half = settle(detector.model, 5 * clouds @ R.mT + 3)
    assert float((settled @ R - clouds).norm(dim=-1).mean()) < 0.03
    torch.testing.assert_close(half, torch.full((8,), 5.0), rtol=0.03, atol=0)
    torch.testing.assert_close(
        settled * half[:, None, None] + centre[:, None], 5 * clouds @ R.mT + 3, rtol=1e-4, atol=1e-4
    )


def test_a_stored_detector_is_the_same(detector, tmp_path):
    detector.save(tmp_path)
    again = load_detector(tmp_path)
    clouds = _chairs(2, 3).points
    assert torch.equal(again.detect(clouds), detector.detect(clouds))
    assert again.category == "chair" and again.about["shapes"] == 24


def test_a_model_in_double_precision_detects_in_it(folder):
    detector = load_detector(folder)
    single, double = (_chairs(2, 3).points.to(t) for t in (torch.float32, torch.float64))
    before = detector.detect(single)
    detector.model.double()
    found = detector.detect(double)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), before, rtol=0, atol=0.05)


def test_the_true_plane_is_the_one_that_the_clouds_have(tmp_path):
    """With y up the plane may be across x or z; `evaluate` looks, and the mode without symmetry has none."""
    clouds = _chairs(16, 0)
    across_x = CloudSet(clouds.points[..., [0, 2, 1]], clouds.names, 1)
    more = {"n_keypoints": 6, "epochs": 1, "batch_size": 8, "accelerator": "cpu"}
    made = train(across_x, out=tmp_path / "symmetric", **more)
    assert evaluate(made, across_x)["symmetry_error_deg"] < 2
    assert evaluate(made, across_x, true_axes=(2,))["symmetry_error_deg"] > 80
    plain = train(across_x, out=tmp_path / "plain", settings={"mode": "plain"}, **more)
    assert not [name for name in evaluate(plain, across_x) if name.startswith("symmetry")]


def test_registration_undoes_a_similarity(detector):
    clouds = _chairs(3, 4).points
    moved, angle = rotate_randomly(clouds, 40, generator=torch.Generator().manual_seed(0))
    motion, target, residual = register(detector, 2 * moved + 9, clouds)
    assert target.tolist() == [0, 1, 2]
    torch.testing.assert_close(motion.R, rotation_about_axis(-angle, 2), atol=0.02, rtol=0)
    torch.testing.assert_close(motion.scale, torch.full((3,), 0.5), rtol=0.02, atol=0)
    assert float(residual.max()) < 0.03
    assert float((motion(2 * moved + 9) - clouds).norm(dim=-1).max()) < 3  # units of 1/50


def test_a_resumed_training_is_the_same(tmp_path):
    more = {"n_keypoints": 6, "batch_size": 4, "accelerator": "cpu", "epochs": 2}

    def stop(text, _share):
        if text.startswith("epoch 2/2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(_chairs(8, 0), out=tmp_path / "parts", progress=stop, **more)
    assert len((tmp_path / "parts" / "log.csv").read_text().splitlines()) == 2
    for out in ("whole", "parts"):
        train(_chairs(8, 0), out=tmp_path / out, **more)
    whole, parts = (load_detector(tmp_path / out) for out in ("whole", "parts"))
    for a, b in zip(whole.model.state_dict().values(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_run_goes_on_only_with_its_own_clouds_losses_settings_and_batches(tmp_path):
    more = {"recipe": "paper", "n_keypoints": 6, "batch_size": 4, "epochs": 2, "accelerator": "cpu"}
    train(_chairs(8, 0), out=tmp_path, **more)
    others = (
        ({"losses": PaperLosses(released=False)}, "'released': True"),
        ({"losses": OurLosses()}, "'class': 'PaperLosses'"),
        ({"batch_size": 2}, "batch_size 4"),
        ({"settings": {"mode": "plain"}}, "'mode': 'symmetric'"),
        ({"epochs": 1}, "epochs 2"),
    )
    for other, told in others:
        with pytest.raises(ValueError, match=f"belongs to another run .*{told}"):
            train(_chairs(8, 0), out=tmp_path, **{**more, **other})
    with pytest.raises(ValueError, match=r"belongs to another run .*data"):
        train(_chairs(8, 1), out=tmp_path, **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "mode"), [("geoframe", "symmetric"), ("paper", "symmetric"), ("paper", "plain")]
)
def test_two_processes_learn_what_one_does(tmp_path, recipe, mode):
    more = {"n_keypoints": 6, "accelerator": "cpu", "epochs": 2, "recipe": recipe}
    more |= {"settings": {"mode": mode}}
    with pytest.raises(ValueError, match="one a device, found 2"):
        train(_chairs(2, 0), out=tmp_path, devices=3, **more)
    sizes = {1: 4, 2: 5}  # five clouds cannot be shared by two, so four are
    made = [
        train(_chairs(8, 0), out=tmp_path / str(n), devices=n, batch_size=b, **more) for n, b in sizes.items()
    ]
    one, two = (d.predict(_chairs(4, 1).normalised().points) for d in made)
    for name, x, y in zip(one._fields, one, two, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}")
    logs = (list(csv.DictReader((tmp_path / n / "log.csv").open())) for n in "12")
    for first, second in zip(*logs, strict=True):
        for name in first.keys() - {"seconds"}:
            assert float(second[name]) == pytest.approx(float(first[name]), rel=5e-3, abs=1e-6), name


def test_the_paper_s_recipe_and_both_forms_of_its_losses(tmp_path):
    for released in (True, False):
        out = tmp_path / str(released)
        made = train(
            _chairs(8, 0),
            out=out,
            recipe="paper",
            n_keypoints=6,
            settings={"mode": "plain"},
            losses=PaperLosses(released),
            epochs=1,
            accelerator="cpu",
        )
        assert made.recipe == "paper" and made.model.settings["mode"] == "plain"
        assert made.detect(_chairs(2, 1).points).shape == (2, made.n_keypoints, 3)


def test_what_is_no_model_is_told(tmp_path, folder):
    with pytest.raises(ValueError, match=r"expected model.json and model.safetensors"):
        load_detector(tmp_path)
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    described = json.loads((tmp_path / "model.json").read_text())
    described["settings"]["n_keypoints"] = 10
    (tmp_path / "model.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match="expected a model of category keypoints, found something else"):
        load_detector(tmp_path)
    for key, value in (("group", [0, 1]), ("canonical", [[0, 0, 0]]), ("about", None)):
        described = json.loads((folder / "model.json").read_text()) | {key: value}
        if value is None:
            del described[key]
        (tmp_path / "model.json").write_text(json.dumps(described))
        with pytest.raises(ValueError, match="expected a model of category keypoints, found something else"):
            load_detector(tmp_path)
    (tmp_path / "model.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="format 'other'"):
        load_detector(tmp_path)


def test_bad_clouds_are_told(detector):
    with pytest.raises(ValueError, match="expected shape"):
        detector.detect(torch.rand(5, 2))
    with pytest.raises(ValueError, match="one whose points are all the same"):
        detector.detect(torch.ones(1, 50, 3))
    with pytest.raises(ValueError, match="finite"):
        detector.detect(torch.full((1, 50, 3), float("nan")))
    with pytest.raises(ValueError, match="at least 4 points"):
        detector.detect(torch.rand(1, 3, 3))
    with pytest.raises(ValueError, match="at least 4 points that differ"):
        detector.detect(torch.eye(3).repeat(1, 20, 1))
    with pytest.raises(ValueError, match=r"at least one cloud, found shape \(0, 50, 3\)"):
        detector.detect(torch.rand(0, 50, 3))
    y_up = CloudSet(_chairs(4, 0).points.roll(-1, -1), tuple("abcd"), 1)
    with pytest.raises(ValueError, match="expected the model's vertical axis, z, found y"):
        evaluate(detector, y_up)
    for axes in ((), (7,)):
        with pytest.raises(ValueError, match="true_axes: expected numbers of axes"):
            evaluate(detector, _chairs(4, 0), true_axes=axes)


def test_bad_trainings_are_told(tmp_path):
    with pytest.raises(TypeError, match="clouds: expected a CloudSet, found Tensor"):
        train(_chairs(4, 0).points, out="unused")
    with pytest.raises(ValueError, match=r"settings: expected some of n_keypoints, .* found rotation"):
        train(_chairs(4, 0), out="unused", settings={"rotation": "any"})
    for recipe, low in (("geoframe", 6), ("paper", 3)):
        with pytest.raises(ValueError, match=f"n_keypoints: expected an integer at least {low}, found 2"):
            train(_chairs(4, 0), out="unused", recipe=recipe, n_keypoints=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"out: expected a folder .* found the file"):
        train(_chairs(4, 0), out=tmp_path / "file", accelerator="cpu")
    with pytest.raises(ValueError, match="accelerator, devices, precision: expected what this machine has"):
        train(_chairs(4, 0), out=tmp_path / "tpu", accelerator="tpu")
    with pytest.raises(ValueError, match="at least two to learn a category"):
        train(_chairs(1, 0), out="unused")
    with pytest.raises(ValueError, match=r"degrees: expected a number in \[0, 180\], found 200"):
        train(_chairs(4, 0), out="unused", degrees=200)
    with pytest.raises(ValueError, match="batch_size: expected an integer at least 1, found 0"):
        train(_chairs(4, 0), out="unused", batch_size=0)


def test_the_four_commands(tmp_path, capsys):
    import numpy as np

    np.savez(tmp_path / "chair.npz", train=_chairs(12, 0).points.numpy(), test=_chairs(4, 1).points.numpy())
    data, model = ["--data", str(tmp_path)], str(tmp_path / "model")
    short = ["--epochs", "1", "--points", "480", "--accelerator", "cpu"]
    assert main(["keypoints", "train", *data, "--category", "chair", "--out", model, *short]) == 0
    assert main(["keypoints", "predict", model, *data, "--out", str(tmp_path / "p")]) == 0
    found = json.loads((tmp_path / "p" / "keypoints.json").read_text())["keypoints"]
    assert list(found) == [f"test_{i:04d}" for i in range(4)]
    assert (tmp_path / "p" / "keypoints.png").stat().st_size > 10_000
    assert "test_0003" in (tmp_path / "p" / "keypoints.html").read_text()
    first, second = (tmp_path / "one.xyz", tmp_path / "two.xyz")
    np.savetxt(first, _chairs(1, 7).points[0].numpy())
    np.savetxt(
        second, 2 * _chairs(1, 7).points[0].numpy() @ rotation_about_axis(torch.tensor(0.3), 2).numpy().T + 5
    )
    assert main(["keypoints", "evaluate", model, *data, "--out", str(tmp_path / "e")]) == 0
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["shapes"] == 4
    assert "| published | 88.83 |" in (tmp_path / "e" / "evaluation.md").read_text()
    assert main(["keypoints", "register", model, str(first), str(second), "--out", str(tmp_path / "r")]) == 0
    (row,) = json.loads((tmp_path / "r" / "registration.json").read_text())
    assert row["residual"] < 0.05 and row["scale"] == pytest.approx(2, rel=0.03)
    np.testing.assert_allclose(row["rotation"], rotation_about_axis(torch.tensor(0.3), 2), atol=0.03)
    capsys.readouterr()
    assert main(["keypoints", "train", *data, "--category", "boat", "--out", model]) == 2
    assert "boat" in capsys.readouterr().err
    assert main(["keypoints", "predict", str(tmp_path), *data, "--out", str(tmp_path / "p")]) == 2
    assert "expected model.json" in capsys.readouterr().err


def test_procedural_data_has_parts():
    clouds = load_clouds("procedural", "chair", split="val", n_points=128, limit=2)
    assert len(clouds) == 2 and clouds.up == 1
    assert clouds.labels is not None and clouds.canonical is not None
