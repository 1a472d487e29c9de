"""Small algebra: a norm with a gradient at zero; sparse symmetric systems, factored once and solved often."""

from __future__ import annotations

import atexit
import weakref
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from geoframe._types import Floats


def safe_norm(x: Tensor, floor: float = 0.0) -> Tensor:
    """Length of vectors; where it is zero so is its gradient, where `torch.norm` may have NaN.

    Args:
        x: (..., D).
        floor: a length added in quadrature, ``sqrt(|x|^2 + floor^2)``, so that quotients of lengths stay finite.

    Returns:
        (...) lengths, at least `floor`.
    """
    square = x.square().sum(-1)
    if floor:
        return (square + floor**2).sqrt()
    zero = square == 0
    return torch.where(zero, 0.0, torch.where(zero, torch.ones_like(square), square).sqrt())


_FACTORS: weakref.WeakSet[SpdFactor] = weakref.WeakSet()


@atexit.register
def _give_back() -> None:
    """Factors that caches still hold at the end of a process: the library behind them would complain of each."""
    for factor in list(_FACTORS):
        factor._factor = None


class SpdFactor:
    """Cholesky factor of a sparse symmetric positive definite matrix A (V, V).

    ``SpdFactor(A).solve(b)`` is A^-1 b; one factor serves any number of right-hand sides.

    Raises:
        ValueError: A is not square, not symmetric, not finite or not positive definite.
    """

    def __init__(self, A: sp.spmatrix | sp.sparray) -> None:
        from cholespy import CholeskySolverD, MatrixType

        A = sp.csr_array(A, dtype=np.float64)
        n = A.shape[0]
        if A.shape != (n, n) or n == 0:
            raise ValueError(f"A: expected a square matrix with at least one row, found shape {A.shape}")
        if not np.isfinite(A.data).all():
            raise ValueError("A: expected finite numbers, found NaN or infinite entries")
        lopsided = abs(A - A.T)
        if lopsided.nnz and lopsided.max() > 1e-10 * abs(A.data).max():
            raise ValueError(f"A: expected a symmetric matrix, found |A - A^T| up to {lopsided.max():.3g}")
        try:
            self._factor: Any = CholeskySolverD(
                n, A.indptr.astype(np.int32), A.indices.astype(np.int32), A.data, MatrixType.CSR
            )
        except ValueError as err:
            raise ValueError(
                "A: expected a positive definite matrix, but its Cholesky factorisation met a pivot that is not "
                "positive; a Laplacian has constants in its kernel: add a multiple of the mass"
            ) from err
        _FACTORS.add(self)
        self.shape = (n, n)

    def solve(self, b: Floats) -> Floats:
        """A^-1 b for b (V,) or (V, m); several columns at once are cheaper than one by one."""
        if b.ndim not in (1, 2) or len(b) != self.shape[0]:
            raise ValueError(f"b: expected shape ({self.shape[0]},) or ({self.shape[0]}, m), found {b.shape}")
        b = np.ascontiguousarray(b, dtype=np.float64)
        x = np.zeros_like(b)
        if b.size:
            self._factor.solve(b, x)
        return x


def count_below(W: sp.spmatrix | sp.sparray, mass: Floats, sigma: float, *, clearance: float) -> int | None:
    """Number of eigenvalues of ``W u = lambda M u`` below `sigma`, without computing any of them.

    By Sylvester's law of inertia it is the number of negative pivots of a symmetric factorisation of
    ``W - sigma M``. That is the exact count of a nearby matrix, so the count is trusted only when the
    factorisation is accurate to `clearance`, the distance from `sigma` to the nearest eigenvalue: a
    random solve, which is dominated by the eigenvectors closest to sigma, measures it.

    Args:
        W: (V, V) symmetric.
        mass: (V,) positive.
        sigma: in the unit of the eigenvalues.
        clearance: likewise.

    Returns:
        The count, or None where the factorisation cannot be trusted (choose another sigma).
    """
    from scipy.sparse.linalg import splu

    scale = 1 / np.sqrt(
        W.diagonal() + abs(sigma) * mass
    )  # a congruence: it keeps the signs and tames slivers
    D = sp.diags_array(scale)
    S = sp.csc_array(D @ (W - sigma * sp.diags_array(mass)) @ D)
    try:
        lu = splu(S, permc_spec="COLAMD", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:  # an exactly singular pivot
        return None
    if not np.array_equal(lu.perm_r, lu.perm_c):  # a row exchange: no longer a symmetric factorisation
        return None
    b = np.random.default_rng(0).standard_normal(len(mass)) * np.sqrt(mass) * scale
    x = lu.solve(b)
    error = np.linalg.norm((S @ x - b) / (scale * np.sqrt(mass)))
    size = np.linalg.norm(np.sqrt(mass) * scale * x)
    if not error <= 0.05 * clearance * size:
        return None
    return int((lu.U.diagonal() < 0).sum())
