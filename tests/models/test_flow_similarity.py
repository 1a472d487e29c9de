"""Features from motion: sparse equals dense, training groups what moves together, the probe, bad input in a line."""

from __future__ import annotations

import pytest
import torch

from geoframe.flow import pixel_grid
from geoframe.heads.backbone import backbone
from geoframe.heads.hypercolumn import HypercolumnHead
from geoframe.models.flow_similarity import (
    OURS,
    PAPER,
    FlowFeatures,
    Predictor,
    Recipe,
    cluster,
    evaluate,
    foreground,
    foreground_by_motion,
    linear_probe,
    load,
    train,
)
from geoframe.models.flow_similarity.network import build


def frames(n: int, side: int = 48) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Bright discs on dark noise that move, with flow and mask."""
    generator, found = torch.Generator().manual_seed(0), []
    grid = pixel_grid(side, side, like=torch.zeros(0))
    for _ in range(n):
        centre = side * (0.3 + 0.4 * torch.rand(2, generator=generator))
        mask = (grid - centre[:, None, None]).norm(dim=0) < 0.22 * side
        noise = torch.rand(3, side, side, generator=generator)
        image = torch.where(mask, 0.6 + 0.3 * noise, 0.4 * noise)
        flow = torch.where(mask, 5 * torch.randn(2, 1, 1, generator=generator), 0.0)
        found.append((image, flow.expand(2, side, side).clone(), mask))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Predictor:
    recipe = Recipe("test", OURS.settings, OURS.losses, 4, 64, 48, schedule=OURS.schedule).with_steps(25)
    return train([f[:2] for f in frames(6)], out=tmp_path_factory.mktemp("features"), recipe=recipe)


def test_the_dense_field_holds_what_is_read_at_its_points():
    head = HypercolumnHead(backbone("small"), 8).eval()
    image = torch.rand(2, 3, 40, 52)
    with torch.no_grad():
        field = head.field(image, stride=4)
        assert field.shape == (2, 8, 10, 13)
        points = torch.tensor([[[4 * 3 + 2.0, 4 * 7 + 2.0], [2.0, 2.0]]]).expand(2, -1, -1)
        found = head(image, points)
        torch.testing.assert_close(found[:, 0], field[:, :, 7, 3])
        torch.testing.assert_close(found[:, 1], field[:, :, 0, 0])
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 2))
        torch.testing.assert_close(head.columns(image[1:], points[1:])[0], head.columns(image, points)[1])
        assert head.channels == head.columns(image, points).shape[2]


def test_training_groups_what_moves_together(trained):
    new = frames(9)[6:]
    untrained = FlowFeatures().eval()
    gaps = []
    for model in (trained.model, untrained):
        inside, between = [], []
        for image, _, mask in new:
            with torch.no_grad():
                field = model.field(image[None], stride=1)[0].flatten(1).T
            fore, back = field[mask.flatten()], field[~mask.flatten()]
            inside.append(float(fore.mean(0) @ fore.mean(0)))
            between.append(float(fore.mean(0) @ back.mean(0)))
        gaps.append(sum(inside) - sum(between))
    assert gaps[0] > gaps[1] + 0.3


def test_a_model_is_saved_and_loaded(trained, tmp_path):
    trained.save(tmp_path)
    again = load(tmp_path)
    assert again.about == trained.about
    image = frames(1)[0][0]
    assert torch.equal(again.predict(image), trained.predict(image))
    assert again.predict(image.numpy()[:1], stride=8).shape == (16, 6, 6)


def test_the_probe_and_the_foreground(trained):
    pictures = [(image, mask) for image, _, mask in frames(8)]
    numbers = evaluate(trained, pictures, stride=2)
    assert numbers["probe_iou"] > 70 and (numbers["train"], numbers["test"]) == (4, 4)
    exact = linear_probe(lambda x: x.mean(0, keepdim=True), pictures[:4], pictures[4:])
    assert exact > 60  # bright on dark
    clip = frames(4)
    features = [trained.predict(x, stride=2) for x, _, _ in clip]
    found = foreground(features, [flow for _, flow, _ in clip], n_clusters=4)
    shares = [float((f == m).float().mean()) for f, (_, _, m) in zip(found, clip, strict=True)]
    assert min(shares) > 0.8
    learned = foreground_by_motion(features, [flow for _, flow, _ in clip])
    assert all(float((f == m).float().mean()) > 0.9 for f, (_, _, m) in zip(learned, clip, strict=True))
    with pytest.raises(ValueError, match="pictures: expected at least two, found 1"):
        evaluate(trained, pictures[:1])


def test_clusters_are_those_of_well_separated_features():
    a, b = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    a[:, 1], b[0, :, 2:] = 5.0, -5.0
    labels = cluster([a, b], 3)
    assert labels[0][1].unique().numel() == 1 and labels[0][1, 0] not in labels[0][0]
    assert labels[1][0, 3] != labels[1][0, 0] == labels[0][0, 0]


def test_bad_input_is_told(tmp_path, trained):
    image, flow, _ = frames(1)[0]
    for some, told in (
        ([], "frames: expected at least one frame"),
        ([(image, flow[:, :40])], r"flow 0: expected shape \(2, 48, 48\)"),
        ([(image, torch.full_like(flow, torch.nan))], "flow 0: expected a known flow at a twentieth"),
        (
            [(image[:, :20], flow[:, :20])],
            "image 0: expected at least 32 pixels along each side, found 48 x 20",
        ),
        ([(image * torch.nan, flow)], "image 0: expected finite numbers"),
        ([(image[:2], flow)], "image 0: expected 1 or 3 channels first"),
    ):
        with pytest.raises(ValueError, match=told):
            train(some, out=tmp_path / "x", recipe=OURS)
    with pytest.raises(ValueError, match="settings: expected some of backbone"):
        build({"nonsense": 1})
    with pytest.raises(ValueError, match="crop: expected an integer at least 32"):
        Recipe("x", crop=8)
    assert PAPER.with_form("kta").losses.form == "kta"
