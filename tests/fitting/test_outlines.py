"""Outlines: distances of discs, and vertices of a drawn disc that move onto a larger and shifted one."""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from geoframe.fitting._outline_loops import pulls
from geoframe.fitting.outlines import MaskOutlines, outline_moves, signed_distance

S = 64
Y, X = torch.meshgrid(torch.arange(S) + 0.5, torch.arange(S) + 0.5, indexing="ij")


def _disc(x, y, r):
    return ((X - x).square() + (Y - y).square()).sqrt() - r


def test_distances_are_those_of_the_outline():
    exact = torch.stack([_disc(30, 33, 14), _disc(40, 20, 9)])
    found = signed_distance(exact < 0)
    assert float((found - exact).abs().max()) < 1.0 and float((found - exact).abs().mean()) < 0.3
    assert (signed_distance(torch.stack([X > 0, X < 0])) == 0).all()


def test_distances_are_exact():
    made = torch.Generator().manual_seed(0)
    for shape in ((17, 23), (1, 9), (9, 1)):
        masks = torch.rand(12, *shape, generator=made) < torch.linspace(0.02, 0.98, 12)[:, None, None]
        for mask, found in zip(masks, signed_distance(masks), strict=True):
            m = mask.numpy()
            want = np.where(m, 0.5 - distance_transform_edt(m), distance_transform_edt(~m) - 0.5)
            want = want if m.any() and not m.all() else np.zeros(m.shape)
            assert np.array_equal(found.numpy(), want.astype(np.float32))


def test_each_point_pulls_the_nearest_vertex_in_reach():
    made = torch.Generator().manual_seed(1)
    screen, points = 20 * torch.rand(3, 30, 2, generator=made), 20 * torch.rand(25, 2, generator=made)
    near, ends, reach = torch.rand(3, 30, generator=made) < 0.6, [10, 10, 25], 3.0  # none of the second mask
    near[2] &= False
    weight, pull = torch.zeros(3, 30), torch.zeros(3, 30, 2)
    arrays = (x.numpy() for x in (screen, near, points, torch.tensor(ends)))
    pulls(*arrays, reach, 0, 3, weight.numpy(), pull.numpy())
    want, moved = torch.zeros(3, 30), torch.zeros(3, 30, 2)
    for goal in points[:10]:
        away = (screen[0] - goal).norm(dim=1).where(near[0], torch.inf)
        v, far = int(away.argmin()), float(away.min())
        counted = (far < reach) / (1 + (2 * far / reach) ** 2)
        want[0, v] += counted
        moved[0, v] += counted * (goal - screen[0, v])
    assert int((want > 0).sum()) > 3
    torch.testing.assert_close(weight, want)
    torch.testing.assert_close(pull, moved)


def test_vertices_on_the_outline_move_onto_the_other_one():
    angle = torch.linspace(0, 2 * torch.pi, 41)[:-1]
    way = torch.stack([angle.cos(), angle.sin()], 1)
    screen = torch.cat([torch.tensor([30.0, 33.0]) + 13.9 * way, torch.tensor([[30.0, 33.0], [36.0, 30.0]])])
    wanted = _disc(31, 32, 16) < 0
    moves, weight = outline_moves(
        screen[None], (_disc(30, 33, 14) < 0)[None], MaskOutlines.of(wanted[None]), reach=6.0
    )
    assert (weight[0, :40] > 0.4).all() and (weight[0, 40:] == 0).all()
    radius = (screen[:40] + moves[0, :40] - torch.tensor([31.0, 32.0])).norm(dim=1)
    torch.testing.assert_close(radius, torch.full((40,), 16.0), rtol=0, atol=0.8)
    far = outline_moves(screen[None], (_disc(30, 33, 14) < 0)[None], MaskOutlines.of(wanted[None]), reach=1.0)
    assert float(far[1].sum()) < float(weight.sum()) / 2


def test_a_part_of_the_mask_that_is_left_free_pulls():
    """A disc with a bump: the vertices beside the bump move farther than to their own nearest outline."""
    angle = torch.linspace(0, 2 * torch.pi, 41)[:-1]
    way = torch.stack([angle.cos(), angle.sin()], 1)
    screen = torch.tensor([30.0, 33.0]) + 13.9 * way
    plain = _disc(30, 33, 14)
    bump = torch.minimum(plain, _disc(46, 33, 2.5))
    found = outline_moves(screen[None], (plain < 0)[None], MaskOutlines.of((bump < 0)[None]), reach=6.0)
    without = outline_moves(screen[None], (plain < 0)[None], MaskOutlines.of((plain < 0)[None]), reach=6.0)
    assert float(found[0][0, 0, 0]) > float(without[0][0, 0, 0]) + 1.5
    torch.testing.assert_close(found[0][0, 15:26], without[0][0, 15:26], rtol=0, atol=0.05)  # far from it
