"""What cameras and files do to pictures, each against a plain computation of the same."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from geoframe.data.augment import (
    add_noise,
    augment,
    blur,
    jitter_color,
    jpeg,
    motion_blur,
    shuffle_tiles,
    soften,
)

PICTURE = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _at(image, y, x):
    return image[..., min(max(y, 0), 8), min(max(x, 0), 10)]


def test_blur_is_a_weighted_mean():
    sigma, reach = 0.8, 3
    weights = {
        (i, j): math.exp(-(i * i + j * j) / (2 * sigma**2)) for i in range(-3, 4) for j in range(-3, 4)
    }
    total = sum(weights.values())
    out = blur(PICTURE, sigma)
    for y, x in ((0, 0), (4, 5), (8, 10), (1, 9)):
        mean = sum(w * _at(PICTURE, y + i, x + j) for (i, j), w in weights.items()) / total
        torch.testing.assert_close(out[..., y, x], mean)
    assert reach == math.ceil(3 * sigma) and blur(PICTURE, 0) is PICTURE


def test_motion_blur_along_an_axis_is_a_mean_of_neighbours():
    for angle, (dy, dx) in ((0, (0, 1)), (90, (1, 0)), (180, (0, 1))):
        out = motion_blur(PICTURE, 5, angle)
        for y, x in ((0, 0), (4, 5), (8, 10)):
            mean = sum(_at(PICTURE, y + k * dy, x + k * dx) for k in range(-2, 3)) / 5
            torch.testing.assert_close(out[..., y, x], mean)
    slanted = motion_blur(torch.ones(3, 9, 9), 6, 30)
    torch.testing.assert_close(slanted, torch.ones(3, 9, 9))
    assert motion_blur(PICTURE, 1, 0) is PICTURE


def test_soften_reduces_and_enlarges_as_pillow_does():
    picture = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(1))
    out = soften(picture, 2)
    for channel, got in zip(picture.numpy(), out.numpy(), strict=True):
        small = Image.fromarray(channel).resize((16, 12), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(
            got, np.asarray(small.resize((32, 24), Image.Resampling.BILINEAR)), atol=1e-5
        )
    assert soften(picture, 1) is picture


def test_noise_grows_with_the_root_of_the_light():
    for light in (0.25, 0.64):
        out = add_noise(torch.full((3, 200, 200), light), 0.05, seed=3)
        assert float(out.mean()) == pytest.approx(light, abs=1e-3)
        assert float(out.std()) == pytest.approx(0.05 * math.sqrt(0.15 + 0.85 * light), rel=0.02)
    assert torch.equal(add_noise(PICTURE, 0.1, seed=3), add_noise(PICTURE, 0.1, seed=3))
    assert torch.equal(add_noise(PICTURE, 0.0), PICTURE)


def test_colours_of_one_pixel_by_hand():
    out = jitter_color(
        PICTURE, brightness=1.1, contrast=0.7, saturation=0.4, gamma=1.5, balance=(1.2, 1, 0.9)
    )
    for b, y, x in ((0, 0, 0), (1, 4, 7)):
        lit = PICTURE[b] * 1.1 * torch.tensor([1.2, 1, 0.9]).double()[:, None, None]
        mean = float(lit.mean())
        r, g, blue = (mean + 0.7 * (float(c) - mean) for c in lit[:, y, x])
        grey = 0.299 * r + 0.587 * g + 0.114 * blue
        want = [min(max(grey + 0.4 * (c - grey), 0), 1) ** 1.5 for c in (r, g, blue)]
        np.testing.assert_allclose(out[b, :, y, x], want, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(jitter_color(PICTURE), PICTURE)


def test_jpeg_is_that_of_the_file():
    out = jpeg(PICTURE, 60)
    for given, got in zip(PICTURE, out, strict=True):
        file = io.BytesIO()
        Image.fromarray((given * 255).round().byte().movedim(0, -1).numpy()).save(file, "JPEG", quality=60)
        np.testing.assert_allclose(got.movedim(0, -1), np.asarray(Image.open(file)) / 255, atol=1e-7)


def test_augment_by_seed():
    picture = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(2))
    outs = [augment(picture, seed=i) for i in range(12)]
    assert all(float(o.min()) >= 0 and float(o.max()) <= 1 and o.shape == picture.shape for o in outs)
    assert all(torch.equal(augment(picture, seed=i), o) for i, o in enumerate(outs))
    assert len({float(o.sum()) for o in outs}) > 8
    assert torch.equal(augment(picture, seed=0, strength=0), picture)


def test_tiles_in_another_order_are_the_same_tiles():
    picture = torch.arange(2 * 3 * 9 * 13).view(2, 3, 9, 13)
    out = shuffle_tiles(picture, 4, seed=3)
    assert torch.equal(out, shuffle_tiles(picture, 4, seed=3)) and not torch.equal(out, picture)
    assert torch.equal(out[..., 8:, :], picture[..., 8:, :])  # what is left of a division
    for a, b in zip(out, picture, strict=True):
        tiles = [
            {
                tuple(x[:, i : i + 2, j : j + 3].flatten().tolist())
                for i in range(0, 8, 2)
                for j in range(0, 12, 3)
            }
            for x in (a, b)
        ]
        assert tiles[0] == tiles[1] and len(tiles[0]) == 16


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: blur(PICTURE, -1), "sigma: expected 0"),
        (lambda: motion_blur(PICTURE, -1, 0), "length: expected 0"),
        (lambda: soften(PICTURE, 0.5), "factor: expected 1"),
        (lambda: add_noise(PICTURE, -1), "strength: expected 0"),
        (lambda: jitter_color(PICTURE, brightness=-1), "expected positive"),
        (lambda: jitter_color(PICTURE[:, :2]), "image: expected"),
        (lambda: jpeg(PICTURE, 0), "quality: expected"),
        (lambda: shuffle_tiles(PICTURE, 1), "n: expected 2 to"),
        (lambda: augment(PICTURE, seed=0, strength=-1), "strength: expected 0"),
    ],
)
def test_bad_input(call, told):
    with pytest.raises(ValueError, match=told):
        call()
