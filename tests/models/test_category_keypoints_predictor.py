"""Category keypoints in use, on small clouds: train, save, load, predict, register; bad input."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

from geoframe.data import load_clouds, rotate_randomly
from geoframe.data.corruptions import corrupted
from geoframe.layers import symmetry_frame
from geoframe.models.category_keypoints import OURS, PAPER, PAPER_AS_WRITTEN, load, register, train
from geoframe.placing import CATEGORY_MODELS
from geoframe.placing import calibrate as calibration
from geoframe.placing.locate import locate, settle
from geoframe.placing.look_again import LookAgain, sides_of_box
from geoframe.surface.clouds import thinned
from geoframe.transforms import Similarity, rotation_about_axis
from geoframe.zoo.rigid import CATEGORIES


def test_keypoints_follow_any_similarity(chairs, predictor):
    clouds = chairs(8, 2).points
    R = rotation_about_axis(torch.linspace(-0.7, 0.7, 8), 2)
    shift = torch.tensor([100.0, -30, 5])
    a, b = predictor.predict(clouds), predictor.predict(3 * clouds @ R.mT + shift)
    size = (clouds.amax(1) - clouds.amin(1)).amax(-1)[:, None, None] / 2
    for x, y in ((a.keypoints, b.keypoints), (a.nodes, b.nodes)):
        off = ((y - shift) @ R / 3 - x) / size
        assert float(off.norm(dim=-1).mean()) < 0.02
    torch.testing.assert_close(b.rotation, R @ a.rotation, atol=0.02, rtol=0)
    torch.testing.assert_close(b.canonical, a.canonical, atol=0.05, rtol=0)


def test_any_batch_shape_array_or_list_is_taken(chairs, predictor):
    clouds = chairs(4, 2).points
    whole = predictor.predict(clouds)
    K, M = predictor.n_keypoints, predictor.model.basis.n_keypoints
    for shape in ((), (1,), (2, 2)):
        n = 2 ** len(shape) if len(shape) == 2 else 1
        found = predictor.predict(clouds[:n].reshape(*shape, *clouds.shape[1:]))
        assert found.keypoints.shape == (*shape, K, 3) and found.rotation.shape == (*shape, 3, 3)
        assert found.nodes.shape == (*shape, M, 3)
        torch.testing.assert_close(
            found.keypoints.reshape(n, K, 3), whole.keypoints[:n], atol=1e-2, rtol=1e-4
        )
    for other in (clouds[0].numpy(), clouds[0].tolist(), clouds[0].numpy().astype("float64")):
        torch.testing.assert_close(
            predictor.predict(other).keypoints.float(), whole.keypoints[0], atol=1e-2, rtol=1e-4
        )


def test_clouds_that_come_rotated_are_boxed_like_the_others(chairs, predictor):
    clouds = chairs(8, 5).normalised().points
    R = rotation_about_axis(torch.linspace(-0.7, 0.7, 8), 2)
    settled, centre, half, turned = settle(predictor.model, 5 * clouds @ R.mT + 3)
    torch.testing.assert_close(turned, R @ settle(predictor.model, clouds)[3], atol=0.03, rtol=0)
    assert float((settled @ R - clouds).norm(dim=-1).mean()) < 0.03
    torch.testing.assert_close(half, torch.full((8,), 5.0), rtol=0.03, atol=0)
    torch.testing.assert_close(
        settled * half[:, None, None] + centre[:, None], 5 * clouds @ R.mT + 3, rtol=1e-4, atol=1e-4
    )


def test_a_stored_predictor_is_the_same(chairs, predictor, tmp_path):
    predictor.save(tmp_path)
    again = load(tmp_path)
    clouds = chairs(2, 3).points
    first, second = again.predict(clouds), predictor.predict(clouds)
    for name in ("keypoints", "canonical", "nodes", "rotation", "coefficients", "dropped"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert bool(first.score.isnan().all()) and first.warnings == ("", "")  # too few clouds to calibrate
    assert again.category == "chair" and again.about == predictor.about
    assert again.about["shapes"] == 24 and again.about["recipe"] == "geoframe" and again.about["epochs"] == 5


def test_weights_that_are_stored_small_are_nearly_the_same(chairs, predictor, tmp_path):
    predictor.save(tmp_path / "whole")
    predictor.save(tmp_path / "small", small=True)
    sizes = [(tmp_path / x / "model.safetensors").stat().st_size for x in ("whole", "small")]
    assert sizes[1] < 0.35 * sizes[0]
    again = load(tmp_path / "small")
    for (name, a), b in zip(
        predictor.model.state_dict().items(), again.model.state_dict().values(), strict=True
    ):
        largest = a.abs().amax(-1, keepdim=True) if a.ndim else a.abs()
        assert bool(((a - b).abs() <= largest / 250 + 1e-7).all()), name
    clouds = chairs(4, 3).points
    off = (again.predict(clouds).keypoints - predictor.predict(clouds).keypoints).norm(dim=-1)
    assert float(off.mean()) < 0.01 * 50


@pytest.fixture(scope="module")
def procedural():
    """The model of the package, and chairs that it has not seen."""
    return load("chair"), load_clouds("procedural", "chair", split="test", limit=3)


def test_a_wrong_turn_is_left_where_another_fits(procedural):
    """From a start a quarter turn off, the other starts find what the search of all angles finds."""
    predictor, clouds = procedural
    points = clouds.points.double()
    right = predictor._look(points)
    R = right.located.motion.R @ rotation_about_axis(torch.tensor(math.pi / 2).double(), predictor.up)
    wrong = predictor._look(points, R, any_turn=False)
    assert bool((wrong.score < predictor.limit).all()) and bool((right.score > wrong.score).all())
    again = LookAgain(predictor._look, predictor.up, predictor.limit)
    found = again.other_turns(points, wrong)
    torch.testing.assert_close(found.score, right.score, atol=0.05, rtol=0)
    places = [x.located.motion(x.found.keypoints.double()) for x in (found, right)]
    torch.testing.assert_close(*places, atol=0.02, rtol=0)
    kept = again.other_turns(points, right)
    assert torch.equal(kept.score, right.score)  # what is not doubtful is not looked at again


@pytest.mark.parametrize(
    ("scores", "taken"),
    [
        ((0.1, 0.9, 0.2, 0.3, 0.1, 0.1), 1),  # another axis up
        ((0.1, 0.2, 0.9, 0.3, 0.1, 0.1), 2),
        ((0.1, 0.84, 0.2, 0.3, 0.1, 0.1), 0),
        ((0.1, 0.2, 0.3, 0.9, 0.1, 0.1), 0),  # a head where another axis' end is below, and upside down
        ((0.1, 0.2, 0.3, 0.2, 0.1, 0.9), 0),
        ((0.1, 0.2, 0.3, 0.2, 0.1, 0.97), 5),
        ((0.1, 0.87, 0.2, 0.2, 0.1, 0.94), 0),  # what scores best is not sure enough
        ((0.6, 0.9, 0.1, 0.1, 0.1, 0.1), 0),  # no more than three of log-odds ahead of the given side
        ((0.8, 0.99, 0.1, 0.1, 0.1, 0.1), 0),  # not doubtful
    ],
)
def test_which_sides_are_taken_with_which_scores(procedural, scores, taken):
    predictor, clouds = procedural
    points, up = clouds.points[:1].double(), predictor.up
    seen = predictor._look(points)
    sides = torch.stack([torch.eye(3, dtype=torch.float64), *sides_of_box(up)])

    def look(clouds, turn=None, **_):
        which = [int((sides - t.mT).abs().flatten(1).amax(1).argmin()) for t in turn]
        rows = torch.zeros(len(which), dtype=torch.long)
        kept = [type(x)(*(y[rows] for y in x)) for x in (seen.located._replace(motion=seen.located.points),)]
        located = kept[0]._replace(motion=Similarity(*(y[rows] for y in seen.located.motion)))
        found = type(seen.found)(*(y[rows] for y in seen.found))
        told = torch.tensor([scores[i] for i in which])
        return seen._replace(located=located, found=found, score=told, uncertainty=seen.uncertainty[rows])

    again = LookAgain(look, up, 0.72)
    given = seen._replace(score=torch.tensor([scores[0]]))
    found, turned = again.other_sides(points, given)
    assert float(found.score) == pytest.approx(scores[taken])
    assert torch.equal(turned[0], sides[taken])


def test_the_axis_of_several_clouds(procedural, chairs):
    predictor, clouds = procedural
    for k, axis in enumerate("yzx"):
        up, scores = predictor.common_up(clouds.points.roll(k, 2))
        assert up == axis and max(scores, key=scores.__getitem__) == axis
    ball = torch.randn(2, 1024, 3, generator=torch.Generator().manual_seed(0))
    assert predictor.common_up(ball)[0] == "y"
    assert predictor.common_up(clouds.points[0].roll(1, 1))[0] == "z"
    plain = replace(predictor, confidence=None)
    assert plain.common_up(clouds.points.roll(1, 2)) == ("y", {})
    for some in (predictor, plain):
        with pytest.raises(ValueError, match="at least one cloud"):
            some.common_up(torch.zeros(0, 10, 3))


def test_every_model_of_the_package_is_read_by_its_name():
    names = sorted(x.name for x in CATEGORY_MODELS.iterdir())
    assert names == sorted(CATEGORIES)
    for name in names:
        model = load(name)
        assert model.category == name and 0 < model.limit < 1 and model.n_keypoints >= 10
        assert (CATEGORY_MODELS / name / "model.safetensors").stat().st_size < 700_000


def test_scores_of_another_version_are_told_with_the_remedy(tmp_path):
    shutil.copytree(CATEGORY_MODELS / "chair", tmp_path / "old")
    about = json.loads((tmp_path / "old" / "model.json").read_text())
    (tmp_path / "old" / "model.json").write_text(json.dumps(about | {"evidence": 13}))
    with pytest.raises(ValueError, match="scores of another version: run the same training again"):
        load(tmp_path / "old")


def test_the_model_of_the_package_trusts_chairs_and_no_other_shapes(procedural):
    predictor, clouds = procedural
    found = predictor.predict(clouds.points)
    assert bool((found.score >= predictor.limit).all()) and found.warnings == ("",) * 3
    ball = torch.randn(2, 1024, 3, generator=torch.Generator().manual_seed(0))
    told = predictor.predict(ball / ball.norm(dim=-1, keepdim=True), any_up=False)
    assert bool((told.score < predictor.limit).all()) and all("not to be trusted" in w for w in told.warnings)


def test_what_is_left_of_tilt_and_walls_is_that_of_the_points_found(procedural):
    predictor, clouds = procedural
    tilted, _ = corrupted(clouds.points, "tilted 15", up=clouds.up, seed=1)
    points = torch.cat([clouds.points.double(), tilted])
    found = locate(predictor.model, predictor.placement, points)
    assert bool((found.tilt[3:] > 8).all())
    with torch.no_grad():
        left = predictor.placement(thinned(found.points, 512) @ symmetry_frame(predictor.model.basis).mT)
    sizes = torch.stack([left.tilt.norm(dim=-1), left.walls.abs().amax(-1)], 1)
    torch.testing.assert_close(found.left, sizes, atol=0.02, rtol=0)


def test_a_model_in_double_precision_predicts_in_it(chairs, folder):
    predictor = load(folder)
    single, double = (chairs(2, 3).points.to(t) for t in (torch.float32, torch.float64))
    before = predictor.predict(single).keypoints
    predictor.model.double()
    found = predictor.predict(double).keypoints
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), before, rtol=0, atol=0.05)


def test_registration_undoes_a_similarity(chairs, predictor):
    clouds = chairs(3, 4).points
    moved, angle = rotate_randomly(clouds, 40, generator=torch.Generator().manual_seed(0))
    motion, target, residual = register(predictor, 2 * moved + 9, clouds)
    assert target.tolist() == [0, 1, 2]
    torch.testing.assert_close(motion.R, rotation_about_axis(-angle, 2), atol=0.02, rtol=0)
    torch.testing.assert_close(motion.scale, torch.full((3,), 0.5), rtol=0.02, atol=0)
    assert float(residual.max()) < 0.03
    assert float((motion(2 * moved + 9) - clouds).norm(dim=-1).max()) < 3  # units of 1/50


def test_a_resumed_training_is_the_same(chairs, small, tmp_path):
    def stop(text, _share):
        if text.startswith("epoch 2/2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(chairs(8, 0), out=tmp_path / "parts", recipe=small(), accelerator="cpu", progress=stop)
    assert len((tmp_path / "parts" / "log.csv").read_text().splitlines()) == 2
    whole, parts = (
        train(chairs(8, 0), out=tmp_path / out, recipe=small(), accelerator="cpu")
        for out in ("whole", "parts")
    )
    for a, b in zip(whole.model.state_dict().values(), parts.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_run_is_used_before_its_end_and_goes_on_after_it(chairs, small, tmp_path):
    def stop(text, _share):
        if text.startswith("epoch 2/2"):
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(chairs(8, 0), out=out, recipe=small(), accelerator="cpu", progress=stop)
    early = load(out)
    assert early.about["epochs"] == 1 and not early.about["finished"]
    told = early.predict(chairs(2, 5).points)
    assert told.keypoints.shape == (2, early.model.basis.n_keypoints, 3) and told.score.isnan().all()
    done = train(chairs(8, 0), out=out, recipe=small(), accelerator="cpu")
    longer = train(chairs(8, 0), out=out, recipe=small().with_epochs(3), accelerator="cpu")
    assert len((out / "log.csv").read_text().splitlines()) == 1 + 3
    before, after = (list(x.model.state_dict().values()) for x in (done, longer))
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_run_goes_on_only_with_its_own_clouds_losses_settings_and_batches(chairs, small, tmp_path):
    def again(clouds, **more):
        base = {"recipe": small(base=PAPER), "out": tmp_path, "accelerator": "cpu"}
        train(clouds, **{**base, **more})

    again(chairs(8, 0))
    others = (
        (small(base=PAPER_AS_WRITTEN), "losses .*'distance_form': 'mean'"),
        (replace(small(base=PAPER), losses=OURS.losses), "losses .*'extent': 0.0"),
        (small(base=PAPER, size=2), "batches .*'size': 4"),
        (small(base=PAPER).with_settings(mode="plain"), "'mode': 'symmetric'"),
    )
    for recipe, told in others:
        with pytest.raises(ValueError, match=f"belongs to another run .*{told}"):
            again(chairs(8, 0), recipe=recipe)
    with pytest.raises(ValueError, match=r"has 2 epochs, more than the 1 that are asked for"):
        again(chairs(8, 0), recipe=small(1, base=PAPER))
    with pytest.raises(ValueError, match=r"belongs to another run .*data"):
        again(chairs(8, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("base", "mode"), [(OURS, "symmetric"), (PAPER, "symmetric"), (PAPER, "plain")])
def test_two_processes_learn_what_one_does(chairs, small, tmp_path, base, mode):
    with pytest.raises(ValueError, match="one a device, found 2"):
        train(chairs(2, 0), out=tmp_path, devices=3, accelerator="cpu")
    sizes = {1: 4, 2: 5}  # five clouds cannot be shared by two, so four are
    made = [
        train(
            chairs(8, 0),
            out=tmp_path / str(n),
            devices=n,
            accelerator="cpu",
            recipe=small(base=base, size=size).with_settings(mode=mode),
        )
        for n, size in sizes.items()
    ]
    one, two = (d.predict_normalised(chairs(4, 1).normalised().points) for d in made)
    for name, x, y in zip(one._fields, one, two, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}")
    logs = (list(csv.DictReader((tmp_path / n / "log.csv").open())) for n in "12")
    for first, second in zip(*logs, strict=True):
        for name in first.keys() - {"seconds"}:
            assert float(second[name]) == pytest.approx(float(first[name]), rel=5e-3, abs=1e-6), name


def test_what_is_no_model_is_told(tmp_path, folder):
    with pytest.raises(ValueError, match=r"expected model.json and model.safetensors"):
        load(tmp_path)
    with pytest.raises(
        ValueError, match="sofa: expected a folder of a model, or one of aeroplane, car, chair, "
    ):
        load("sofa")
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    about = json.loads((tmp_path / "model.json").read_text())
    for key, value in (
        ("settings", about["settings"] | {"n_keypoints": 10}),
        ("settings", about["settings"] | {"n_keypoints": 7}),
        ("group", [0, 1]),
        ("canonical", [[0, 0, 0]]),
        ("about", None),
    ):
        changed = about | {key: value}
        if value is None:
            del changed[key]
        (tmp_path / "model.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match="expected a model of category keypoints, found something else"):
            load(tmp_path)


def test_bad_clouds_are_told(predictor):
    with pytest.raises(ValueError, match="expected shape"):
        predictor.predict(torch.rand(5, 2))
    with pytest.raises(TypeError, match="points: expected a tensor, a NumPy array or a list of numbers"):
        predictor.predict("chair")
    with pytest.raises(ValueError, match="one whose points are all the same"):
        predictor.predict(torch.ones(1, 50, 3))
    with pytest.raises(ValueError, match="finite"):
        predictor.predict(torch.full((1, 50, 3), float("nan")))
    with pytest.raises(ValueError, match="at least 4 points"):
        predictor.predict(torch.rand(1, 3, 3))
    with pytest.raises(ValueError, match="at least 4 points that differ"):
        predictor.predict(torch.eye(3).repeat(1, 20, 1))
    with pytest.raises(ValueError, match=r"at least one cloud, found shape \(0, 50, 3\)"):
        predictor.predict(torch.rand(0, 50, 3))
    with pytest.raises(ValueError, match=r"at least one point a cloud, found shape \(2, 0, 3\)"):
        predictor.predict(torch.rand(2, 0, 3))


def test_bad_trainings_are_told(chairs, tmp_path):
    with pytest.raises(TypeError, match="clouds: expected a CloudSet, found Tensor"):
        train(chairs(4, 0).points, out="unused")
    with pytest.raises(TypeError, match="recipe: expected a Recipe such as OURS or PAPER, found str"):
        train(chairs(4, 0), out="unused", recipe="paper")
    with pytest.raises(ValueError, match=r"settings: expected some of n_keypoints, .* found rotation"):
        train(chairs(4, 0), out="unused", recipe=OURS.with_settings(rotation="any"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"out: expected a folder .* found the file"):
        train(chairs(4, 0), out=tmp_path / "file", accelerator="cpu")
    with pytest.raises(ValueError, match="accelerator, devices, precision: expected what this machine has"):
        train(chairs(4, 0), out=tmp_path / "tpu", accelerator="tpu")
    with pytest.raises(ValueError, match="at least two to learn a category"):
        train(chairs(1, 0), out="unused")
    with pytest.raises(ValueError, match=r"degrees: expected a number in \[0, 180\], found 200"):
        train(chairs(4, 0), out="unused", degrees=200)


def test_calibration_learns_which_clouds_keep_their_keypoints(chairs, predictor, monkeypatch):
    monkeypatch.setattr(
        calibration, "_KINDS", ("clean", "turned 180", "another axis up", "half", "few points")
    )
    learned, aside = (chairs(n, seed).normalised() for n, seed in ((16, 0), (8, 1)))
    made = calibration.calibrate(predictor.model, predictor.group, learned, aside, 4, seed=2)
    flagged = made.about["flagged"]
    assert made.about["clouds"] == 24 and made.about["planes"] == 1
    assert flagged["clean"] < 0.2 and flagged["moved"] > 0.5 + flagged["clean"]
    assert 0 < float(made.confidence.limit) < 1
    same = calibration.calibrate(predictor.model, predictor.group, learned, aside, 4, seed=2)
    assert torch.equal(same.confidence.weights, made.confidence.weights)
