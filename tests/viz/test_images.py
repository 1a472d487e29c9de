"""Pictures of images: what is drawn where, and what stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe import viz
from geoframe.pixels import PixelMap, PixelMatches
from geoframe.surface.shapes import icosphere
from geoframe.viz.images import as_picture


@pytest.fixture
def pixels():
    """A disc of 20 x 30 pixels that shows vertices of a sphere, sure on the left and not at all on the right."""
    sphere = icosphere(1)
    y, x = np.mgrid[:20, :30] + 0.5
    mask = torch.from_numpy(np.hypot(x - 15, y - 10) < 8)
    vertex = torch.arange(600).reshape(20, 30) % sphere.n_verts
    sure = torch.from_numpy(x < 15).float().expand(20, 30)
    return PixelMap(sphere, vertex.masked_fill(~mask, -1), mask, sure)


def test_a_picture_and_its_image_are_the_same():
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    image = torch.from_numpy(picture).permute(2, 0, 1) / 255
    assert np.array_equal(as_picture(image), picture) and as_picture(picture) is picture


def test_colours_stand_on_the_foreground_alone(pixels):
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    drawn = viz.draw_pixel_map(pixels, image, opacity=1, outline=False)
    mask, plain = pixels.mask.numpy(), as_picture(image)
    left = mask & (np.arange(30) < 15)
    assert np.array_equal(drawn[~left], plain[~left]), "no confidence, or no foreground: the image as it is"
    expected = viz.canonical_colors(pixels.surface)[pixels.vertex.numpy()[left]] * 255
    assert np.abs(drawn[left] - expected).max() <= 1
    flat = viz.draw_pixel_map(pixels, image, opacity=1, fade=False, outline=False)
    assert (flat[mask & ~left] != plain[mask & ~left]).any(1).all()
    assert (viz.draw_pixel_map(pixels)[~mask] == 255).all()


def test_the_outline_is_white_and_inside_the_mask(pixels):
    black = torch.zeros(3, 20, 30)
    drawn = (viz.draw_pixel_map(pixels, black, opacity=0) == 255).all(-1)
    mask = pixels.mask.numpy()
    assert drawn.any() and not drawn[~mask].any() and not drawn[10, 15]
    full = PixelMap(
        pixels.surface, pixels.vertex.clamp_min(0), torch.ones_like(pixels.mask), pixels.confidence
    )
    assert not (viz.draw_pixel_map(full, black, opacity=0) == 255).any(), (
        "the image's own border is no outline"
    )


def test_values_go_from_dark_to_bright(pixels):
    ramp = torch.linspace(-1, 3, 30).expand(20, 30).clone()
    ramp[0, 0] = torch.nan
    drawn = viz.draw_values(ramp, mask=pixels.mask, low=-1, high=3)
    light = drawn[10, pixels.mask[10].numpy()].astype(int).sum(-1)
    assert (np.diff(light) >= 0).all() and light[-1] > light[0] + 200
    assert (drawn[0, 0] == 255).all()
    with pytest.raises(ValueError, match="high: expected a number above low"):
        viz.draw_values(ramp, low=1, high=1)


def test_points_are_where_they_are_said_to_be():
    grey = np.full((40, 60, 3), 128, np.uint8)
    red, points = np.array([[1.0, 0, 0], [1, 0, 0]]), torch.tensor([[20.5, 10.5], [torch.nan, 5.0]])
    drawn = viz.draw_points(grey, points, colors=red, scale=8)
    assert drawn.shape == (320, 480, 3)
    y, x = np.nonzero((drawn == (255, 0, 0)).all(-1))
    assert abs(x.mean() + 0.5 - 8 * 20.5) < 1 and abs(y.mean() + 0.5 - 8 * 10.5) < 1
    ring = viz.draw_points(grey, points[:1], colors=red[:1], scale=8, visible=[False], names=["nose"])
    assert (ring[84, 164] == 128).all(), "a point that is not visible is hollow"
    with pytest.raises(ValueError, match="names: expected one for each of the 2 points"):
        viz.draw_points(grey, points, names=["nose"])


def test_cells_of_a_contact_sheet_keep_proportions():
    wide, high = np.zeros((20, 40, 3), np.uint8), torch.zeros(3, 40, 20)
    sheet = viz.contact_sheet([wide, high, wide], size=200, columns=2)
    assert sheet.shape == (400, 400, 3)
    for cell, ratio in ((sheet[:200, :200], 2), (sheet[:200, 200:], 0.5)):
        dark = (cell < 128).all(-1)
        assert dark.any(0).sum() / dark.any(1).sum() == pytest.approx(ratio, rel=0.03)
    assert (sheet[200:, 200:] == 255).all()
    with pytest.raises(ValueError, match="images: expected at least one"):
        viz.contact_sheet([])
    with pytest.raises(ValueError, match="titles: expected one for each of the 1 images"):
        viz.contact_sheet([wide], ["a", "b"])


def test_one_colour_is_one_match():
    grey, n = np.full((480, 480, 3), 128, np.uint8), 40
    source = torch.rand(n, 2, generator=torch.Generator().manual_seed(0)) * 440 + 20
    target = 480 - source
    target[0] = torch.nan
    sure = torch.ones(n)
    sure[1] = 0.1
    drawn = viz.draw_correspondence(grey, grey, PixelMatches(source, target, sure), n=5, least=0.5)
    assert drawn.shape == (480, 960, 3)
    halves = np.split(drawn.astype(int), 2, axis=1)
    found = [halves[0][tuple(p.flip(0).int().tolist())] for p in source]
    there = [halves[1][tuple(p.nan_to_num(0).flip(0).int().tolist())] for p in target]
    colored = [i for i in range(n) if np.abs(found[i] - 128).max() > 10]
    assert len(colored) == 5 and not {0, 1} & set(colored)
    assert np.abs(np.array(found) - there)[colored].max() <= 8


def test_an_image_of_another_size(pixels):
    with pytest.raises(ValueError, match="image: expected 20 x 30 as the map"):
        viz.draw_pixel_map(pixels, torch.zeros(3, 20, 20))
    with pytest.raises(ValueError, match="image: expected shape"):
        viz.draw_pixel_map(pixels, torch.zeros(1, 20, 30))
