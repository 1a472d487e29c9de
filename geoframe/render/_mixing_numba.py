"""By how much pixels at outlines are mixed, compiled for the CPU, with an analytic gradient: what
`geoframe.render._mixing_torch.mixed` does in some two hundred operations on a few thousand numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from geoframe._compiled import compiled
from geoframe._precision import full_precision
from geoframe._types import Array
from geoframe.render._first_order import first_order
from geoframe.render._scene import Found, Scene


class _Crossings(NamedTuple):
    """What the N crossings of outlines and pairs of pixels are, as in `geoframe.render.outline`."""

    screen: Array
    faces: Array
    near: Array
    far: Array
    edge: Array
    band: Array
    size: tuple[int, int]
    perspective: bool


class _Places(NamedTuple):
    """Of each crossing its place from 0 at the first centre to 1 at the second, the slope of its edge, its share of the
    edge, the depth there; and `table` (2, n), the (first) crossing on the way from each pixel to the right and down,
    or -1."""

    place: Array
    slope: Array
    share: Array
    depth: Array
    table: Array


def mixed(scene: Scene, found: Found, n: int) -> tuple[Tensor, Tensor]:
    """As `geoframe.render._mixing_torch.mixed`."""
    return _Mixed.apply(scene.screen, scene, found, n)


class _Mixed(torch.autograd.Function):
    """screen (P, 3) -> weights (2 N,), barycentric coordinates (N, 3)."""

    @staticmethod
    def forward(ctx: Any, screen: Tensor, scene: Scene, found: Found, n: int) -> tuple[Tensor, Tensor]:
        near, far, edge, band, _ = (np.ascontiguousarray(x.numpy()) for x in found)
        points = np.ascontiguousarray(screen.detach().numpy(), np.float64)
        given = _Crossings(points, scene.faces.numpy(), near, far, edge, band, scene.size, scene.perspective)
        N = len(near)
        table = np.full((2, n), -1, np.int32)
        places = _Places(np.empty(N), np.empty(N), np.empty(N), np.empty(N), table)
        weight, total, bary = np.empty(2 * N), np.zeros(n), np.zeros((N, 3))
        within = np.full(2 * N, -1, np.int32)
        _mix(given, places, weight, total, within, bary)
        ctx.save_for_backward(screen)
        ctx.rest = given, places, weight, total, within
        return torch.from_numpy(weight), torch.from_numpy(bary)

    @staticmethod
    @full_precision
    def backward(ctx: Any, g_weight: Tensor, g_bary: Tensor) -> tuple[Tensor, None, None, None]:
        (screen,) = ctx.saved_tensors
        out = np.zeros(screen.shape)
        incoming = (np.ascontiguousarray(x.detach().numpy(), np.float64) for x in (g_weight, g_bary))
        _mix_backward(*ctx.rest, *incoming, out)
        g = torch.from_numpy(out).to(screen.dtype)
        return first_order(g, "antialias", screen, g_weight, g_bary), None, None, None


@compiled
def _mix(given, places, weight, total, within, bary):
    near, far, N = given.near, given.far, len(given.near)
    for k in range(N):
        first, sideways = _pair(given, k)
        ua, va, za, ub, vb, zb = _ends(given, k, first, sideways)
        share = -va / (vb - va)
        places.share[k], places.slope[k] = share, (ub - ua) / (vb - va)
        places.place[k] = min(max(ua + share * (ub - ua), 0.0), 1.0)
        if given.perspective:
            places.depth[k] = za * zb / ((1 - share) * zb + share * za)
        else:
            places.depth[k] = (1 - share) * za + share * zb
        if given.band[k] < 2:
            places.table[0 if sideways else 1, first] = k
    for k in range(N):
        first, sideways = _pair(given, k)
        on_first = on_second = 0.0
        for step in (-1, 1):
            a, b = _cut(given, places, k, first, sideways, step)[1:3]
            on_first, on_second = on_first + a, on_second + b
        if near[k] == first:
            weight[k], weight[N + k] = on_second, on_first
        else:
            weight[k], weight[N + k] = on_first, on_second
        _, _, za, _, _, zb = _ends(given, k, first, sideways)
        share, i = min(max(places.share[k], 0.0), 1.0), given.edge[k] % 3
        if given.perspective:
            share = share * za / ((1 - share) * zb + share * za)
        bary[k, i], bary[k, (i + 1) % 3] = 1 - share, share
    for k in range(N):
        for row in (k, N + k):
            outer = _outer(given, k, row)
            if outer < 0:
                total[far[k] if row < N else near[k]] += weight[row]
            elif weight[row] > weight[outer]:
                within[row] = outer
    for row in range(2 * N):  # totals above 1 are met only where outlines meet
        if within[row] < 0:
            weight[row] /= max(total[far[row] if row < N else near[row - N]], 1.0)
    for row in range(2 * N):
        if within[row] >= 0:
            weight[row] = weight[within[row]]


@compiled
def _outer(given, k, row):
    """Of two crossings of a pair the farther one is mixed into part of what the nearer one is mixed into: the row
    of that weight, or -1."""
    band, N = given.band[k], len(given.near)
    if band == 0:
        return -1
    pixel = given.far[k] if row < N else given.near[k]
    first = min(given.near[k], given.far[k])
    if (pixel == first) == (band == 1):
        return -1
    other = k + 1 if band == 1 else k - 1
    return other if given.far[other] == pixel else N + other


@compiled
def _mix_backward(given, places, weight, total, within, g_weight, g_bary, out):
    near, far, N = given.near, given.far, len(given.near)
    g_place, pull = np.zeros(N), np.zeros(len(total))
    for row in range(2 * N):
        pull[far[row] if row < N else near[row - N]] += g_weight[row] * weight[row]
    g_rows = np.empty(2 * N)
    for k in range(N):
        for row in (k, N + k):
            pixel = far[k] if row < N else near[k]
            g_rows[row] = g_weight[row] / max(total[pixel], 1.0)
            if total[pixel] > 1 and _outer(given, k, row) < 0:
                g_rows[row] -= pull[pixel] / total[pixel]
    for row in range(2 * N):
        if within[row] >= 0:
            g_rows[within[row]] += g_rows[row]
            g_rows[row] = 0.0
    for k in range(N):
        first, sideways = _pair(given, k)
        g_first, g_second = (g_rows[N + k], g_rows[k]) if near[k] == first else (g_rows[k], g_rows[N + k])
        for step in (-1, 1):
            other, _, _, first_by_own, first_by_other, second_by_own, second_by_other = _cut(
                given, places, k, first, sideways, step
            )
            g_place[k] += g_first * first_by_own + g_second * second_by_own
            if other >= 0:
                g_place[other] += g_first * first_by_other + g_second * second_by_other
    for k in range(N):
        first, sideways = _pair(given, k)
        ua, va, za, ub, vb, zb = _ends(given, k, first, sideways)
        share, slope, across = places.share[k], places.slope[k], vb - va
        tri, i = given.edge[k] // 3, given.edge[k] % 3
        p, q = given.faces[tri, i], given.faces[tri, (i + 1) % 3]
        g_share = g_bary[k, (i + 1) % 3] - g_bary[k, i]
        if not 0 <= share <= 1:
            g_share = 0.0
        elif given.perspective:
            wa, wb = (1 - share) * zb, share * za
            g_share /= (wa + wb) ** 2
            out[p, 2] += g_share * wa * share
            out[q, 2] -= g_share * wb * (1 - share)
            g_share *= za * zb
        place = ua + share * (ub - ua)
        g = g_place[k] if 0 <= place <= 1 else 0.0
        along, beside = (0, 1) if sideways else (1, 0)
        out[p, along] += g * (1 - share)
        out[q, along] += g * share
        g_v = g * slope + g_share / across  # by moving the line between the pixels
        out[p, beside] -= g_v * (1 - share)
        out[q, beside] -= g_v * share


@compiled
def _pair(given, k):
    """The left or upper pixel of a pair, and whether the other one is to the right."""
    W = given.size[1]
    first, second = min(given.near[k], given.far[k]), max(given.near[k], given.far[k])
    return first, second // W == first // W


@compiled
def _ends(given, k, first, sideways):
    """Along the way from the first centre, across it, and depth of the two ends of a crossing's edge."""
    H, W = given.size
    tri, i = given.edge[k] // 3, given.edge[k] % 3
    p, q = given.faces[tri, i], given.faces[tri, (i + 1) % 3]
    x, y = first % W + 0.5, first // W % H + 0.5
    px, py, qx, qy = (
        given.screen[p, 0] - x,
        given.screen[p, 1] - y,
        given.screen[q, 0] - x,
        given.screen[q, 1] - y,
    )
    if sideways:
        return px, py, given.screen[p, 2], qx, qy, given.screen[q, 2]
    return py, px, given.screen[p, 2], qy, qx, given.screen[q, 2]


@compiled
def _cut(given, places, k, first, sideways, step):
    """In one square of four centres: the crossing where the outline goes on or -1, the areas that it cuts off the first
    and the second pixel, and the derivatives of the first area by the place here and there, and of the second."""
    H, W = given.size
    place, table = places.place[k], places.table
    kind, reach, shift = (0, 1, W) if sideways else (1, W, 1)
    lane, lanes = (first // W % H, H) if sideways else (first % W, W)
    onto_first = given.near[k] == first
    facing, at_first, at_second = -1, -1, -1
    if 0 <= lane + step < lanes:
        home = first if step == 1 else first - shift
        facing = table[kind, first + step * shift]
        at_first, at_second = table[1 - kind, home], table[1 - kind, home + reach]
    beside = at_first if onto_first else at_second
    double = given.band[k] > 0
    for other in (facing, at_first, at_second):
        double = double or (other >= 0 and given.band[other] > 0)
    if double:
        other, slot = _onward(given, places, k, facing, at_first, at_second, step)
        corner, on_first = slot > 0, slot == 1
    else:
        several = int(facing >= 0) + int(at_first >= 0) + int(at_second >= 0) > 1
        if beside >= 0:
            other, corner, on_first = beside, True, onto_first
            ours = _onto_first(given, other) == (step == 1)
        elif facing >= 0:
            other, corner, on_first = facing, False, False
            ours = _onto_first(given, facing) == onto_first
        else:
            other, corner, on_first = at_second if onto_first else at_first, True, not onto_first
            ours = other >= 0 and _onto_first(given, other) != (step == 1)
        if other >= 0 and several and not ours:
            other = -1
            far = at_second if onto_first else at_first
            if beside >= 0 and facing >= 0 and far >= 0 and _onto_first(given, far) != (step == 1):
                other, on_first = far, not onto_first  # a corner each of two outlines
    if other < 0 and given.band[k] > 0:
        front = k + 1 if given.band[k] == 1 else k - 1
        gap, closing = place - places.place[front], step * (places.slope[front] - places.slope[k])
        if places.depth[front] < places.depth[k] and 0 < 2 * gap / closing < 1:
            end = gap / closing
            a, b, ap, aq, bp, bq = _ended(
                end, place, step * places.slope[k], places.place[front], step * places.slope[front]
            )
            return front, a, b, ap, aq, bp, bq
    if other < 0:
        there = place + step * places.slope[k]
        a, b, ap, aq, bp, bq = _strip(place, min(max(there, 0.0), 1.0))
        if 0 < there < 1:
            ap, bp = ap + aq, bp + bq
        return other, a, b, ap, 0.0, bp, 0.0
    there = places.place[other]
    if not corner:
        a, b, ap, aq, bp, bq = _strip(place, there)
        return other, a, b, ap, aq, bp, bq
    sign = 1.0 if step == 1 else -1.0
    there = there if step == 1 else 1 - there
    if on_first:
        a, b, ap, aq, bp, bq = _corner(place, there)
        return other, a, b, ap, sign * aq, bp, sign * bq
    b, a, bp, bq, ap, aq = _corner(1 - place, there)
    return other, a, b, -ap, sign * aq, -bp, sign * bq


@compiled
def _onward(given, places, k, facing, at_first, at_second, step):
    """Where two outlines may pass pairs of a square: the crossing whose surface is on the same side and nearest in
    depth, or -1; and whether it faces this one (0), or is at the first (1) or second (2) pixel."""
    onto_first = _onto_first(given, k)
    best, slot, off = -1, 0, np.inf
    for kind, other in enumerate((facing, at_first, at_second)):
        if other < 0:
            continue
        wanted = onto_first if kind == 0 else onto_first == ((kind == 1) == (step == 1))
        for c in range(other, other + (2 if given.band[other] > 0 else 1)):
            away = abs(places.depth[c] - places.depth[k])
            if _onto_first(given, c) == wanted and away < off:
                best, slot, off = c, kind, away
    return best, slot


@compiled
def _onto_first(given, k):
    return given.near[k] < given.far[k]


@compiled
def _strip(here, facing):
    """Quarter areas cut off the first and the second pixel by a segment to the opposite side of the square, and the
    derivatives of each by the two places."""
    start, end = 0.5 - here, 0.5 - (here + facing) / 2
    a, a_start, a_end = _positive_area(start, end)
    b, b_start, b_end = _positive_area(-start, -end)
    return a, b, -a_start - a_end / 2, -a_end / 2, b_start + b_end / 2, b_end / 2


@compiled
def _ended(end, place, slope, front, front_slope):
    """As `_strip`, of a segment that goes on from `end` (below one half) as the outline in front of it."""
    meeting, last = place + end * slope, front + 0.5 * front_slope
    here, there = 2 * end, 1 - 2 * end
    a, a_start, a_end = _positive_area(0.5 - place, 0.5 - meeting)
    b, b_start, b_end = _positive_area(place - 0.5, meeting - 0.5)
    c, c_start, c_end = _positive_area(0.5 - meeting, 0.5 - last)
    d, d_start, d_end = _positive_area(meeting - 0.5, last - 0.5)
    return (
        *(here * a + there * c, here * b + there * d),
        *(-here * (a_start + a_end), -there * (c_start + c_end)),
        *(here * (b_start + b_end), there * (d_start + d_end)),
    )


@compiled
def _positive_area(start, end):
    """Integral over half a unit of the positive part of what goes linearly from start to end, and its derivatives."""
    high, low = max(start, end), min(start, end)
    if high <= 0:
        return 0.0, 0.0, 0.0
    if low >= 0:
        return (start + end) / 4, 0.25, 0.25
    by_low = 0.25 * (high / (high - low)) ** 2
    by_high = 0.25 * high * (high - 2 * low) / (high - low) ** 2
    area = 0.25 * high * high / (high - low)
    return (area, by_high, by_low) if start > end else (area, by_low, by_high)


@compiled
def _corner(a, b):
    """Areas as `geoframe.render._mixing_torch._corner`, and the derivatives of each by a and b."""
    beyond = beyond_a = beyond_b = aside = aside_a = aside_b = 0.0
    if a > 0.5:
        beyond, beyond_a, beyond_b = (
            (a - 0.5) ** 2 * b / (2 * a),
            b / 2 * (1 - 0.25 / a**2),
            (a - 0.5) ** 2 / (2 * a),
        )
    if b > 0.5:
        aside, aside_b, aside_a = (
            (b - 0.5) ** 2 * a / (2 * b),
            a / 2 * (1 - 0.25 / b**2),
            (b - 0.5) ** 2 / (2 * b),
        )
    first = (0.25 - (a * b / 2 - beyond - aside)) / 2
    return (
        first,
        beyond,
        (beyond_a + aside_a - b / 2) / 2,
        (beyond_b + aside_b - a / 2) / 2,
        beyond_a,
        beyond_b,
    )
