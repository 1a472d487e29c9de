"""The networks of category keypoints: shapes, symmetry, invariances, gradients, bad input."""

from __future__ import annotations

import pytest
import torch

from geoframe.models.category_keypoints.network import (
    CategoryKeypoints,
    PaperKeypoints,
    build,
    symmetry_frame,
)
from geoframe.transforms import rotation_about_axis


@pytest.fixture
def clouds():
    """Symmetric boxes of points about x = 0, all different, higher at the back."""
    g = torch.Generator().manual_seed(0)
    half = torch.rand(6, 150, 3, generator=g) * 2 - 1
    half[..., 2] = torch.where(half[..., 1] > 0.5, half[..., 2], -half[..., 2].abs())
    half = half * (0.5 + 0.5 * torch.rand(6, 1, 3, generator=g))
    return torch.cat([half, half * torch.tensor([-1.0, 1, 1])], dim=1)


def _ours(clouds, **settings):
    torch.manual_seed(0)
    model = CategoryKeypoints(8, 4, **{"max_angle": 180, **settings})
    model.prepare(clouds)
    with torch.no_grad():
        torch.nn.init.normal_(model.nodes.offset.weight, std=0.01)
    return model.eval()


def _paper(**settings):
    torch.manual_seed(0)
    return PaperKeypoints(8, 4, **settings).eval()


@pytest.mark.parametrize("mode", ["plain", "symmetric", "deformation"])
def test_shapes_and_frames(clouds, mode):
    for model in (
        _ours(clouds, mode=mode),
        _paper(mode=mode),
        _paper(mode=mode, rotation="any", plane="any"),
    ):
        found = model(clouds)
        assert found.keypoints.shape == found.canonical.shape == found.nodes.shape == (6, 8, 3)
        assert found.coefficients.shape == (6, 8 if mode == "deformation" else 4)
        torch.testing.assert_close(found.keypoints, found.canonical @ found.rotation.mT)
        torch.testing.assert_close(model.rotation(clouds), found.rotation)


def test_keypoints_are_symmetric_about_the_turned_plane(clouds):
    for model in (_ours(clouds), _paper()):
        found = model(clouds)
        n = (found.rotation @ model.basis.normal)[:, None]
        first, second = found.keypoints.chunk(2, dim=1)
        torch.testing.assert_close(
            first - 2 * (first * n).sum(-1, keepdim=True) * n, second, atol=1e-5, rtol=0
        )


def test_ours_turns_with_the_cloud(clouds):
    model = _ours(clouds)
    turns = rotation_about_axis(torch.linspace(-3, 3, 6), 2)
    a, b = model(clouds), model(clouds @ turns.mT)
    torch.testing.assert_close(b.keypoints, a.keypoints @ turns.mT, atol=2e-3, rtol=0)
    torch.testing.assert_close(b.canonical, a.canonical, atol=2e-3, rtol=0)
    torch.testing.assert_close(b.nodes, a.nodes @ turns.mT, atol=5e-3, rtol=0)


def test_order_and_batch_mates_do_not_matter(clouds):
    g = torch.Generator().manual_seed(1)
    shuffled = clouds[:, torch.randperm(300, generator=g)]
    for model in (_ours(clouds), _paper()):
        whole = model(clouds)
        for one, two in ((model(shuffled), whole), (model(clouds[2:3]), model(clouds[2:4]))):
            torch.testing.assert_close(one.keypoints, two.keypoints[: len(one.keypoints)], atol=1e-4, rtol=0)


def test_every_parameter_learns(clouds):
    for model in (_ours(clouds), _paper(), _paper(mode="deformation", rotation="any", plane="any")):
        model.train()
        found = model(clouds)
        (found.keypoints.square().sum() + found.nodes.square().sum() + found.keypoints[:, 0].sum()).backward()
        idle = [
            n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
        ]
        # the last bias of a branch under a maximum and a rotation is all there may be
        assert not [n for n in idle if "bias" not in n]


def test_the_plane_found_is_the_plane(clouds):
    model = _ours(clouds, max_angle=30)
    true = rotation_about_axis(torch.zeros(6), 2) @ torch.tensor([1.0, 0, 0])
    found = model.rotation(clouds) @ model.basis.normal
    assert float((found * true).sum(-1).abs().min()) > 0.998
    assert model.pose.symmetric and not CategoryKeypoints(mode="plain").pose.symmetric
    frame = symmetry_frame(model.basis)
    torch.testing.assert_close(frame @ frame.mT, torch.eye(3), atol=1e-6, rtol=0)
    assert float(frame[2, 2]) == pytest.approx(1)


def test_settings_rebuild_the_model(clouds):
    for network, model in (("pose_first", _ours(clouds)), ("paper", _paper(mode="plain"))):
        again = build(network, model.settings)
        again.load_state_dict(model.state_dict())
        torch.testing.assert_close(again.eval()(clouds).keypoints, model(clouds).keypoints)


def test_bad_input_is_told(clouds):
    model = _ours(clouds)
    with pytest.raises(ValueError, match="at least 4 points a cloud, found 3"):
        model(clouds[:, :3])
    with pytest.raises(ValueError, match="finite"):
        model(clouds * torch.nan)
    with pytest.raises(ValueError, match="single point repeated"):
        _paper()(torch.ones(2, 50, 3))
    with pytest.raises(ValueError, match="even number with symmetry"):
        CategoryKeypoints(7)
    with pytest.raises(ValueError, match="network: expected one of"):
        build("nothing", {})
    with pytest.raises(ValueError, match=r"settings: expected some of n_keypoints, .* found rotation"):
        build("pose_first", {"rotation": "any"})
    for network, low in (("pose_first", 6), ("paper", 3)):
        with pytest.raises(ValueError, match=f"n_keypoints: expected an integer at least {low}, found 2"):
            build(network, {"n_keypoints": 2})
