"""`geoframe match-images`: what it writes, folders of frames, and bad input in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from geoframe.cli import main
from geoframe.data.flow_files import read_flow, write_flow
from geoframe.flow.descriptors import smooth

FILES = {"matches.npz", "flow.flo", "matches.png", "flow.png", "metrics.json", "report.html"}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Three frames of a texture that moves by 3 pixels to the left."""
    folder = tmp_path_factory.mktemp("frames")
    wide = smooth(torch.rand(1, 3, 60, 90, generator=torch.Generator().manual_seed(0)), 1.2)[0]
    for i in range(3):
        part = (255 * wide[:, :, 3 * i : 3 * i + 80].permute(1, 2, 0)).byte().numpy()
        Image.fromarray(part).save(folder / f"{i}.png")
    return folder


def test_two_images(frames, tmp_path, capsys):
    write_flow(tmp_path / "truth.flo", torch.tensor([-3.0, 0.0])[:, None, None].expand(2, 60, 80))
    words = ["match-images", str(frames / "0.png"), str(frames / "1.png"), "--out", str(tmp_path / "out")]
    assert main([*words, "--truth", str(tmp_path / "truth.flo"), "--radius", "24"]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
    assert "matches; wrote" in capsys.readouterr().out
    with np.load(tmp_path / "out/matches.npz") as found:
        assert set(found) == {"points0", "points1", "score", "confidence"}
        assert found["points0"].shape == found["points1"].shape == (len(found["score"]), 2)
        np.testing.assert_allclose(np.median(found["points1"] - found["points0"], axis=0), [-3, 0], atol=0.05)
    numbers = json.loads((tmp_path / "out/metrics.json").read_text())
    assert numbers["epe"] < 0.5 and numbers["acc10"] > 97
    flow = read_flow(tmp_path / "out/flow.flo")
    assert float((flow[0] + 3).abs().median()) < 0.05
    page = (tmp_path / "out/report.html").read_text()
    assert (
        "0.png" in page and "data:image/jpeg" in page and "http" not in page.replace("http://www.w3.org", "")
    )


def test_a_folder_goes_on_where_a_frame_is_broken(frames, tmp_path, capsys):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes((frames / f"{i}.png").read_bytes())
    (folder / "3.png").write_bytes(b"nonsense")
    assert main(["match-images", str(folder), "--out", str(tmp_path / "out"), "--radius", "16"]) == 1
    told = capsys.readouterr()
    assert "2 of 3 pairs matched" in told.out and "2.png to 3.png" in told.err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"0", "1"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["A"], "expected two images, or one folder of frames, found one image"),
        (["A", "missing.png"], "missing.png"),
        (["A", "A", "--radius", "0"], "--radius: expected an integer at least 2, found 0"),
        (["A", "A", "--truth", "missing.flo"], "cannot read missing.flo"),
        (["A", "A", "--model", "missing"], "missing"),
        (["A", "A", "--embedding", "animals", "--radius", "8"], "--embedding: expected without --model"),
        (["EMPTY"], "expected at least one image"),
        (["EMPTY", "--truth", "x.flo"], "--truth: expected with two images only"),
    ],
)
def test_bad_input_is_one_line(frames, tmp_path, capsys, words, told):
    (tmp_path / "empty").mkdir()
    names = {"A": str(frames / "0.png"), "EMPTY": str(tmp_path / "empty")}
    assert main(["match-images", *(names.get(w, w) for w in words), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
