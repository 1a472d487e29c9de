"""The order-free baseline: shapes, order of points, its Siamese loss and its measures."""

from __future__ import annotations

import pytest
import torch

from experiments.category_keypoints.baseline import (
    SiameseLosses,
    evaluate_baseline,
    load_baseline,
    train_baseline,
)
from experiments.category_keypoints.correspondence import correspondence_distance
from experiments.category_keypoints.order_free import OrderFreeKeypoints
from geoframe.data import CloudSet, load_clouds
from geoframe.zoo import rigid
from geoframe.zoo.template import counterpart


@pytest.fixture
def clouds():
    points = torch.rand(8, 80, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return CloudSet(points, tuple("abcdefgh"))


def test_nodes_do_not_depend_on_the_order_of_points(clouds):
    torch.manual_seed(0)
    model = OrderFreeKeypoints(5).eval()
    found = model(clouds.points)
    assert found.shape == (8, 5, 3)
    torch.testing.assert_close(model(clouds.points.flip(1)), found, atol=1e-5, rtol=0)


def test_the_siamese_loss_is_zero_for_what_turns_along(clouds):
    def along(points):
        return points[:, :4]

    parts = SiameseLosses(up=2)(along, {"seen": clouds.points})
    assert float(parts["repeat"]) < 1e-5 and float(parts["on_cloud"]) < 1e-5

    def fixed(points):
        return clouds.points[:1, :4].expand(len(points), -1, -1)

    assert float(SiameseLosses(up=2)(fixed, {"seen": clouds.points})["repeat"]) > 0.1


def test_baseline_trains_and_is_measured(clouds, tmp_path):
    pytest.importorskip("lightning_fabric")
    model = train_baseline(clouds, out=tmp_path, n_keypoints=4, degrees=45, epochs=2, seed=0)
    numbers, back = evaluate_baseline(model, clouds, degrees=45)
    assert numbers["n_keypoints"] == 4
    assert 0 < numbers["coverage_percent"] < 100 and 0 <= numbers["correspondence_percent"] <= 100
    share = float(back.isfinite().all(-1).double().mean())
    assert back.shape == (8, 4, 3) and numbers["correspondence_percent"] == pytest.approx(100 * share)
    again, epochs = load_baseline(tmp_path)
    assert epochs == 2 and torch.equal(again(clouds.points), model(clouds.points))


def test_exact_correspondence_is_zero_at_counterparts():
    clouds = load_clouds("procedural", "table", split="val", n_points=150, limit=2).normalised()
    raw = [rigid.sample_points("table", int(n.rsplit("_")[-1]), 150) for n in clouds.names]
    members = [rigid.sample("table", int(n.rsplit("_")[-1])) for n in clouds.names]
    place, exists = counterpart(members[1], raw[0][1], tolerance=1e-3)
    shared = exists.nonzero()[:6, 0]
    if len(shared) < 2:
        pytest.skip("these two tables share no part")
    points1 = raw[1][0].clone()
    points1[: len(shared)] = place[shared]
    low, high = raw[1][0].amin(0), raw[1][0].amax(0)
    there = (place[shared] - (low + high) / 2) / ((high - low).max() / 2)
    canonical = torch.stack([r[1] for r in raw]).float()
    points = clouds.points.clone()
    points[1, : len(shared)] = there.float()
    canonical[1, : len(shared)] = raw[0][1][shared].float()
    keypoints = torch.stack([points[0, shared], there.float()])
    exact = correspondence_distance(keypoints, points, canonical, clouds.names, pairs=10)
    assert exact < 1e-3
    off = correspondence_distance(
        keypoints + torch.tensor([[[0.0]], [[0.1]]]), points, canonical, clouds.names, pairs=10
    )
    assert off > 0.02
