"""`geoframe embed annotate`: the page, and each kind of bad input in one line."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from geoframe import cli, save
from geoframe.surface.shapes import icosphere


@pytest.fixture
def files(tmp_path):
    from PIL import Image

    save(icosphere(1), tmp_path / "ball.off")
    (tmp_path / "photos").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "photos" / name)
    rows = [{"image": "photos/a.png", "points": [[1, 2, 41]]}]
    (tmp_path / "old.json").write_text(json.dumps(rows))
    (tmp_path / "other.json").write_text(json.dumps(rows).replace("41", "42"))
    return tmp_path


def _words(files, text):
    return [str(files / w[1:]) if w.startswith("@") else w for w in text.split()]


def test_the_page_is_written_and_goes_on_from_old_points(files, capsys):
    words = _words(
        files, "embed annotate @ball.off @photos --out @out/p.html --points @old.json --name earth"
    )
    (files / "out").mkdir()
    assert cli.main(words) == 0
    assert "2 images" in capsys.readouterr().out
    page = (files / "out" / "p.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])
    assert [(d["name"], d["points"]) for d in data["images"]] == [
        ("../photos/a.png", [[1.0, 2.0, 41]]),
        ("../photos/b.png", []),
    ]
    assert data["surface"]["name"] == "earth" and data["file"] == "p.json"
    assert cli.main(_words(files, "embed annotate @ball.off @photos/a.png --out @p.html")) == 0


def test_an_image_that_cannot_be_read_is_left_out(files, capsys):
    (files / "photos" / "c.jpg").write_bytes(b"no picture")
    assert cli.main(_words(files, "embed annotate @ball.off @photos --out @p.html")) == 1
    told = capsys.readouterr()
    assert "c.jpg" in told.err and "1 image left out" in told.err and "2 images" in told.out


BAD = [
    ("embed annotate @ball.off @photos --out @p.json", "--out: expected a name that ends in .html"),
    ("embed annotate @nope.off @photos --out @p.html", "no such file"),
    ("embed annotate @ball.off @empty --out @p.html", "expected at least one image"),
    ("embed annotate @ball.off @nope.png --out @p.html", "cannot read the image"),
    ("embed annotate @ball.off @photos --out @p.html --points @other.json", "expected a vertex from 0 to 41"),
    ("embed annotate @ball.off @photos --out @old.json/p.html", "cannot write"),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[b[1] for b in BAD])
def test_bad_input_is_one_line(text, said, files, capsys):
    assert cli.main(_words(files, text)) == 2
    told = capsys.readouterr()
    assert said in told.err and told.err.count("\n") == 1 and told.out == ""
    assert not (files / "p.html").exists()
