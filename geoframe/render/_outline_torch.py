"""Where outlines pass between neighbouring pixels, in plain torch on any device: see `geoframe.render.outline`.

All pairs of pixels walk over the surface together, a face a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from geoframe.render._scene import Found, Scene

MOST_STEPS = 4096
CLOSE = 1e-6  # pixels by which rounding may move an outline
STEEP = 2.0  # pixels a row: between two outlines that part so fast there is no band but a corner
REACH = 6  # pixels: how far away something is looked for that a slit thinner than a pixel shows
MOST_CELLS = 2**19  # of a table of points and faces


def crossings(scene: Scene, owner: Tensor, depth: Tensor) -> Found:
    """Pairs of neighbouring pixels between which the surface that one of them sees ends.

    Args:
        scene: triangles on the screen.
        owner: (B, H, W) the triangle that a pixel sees, or -1.
        depth: (B, H, W) of what it sees.

    Returns:
        The crossings. Two of a pair are told where a band between them shows what neither pixel's surface is: a
        surface that shows from behind the one that ends, a slit between two that end, or a part in front of both
        that no pixel's centre sees.
    """
    B, H, W = owner.shape
    across, turn = _across(scene), _turns(scene.screen.detach().double(), scene.faces)
    mesh = _Mesh(scene, across, turn, _folds(scene, across, turn))
    seen, z = owner.reshape(-1), depth.detach().double().reshape(-1)
    index = torch.arange(B * H * W, device=owner.device).view(B, H, W)
    ways = [(True, index[:, :, :-1].reshape(-1)), (False, index[:, :-1].reshape(-1))]
    walks = [_ending(mesh, seen, z, one, sideways) for sideways, one in ways]
    starts = torch.tensor(scene.starts, device=owner.device)
    fine = starts.diff() > H * W  # too many folds to look for
    image = torch.searchsorted(starts, mesh.folds // 3, right=True) - 1
    mesh = replace(mesh, folds=mesh.folds[~fine[image]])
    found = []
    for (sideways, one), walk in zip(ways, walks, strict=True):
        found += _of_pairs(mesh, seen, z, one, walk, sideways)
    table = torch.cat(found)
    return Found(*table[(table[:, 0] // (H * W)).argsort(stable=True)].T)


@dataclass(frozen=True)
class _Mesh:
    """The triangles of a scene, what is across their edges, and which way they turn."""

    scene: Scene
    across: Tensor
    turn: Tensor
    folds: Tensor  # half-edges 3 t + i where the surface ends or turns over, one of each edge

    @cached_property
    def screen(self) -> Tensor:
        """(P, 3) in float64, without gradient."""
        return self.scene.screen.detach().double()

    def ends(self, edge: Tensor, first: Tensor, sideways: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Of the ends of half-edges and the third corner of their triangle: u along a pair of pixels from its first,
        v across it, each (n, 3); and the depths (n, 3)."""
        W = self.scene.size[1]
        i = edge % 3
        corners = torch.stack([i, (i + 1) % 3, (i + 2) % 3], 1)
        points = self.screen[self.scene.faces[edge // 3].gather(1, corners)]
        x, y = (first % W).double() + 0.5, (first // W % self.scene.size[0]).double() + 0.5
        along, beside = (0, 1) if sideways else (1, 0)
        u0, v0 = (x, y) if sideways else (y, x)
        return points[..., along] - u0[:, None], points[..., beside] - v0[:, None], points[..., 2]

    def passing(self, edge: Tensor, first: Tensor, sideways: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where half-edges pass pairs of pixels, from 0 at the first to 1; the slope of `place` across the pair; the
        depth there; and whether the surface is on the side of the first pixel."""
        u, v, z = self.ends(edge, first, sideways)
        run, rise = u[:, 1] - u[:, 0], v[:, 1] - v[:, 0]
        share = -v[:, 0] / rise
        if self.scene.perspective:
            depth = z[:, 0] * z[:, 1] / ((1 - share) * z[:, 1] + share * z[:, 0])
        else:
            depth = (1 - share) * z[:, 0] + share * z[:, 1]
        side = (run * (v[:, 2] - v[:, 0]) - rise * (u[:, 2] - u[:, 0])) * rise > 0
        return u[:, 0] + share * run, run / rise, depth, side


def _folds(scene: Scene, across: Tensor, turn: Tensor) -> Tensor:
    """Half-edges where the surface ends or turns over, one of each edge."""
    faces, h, other = (
        scene.faces.view(-1),
        torch.arange(across.numel(), device=across.device),
        across.view(-1),
    )
    back = other.clamp_min(0)
    if not len(h):
        return h
    turns = turn[h // 3] * turn[back // 3] * torch.where(faces[back] != faces[h], 1, -1)  # wound alike or not
    return ((other < 0) | ((back // 3 >= h // 3) & (turns <= 0))).nonzero()[:, 0]


def _ending(mesh: _Mesh, seen: Tensor, z: Tensor, one: Tensor, sideways: bool) -> tuple[Tensor, Tensor]:
    """The half-edge where the surface of one pixel of each pair ends, or -1, and whether it is the first pixel's."""
    two = one + (1 if sideways else mesh.scene.size[1])
    forward = (seen[two] < 0) | ((seen[one] >= 0) & (z[one] <= z[two]))
    rows = (seen[one] != seen[two]).nonzero()[:, 0]
    edge = torch.full_like(one, -1)
    for _ in range(2):
        edge = edge.index_copy(0, rows, _walked(mesh, seen, one[rows], two[rows], forward[rows], sideways))
        rows = rows[edge[rows] < 0]  # then from the farther pixel
        forward = forward.index_copy(0, rows, ~forward[rows])
    return edge, forward.index_copy(0, rows, ~forward[rows])


def _walked(mesh: _Mesh, seen: Tensor, one: Tensor, two: Tensor, forward: Tensor, sideways: bool) -> Tensor:
    """The half-edge where the surface of the first (forward) or second pixel ends, or -1."""
    start, end = torch.where(forward, one, two), torch.where(forward, two, one)
    rows = (seen[start] >= 0).nonzero()[:, 0]
    start, end = start[rows], end[rows]
    walk = seen[start], seen[end], start, end, mesh.scene.size, sideways
    hits = _walk(mesh.screen, mesh.scene.faces, mesh.across, mesh.turn, *walk)
    return torch.full_like(one, -1).index_copy(0, rows, hits)


def _of_pairs(
    mesh: _Mesh,
    seen: Tensor,
    z: Tensor,
    one: Tensor,
    walk: tuple[Tensor, Tensor],
    sideways: bool,
) -> list[Tensor]:
    """The rows of `Found` of all pairs of pixels in one direction, (N, 5) in pieces."""
    W = mesh.scene.size[1]
    far = torch.where(seen >= 0, z, torch.inf)
    event_pair, event_edge = _events(mesh, sideways)
    counts = torch.bincount(event_pair, minlength=len(seen))
    pair = ((walk[0] >= 0) | (counts[one] > 1)).nonzero()[:, 0]
    one, edge, forward = one[pair], walk[0][pair], walk[1][pair]
    two = one + (1 if sideways else W)
    several = counts[one] > 1
    other = torch.full_like(one, -1)
    rows = (several & (edge >= 0)).nonzero()[:, 0]
    other[rows] = _walked(mesh, seen, one[rows], two[rows], ~forward[rows], sideways)
    near, away = torch.where(forward, one, two), torch.where(forward, two, one)
    step = torch.where(forward, 1.0, -1.0).double()
    place, _, _, _ = mesh.passing(edge.clamp_min(0), one, sideways)
    place_other, _, _, _ = mesh.passing(other.clamp_min(0), one, sideways)
    none = torch.full_like(one, -1)
    second, middle = none.clone(), none.clone()
    opposite = torch.zeros_like(forward)
    slit = (edge >= 0) & (other >= 0) & several & (step * (place_other - place) > CLOSE)
    rows = (slit & _alike(mesh, edge, other, one, sideways)).nonzero()[:, 0]
    middle[rows] = _in_slit(mesh, seen, z, one[rows], ((place + place_other) / 2)[rows], sideways)
    opposite = middle >= 0
    second = torch.where(opposite, other, second)
    # what else passes there: rows of `one` for every event
    row = torch.full_like(seen, -1).index_copy(0, one, torch.arange(len(one), device=one.device))[event_pair]
    event_edge, row = event_edge[row >= 0], row[row >= 0]
    at, _, event_depth, before = mesh.passing(event_edge, one[row], sideways)
    ahead = step[row] * (at - place[row])
    behind = (ahead > CLOSE) & (before == forward[row]) & (event_depth < far[away[row]])
    behind &= several[row] & (edge[row] >= 0) & ~opposite[row]
    best = _chosen(torch.where(behind, ahead, -torch.inf), event_edge, row, len(one))
    second = torch.where((best >= 0) & _alike(mesh, edge, best, one, sideways), best, second)
    # parts that no centre sees
    free = several & (edge < 0)
    front = free[row] & (event_depth < torch.minimum(far[one], far[two])[row])
    begin = _chosen(torch.where(front & ~before, -at, -torch.inf), event_edge, row, len(one))
    end = _chosen(torch.where(front & before, at, -torch.inf), event_edge, row, len(one))
    low, high = (mesh.passing(x.clamp_min(0), one, sideways)[0] for x in (begin, end))
    bar = (begin >= 0) & (end >= 0) & (high - low > CLOSE) & _alike(mesh, begin, end, one, sideways)
    zero = torch.zeros_like(one)
    single = (edge >= 0) & (second < 0)
    found = [torch.stack([near, away, edge, zero, none], 1)[single]]
    double = (edge >= 0) & (second >= 0)
    lead = torch.stack([near, away, edge, zero + 1, middle], 1)
    follow = torch.stack(
        [torch.where(opposite, away, near), torch.where(opposite, near, away), second, zero + 1, middle], 1
    )
    first, last = (torch.where(forward[:, None], x, y) for x, y in ((lead, follow), (follow, lead)))
    both = torch.stack([first, last], 1)
    bars = torch.stack(
        [torch.stack([two, one, begin, zero + 1, none], 1), torch.stack([one, two, end, zero + 1, none], 1)],
        1,
    )
    for x in (both[double], bars[bar]):
        x[:, 1, 3] = 2
        found.append(x.flatten(0, 1))
    return found


def _events(mesh: _Mesh, sideways: bool) -> tuple[Tensor, Tensor]:
    """The first pixel of each pair of neighbours that a fold or border of any layer passes, and its half-edge."""
    scene, h = mesh.scene, mesh.folds
    H, W = scene.size
    lines, cells = (H, W) if sideways else (W, H)
    starts = torch.tensor(scene.starts, device=h.device)
    image = torch.searchsorted(starts, h // 3, right=True) - 1
    u, v, _ = mesh.ends(h, torch.zeros_like(h), sideways)
    low, high = v[:, :2].amin(1), v[:, :2].amax(1)
    first = low.clamp(0, lines).ceil().long()
    count = (high.clamp(-1, lines - 1).floor().long() - first + 1).clamp_min(0)
    row = torch.arange(len(h), device=h.device).repeat_interleave(count)
    line = torch.arange(len(row), device=h.device) - (count.cumsum(0) - count)[row] + first[row]
    vp, vq = v[row, 0], v[row, 1]
    passes = (vp - line >= 0) != (vq - line >= 0)
    at = u[row, 0] + (u[row, 1] - u[row, 0]) * ((line - vp) / torch.where(passes, vq - vp, 1.0))
    passes &= (at > -1) & (at < cells)
    cell, other = (at - CLOSE).clamp(-2, cells).floor().long(), (at + CLOSE).clamp(-2, cells).floor().long()
    pairs, edges = [], []
    for c, keep in ((cell, passes), (other, passes & (other != cell))):
        keep = keep & (c >= 0) & (c < cells - 1)
        at_row, at_col = (line, c) if sideways else (c, line)
        pairs.append((image[row] * H * W + at_row * W + at_col)[keep])
        edges.append(h[row][keep])
    return torch.cat(pairs), torch.cat(edges)


def _chosen(score: Tensor, edge: Tensor, row: Tensor, n: int) -> Tensor:
    """(n,) the edge of the highest score of each row, -1 where none is finite."""
    top = torch.full((n,), -torch.inf, dtype=score.dtype, device=row.device)
    top = top.scatter_reduce(0, row, score, "amax")
    at = (torch.isfinite(score) & (score == top[row])).nonzero()[:, 0]
    return torch.full((n,), -1, device=row.device).index_copy(0, row[at], edge[at])


def _alike(mesh: _Mesh, edge: Tensor, other: Tensor, first: Tensor, sideways: bool) -> Tensor:
    """Whether two half-edges that pass a pair have about the same direction."""
    a, b = (mesh.passing(x.clamp_min(0), first, sideways)[1] for x in (edge, other))
    return (a - b).abs() < STEEP


def _in_slit(mesh: _Mesh, seen: Tensor, z: Tensor, first: Tensor, place: Tensor, sideways: bool) -> Tensor:
    """(n,) a pixel nearby that sees what shows at `place` between the two pixels of pairs, or -1."""
    H, W = mesh.scene.size
    row, col, base = first // W % H, first % W, first // (H * W) * (H * W)
    x, y = col.double() + 0.5, row.double() + 0.5
    x, y = (x + place, y) if sideways else (x, y + place)
    face, depth = _at_points(mesh, first // (H * W), x, y)
    reach = torch.arange(-REACH, REACH + 1, device=first.device)
    dy, dx = (k.reshape(-1) for k in torch.meshgrid(reach, reach, indexing="ij"))
    ring = torch.maximum(dy.abs(), dx.abs())
    order = ring.argsort(stable=True)[1:]  # the nearest pixels first
    r, c = row[:, None] + dy[order], col[:, None] + dx[order]
    inside = (r >= 0) & (r < H) & (c >= 0) & (c < W)
    pixel = base[:, None] + r.clamp(0, H - 1) * W + c.clamp(0, W - 1)
    owner = seen[pixel]
    off = torch.where(owner == face[:, None], 0.0, (z[pixel] - depth[:, None]).abs())
    off = torch.where(inside & ((owner >= 0) == (face >= 0)[:, None]), off, torch.inf)
    rank = torch.arange(len(order), device=first.device)
    best = torch.where(off == off.amin(1, keepdim=True), rank, len(order) - 1).amin(1)
    hit = torch.isfinite(off.gather(1, best[:, None])[:, 0])
    return torch.where(hit, pixel.gather(1, best[:, None])[:, 0], -1)


def _at_points(mesh: _Mesh, image: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest triangle at points (n,) of pictures, or -1, and its depth."""
    faces, depths = torch.full_like(image, -1), torch.full_like(x, torch.inf)
    for b in image.unique().tolist():
        first, last = mesh.scene.starts[b], mesh.scene.starts[b + 1]
        corners = mesh.screen[mesh.scene.faces[first:last]]
        for rows in (image == b).nonzero()[:, 0].split(max(1, MOST_CELLS // max(last - first, 1))):
            px, py = corners[..., 0] - x[rows, None, None], corners[..., 1] - y[rows, None, None]
            nx, ny, mx, my = px.roll(-1, 2), py.roll(-1, 2), px.roll(1, 2), py.roll(1, 2)
            area = nx * my - mx * ny
            share = area / area.sum(2, keepdim=True)
            if mesh.scene.perspective:
                z = 1 / (share / corners[..., 2]).sum(2)
            else:
                z = (share * corners[..., 2]).sum(2)
            z, at = torch.where((share >= 0).all(2), z, torch.inf).min(1)
            faces[rows], depths[rows] = torch.where(torch.isfinite(z), at + first, -1), z
    return faces, depths


def _across(scene: Scene) -> Tensor:
    """(T, 3) the half-edge 3 g + j on the other side of edge i of face f; -1 at borders and where three faces meet."""
    F = scene.n_faces
    faces = scene.faces if F is None else scene.faces[:F]
    n = max(len(scene.screen), 1)
    ends = torch.stack([faces, faces.roll(-1, 1)]).view(2, -1)
    key = ends.amin(0) * n + ends.amax(0)
    _, edge, count = torch.unique(key, return_inverse=True, return_counts=True)
    order = edge.argsort(stable=True)
    paired = (count[edge[order]] == 2) & (ends[0] != ends[1])[order]
    twins = order[paired].view(-1, 2)
    across = torch.full_like(key, -1)
    across[twins[:, 0]], across[twins[:, 1]] = twins[:, 1], twins[:, 0]
    if F is None or not F:
        return across.view(-1, 3)
    shift = torch.arange(0, len(scene.faces), F, device=key.device)[:, None] * 3
    return torch.where(across >= 0, across + shift, across).view(-1, 3)


def _turns(screen: Tensor, faces: Tensor) -> Tensor:
    """(T,) 1 where the corners turn clockwise on the screen (y down), -1 where they turn back, 0 without area."""
    a, b, c = screen[faces][..., :2].unbind(1)
    u, v = b - a, c - a
    return (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sign().long()


def _walk(
    screen: Tensor,
    faces: Tensor,
    across: Tensor,
    turn: Tensor,
    f: Tensor,
    goal: Tensor,
    start: Tensor,
    end: Tensor,
    size: tuple[int, int],
    sideways: bool,
) -> Tensor:
    """(n,) the half-edge where the surface ends between two pixel centres, or -1; see `_outline_numba._walk`."""
    H, W = size
    result = torch.full_like(f, -1)
    if not len(f):
        return result
    x, y = (start % W).double() + 0.5, (start // W % H).double() + 0.5
    u0, v0 = (x, y) if sideways else (y, x)
    along, beside = (0, 1) if sideways else (1, 0)
    step = (end > start).double() * 2 - 1

    def place(points: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Along and across the way: (n, ...) u and v of points of the screen."""
        shape = (-1, *[1] * (points.ndim - 1))
        u = step[row].view(shape) * (screen[points, along] - u0[row].view(shape))
        return u, screen[points, beside] - v0[row].view(shape)

    row = torch.arange(len(f), device=f.device)
    u, v = place(faces[f], row)
    next_u, next_v = u.roll(-1, 1), v.roll(-1, 1)
    cut = (v >= 0) != (next_v >= 0)
    at = u + (next_u - u) * (v / torch.where(cut, v - next_v, 1.0))
    at, edge = torch.where(cut, at, -torch.inf).max(1)
    side = turn[f]
    alive = cut.any(1)
    for _ in range(MOST_STEPS):
        alive = alive & (at < 1)
        if not bool(alive.any()):
            break
        row, f, edge, side = row[alive], f[alive], edge[alive], side[alive]
        h = across[f, edge]
        g, j = h.clamp_min(0) // 3, h.clamp_min(0) % 3
        side = torch.where(faces[g, j] == faces[f, edge], -side, side)
        ends = (h < 0) | (turn[g] * side < 0)
        result[row[ends]] = 3 * f[ends] + edge[ends]
        on = ~ends & (g != goal[row])
        row, f, j, side = row[on], g[on], j[on], side[on]
        following, third = (j + 1) % 3, (j + 2) % 3
        up, vp = place(faces[f, third], row)
        _, v_next = place(faces[f, following], row)
        ahead = (vp >= 0) != (v_next >= 0)
        edge = torch.where(ahead, following, third)
        uq, vq = place(torch.where(ahead, faces[f, following], faces[f, j]), row)
        alive = vp != vq
        at = up + (uq - up) * (vp / torch.where(alive, vp - vq, 1.0))
    return result
