"""To The Point on an egg with horns: gradients of whole losses, independence, training, prediction, complaints."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from geoframe.canonical import Surface
from geoframe.data.crops import Crop
from geoframe.data.object_crops import ObjectCrops
from geoframe.data.object_templates import ObjectTemplate
from geoframe.data.object_views import Augmentation, affine_by_chance, moved, warped
from geoframe.fitting.collections import Collection, CollectionLosses, on_screen, place
from geoframe.fitting.explained import explain_by_points
from geoframe.heads import backbone
from geoframe.heads.positions import Positions
from geoframe.metrics.reconstruction import soft_iou
from geoframe.models.surface_embedding.network import Embedded
from geoframe.models.to_the_point import OURS, PAPER, evaluate, load, train
from geoframe.models.to_the_point.evaluate import UNCALIBRATED, doubt, reconstructed
from geoframe.models.to_the_point.network import (
    ToThePoint,
    embedded_points,
    features,
    flipped,
    position_head,
    shape_model,
)
from geoframe.models.to_the_point.predictor import Predictor
from geoframe.models.to_the_point.recipe import BatchLosses, Losses, Targets
from geoframe.render import rasterize, vertex_visibility
from geoframe.surface.shapes import icosphere
from geoframe.transforms import rotvec_to_rotation

S = 32
NAMES = ("nose", "tail", "top", "left", "right", "belly")
QUICK = replace(
    OURS.lasting(steps=4), backbone="tiny", enlarged=1, size=S, batch=4, n_modes=2, fit_epochs=1, n_verts=200
)
ALONE = replace(
    QUICK, fit=None
)  # without targets from a fit to the whole collection, which takes most of the time


@pytest.fixture(scope="module")
def template():
    ball = icosphere(2)
    x = ball.verts.double()
    x = x * torch.tensor([1.0, 0.6, 0.4]).double() * (1 + 0.4 * x[:, :1])
    x[:, 1] += 0.1 * x[:, 0] ** 2  # bent upwards: only left and right are alike
    ends = ((0, 1), (0, -1), (1, 1), (2, 1), (2, -1), (1, -1))
    marks = {n: int((s * x[:, i]).argmax()) for n, (i, s) in zip(NAMES, ends, strict=True)}
    return ObjectTemplate.of(Surface(x, ball.faces, landmarks=marks), 200)


@pytest.fixture(scope="module")
def crops(template):
    """Twelve eggs as they are seen, in colours of their own coordinates."""
    n, draw = 12, torch.Generator().manual_seed(0)
    x = template.surface.verts.float()
    R = rotvec_to_rotation(torch.randn(n, 3, generator=draw) * torch.tensor([0.2, 0.8, 0.2]))
    R = R @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # up is up
    placed = place(x.expand(n, -1, -1), R, 0.05 * torch.randn(n, 2, generator=draw), torch.full((n,), 0.75))
    fragments = rasterize(on_screen(placed, S), template.surface.faces, (S, S))
    colors = (
        fragments.barycentric[..., None] * (x / 2 + 0.5)[template.surface.faces[fragments.face_id]]
    ).sum(-2)
    image = torch.where(fragments.mask[..., None], 255 * colors, 20).movedim(-1, 1).round().to(torch.uint8)
    at = torch.tensor([template.surface.landmarks[n] for n in NAMES])
    screen = on_screen(placed, S)[..., :2]
    whole = tuple(Crop((0, 0, S, S), (S, S)) for _ in range(n))
    points, seen = screen[:, at], torch.ones(n, len(NAMES), dtype=torch.bool)
    files = tuple(f"{i}.png" for i in range(n))
    return ObjectCrops(
        image, fragments.mask, points, seen, NAMES, whole, files, screen, x.expand(n, -1, -1) @ R.mT
    )


def _model(template, *, kind="dense", n_modes=2, **solver):
    torch.manual_seed(0)
    head = position_head(kind, backbone("tiny"), template, **({"width": 16} if kind == "control" else {}))
    shape = shape_model(template, n_modes, n_symmetric=1, spread=0.05)
    return ToThePoint(head, shape, template, **solver)


WHOLE = {
    "the paper's": replace(
        PAPER.losses, region=0.0, equivariance=0.0
    ),  # its silhouettes and constants: below
    "the code's": Losses(region=2.0, consistency=1.0, coverage=3.0, visibility=1.0, edges=3.0, form="code"),
}


@pytest.mark.parametrize(("name", "lens"), [("the paper's", 0.15), ("the code's", 0.0)])
def test_the_gradient_of_the_whole_loss_is_that_of_differences(template, crops, name, lens):
    """In the last layer's weights, through positions, solver, deformation and rendering, in float64."""
    model = _model(template, lens=lens).double()
    recipe = replace(QUICK, losses=WHOLE[name], augmentation=Augmentation(color=0.0), fit=None)
    losses = BatchLosses(recipe, crops, _vertices(template))
    batch = {"row": torch.tensor([1, 5])}
    weight = model.head.out.weight

    def loss():
        torch.manual_seed(3)
        return torch.stack(list(losses(model, batch).values())).sum()

    model.head.out.weight.data += 1e-3 * torch.randn(weight.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(loss(), weight)
    step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    slope, h = float((gradient * step).sum()), 1e-7  # so small that no point passes an edge of a pixel
    with torch.no_grad():
        weight += h * step
        up = float(loss())
        weight -= 2 * h * step
        down = float(loss())
    assert slope == pytest.approx((up - down) / (2 * h), rel=5e-3)  # a painted pixel may see another face
    assert abs(slope) > 1e-3


def _vertices(template):
    return torch.tensor([template.surface.landmarks[n] for n in NAMES])


@pytest.mark.parametrize("kind", ["dense", "control"])
def test_a_result_does_not_depend_on_batch_mates(template, crops, kind):
    model = _model(template, kind=kind, outline=1.0).eval()
    x = crops.image.float() / 255
    with torch.no_grad():
        together = model.settled(model(x))
        alone = model.settled(model(x[3:4]))
    for a, b in ((together.projected, alone.projected), (together.solution.R, alone.solution.R)):
        torch.testing.assert_close(a[3:4], b, atol=1e-4, rtol=1e-4)


def test_each_loss_has_its_switch(template, crops):
    model = _model(template)
    names = [n for n in Losses.__dataclass_fields__ if n not in ("form", "targets", "heat", "foreground")]
    for name in names:
        recipe = replace(QUICK, losses=Losses(**{name: 1.0}), fit=None)
        parts = BatchLosses(recipe, crops, _vertices(template))(model, {"row": torch.tensor([0, 1])})
        assert name in parts and parts.keys() <= {name, "flip_points"}, name
        assert all(torch.isfinite(v) for v in parts.values())


def test_points_move_as_their_image_does(template, crops):
    torch.manual_seed(1)
    affine = affine_by_chance(4, Augmentation())
    dot = torch.zeros(4, 1, 64, 64)
    dot[:, :, 40:43, 20:23] = 1
    there = warped(dot, affine)[0][:, 0]
    line = (torch.arange(64) + 0.5) / 32 - 1
    total = there.sum((1, 2))
    centre = torch.stack([(there.sum(1) * line).sum(1), (there.sum(2) * line).sum(1)], 1) / total[:, None]
    was = torch.stack([line[21], line[41]]).expand(4, 1, 2)
    torch.testing.assert_close(moved(was, affine)[:, 0], centre, atol=0.01, rtol=0)


def test_the_flipped_positions_are_those_of_the_flipped_image(template, crops):
    """The egg's flipped image is the image of its other side: the landmarks exchange left and right."""
    u = (2 * crops.screen / S - 1).double()
    there = flipped(u, template)
    at, swap = _vertices(template), template.landmark_swap
    expected = u[:, at[swap]] * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(there[:, at], expected, atol=0.03, rtol=0)


@pytest.fixture(scope="module")
def trained(template, crops, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    return train(crops, template, out=out, recipe=QUICK), out


def test_a_loaded_model_is_the_trained_one(trained, crops):
    predictor, out = trained
    again = load(out)
    numbers = evaluate(predictor, crops)
    assert evaluate(again, crops) == numbers
    wanted = (
        "iou_soft iou_hard pck_10 pck_15 pck_10_regressed rotation_median_deg reversed surface_percent iou_3d"
    )
    assert set(wanted.split()) <= numbers.keys()
    assert evaluate(predictor, crops, deform=False)["surface_percent"] != numbers["surface_percent"]


def test_kept_views_are_learned_from_as_their_images_are(template, crops):
    """A step from the maps of a frozen backbone is the step from the images that they were made of."""
    torch.manual_seed(0)
    net = backbone("tiny", trainable=False, enlarged=2)
    head = position_head("control", net, template, width=16)
    model = ToThePoint(head, shape_model(template, 1), template).eval()
    where = 2 * crops.screen / S - 1
    seen = torch.ones(len(crops), 1, template.n_verts, dtype=torch.bool)
    goals = Targets(where[:, None], seen, torch.ones(len(crops), 1))
    losses = BatchLosses(OURS, crops, _vertices(template), goals)
    torch.manual_seed(1)
    losses.keep_views(model, 30)  # three of each of twelve
    views = losses.views
    assert len(views.flip) == 3 * len(crops) and views.maps[0].numel() == 0 < views.maps[-1].numel()
    again = BatchLosses(OURS, crops, _vertices(template), goals)
    torch.manual_seed(1)
    again.views = again._changed(torch.arange(len(crops)).repeat(3), model)
    assert (again.views.flip == views.flip).all() and not again.views.maps
    results = []
    for way in (losses, again):
        torch.manual_seed(2)
        results.append(way(model, {"row": torch.arange(5)}))
    kept, drawn = results
    assert kept.keys() == drawn.keys() == {"targets", "visibility", "heat", "foreground"}
    for name in kept:
        torch.testing.assert_close(kept[name], drawn[name], rtol=2e-3, atol=1e-4)


def test_what_explains_the_pictures_is_near_the_truth(template, crops):
    """The targets that a network of ours learns from: keypoints and masks put every vertex where it is."""
    from geoframe.fitting.explained import explain_by_keypoints, explain_by_masks
    from geoframe.models.to_the_point.predictor import Collection

    where = 2 * crops.points / S - 1
    collection = Collection(crops.mask.float(), where, crops.visible.float(), _vertices(template))
    shape = shape_model(template, 0)
    settings = {"losses": replace(OURS.fit, lens=0.0), "epochs": 2}
    told = explain_by_keypoints(collection, shape, template.surface.faces, **settings)
    truth = 2 * crops.screen / S - 1
    assert float((told.points[:, 0] - truth).norm(dim=-1).mean()) < 0.03
    assert (told.belief == 1).all()
    up = torch.tensor([0.0, 1.0, 0.0])
    shape = shape_model(template, 0)
    guesses = explain_by_masks(collection, shape, template.surface.faces, up=up, losses=settings["losses"])
    away = (guesses.points - truth[:, None]).norm(dim=-1).mean(-1)
    assert float(away.amin(1).mean()) < 0.12 and float(away.amax(1).mean()) > 0.3
    torch.testing.assert_close(guesses.belief.sum(1), torch.ones(len(crops)))


def test_an_image_is_looked_at_in_a_mirror_too(template, crops):
    """Positions of the mirror image are the mirrored ones; two that contradict each other are not averaged."""
    model = _model(template, kind="control").eval()
    image = crops.image[:4].float() / 255
    with torch.no_grad():
        for x in model.head.field.out.parameters():
            x *= 0.3  # flat maps, whose means are not far apart
        found, mirror = model.look(image), model.look(image.flip(-1))
        once = model(image)
    # carrying to the mirror image and back is not exact where the mesh itself is not mirror-symmetric
    torch.testing.assert_close(mirror.points, flipped(found.points, template), rtol=0, atol=0.02)
    torch.testing.assert_close(mirror.spread, found.spread)
    torch.testing.assert_close(mirror.mask.flip(-1), found.mask)
    torch.testing.assert_close((once.points - found.points).norm(dim=-1).mean(1), found.apart / 2)

    def contradicting(x):
        """Sure of an image that is bright on the left; of its mirror image, that it is somewhere else."""
        sure = x[:, :, :, 0].mean((1, 2)) > 0.5
        points = once.points[:1].expand(len(x), -1, -1) + torch.where(sure, 0.0, 0.5)[:, None, None]
        spread = torch.where(sure, 0.1, 0.3)
        return Positions(points, points[..., 0], None, spread=spread)

    model.forward = contradicting
    bright = torch.zeros(1, 3, S, S)
    bright[..., : S // 2] = 1
    found = model.look(bright)
    torch.testing.assert_close(found.points, once.points[:1])
    assert float(found.apart) > 0.3 and float(found.spread) == pytest.approx(0.1)


@pytest.mark.slow
def test_training_without_keypoints_and_the_papers_way(template, crops, tmp_path):
    """Without keypoints the template stays rigid: nothing could tell how it bends."""
    every = torch.arange(template.n_verts)
    said = [(x, every, torch.ones(len(x))) for x in 2 * crops.screen / S - 1]
    for name, recipe, points in (("masks", QUICK, None), ("points", QUICK, said), ("paper", PAPER, None)):
        plan = replace(recipe.lasting(steps=3), backbone="tiny", size=S, n_modes=2, n_verts=200, batch=3)
        settings = {"recipe": plan, "keypoints": name == "paper", "points": points}
        found = train(crops, template, out=tmp_path / name, **settings)
        assert 0 <= evaluate(found, crops)["iou_hard"] <= 1
        if name != "paper":
            shape = found.model.shape
            torch.testing.assert_close(shape.template(), template.surface.verts.float())
            assert not shape.basis().any()


def test_correspondences_of_pixels_explain_pictures(template, crops):
    """True places of a third of the vertices give the true places of all; what has none is not believed."""
    shape = shape_model(template, 0)
    at, faces = 2 * crops.screen / S - 1, template.surface.faces
    some = torch.arange(0, template.n_verts, 3)
    said = [(x[some], some, torch.ones(len(some))) for x in at]
    said[3] = tuple(x[:0] for x in said[3])
    seen = Collection(
        crops.mask.float(), at[:, :0], crops.visible[:, :0].float(), torch.zeros(0, dtype=torch.int64)
    )
    told = explain_by_points(
        seen, shape, faces, said, losses=CollectionLosses(lens=0.0), epochs=1, learn_shape=False
    )
    known = told.belief[:, 0] > 0
    assert not known[3] and 8 <= int(known.sum()) <= 11  # nor is the one whose mask is explained worst
    torch.testing.assert_close(told.points[known, 0], at[known], rtol=0, atol=0.03)
    with pytest.raises(ValueError, match="points: expected correspondences"):
        explain_by_points(seen.take(torch.tensor([3])), shape, faces, said[3:4], losses=CollectionLosses())


def test_an_embedding_says_where_vertices_are(template, crops):
    """Squares whose embedding is that of a vertex give that vertex, at their middle, inside of the mask only."""
    V, side = template.n_verts, 8
    table = F.normalize(torch.randn(V, 6, generator=torch.Generator().manual_seed(5)), dim=1)
    vertex = torch.arange(side * side).reshape(side, side) % V
    field = Embedded(table[vertex].movedim(-1, 0), torch.zeros(side, side), ())
    target = SimpleNamespace(surface=template.surface, table=table)
    embedding = SimpleNamespace(
        of=lambda name: embedding,
        target=lambda name: target,
        fields=lambda image: field,
        evidence=lambda x, mask, target: x,
        model=SimpleNamespace(calibration=lambda x: torch.full((len(x),), 0.5)),
    )
    whole = ObjectTemplate.of(template.surface, V)  # each vertex is one of the surface
    told = embedded_points(crops, whole, embedding, "egg")
    assert len(told) == len(crops)
    for mask, (at, found, weight) in zip(crops.mask, told, strict=True):
        inside = F.avg_pool2d(mask[None].float(), S // side)[0] > 0.5
        assert torch.equal(found, vertex[inside]) and weight.eq(0.5).all()
        rows, cols = torch.nonzero(inside, as_tuple=True)
        middle = (2 * torch.stack([cols, rows], 1) + 1) / side - 1
        torch.testing.assert_close(at, middle)


def test_short_trainings_keep_few_views():
    assert OURS.lasting(steps=OURS.schedule.steps).views == OURS.views
    assert OURS.lasting(steps=100).views == 100 * OURS.batch / 4
    assert OURS.lasting(minutes=0.1).views == OURS.lasting(steps=50, minutes=5).views == 50 * OURS.batch / 4


def test_empty_masks_are_told_and_left_out(template, crops, tmp_path, caplog):
    mask = crops.mask.clone()
    mask[2] = False
    with caplog.at_level(logging.WARNING):
        predictor = train(replace(crops, mask=mask), template, out=tmp_path, recipe=ALONE.lasting(steps=1))
    assert "1 of 12 crops are left out" in caplog.text and predictor.about["crops"] == 11
    with pytest.raises(ValueError, match="crops: expected some with an object"):
        train(replace(crops, mask=mask & False), template, out=tmp_path, recipe=QUICK)


def test_a_step_that_is_not_finite_is_told_and_not_learned_from(
    template, crops, tmp_path, caplog, monkeypatch
):
    from geoframe.models.to_the_point import predictor as module

    class Broken(BatchLosses):
        count = 0

        def __call__(self, model, batch):
            self.count += 1
            return {
                k: v * (torch.nan if self.count == 2 else 1)
                for k, v in super().__call__(model, batch).items()
            }

    monkeypatch.setattr(module, "BatchLosses", Broken)
    with caplog.at_level(logging.WARNING):
        trained = train(crops, template, out=tmp_path, recipe=ALONE)
    assert "is skipped" in caplog.text
    assert all(torch.isfinite(p).all() for p in trained.model.parameters())


def test_a_reconstruction_lies_in_its_image(trained, crops):
    predictor, _ = trained
    image = torch.full((3, 50, 70), 0.5)
    image[:, 9 : 9 + S, 20 : 20 + S] = crops.image[0].float() / 255
    mask = torch.zeros(50, 70, dtype=torch.bool)
    mask[9 : 9 + S, 20 : 20 + S] = crops.mask[0]
    found = predictor.predict(image, mask=mask)
    assert found.pixels.size == (50, 70) and 0 <= found.confidence <= 1
    moved_mesh = found.scale * (found.mesh.verts.float() @ found.rotation.T)[:, :2] + found.translation
    lens = predictor.model.lens
    assert (moved_mesh - found.placed[:, :2]).norm(dim=1).mean() < (
        1e-3 if not lens else 0.3 * found.scale * lens
    )
    assert found.mesh.uv is not None and found.mesh.colors.shape == (predictor.template.n_verts, 3)
    near = predictor.predict(image, box=[20, 9, 20 + S, 9 + S])
    assert near.pixels.size == (50, 70)
    with pytest.raises(ValueError, match="mask"):
        predictor.predict(image, mask=mask[:10])
    with pytest.raises(ValueError, match="mask: expected some pixels"):
        predictor.predict(image, mask=mask & False)


def test_reconstructions_of_several_images_are_those_of_each(trained, crops):
    predictor, _ = trained
    some = crops[[0, 1, 2]]
    found, posed = reconstructed(predictor.model, some)
    evidence = predictor.model.evidence(found, posed)
    images = [torch.rand(3, n, n + 5, generator=torch.Generator().manual_seed(n)) for n in (30, 40, 50)]
    where = [Crop((2, -3, n, n - 5), (S, S)) for n in (20, 34, 48)]
    together = predictor.reconstructions(images, posed, evidence, where)
    for i, (image, crop) in enumerate(zip(images, where, strict=True)):
        found, posed = reconstructed(predictor.model, some[[i]])
        alone = predictor.reconstructions([image], posed, predictor.model.evidence(found, posed), [crop])[0]
        torch.testing.assert_close(together[i].placed, alone.placed, rtol=0, atol=2e-2)
        torch.testing.assert_close(together[i].mesh.colors, alone.mesh.colors, rtol=0, atol=0.05)
        assert (
            abs(together[i].confidence - alone.confidence) < 1e-3 and together[i].warnings == alone.warnings
        )
        assert together[i].pixels.size == alone.pixels.size == image.shape[1:]


def test_a_confidence_that_was_not_calibrated_is_told(trained, template, crops, tmp_path):
    """Twelve crops are too few to set some aside, 204 are not."""
    predictor, _ = trained
    found, posed = reconstructed(predictor.model, crops)
    told = predictor.warnings(posed, predictor.model.evidence(found, posed))
    assert not predictor.model.calibrated and all(UNCALIBRATED in x for x in told)
    many = crops[torch.arange(204) % len(crops)]
    other = train(many, template, out=tmp_path, recipe=replace(QUICK, tuned=0.0)).model
    assert other.calibrated and load(tmp_path).model.calibrated
    told = Predictor(other, S, {}).warnings(posed, other.evidence(found, posed))
    assert not any(UNCALIBRATED in x for x in told)


def test_an_ambiguous_pose_is_told(trained, template):
    """Positions of an almost flat shape have two poses mirrored in depth."""
    predictor, _ = trained
    verts = predictor.model.shape.template().detach()
    v = torch.zeros(1, len(verts))
    v[0, _vertices(template)[:3]] = 40  # three points alone
    model = predictor.model
    before, model.hidden = model.hidden, 0.0
    R = rotvec_to_rotation(torch.tensor([[0.3, 0.5, 0.1]]))
    points = place(verts[None], R, torch.zeros(1, 2), torch.ones(1))[..., :2]
    said = Positions(points, torch.where(v > 0, 40.0, -40.0), None)
    posed = model.solve(said, deform=False)
    model.hidden = before
    assert any("another pose" in line for line in predictor.warnings(posed, model.evidence(said, posed))[0])


def test_evidence_is_best_where_silhouette_and_mask_agree(trained):
    model = trained[0].model
    verts = model.shape.template().detach()
    R = rotvec_to_rotation(torch.tensor([[0.3, 0.5, 0.1]]))
    points = place(verts[None], R, torch.zeros(1, 2), torch.full((1,), 0.6))[..., :2]
    said = Positions(points, torch.zeros(1, len(verts)), None)
    posed = model.solve(said, deform=False)
    fragments = rasterize(posed.screen(64), model.faces, (64, 64))
    drawn = fragments.mask.float()
    same = torch.nn.functional.avg_pool2d(drawn[:, None], 4)[:, 0].round()
    for mask, most, least in ((same, 1.0, 0.8), (1 - same, 0.2, 0.0)):
        one = said._replace(mask=40 * mask - 20, spread=torch.tensor([0.1]))
        evidence = model.evidence(one, posed)[0]
        assert least <= float(evidence[2]) <= most
        assert float(evidence[3]) == pytest.approx(math.log(0.1), rel=1e-5)
    nothing = model.evidence(said, posed)[0]
    assert nothing[2:5].tolist() == [0, 0, 0] and nothing[7] == 1  # a head that says none of it
    shown = vertex_visibility(fragments, model.faces, posed.screen(64))
    for logits, least, most in ((shown, -4.7, -4.5), (~shown, 2.2, 2.4)):
        agreeing = said._replace(visibility=40 * logits.float() - 20)
        assert least < float(model.evidence(agreeing, posed)[0, 5]) < most


def test_rotations_are_those_of_the_template(trained, template):
    """What a mode turns is no part of the shape: mesh and place stay, the rotation takes it over."""
    model = trained[0].model
    rest = model.shape.template().detach()
    R, turn = (rotvec_to_rotation(torch.tensor([x])) for x in ([0.3, 0.5, 0.1], [0.0, 0.4, 0.2]))
    points = place(rest[None], R, torch.zeros(1, 2), torch.full((1,), 0.6))[..., :2]
    plain = model.solve(Positions(points, torch.full((1, len(rest)), 20.0), None), deform=False)
    bent = plain._replace(
        verts=plain.verts @ turn.mT, solution=replace(plain.solution, R=plain.solution.R @ turn.mT)
    )
    back = bent.upright(rest)
    torch.testing.assert_close(back.verts, rest[None], rtol=0, atol=1e-5)
    torch.testing.assert_close(back.solution.R, plain.solution.R, rtol=0, atol=1e-5)
    torch.testing.assert_close(back.verts @ back.solution.R.mT, plain.verts @ plain.solution.R.mT)
    torch.testing.assert_close(back.projected, plain.projected)


def test_outlines_are_brought_to_the_mask(trained, template):
    """Positions that are too small by a tenth, and a mask that is right: the mesh covers it."""
    model = trained[0].model
    rest = model.shape.template().detach()
    R = rotvec_to_rotation(torch.tensor([[0.3, 0.5, 0.1]])) @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    true, small = (place(rest[None], R, torch.zeros(1, 2), torch.full((1,), s)) for s in (0.7, 0.63))
    mask = rasterize(on_screen(true, 64), model.faces, (64, 64)).mask.float()
    said = Positions(small[..., :2], torch.zeros(1, len(rest)), 20 * mask - 10)
    overlap = []
    for model.outline in (0.0, 4.0):
        drawn = rasterize(model.settled(said, deform=False).screen(64), model.faces, (64, 64)).mask.float()
        overlap.append(float(soft_iou(drawn, mask)))
    model.outline = 0.0
    assert overlap[0] < 0.85 and overlap[1] > 0.93


def test_the_limit_tells_the_wrong_ones_but_doubts_few():
    sure = torch.linspace(0, 1, 101)
    assert doubt(sure, sure > 0.62) == pytest.approx(0.62 * 0.95, abs=0.02)  # they can be told apart
    assert doubt(sure, torch.arange(101) % 2 == 0) == pytest.approx(0.2, abs=0.02)  # they cannot
    assert doubt(sure, sure >= 0) == pytest.approx(0.2, abs=0.02)


def test_other_keypoints_than_the_templates_are_told(template, crops, tmp_path):
    with pytest.raises(ValueError, match="crops: expected keypoints that are landmarks"):
        train(replace(crops, names=("a", "b", "c", "d", "e", "f")), template, out=tmp_path, recipe=QUICK)
    hidden = replace(crops, visible=crops.visible & False)
    with pytest.raises(ValueError, match="keypoints: expected at least 4 visible"):
        train(hidden, template, out=tmp_path, recipe=QUICK)
    with pytest.raises(ValueError, match=r"expected model\.json"):
        load(tmp_path)


def test_a_run_is_split_into_what_leaves_the_backbone_and_what_learns_it():
    plan = replace(OURS, tuned=0.25).lasting(steps=800)
    first, last = plan.split()
    assert last is not None and (first.schedule.steps, last.schedule.steps) == (600, 200)
    assert last.views == 0 and last.schedule.lr == OURS.schedule.lr / 4
    by_time = replace(OURS, tuned=0.25, schedule=replace(OURS.schedule, steps=None, minutes=9.0)).split()
    assert by_time[1] is not None
    assert [p.schedule.minutes for p in by_time] == pytest.approx(
        [3.0, 6.0]
    )  # a step takes six times as long
    assert OURS.lasting(steps=10).split() == (OURS.lasting(steps=10), None)
    assert replace(OURS, tuned=0.25).lasting(steps=1).split()[1] is None
    with pytest.raises(ValueError, match="tuned: expected a share"):
        replace(OURS, tuned=1.5)


@pytest.mark.parametrize("name", ["animals", "efficientnet-lite0"])
def test_a_backbone_that_is_learned_on_starts_as_it_was_and_is_saved(template, crops, tmp_path, name):
    pytest.importorskip("efficientnet_lite_pytorch")
    plan = replace(QUICK, backbone=name, enlarged=2, tuned=0.5)
    predictor = train(crops, template, out=tmp_path, recipe=plan, accelerator="cpu")
    net = predictor.model.head.backbone
    assert not net.frozen and predictor.about["trunk"] == plan.trunk
    start = features(name, enlarged=2, trunk=plan.trunk)
    moved = {k: not torch.equal(v, net.state_dict()[k]) for k, v in start.state_dict().items()}
    learned = {k for k, p in start.named_parameters() if p.requires_grad}
    assert learned and {k for k, m in moved.items() if m} <= learned and any(moved.values())
    image = torch.rand(2, 3, S, S)
    one, two = predictor.model(image), load(tmp_path).model(image)
    torch.testing.assert_close(one.points, two.points)
    names = load_file(tmp_path / "model.safetensors")
    assert sum("blocks.4._project_conv.weight" in name for name in names) == 1  # no weight is there twice
    shutil.rmtree(next(tmp_path.glob("tuned*")))  # as if it had been killed between the two parts
    again = train(crops, template, out=tmp_path, recipe=plan, accelerator="cpu")
    torch.testing.assert_close(again.model(image).points, one.points)
    with pytest.raises(ValueError, match="recipe: expected tuned 0"):
        train(crops, template, out=tmp_path / "b", recipe=replace(plan, backbone="tiny", enlarged=1))
    frozen = features(name, enlarged=2)
    for a, b in zip(start(image), frozen(image), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
