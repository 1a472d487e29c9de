"""The parts that pages are made of: what is escaped, where numbers stand, and that nothing is cut in a browser."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest

from geoframe.viz.page import card, cards, image, number, packed, png, table, words, write_page


def test_text_is_escaped_and_html_is_not(tmp_path):
    write_page(tmp_path / "p.html", "a < b", "<em>body</em>", lead="c & d", data=["</script>"])
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<title>a &lt; b</title>" in page and "<h1>a &lt; b</h1>" in page and "c &amp; d" in page
    assert "<em>body</em>" in page and page.count("</script>") == 1
    assert json.loads(re.search(r'id="data">(.*?)</script>', page)[1]) == ["</script>"]
    assert "<h2>x &lt; y</h2><b>z</b>" in card("x < y", "<b>z</b>")


def test_the_first_column_is_text_and_the_others_stand_at_the_right():
    text = table([("<a>", 1.23456789, 7)], ("name", "value", "count"))
    assert '<th>name</th><th class="n">value</th><th class="n">count</th>' in text
    assert '<td>&lt;a&gt;</td><td class="n">1.235</td><td class="n">7</td>' in text
    assert table({"k": 2.0}).count("<tr>") == 1 and "<th" not in table({"k": 2.0})
    assert 'class="scroll tall"' in table([(1, 2)], tall=True)


def test_numbers_and_words():
    assert [number(x) for x in (0.030123, 12345.678, 3, True, "a<b")] == [
        "0.03012",
        "1.235e+04",
        "3",
        "True",
        "a&lt;b",
    ]
    assert words("geodesic_error_curve") == "Geodesic error curve" and words("C_12") == "C 12"


def test_pictures_and_numbers_come_back_from_their_text():
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 255, (5, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), picture)
    inside = base64.b64decode(re.search(r'base64,([^"]+)"', image(picture, "x", kind="map"))[1])
    assert inside == png(picture)
    x = np.linspace(0, 1, 7).reshape(7, 1)[::-1]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed(x, "<f8")), "<f8"), x.ravel())


MEASURE = """<script>
const box = document.querySelector(".scroll"), page = document.documentElement;
const cards = [...document.querySelectorAll(".card")];
page.dataset.page = page.scrollWidth - page.clientWidth;
page.dataset.cut = cards.filter((c) => c.scrollWidth > c.clientWidth).length;
page.dataset.table = box.scrollWidth - box.clientWidth;
</script>"""


@pytest.mark.parametrize("width", [1300, 800])
def test_a_wide_table_is_not_cut_nor_widens_the_page(width, browse, tmp_path):
    head = ["start", *(f"measure number {i}" for i in range(9))]
    rows = [["from the landmark coordinates", *np.linspace(0, 1, 9).tolist()]] * 6
    body = cards([card("Small", table({"k": 1.0})), card("Wide", table(rows, head), wide=True)])
    write_page(tmp_path / "p.html", "t", body + MEASURE)
    root = re.search(r"<html[^>]*>", browse(tmp_path / "p.html", width))[0]
    assert 'data-page="0"' in root and 'data-cut="0"' in root

    narrow = cards([card("Narrow", table([["x" * 8] * 40] * 3))])  # has to scroll, inside its card
    write_page(tmp_path / "p.html", "t", narrow + MEASURE)
    root = re.search(r"<html[^>]*>", browse(tmp_path / "p.html", width))[0]
    assert 'data-page="0"' in root and 'data-cut="0"' in root
    assert int(re.search(r'data-table="(\d+)"', root)[1]) > 100


def test_data_that_are_not_known_are_null(tmp_path):
    """NaN is no JSON: a browser would read none of the data."""
    write_page(tmp_path / "p.html", "a", "", data={"u": [float("nan"), 1.5], "v": float("inf")})
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert json.loads(re.search(r'id="data">(.*?)</script>', page)[1]) == {"u": [None, 1.5], "v": None}
    assert "NaN" not in page
