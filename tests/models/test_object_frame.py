"""Object frames from training to landmarks, on small nets and pictures; the loss of a batch against identities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from geoframe.data.face_files import LandmarkSet
from geoframe.data.views import FlowBatches, ViewBatches, ViewPlan, WarpRange, view_pair
from geoframe.layers.groups import mirror_group, rotation_group
from geoframe.models.object_frame import DENSE, OURS, RECIPES, landmark_errors, load, train
from geoframe.models.object_frame.evaluate import evaluate, point_errors
from geoframe.models.object_frame.network import build, principal_colours
from geoframe.models.object_frame.recipe import Losses
from geoframe.warps import pixel_grid, random_warp, to_pixels

MEAN = torch.tensor([[-0.3, -0.2], [0.3, -0.2], [0.0, 0.1], [-0.2, 0.35], [0.2, 0.35]])
SMALL = replace(
    OURS.with_steps(3),
    network="simple",
    settings={"dim": 8},
    views=replace(OURS.views, size=24, zoom=0.75, pairs=3),
)


def _set(n=6, seed=0):
    """Discs whose colours are their own coordinates, somewhere, with five landmarks."""
    warp = random_warp(n, rotation=10, scale=0.2, shift=0.15, bend=0, strong_bend=0, seed=seed)
    own = warp.grid(40)
    colour = torch.cat([own / 2 + 0.5, torch.ones_like(own[..., :1])], -1)
    images = torch.where(own.norm(dim=-1, keepdim=True) < 0.6, colour, 0.0).movedim(-1, 1).clamp(0, 1)
    points = to_pixels(warp.inverse(MEAN)[0], 40, 40)
    return LandmarkSet(list(images), tuple(f"{i}.png" for i in range(n)), points, torch.arange(n))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("frame")
    return train(_set(), out=out, recipe=SMALL, accelerator="cpu"), out


class _Places(nn.Module):
    """A frame that knows nothing but the place of a pixel in the picture: psi(h x) = rho(h) psi(x) by construction."""

    stride = 2

    def forward(self, image):
        h, w = image.shape[2] // 2, image.shape[3] // 2
        field = pixel_grid(h, w).movedim(-1, 0) * 3
        return torch.cat([field, field.square().sum(0, keepdim=True)])[None].expand(len(image), -1, -1, -1)


@pytest.mark.parametrize("group", [mirror_group(3), rotation_group(4, 3)])
def test_every_element_costs_the_same_where_the_frame_is_symmetric(group, monkeypatch):
    image = torch.rand(2, 3, 16, 16)
    truth = pixel_grid(8, 8)[None].expand(2, -1, -1, -1)
    batch = {"first": image, "second": image, "truth": truth, "valid": torch.ones(2, 8, 8).bool()}
    batch["step"] = torch.tensor(0)
    found = []
    for element in range(len(group)):
        monkeypatch.setattr(torch, "randint", lambda *a, e=element, **k: torch.tensor(e))
        found.append(float(Losses()(_Places(), batch, group)["equivariance"]))
    assert max(found) - min(found) < 1e-4
    relaxed = float(Losses(relaxed=True)(_Places(), batch, group)["equivariance"])
    assert relaxed <= min(found) + 1e-5


def test_some_pixels_stand_for_all():
    batch = view_pair(
        torch.randint(0, 255, (2, 3, 30, 30), dtype=torch.uint8), ViewPlan(size=16), stride=2, seed=0
    )
    batch["step"] = torch.tensor(0)
    whole = float(Losses()(_Places(), batch, mirror_group(3))["equivariance"])
    parts = [float(Losses(pixels=32)(_Places(), batch, mirror_group(3))["equivariance"]) for _ in range(30)]
    assert abs(sum(parts) / len(parts) - whole) < 0.05


def test_views_show_what_their_warp_says():
    """The picture is a ramp: the colours of both views tell where they were taken."""
    ramp = ((pixel_grid(64, 64).movedim(-1, 0) / 2 + 0.5) * 255).round().to(torch.uint8)
    image = torch.cat([ramp, torch.full((1, 64, 64), 128, dtype=torch.uint8)])[None].repeat(4, 1, 1, 1)
    plan = ViewPlan(
        size=32,
        zoom=0.5,
        first=WarpRange(rotation=8),
        colour=0.0,
        flip=0.0,
        second=WarpRange(rotation=10, scale=0.1, shift=0.1, bend=0.003),
    )
    pair = view_pair(image, plan, stride=1, seed=3)
    seen = torch.nn.functional.grid_sample(pair["first"], pair["truth"], align_corners=False)
    off = (seen - pair["second"]).abs().amax(1)[pair["valid"] & (pair["truth"].abs().amax(-1) < 0.9)]
    assert float(off.max()) < 0.01


def test_colours_change_and_are_packed_as_asked():
    image = (torch.stack(list(_set(3).images)) * 255).to(torch.uint8)
    still = ViewPlan(size=16, colour=0.0, flip=0.0)
    plain, packed, bright = (
        view_pair(image, replace(still, **o), stride=2, seed=1)["first"]
        for o in ({}, {"jpeg": 1.0}, {"colour": 1.0})
    )
    assert torch.equal(plain, view_pair(image, still, stride=2, seed=1)["first"])
    assert 0.001 < float((packed - plain).abs().mean()) < 0.1 < float((bright - plain).abs().max())
    with pytest.raises(ValueError, match="zoom, flip, colour, jpeg"):
        replace(still, jpeg=2.0)


def test_batches_are_a_function_of_the_seed():
    images = torch.randint(0, 255, (5, 3, 30, 30), dtype=torch.uint8)
    make = lambda seed: ViewBatches(images, SMALL.views, stride=2, steps=2, seed=seed)  # noqa: E731
    a, b = (list(make(1)(3, 0, 1)) for _ in range(2))
    assert all(torch.equal(x["first"], y["first"]) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0]["first"], next(iter(make(2)(3, 0, 1)))["first"])
    with pytest.raises(ValueError, match="size: expected a multiple of the network's stride"):
        ViewBatches(images, replace(SMALL.views, size=25), stride=2)


def test_flow_batches_carry_the_flow():
    first = torch.randint(0, 255, (1, 3, 16, 16), dtype=torch.uint8)
    flow = torch.zeros(1, 2, 16, 16)
    flow[:, 0, :, 8:] = 4.0  # the right half comes from 4 pixels further right
    flow[:, :, 0, 0] = torch.nan
    batch = next(iter(FlowBatches(first, first, flow, pairs=2, stride=2, steps=1)(0, 0, 1)))
    move = (batch["truth"] - pixel_grid(8, 8)) * 8
    assert torch.allclose(move[0, 3, 4:6], torch.tensor([[4.0, 0], [4.0, 0]]))
    assert batch["valid"][0, 3].tolist() == [False] * 4 + [True] * 2 + [False] * 2


def test_a_frame_is_learned_from_flow_and_loaded_again(tmp_path):
    frames = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    pairs = FlowBatches(
        frames, frames.roll(2, 3), torch.full((4, 2, 32, 32), 2.0), pairs=2, stride=2, steps=2
    )
    predictor = train(pairs, out=tmp_path, recipe=replace(SMALL, group="none"), accelerator="cpu")
    assert predictor.sizes == (32, 32) and predictor.about["images"] == 4 and predictor.about["steps"] == 3
    assert torch.equal(load(tmp_path).embed(frames), predictor.embed(frames))


def test_training_is_a_function_of_the_seed_and_is_loaded_again(trained, tmp_path):
    predictor, out = trained
    again = train(_set(), out=tmp_path, recipe=SMALL, accelerator="cpu")
    images = predictor.squares(_set())[1].images
    assert torch.equal(predictor.embed(images), again.embed(images))
    loaded = load(out)
    assert torch.equal(predictor.embed(images), loaded.embed(images)) and len(loaded.group) == 2
    alone = loaded.embed(images[2:3])
    assert torch.allclose(alone, predictor.embed(images)[2:3], atol=1e-5)


def test_landmarks_from_annotated_images_are_saved_with_the_model(trained, tmp_path):
    predictor, _ = trained
    kept, cut = predictor.squares(_set())
    fitted = predictor.with_landmarks(cut.images, cut.points, groups=kept.identity)
    fitted.save(tmp_path)
    found, same = fitted.predict(_set()), load(tmp_path).predict(_set())
    assert torch.equal(found.points, same.points) and found.points.shape == (6, 5, 2)
    assert len(found.warnings) == int((found.confidence < 0.5).sum())
    with pytest.raises(ValueError, match="model: expected one with landmarks"):
        predictor.predict(_set())
    (tmp_path / "regressor.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="expected a regressor to landmarks"):
        load(tmp_path)


def test_the_measures_have_their_names(trained):
    predictor, _ = trained
    kept, cut = predictor.squares(_set(12))
    data = cut.images, cut.points, kept.identity
    numbers = evaluate(predictor, data, data[:2], labels=[4, "all"], method="linear")
    assert set(numbers["iod_percent_5"]) == {"4", "all"} == set(numbers["iod_median_5"])
    assert {"matching_same_percent", "matching_different_percent", "symmetry_transfer_percent"} <= set(
        numbers
    )
    with pytest.raises(ValueError, match="labels: expected at most 12"):
        landmark_errors(predictor, data, data[:2], labels=[13])
    true = torch.rand(3, 68, 2)
    five = point_errors(true + 0.01, true)
    assert set(five) == {"iod_percent_68", "iod_median_68", "iod_percent_5", "iod_median_5"}
    eyes = (true[:, 36:42].mean(1) - true[:, 42:48].mean(1)).norm(dim=-1)
    assert five["iod_percent_5"] == pytest.approx(float((100 * 0.01 * 2**0.5 / eyes).mean()), rel=1e-4)


def test_points_are_matched_by_the_embedding_alone(trained):
    predictor, _ = trained
    images = predictor.squares(_set())[1].images
    points = torch.rand(6, 4, 2) - 0.5
    found, sure = predictor.match(images, images, points)
    assert found.shape == (6, 4, 2) and bool((sure > 0).all())
    assert float((found - points).norm(dim=-1).mean()) < float(
        (found.roll(1, 0) - points).norm(dim=-1).mean()
    )


def test_colours_mean_the_same_in_all_pictures():
    field = torch.randn(3, 6, 4, 5)
    colours, basis = principal_colours(field)
    assert colours.shape == (3, 3, 4, 5) and float(colours.min()) >= 0 and float(colours.max()) <= 1
    assert torch.allclose(principal_colours(field[1:2], basis=basis)[0], colours[1:2], atol=1e-6)


def test_recipes_and_bad_input(tmp_path):
    assert set(RECIPES) == {"geoframe", "dense", "symmetric", "compressed"}
    n = sum(p.numel() for p in build("dilations", {"dim": 3}).parameters())
    assert abs(n - 334_900) < 500  # of the released code
    with pytest.raises(TypeError, match="recipe: expected a Recipe"):
        train(_set(), out=tmp_path, recipe="ours")
    with pytest.raises(ValueError, match="images: expected at least two"):
        train(_set(1), out=tmp_path, recipe=SMALL)
    with pytest.raises(ValueError, match="network: expected one of"):
        replace(DENSE, network="vit")
    with pytest.raises(ValueError, match="group: expected"):
        replace(DENSE, group="star")
    with pytest.raises(ValueError, match="settings: expected arguments of network"):
        build("simple", {"depth": 3})
