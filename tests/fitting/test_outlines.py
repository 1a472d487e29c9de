"""Outlines: distances of discs, and vertices of a drawn disc that move onto a larger and shifted one."""

import torch

from geoframe.fitting.outlines import outline_moves, signed_distance

S = 64
Y, X = torch.meshgrid(torch.arange(S) + 0.5, torch.arange(S) + 0.5, indexing="ij")


def _disc(x, y, r):
    return ((X - x).square() + (Y - y).square()).sqrt() - r


def test_distances_are_those_of_the_outline():
    exact = torch.stack([_disc(30, 33, 14), _disc(40, 20, 9)])
    found = signed_distance(exact < 0)
    assert float((found - exact).abs().max()) < 1.0 and float((found - exact).abs().mean()) < 0.3
    assert (signed_distance(torch.stack([X > 0, X < 0])) == 0).all()


def test_vertices_on_the_outline_move_onto_the_other_one():
    angle = torch.linspace(0, 2 * torch.pi, 41)[:-1]
    way = torch.stack([angle.cos(), angle.sin()], 1)
    screen = torch.cat([torch.tensor([30.0, 33.0]) + 13.9 * way, torch.tensor([[30.0, 33.0], [36.0, 30.0]])])
    wanted = _disc(31, 32, 16) < 0
    moves, weight = outline_moves(
        screen[None], (_disc(30, 33, 14) < 0)[None], signed_distance(wanted[None]), reach=6.0
    )
    assert (weight[0, :40] > 0.4).all() and (weight[0, 40:] == 0).all()
    radius = (screen[:40] + moves[0, :40] - torch.tensor([31.0, 32.0])).norm(dim=1)
    torch.testing.assert_close(radius, torch.full((40,), 16.0), rtol=0, atol=0.8)
    far = outline_moves(screen[None], (_disc(30, 33, 14) < 0)[None], signed_distance(wanted[None]), reach=1.0)
    assert float(far[1].sum()) < float(weight.sum()) / 2


def test_a_part_of_the_mask_that_is_left_free_pulls():
    """A disc with a bump: the vertices beside the bump move farther than to their own nearest outline."""
    angle = torch.linspace(0, 2 * torch.pi, 41)[:-1]
    way = torch.stack([angle.cos(), angle.sin()], 1)
    screen = torch.tensor([30.0, 33.0]) + 13.9 * way
    plain = _disc(30, 33, 14)
    bump = torch.minimum(plain, _disc(46, 33, 2.5))
    found = outline_moves(screen[None], (plain < 0)[None], signed_distance((bump < 0)[None]), reach=6.0)
    without = outline_moves(screen[None], (plain < 0)[None], signed_distance((plain < 0)[None]), reach=6.0)
    assert float(found[0][0, 0, 0]) > float(without[0][0, 0, 0]) + 1.5
    torch.testing.assert_close(found[0][0, 15:26], without[0][0, 15:26], rtol=0, atol=0.05)  # far from it
