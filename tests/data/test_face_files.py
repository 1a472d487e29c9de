"""Images with landmarks from files: every layout on small files of that layout, and pictures of every kind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from geoframe.data.face_files import eye_distance, five_of_68, load_landmark_images
from geoframe.warps import to_pixels


def _picture(path, height=20, width=30, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // width, y * 255 // height, 0 * x + 90], -1).astype(np.uint8)
    Image.fromarray(rgb).convert(mode).save(path, **options)


def _csv(folder, names, L=3):
    head = "image,identity," + ",".join(f"x{i},y{i}" for i in range(L))
    lines = [f"{n},{k}," + ",".join(f"{3 * i + k},{i}.5" for i in range(L)) for k, n in enumerate(names)]
    (folder / "landmarks.csv").write_text("\ufeff" + "\n".join([head, *lines]), encoding="utf-8")


def test_a_folder_of_images_is_enough(tmp_path):
    for name in ("b.jpg", "a.png"):
        _picture(tmp_path / name)
    found = load_landmark_images(tmp_path)
    assert found.names == ("a.png", "b.jpg") and found.n_landmarks == 0 and not bool(found.annotated.any())


@pytest.mark.parametrize("inner", [".", "images"])
def test_csv_beside_the_images_or_above_them(tmp_path, inner):
    for name in ("a.jpg", "b.jpg", "free.jpg"):
        _picture(tmp_path / inner / name)
    _csv(tmp_path, ["a.jpg", "b.jpg"])
    found = load_landmark_images(tmp_path)
    assert found.names == ("a.jpg", "b.jpg", "free.jpg") and found.identity.tolist() == [0, 1, -1]
    assert found.annotated.tolist() == [True, True, False]
    assert found.points[1].tolist() == [[1.0, 0.5], [4.0, 1.5], [7.0, 2.5]]
    assert load_landmark_images(tmp_path / "landmarks.csv").names == found.names


@pytest.mark.parametrize("form", ["by_name", "list"])
def test_json_with_unknown_landmarks_and_boxes(tmp_path, form):
    _picture(tmp_path / "a.jpg")
    _picture(tmp_path / "b.jpg")
    rows = {"a": [[1, 2], None], "b.jpg": [[3, 4], [5, 6]]}
    content = (
        rows
        if form == "by_name"
        else [
            {"image": k, "points": v, "identity": i, "box": [1, 2, 11, 12]}
            for i, (k, v) in enumerate(rows.items())
        ]
    )
    (tmp_path / "points.json").write_text(json.dumps(content))
    found = load_landmark_images(tmp_path)
    assert bool(torch.isnan(found.points[0, 1]).all()) and found.points[1].tolist() == [[3, 4], [5, 6]]
    if form == "list":
        assert found.identity.tolist() == [0, 1] and found.boxes[0].tolist() == [1, 2, 11, 12]
        assert found.squares(16, crop="box")[1].crops[0].box == (1, 2, 11, 12)


def test_celeba_with_mafl(tmp_path):
    for name in ("000001", "000002", "000003"):
        _picture(tmp_path / f"Img/img_align_celeba_hq/{name}.jpg")
    (tmp_path / "Anno").mkdir()
    rows = "\n".join(f"00000{i}.jpg " + " ".join(str(i + j) for j in range(10)) for i in (1, 2, 3, 4))
    (tmp_path / "Anno/list_landmarks_align_celeba.txt").write_text(f"4\nlefteye_x lefteye_y\n{rows}\n")
    (tmp_path / "MAFL").mkdir()
    (tmp_path / "MAFL/testing.txt").write_text("000002.jpg\n")
    train, test = (load_landmark_images(tmp_path, split=s) for s in ("train", "test"))
    assert train.names == ("000001.jpg", "000003.jpg") and test.names == ("000002.jpg",)
    assert test.points[0, 0].tolist() == [2.5, 3.5]  # centres of pixels are integers + 0.5


def test_aflw(tmp_path):
    for part, n in (("train", 2), ("test", 1)):
        names = [f"{part}{i}.jpg" for i in range(n)]
        for name in names:
            _picture(tmp_path / "output" / name)
        (tmp_path / f"aflw_{part}_images.txt").write_text("\n".join(names))
        gt = np.arange(n * 10, dtype=float).reshape(n, 5, 2)
        savemat(tmp_path / f"aflw_{part}_keypoints.mat", {"gt": gt, "hw": np.full((n, 2), 20.0)})
    found = load_landmark_images(tmp_path, split="train")
    assert len(found) == 2 and found.points[1, 0].tolist() == [11.5, 10.5]  # (y, x) in the file
    assert len(load_landmark_images(tmp_path)) == 3


def test_300w(tmp_path):
    body = "\n".join(f"{i + 1} {2 * i + 1}" for i in range(68))
    for part in ("afw", "ibug"):
        _picture(tmp_path / part / "x.png")
        (tmp_path / part / "x.pts").write_text(f"version: 1\nn_points: 68\n{{\n{body}\n}}\n")
    train, test = (load_landmark_images(tmp_path, split=s) for s in ("train", "test"))
    assert train.names == ("afw/x.png",) and test.names == ("ibug/x.png",)
    assert test.points[0, :2].tolist() == [[0.5, 0.5], [1.5, 2.5]]  # pixels count from 1 there
    assert five_of_68(test.points).shape == (1, 5, 2)
    assert float(eye_distance(test.points)[0]) == pytest.approx(9 * 5**0.5)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("g.png", "L", {}),
        ("a.png", "RGBA", {}),
        ("p.gif", "P", {}),
        ("e.jpg", "RGB", {"exif": True}),
        ("c.jpg", "CMYK", {}),
    ],
)
def test_pictures_of_every_kind_become_squares(tmp_path, name, mode, options):
    if options:
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif}
    _picture(tmp_path / name, mode=mode, **options)
    kept, cut = load_landmark_images(tmp_path).squares(16)
    assert cut.images.shape == (1, 3, 16, 16) and cut.images.dtype == torch.uint8 and kept.names == (name,)
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    assert len(load_landmark_images(tmp_path).squares(16)[0]) == 2


def test_landmarks_go_with_their_pixels(tmp_path):
    _picture(tmp_path / "a.png", 20, 30)
    (tmp_path / "points.json").write_text(json.dumps({"a.png": [[10, 5], [20, 15]]}))
    images = load_landmark_images(tmp_path)
    for crop in ("whole", "centre", "landmarks"):
        _, cut = images.squares(60, crop=crop, margin=0.2)
        place = to_pixels(cut.points, 60, 60)
        assert torch.allclose(cut.crops[0].to_image(place[0]), images.points[0], atol=1e-4)
        red, green = (cut.images[0, c].float() / 255 for c in (0, 1))
        x, y = place[0, 0].long().tolist()
        assert abs(float(red[y, x]) - 10 / 30) < 0.04 and abs(float(green[y, x]) - 5 / 20) < 0.05


def test_bad_files_are_told_or_left_out(tmp_path):
    _picture(tmp_path / "good.jpg")
    data = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    images = load_landmark_images(tmp_path)
    with pytest.raises(ValueError, match=r"cut\.jpg"):
        images.squares(16)
    told: list[str] = []
    kept, _ = images.squares(16, on_bad_file=told.append)
    assert kept.names == ("good.jpg",) and len(told) == 1 and "cut.jpg" in told[0]
    with pytest.raises(ValueError, match="expected a box, found none"):
        kept.squares(16, crop="box")
    with pytest.raises(ValueError, match="expected at least two landmarks to crop around"):
        kept.squares(16, crop="landmarks")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"landmarks.csv": "x,y\n1,2\n"}, "expected a head line image, identity, x0, y0"),
        ({"landmarks.csv": "image,x0,y0\na.jpg,1\n"}, "line 2: expected 3 columns"),
        ({"landmarks.csv": "image,x0,y0\nzz.jpg,1,2\n"}, "expected an image zz.jpg"),
        ({"landmarks.json": "{"}, "not valid JSON"),
        ({"landmarks.json": '[{"points": [[1, 2]]}]'}, 'expected {"image": NAME'),
        ({"landmarks.json": '{"a.jpg": [[1, 2]], "b.jpg": [[1, 2], [3, 4]]}'}, "expected the same landmarks"),
        ({"one.json": "{}", "two.csv": ""}, "expected one landmark file, found one.json, two.csv"),
    ],
)
def test_landmark_files_with_other_content_are_told(tmp_path, files, message):
    for name in ("a.jpg", "b.jpg"):
        _picture(tmp_path / name)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        load_landmark_images(tmp_path)


def test_places_without_images_are_told(tmp_path):
    with pytest.raises(ValueError, match="unpack it first"):
        load_landmark_images(tmp_path / "faces.zip")
    with pytest.raises(ValueError, match="found nothing"):
        load_landmark_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected a folder of images, found none"):
        load_landmark_images(tmp_path)
