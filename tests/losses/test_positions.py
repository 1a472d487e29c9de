"""Losses of positions against loops, and the flip of a pose against a flipped picture."""

from __future__ import annotations

import pytest
import torch

from geoframe.losses.pictures import region_loss, texture_loss
from geoframe.losses.positions import (
    cycle_loss,
    edge_consistency,
    equivariance_loss,
    flip_pose_loss,
    keypoint_loss,
    mask_distance,
    silhouette_consistency,
    silhouette_coverage,
    visibility_loss,
)
from geoframe.transforms import random_rotations

S = 16


def _mask():
    mask = torch.zeros(2, S, S, dtype=torch.bool)
    mask[0, 4:9, 6:12] = True
    mask[1, 2:4, 2:14] = True
    return mask


def _centres(rows_cols):
    return 2 * (rows_cols.flip(-1).double() + 0.5) / S - 1


def test_consistency_is_the_distance_from_the_mask():
    mask = _mask()
    distance = mask_distance(mask)
    draw = torch.Generator().manual_seed(0)
    at = torch.randint(S, (2, 7, 2), generator=draw)  # at pixel centres the field is read exactly
    found = silhouette_consistency(_centres(at), distance.double())
    expected = []
    for m, pixels in zip(mask, at, strict=True):
        inside = torch.nonzero(m).double()
        expected += [float((inside - p.double()).norm(dim=1).min()) * 2 / S for p in pixels]
    assert float(found) == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    outside = silhouette_consistency(torch.tensor([[[3.0, 0.0]], [[0.0, 0.0]]]), distance * 0)
    assert float(outside) == pytest.approx(1.0)  # two halves of the side beyond the border, averaged
    assert not mask_distance(mask & False).any()


def test_coverage_is_the_distance_of_the_masks_pixels_from_the_points():
    mask = _mask()
    points = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    far = [torch.cdist(_centres(torch.nonzero(m)), p).amin(1) for m, p in zip(mask, points, strict=True)]
    for form, power in (("paper", 1), ("code", 2)):
        found = silhouette_coverage(points, mask, form=form, samples=20_000)
        assert float(found) == pytest.approx(float(sum((d**power).mean() for d in far) / 2), rel=0.02)
    assert float(silhouette_coverage(points, mask & False)) == 0


def test_cycle_and_edges():
    u, v = (
        torch.randn(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (2, 3)
    )
    assert float(cycle_loss(u, v)) == pytest.approx(float(((u - v) ** 2).sum(-1).mean()))
    whole = torch.ones(2, S, S, dtype=torch.bool)
    inside = (v.abs() < 1).all(-1)
    assert float(cycle_loss(u, v, whole)) == pytest.approx(float(((u - v) ** 2).sum(-1)[inside].mean()))
    edges = torch.tensor([[0, 1], [1, 3]])
    lengths = [
        [float((x[b, i] - x[b, j]).norm()) for b in range(2) for i, j in edges.tolist()] for x in (u, v)
    ]
    expected = sum((a - b) ** 2 for a, b in zip(*lengths, strict=True)) / 4
    assert float(edge_consistency(u, v, edges)) == pytest.approx(expected)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    assert float(edge_consistency(u, u @ turn + 3, edges)) == pytest.approx(0, abs=1e-12)


def test_unknown_keypoints_count_nowhere_and_pass_no_nan():
    placed = torch.randn(2, 3, 2, requires_grad=True)
    points = torch.full((2, 3, 2), torch.nan)
    points[0, 1] = torch.tensor([0.5, -0.5])
    weights = torch.isfinite(points).all(-1).float()
    loss = keypoint_loss(placed, points, weights)
    assert float(loss.detach()) == pytest.approx(float((placed[0, 1] - points[0, 1]).abs().sum().detach()))
    loss.backward()
    assert torch.isfinite(placed.grad).all()
    assert float(keypoint_loss(placed, points, 0 * weights).detach()) == 0


def test_visibility_and_equivariance_forms():
    logits, seen = torch.tensor([[0.0, 2.0]]), torch.tensor([[True, False]])
    p = logits.sigmoid()
    off = (p - seen.float()).abs()
    assert float(visibility_loss(logits, seen)) == pytest.approx(float(off.mean()))
    assert float(visibility_loss(logits, seen, form="code")) == pytest.approx(float((off**2).mean()))
    expected = -(p[0, 0].log() + (1 - p[0, 1]).log()) / 2
    assert float(visibility_loss(logits, seen, form="entropy")) == pytest.approx(float(expected))
    with pytest.raises(ValueError, match="form"):
        visibility_loss(logits, seen, form="other")
    u, v = torch.randn(1, 3, 2), torch.randn(1, 3, 2, requires_grad=True)
    assert float(equivariance_loss(u, v)) == pytest.approx(float((u - v).abs().sum(-1).mean().detach()))
    assert not equivariance_loss(u, v, form="code").requires_grad  # the moved points are taken as constant


def test_a_flipped_picture_shows_the_flipped_pose():
    """A mirror-symmetric cloud: flip the picture, exchange the sides, and the pose that explains it is ``F R S``."""
    reflection = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    half = torch.randn(20, 3, generator=torch.Generator().manual_seed(4))
    cloud = torch.cat([half, half @ reflection])
    R = random_rotations(3, generator=torch.Generator().manual_seed(5)).float()
    flipped = (cloud @ R.mT)[..., :2] * torch.tensor([-1.0, 1.0])  # of the same points, not exchanged
    exchanged = torch.cat([flipped[:, 20:], flipped[:, :20]], 1)
    other = torch.diag(torch.tensor([-1.0, 1.0, 1.0])) @ R @ reflection
    torch.testing.assert_close((cloud @ other.mT)[..., :2], exchanged)
    assert float(flip_pose_loss(R, other, reflection)) < 1e-4
    turned = other @ random_rotations(3, generator=torch.Generator().manual_seed(6)).float()
    trace = (other.mT @ turned).diagonal(dim1=1, dim2=2).sum(1)
    angle = torch.arccos(((trace - 1) / 2).clamp(-1, 1)).mean()
    assert float(flip_pose_loss(R, turned, reflection)) == pytest.approx(float(angle), rel=1e-3)


def test_regions_and_textures():
    mask = _mask()
    p = torch.rand(2, S, S, generator=torch.Generator().manual_seed(7))
    off = (p - mask.float()).abs()
    assert float(region_loss(p, mask, form="code")) == pytest.approx(float(off.mean()))
    per_area = (off.sum((1, 2)) / mask.sum((1, 2))).mean()
    assert float(region_loss(p, mask)) == pytest.approx(float(per_area))
    image = torch.rand(2, 3, S, S)
    assert float(texture_loss(image, image, mask)) == 0
    outside = torch.where(mask[:, None], image, 0.5)
    assert float(texture_loss(outside, image, mask)) == 0  # what is beyond the mask does not count
    assert float(texture_loss(image + 0.1 * mask[:, None], image, mask)) > 0.01
