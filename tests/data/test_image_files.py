"""Images as any camera writes them, masks, folders and annotated points; what cannot be read is told in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from geoframe import Surface
from geoframe.data import (
    ImageItem,
    ImageSet,
    box_of_mask,
    image_size,
    list_images,
    read_image,
    read_mask,
    read_points,
    write_points,
)
from geoframe.surface.shapes import icosphere

DRAW = np.random.default_rng(0)
RGB = DRAW.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_a_colour_picture_is_its_numbers(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 6, 9) and image.dtype == torch.float32
    assert torch.equal(image, torch.from_numpy(RGB).permute(2, 0, 1) / 255)
    assert image_size(tmp_path / "a.png") == (6, 9)
    Image.fromarray(RGB[:1, :1]).save(tmp_path / "one.png")
    assert read_image(tmp_path / "one.png").shape == (3, 1, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture(tmp_path, orientation):
    upright = np.zeros((6, 9, 3), np.uint8)
    upright[0, :] = 255  # the top is white
    upright[:, 0, 0] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png"), torch.from_numpy(upright).permute(2, 0, 1) / 255)
    assert image_size(tmp_path / "a.png") == (6, 9)


def test_every_kind_of_picture_is_read(tmp_path):
    grey = RGB[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert torch.equal(read_image(tmp_path / "grey.png")[1], torch.from_numpy(grey) / 255)
    deep = (grey.astype(np.uint16) << 8) + 77
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        found = read_image(tmp_path / name)
        assert torch.allclose(found[0], torch.from_numpy(deep.astype(np.float32) / 65535))
    Image.fromarray(grey > 99).save(tmp_path / "bits.png")
    assert torch.equal(read_image(tmp_path / "bits.png")[0], torch.from_numpy(grey > 99).float())
    Image.fromarray(RGB).quantize(200).save(tmp_path / "palette.png")
    assert (
        read_image(tmp_path / "palette.png") - torch.from_numpy(RGB).permute(2, 0, 1) / 255
    ).abs().max() < 0.2
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert (
        read_image(tmp_path / "cmyk.tif") - torch.from_numpy(RGB).permute(2, 0, 1) / 255
    ).abs().max() < 0.02
    real = DRAW.random((6, 9), dtype=np.float32)
    Image.fromarray(real).save(tmp_path / "real.tif")
    assert torch.equal(read_image(tmp_path / "real.tif")[2], torch.from_numpy(real))
    Image.fromarray(300 * real).save(tmp_path / "unit.tif")
    with pytest.raises(ValueError, match="expected brightness in"):
        read_image(tmp_path / "unit.tif")


def test_what_is_see_through_stands_on_the_background(tmp_path):
    rgba = np.concatenate([RGB, np.full((6, 9, 1), 51, np.uint8)], 2)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    for background in (0.0, 1.0):
        true = 0.2 * torch.from_numpy(RGB).permute(2, 0, 1) / 255 + 0.8 * background
        assert torch.allclose(read_image(tmp_path / "a.png", background=background), true, atol=1e-6)
    palette = Image.fromarray(RGB[..., 0]).convert("P")
    palette.save(tmp_path / "p.png", transparency=int(RGB[0, 0, 0]))
    assert (read_image(tmp_path / "p.png")[:, 0, 0] == 1).all()


def test_what_cannot_be_read_is_told_in_one_line(tmp_path):
    Image.fromarray(np.zeros((200, 200, 3), np.uint8) + RGB[0, 0]).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, reason in (
        ("cut.jpg", "cut off"),
        ("text.png", "not a picture"),
        ("empty.png", "not a picture"),
        ("none.png", "No such file"),
    ):
        with pytest.raises(ValueError, match=f"cannot read the image .*{name}: .*{reason}") as told:
            read_image(tmp_path / name)
        assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match="cannot read the image"):
        image_size(tmp_path / "text.png")


def test_masks_of_every_kind(tmp_path):
    mask = RGB[..., 0] > 120
    Image.fromarray(mask).save(tmp_path / "bits.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "grey.png")
    Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "ones.png")
    palette = Image.fromarray(mask.astype(np.uint8) * 3).convert("P")
    palette.putpalette([0, 0, 0, 10, 10, 10, 20, 20, 20, 30, 0, 0])
    palette.save(tmp_path / "numbers.png")
    Image.fromarray(np.dstack([RGB, mask * np.uint8(255)])).save(tmp_path / "alpha.png")
    for name in ("bits", "grey", "ones", "numbers", "alpha"):
        assert torch.equal(read_mask(tmp_path / f"{name}.png"), torch.from_numpy(mask)), name
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "none.png")
    assert not read_mask(tmp_path / "none.png").any()
    assert torch.equal(
        box_of_mask(torch.from_numpy(np.pad(np.ones((2, 3), bool), ((1, 4), (5, 0))))),
        torch.tensor([5.0, 1, 8, 3]),
    )
    with pytest.raises(ValueError, match="mask: expected some foreground"):
        box_of_mask(torch.zeros(3, 3, dtype=torch.bool))


def test_folders_are_listed_by_name(tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "c.txt"):
        Image.fromarray(RGB).save(tmp_path / name, format="PNG")
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.PNG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="at least one image"):
        list_images(tmp_path / "empty")
    with pytest.raises(ValueError, match="expected a folder of images"):
        list_images(tmp_path / "nothing")


@pytest.fixture
def surface():
    return Surface.of(icosphere(1), landmarks={"nose": 5})


def _write(tmp_path, content):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "points.json").write_text(json.dumps(content))
    return tmp_path / "points.json"


def test_points_by_vertex_and_by_name(tmp_path, surface):
    entry = {"image": "a.png", "points": [[1.5, 2.5, 7], [3, 4, "nose"]]}
    for content in (entry, [entry], {"images": [entry]}):
        images = read_points(_write(tmp_path, content), surface)
        assert torch.equal(images[0].points, torch.tensor([[1.5, 2.5], [3.0, 4.0]]))
        assert images[0].vertex.tolist() == [7, 5]
        assert images.annotated["surface"].tolist() == [5, 7]
        assert torch.equal(images[0].read(), read_image(tmp_path / "a.png"))
    write_points(tmp_path / "again.json", images)
    again = read_points(tmp_path / "again.json", surface)
    assert torch.equal(again[0].points, images[0].points) and torch.equal(again[0].vertex, images[0].vertex)
    assert json.loads((tmp_path / "again.json").read_text())[0]["image"] == "a.png"
    Image.fromarray(RGB[..., 0] > 99).save(tmp_path / "m.png")
    whole = {**entry, "mask": "m.png", "box": [1, 1, 5, 6], "surface": "horse"}
    item = read_points(_write(tmp_path, whole), surface)[0]
    assert torch.equal(item.foreground(), torch.from_numpy(RGB[..., 0] > 99))
    assert item.surface == "horse" and item.box.tolist() == [1, 1, 5, 6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": []}, "at least one annotated point"),
        ({"points": [[1, 2]]}, "expected points"),
        ({"points": [[1, 2, 42]]}, "expected a vertex from 0 to 41, found 42"),
        ({"points": [[1, 2, -1]]}, "expected a vertex number or a landmark's name"),
        ({"points": [[1, 2, "tail"]]}, "unknown landmark 'tail'; the surface has nose"),
        ({"points": [[10, 2, 3]]}, "expected points inside the 9 x 6 image"),
        ({"image": "b.png"}, r"cannot read the image .*b\.png"),
        ({"mask": "none.png"}, "cannot read the mask"),
        ({"box": [3, 3, 1, 1]}, "box: expected x0 < x1"),
    ],
)
def test_bad_points_are_told(tmp_path, surface, change, message):
    entry = {"image": "a.png", "points": [[1, 2, 3]]} | change
    with pytest.raises(ValueError, match=message) as told:
        read_points(_write(tmp_path, entry), surface)
    assert "\n" not in str(told.value)


def test_other_content_is_told(tmp_path, surface):
    with pytest.raises(ValueError, match="expected"):
        read_points(_write(tmp_path, {"pairs": [[1, 2]]}), surface)
    (tmp_path / "points.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_points(tmp_path / "points.json", surface)
    with pytest.raises(ValueError, match="needs the surface"):
        read_points(_write(tmp_path, {"image": "a.png", "points": [[1, 2, "nose"]]}))
    with pytest.raises(ValueError, match="a picture in memory"):
        write_points(tmp_path / "x.json", ImageSet([ImageItem(torch.zeros(3, 2, 2))]))
    with pytest.raises(ValueError, match="vertex: expected indices"):
        ImageSet([ImageItem(torch.zeros(3, 2, 2), "s", torch.zeros(1, 2), [99])], {"s": surface})
    with pytest.raises(ValueError, match="expected a mask of the object, found none"):
        ImageItem(torch.zeros(3, 2, 2)).foreground()
