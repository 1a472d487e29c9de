"""The two pages with images: what they hold, and what a real browser does with clicks on them."""

from __future__ import annotations

import base64
import html
import json
import re

import numpy as np
import pytest
import torch

from geoframe import Surface, viz
from geoframe.data import image_files
from geoframe.pixels import PixelMap
from geoframe.surface.shapes import icosphere

H, W = 60, 80


@pytest.fixture(scope="module")
def sphere():
    return Surface.of(icosphere(2), {"pole": 3, "</script>": 7})


@pytest.fixture(scope="module")
def maps(sphere):
    """Two images of the front of the sphere, the second shifted by ten pixels."""
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    out = []
    for shift in (0, 10):
        u, v = (x - 35 - shift) / 25, (30 - y) / 25
        mask = u.square() + v.square() < 0.9
        point = torch.stack([u, v, (1 - u.square() - v.square()).clamp_min(0).sqrt()], -1).double()
        vertex = torch.cdist(point.view(-1, 3), sphere.verts.double()).argmin(1).view(H, W)
        out.append(PixelMap(sphere, vertex.masked_fill(~mask, -1), mask, 0.5 * mask.float()))
    return out


def _data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def _with(page, script):
    """Let a script run when the page stands; what it leaves in `found` comes back with the page."""
    text = page.read_text(encoding="utf-8")
    helper = """const found = {}, at = (id, x, y, kinds) => kinds.forEach((kind) => {
      const c = document.getElementById(id), box = c.getBoundingClientRect();
      c.dispatchEvent(new PointerEvent(kind, { clientX: box.x + x, clientY: box.y + y, bubbles: true })); });"""
    end = "document.documentElement.dataset.found = JSON.stringify(found);"
    page.write_text(
        text.replace("</body>", f"<script>{helper}{script}{end}</script></body>"), encoding="utf-8"
    )
    return page


def _found(dom):
    root = re.search(r"<html[^>]*>", dom)[0]
    assert 'data-errors=""' in root
    return json.loads(html.unescape(re.search(r'data-found="([^"]*)"', dom)[1]))


def test_the_pixel_page_holds_the_maps(maps, tmp_path):
    image = torch.rand(3, H, W)
    viz.write_pixel_page(tmp_path / "p.html", maps, [image, image], names=["a", "b<"], surface_name="ball")
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "://" not in page and "<b>b&lt;</b>" in page and page.count("data:image/jpeg") == 2
    for entry, m in zip(_data(page)["images"], maps, strict=True):
        vertex = np.frombuffer(base64.b64decode(entry["vertex"]), "<i4").reshape(H, W)
        assert np.array_equal(vertex, m.vertex.numpy())
        sure = np.frombuffer(base64.b64decode(entry["confidence"]), "u1").reshape(H, W)
        assert np.array_equal(sure > 0, m.mask.numpy())


def test_a_browser_links_images_and_surface(maps, browse, tmp_path):
    grey = torch.full((3, H, W), 0.5)
    page = tmp_path / "p.html"
    viz.write_pixel_page(page, maps, [grey, grey], names=["a", "b"], surface_name="ball")
    script = """
      const [x, y] = toScreen(views[0], 30.5, 22.5);
      at("i1", x, y, ["pointermove"]);
      found.vertex = surface.marked; found.there = views[1].marks[0].at; found.said = said.textContent;
      at("i1", ...toScreen(views[0], 2, 2), ["pointermove"]);
      found.off = [surface.marked, views[1].marks.length];
      const c = document.getElementById("c1");
      at("c1", c.clientWidth / 2, c.clientHeight / 2, ["pointermove"]);
      found.middle = surface.marked; found.seen = views.map((v) => v.marks.map((m) => m.at));"""
    found = _found(browse(_with(page, script)))
    vertex = int(maps[0].vertex[22, 30])
    assert found["vertex"] == vertex and found["off"] == [-1, 0]
    assert found["said"].startswith("a pixel (30.5, 22.5)") and found["said"].endswith("confidence 0.50")
    place = maps[1].points(torch.tensor([vertex])).pixels[0]
    shows = maps[1].vertex[int(found["there"][1]), int(found["there"][0])]
    assert int(shows) == vertex and np.abs(np.array(found["there"]) - place.numpy()).max() < 6
    for spots, m in zip(found["seen"], maps, strict=True):
        for x, y in spots:
            assert int(m.vertex[int(y), int(x)]) == found["middle"]


def test_bad_input_of_the_pixel_page_is_told(maps, tmp_path):
    grey, page = torch.full((3, H, W), 0.5), tmp_path / "p.html"
    with pytest.raises(ValueError, match="maps: expected one or more, an image for each"):
        viz.write_pixel_page(page, maps, [grey])
    with pytest.raises(ValueError, match=r"images: expected .* as its map"):
        viz.write_pixel_page(page, maps[0], grey[:, :10])
    other = PixelMap(icosphere(1), maps[0].vertex.clamp_max(5), maps[0].mask, maps[0].confidence)
    with pytest.raises(ValueError, match="maps: expected maps of one surface"):
        viz.write_pixel_page(page, [maps[0], other], [grey, grey])


@pytest.fixture
def photos(tmp_path):
    """Two images in a folder, the second on its side by its EXIF."""
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(folder / "b.jpg", exif=exif)
    return folder


def test_a_browser_saves_what_read_points_reads(sphere, photos, browse, tmp_path):
    page = tmp_path / "points.html"
    viz.write_annotation_page(page, sphere, photos, name="ball")
    assert [(d["name"], d["width"], d["height"]) for d in _data(page.read_text())["images"]] == [
        ("photos/a.png", W, H),
        ("photos/b.jpg", H, W),
    ]
    script = """
      const click = ["pointerdown", "pointerup"], c = element("c1"), half = [c.clientWidth / 2, c.clientHeight / 2];
      const image = (x, y) => at("i1", ...toScreen(view, x, y), click);
      image(10.25, 20.5); at("c1", ...half, click);           // image, then surface
      found.vertex = points[0][0][2];
      at("c1", ...half, click); image(30, 40);                 // surface, then image
      element("name").value = "pole"; element("name").onchange(); image(50, 5);   // a name, then image
      image(60, 50); undo();                                   // half a point
      image(61, 51); element("name").value = "pole"; element("name").onchange(); undo();   // a whole one
      image(-3, 7);                                            // beside the image: nothing
      element("after").onclick(); image(59, 79); element("name").value = "</" + "script>"; element("name").onchange();
      found.saved = saved(); found.rows = element("rows").rows.length; found.which = element("which").textContent;
      const text = saved(); points[0] = []; points[1] = []; take(text); found.again = saved() === text;
      element("rows").querySelector("button").onclick(); found.left = points[1].length; undo();
      found.back = points[1].length;"""
    found = _found(browse(_with(page, script)))
    assert found["again"] and found["rows"] == 1 and (found["left"], found["back"]) == (0, 1)
    assert found["which"].endswith("image 2 of 2, 1 points; 4 in all")
    (tmp_path / "points.json").write_text(found["saved"], encoding="utf-8")
    read = image_files.read_points(tmp_path / "points.json", sphere)
    assert [item.surface for item in read] == ["ball", "ball"]
    assert read[0].vertex.tolist() == [found["vertex"], found["vertex"], 3] and read[1].vertex.tolist() == [7]
    expected = torch.tensor([[10.25, 20.5], [30, 40], [50, 5]])
    assert torch.allclose(read[0].points, expected, atol=0.06)
    front = int(
        (sphere.verts @ torch.from_numpy(viz.surfaces.good_view(sphere)[2]).to(sphere.verts)).argmax()
    )
    assert float((sphere.verts[found["vertex"]] - sphere.verts[front]).norm()) < 0.3, (
        "the one that is in front"
    )


def test_points_that_are_known_are_there_from_the_start(sphere, photos, tmp_path):
    rows = [{"image": "photos/b.jpg", "points": [[1.5, 2.5, "pole"], [3, 4, 12]]}]
    (tmp_path / "old.json").write_text(json.dumps(rows))
    start = image_files.read_points(tmp_path / "old.json", sphere)
    viz.write_annotation_page(tmp_path / "p.html", sphere, [photos / "a.png", photos / "b.jpg"], start=start)
    a, b = _data((tmp_path / "p.html").read_text())["images"]
    assert a["points"] == [] and b["points"] == [[1.5, 2.5, 3], [3, 4, 12]]
    with pytest.raises(ValueError, match="images: expected at least one image file"):
        viz.write_annotation_page(tmp_path / "p.html", sphere, [])
    with pytest.raises(ValueError, match="cannot read the image"):
        viz.write_annotation_page(tmp_path / "p.html", sphere, [tmp_path / "old.json"])
