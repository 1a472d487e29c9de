"""The HTML page: self-contained, true to the match, and drawn without an error by a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from geoframe.surface import Mesh
from geoframe.viz.match_page import write_report

K1, K2 = 7, 5


def _grid(n: int, height: float) -> Mesh:
    """A bumpy (n + 1) x (n + 1) sheet."""
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(-1, 1, n + 1), np.linspace(-1, 1, n + 1)))
    verts = np.stack([x, y, height * np.cos(2 * x) * np.cos(y)], 1)
    a = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    quads = np.stack([a, a + 1, a + n + 2, a + n + 1], 1)
    return Mesh(torch.tensor(verts), torch.tensor(np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])))


@pytest.fixture
def pair():
    """Two sheets of different resolution with their nearest-point maps, in the shape of a `Match`."""
    mesh1, mesh2 = _grid(12, 0.3), _grid(9, 0.5)
    d = torch.cdist(mesh1.verts[:, :2], mesh2.verts[:, :2])
    match = SimpleNamespace(
        p2p_21=d.argmin(0),
        p2p_12=d.argmin(1),
        C_12=torch.linspace(-2, 1, K1 * K2, dtype=torch.float64).reshape(K2, K1),
        landmarks=torch.tensor([[0, 0], [168, 99]]),
        energies={"dirichlet": 2.5},
        candidates=[{"name": "as found", "energy": 0.125}, {"name": "flipped", "energy": 0.25}],
        confidence=0.375,
        verdict="doubtful",
        warnings=("surface 1 has <2> components",),
        settings={"k": 7},
    )
    return mesh1, mesh2, match


def _write(pair, path, **options) -> str:
    mesh1, mesh2, match = pair
    write_report(path, mesh1, mesh2, match, **options)
    return path.read_text(encoding="utf-8")


def _decode(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def _data(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_the_page_needs_nothing_from_outside(pair, tmp_path):
    page = _write(pair, tmp_path / "report.html")
    assert "://" not in page and "@import" not in page
    assert not re.search(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=(?!\"data:)", page)


def test_the_page_carries_the_map_both_ways_and_the_faces(pair, tmp_path):
    mesh1, mesh2, match = pair
    surface1, surface2 = _data(_write(pair, tmp_path / "report.html"))["surfaces"]
    np.testing.assert_array_equal(_decode(surface2["partner"], "<u4"), match.p2p_21)
    np.testing.assert_array_equal(_decode(surface1["partner"], "<u4"), match.p2p_12)
    for surface, mesh, dots in ((surface1, mesh1, [0, 168]), (surface2, mesh2, [0, 99])):
        np.testing.assert_array_equal(_decode(surface["faces"], "<u4").reshape(-1, 3), mesh.faces)
        assert surface["landmarks"] == dots
        shown = torch.tensor(_decode(surface["verts"], "<f4").reshape(-1, 3).copy()).double()
        ratio = torch.pdist(shown)[::97] / torch.pdist(mesh.verts)[::97]  # a rotation and one scale
        assert float(ratio.std() / ratio.mean()) < 1e-5
        assert float(shown.norm(dim=1).max()) == pytest.approx(1, abs=1e-5)


def test_the_functional_map_is_drawn_entry_by_entry(pair, tmp_path):
    from PIL import Image

    page = _write(pair, tmp_path / "report.html")
    png = base64.b64decode(re.search(r'data:image/png;base64,([^"]+)"', page)[1])
    pixels = np.asarray(Image.open(io.BytesIO(png))).astype(int)
    assert pixels.shape == (K2, K1, 3)
    redness = pixels[..., 0] - pixels[..., 2]
    C = pair[2].C_12.numpy()
    np.testing.assert_array_equal(np.sign(redness[np.abs(C) > 0.1]), np.sign(C[np.abs(C) > 0.1]))
    assert (np.diff(redness.ravel()) >= 0).all()


def test_measures_candidates_and_settings_are_told(pair, tmp_path):
    curve = {"threshold": [0.0, 0.1, 0.2], "share": [0.0, 0.5, 1.0]}
    page = _write(pair, tmp_path / "report.html", measures={"mean_error": 0.0301234, "error_curve": curve})
    for text in (
        "dirichlet",
        ">2.5<",
        "mean_error",
        ">0.03012<",
        "flipped",
        ">0.25<",
        "confidence",
        ">0.375<",
        "<polyline",
        "k</td>",
    ):
        assert text in page
    pair[2].candidates, pair[2].landmarks = [], None
    page = _write(pair, tmp_path / "report.html")
    assert "Candidates" not in page and "Landmarks (" not in page and "<polyline" not in page


def test_names_cannot_break_the_page(pair, tmp_path):
    page = _write(pair, tmp_path / "report.html", names=("</script><b>x", "a & b"))
    assert "</script><b>" not in page
    assert [s["name"] for s in _data(page)["surfaces"]] == ["</script><b>x", "a & b"]
    assert "a &amp; b" in page


def test_an_unwritable_place_is_told(pair, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write"):
        _write(pair, tmp_path / "file" / "report.html")


HOVER = """<script>
const c2 = document.getElementById("c2");
c2.dispatchEvent(new PointerEvent("pointermove", {clientX: c2.getBoundingClientRect().x + c2.clientWidth / 2,
                                                 clientY: c2.getBoundingClientRect().y + c2.clientHeight / 2}));
</script>"""


def test_a_browser_draws_both_surfaces_and_links_them(pair, browse, tmp_path):
    page = tmp_path / "report.html"
    text = _write(pair, page, names=("first", "second"))
    page.write_text(text.replace("</body>", HOVER + "</body>"), encoding="utf-8")
    dom = browse(page)
    root = re.search(r"<html[^>]*>", dom)[0]
    assert 'data-errors=""' in root
    shares = {k: float(re.search(rf'data-{k}="([^"]*)"', root)[1]) for k in ("drawn1", "drawn2")}
    assert 0.1 < shares["drawn1"] < 0.9 and 0.1 < shares["drawn2"] < 0.9, shares
    said = re.search(r"second vertex (\d+) → first vertex (\d+)", dom)
    assert int(pair[2].p2p_21[int(said[1])]) == int(said[2])
