"""Pictures of clouds: where keypoints are drawn, and the page."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from geoframe.viz.clouds import cloud_view, draw_clouds, keypoint_colors, write_clouds_page


def test_colours_differ():
    colors = keypoint_colors(12)
    gaps = np.linalg.norm(colors[:, None] - colors, axis=-1) + 9 * np.eye(12)
    assert colors.shape == (12, 3) and gaps.min() > 0.15
    assert np.array_equal(colors[:4], keypoint_colors(4))


@pytest.mark.parametrize("up", [0, 1, 2])
def test_up_is_up_in_the_picture(up):
    view = cloud_view(up)
    np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(view) == pytest.approx(1)
    right, above, _ = view @ np.eye(3)[up]
    assert right == pytest.approx(0) and above > 0.9


def test_keypoints_are_drawn_where_they_are():
    rng = np.random.default_rng(0)
    cloud = rng.uniform(-1, 1, (300, 3))
    view = np.eye(3)
    dots = np.array([[0.8, 0.8, 0.0], [-0.8, -0.8, 0.0]])
    picture = draw_clouds([cloud, cloud], [dots, dots[:1]], size=200, view=view, titles=["a", "b"])
    assert picture.shape == (200, 400, 3) and picture.dtype == np.uint8
    first = (255 * keypoint_colors(1)[0]).astype(int)
    rows, cols = np.nonzero(np.abs(picture.astype(int) - first).sum(-1) < 40)
    assert abs(rows[cols < 200].mean() - (96 - 0.46 * 200 * 0.8 / 3**0.5)) < 6
    assert abs(cols[cols < 200].mean() - (100 + 0.46 * 200 * 0.8 / 3**0.5)) < 6
    assert (cols >= 200).any()


def test_the_page_holds_the_numbers(tmp_path):
    cloud = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    write_clouds_page(tmp_path / "page.html", [cloud], [cloud[:3]], names=["</script>x"], title="a < b")
    text = (tmp_path / "page.html").read_text()
    assert "a &lt; b" in text and text.count("</script>") == 2  # the data and the script
    data = json.loads(re.search(r'id="data">(.*?)</script>', text).group(1))
    assert data["clouds"][0]["name"] == "</script>x"
    stored = np.frombuffer(base64.b64decode(data["clouds"][0]["k"]), "<f4").reshape(3, 3)
    whole = np.frombuffer(base64.b64decode(data["clouds"][0]["p"]), "<f4").reshape(50, 3)
    np.testing.assert_allclose(stored, whole[:3])
    assert np.linalg.norm(np.ptp(whole, axis=0)) == pytest.approx(2, rel=1e-5)
    assert len(data["colors"]) == len(data["inks"]) == 3
