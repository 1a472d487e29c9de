"""Measures of reconstructions against closed forms and invariances."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.metrics.embeddings import mask_iou
from geoframe.metrics.reconstruction import iou_3d, keypoint_pck, soft_iou, surface_error, voxels
from geoframe.surface.shapes import icosphere
from geoframe.transforms import random_rotations

CUBE = torch.tensor([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)])
CUBE_FACES = torch.tensor(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ]
)


def test_soft_overlap_of_hard_masks_is_the_hard_one():
    a, b = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)) > 0.5
    torch.testing.assert_close(soft_iou(a.double(), b), mask_iou(a, b).double())
    p, t = torch.full((1, 1, 2), 0.5), torch.tensor([[[1.0, 0.0]]])
    assert float(soft_iou(p, t)) == pytest.approx(0.5 / 1.5)
    assert float(soft_iou(0 * p, 0 * t)) == 1


def test_pck_is_averaged_over_keypoints():
    true = torch.zeros(4, 3, 2)
    found = true.clone()
    found[:2, 0, 0] = 1.1  # of keypoint 0 half are wrong, of keypoint 1 the only visible one is right
    visible = torch.tensor([[True, True, False]] + 3 * [[True, False, False]])
    assert keypoint_pck(found, true, visible, 10.0) == pytest.approx((0.5 + 1) / 2)
    assert keypoint_pck(found, true, visible, 10.0, alpha=0.15) == 1
    sizes = torch.tensor([20.0, 10.0, 10.0, 10.0])
    assert keypoint_pck(found, true, visible, sizes) == pytest.approx((0.75 + 1) / 2)
    assert math.isnan(keypoint_pck(found, true, visible & False, 10.0))


def test_the_surface_error_does_not_know_of_similarities():
    ball = icosphere(2)
    x = ball.verts.double()
    x = x * torch.tensor([1.0, 0.7, 0.5]).double()
    R = random_rotations(1, generator=torch.Generator().manual_seed(1))[0].double()
    assert surface_error(3 * x @ R.T + 1, x, ball.faces) < 1e-6
    # a vertex that slides along its surface costs nothing to speak of, one that leaves it does
    grown = x * torch.tensor([1.0, 0.7, 0.6]).double()
    assert surface_error(grown, x, ball.faces) == pytest.approx(surface_error(2 * grown @ R.T, x, ball.faces))
    assert surface_error(grown, x, ball.faces) > 0.3


def test_voxels_of_boxes_and_balls():
    low = torch.full((3,), -0.5)
    box = voxels(CUBE * torch.tensor([0.5, 0.25, 0.75]) - 0.25, CUBE_FACES, low, 1.0)
    assert box.sum() == 16 * 8 * 24
    ball = icosphere(3)
    volume = voxels(0.4 * ball.verts, ball.faces, low, 1.0).mean()
    assert volume == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.03)
    assert (
        voxels(0.4 * ball.verts, ball.faces.flip(1), low, 1.0).mean()
    ) == volume  # whichever way it is turned


def test_volumes_overlap_in_one_frame():
    cubes = CUBE[None].repeat(2, 1, 1).double()
    assert iou_3d(5 * cubes + 2, cubes, CUBE_FACES).tolist() == [1, 1]  # one move and one scale for all
    tall = cubes * torch.tensor([1.0, 1.0, 0.5]).double()
    one, two = iou_3d(
        torch.cat([cubes[:1], tall[:1]]), torch.cat([tall[:1], tall[:1]]), CUBE_FACES, n=16
    ).tolist()
    assert one < 0.75 and two < 1 and two > one  # the mean scale fits neither
