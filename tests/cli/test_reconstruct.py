"""`geoframe reconstruct` from a folder of images and masks to meshes on a page."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from geoframe.canonical import Surface
from geoframe.cli import _reconstructed, main
from geoframe.data.image_files import read_image
from geoframe.fitting.collections import on_screen, place
from geoframe.render import rasterize
from geoframe.surface import load_mesh
from geoframe.surface.shapes import icosphere
from geoframe.transforms import rotvec_to_rotation


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five eggs with keypoints, and the template."""
    out = tmp_path_factory.mktemp("eggs")
    ball = icosphere(2)
    x = ball.verts * torch.tensor([1.0, 0.6, 0.4]).double() * (1 + 0.3 * ball.verts[:, :1])
    x[:, 1] += 0.3 * x[:, 0] ** 2
    at = [0, 5, 40, 77, 120, 150]
    marks = {f"m{i}": v for i, v in enumerate(at)}
    Surface(x, ball.faces, landmarks=marks).save(out / "template")
    draw, told = torch.Generator().manual_seed(0), {}
    R = rotvec_to_rotation(0.4 * torch.randn(5, 3, generator=draw).double())
    R = R @ torch.diag(torch.tensor([1.0, -1.0, -1.0]).double())
    placed = place(x.expand(5, -1, -1), R, torch.zeros(5, 2).double(), torch.full((5,), 0.6).double())
    screen = on_screen(placed, 40)
    masks = rasterize(screen, ball.faces, (40, 40)).mask.numpy()
    for name in ("images", "masks"):
        (out / name).mkdir()
    for i, mask in enumerate(masks):
        Image.fromarray(np.where(mask[..., None], [200, 120, 60], 40).astype(np.uint8)).save(
            out / f"images/{i}.png"
        )
        Image.fromarray(255 * mask.astype(np.uint8)).save(out / f"masks/{i}.png")
        told[f"{i}.png"] = {n: [*screen[i, v, :2].tolist(), 1] for n, v in marks.items()}
    (out / "keypoints.json").write_text(json.dumps(told))
    return out


def test_from_training_to_a_page(data, tmp_path, capsys, monkeypatch):
    model, out = tmp_path / "model", tmp_path / "out"
    command = [
        "reconstruct",
        "train",
        "--data",
        str(data),
        "--template",
        str(data / "template"),
        "--out",
        str(model),
    ]
    small = ["--steps", "2", "--size", "32", "--backbone", "tiny", "--modes", "1", "--vertices", "162"]
    assert main([*command, *small]) == 0
    told = capsys.readouterr()
    assert "5 images, with keypoints, K = 1" in told.out and "how sure the pose is" in told.err
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [str(data / "images/0.png"), str(tmp_path / "broken.png")]
    given = ["--model", str(model), "--masks", str(data / "masks"), "--out", str(out), "--views", "2"]
    for box, line in (
        ([99, 99, 120, 120], "expected boxes in the image of 40 x 40"),
        (None, "as 0.png, found 7.png"),
    ):
        (tmp_path / "boxes.json").write_text(
            json.dumps({"7.png": [1, 1, 9, 9]} if box is None else {"0.png": box})
        )
        there = [
            "--model",
            str(model),
            "--boxes",
            str(tmp_path / "boxes.json"),
            "--out",
            str(tmp_path / "no"),
        ]
        assert main(["reconstruct", "predict", images[0], *there]) == 2
        assert line in capsys.readouterr().err
    assert main(["reconstruct", "predict", *images, *given]) == 1  # a part failed
    told = capsys.readouterr().err
    assert "broken.png" in told and "0.png: how sure the pose is, this model cannot tell" in told
    images.insert(1, str(data / "images/1.png"))
    assert main(["reconstruct", "predict", *images, *given]) == 1
    assert capsys.readouterr().err.count("how sure the pose is") == 1  # what is true of each is told once
    with (
        monkeypatch.context() as patched
    ):  # two at once, each in a process of its own, are what they are alone
        patched.setattr(_reconstructed, "_CHUNK", 1)
        again = [*given[:-4], "--out", str(tmp_path / "again"), "--views", "0", "--jobs", "2"]
        assert main(["reconstruct", "predict", images[0], images[1], *again]) == 0
        assert "NAME.png, reconstruction.html" in capsys.readouterr().out
    for name in ("0.obj", "1.obj"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    assert not [*(tmp_path / "again").glob("*.gif")]
    assert main(["reconstruct", "predict", images[0], *again[:-1], "0"]) == 2
    assert "--jobs: expected" in capsys.readouterr().err
    mesh = load_mesh(out / "0.obj")
    assert mesh.n_verts == 162 and mesh.uv is not None and mesh.colors is not None
    assert (out / "0.obj").read_text().startswith("mtllib 0.mtl\nusemtl photograph\n")
    assert "map_Kd 0_texture.png" in (out / "0.mtl").read_text()
    assert read_image(out / "0_texture.png").shape == (3, 40, 40)
    with Image.open(out / "0.gif") as turning:
        assert turning.n_frames == 2
    with Image.open(out / "0.png") as drawn:
        assert drawn.size == (400, 400)  # image and mesh over it above, the two views below
    told = json.loads((out / "0.json").read_text())
    assert len(told["placed"]) == 162 and np.linalg.det(told["rotation"]) == pytest.approx(1, abs=1e-5)
    assert "0.png" in (out / "reconstruction.html").read_text()
    assert main(["reconstruct", "evaluate", str(model), "--data", str(data), "--out", str(out)]) == 0
    numbers = json.loads((out / "evaluation.json").read_text())
    assert {"iou_soft", "iou_hard", "pck_10", "pck_15", "pck_10_regressed"} <= numbers.keys()


def test_bad_input_is_told_in_one_line(data, tmp_path, capsys):
    start = ["reconstruct", "train", "--out", str(tmp_path / "m"), "--data", str(data)]
    for more, told in (
        ([], "--template: expected a mesh"),
        (["--template", str(data / "template"), "--layout", "pascal3d"], "--category: expected the class"),
        (["--template", str(data / "template"), "--layout", "cub"], "expected train_cub_cleaned.mat"),
    ):
        assert main([*start, *more]) == 2
        assert told in capsys.readouterr().err
    nowhere = ["reconstruct", "train", "--out", str(tmp_path / "m"), "--data", str(tmp_path / "none")]
    assert main(nowhere) == 2 and "--data: expected a folder of images" in capsys.readouterr().err
    assert main(["reconstruct", "predict", "x.png", "--model", str(data), "--out", str(tmp_path)]) == 2
    assert "expected model.json and model.safetensors" in capsys.readouterr().err


def test_what_renders_show_chooses_modes_and_start(tmp_path, monkeypatch):
    from dataclasses import replace
    from types import SimpleNamespace

    from geoframe.cli.reconstruct import _known_shapes, _plan, _shown
    from geoframe.data import rendered_files
    from geoframe.models.to_the_point import OURS, PAPER
    from geoframe.models.to_the_point.recipe import TUNED

    shown = SimpleNamespace(surface_names=("cow",))
    monkeypatch.setattr(rendered_files, "load_rendered", lambda folder: shown)
    assert _shown(tmp_path) is None and _plan("geoframe", tmp_path, {"n_modes": 3}).n_modes == 3  # no renders
    (tmp_path / "set.json").write_text("{}")
    assert _shown(tmp_path) == "cow"
    assert _plan("geoframe", tmp_path, {}) == replace(OURS, backbone="animals", tuned=TUNED)
    assert _plan("geoframe", tmp_path, {"backbone": "small"}) == replace(OURS, backbone="small", enlarged=1)
    shown.surface_names = ("car",)
    things = _plan("geoframe", tmp_path, {})
    assert (things.n_modes, things.symmetric, things.backbone) == (12, 1.0, "things")
    assert _known_shapes(things, tmp_path, None, None, keypoints=True, modes=None) == (things, None)
    shown.surface_names = ("my-scan",)
    assert _known_shapes(OURS, tmp_path, None, None, keypoints=False, modes=None) == (OURS, None)
    assert _plan("geoframe", tmp_path, {}) == OURS
    shown.surface_names = ("car",)
    assert _plan("geoframe", tmp_path, {"n_modes": 5}).n_modes == 5
    assert _plan("paper", tmp_path, {}) == PAPER
    shown.surface_names = ("cow", "horse")  # several on surfaces of their own
    assert _shown(tmp_path) is None and _plan("geoframe", tmp_path, {}) == OURS


@pytest.mark.parametrize(
    ("name", "modes", "expected"), [("horse", None, 64), ("horse", 9, 24), ("car", None, 24)]
)
def test_animals_of_the_zoo_have_more_modes(name, modes, expected, tmp_path, monkeypatch):
    """A number that was asked for is in the recipe already, and stays."""
    from types import SimpleNamespace

    from geoframe.cli.reconstruct import _known_shapes
    from geoframe.data import rendered_files
    from geoframe.data.object_templates import zoo_template
    from geoframe.data.zoo_surfaces import zoo_surface
    from geoframe.models.to_the_point import OURS

    shown = SimpleNamespace(surface_names=(name,), surfaces=lambda: [zoo_surface(name)])
    monkeypatch.setattr(rendered_files, "load_rendered", lambda folder: shown)
    (tmp_path / "set.json").write_text("{}")
    own = _known_shapes(
        OURS, tmp_path, zoo_template(name), tmp_path / "mesh.obj", keypoints=False, modes=modes
    )
    assert own == (OURS, None)  # a template of one's own has no shapes that are known
    plan, shapes = _known_shapes(OURS, tmp_path, zoo_template(name), None, keypoints=False, modes=modes)
    assert (
        plan.n_modes == expected
        and shapes is not None
        and shapes.shape[1:] == (zoo_template(name).n_verts, 3)
    )
