"""Between functional maps and vertex maps.

`C_12` (K2, K1) carries functions from surface 1 to surface 2; `p2p_21` (V2,) carries vertices from 2 to 1. They
are two sides of one map: ``f2 = f1[p2p_21]`` and, in coefficients, ``c2 = C_12 @ c1``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_float, check_index, check_shape
from geoframe.spectral.basis import Eigenbasis


def p2p_to_fmap(p2p_21: Tensor, basis1: Eigenbasis, basis2: Eigenbasis) -> Tensor:
    """Functional map of a vertex map, ``C_12 = U2^T M2 U1[p2p_21]``.

    Args:
        p2p_21: (V2,) int64, for every vertex of surface 2 a vertex of surface 1.
        basis1: K1 functions on surface 1. basis2: K2 functions on surface 2; truncate them for a smaller map.

    Returns:
        C_12: (K2, K1) in the dtype of the bases, summed in float64.

    Raises:
        ValueError: wrong shape or an index outside surface 1.
    """
    check_vertex_map(p2p_21, basis1, basis2)
    pulled = basis1.vecs.double()[p2p_21.long()]
    C_12 = basis2.vecs.double().T @ (basis2.mass.double()[:, None] * pulled)
    return C_12.to(basis2.vecs.dtype)


def fmap_to_p2p(
    C_12: Tensor, basis1: Eigenbasis, basis2: Eigenbasis, *, adjoint: bool = False, block: int = 1 << 24
) -> Tensor:
    """Vertex map of a functional map, by exact nearest neighbours of spectral embeddings.

    Vertex j of surface 2 goes to the vertex i of surface 1 that minimises ``|C_12 u1_i - u2_j|``, where `u_i` is
    the row of vertex i in the eigenvectors: the delta at i, carried to 2, against the delta at j. With
    `adjoint` the delta at j is carried to 1 instead, ``|u1_i - C_12^T u2_j|``. The two agree for an orthogonal
    square `C_12`.

    Args:
        C_12: (K2, K1); the first K1 and K2 functions of the bases are used.
        block: at most so many distances are held at once.

    Returns:
        p2p_21: (V2,) int64; of equal distances the lowest index wins.

    Raises:
        ValueError: wrong shape or a basis with too few functions.

    Source: Ovsjanikov et al. 2012, section 6.1.
    """
    check_fmap(C_12, basis1, basis2)
    points, query = embeddings(C_12.double(), basis1.vecs.double(), basis2.vecs.double(), adjoint=adjoint)
    return _nearest(query, points, block)


def embeddings(C_12: Tensor, U1: Tensor, U2: Tensor, *, adjoint: bool = False) -> tuple[Tensor, Tensor]:
    """Rows to compare: (V1, K) of surface 1 and (V2, K) of surface 2, K = K2, or K1 with `adjoint`."""
    K2, K1 = C_12.shape
    if adjoint:
        return U1[:, :K1], U2[:, :K2] @ C_12
    return U1[:, :K1] @ C_12.T, U2[:, :K2]


def _nearest(query: Tensor, points: Tensor, block: int) -> Tensor:
    half = (points**2).sum(1) / 2
    rows = max(1, block // len(points))
    return torch.cat([(q @ points.T - half).argmax(1) for q in query.split(rows)])


def check_vertex_map(p2p_21: Tensor, basis1: Eigenbasis, basis2: Eigenbasis) -> None:
    """Require `p2p_21` (V2,) with vertices of surface 1."""
    check_index(p2p_21, basis1.n_verts, "p2p_21", what="vertices of surface 1")
    if p2p_21.shape != (basis2.n_verts,):
        raise ValueError(
            f"p2p_21: expected shape ({basis2.n_verts},), one entry a vertex of surface 2, "
            f"found {tuple(p2p_21.shape)}; a map 1 -> 2 is passed with the bases exchanged"
        )


def check_fmap(C_12: Tensor, basis1: Eigenbasis, basis2: Eigenbasis) -> None:
    """Require `C_12` (K2, K1) that the two bases can carry."""
    sizes = check_shape(check_float(C_12, "C_12"), "K2 K1", "C_12")
    for side, k, basis in (("1", sizes["K1"], basis1), ("2", sizes["K2"], basis2)):
        if k > basis.k:
            raise ValueError(
                f"C_12: expected at most {basis.k} {'columns' if side == '1' else 'rows'} (functions of basis{side}), "
                f"found shape {tuple(C_12.shape)}; compute basis{side} with k={k} or more"
            )
