"""Where outlines pass between neighbouring pixels, compiled for the CPU: see `geoframe.render.outline`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geoframe._compiled import compiled, share
from geoframe._types import Array
from geoframe.render._edges_numba import across_edges
from geoframe.render._scene import Found, Scene

MOST_STEPS = 4096  # faces between two pixels; a surface so fine within a pixel is noise
CLOSE = 1e-6  # pixels by which rounding may move an outline
STEEP = 2.0  # pixels a row: between two outlines that part so fast there is no band but a corner
MOST_TESTS = (
    20_000_000  # faces looked at to see what shows in slits of a picture, .2 s; then one outline is mixed
)
REACH = 6  # pixels: how far away something is looked for that a slit thinner than a pixel shows


class _Folds(NamedTuple):
    """Where folds and borders of any layer pass between neighbouring pixels, a linked list for each pair: `head`
    (H, W, 2) for the pairs to the right and down of each pixel and `link` have the next event or -1, `edge` (E,) its
    half-edge 3 f + i, `place` (E,) where it is, from 0 at the left or upper pixel to 1; `left` (1,) how many slits are
    still looked into."""

    head: Array
    link: Array
    edge: Array
    place: Array
    left: Array


class _Seen(NamedTuple):
    """One picture: its faces, into `screen`, what is on the other side of their edges, and what pixels see."""

    screen: Array
    faces: Array
    across: Array
    owner: Array
    depth: Array
    perspective: bool


def crossings(scene: Scene, owner: Tensor, depth: Tensor) -> Found:
    """As `geoframe.render._outline_torch.crossings`."""
    B, H, W = owner.shape
    screen = np.ascontiguousarray(scene.screen.detach().numpy(), np.float64)
    faces, seen, z = scene.faces.numpy(), owner.numpy(), depth.detach().double().numpy()
    found: list[Array] = [np.empty((0, 5), np.int64)] * B
    shared = across_edges(faces[: scene.n_faces]) if scene.n_faces is not None and B else None

    # one a thread, for all of its pictures: fresh memory costs as much as a tenth of the work
    tables = [np.empty((4 * H * W, 5), np.int64) for _ in range(min(torch.get_num_threads(), B))]

    def run(b: int) -> None:
        first, last = scene.starts[b], scene.starts[b + 1]
        across = across_edges(faces[first:last]) if shared is None else shared
        here = _Seen(screen, faces[first:last], across, seen[b], z[b], scene.perspective)
        fine = last - first > H * W  # then walking is quicker than looking for folds, and there are too many
        head, link, edge, place = _folds(screen, faces[first:last], across, (0, 0) if fine else (H, W))
        folds = _Folds(head, link, edge, place, np.array([MOST_TESTS // max(last - first, 1)]))
        out = tables.pop()
        n = _crossings(here, folds, first, b * H * W, out)
        found[b] = out[:n].copy()
        tables.append(out)

    share(run, [(b,) for b in range(B)])
    table = torch.from_numpy(np.concatenate(found) if B else np.empty((0, 5), np.int64))
    return Found(*table.T)


@compiled
def _folds(screen, faces, across, size):
    """The first fields of `_Folds`: no pair of pixels without one can have an outline, and on most pictures these are
    few. For a picture of no size nothing is looked for."""
    F = len(faces) if size[0] else 0
    turn, edges, n = np.empty(F, np.int8), np.empty(3 * F, np.int64), 0
    for f in range(F):
        turn[f] = _turn_of(screen, faces, f)
    for f in range(F):
        for i in range(3):
            h = across[f, i]
            if h >= 0:
                g = h >> 2
                if g < f:
                    continue
                alike = faces[g, h & 3] != faces[f, i]  # wound alike or not
                if (turn[f] * turn[g] if alike else -turn[f] * turn[g]) > 0:
                    continue
            edges[n] = 3 * f + i
            n += 1
    H, W = size
    head = np.full((H, W, 2), -1, np.int32)
    link, edge, place = np.empty(4 * n + 64, np.int32), np.empty(4 * n + 64, np.int64), np.empty(4 * n + 64)
    events = 0
    for k in range(n):
        f, i = edges[k] // 3, edges[k] % 3
        p, q = faces[f, i], faces[f, i + 1 if i < 2 else 0]
        most = 6 * (
            4 + int(min(abs(screen[p, 0] - screen[q, 0]), W) + min(abs(screen[p, 1] - screen[q, 1]), H))
        )
        if events + most > len(link):
            size = 2 * (events + most)
            link, edge, place = _longer(link, size), _longer(edge, size), _longer(place, size)
        events = _pass(screen, p, q, edges[k], head, link, edge, place, events)
    return head, link, edge, place


@compiled
def _longer(x, size):
    out = np.empty(size, x.dtype)
    out[: len(x)] = x
    return out


@compiled
def _pass(screen, p, q, h, head, link, edge, place, n):
    """Put the pairs that an edge passes into the lists."""
    H, W = head.shape[:2]
    for sideways in range(2):
        lines, cells = (H, W) if sideways else (W, H)
        up, vp, uq, vq = (
            screen[p, 1 - sideways] - 0.5,
            screen[p, sideways] - 0.5,
            screen[q, 1 - sideways] - 0.5,
            screen[q, sideways] - 0.5,
        )
        low, high = min(vp, vq), max(vp, vq)
        if high < 0 or low > lines - 1:
            continue
        for line in range(math.ceil(max(low, 0.0)), math.floor(min(high, lines - 1.0)) + 1):
            if (vp - line >= 0) == (vq - line >= 0):
                continue
            u = up + (uq - up) * ((line - vp) / (vq - vp))
            if not -1 < u < cells:
                continue
            for cell in range(math.floor(u - CLOSE), math.floor(u + CLOSE) + 1):
                if 0 <= cell < cells - 1:
                    row, col = (line, cell) if sideways else (cell, line)
                    link[n], edge[n], place[n] = head[row, col, sideways], h, u - cell
                    head[row, col, sideways] = n
                    n += 1
    return n


@compiled
def _crossings(seen, folds, first, pixel, out):
    owner = seen.owner
    H, W = owner.shape
    if len(folds.head) == 0:
        return _everywhere(seen.screen, seen.faces, seen.across, owner, seen.depth, first, pixel, out)
    n = 0
    for row in range(H):
        for col in range(W):
            for sideways in range(2):
                r, c = row + 1 - sideways, col + sideways
                if r >= H or c >= W:
                    continue
                event = folds.head[row, col, sideways]
                if event < 0:
                    continue
                several = folds.link[event] >= 0
                ways = (row, col, sideways, row * W + col, r * W + c)
                edge, forward = -1, True
                if owner[row, col] != owner[r, c]:
                    edge, forward = _ending(*seen[:5], first, ways[:3])
                if edge >= 0:
                    n = _outline(seen, folds, first, pixel, ways, forward, edge, several, out, n)
                elif several:
                    n = _bar(seen, folds, first, pixel, ways, out, n)
    return n


@compiled
def _everywhere(screen, faces, across, owner, depth, first, pixel, out):
    """One outline a pair, looked for in all of them."""
    H, W = owner.shape
    n = 0
    for row in range(H):
        for col in range(W):
            for sideways in range(2):
                r, c = row + 1 - sideways, col + sideways
                if r >= H or c >= W or owner[r, c] == owner[row, col]:
                    continue
                edge, forward = _ending(screen, faces, across, owner, depth, first, (row, col, sideways))
                if edge >= 0:
                    one, two = row * W + col, r * W + c
                    _write(
                        *(out, n, pixel, first, one if forward else two, two if forward else one, edge, 0, -1)
                    )
                    n += 1
    return n


@compiled
def _ending(screen, faces, across, owner, depth, first, way):
    """The half-edge where the surface of one pixel of a pair ends, or -1, and whether it is the first pixel's. (Passing
    arrays, not a `_Seen`, is a third quicker.)"""
    row, col, sideways = way
    r, c = row + 1 - sideways, col + sideways
    here, there = owner[row, col], owner[r, c]
    forward = there < 0 or (here >= 0 and depth[row, col] <= depth[r, c])
    edge = _end(screen, faces, across, owner, first, way, forward)
    if edge < 0:  # then from the farther pixel
        forward = not forward
        edge = _end(screen, faces, across, owner, first, way, forward)
    return edge, forward


@compiled
def _end(screen, faces, across, owner, first, way, forward):
    """The half-edge where the surface ends that the first (forward) or second pixel of a pair sees, or -1."""
    row, col, sideways = way
    r, c = row + 1 - sideways, col + sideways
    here, there = owner[row, col], owner[r, c]
    if forward:
        if here < 0:
            return -1
        return _walk(
            *(screen, faces, across, here - first, there - first),
            *(col + 0.5, row + 0.5, sideways, 1.0),
        )
    if there < 0:
        return -1
    return _walk(*(screen, faces, across, there - first, here - first, c + 0.5, r + 0.5, sideways, -1.0))


@compiled
def _outline(seen, folds, first, pixel, ways, forward, edge, several, out, n):
    """Write down the outline of the surface that one pixel of a pair sees; and a second one, if between it and what the
    other pixel sees there is a band in which something else shows."""
    one, two = ways[3], ways[4]
    near, far = (one, two) if forward else (two, one)
    if several:
        step = 1.0 if forward else -1.0
        u = _place(seen, edge, ways)
        other, middle = _end(*seen[:4], first, ways[:3], not forward), -1
        if (
            other >= 0
            and step * (_place(seen, other, ways) - u) > CLOSE
            and _alike(seen, edge, other, ways)  # both end: a slit
        ):
            middle = _in_slit(seen, folds, first, ways, (u + _place(seen, other, ways)) / 2)
            if middle >= 0:
                return _write_two(out, n, pixel, first, forward, near, far, edge, far, near, other, middle)
        other = _behind(seen, folds, ways, forward, u)
        if other >= 0 and _alike(seen, edge, other, ways):
            return _write_two(out, n, pixel, first, forward, near, far, edge, near, far, other, -1)
    _write(out, n, pixel, first, near, far, edge, 0, -1)
    return n + 1


@compiled
def _behind(seen, folds, ways, forward, u):
    """The half-edge where a surface ends that shows from behind the one that ends at u, before what the other pixel
    sees; or -1."""
    row, col, sideways, _, _ = ways
    r, c = (row + 1 - sideways, col + sideways) if forward else (row, col)
    far = seen.depth[r, c] if seen.owner[r, c] >= 0 else np.inf
    step = 1.0 if forward else -1.0
    found, most = -1, CLOSE
    event = folds.head[row, col, sideways]
    while event >= 0:
        ahead, h = step * (folds.place[event] - u), folds.edge[event]
        if ahead > most and _before(seen, h, ways) == forward and _depth(seen, h, ways) < far:
            found, most = h, ahead
        event = folds.link[event]
    return found


@compiled
def _bar(seen, folds, first, pixel, ways, out, n):
    """Write down both outlines of a part that shows between two pixels of which neither sees it, if there is one."""
    row, col, sideways, one, two = ways
    r, c = row + 1 - sideways, col + sideways
    least = np.inf
    if seen.owner[row, col] >= 0:
        least = seen.depth[row, col]
    if seen.owner[r, c] >= 0:
        least = min(least, seen.depth[r, c])
    begin, end, low, high = -1, -1, np.inf, -np.inf
    event = folds.head[row, col, sideways]
    while event >= 0:
        u, h = folds.place[event], folds.edge[event]
        before = _before(seen, h, ways)
        if ((u > high) if before else (u < low)) and _depth(seen, h, ways) < least:
            if before:
                end, high = h, u
            else:
                begin, low = h, u
        event = folds.link[event]
    if begin < 0 or end < 0 or high - low <= CLOSE or not _alike(seen, begin, end, ways):
        return n
    return _write_two(out, n, pixel, first, True, two, one, begin, one, two, end, -1)


@compiled
def _in_slit(seen, folds, first, ways, u):
    """A pixel nearby that sees what shows at u between the two pixels of a pair, or -1."""
    row, col, sideways, _, _ = ways
    H, W = seen.owner.shape
    if folds.left[0] <= 0:
        return -1
    folds.left[0] -= 1
    x, y = (col + 0.5 + u, row + 0.5) if sideways else (col + 0.5, row + 0.5 + u)
    face, z = _at_point(seen, x, y)
    best, off = -1, np.inf
    for ring in range(1, REACH + 1):
        for r in range(max(row - ring, 0), min(row + ring, H - 1) + 1):
            across = 1 if r in (row - ring, row + ring) else 2 * ring
            for c in range(col - ring, col + ring + 1, across):
                if not 0 <= c < W:
                    continue
                owner = seen.owner[r, c]
                if face < 0 and owner < 0:
                    return r * W + c
                if face >= 0 and owner >= 0:
                    far = 0.0 if owner - first == face else abs(seen.depth[r, c] - z)
                    if far < off:
                        best, off = r * W + c, far
        if off == 0:
            break
    return best


@compiled
def _at_point(seen, x, y):
    """The nearest face at a point of the picture, or -1, and its depth."""
    face, z = -1, np.inf
    for f in range(len(seen.faces)):
        i, j, k = seen.faces[f, 0], seen.faces[f, 1], seen.faces[f, 2]
        ay, by, cy = seen.screen[i, 1] - y, seen.screen[j, 1] - y, seen.screen[k, 1] - y
        if (ay < 0) == (by < 0) and (by < 0) == (cy < 0):
            continue
        ax, bx, cx = seen.screen[i, 0] - x, seen.screen[j, 0] - x, seen.screen[k, 0] - x
        a, b, c = bx * cy - cx * by, cx * ay - ax * cy, ax * by - bx * ay
        total = a + b + c
        if total == 0 or min(a / total, b / total, c / total) < 0:
            continue
        za, zb, zc = seen.screen[i, 2], seen.screen[j, 2], seen.screen[k, 2]
        if seen.perspective:
            depth = total / (a / za + b / zb + c / zc)
        else:
            depth = (a * za + b * zb + c * zc) / total
        if depth < z:
            face, z = f, depth
    return face, z


@compiled
def _ends(seen, h, ways):
    """u along a pair, from its first pixel, and v across it of both ends of a half-edge, and its corners."""
    row, col, sideways, _, _ = ways
    f, i = h // 3, h % 3
    p, q = seen.faces[f, i], seen.faces[f, i + 1 if i < 2 else 0]
    u0, v0 = (col + 0.5, row + 0.5) if sideways else (row + 0.5, col + 0.5)
    along, beside = 1 - sideways, sideways
    screen = seen.screen
    return screen[p, along] - u0, screen[p, beside] - v0, screen[q, along] - u0, screen[q, beside] - v0, p, q


@compiled
def _place(seen, h, ways):
    """Where a half-edge passes a pair, from 0 at the first pixel to 1."""
    up, vp, uq, vq, _, _ = _ends(seen, h, ways)
    return up + (uq - up) * (vp / (vp - vq))


@compiled
def _alike(seen, h, other, ways):
    """Whether two half-edges that pass a pair have about the same direction."""
    up, vp, uq, vq, _, _ = _ends(seen, h, ways)
    ur, vr, ut, vt, _, _ = _ends(seen, other, ways)
    return abs((uq - up) / (vq - vp) - (ut - ur) / (vt - vr)) < STEEP


@compiled
def _depth(seen, h, ways):
    """The depth of a half-edge where it passes a pair."""
    _, vp, _, vq, p, q = _ends(seen, h, ways)
    share, za, zb = vp / (vp - vq), seen.screen[p, 2], seen.screen[q, 2]
    if seen.perspective:
        return za * zb / ((1 - share) * zb + share * za)
    return (1 - share) * za + share * zb


@compiled
def _before(seen, h, ways):
    """Whether the surface at a half-edge is on the side of the pair's first pixel."""
    up, vp, uq, vq, _, _ = _ends(seen, h, ways)
    row, col, sideways, _, _ = ways
    i = h % 3
    third = seen.faces[h // 3, i - 1 if i else 2]
    u0, v0 = (col + 0.5, row + 0.5) if sideways else (row + 0.5, col + 0.5)
    ur, vr = seen.screen[third, 1 - sideways] - u0, seen.screen[third, sideways] - v0
    return ((uq - up) * (vr - vp) - (vq - vp) * (ur - up)) * (vq - vp) > 0


@compiled
def _write(out, n, pixel, first, near, far, edge, band, middle):
    out[n, 0], out[n, 1], out[n, 2], out[n, 3] = pixel + near, pixel + far, 3 * first + edge, band
    out[n, 4] = pixel + middle if middle >= 0 else -1


@compiled
def _write_two(out, n, pixel, first, forward, near, far, edge, other_near, other_far, other, middle):
    """Two outlines of one pair, the one that is nearer to its first pixel first."""
    at, then = (n, n + 1) if forward else (n + 1, n)
    _write(out, at, pixel, first, near, far, edge, 1 if forward else 2, middle)
    _write(out, then, pixel, first, other_near, other_far, other, 2 if forward else 1, middle)
    return n + 2


@compiled
def _walk(screen, faces, across, f, goal, x, y, sideways, step):
    """From a pixel centre over the faces to the next one: the half-edge where the surface ends in between, or -1.

    v is across the way, u along it: the way is v = 0 from u = 0 to u = 1.
    """
    along, beside = 1 - sideways, sideways
    u0, v0 = (x, y) if sideways else (y, x)
    edge, most = -1, -np.inf
    for i in range(3):
        p, q = faces[f, i], faces[f, (i + 1) % 3]
        vp, vq = screen[p, beside] - v0, screen[q, beside] - v0
        if (vp >= 0) != (vq >= 0):
            up, uq = step * (screen[p, along] - u0), step * (screen[q, along] - u0)
            u = up + (uq - up) * (vp / (vp - vq))
            if u > most:
                edge, most = i, u
    if edge < 0:
        return -1
    side = _turn_of(screen, faces, f)
    for _ in range(MOST_STEPS):
        if most >= 1:
            return -1
        h = across[f, edge]
        if h < 0:
            return 3 * f + edge
        g, j = h >> 2, h & 3
        if faces[g, j] == faces[f, edge]:  # the neighbour is wound the other way
            side = -side
        if _turn_of(screen, faces, g) * side < 0:
            return 3 * f + edge
        f = g
        if f == goal:
            return -1
        following = j + 1 if j < 2 else 0
        opposite = following + 1 if following < 2 else 0
        third, p = faces[f, opposite], faces[f, following]
        vp = screen[third, beside] - v0
        if (vp >= 0) != (screen[p, beside] - v0 >= 0):
            edge = following
        else:
            edge, p = opposite, faces[f, j]
        vq = screen[p, beside] - v0
        if vp == vq:
            return -1
        up, uq = step * (screen[third, along] - u0), step * (screen[p, along] - u0)
        most = up + (uq - up) * (vp / (vp - vq))
    return -1


@compiled
def _turn_of(screen, faces, f):
    """Which way a face is wound on the screen: 1, -1, or 0 seen from its edge."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    ax, ay = screen[a, 0], screen[a, 1]
    twice = (screen[b, 0] - ax) * (screen[c, 1] - ay) - (screen[b, 1] - ay) * (screen[c, 0] - ax)
    return 1 if twice > 0 else (-1 if twice < 0 else 0)
