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
