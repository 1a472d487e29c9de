"""A map between proxies carried to all vertices of the surfaces that they stand for."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from geoframe._types import Floats, Ints
from geoframe.maps.proxy import Proxy
from geoframe.maps.shells import INTRINSIC, PLACE, Fields, shell_fields
from geoframe.spectral.basis import Eigenbasis
from geoframe.surface.mesh import Mesh

SIZE = 100  # functions of the displacement, by default: that of the last steps of `shell_refine`
NORMALS = 0.2  # weight of normals, likewise
RINGS = 2  # of cells around the one that the proxies' map goes to, in which a vertex may land


def last_rows(
    one: Proxy,
    two: Proxy,
    p2p_21: Tensor,
    p2p_12: Tensor,
    basis1: Eigenbasis,
    basis2: Eigenbasis,
    *,
    intrinsic: int = INTRINSIC,
    size: int = SIZE,
) -> tuple[Floats, Floats]:
    """What the last step of `shell_refine` compares, on all vertices, from a pair of maps between proxies.

    It is smooth but for positions and normals: computed on the proxies and interpolated, so that time and memory are
    those of its rows alone.

    Args:
        one: proxy of surface 1; a surface may stand for itself.
        two: proxy of surface 2.
        p2p_21: (n2,) map from the second proxy to the first.
        p2p_12: (n1,) the map the other way.
        basis1: eigenbasis of the first proxy.
        basis2: eigenbasis of the second proxy.
        intrinsic: number of eigenfunctions in the intrinsic coordinates.
        size: number of functions of the displacement.

    Returns:
        (V1, D) and (V2, D) float32: a vertex goes to the vertex of the other surface whose row is nearest to its own.
    """
    fields = shell_fields(
        one.surface, two.surface, p2p_21, p2p_12, basis1, basis2, size=size, intrinsic=intrinsic
    )
    sides = [_Side(p, f) for p, f in zip((one, two), fields, strict=True)]
    first, second = sides[0].rows(sides[1], p2p_12), sides[1].rows(sides[0], p2p_21)
    rows1 = np.concatenate([sides[0].X, sides[0].Y, first[0], first[1]], 1)
    rows2 = np.concatenate([sides[1].Y, sides[1].X, second[1], second[0]], 1)
    return rows1, rows2


def carried(
    one: Proxy, two: Proxy, p2p_21: Tensor, p2p_12: Tensor, rows1: Floats, rows2: Floats
) -> tuple[Tensor, Tensor]:
    """The last step of `shell_refine` on all vertices, looking for the nearest rows in the cells around.

    Args:
        one: proxy of surface 1.
        two: proxy of surface 2.
        p2p_21: (n2,) map from the second proxy to the first.
        p2p_12: (n1,) the map the other way.
        rows1: (V1, D) of surface 1, as of `last_rows`.
        rows2: (V2, D) of surface 2.

    Returns:
        p2p_21 (V2,) and p2p_12 (V1,).
    """
    device = p2p_21.device
    found_21 = _nearest_around(rows2, two, rows1, one, p2p_21.cpu().numpy())
    found_12 = _nearest_around(rows1, one, rows2, two, p2p_12.cpu().numpy())
    return torch.as_tensor(found_21, device=device), torch.as_tensor(found_12, device=device)


class _Side:
    """Fields of a surface on all its vertices, in float32."""

    def __init__(self, proxy: Proxy, fields: Fields) -> None:
        self.proxy, self.fields = proxy, fields
        self.X, self.Y = ((proxy.weights @ f.cpu().numpy()).astype(np.float32) for f in (fields.X, fields.Y))
        verts = proxy.whole.verts.detach().cpu().double()
        self.x = verts / fields.size.cpu() - fields.middle.cpu()
        self.faces = proxy.whole.faces.cpu()
        self.normals = Mesh(self.x, self.faces).vertex_normals

    def rows(self, other: _Side, to: Tensor) -> tuple[Floats, Floats]:
        """Weighted positions and normals (V, 6), as they are and bent onto the other side; `to` maps the proxies."""
        f, proxy = self.fields, self.proxy
        move = torch.as_tensor(proxy.weights @ f.move.cpu().numpy())
        bent = self.x @ f.R.cpu().T + move
        normals = Mesh(bent, self.faces).vertex_normals
        there = other.normals[other.proxy.vertex.cpu()][to.cpu()]
        if float((normals[proxy.vertex.cpu()] * there).sum()) < 0:  # one of the two is inside out
            normals = -normals
        own, moved = (
            torch.cat([PLACE * x, NORMALS * n], 1) for x, n in ((self.x, self.normals), (bent, normals))
        )
        return own.float().numpy(), moved.float().numpy()


def _nearest_around(query: Floats, of: Proxy, points: Floats, onto: Proxy, p2p: Ints) -> Ints:
    """(Vq,) of each row of the query the nearest of the points in the cells around the one its own cell goes to."""
    n, V = onto.surface.n_verts, onto.whole.n_verts
    cell = onto.cell.cpu().numpy()
    members = sp.csr_array((np.ones(V, np.int8), (cell, np.arange(V))), shape=(n, V))
    near = members
    i, j = onto.surface.faces.cpu().numpy().ravel(), onto.surface.faces.cpu().numpy()[:, [1, 2, 0]].ravel()
    ring = sp.csr_array((np.ones(2 * len(i), np.int8), (np.r_[i, j], np.r_[j, i])), shape=(n, n))
    ring = ring + sp.eye_array(n, dtype=np.int8, format="csr")
    for _ in range(RINGS):
        ring.data[:] = 1
        near = ring @ near
        near.data[:] = 1
    mine = of.cell.cpu().numpy()
    order = np.argsort(mine, kind="stable")
    ends = np.searchsorted(mine[order], np.arange(of.surface.n_verts + 1))
    square = np.einsum("nd,nd->n", points, points)
    out = np.empty(len(query), np.int64)
    for c in range(of.surface.n_verts):
        rows = order[ends[c] : ends[c + 1]]
        there = near.indices[near.indptr[p2p[c]] : near.indptr[p2p[c] + 1]]
        score = square[there] - 2 * (query[rows] @ points[there].T)
        out[rows] = there[score.argmin(1)]
    return out
