"""Crops: points and pictures go to the crop and come back."""

from __future__ import annotations

import pytest
import torch

from geoframe.data import Crop
from geoframe.data.crops import resized


def test_points_go_there_and_back():
    crop = Crop.around((10.0, 20.0, 50.0, 40.0), (64, 96), padding=0.1)
    points = torch.rand(5, 2, dtype=torch.float64) * 60
    assert torch.allclose(crop.to_image(crop.to_crop(points)), points)
    corners = torch.tensor([crop.box[:2], crop.box[2:]], dtype=torch.float64)
    assert torch.allclose(crop.to_crop(corners), torch.tensor([[0.0, 0.0], [96.0, 64.0]]).double())
    middle = torch.tensor([[30.0, 30.0]])
    assert torch.allclose(crop.to_crop(middle), torch.tensor([[48.0, 32.0]]), atol=1.5)
    x0, y0, x1, y1 = crop.box
    assert x0 <= 6 and x1 >= 54 and abs((x1 - x0) / (y1 - y0) - 1.5) < 0.05


def test_a_picture_of_positions_is_cut_where_points_go():
    y, x = torch.meshgrid(torch.arange(40.0) + 0.5, torch.arange(60.0) + 0.5, indexing="ij")
    image = torch.stack([x, y])
    for box, size in (((10, 5, 42, 37), (64, 64)), ((8, 4, 56, 36), (16, 24))):
        crop = Crop(box, size)
        cut = crop.cut(image)
        rows, cols = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
        true = crop.to_image(torch.stack([cols, rows], -1).view(-1, 2)).T.view(2, *size)
        inner = (slice(None), slice(2, -2), slice(2, -2))
        assert torch.allclose(cut[inner], true[inner], atol=1e-4)
        back = crop.paste(cut, (40, 60))
        assert torch.allclose(back[:, 10:30, 16:36], image[:, 10:30, 16:36], atol=0.2)


def test_a_crop_over_the_border_is_filled_and_cut_without_change():
    image = torch.rand(3, 20, 30)
    crop = Crop((-5, -4, 15, 16), (20, 20))
    cut = crop.cut(image, fill=0.5)
    assert torch.equal(cut[:, 4:, 5:], image[:, :16, :15])
    assert (cut[:, :4] == 0.5).all() and (cut[:, :, :5] == 0.5).all()
    back = crop.paste(cut, (20, 30), fill=-1)
    assert torch.equal(back[:, :16, :15], image[:, :16, :15]) and (back[:, 16:] == -1).all()
    away = Crop((100, 100, 110, 110), (5, 5)).cut(image, fill=0.25)
    assert (away == 0.25).all()


def test_masks_and_numbers_are_not_mixed():
    numbers = torch.randint(9, (1, 12, 12), generator=torch.Generator().manual_seed(0))
    cut = Crop((0, 0, 12, 12), (24, 24)).cut(numbers, nearest=True)
    assert torch.equal(cut[:, ::2, ::2], numbers) and torch.equal(cut[:, 1::2, 1::2], numbers)
    assert torch.equal(resized(cut, (12, 12), nearest=True), numbers)
    batch = torch.rand(2, 4, 3, 8, 8)
    assert torch.allclose(resized(batch, (16, 16))[1, 2], resized(batch[1, 2], (16, 16)))


def test_the_whole_image_and_bad_boxes():
    crop = Crop.whole((40, 60), 32)
    assert crop.box == (0, -10, 60, 50)
    with pytest.raises(ValueError, match="box: expected finite"):
        Crop.around((5.0, 5.0, 5.0, 9.0), 32)
    with pytest.raises(ValueError, match="box: expected finite"):
        Crop.around((5.0, float("nan"), 7.0, 9.0), 32)
    with pytest.raises(ValueError, match="box: expected x0 < x1"):
        Crop((5, 5, 5, 9), (3, 3))
    with pytest.raises(ValueError, match="size: expected an integer"):
        Crop((5, 5, 6, 9), (0, 3))
    with pytest.raises(ValueError, match="padding: expected some"):
        Crop.around((0.0, 0.0, 10.0, 10.0), 32, padding=-0.5)
    with pytest.raises(TypeError, match="image: expected a floating"):
        Crop((0, 0, 2, 2), (3, 3)).cut(torch.zeros(1, 4, 4, dtype=torch.int64))
