"""The reference backend in plain torch: any device, float32 and float64.

Each face is expanded over its bounding box, fragments are reduced by segment; a few of them are in flight at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from geoframe.render._scene import Size

_FRAGMENTS = 2**20
THINNEST = 0.25  # pixels: no gradient is steeper than one unit over this height of a triangle


def hard(
    screen: Tensor, faces: Tensor, starts: tuple[int, ...], size: Size, perspective: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest triangle (B, H, W) or -1, its barycentric coordinates (B, H, W, 3), depth (B, H, W); 0 where empty."""
    H, W = size
    B = len(starts) - 1
    exact = screen.double()
    depth = exact.new_full((B * H * W,), torch.inf)
    owner = torch.full((B * H * W,), -1, dtype=torch.int64, device=screen.device)
    for tri, pixel, q in _fragments(exact[:, :2], faces, starts, size, 0.0):
        corners = exact[faces[tri]]
        e, covered = _coverage(corners[..., :2], q)
        tri, pixel, e, z = tri[covered], pixel[covered], e[covered], corners[covered][..., 2]
        z = _depth(e / e.sum(1, keepdim=True), z, perspective)
        nearer = z < depth[pixel]
        tri, pixel, z = tri[nearer], pixel[nearer], z[nearer]
        depth.scatter_reduce_(0, pixel, z, "amin")
        first = z == depth[pixel]
        owner[pixel[first]] = len(faces)
        owner.scatter_reduce_(0, pixel[first], tri[first], "amin")
    full = (owner >= 0).nonzero()[:, 0]
    bary, depth = screen.new_zeros(B * H * W, 3), screen.new_zeros(B * H * W)
    corners, q = exact[faces[owner[full]]], _centres(full, size, exact.dtype)
    e, _ = _coverage(corners[..., :2], q)
    b = e / e.sum(1, keepdim=True)
    depth[full] = _depth(b, corners[..., 2], perspective).to(screen.dtype)
    bary[full] = _corrected(b, corners[..., 2], perspective).to(screen.dtype)
    return owner.view(B, H, W), bary.view(B, H, W, 3), depth.view(B, H, W)


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
    e, _ = _coverage(p, _centres(full, size, p.dtype))
    b = e / e.sum(1, keepdim=True)
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
    for tri, pixel, q in _fragments(xy, faces, starts, size, radius):
        d, _, _, _ = _signed_distance(xy[faces[tri]], q)
        near = d < radius**2
        total.index_add_(0, pixel[near], -torch.nn.functional.softplus(d[near] / -sigma))
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
    weight = (clear * g_clear).reshape(-1) / sigma
    out = torch.zeros_like(xy)
    for tri, pixel, q in _fragments(xy, faces, starts, size, radius):
        keep = weight[pixel] != 0
        tri, pixel, q = tri[keep], pixel[keep], q[keep]
        d, side, offset, t = _signed_distance(xy[faces[tri]], q)
        keep = d < radius**2
        tri, d, side, t = tri[keep], d[keep], side[keep], t[keep]
        g = weight[pixel[keep]] * torch.sigmoid(d / -sigma) * 2 * d.sign()
        g = g[:, None] * offset[keep]
        ends = faces[tri]
        out.index_add_(0, ends.gather(1, side[:, None])[:, 0], g * (1 - t)[:, None])
        out.index_add_(0, ends.gather(1, (side[:, None] + 1) % 3)[:, 0], g * t[:, None])
    return out


def _fragments(
    xy: Tensor, faces: Tensor, starts: tuple[int, ...], size: Size, margin: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Triangle, pixel (over all images) and pixel centre of every pixel in a triangle's bounding box, in pieces."""
    H, W = size
    limit = torch.tensor([W, H], device=xy.device)
    p = xy[faces]
    low = (p.amin(1) - margin - 0.5).ceil().clamp(torch.zeros_like(limit), limit).long()
    high = ((p.amax(1) + margin - 0.5).floor() + 1).clamp(torch.zeros_like(limit), limit).long()
    extent = (high - low).clamp_min_(0)
    counts = extent.prod(1)
    total = counts.cumsum(0)
    image = torch.repeat_interleave(
        torch.arange(len(starts) - 1, device=xy.device), torch.tensor(starts, device=xy.device).diff()
    )
    first = 0
    piece = (total - counts) // _FRAGMENTS
    for n in torch.unique_consecutive(piece, return_counts=True)[1].tolist():
        part = slice(first, first + n)
        tri = torch.repeat_interleave(torch.arange(first, first + n, device=xy.device), counts[part])
        begin = total[part] - counts[part]
        k = torch.arange(len(tri), device=xy.device) + begin[0] - (total - counts)[tri]
        row = k // extent[tri, 0]
        column = low[tri, 0] + k - row * extent[tri, 0]
        row = row + low[tri, 1]
        yield tri, (image[tri] * H + row) * W + column, torch.stack([column, row], 1).to(xy.dtype) + 0.5
        first += n


def _centres(pixel: Tensor, size: Size, dtype: torch.dtype) -> Tensor:
    H, W = size
    return torch.stack([pixel % W, pixel // W % H], 1).to(dtype) + 0.5


def _coverage(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Edge functions (n, 3) of the corners p (n, 3, 2) at q, positive inside, and whether q is covered.

    The two triangles of an edge compute the same number with opposite signs; on zero the top-left rule decides.
    """
    r = p - q[:, None]
    b, c = r.roll(-1, 1), r.roll(-2, 1)
    e = b[..., 0] * c[..., 1] - c[..., 0] * b[..., 1]
    edge = c - b
    u, v = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    sign = (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sign()[:, None]
    dx, dy = sign * edge[..., 0], sign * edge[..., 1]
    e = sign * e
    return e, ((e > 0) | ((e == 0) & ((dy < 0) | ((dy == 0) & (dx > 0))))).all(1)


def _depth(b: Tensor, z: Tensor, perspective: bool) -> Tensor:
    return 1 / (b / z).sum(1) if perspective else (b * z).sum(1)


def _corrected(b: Tensor, z: Tensor, perspective: bool) -> Tensor:
    return b / z / (b / z).sum(1, keepdim=True) if perspective else b


def _signed_distance(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squared distance from q (n, 2) to the border of p (n, 3, 2), negative inside; the nearest edge (n,), the
    vector (n, 2) from q to its nearest point and that point's place on it in [0, 1]."""
    edge = p.roll(-1, 1) - p
    r = q[:, None] - p
    length = edge.square().sum(2)
    t = (r * edge).sum(2) / torch.where(length > 0, length, 1.0)
    t = t.clamp(0, 1)
    offset = t[..., None] * edge - r
    d, side = offset.square().sum(2).min(1)
    cross = edge[..., 0] * r[..., 1] - edge[..., 1] * r[..., 0]
    inside = (cross > 0).all(1) | (cross < 0).all(1)
    rows = torch.arange(len(d), device=d.device)
    return torch.where(inside, -d, d), side, offset[rows, side], t[rows, side]
