"""Batches of pictures with points: mirror images, and pictures that are turned, scaled and shifted."""

from __future__ import annotations

import torch

from geoframe.data.pixel_samples import PixelSamples, at_side, mirrored, moved, random_moves

S = 32


def _samples(n: int = 6) -> PixelSamples:
    """Smooth pictures whose red is x and whose green is y, so that a colour tells its place; points anywhere."""
    draw = torch.Generator().manual_seed(0)
    at = (torch.arange(S) + 0.5) / S * 255
    plane = torch.stack([at.expand(S, S), at[:, None].expand(S, S), torch.full((S, S), 99.0)])
    points = 2 + (S - 4) * torch.rand(n, 40, 2, generator=draw)
    vertex = torch.randint(-1, 50, (n, 40), generator=draw).sort(1, descending=True).values
    mask = torch.zeros(n, S, S, dtype=torch.bool)
    mask[:, 8:20, 4:16] = True
    return PixelSamples(
        plane.round().to(torch.uint8).expand(n, 3, S, S).clone(),
        mask,
        torch.ones(n, dtype=torch.bool),
        points,
        vertex,
        torch.arange(n) % 2,
        ("a", "b"),
    )


def _batch(**options):
    return next(iter(_samples().batches(6, 40, seed=3, **options)))


def _colours(batch, i):
    """What red and green say of the places of points of picture i, in pixels."""
    grid = (batch["points"][i] * 2 / S - 1)[None, None]
    found = torch.nn.functional.grid_sample(batch["image"][i : i + 1], grid, align_corners=False)
    return found[0, :2, 0].T * S


def test_a_mirror_image_shows_the_other_side():
    mirror = torch.arange(50).flip(0)
    batch = _batch()
    which = torch.tensor([True, True, False, False, True, True])
    new = mirrored(batch, [mirror, None], which)
    for i in range(6):
        if which[i] and batch["surface"][i] == 0:
            torch.testing.assert_close(new["image"][i], batch["image"][i].flip(-1))
            assert torch.equal(new["mask"][i], batch["mask"][i].flip(-1))
            torch.testing.assert_close(new["points"][i, :, 0], S - batch["points"][i, :, 0])
            known = batch["vertex"][i] >= 0
            assert torch.equal(new["vertex"][i][known], mirror[batch["vertex"][i][known]])
            assert bool((new["vertex"][i][~known] == -1).all())
        else:
            assert all(torch.equal(new[k][i], batch[k][i]) for k in batch)
    again = mirrored(new, [mirror, None], which)
    for k in batch:
        torch.testing.assert_close(again[k], batch[k])


def test_points_move_with_their_pictures():
    batch = _batch()
    moves = random_moves(6, 0.3, torch.Generator().manual_seed(1))
    new = moved(batch, moves)
    for i in range(6):
        stays = (new["vertex"][i] >= 0) & ((new["points"][i] - S / 2).abs() < S / 2 - 1).all(-1)
        assert int(stays.sum()) > 5
        torch.testing.assert_close(_colours(new, i)[stays], batch["points"][i][stays], atol=0.2, rtol=0)
        gone = (batch["vertex"][i] >= 0) & (new["vertex"][i] < 0)
        assert bool(((new["points"][i][gone] <= 0) | (new["points"][i][gone] >= S)).any(-1).all())
        scale = float(torch.linalg.det(moves[i, :, :2]))
        inside = float(new["mask"][i].sum()) * scale / float(batch["mask"][i].sum())
        assert inside < 1.15
    still = torch.eye(2, 3).expand(6, 2, 3)
    for k, x in moved(batch, still).items():
        torch.testing.assert_close(x, batch[k], atol=1e-4, rtol=1e-4)


def test_points_stay_where_they_are_on_smaller_pictures():
    batch = _batch()
    half = at_side(batch, S // 2)
    assert half["image"].shape[-2:] == half["mask"].shape[-2:] == (S // 2, S // 2)
    for i in range(6):
        inside = (batch["points"][i] - S / 2).abs().amax(-1) < S / 2 - 2
        grid = (half["points"][i] * 2 / (S // 2) - 1)[None, None]
        found = torch.nn.functional.grid_sample(half["image"][i : i + 1], grid, align_corners=False)
        there = found[0, :2, 0].T * S
        torch.testing.assert_close(there[inside], batch["points"][i][inside], atol=0.3, rtol=0)
    area = half["mask"].float().mean((1, 2)), batch["mask"].float().mean((1, 2))
    torch.testing.assert_close(*area)
    assert all(torch.equal(at_side(batch, S)[k], batch[k]) for k in batch)
    several = _samples(12).batches(2, 5, seed=0, sides=(8, S), motion=0.1)
    assert {b["image"].shape[-1] for b in several} == {8, S}


def test_two_processes_see_what_one_sees():
    options = {"mirrors": [torch.arange(50).flip(0), None], "motion": 0.2, "sides": (16, 24)}
    whole = _batch(**options)
    parts = [_batch(rank=r, world=2, **options) for r in range(2)]
    for r, part in enumerate(parts):
        for k, x in part.items():
            torch.testing.assert_close(x, whole[k][r::2])
    assert not torch.equal(whole["image"], _batch()["image"])
