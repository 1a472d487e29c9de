"""Rendered sets on disk: what comes back is what was made, after an interruption too."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from geoframe import cli
from geoframe.data import rendered_files
from geoframe.data.coco_files import read_coco
from geoframe.data.rendered import render_set
from geoframe.data.rendered_files import load_rendered, to_disk

N = 700  # vertices of the surfaces here


@pytest.fixture(scope="module")
def pictures():
    return render_set("horse", 70, size=32, seed=4, n_verts=N)


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    return to_disk(pictures, tmp_path_factory.mktemp("set"), verts=True)


def test_a_folder_gives_what_the_set_gives(pictures, folder):
    assert len(folder) == 70 and folder.categories == ("horse",) and folder.size == 32
    for numbers in ([3], [69, 5, 64]):
        made, read = pictures[numbers], folder[numbers]
        assert float((made.image - read.image).abs().max()) <= 0.5 / 255 + 1e-6
        for name in (
            "mask",
            "face",
            "barycentric",
            "vertex",
            "category",
            "landmarks",
            "visible",
            "index",
            "verts",
        ):
            a, b = getattr(made, name), getattr(read, name)
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        for name in ("R_wc", "t", "focal", "principal"):
            assert torch.equal(getattr(made.camera, name), getattr(read.camera, name))
    assert [len(b.index) for b in folder.batches(32)] == [32, 32, 6]
    a, b = pictures.surfaces()[0], folder.surfaces()[0]
    assert torch.equal(a.faces, b.faces) and a.landmarks == b.landmarks
    torch.testing.assert_close(a.verts, b.verts)


def test_the_coco_file_holds_pixels_of_the_truth(folder):
    read = read_coco(
        folder.folder / "annotations.json", folder.folder / "images", {"horse": folder.surfaces()[0]}
    )
    assert len(read) == sum(bool(m.any()) for b in folder.batches() for m in b.mask)
    for item in list(read)[:20]:
        truth = folder[int(item.name[:6])]
        at = item.points.floor().long()
        assert torch.equal(truth.vertex[0, at[:, 1], at[:, 0]], item.vertex)
        assert torch.equal(item.foreground(), truth.mask[0])


def test_an_interrupted_set_goes_on(pictures, folder, tmp_path, monkeypatch):
    shutil.copytree(folder.folder, tmp_path / "part")
    (tmp_path / "part/truth/000064.npz").unlink()
    (tmp_path / "part/images/000066.png").unlink()
    with pytest.raises(ValueError, match="those from 64 on are missing"):
        load_rendered(tmp_path / "part")
    asked, real = [], rendered_files._write_part
    monkeypatch.setattr(rendered_files, "_write_part", lambda *a: (asked.append(a[2:4]), real(*a)))
    again = to_disk(pictures, tmp_path / "part", verts=True)
    assert asked == [(64, 70)]
    assert torch.equal(again[66].image, folder[66].image)


def test_folders_that_cannot_be_used(pictures, folder, tmp_path):
    with pytest.raises(ValueError, match=r"found no set.json"):
        load_rendered(tmp_path)
    with pytest.raises(ValueError, match="found another seed"):
        to_disk(render_set("horse", 70, size=32, seed=5, n_verts=N), folder.folder, verts=True)
    with pytest.raises(IndexError, match="from 0 to 69"):
        folder[70]
    for name, text, told in (("a", "{", "not valid JSON"), ("b", "[]", "settings"), ("c", "{}", "settings")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "set.json").write_text(text)
        with pytest.raises(ValueError, match=told):
            load_rendered(tmp_path / name)
    shutil.copytree(folder.folder, tmp_path / "d")
    (tmp_path / "d/truth/000000.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"000000.npz: expected the truth"):
        load_rendered(tmp_path / "d")[0]


def test_the_command(tmp_path, capsys):
    words = ["render", "--category", "horse", "--n", "3", "--size", "32", "--vertices", str(N)]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "3 pictures of 32 x 32" in capsys.readouterr().out
    assert (tmp_path / "out/sheet.png").is_file() and len(load_rendered(tmp_path / "out")) == 3
    told = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [x["file_name"] for x in told["images"]] == sorted(x["file_name"] for x in told["images"])
    assert np.all([len(x["dp_x"]) <= 100 for x in told["annotations"]])
    assert cli.main(["render", "--category", "unicorn", "--out", str(tmp_path / "other")]) == 2
    assert "category: expected one of" in capsys.readouterr().err
