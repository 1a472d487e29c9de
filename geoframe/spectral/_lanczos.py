"""The lowest eigenpairs of one connected surface: block Lanczos in one pass, with a certificate.

Shift-invert turns ``W u = lambda M u`` into the ordinary symmetric problem of ``B = R A^-1 R``, ``A = W + s M``,
``R = M^(1/2)``, with eigenvalues ``nu = 1 / (lambda + s)``; the constant function, the known kernel of W, is
projected out. Lanczos is run without restart. Two things make it fast: blocks of vectors (the triangular
solves are memory-bound), and orthogonality only to the square root of the precision, restored when a
recurrence says it is being lost, which is enough for eigenvalues to full precision (Simon 1984; Grimes, Lewis
& Simon 1994). One inverse iteration on the result and a Cholesky step give the vectors full accuracy.

Lanczos may miss copies of repeated eigenvalues without any sign of it. So the count is certified by inertia in
a gap of the spectrum; where that fails the run is repeated with larger blocks, which find the copies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoframe.linalg import SpdFactor, count_below

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]

BLOCKS = (4, 16, 48)  # block sizes, tried in turn
SHIFT = 0.05  # s in units of the k-th eigenvalue expected: larger costs steps, smaller costs orthogonality
TOLERANCE = 1e-10  # of the Lanczos residual, relative to nu
GAP = 1e-6  # relative width of a gap of the spectrum in which eigenvalues are counted
RESIDUAL = 1e-6  # of W u - lambda M u in the norm of M^-1, relative to lambda + s
DENSE_FALLBACK = 4000
_SEMI = 1e-8  # loss of orthogonality at which it is restored
_EPS = float(np.finfo(np.float64).eps)


def lowest_pairs(W: sp.csr_matrix, mass: Floats, k: int) -> tuple[Floats, Floats]:
    """At least the k lowest eigenpairs: vals (j,) ascending and vecs (n, j), ``vecs^T M vecs = I``, j >= k.

    j is the first number from k on where the spectrum has a gap, so that a repeated eigenvalue is complete.

    Args:
        W: (n, n) symmetric positive semi-definite, connected, with the constants as kernel.
        mass: (n,) positive. k: from 1 to n.

    Raises:
        ValueError: no certified result (meaning that the matrix is too ill-conditioned).
    """
    n = len(mass)
    constant = np.full((n, 1), 1 / np.sqrt(mass.sum()))
    if k == 1 and n > 1:
        return np.zeros(1), constant
    if n <= 4 * k + 100:
        return _dense_pairs(W, mass, k)
    s = SHIFT * 4 * np.pi * k / mass.sum()  # Weyl's law
    factor, s = _factor_shifted(W, mass, s)
    for i, b in enumerate(BLOCKS):
        pairs = _lanczos_pairs(W, mass, k, factor=factor, s=s, b=b, seed=i)
        if pairs is not None:
            return pairs
        log.info("eigenbasis: blocks of %d missed eigenvalues, trying larger ones", b)
    if n <= DENSE_FALLBACK:
        return _dense_pairs(W, mass, k)
    raise ValueError(
        f"eigenbasis: could not certify the {k} lowest eigenpairs of {n} vertices; "
        "repair the mesh, or use kind='tufted'"
    )


def _factor_shifted(W: sp.csr_matrix, mass: Floats, s: float) -> tuple[SpdFactor, float]:
    """Factor of W + s M; s grows where rounding (slivers) makes W indefinite."""
    for _ in range(4):
        try:
            return SpdFactor(W + s * sp.diags_array(mass)), s
        except ValueError:
            s *= 30
    return SpdFactor(W + s * sp.diags_array(mass)), s


def _dense_pairs(W: sp.csr_matrix, mass: Floats, k: int) -> tuple[Floats, Floats]:
    r = np.sqrt(mass)
    H = (W.toarray() / r) / r[:, None]
    q = r / np.linalg.norm(r)
    H = (H + H.T) / 2 + 2 * np.abs(H).sum(1).max() * np.outer(q, q)  # the constant moves to the upper end
    vals, vecs = la.eigh(H, driver="evd", overwrite_a=True, check_finite=False)
    vals, vecs = np.r_[0.0, np.maximum(vals[:-1], 0.0)], np.c_[q, vecs[:, :-1]] / r[:, None]
    apart = np.diff(vals) > GAP * vals[1:]
    j = k + int(np.argmax(np.r_[apart[k - 1 :], True]))
    return vals[:j], vecs[:, :j]


def _lanczos_pairs(
    W: sp.csr_matrix, mass: Floats, k: int, *, factor: SpdFactor, s: float, b: int, seed: int
) -> tuple[Floats, Floats] | None:
    """`lowest_pairs` by one Lanczos run; None where it did not converge or did not pass the checks."""
    r = np.sqrt(mass)
    root, q = torch.from_numpy(r), torch.from_numpy(r / np.linalg.norm(r))

    def op(X: Tensor) -> Tensor:
        out = torch.from_numpy(factor.solve((X * root).T.numpy())).T * root
        return out - (out @ q)[:, None] * q

    start = torch.from_numpy(np.random.default_rng(seed).standard_normal((b, len(mass))))
    lanczos = BlockLanczos(op, start - (start @ q)[:, None] * q, capacity=4 * k + 60)
    found = _converge(lanczos, k - 1)
    if found is None:
        return None
    nu, error, rows = found  # without the constant, one more eigenvalue than vectors
    j = len(rows)
    counted = _certify(W, mass, 1 / (nu[j - 1] - error[j - 1]) - s, 1 / (nu[j] + error[j]) - s)
    if counted != j + 1:
        return None
    vals = np.r_[0.0, np.maximum(1 / nu[:j] - s, 0.0)]
    vecs = _polish(rows / r, mass, nu[:j], factor)
    return (vals, vecs) if residuals_pass(W, mass, vals, vecs, s) else None


def _converge(lanczos: BlockLanczos, k: int) -> tuple[Floats, Floats, Floats] | None:
    """Run until the k largest Ritz values have converged and a gap follows the j-th, j >= k.

    Returns j + 1 Ritz values, their error bounds, and j Ritz vectors (j, n), one a row.
    """
    check = 2 * k + 20
    while lanczos.m < lanczos.capacity:
        lanczos.step()
        m = lanczos.m
        if m < check:
            continue
        nu, S, error = lanczos.ritz_pairs()
        missing = int((error[:k] > TOLERANCE * nu[:k]).sum())
        clear = (nu - error)[k - 1 : -1] - (nu + error)[k:] > GAP * nu[k - 1 : -1]
        if not missing and clear.any():
            j = k + int(np.argmax(clear))
            rows = torch.from_numpy(np.ascontiguousarray(S[:, :j].T)) @ lanczos.Q[:m]
            return nu[: j + 1], error[: j + 1], rows.numpy()
        check = m + max(2 * lanczos.b, 2 * missing)
    return None


def _certify(W: sp.csr_matrix, mass: Floats, low: float, high: float) -> int | None:
    """Number of eigenvalues below a point between `low` and `high`, where no eigenvalue should be."""
    for t in (0.5, 0.3, 0.7):
        sigma = low + t * (high - low)
        count = count_below(W, mass, sigma, clearance=0.3 * (high - low))
        if count is not None:
            return count
    return None


def _polish(rows: Floats, mass: Floats, nu: Floats, factor: SpdFactor) -> Floats:
    """(n, j + 1) M-orthonormal vectors, the constant first: one inverse iteration on `rows` (j, n).

    It damps what rounding left in the high frequencies, and makes the values at vertices of tiny mass right.
    """
    n = len(mass)
    Z = np.empty((n, len(rows) + 1))
    Z[:, 0] = 1.0
    for i in range(0, len(rows), 64):
        Z[:, i + 1 : i + 65] = factor.solve((rows[i : i + 64] * mass).T) / nu[i : i + 64]
    U, M = torch.from_numpy(Z), torch.from_numpy(mass)[:, None]
    L = torch.linalg.cholesky(U.T @ (M * U))
    U = U @ torch.linalg.inv(L).T
    U[:, 0] = mass.sum() ** -0.5
    return U.numpy()


def residuals_pass(W: sp.csr_matrix, mass: Floats, vals: Floats, vecs: Floats, s: float) -> bool:
    """Whether every pair fulfils ``|W u - lambda M u| <= RESIDUAL (lambda + s)`` in the norm of M^-1.

    What rounding alone can leave in a row of ``W u`` is forgiven, so that slivers (rows of huge weights) do
    not fail a pair that is as good as float64 allows.
    """
    absolute = abs(W)
    for i in range(0, len(vals), 64):
        U, lam = vecs[:, i : i + 64], vals[i : i + 64]
        rest = np.abs(W @ U - (mass[:, None] * U) * lam)
        size = np.sqrt(np.einsum("ij,ij,i->j", rest, rest, 1 / mass))
        if not (size <= RESIDUAL * (lam + s)).all():
            rest = np.maximum(rest - 16 * _EPS * (absolute @ np.abs(U)), 0)
            size = np.sqrt(np.einsum("ij,ij,i->j", rest, rest, 1 / mass))
            if not (size <= RESIDUAL * (lam + s)).all():
                return False
    return True


class BlockLanczos:
    """Orthonormal rows Q (m, n) with ``Q B Q^T = T`` block tridiagonal, grown by one block a step.

    Attributes:
        Q: (capacity + b, n); the first `m` rows are the Krylov basis, the next b the block to come.
        m: rows of the basis. b: block size.

    Orthogonality is kept to about 1e-8, which gives T to full precision. Its loss is followed by the
    recurrence that it obeys, in blocks `(J, b, b)` of ``Q_i Q_j^T``; where it gets too large, two blocks in
    turn are orthogonalised against all others.

    Source: Simon 1984, The Lanczos algorithm with partial reorthogonalization; Grimes, Lewis & Simon 1994.
    """

    def __init__(self, op: Callable[[Tensor], Tensor], start: Tensor, *, capacity: int) -> None:
        self.op = op
        self.b, n = start.shape
        self.capacity = -(-capacity // self.b) * self.b
        J, b = self.capacity // self.b, self.b
        self.Q = torch.empty((self.capacity + b, n), dtype=torch.float64)
        self.Q[:b] = torch.linalg.qr(start.T)[0].T
        self.m = 0
        self.diagonal = np.zeros((J, b, b))  # Q_j B Q_j^T
        self.coupling = np.zeros((J, b, b))  # Q_j+1 B Q_j^T
        self._omega = np.zeros((J + 1, b, b))  # Q_i Q_j^T, estimated, for the newest block j
        self._omega[0] = np.eye(b)
        self._omega_before = np.zeros((J + 1, b, b))
        self._again = False
        self._rng = np.random.default_rng(0)

    def step(self) -> None:
        """Add the waiting block to the basis and compute the next one."""
        Q, b, m = self.Q, self.b, self.m + self.b
        j = self.m // b
        Y = self.op(Q[m - b : m])
        if j:
            Y -= torch.from_numpy(self.coupling[j - 1]) @ Q[m - 2 * b : m - b]
        A = Q[m - b : m] @ Y.T
        A = (A + A.T) / 2
        Y -= A @ Q[m - b : m]
        near = Q[max(0, m - 2 * b) : m]
        Y -= (Y @ near.T) @ near
        Y, C = self._orthonormalise(Y, m)
        self.diagonal[j] = A.numpy()
        omega = self._next_omega(j, C)
        if self._again or np.abs(omega[: j + 1]).max() > _SEMI:
            Y -= (Q[:m] @ Y.T).T @ Q[:m]
            Y, C_more = self._orthonormalise(Y, m)
            C = C_more @ C
            omega[: j + 1] = _EPS * self._rng.standard_normal((j + 1, b, b))
            self._again = not self._again
        self._omega_before, self._omega = self._omega, omega
        self.coupling[j] = C
        Q[m : m + b] = Y
        self.m = m

    def ritz_pairs(self) -> tuple[Floats, Floats, Floats]:
        """Ritz values (m,) descending, eigenvectors of T (m, m) one a column, and residual norms (m,)."""
        b, J = self.b, self.m // self.b
        T = np.zeros((self.m, self.m))
        for j in range(J):
            at = slice(j * b, j * b + b)
            T[at, at] = self.diagonal[j]
            if j + 1 < J:
                T[j * b + b : j * b + 2 * b, at] = self.coupling[j]
        vals, S = la.eigh(T, lower=True, driver="evd", overwrite_a=True, check_finite=False)
        vals, S = vals[::-1], S[:, ::-1]
        return vals, S, np.linalg.norm(self.coupling[J - 1] @ S[-b:], axis=0)

    def _orthonormalise(self, Y: Tensor, m: int) -> tuple[Tensor, Floats]:
        """Orthonormal rows P and C with ``Y = C^T P``, by Cholesky QR twice."""
        P, C = Y, np.eye(self.b)
        for _ in range(2):
            try:
                L = np.linalg.cholesky((P @ P.T).numpy())
            except np.linalg.LinAlgError:
                return self._refill(Y, m)
            if L.diagonal().min() < 1e-6 * L.diagonal().max():
                return self._refill(Y, m)
            P, C = torch.from_numpy(np.linalg.inv(L)) @ P, L.T @ C
        return P, C

    def _refill(self, Y: Tensor, m: int) -> tuple[Tensor, Floats]:
        """`_orthonormalise` of rows that are nearly dependent: where nothing new is left, random rows enter."""
        basis, C = torch.linalg.qr(Y.T)
        spent = C.diagonal().abs() <= 1e-13 * np.abs(self.diagonal[0]).max()
        C[spent] = 0
        fresh = torch.from_numpy(self._rng.standard_normal(Y.shape))
        P = torch.where(spent[:, None], self.op(fresh), basis.T)
        for _ in range(2):
            P = P - (self.Q[:m] @ P.T).T @ self.Q[:m]
            basis, R = torch.linalg.qr(P.T)
            P, C = basis.T, R @ C
        return P.contiguous(), C.numpy()

    def _next_omega(self, j: int, C: Floats) -> Floats:
        """Inner products of the basis with the next block, from ``Q_i (B Q_j^T) = (B Q_i^T)^T Q_j^T``."""
        J, b = j + 1, self.b
        D, E, omega = self.diagonal, self.coupling, self._omega
        new = D[:J] @ omega[:J] - omega[:J] @ D[j]
        new[1:] += E[: J - 1] @ omega[: J - 1]
        new[: J - 1] += E[: J - 1].transpose(0, 2, 1) @ omega[1:J]
        if j:
            new -= self._omega_before[:J] @ E[j - 1].T
        new[max(0, j - 1) :] = 0  # orthogonalised explicitly
        new = np.linalg.solve(C.T, new.transpose(0, 2, 1)).transpose(0, 2, 1)
        noise = _EPS * np.abs(D[0]).max() / np.abs(np.diag(C)).min()
        out = np.zeros_like(omega)
        out[:J] = new + noise * self._rng.standard_normal((J, b, b))
        out[J] = np.eye(b)
        return out
