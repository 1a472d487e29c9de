"""By how much pixels at outlines are mixed, in plain torch on any device: see `geoframe.render.outline`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoframe.render._scene import Found, Scene


def mixed(scene: Scene, found: Found, n: int) -> tuple[Tensor, Tensor]:
    """By how much the pixels at outlines are mixed.

    Args:
        scene: triangles on the screen.
        found: the N crossings, as `crossings` gives them.
        n: number of pixels of all pictures.

    Returns:
        (2 N,) weights: of the pixels beyond the outlines, then of those on the surface; and (N, 3) barycentric
        coordinates of the crossings in their triangles. Differentiable in the screen.
    """
    near, far, edge, band, _ = found
    H, W = scene.size
    tri, i = edge // 3, edge % 3
    corners = scene.faces[tri]
    a, b = (
        scene.screen.index_select(0, corners.gather(1, k[:, None])[:, 0]).double() for k in (i, (i + 1) % 3)
    )
    first = torch.minimum(near, far)
    sideways = torch.maximum(near, far) // W == first // W
    centre = torch.stack([first % W, first // W % H], 1).to(a.dtype) + 0.5
    # u along the way from the first pixel to the second, v across it
    (ua, va), (ub, vb) = (
        torch.where(sideways[:, None], x, x.flip(1)).unbind(1) for x in (a[:, :2] - centre, b[:, :2] - centre)
    )
    along, across = ub - ua, vb - va
    share = -va / across  # of the edge, from a to b
    place = (ua + share * along).clamp(0, 1)
    za, zb, s = a[:, 2].detach(), b[:, 2].detach(), share.detach()
    depth = za * zb / ((1 - s) * zb + s * za) if scene.perspective else (1 - s) * za + s * zb
    onto_first = near == first
    lines = _Lines(first, sideways, onto_first, place, (along / across).detach(), depth, band)
    cuts = _cut_off(lines, (n, H, W))
    lost, gained = (torch.where(onto_first, x, y) for x, y in (cuts, cuts[::-1]))
    into, weight = torch.cat([far, near]), torch.cat([gained, lost])
    outer = _outer(found)
    weight = torch.where((outer >= 0) & (weight > weight[outer]), weight[outer], weight)
    total = weight.new_zeros(n).index_add(0, into, torch.where(outer < 0, weight, 0.0))
    weight = weight / total.index_select(0, into).clamp_min(1)  # above 1 only where outlines meet
    share = share.clamp(0, 1)
    if scene.perspective:
        wa, wb = (1 - share) * b[:, 2], share * a[:, 2]
        share = wb / (wa + wb)
    bary = share.new_zeros(len(tri), 3)
    bary = bary.scatter(1, i[:, None], (1 - share)[:, None])
    return weight, bary.scatter(1, ((i + 1) % 3)[:, None], share[:, None])


def _outer(found: Found) -> Tensor:
    """(2 N,) of two crossings of a pair the farther one is mixed into a part only of what the nearer one is mixed into:
    the row of that weight, or -1."""
    near, far, _, band, _ = found
    N = len(near)
    first = torch.minimum(near, far)
    other = (torch.arange(N, device=near.device) + 3 - 2 * band).clamp(0, max(N - 1, 0))
    rows = []
    for pixel in (far, near):
        inner = (band > 0) & ((pixel == first) != (band == 1))
        row = torch.where(far[other] == pixel, other, N + other)
        rows.append(torch.where(inner, row, -1))
    return torch.cat(rows)


class _Lines(NamedTuple):
    """The N crossings: the left or upper pixel of the pair, an index into the pixels of all pictures; whether the other
    pixel is to the right, else it is below; whether the first pixel is on the side of the surface that ends; where the
    outline crosses, from 0 at the first centre to 1 at the second; by how much that place grows along the edge for a
    pixel to the right or down, across the pair; its depth; and `Found.band`."""

    first: Tensor
    sideways: Tensor
    onto_first: Tensor
    place: Tensor
    slope: Tensor
    depth: Tensor
    band: Tensor


def _cut_off(lines: _Lines, sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Areas (N,) that outlines cut off the first and the second pixel of each pair.

    In a square of four centres an outline goes on where a walk round the square from its surface's own pixel first
    comes to a crossing; unless another surface is nearer there, behind which the outline ends, or the corner across is
    that other surface's. Where two outlines pass a pair it goes on at the crossing that is nearest in depth. Else it is
    taken to go straight on, as its edge does, up to the outline before it.

    Args:
        lines: the N crossings.
        sizes: number of pixels of all pictures, H and W of each.
    """
    n, H, W = sizes
    first, sideways, _, place, slope, depth, band = lines
    number = torch.arange(len(first), device=first.device)
    table = torch.full((2, n), -1, device=first.device)
    kind = torch.where(sideways, 0, 1)
    lead = band < 2
    table[kind[lead], first[lead]] = number[lead]
    reach = torch.where(sideways, 1, W)  # to the second pixel
    shift = torch.where(sideways, W, 1)  # to the pair beside
    lane, lanes = torch.where(sideways, first // W % H, first % W), torch.where(sideways, H, W)
    sums = torch.zeros_like(place), torch.zeros_like(place)
    for step in (-1, 1):  # the squares of four centres on either side of the pair
        inside = (lane + step >= 0) & (lane + step < lanes)
        home = (
            first if step == 1 else first - shift
        )  # upper or left end of the pair across, at the first pixel

        def found(pixel: Tensor, which: Tensor, inside: Tensor = inside) -> Tensor:
            return torch.where(inside, table[which, torch.where(inside, pixel, 0)], -1)

        slots = torch.stack(
            [found(first + step * shift, kind), found(home, 1 - kind), found(home + reach, 1 - kind)]
        )
        other, slot = _onward(lines, slots, step)
        there = _taken(place, other)
        straight = _strip(place, torch.where(other >= 0, there, (place + step * slope).clamp(0, 1)))
        turned = there if step == 1 else 1 - there
        corner, mirrored = _corner(place, turned), _corner(1 - place, turned)[::-1]
        partner = (number + 3 - 2 * band).clamp(0, max(len(number) - 1, 0))
        gap, closing = place - _taken(place, partner), step * (_taken(slope, partner) - slope)
        end = (gap / closing).detach()
        meets = (other < 0) & (band > 0) & (_taken(depth, partner) < depth) & (end > 0) & (2 * end < 1)
        end = torch.where(meets, end, 0.25)
        ended = _ended(end, place, step * slope, _taken(place, partner), step * _taken(slope, partner))
        sums = tuple(  # type: ignore[assignment]
            total
            + torch.where(
                slot == 1,
                corner[k],
                torch.where(slot == 2, mirrored[k], torch.where(meets, ended[k], straight[k])),
            )
            for k, total in enumerate(sums)
        )
    return sums


def _taken(values: Tensor, rows: Tensor) -> Tensor:
    return values.index_select(0, rows.clamp_min(0)) if len(values) else values


def _onward(lines: _Lines, slots: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Where outlines go on in a square: the crossing or -1, and whether it faces this one (0), or is at the first (1)
    or second (2) pixel. `slots` (3, N) are the (first) crossings there."""
    onto_first, depth, band = lines.onto_first, lines.depth, lines.band
    there = slots >= 0
    down = step == 1
    wanted = torch.stack(
        [onto_first, onto_first if down else ~onto_first, ~onto_first if down else onto_first]
    )

    def ours(crossing: Tensor) -> Tensor:
        return torch.stack([_taken(onto_first, c) for c in crossing]) == wanted

    fits = ours(slots) & there
    beside = torch.where(onto_first, 1, 2)[None]
    beyond = 3 - beside
    has_beside = there.gather(0, beside)[0]
    slot = torch.where(has_beside, beside[0], torch.where(there[0], 0, beyond[0]))
    alone = there.sum(0) <= 1
    corner = (
        there.all(0) & ~fits.gather(0, slot[None])[0] & fits.gather(0, beyond)[0]
    )  # one each of two outlines
    slot = torch.where(corner, beyond[0], slot)
    other = slots.gather(0, slot[None])[0]
    other = torch.where(fits.gather(0, slot[None])[0] | alone, other, -1)
    bands = torch.stack([_taken(band, c) for c in slots]) * there
    second = torch.where(bands > 0, slots + 1, -1)
    choices = torch.stack([slots, second], 1).flatten(0, 1)
    suits = torch.stack([fits, ours(second) & (second >= 0)], 1).flatten(0, 1)
    away = torch.stack([(_taken(depth, c) - depth).abs() for c in choices])
    away, best = torch.where(suits, away, torch.inf).min(0)
    double = (band > 0) | (bands > 0).any(0)
    nearest = torch.where(torch.isfinite(away), choices.gather(0, best[None])[0], -1)
    other = torch.where(double, nearest, other)
    slot = torch.where(double, best // 2, slot)
    return other, torch.where(other >= 0, slot, 0)


def _ended(
    end: Tensor, place: Tensor, slope: Tensor, front: Tensor, front_slope: Tensor
) -> tuple[Tensor, Tensor]:
    """As `_strip`, of a segment that goes on from `end` (below one half) as the outline in front of it."""
    meeting, last = place + end * slope, front + 0.5 * front_slope
    again = front + end * front_slope  # the same point, as it moves with the outline in front
    here, there = 2 * end, 1 - 2 * end
    first = here * _positive_area(0.5 - place, 0.5 - meeting) + there * _positive_area(
        0.5 - again, 0.5 - last
    )
    second = here * _positive_area(place - 0.5, meeting - 0.5) + there * _positive_area(
        again - 0.5, last - 0.5
    )
    return first, second


def _strip(here: Tensor, facing: Tensor) -> tuple[Tensor, Tensor]:
    """Quarter areas cut off the first and the second pixel by a segment to the opposite side of the square."""
    start, end = 0.5 - here, 0.5 - (here + facing) / 2
    return _positive_area(start, end), _positive_area(-start, -end)


def _positive_area(start: Tensor, end: Tensor) -> Tensor:
    """Integral over half a unit of the positive part of what goes linearly from start to end."""
    high, low = torch.maximum(start, end), torch.minimum(start, end)
    gap = torch.where(high > low, high - low, 1.0)
    crossing = torch.where((high > 0) & (low < 0), high.square() / (2 * gap), (high + low) / 2)
    return 0.5 * torch.where(high > 0, crossing, 0.0)


def _corner(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Quarter areas where a segment cuts the first pixel's corner off the square, a along the pair and b across it:
    half of what it cuts off the first pixel (the pair across tells the other half), and off the second pixel."""
    beyond = (a - 0.5).clamp_min(0).square() * b / (2 * a.clamp_min(0.5))
    aside = (b - 0.5).clamp_min(0).square() * a / (2 * b.clamp_min(0.5))
    return (0.25 - (a * b / 2 - beyond - aside)) / 2, beyond
