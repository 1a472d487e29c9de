"""COCO-style JSON with points on surfaces: what is written is read again, under both conventions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from geoframe import Surface
from geoframe.data import ImageItem, ImageSet, RunLengths, read_coco, write_coco
from geoframe.data.masks import polygon_mask
from geoframe.surface.shapes import icosphere

DRAW = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def surface():
    return Surface.of(icosphere(2))


@pytest.fixture
def images(tmp_path, surface):
    items = []
    for i, (height, width) in enumerate(((30, 40), (50, 20))):
        file = tmp_path / f"{i}.png"
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file)
        mask = torch.rand(height, width, generator=DRAW) > 0.5
        points = torch.rand(6, 2, generator=DRAW) * torch.tensor([width, height])
        vertex = torch.randint(surface.n_verts, (6,), generator=DRAW)
        box = torch.tensor([1.5, 2.0, width - 1, height - 3.25])
        items.append(
            ImageItem(file, "horse", points, vertex, box, mask, torch.arange(6) + 1, {"category": "pony"})
        )
    return ImageSet(items, {"horse": surface})


@pytest.mark.parametrize("divisor", [255, 256])
def test_what_is_written_is_read_again(images, surface, tmp_path, divisor):
    write_coco(tmp_path / "set.json", images, divisor=divisor)
    again = read_coco(tmp_path / "set.json", tmp_path, {"horse": surface, "cow": surface}, divisor=divisor)
    assert len(again) == 2 and set(again.surfaces) == {"horse"}
    for a, b in zip(images, again, strict=True):
        assert torch.allclose(a.points, b.points, atol=1e-4) and torch.equal(a.vertex, b.vertex)
        assert torch.allclose(a.box, b.box) and torch.equal(a.foreground(), b.foreground())
        assert torch.equal(a.part, b.part) and b.about["category"] == "pony" and a.image == b.image
    other = read_coco(tmp_path / "set.json", tmp_path, {"horse": surface}, divisor=511 - divisor)
    corner = images[0].box[:2]
    ratio = (other[0].points - corner) / (images[0].points - corner)
    assert torch.allclose(ratio, torch.full_like(ratio, divisor / (511 - divisor)), atol=1e-3)


def test_run_lengths_there_and_back():
    for shape in ((1, 1), (7, 5), (40, 33), (300, 200)):
        for share in (0.0, 0.3, 1.0):
            mask = torch.rand(shape, generator=DRAW) < share
            runs = RunLengths.of(mask)
            assert torch.equal(runs.decode(), mask) and runs.area == int(mask.sum())
            for compressed in (True, False):
                coded = json.loads(json.dumps(runs.to_coco(compressed=compressed)))
                assert torch.equal(RunLengths.of_coco(coded).decode(), mask)


def test_compressed_counts_are_those_of_coco():
    """Worked by hand from the format: five bits a character from 48 on, the sixth bit for more, signed differences
    to the last but one from the fourth number on."""
    mask = RunLengths.of_coco({"size": [3, 4], "counts": [2, 3, 4, 1, 2]})
    # 2, 3, 4, 1 - 3 = -2, 2 - 4 = -2; -2 in five bits is 30
    assert mask.to_coco()["counts"] == "".join(chr(48 + c) for c in (2, 3, 4, 30, 30))
    wide = RunLengths.of_coco({"size": [10, 100], "counts": [100, 900]})
    # 100 = 3 * 32 + 4, 900 = 28 * 32 + 4, where 28 has the sign bit set: one more character of 0
    assert wide.to_coco()["counts"] == "".join(chr(48 + c) for c in (4 + 32, 3, 4 + 32, 28 + 32, 0))
    assert torch.equal(RunLengths.of_coco(wide.to_coco()).decode(), wide.decode())


def test_polygons_are_filled_at_pixel_centres():
    square = polygon_mask([[2, 1, 6, 1, 6, 4, 2, 4]], (8, 9))
    assert square.sum() == 12 and square[1:4, 2:6].all()
    two = polygon_mask([[0, 0, 2, 0, 2, 2, 0, 2], [5, 5, 8, 5, 8, 8, 5, 8]], (8, 9))
    assert two.sum() == 13
    triangle = polygon_mask([[0, 0, 40, 0, 0, 40]], (40, 40))
    assert abs(int(triangle.sum()) - 800) < 45
    with pytest.raises(ValueError, match="polygon: expected"):
        polygon_mask([[0, 0, 1, 1]], (4, 4))


def _content(images, tmp_path, **change):
    write_coco(tmp_path / "set.json", images[:1])
    content = json.loads((tmp_path / "set.json").read_text())
    for key, value in change.items():
        if value is None:
            content["annotations"][0].pop(key, None)
        else:
            content["annotations"][0][key] = value
    (tmp_path / "set.json").write_text(json.dumps(content))
    return tmp_path / "set.json"


def test_masks_of_the_box_and_polygons(images, surface, tmp_path):
    inside = RunLengths.of(torch.ones(256, 256, dtype=torch.bool)).to_coco()
    path = _content(images, tmp_path, segmentation=None, dp_masks=[inside, []], bbox=[4, 5, 10, 12])
    mask = read_coco(path, tmp_path, {"horse": surface})[0].foreground()
    assert mask.sum() == 120 and mask[5:17, 4:14].all()
    path = _content(images, tmp_path, segmentation=[[2, 1, 6, 1, 6, 4, 2, 4]])
    assert read_coco(path, tmp_path, {"horse": surface})[0].foreground().sum() == 12
    path = _content(images, tmp_path, segmentation=None)
    with pytest.raises(ValueError, match=r"0\.png: expected a mask of the object, found none"):
        read_coco(path, tmp_path, {"horse": surface})[0].foreground()


def test_a_category_may_name_the_surface(images, surface, tmp_path):
    path = _content(images, tmp_path, ref_model=None)
    found = read_coco(path, tmp_path, {"horse": surface}, category_surfaces={"pony": "horse"})
    assert found[0].surface == "horse"
    path = _content(images, tmp_path, dp_x=None, dp_y=None, dp_vertex=None)
    assert len(read_coco(path, tmp_path, {"horse": surface}, points_only=False)[0].points) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dp_x": [], "dp_y": [], "dp_vertex": []}, "found an empty annotation"),
        ({"dp_x": [1]}, "dp_x, dp_y, dp_vertex of one length"),
        ({"dp_vertex": [0, 1, 2, 3, 4, 162]}, "expected vertices of 'horse' from 0 to 161, found 162"),
        ({"ref_model": "cow"}, "expected a surface among horse, found cow"),
        ({"ref_model": None}, "found none for category 'pony'"),
        ({"image_id": 77}, "expected the id of a listed image, found 77"),
        ({"bbox": [0, 0, 0, 5]}, "expected a box of some size"),
        ({"segmentation": {"size": [30, 40], "counts": [5]}}, "counts: expected runs"),
        ({"segmentation": {"size": [30, 40], "counts": "\u007f"}}, "mask: expected run lengths"),
        ({"segmentation": {"size": [3, 4], "counts": [12]}}, "expected a mask of 30 x 40"),
        ({"dp_x": None, "dp_y": None, "dp_vertex": None}, "expected at least one annotation with"),
    ],
)
def test_bad_annotations_are_told(images, surface, tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as told:
        read_coco(_content(images, tmp_path, **change), tmp_path, {"horse": surface})
    assert "\n" not in str(told.value) and "set.json" in str(told.value)


def test_bad_files_are_told(images, surface, tmp_path):
    path = _content(images, tmp_path)
    with pytest.raises(ValueError, match="divisor: expected 255 or 256"):
        read_coco(path, tmp_path, {"horse": surface}, divisor=100)
    (tmp_path / "0.png").unlink()
    with pytest.raises(ValueError, match=r"1 are missing, first 0\.png"):
        read_coco(path, tmp_path, {"horse": surface})
    path.write_text("[]")
    with pytest.raises(ValueError, match="expected a COCO-style object"):
        read_coco(path, tmp_path, {"horse": surface})
    path.write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_coco(path, tmp_path, {"horse": surface})
    with pytest.raises(ValueError, match="a picture in memory"):
        write_coco(path, ImageSet([ImageItem(torch.zeros(3, 2, 2))]))
