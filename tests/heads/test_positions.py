"""Heads that place a template's vertices: what they can say, and where they start."""

from __future__ import annotations

import math

import pytest
import torch

from geoframe.heads import backbone
from geoframe.heads.positions import ControlPositions, DensePositions, spread_matrix
from geoframe.surface import farthest_points
from geoframe.surface.shapes import icosphere


def test_affine_images_of_the_template_are_carried_exactly():
    x = icosphere(2).verts.double()
    functions = torch.randn(len(x), 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    controls = farthest_points(x, 20)
    A = spread_matrix(x, functions, controls, 0.1)
    u = x @ torch.randn(3, 2, dtype=torch.float64) + torch.tensor([0.3, -0.2])
    torch.testing.assert_close(A @ u[controls], u, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(A.sum(1), torch.ones(len(x), dtype=torch.float64), atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="stiffness"):
        spread_matrix(x, functions, controls, 0.0)


def test_a_dense_head_starts_at_the_template():
    start = 0.8 * torch.rand(7, 2) - 0.4
    head = DensePositions(backbone("tiny"), start)
    head.out.weight.data.zero_()
    found = head(torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(found.points, start.expand(2, 7, 2))
    assert found.visibility.shape == (2, 7) and found.mask is None


def test_control_points_are_means_of_heat_maps():
    x = icosphere(1).verts
    head = ControlPositions(backbone("tiny"), x, x, farthest_points(x, 8), width=16)
    found = head(torch.rand(2, 3, 48, 32))
    assert found.points.shape == (2, len(x), 2) and found.visibility.shape == (2, len(x))
    assert found.mask.shape == (
        2,
        64,
        32,
    )  # every pixel of the image continued to multiples of the largest stride
    head.field.out.weight.data.zero_()
    head.field.out.bias.data.zero_()
    torch.testing.assert_close(
        head(torch.rand(1, 3, 32, 32)).points, torch.zeros(1, len(x), 2), atol=1e-5, rtol=0
    )
    even = torch.linspace(-1, 1, 17)[:8] + 1 / 16  # centres of 16 cells a side, and their mirror images
    wide = (2 * even.square().mean()).sqrt()
    torch.testing.assert_close(head(torch.rand(1, 3, 64, 64)).spread, wide[None], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="controls"):
        ControlPositions(backbone("tiny"), x, x, farthest_points(x, 3))


def test_in_use_maps_may_be_sharper():
    """Of places of 3 to 1 the mean is a quarter of the way from the first while learning; in use a tenth, of 9 to 1."""
    x = icosphere(1).verts
    head = ControlPositions(backbone("tiny"), x, x, farthest_points(x, 8), width=16, sharpness=2.0)
    logits = torch.full((1, 8, 2, 2), -60.0)
    logits[:, :, 0, 0], logits[:, :, 0, 1] = math.log(3), 0.0  # at -1/2 and 1/2
    for sharpness, expected in ((1.0, -0.25), (2.0, -0.4)):
        at = head._placed(logits, sharpness)[0]
        torch.testing.assert_close(at[..., 0], torch.full((1, 8), expected))
        torch.testing.assert_close(at[..., 1], torch.full((1, 8), -0.5))
    plain = ControlPositions(backbone("tiny"), x, x, farthest_points(x, 8), width=16)
    plain.load_state_dict(head.state_dict())
    image = torch.rand(2, 3, 32, 32)
    learning, in_use, soft = head.train()(image), head.eval()(image), plain.eval()(image)
    torch.testing.assert_close(learning.points, soft.points)
    torch.testing.assert_close(in_use.visibility, soft.visibility)  # as it was learned
    assert (in_use.points - soft.points).abs().max() > 1e-4
