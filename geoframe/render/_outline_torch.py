"""Where outlines pass between neighbouring pixels, in plain torch on any device: see `geoframe.render.outline`.

All pairs of pixels walk over the surface together, a face a step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe.render._scene import Scene

MOST_STEPS = 4096


def crossings(scene: Scene, owner: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of neighbouring pixels between which the surface that one of them sees ends.

    Args:
        scene: triangles on the screen.
        owner: (B, H, W) the triangle that a pixel sees, or -1.
        depth: (B, H, W) of what it sees.

    Returns:
        The pixel that sees the surface and its neighbour, (N,) indices into the B H W pixels; the half-edge 3 t + i
        where the surface ends, edge i of triangle t, from corner i to the next.
    """
    B, H, W = owner.shape
    screen, faces = scene.screen.detach().double(), scene.faces
    across, turn = _across(scene), _turns(screen, faces)
    index = torch.arange(B * H * W, device=owner.device).view(B, H, W)
    found = []
    for sideways in (True, False):
        one = index[:, :, :-1] if sideways else index[:, :-1]
        two = index[:, :, 1:] if sideways else index[:, 1:]
        one, two = one.reshape(-1), two.reshape(-1)
        f, g = owner.view(-1)[one], owner.view(-1)[two]
        pair = (f != g).nonzero()[:, 0]
        one, two, f, g = one[pair], two[pair], f[pair], g[pair]
        z, other_z = depth.detach().reshape(-1)[one], depth.detach().reshape(-1)[two]
        forward = (g < 0) | ((f >= 0) & (z <= other_z))
        near, far = torch.where(forward, one, two), torch.where(forward, two, one)
        start, goal = torch.where(forward, f, g), torch.where(forward, g, f)
        edge = _walk(screen, faces, across, turn, start, goal, near, far, (H, W), sideways)
        again = ((edge < 0) & (goal >= 0)).nonzero()[:, 0]  # then from the farther pixel
        other = _walk(
            *(screen, faces, across, turn, goal[again], start[again], far[again], near[again]),
            *((H, W), sideways),
        )
        for e, a, b in ((edge, near, far), (other, far[again], near[again])):
            hit = (e >= 0).nonzero()[:, 0]
            found.append(torch.stack([a[hit], b[hit], e[hit]]))
    a, b, e = torch.cat(found, 1)
    order = (a // (H * W)).argsort(stable=True)
    return a[order], b[order], e[order]


def mixed(scene: Scene, found: tuple[Tensor, Tensor, Tensor], n: int) -> tuple[Tensor, Tensor]:
    """By how much the pixels at outlines are mixed.

    Args:
        scene: triangles on the screen.
        found: the N crossings, as `crossings` gives them.
        n: number of pixels of all pictures.

    Returns:
        (2 N,) weights: of the pixels beyond the outlines, then of those on the surface; and (N, 3) barycentric
        coordinates of the crossings in their triangles. Differentiable in the screen.
    """
    near, far, edge = found
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
    onto_first = near == first
    cuts = _cut_off(first, sideways, onto_first, place, (along / across).detach(), (n, H, W))
    lost, gained = (torch.where(onto_first, x, y) for x, y in (cuts, cuts[::-1]))
    into, weight = torch.cat([far, near]), torch.cat([gained, lost])
    total = weight.new_zeros(n).index_add(0, into, weight)  # above 1 only where outlines meet
    weight = weight / total.index_select(0, into).clamp_min(1)
    share = share.clamp(0, 1)
    if scene.perspective:
        wa, wb = (1 - share) * b[:, 2], share * a[:, 2]
        share = wb / (wa + wb)
    bary = share.new_zeros(len(tri), 3)
    bary = bary.scatter(1, i[:, None], (1 - share)[:, None])
    return weight, bary.scatter(1, ((i + 1) % 3)[:, None], share[:, None])


def _cut_off(
    first: Tensor,
    sideways: Tensor,
    onto_first: Tensor,
    place: Tensor,
    slope: Tensor,
    sizes: tuple[int, int, int],
) -> tuple[Tensor, Tensor]:
    """Areas (N,) that outlines cut off the first and the second pixel of each pair.

    In a square of four centres an outline goes on where a walk round the square from its surface's own pixel first
    comes to a crossing; unless another surface is nearer there, behind which the outline ends. Then it is taken to go
    straight on, as its edge does.

    Args:
        first: (N,) the left or upper pixel of the pair, an index into the pixels of all pictures.
        sideways: (N,) whether the other pixel is to the right, else it is below.
        onto_first: (N,) whether the first pixel sees the surface that ends.
        place: (N,) where the outline crosses, from 0 at the first centre to 1 at the second.
        slope: (N,) by how much `place` grows along the edge for a pixel to the right or down, across the pair.
        sizes: number of pixels of all pictures, H and W of each.
    """
    n, H, W = sizes
    number = torch.arange(len(first), device=first.device)
    table = torch.full((2, n), -1, device=first.device)
    kind = torch.where(sideways, 0, 1)
    table[kind, first] = number
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

        def at(other: Tensor, values: Tensor) -> Tensor:
            return values.index_select(0, other.clamp_min(0)) if len(values) else values

        facing = found(first + step * shift, kind)
        beside = (
            found(home, 1 - kind),
            found(home + reach, 1 - kind),
        )  # across, at the first and at the second pixel
        several = sum((x >= 0).int() for x in (facing, *beside)) > 1
        here, beyond = (torch.where(onto_first, x, y) for x, y in (beside, beside[::-1]))
        # whether the surface is the nearer one at the crossing, too
        ours_here, ours_beyond = (at(x, onto_first) == (step == 1) for x in (here, beyond))
        goes_here = (here >= 0) & (ours_here | ~several)
        goes_facing = (here < 0) & (facing >= 0) & ((at(facing, onto_first) == onto_first) | ~several)
        goes_beyond = (here < 0) & (facing < 0) & (beyond >= 0) & (~ours_beyond | ~several)
        at_first = torch.where(onto_first, goes_here, goes_beyond)
        at_second = torch.where(onto_first, goes_beyond, goes_here)
        turned = [at(x, place) if step == 1 else 1 - at(x, place) for x in beside]
        straight = _strip(
            place, torch.where(goes_facing, at(facing, place), (place + step * slope).clamp(0, 1))
        )
        corner, mirrored = _corner(place, turned[0]), _corner(1 - place, turned[1])[::-1]
        sums = tuple(  # type: ignore[assignment]
            total + torch.where(at_first, corner[k], torch.where(at_second, mirrored[k], straight[k]))
            for k, total in enumerate(sums)
        )
    return sums


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
