"""Reversible refinement: make a pair of vertex maps smooth and inverse to each other."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoframe._check import check_finite, check_float, check_index, check_shape
from geoframe.linalg import SpdFactor
from geoframe.nearest.dense import lowest_score
from geoframe.spectral.basis import Eigenbasis

Floats = NDArray[np.float64]


def reversible_refine(
    p2p_21: Tensor,
    p2p_12: Tensor,
    basis1: Eigenbasis,
    basis2: Eigenbasis,
    W1: sp.csr_matrix,
    W2: sp.csr_matrix,
    *,
    smoothness: tuple[float, ...] = (1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4),
    functions: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Alternate between smooth pulled-back coordinates and nearest vertices, both ways at once.

    Let X be the eigenvectors over the square roots of their eigenvalues at unit area (lengths of commute
    times). A step with weight t finds Y_21 (V2, d), the coordinates that surface 2 takes from surface 1, as

        min |Y - X1[p2p_21]|^2_M2 + |Y[p2p_12] - X1|^2_M1 + t tr(Y^T W2 Y),

    likewise Y_12, and then moves each vertex to the nearest row of the stacked pairs (X1, Y_12), (Y_21, X2).
    The second term holds the extremities where smoothing alone would shrink them; without it the map
    collapses to the middle. More functions than landmarks can tell are smoothed and not fitted, so species that
    are far from isometric do not overfit.

    Args:
        p2p_21: (V2,), p2p_12: (V1,) vertex maps. W1, W2: positive semi-definite Laplacians (weak form).
        smoothness: weight t of every step, at unit area (t has the unit of an area).
        functions: (V1, p) and (V2, p) corresponding functions without a unit, such as `landmark_coordinates`;
            they are appended to X1 and X2 as they are.

    Returns:
        The refined (p2p_21, p2p_12). A step costs one sparse factorisation and one exact nearest-neighbour
        search a direction: O(V1 V2 d) time, O(block) memory.

    Raises:
        TypeError, ValueError: maps, Laplacians or functions that do not fit the bases, NaN.

    Source: the energy of Ezuz, Solomon & Ben-Chen 2019, Reversible Harmonic Maps, with a spectral embedding for
    theirs of geodesic distances, and weights that decrease.
    """
    n1, n2 = basis1.n_verts, basis2.n_verts
    for p2p, n, onto, name in ((p2p_21, n2, n1, "p2p_21"), (p2p_12, n1, n2, "p2p_12")):
        check_index(p2p, onto, name, what="vertices of the surface it goes to")
        check_shape(p2p, str(n), name)
    for W, n, name in ((W1, n1, "W1"), (W2, n2, "W2")):
        if getattr(W, "shape", None) != (n, n):
            raise ValueError(
                f"{name}: expected a sparse matrix ({n}, {n}) like its basis, found {getattr(W, 'shape', W)}"
            )
    f1, f2 = check_functions(functions, n1, n2)
    X1, m1 = commute_embedding(basis1)
    X2, m2 = commute_embedding(basis2)
    X1, X2 = np.hstack([X1, f1]), np.hstack([X2, f2])
    to2, to1 = p2p_21.cpu().numpy(), p2p_12.cpu().numpy()
    for t in smoothness:
        Y_21 = pull_smoothly(W2, m2, m1, X1, to2, to1, t)
        Y_12 = pull_smoothly(W1, m1, m2, X2, to1, to2, t)
        rows1 = torch.as_tensor(np.hstack([X1, Y_12]), device=p2p_21.device)
        rows2 = torch.as_tensor(np.hstack([Y_21, X2]), device=p2p_21.device)
        p2p_21, p2p_12 = lowest_score(rows2, rows1), lowest_score(rows1, rows2)
        to2, to1 = p2p_21.cpu().numpy(), p2p_12.cpu().numpy()
    return p2p_21, p2p_12


def check_functions(functions: tuple[Tensor, Tensor] | None, n1: int, n2: int) -> tuple[Floats, Floats]:
    """Corresponding functions (n1, p) and (n2, p) as float64, without any where there are none.

    Raises:
        TypeError, ValueError: not two floating tensors of these shapes, NaN.
    """
    if functions is None:
        return np.zeros((n1, 0)), np.zeros((n2, 0))
    if isinstance(functions, Tensor) or len(functions) != 2:
        raise TypeError("functions: expected two tensors, (V1, p) and (V2, p), found something else")
    found = []
    for f, n, which in zip(functions, (n1, n2), "12", strict=True):
        name = f"functions of surface {which}"
        check_shape(check_float(f, name), f"{n} p", name)
        check_finite(f, name)
        found.append(f.detach().double().cpu().numpy())
    if found[0].shape[1] != found[1].shape[1]:
        raise ValueError(
            f"functions: expected as many of surface 2 as of surface 1 ({found[0].shape[1]}), "
            f"found {found[1].shape[1]}"
        )
    return found[0], found[1]


def commute_embedding(basis: Eigenbasis) -> tuple[Floats, Floats]:
    """Coordinates (V, K') without the constant functions, and areas (V,), both at unit area."""
    mass = basis.mass.detach().double().cpu().numpy()
    area = mass.sum()
    vals = basis.vals.detach().double().cpu().numpy() * area
    moving = vals > 1e-6 * max(vals[-1], 1e-300)
    vecs = basis.vecs.detach().double().cpu().numpy()[:, moving] * np.sqrt(area)
    return vecs / np.sqrt(vals[moving]), mass / area


def pull_smoothly(
    W: sp.csr_matrix, mass: Floats, other_mass: Floats, X: Floats, p2p: NDArray, back: NDArray, t: float
) -> Floats:
    """Y (V, d): smooth coordinates on this surface, near X[p2p] and with Y[back] near X."""
    back_matrix = sp.csr_matrix((other_mass, (back, np.arange(len(back)))), shape=(len(mass), len(back)))
    diagonal = mass + np.asarray(back_matrix.sum(1)).ravel()
    diagonal = np.maximum(diagonal, 1e-12 * diagonal.mean())  # vertices without area
    return SpdFactor(sp.diags(diagonal) + t * W).solve(mass[:, None] * X[p2p] + back_matrix @ X)
