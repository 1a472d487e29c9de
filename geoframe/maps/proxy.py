"""A small surface that stands for a large one, and the way back.

The surface is cut into cells around samples that are evenly spread along it; the samples are the vertices of the
proxy, and where three cells meet there is a triangle between them. Eigenfunctions of the proxy are carried back by
smooth bumps around the samples and improved on the large surface.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from geoframe._types import Ints
from geoframe.canonical.surface import Surface
from geoframe.spectral.approximate import bumps, geodesic_cells, improved_pairs
from geoframe.spectral.basis import Eigenbasis

LARGE = 12_000  # vertices up to which a surface stands for itself
SIZE = 8_000  # vertices of the proxy of a larger one; a few less where cells meet no others


@dataclass(frozen=True, eq=False)
class Proxy:
    """A surface and a smaller one that stands for it.

    Attributes:
        whole: the surface, V vertices.
        surface: the proxy, n vertices.
        vertex: (n,) int64, the vertex of `whole` that each vertex of the proxy is.
        cell: (V,) int64, the vertex of the proxy nearest along the surface.
        weights: (V, n) sparse, rows of sum 1: functions on the proxy to smooth ones on `whole`.
    """

    whole: Surface
    surface: Surface
    vertex: Tensor
    cell: Tensor
    weights: sp.csr_array

    @property
    def is_whole(self) -> bool:
        """Whether the surface stands for itself."""
        return self.surface is self.whole

    def basis(self, basis: Eigenbasis) -> Eigenbasis:
        """An eigenbasis of the proxy as one of the whole surface, improved there by Rayleigh and Ritz."""
        if self.is_whole:
            return basis
        W, M = self.whole.laplacian
        Z = self.weights @ basis.vecs.double().cpu().numpy()
        vals, vecs = improved_pairs(Z, basis.vals.double().cpu().numpy(), W, M)
        return Eigenbasis(*(torch.as_tensor(x).to(basis.vecs) for x in (vals, vecs, M)))


def proxy(surface: Surface) -> Proxy:
    """The surface itself, or one of about `SIZE` vertices where it has more than `LARGE`; found once for a surface.

    Args:
        surface: connected, every vertex in a face.
    """
    if surface.n_verts <= LARGE:
        same = torch.arange(surface.n_verts, device=surface.device)
        return Proxy(surface, surface, same, same, sp.eye_array(surface.n_verts, format="csr"))
    small, vertex, cell, weights = surface.once("proxy", lambda: _find(surface))
    return Proxy(surface, small, vertex, cell, weights)


def _find(surface: Surface) -> tuple[Surface, Tensor, Tensor, sp.csr_array]:
    """What a `Proxy` has beside the surface that it stands for."""
    W, M = surface.laplacian
    verts = surface.verts.detach().double().cpu().numpy()
    cell, sample = geodesic_cells(W, M, verts, SIZE)
    faces = _meetings(cell[surface.faces.cpu().numpy()])
    used = np.unique(faces)
    number = np.full(len(sample), -1)
    number[used] = np.arange(len(used))
    lost = np.flatnonzero((number < 0)[cell])  # in cells that meet no two others, as at the end of a spike
    cell[lost] = used[cKDTree(verts[sample[used]]).query(verts[lost])[1]]
    sample, faces, cell = sample[used], number[faces], number[cell]
    weights = bumps(W, M, verts, cell, sample)
    small = Surface(surface.verts[torch.as_tensor(sample)], torch.as_tensor(faces).to(surface.device))
    vertex, of = (torch.as_tensor(x).to(surface.device) for x in (sample, cell))
    return small, vertex, of, weights


def _meetings(cells: Ints) -> Ints:
    """(F', 3) the triples of different cells (F, 3) that meet at a triangle, each once, turned as it is."""
    a, b, c = cells.T
    three = cells[(a != b) & (b != c) & (c != a)]
    _, first = np.unique(np.sort(three, axis=1), axis=0, return_index=True)
    return three[np.sort(first)]
