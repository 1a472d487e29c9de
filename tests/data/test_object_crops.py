"""Crops of objects from folders and from the layouts of CUB and PASCAL3D+, on small files; templates and mirrors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from geoframe.canonical import Surface
from geoframe.data.category_files import CUB_PARTS, cub_crops, pascal3d_crops
from geoframe.data.object_crops import ObjectCrops, folder_crops
from geoframe.data.object_templates import ObjectTemplate, points_of_pixels, zoo_shapes, zoo_template
from geoframe.pixels import PixelMap
from geoframe.surface.shapes import icosphere
from geoframe.transforms import procrustes

BOX = (10, 6, 30, 26)  # x0, y0, x1, y1 of the object in pictures of 40 x 32


def _picture(path, mask_path=None):
    image = np.full((32, 40, 3), 30, np.uint8)
    image[BOX[1] : BOX[3], BOX[0] : BOX[2]] = (200, 100, 50)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    mask = (image[..., 0] > 100).astype(np.uint8)
    if mask_path is not None:
        mask_path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 * mask).save(mask_path)
    return mask


def _folder(tmp_path, marks):
    for name in "ab":
        _picture(tmp_path / f"images/{name}.png", tmp_path / f"masks/{name}.png")
    (tmp_path / "keypoints.json").write_text(json.dumps(marks))
    return tmp_path


def test_a_folder_with_masks_and_keypoints(tmp_path):
    marks = {"a.png": {"nose": [10, 6, 1], "tail": [30, 26, 0]}, "b.png": {"nose": [20, 16]}}
    crops = folder_crops(_folder(tmp_path, marks), size=24)
    assert crops.names == ("nose", "tail") and crops.files == ("a.png", "b.png")
    assert crops.visible.tolist() == [[True, False], [True, False]]
    torch.testing.assert_close(
        crops.points[0, 0], torch.tensor([2.0, 2.0])
    )  # 20 pixels and 10 % on each side: 24
    torch.testing.assert_close(crops.points[1, 0], torch.tensor([12.0, 12.0]))
    assert crops.points[1, 1].isnan().all()
    assert crops.mask[0].sum() == 400 and crops.mask[0, 2:22, 2:22].all()
    assert crops.image[0, :, 12, 12].tolist() == [200, 100, 50]
    hidden = crops.without_keypoints()
    assert not hidden.visible.any() and hidden.points.isnan().all()
    crops.save(tmp_path / "crops.npz")
    again = ObjectCrops.load(tmp_path / "crops.npz")
    for name in ("image", "mask", "visible"):
        assert torch.equal(getattr(again, name), getattr(crops, name))
    assert again.crops == crops.crops and again.files == crops.files and again.screen is None
    assert again[[1]].files == ("b.png",)


def test_what_a_folder_lacks_is_told(tmp_path):
    folder = _folder(tmp_path, {"a.png": {"nose": [1, 2]}})
    (folder / "masks/b.png").unlink()
    Image.fromarray(np.zeros((32, 40), np.uint8)).save(folder / "masks/c.png")
    Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(folder / "images/c.png")
    told = []
    assert len(folder_crops(folder, on_bad_file=told.append)) == 1
    assert "b.png" in told[0] and "expected a mask masks/b.png" in told[0]
    assert "c.png" in told[1] and "expected some pixels of the object" in told[1]
    (folder / "keypoints.json").write_text('{"a.png": {"nose": ["x", 2]}}')
    with pytest.raises(ValueError, match=r"keypoints\.json: a\.png: expected"):
        folder_crops(folder)
    (folder / "keypoints.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        folder_crops(folder)
    with pytest.raises(ValueError, match="expected crops that were saved"):
        ObjectCrops.load(folder / "keypoints.json")


def _table(path, entries, n):
    """A .mat file as CMR's preprocessing writes it; what stands in it is counted from 1."""
    kinds = [("rel_path", object), ("mask", object), ("bbox", object), ("parts", object)]
    rows = np.zeros(len(entries), kinds)
    for row, (name, mask) in zip(rows, entries, strict=True):
        parts = np.zeros((3, n))
        parts[:, 0] = (BOX[0] + 1, BOX[1] + 1, 1)  # the pixel in the corner of the object
        parts[:2, 1] = 99  # not seen: anything
        box = np.zeros(1, [(k, object) for k in ("x1", "y1", "x2", "y2")])
        box[0] = (BOX[0] + 1, BOX[1] + 1, BOX[2], BOX[3])
        row["rel_path"], row["mask"], row["bbox"], row["parts"] = name, mask, box, parts
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"images": rows})


def test_the_layout_of_cub(tmp_path):
    mask = _picture(tmp_path / "CUB_200_2011/images/001.Bird/one.png")
    entries = [("001.Bird/one.png", mask), ("001.Bird/lost.png", mask)]
    _table(tmp_path / "cachedir/cub/data/test_cub_cleaned.mat", entries, 15)
    told = []
    crops = cub_crops(tmp_path, "test", size=24, on_bad_file=told.append)
    assert crops.names == CUB_PARTS and crops.files == ("one.png",)
    assert len(told) == 1 and "lost.png" in told[0]
    assert crops.visible[0].tolist() == [True] + 14 * [False]
    torch.testing.assert_close(crops.points[0, 0], torch.tensor([2.5, 2.5]))  # the middle of that pixel
    assert crops.points[0, 1:].isnan().all() and crops.mask[0, 2:22, 2:22].all()
    near = cub_crops(tmp_path / "cachedir/cub/data", "test", size=24)  # the folder of the tables itself
    assert torch.equal(near.image, crops.image)
    with pytest.raises(ValueError, match=r"expected train_cub_cleaned\.mat"):
        cub_crops(tmp_path, "train")


def test_the_layout_of_pascal3d(tmp_path):
    mask = _picture(tmp_path / "images/car_imagenet/n1.png")
    _table(
        tmp_path / "data/car_val.mat", [("car_imagenet/n1.png", mask), ("car_imagenet/n1.png", 0 * mask)], 2
    )
    savemat(
        tmp_path / "data/car_kps.mat",
        {"kp_names": np.array(["left", "right"], object), "kp_perm_inds": [2, 1]},
    )
    told = []
    crops = pascal3d_crops(tmp_path, "car", "val", size=24, on_bad_file=told.append)
    assert crops.names == ("left", "right") and len(crops) == 1 and "found none" in told[0]
    (tmp_path / "data/car_kps.mat").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"car_kps\.mat: expected a \.mat file"):
        pascal3d_crops(tmp_path, "car", "val")


def _ball():
    ball = icosphere(3)
    x = ball.verts.double() * torch.tensor([1.0, 0.7, 0.5]).double() * (1 + 0.3 * ball.verts[:, :1].double())
    x[:, 1] += 0.4 * x[:, 0] ** 2  # bent up: no other mirror plane than z = 0
    right, left = int(x[:, 2].argmax()), int(x[:, 2].argmin())
    return Surface(x, ball.faces, landmarks={"left": left, "right": right, "nose": int(x[:, 0].argmax())})


def test_a_template_knows_the_larger_surface_and_its_mirror_image():
    surface = _ball()
    template = ObjectTemplate.of(surface, 150)
    x = template.surface.verts
    assert template.n_verts == 150 and float(x.norm(dim=1).max()) == pytest.approx(1)
    carried = template.carried(surface.verts)
    scale = (carried[1:] - carried[0]).norm(dim=1) / (x[1:] - x[0]).norm(dim=1)
    torch.testing.assert_close(scale, scale[:1].expand_as(scale))  # the same up to a similarity
    for name, v in surface.landmarks.items():
        torch.testing.assert_close(carried[template.surface.landmarks[name]], surface.verts[v])
    assert template.is_symmetric and template.landmark_swap.tolist() == [1, 0, 2]
    assert (template.mirrored(x) @ template.reflection - x).norm(dim=1).max() < 0.05
    small = ObjectTemplate.of(surface, 2000)
    assert small.n_verts == surface.n_verts and torch.equal(small.surface.faces, surface.faces)


def test_pixels_become_points_of_the_template():
    surface = _ball()
    template = ObjectTemplate.of(surface, 150)
    vertex = torch.full((8, 8), -1)
    vertex[2:6, 2:6] = surface.landmarks["nose"]
    pixels = PixelMap(surface, vertex, vertex >= 0, (vertex >= 0).float() * 0.5)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, 4:] = True
    where, near, sure = points_of_pixels(pixels, mask, template, surface)
    assert len(where) == 8 and (sure == 0.5).all() and (where[:, 0] > 0).all()
    assert (near == template.surface.landmarks["nose"]).all()
    other = Surface.of(icosphere(1))
    with pytest.raises(ValueError, match="surface: expected the one that the template was made of"):
        points_of_pixels(pixels, mask, template, other)


@pytest.mark.slow  # the surface of cars is made, which takes seconds
def test_shapes_of_things_are_symmetric_members_of_one_structure():
    template = zoo_template("car", 200)
    shapes = zoo_shapes("car", template, 3)
    assert torch.equal(shapes, zoo_shapes("car", template, 3))
    assert (shapes - template.surface.verts).norm(dim=-1).mean(1).max() < 0.2
    assert (shapes[0] - shapes[1]).norm(dim=-1).mean() > 0.005
    every = torch.cat([template.surface.verts[None], shapes])
    off = (template.mirrored(every) @ template.reflection - every).norm(dim=-1).mean(1)
    assert (
        off[1:] < 2 * off[0]
    ).all()  # about as symmetric as the template, whose mirror images lie between vertices


def test_shapes_of_the_zoo_lie_on_its_template():
    template = zoo_template("horse", 200)
    shapes, rest = zoo_shapes("horse", template, 3), template.surface.verts
    assert shapes.shape == (3, template.n_verts, 3) and torch.equal(shapes, zoo_shapes("horse", template, 3))
    away = (shapes - rest).norm(dim=-1).mean(1)
    assert (away > 0.01).all() and (away < 0.25).all()  # other horses in other poses, but as near as they get
    kept = procrustes(rest.expand(3, -1, -1), shapes, scale=True)
    torch.testing.assert_close(kept.R, torch.eye(3).double().expand(3, 3, 3), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="category: expected one of"):
        zoo_shapes("dragon", template)
    larger = replace(template, source=template.source + 10**6)
    with pytest.raises(ValueError, match="template: expected one of the zoo's surface of a horse"):
        zoo_shapes("horse", larger, 2)
