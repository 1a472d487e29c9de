"""Between functional maps and vertex maps.

`C_12` (K2, K1) carries functions from surface 1 to surface 2; `p2p_21` (V2,) carries vertices from 2 to 1. They
are two sides of one map: ``f2 = f1[p2p_21]`` and, in coefficients, ``c2 = C_12 @ c1``.
"""

from __future__ import annotations

from torch import Tensor

from geoframe._check import as_floats, as_tensor, check_index, check_shape
from geoframe.nearest.dense import lowest_score
from geoframe.spectral.basis import Eigenbasis

BLOCK = 2**23  # scores held at a time, 4 bytes each


def p2p_to_fmap(p2p_21: Tensor, basis1: Eigenbasis, basis2: Eigenbasis) -> Tensor:
    """Functional map of a vertex map, ``C_12 = U2^T M2 U1[p2p_21]``.

    Args:
        p2p_21: (V2,) integers, for every vertex of surface 2 a vertex of surface 1.
        basis1: K1 functions on surface 1.
        basis2: K2 functions on surface 2; truncate them for a smaller map.

    Returns:
        C_12: (K2, K1) in the dtype of `basis2`, summed in float64.

    Raises:
        TypeError, ValueError: not integers, wrong shape, an index outside surface 1.
    """
    p2p_21 = check_vertex_map(p2p_21, basis1, basis2)
    pulled = basis1.vecs.double()[p2p_21.long()]
    C_12 = basis2.vecs.double().T @ (basis2.mass.double()[:, None] * pulled)
    return C_12.to(basis2.vecs.dtype)


def fmap_to_p2p(
    C_12: Tensor, basis1: Eigenbasis, basis2: Eigenbasis, *, adjoint: bool = False, block: int = BLOCK
) -> Tensor:
    """Vertex map of a functional map, by exact nearest neighbours of spectral embeddings.

    Vertex j of surface 2 goes to the vertex i of surface 1 that minimises ``|C_12 u1_i - u2_j|``, where `u_i`
    is the row of vertex i in the eigenvectors: the delta at i, carried to 2, against the delta at j. With
    `adjoint` the delta at j is carried to 1 instead, ``|u1_i - C_12^T u2_j|``. The two agree where `C_12` is
    square and orthogonal. Both surfaces are taken at unit area, so that units do not matter.

    Args:
        C_12: (K2, K1).
        basis1: at least K1 functions on surface 1; the first K1 are used.
        basis2: at least K2 functions on surface 2; the first K2 are used.
        adjoint: carry the deltas of surface 2 to surface 1 instead of the other way round.
        block: number of scores held at a time (4 bytes each).

    Returns:
        p2p_21: (V2,) int64; of equal distances the lowest index.

    Raises:
        TypeError, ValueError: not floating, not a matrix, NaN, a basis with too few functions.

    Source: Ovsjanikov et al. 2012, section 6.1.
    """
    C_12 = check_fmap(C_12, basis1, basis2)
    K2, K1 = C_12.shape
    (C, U1, U2) = at_unit_area(C_12, basis1, basis2)
    if adjoint:
        return lowest_score(U2[:, :K2] @ C, U1[:, :K1], block=block)
    return lowest_score(U2[:, :K2], U1[:, :K1] @ C.T, block=block)


def at_unit_area(C_12: Tensor, basis1: Eigenbasis, basis2: Eigenbasis) -> tuple[Tensor, Tensor, Tensor]:
    """A functional map and both eigenbases, scaled to surfaces of area 1.

    Args:
        C_12: (K2, K1).
        basis1: of surface 1.
        basis2: of surface 2.

    Returns:
        The scaled `C_12` and the scaled eigenvectors of both surfaces, in float64.
    """
    A1, A2 = basis1.mass.double().sum(), basis2.mass.double().sum()
    return (
        C_12.double() * (A1 / A2).sqrt(),
        basis1.vecs.double() * A1.sqrt(),
        basis2.vecs.double() * A2.sqrt(),
    )


def check_vertex_map(p2p_21: Tensor, basis1: Eigenbasis, basis2: Eigenbasis, name: str = "p2p_21") -> Tensor:
    """Require a vertex map that fits two bases.

    Args:
        p2p_21: (V2,) integers, vertices of surface 1.
        basis1: of surface 1.
        basis2: of surface 2.
        name: of the argument, for the message.

    Returns:
        The map as a tensor.

    Raises:
        TypeError, ValueError: not integers, wrong shape, an index outside surface 1.
    """
    p2p_21 = as_tensor(p2p_21, name, like=basis1.vecs)
    check_index(p2p_21, basis1.n_verts, name, what="vertices of surface 1")
    if p2p_21.shape != (basis2.n_verts,):
        raise ValueError(
            f"{name}: expected shape ({basis2.n_verts},), for each vertex of surface 2 one of surface 1, "
            f"found {tuple(p2p_21.shape)}"
        )
    return p2p_21


def check_fmap(C_12: Tensor, basis1: Eigenbasis, basis2: Eigenbasis, name: str = "C_12") -> Tensor:
    """Require a functional map that fits two bases.

    Args:
        C_12: (K2, K1) floating.
        basis1: K1 functions or more.
        basis2: K2 functions or more.
        name: of the argument, for the message.

    Returns:
        The map as a tensor.

    Raises:
        TypeError, ValueError: not floating, not a matrix, a basis with too few functions.
    """
    C_12 = as_floats(C_12, name).to(basis2.vecs.device)
    sizes = check_shape(C_12, "K2 K1", name)
    for side, k, basis in (("1", sizes["K1"], basis1), ("2", sizes["K2"], basis2)):
        if k > basis.k:
            raise ValueError(
                f"{name}: expected at most {basis.k} {'columns' if side == '1' else 'rows'}, as functions in "
                f"basis{side}, found shape {tuple(C_12.shape)}; compute basis{side} with k={k}"
            )
    return C_12
