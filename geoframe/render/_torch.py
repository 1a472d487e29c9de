"""The reference backend in plain torch: any device, float32 and float64.

Each triangle is expanded over a window of pixels around it. Triangles whose windows have the same size are worked on
together as (n, h, w) arrays, in which what depends on x alone and on y alone broadcasts; a block of fragments is in
flight at a time. Windows are enlarged to a few sizes an octave, so that there are few groups.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from geoframe.render._mixing_torch import mixed as mixed
from geoframe.render._outline_torch import crossings as crossings
from geoframe.render._scene import Size

THINNEST = 0.13  # pixels: no gradient is steeper than one unit over this height of a triangle


def hard(
    screen: Tensor, faces: Tensor, starts: tuple[int, ...], size: Size, perspective: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest triangle (B, H, W) or -1, its barycentric coordinates (B, H, W, 3), depth (B, H, W); 0 where empty."""
    H, W = size
    B = len(starts) - 1
    exact = screen.double()
    depth = exact.new_full((B * H * W,), torch.inf)
    owner = torch.full((B * H * W,), -1, dtype=torch.int64, device=screen.device)
    for tri, x, y, pixel in _windows(exact[:, :2], faces, starts, size, 0.0):
        corners = exact[faces[tri]]
        e, covered = _coverage(corners[..., :2], x, y)
        n, row, col = covered.nonzero().unbind(1)
        b = torch.stack([v[n, row, col] for v in e], 1)
        tri, pixel = tri[n], pixel[n, row, col]
        z = _depth(b / b.sum(1, keepdim=True), corners[n][..., 2], perspective)
        nearer = z < depth[pixel]
        tri, pixel, z = tri[nearer], pixel[nearer], z[nearer]
        depth.scatter_reduce_(0, pixel, z, "amin")
        first = z == depth[pixel]
        owner[pixel[first]] = len(faces)
        owner.scatter_reduce_(0, pixel[first], tri[first], "amin")
    return described(screen, faces, owner.view(B, H, W), perspective)


def described(
    screen: Tensor, faces: Tensor, owner: Tensor, perspective: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The triangles seen (B, H, W), with the barycentric coordinates and depth that `hard` returns."""
    full = (owner.reshape(-1) >= 0).nonzero()[:, 0]
    bary, depth = screen.new_zeros(*owner.shape, 3), screen.new_zeros(owner.shape)
    corners = screen[faces[owner.reshape(-1)[full]]].double()
    b = _weights(corners[..., :2], full, (owner.shape[1], owner.shape[2]))
    depth.view(-1)[full] = _depth(b, corners[..., 2], perspective).to(screen.dtype)
    bary.view(-1, 3)[full] = _corrected(b, corners[..., 2], perspective).to(screen.dtype)
    return owner, bary, depth


def hard_backward(
    screen: Tensor, faces: Tensor, owner: Tensor, perspective: bool, g_bary: Tensor, g_depth: Tensor
) -> Tensor:
    """Gradient (P, 3) to the screen of what `hard` returned, bounded at slivers.

    A vertex that moves by v shifts what the triangle carries by ``b_i v``, so its gradient is ``-b_i G`` with
    ``G = sum_j g_j grad b_j``. Where a triangle is thinner than THINNEST, grad b is damped to what that height gives.
    """
    size = owner.shape[1], owner.shape[2]
    full = (owner.reshape(-1) >= 0).nonzero()[:, 0]
    tri = faces[owner.reshape(-1)[full]]
    p, z = screen[tri][..., :2].double(), screen[tri][..., 2].double()
    g_bary, g_depth = g_bary.reshape(-1, 3)[full].double(), g_depth.reshape(-1)[full].double()
    b = _weights(p, full, size)
    if perspective:
        w = b / z
        d = 1 / w.sum(1)
        beta = w * d[:, None]
        g_w = (g_bary - (g_bary * beta).sum(1, keepdim=True)) * d[:, None] - (g_depth * d**2)[:, None]
        g_b, g_z = g_w / z, -g_w * b / z**2
    else:
        g_b, g_z = g_bary + g_depth[:, None] * z, g_depth[:, None] * b
    opposite = p.roll(-2, 1) - p.roll(-1, 1)  # the edge across from each corner
    twice = opposite[:, 0, 0] * opposite[:, 1, 1] - opposite[:, 0, 1] * opposite[:, 1, 0]
    least = opposite.square().sum(2).amax(1) * THINNEST**2
    inverse = twice / torch.maximum(twice**2, least)
    slope = torch.stack([-opposite[..., 1], opposite[..., 0]], -1) * inverse[:, None, None]
    G = (g_b[..., None] * slope).sum(1, keepdim=True)
    g = torch.cat([-b[..., None] * G, g_z[..., None]], 2)
    out = torch.zeros(screen.shape, dtype=g.dtype, device=g.device)
    return out.index_add_(0, tri.reshape(-1), g.reshape(-1, 3)).to(screen.dtype)


def soft(
    xy: Tensor, faces: Tensor, starts: tuple[int, ...], size: Size, sigma: float, radius: float
) -> Tensor:
    """Transparency (B, H, W): the product over the triangles of ``1 - sigmoid(-d / sigma)``, d in pixels squared."""
    total = xy.new_zeros((len(starts) - 1) * size[0] * size[1])
    for tri, x, y, pixel in _windows(xy, faces, starts, size, radius):
        _, _, d, inside = _border(xy[faces[tri]], x, y)
        near = inside | (d < radius**2)
        d, inside = d[near], inside[near]
        total.index_add_(0, pixel[near], -torch.nn.functional.softplus(torch.where(inside, d, -d) / sigma))
    return total.exp_().view(-1, *size)


def soft_backward(
    xy: Tensor,
    faces: Tensor,
    starts: tuple[int, ...],
    size: Size,
    sigma: float,
    radius: float,
    clear: Tensor,
    g_clear: Tensor,
) -> Tensor:
    """Gradient (P, 2) of `soft`, which returned `clear`. Each fragment's part is at most ~ 0.3 / sqrt(sigma)."""
    weight = (clear * g_clear).reshape(-1) * (2 / sigma)
    out = torch.zeros_like(xy)
    for tri, x, y, pixel in _windows(xy, faces, starts, size, radius):
        w = weight[pixel]
        tall = (w != 0).any(2).any(1)
        tri, x, y, w = tri[tall], x[tall], y[tall], w[tall]
        places, distances, d, inside = _border(xy[faces[tri]], x, y)
        g = w * torch.sigmoid(torch.where(inside, d, -d) / sigma)
        g = torch.where(inside, -g, torch.where(d < radius**2, g, 0.0))
        p, taken = xy[faces[tri]], torch.zeros_like(inside)
        for i, (t, square) in enumerate(zip(places, distances, strict=True)):
            mine = (square == d) & ~taken  # at a corner two edges are equally near: it counts once
            taken |= mine
            h = torch.where(mine, g, 0.0)
            out.index_add_(0, faces[tri, i], _pull(h * (1 - t), t, p, i, x, y))
            out.index_add_(0, faces[tri, (i + 1) % 3], _pull(h * t, t, p, i, x, y))
    return out


def _windows(
    xy: Tensor, faces: Tensor, starts: tuple[int, ...], size: Size, margin: float
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Blocks of windows of one size that hold the triangles and `margin` pixels around them.

    Yields:
        Triangle (n,), pixel centres x (n, 1, w) and y (n, h, 1), index of the pixel over all images (n, h, w).
    """
    H, W = size
    on_cpu = xy.device.type == "cpu"
    block, steps = (2**17, 4) if on_cpu else (2**24, 1)
    limit = torch.tensor([W, H], device=xy.device)
    p = xy[faces]
    low = (p.amin(1) - margin - 0.5).ceil().clamp(limit * 0, limit).long()
    high = ((p.amax(1) + margin - 0.5).floor() + 1).clamp(limit * 0, limit).long()
    extent = high - low
    step = (extent.clamp_min(1).log2().floor().exp2() / steps).long().clamp_min(1)
    extent = torch.minimum((extent + step - 1) // step * step, limit)
    low = torch.minimum(low, limit - extent)
    image = torch.repeat_interleave(
        torch.arange(len(starts) - 1, device=xy.device), torch.tensor(starts, device=xy.device).diff()
    )
    visible = (high > low).all(1).nonzero()[:, 0]
    key = extent[visible, 1] * (W + 1) + extent[visible, 0]
    order = key.argsort(stable=True)
    kinds, counts = torch.unique_consecutive(key[order], return_counts=True)
    for group, kind in zip(visible[order].split(counts.tolist()), kinds.tolist(), strict=True):
        h, w = divmod(kind, W + 1)
        columns, rows = torch.arange(w, device=xy.device), torch.arange(h, device=xy.device)
        for tri in group.split(max(block // (h * w), 1)):
            x, y = low[tri, :1] + columns, low[tri, 1:] + rows
            pixel = ((image[tri, None] * H + y) * W)[:, :, None] + x[:, None, :]
            yield tri, x[:, None, :].to(xy.dtype) + 0.5, y[:, :, None].to(xy.dtype) + 0.5, pixel


def _weights(p: Tensor, pixel: Tensor, size: Size) -> Tensor:
    """Barycentric coordinates (n, 3) of pixel centres in the triangles p (n, 3, 2), linear on the screen."""
    H, W = size
    x, y = (pixel % W).to(p.dtype) + 0.5, (pixel // W % H).to(p.dtype) + 0.5
    e = torch.cat(_coverage(p, x[:, None, None], y[:, None, None])[0], 1)[..., 0]
    return e / e.sum(1, keepdim=True)


def _coverage(p: Tensor, x: Tensor, y: Tensor) -> tuple[list[Tensor], Tensor]:
    """Three edge functions (n, h, w) of the corners p (n, 3, 2), positive inside, and whether a pixel is covered.

    The two triangles of an edge compute the same number with opposite signs; on zero the top-left rule decides.
    """
    u, v = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    sign = (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sign()[:, None, None]
    rx, ry = ([c[:, None, None] - q for c in p[..., k].unbind(1)] for k, q in ((0, x), (1, y)))
    edges, covered = [], (sign != 0).expand(-1, y.shape[1], x.shape[2])
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        e = sign * (rx[j] * ry[k] - rx[k] * ry[j])
        dx, dy = (sign[:, 0, 0] * (p[:, k, c] - p[:, j, c]) for c in (0, 1))
        own = ((dy < 0) | ((dy == 0) & (dx > 0)))[:, None, None]
        covered = covered & ((e > 0) | ((e == 0) & own))
        edges.append(e)
    return edges, covered


def _depth(b: Tensor, z: Tensor, perspective: bool) -> Tensor:
    return 1 / (b / z).sum(1) if perspective else (b * z).sum(1)


def _corrected(b: Tensor, z: Tensor, perspective: bool) -> Tensor:
    return b / z / (b / z).sum(1, keepdim=True) if perspective else b


def _border(p: Tensor, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """For each edge of p (n, 3, 2) the place in [0, 1] of its point nearest to the pixel centres and their squared
    distance, (n, h, w) each; the least of these; whether the pixel is inside."""
    places, distances, crosses = [], [], []
    for i in range(3):
        a, edge = p[:, i], p[:, (i + 1) % 3] - p[:, i]
        ux, uy = edge[:, 0, None, None], edge[:, 1, None, None]
        px, py = x - a[:, 0, None, None], y - a[:, 1, None, None]
        length = ux * ux + uy * uy
        inverse = 1 / torch.where(length > 0, length, 1.0)
        t = (px * (ux * inverse) + py * (uy * inverse)).clamp_(0, 1)
        places.append(t)
        distances.append((px - t * ux).square_().add_((py - t * uy).square_()))
        crosses.append(ux * py - uy * px)
    d = torch.minimum(torch.minimum(distances[0], distances[1]), distances[2])
    least = torch.minimum(torch.minimum(crosses[0], crosses[1]), crosses[2])
    most = torch.maximum(torch.maximum(crosses[0], crosses[1]), crosses[2])
    return places, distances, d, (least > 0) | (most < 0)


def _pull(h: Tensor, t: Tensor, p: Tensor, i: int, x: Tensor, y: Tensor) -> Tensor:
    """(n, 2) sum over the pixels of h times the vector from the pixel to the place t on edge i."""
    a, edge = p[:, i], p[:, (i + 1) % 3] - p[:, i]
    total, along = h.sum((1, 2)), (h * t).sum((1, 2))
    seen = torch.stack([(h.sum(1) * x[:, 0]).sum(1), (h.sum(2) * y[..., 0]).sum(1)], 1)
    return total[:, None] * a + along[:, None] * edge - seen
