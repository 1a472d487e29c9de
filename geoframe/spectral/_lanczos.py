"""The lowest eigenpairs of one connected surface: block Lanczos in one pass, with a certificate.

Shift-invert turns ``W u = lambda M u`` into the largest eigenpairs of ``B = A^-1 M``, ``A = W + s M``, which is
symmetric in the inner product of M and has the eigenvalues ``nu = 1 / (lambda + s)``; the constant function, the
known kernel of W, is projected out. Lanczos is run without restart. Two things make it fast: blocks of vectors
(the triangular solves are memory-bound), and orthogonality only to the square root of the precision, restored
when a recurrence says it is being lost, which is enough for eigenvalues to full precision (Simon 1984; Grimes,
Lewis & Simon 1994). One inverse iteration on the result and a Cholesky step give the vectors full accuracy.

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

from geoframe._types import Floats
from geoframe.linalg import SpdFactor, count_below

log = logging.getLogger(__name__)

BLOCKS = (4, 16, 48)  # block sizes, tried in turn
SHIFT = 0.05  # s in units of the k-th eigenvalue expected: larger costs steps, smaller costs orthogonality
TOLERANCE = 1e-10  # of the Lanczos residual, relative to nu
GAP = 1e-6  # relative width of a gap of the spectrum in which eigenvalues are counted
RESIDUAL = 1e-6  # of W u - lambda M u in the norm of M^-1, relative to lambda + s
DENSE_FALLBACK = (1500, 2500, 4000)  # numbers of vertices up to which a dense solver is the next resort
NEW_DIRECTIONS = 8  # random vectors tried for one outside the basis; where one exists the first one has it
_SEMI = 1e-8  # loss of orthogonality at which it is restored
_EPS = float(np.finfo(np.float64).eps)


def lowest_pairs(W: sp.csr_matrix, mass: Floats, k: int) -> tuple[Floats, Floats]:
    """At least the k lowest eigenpairs: vals (j,) ascending and vecs (n, j), ``vecs^T M vecs = I``, j >= k.

    j is the first number from k on where the spectrum has a gap, so that a repeated eigenvalue is complete.

    Args:
        W: (n, n) symmetric positive semi-definite, connected, with the constants as kernel.
        mass: (n,) positive.
        k: from 1 to n.

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
        if n <= DENSE_FALLBACK[i]:
            return _dense_pairs(W, mass, k)
    raise ValueError(f"eigenbasis: could not certify the {k} lowest eigenpairs of {n} vertices")


def _factor_shifted(W: sp.csr_matrix, mass: Floats, s: float) -> tuple[SpdFactor, float]:
    """Factor of W + s M; s grows where rounding (slivers) makes W indefinite."""
    for _ in range(4):
        try:
            return SpdFactor(W + s * sp.diags_array(mass)), s
        except ValueError:
            s *= 30
    try:
        return SpdFactor(W + s * sp.diags_array(mass)), s
    except ValueError as err:
        raise ValueError(
            f"eigenbasis: the Laplacian of {len(mass)} vertices cannot be factored, its entries are too uneven"
        ) from err


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
    found = ritz_pairs(factor, lambda X: X * mass, k, b=b, seed=seed)
    if found is None:
        return None
    nu, error, rows = found
    j = len(rows)
    counted = _certify(W, mass, 1 / (nu[j - 1] - error[j - 1]) - s, 1 / (nu[j] + error[j]) - s)
    if counted != j + 1:
        return None
    vals = np.r_[0.0, np.maximum(1 / nu[:j] - s, 0.0)]
    vecs = _polish(rows, mass, nu[:j], factor)
    return (vals, vecs) if residuals_pass(W, mass, vals, vecs, s) else None


def ritz_pairs(
    factor: SpdFactor,
    dual: Callable[[Floats], Floats],
    k: int,
    *,
    b: int = 4,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> tuple[Floats, Floats, Floats] | None:
    """The largest eigenpairs of ``B = A^-1 M`` other than the constants, by one run of `BlockLanczos`.

    It ends when the k - 1 largest have converged and a gap follows the j-th, j >= k - 1; nothing is certified.

    Args:
        factor: of A (n, n).
        dual: rows (b, n) times M.
        k: wanted pairs, counting the constants.
        b: vectors in a block.
        seed: of the first block.
        tolerance: relative residual up to which a pair has converged.

    Returns:
        j + 1 eigenvalues, descending, their error bounds, and j vectors (j, n), one a row; None where the
        capacity was not enough.
    """
    n = factor.shape[0]
    flux = dual(np.ones((1, n)))[0]
    flux /= flux.sum()

    def op(X: Floats) -> Floats:
        out = np.ascontiguousarray(factor.solve(dual(X).T).T)
        out -= _inner(out, flux[None])
        return out

    start = np.random.default_rng(seed).standard_normal((b, n))
    capacity = min(4 * k + 60 + 12 * b, n - 1 - b)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # it ends in an error, not in a basis
            return _run(BlockLanczos(op, dual, op(start), capacity=capacity), k, tolerance)
    except np.linalg.LinAlgError:  # M is so uneven that B has too small a rank in this precision
        return None


def _run(lanczos: BlockLanczos, k: int, tolerance: float) -> tuple[Floats, Floats, Floats] | None:
    """`ritz_pairs` from a basis of one block."""
    b = lanczos.b
    check = min(5 * k // 2 + 45, lanczos.capacity)  # about where scans and animals have converged
    k -= 1
    while lanczos.m < lanczos.capacity:
        lanczos.step()
        m = lanczos.m
        if m < check:
            continue
        nu, S, error = lanczos.ritz()
        clear = (nu - error)[k - 1 : -1] - (nu + error)[k:] > GAP * nu[k - 1 : -1]
        j = k + int(np.argmax(clear))  # k where there is no gap yet
        missing = int((error[:j] > tolerance * nu[:j]).sum())
        if not missing and clear.any():
            rows = torch.from_numpy(S[:, :j].T.copy()) @ torch.from_numpy(lanczos.Q[:m])
            return nu[: j + 1], error[: j + 1], rows.numpy()
        check = min(m + max(2 * b, min(2 * missing, k // 4)), lanczos.capacity)
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
    n, j = len(mass), len(rows) + 1
    U, M = torch.ones((n, j), dtype=torch.float64), torch.from_numpy(mass)[:, None]
    for i in range(0, j - 1, 64):
        U[:, i + 1 : i + 65] = torch.from_numpy(factor.solve((rows[i : i + 64] * mass).T) / nu[i : i + 64])
    blocks = [slice(at, at + 50_000) for at in range(0, n, 50_000)]
    gram = torch.zeros((j, j), dtype=torch.float64)
    for at in blocks:
        gram += U[at].T @ (M[at] * U[at])
    upper = torch.linalg.inv(torch.linalg.cholesky(gram)).T.contiguous()
    for at in blocks:
        U[at] = U[at] @ upper
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
    """M-orthonormal rows Q (m, n), ``Q M Q^T = I``, with ``Q M B Q^T = T`` block tridiagonal, for M B symmetric.

    Attributes:
        Q: (capacity + b, n); the first `m` rows are the Krylov basis, the next b the block to come.
        m: rows of the basis.
        b: block size.
        diagonal, coupling: the blocks (b, b) of T.

    Orthogonality is kept to about 1e-8, which gives T to full precision. Its loss is followed by the
    recurrence that it obeys, in blocks (b, b) of ``Q_i M Q_j^T``; where it gets too large, two blocks in turn
    are orthogonalised against all others.

    Args:
        op: rows (b, n) to ``B`` applied to each.
        dual: rows (b, n) times M.
        start: (b, n) independent rows.

    Source: Simon 1984, The Lanczos algorithm with partial reorthogonalization; Grimes, Lewis & Simon 1994.
    """

    def __init__(
        self,
        op: Callable[[Floats], Floats],
        dual: Callable[[Floats], Floats],
        start: Floats,
        *,
        capacity: int,
    ) -> None:
        self.op, self.dual = op, dual
        self.b, n = start.shape
        self.capacity = capacity // self.b * self.b
        J, b = self.capacity // self.b, self.b
        self.m = 0
        self.Q = np.empty((self.capacity + b, n))
        self.diagonal = np.zeros((J, b, b))  # Q_j M B Q_j^T
        self.coupling = np.zeros((J, b, b))  # Q_j+1 M B Q_j^T
        self._omega = np.zeros((J + 1, b, b))  # Q_i M Q_j^T, estimated, for the newest block j
        self._omega[0] = np.eye(b)
        self._omega_before = np.zeros((J + 1, b, b))
        self._again = False
        self._rng = np.random.default_rng(0)
        self.Q[:b] = self._orthonormalise(start)[0]

    def step(self) -> None:
        """Add the waiting block to the basis and compute the next one."""
        Q, b, j = self.Q, self.b, self.m // self.b
        self.m = m = self.m + b
        newest = Q[m - b : m]
        Y = self.op(newest)
        if j:
            Y -= _combine(self.coupling[j - 1], Q[m - 2 * b : m - b])
        A = _inner(newest, self.dual(Y))
        self.diagonal[j] = (A + A.T) / 2
        Y -= _combine(self.diagonal[j], newest)
        near = Q[max(0, m - 2 * b) : m]
        Y -= _combine(_inner(self.dual(Y), near), near)
        P, C = self._orthonormalise(Y)
        omega = self._next_omega(j, C)
        if self._again or not np.abs(omega[: j + 1]).max() < _SEMI:
            P, more = self._orthonormalise(self._without_basis(P))
            C = more @ C
            omega[: j + 1] = _EPS * self._rng.standard_normal((j + 1, b, b))
            self._again = not self._again
        Q[m : m + b] = P
        self.coupling[j] = C
        self._omega_before, self._omega = self._omega, omega

    def ritz(self) -> tuple[Floats, Floats, Floats]:
        """Ritz values (m,) descending, eigenvectors of T (m, m) one a column, and residual norms (m,)."""
        b, J = self.b, self.m // self.b
        T = np.zeros((self.m, self.m))
        for j in range(J):
            at = slice(j * b, j * b + b)
            T[at, at] = self.diagonal[j]
            if j + 1 < J:
                T[j * b + b : j * b + 2 * b, at] = self.coupling[j]
        # unlike scipy's solvers it lets other threads go on, and wakes none where torch has one
        vals, S = (x.numpy() for x in torch.linalg.eigh(torch.from_numpy(T), UPLO="L"))
        vals, S = vals[::-1], S[:, ::-1]
        return vals, S, np.linalg.norm(self.coupling[J - 1] @ S[-b:], axis=0)

    def _next_omega(self, j: int, C: Floats) -> Floats:
        """Inner products of the basis with the next block; infinite where nothing is known about them.

        They follow from ``Q_i M (B Q_j^T) = (B Q_i^T)^T M Q_j^T`` with the three-term recurrence on both sides.
        """
        J, b = j + 1, self.b
        D, E, omega = self.diagonal, self.coupling, self._omega
        out = np.zeros_like(omega)
        out[J] = np.eye(b)
        smallest = np.abs(C.diagonal()).min()
        if smallest == 0:
            out[:J] = np.inf
            return out
        new = D[:J] @ omega[:J] - omega[:J] @ D[j]
        new[1:] += E[: J - 1] @ omega[: J - 1]
        new[: J - 1] += E[: J - 1].transpose(0, 2, 1) @ omega[1:J]
        if j:
            new -= self._omega_before[:J] @ E[j - 1].T
        new[max(0, j - 1) :] = 0  # orthogonalised explicitly
        out[:J] = np.linalg.solve(C.T, new.transpose(0, 2, 1)).transpose(0, 2, 1)
        out[:J] += _EPS * np.abs(D[0]).max() / smallest * self._rng.standard_normal((J, b, b))
        return out

    def _orthonormalise(self, Y: Floats) -> tuple[Floats, Floats]:
        """M-orthonormal rows P and C with ``Y = C^T P``, by Cholesky QR, twice where the rows are dependent."""
        P, C = Y, np.eye(self.b)
        for _ in range(2):
            try:
                L = np.linalg.cholesky(_inner(P, self.dual(P)))
            except np.linalg.LinAlgError:
                return self._refill(Y)
            spread = L.diagonal().min() / L.diagonal().max()
            if not spread > 1e-6:
                return self._refill(Y)
            P, C = _combine(np.linalg.inv(L), P), L.T @ C
            if spread > 0.1:
                break
        return P, C

    def _refill(self, Y: Floats) -> tuple[Floats, Floats]:
        """`_orthonormalise` of nearly dependent rows, against the whole basis, by Gram-Schmidt.

        Where a row holds nothing new (an invariant subspace is complete) a random one enters, with zeros in C.

        Raises:
            LinAlgError: random rows hold nothing new either.
        """
        b, m = self.b, self.m
        C, P = np.zeros((b, b)), np.zeros_like(Y)
        spent = 1e-13 * (np.abs(self.diagonal[0]).max() if m else 0.0)
        for i in range(b):
            y, own = Y[i : i + 1], True
            for _attempt in range(NEW_DIRECTIONS):
                length = float(_inner(y, self.dual(y))[0, 0]) ** 0.5
                for _ in range(2):
                    y = self._without_basis(y) if m else y
                    c = _inner(self.dual(y), P[:i])
                    y = y - _combine(c, P[:i])
                    if own:
                        C[:i, i] += c[0]
                norm = float(_inner(y, self.dual(y))[0, 0]) ** 0.5
                if norm > spent and norm > 1e-12 * length:
                    break
                y, own = self.op(self._rng.standard_normal((1, Y.shape[1]))), False
            else:
                raise np.linalg.LinAlgError("no direction is left that rounding does not swallow")
            P[i] = y[0] / norm
            C[i, i] = norm if own else 0.0
        return P, C

    def _without_basis(self, Y: Floats) -> Floats:
        """Rows Y less their components in the basis."""
        out, flux = torch.from_numpy(Y.copy()), torch.from_numpy(self.dual(Y))
        for at in range(0, self.m, _ROWS):  # each part of the basis is read once, while it is in the cache
            part = torch.from_numpy(self.Q[at : min(at + _ROWS, self.m)])
            out.addmm_(flux @ part.T, part, alpha=-1)
        return out.numpy()


# Products of few long rows are cut into pieces for which BLAS wakes no threads: with thousands of such small
# products, waiting for each other costs the threads far more than the work, above all on a busy machine.
_PIECE = 8192
_ROWS = 32  # of the basis that a block is orthogonalised against at a time


def _inner(X: Floats, Y: Floats) -> Floats:
    """``X Y^T`` for a few long rows."""
    out = np.zeros((len(X), len(Y)))
    for at in range(0, X.shape[1], _PIECE):
        out += X[:, at : at + _PIECE] @ Y[:, at : at + _PIECE].T
    return out


def _combine(C: Floats, X: Floats) -> Floats:
    """``C X`` for a few long rows."""
    out = np.empty((len(C), X.shape[1]))
    for at in range(0, X.shape[1], _PIECE):
        out[:, at : at + _PIECE] = C @ X[:, at : at + _PIECE]
    return out
