"""Algebra of small matrices for the compiled loops of `geoframe.solve._numba`."""

from __future__ import annotations

import math

import numpy as np

from geoframe._compiled import compiled


@compiled
def weighted(x, c, out):
    """out (m,) becomes the sum of the c[k] x[k]."""
    for i in range(len(out)):
        out[i] = 0.0
    for k in range(len(c)):
        for i in range(len(out)):
            out[i] += c[k] * x[k, i]


@compiled
def copy(x, out):
    """The numbers of x into out, of the same shape."""
    for i in np.ndindex(x.shape):
        out[i] = x[i]


@compiled
def cholesky(A, L):
    """L with ``L L^T = A`` from the lower half of A; False, and half done, where A is not positive definite."""
    for k in range(len(A)):
        for m in range(k + 1):
            total = A[k, m]
            for i in range(m):
                total -= L[k, i] * L[m, i]
            if m < k:
                L[k, m] = total / L[m, m]
            elif total > 0:
                L[k, k] = math.sqrt(total)
            else:
                return False
    return True


@compiled
def solve(L, x):
    """x becomes ``(L L^T)^-1 x``."""
    for k in range(len(x)):
        for m in range(k):
            x[k] -= L[k, m] * x[m]
        x[k] /= L[k, k]
    for k in range(len(x) - 1, -1, -1):
        for m in range(k + 1, len(x)):
            x[k] -= L[m, k] * x[m]
        x[k] /= L[k, k]


@compiled
def eigen(A, V, lam):
    """Eigenvalues and eigenvectors (columns of V) of a small symmetric matrix by Jacobi's rotations; uses A up."""
    d = len(A)
    V[:] = 0.0
    for i in range(d):
        V[i, i] = 1.0
    for _ in range(30):
        off = total = 0.0
        for i in range(d):
            for j in range(d):
                total += A[i, j] * A[i, j]
                off += A[i, j] * A[i, j] if i < j else 0.0
        if off <= 1e-33 * total:
            break
        for i in range(d):
            for j in range(i + 1, d):
                if A[i, j] == 0:
                    continue
                slope = (A[j, j] - A[i, i]) / (2 * A[i, j])
                t = (1.0 if slope >= 0 else -1.0) / (abs(slope) + math.sqrt(slope * slope + 1))
                cos = 1 / math.sqrt(t * t + 1)
                sin = t * cos
                for k in range(d):
                    A[k, i], A[k, j] = cos * A[k, i] - sin * A[k, j], sin * A[k, i] + cos * A[k, j]
                for k in range(d):
                    A[i, k], A[j, k] = cos * A[i, k] - sin * A[j, k], sin * A[i, k] + cos * A[j, k]
                    V[k, i], V[k, j] = cos * V[k, i] - sin * V[k, j], sin * V[k, i] + cos * V[k, j]
    for i in range(d):
        lam[i] = A[i, i]


@compiled
def turn_by(w, R, out):
    """R turned by Cayley's rotation of the first three of w, as in `geoframe.solve._weak`."""
    x, y, z = w[0] / 2, w[1] / 2, w[2] / 2
    f = 2 / (1 + x * x + y * y + z * z)
    Q = np.empty((3, 3))
    Q[0, 0], Q[0, 1], Q[0, 2] = 1 - f * (y * y + z * z), f * (x * y - z), f * (x * z + y)
    Q[1, 0], Q[1, 1], Q[1, 2] = f * (x * y + z), 1 - f * (x * x + z * z), f * (y * z - x)
    Q[2, 0], Q[2, 1], Q[2, 2] = f * (x * z - y), f * (y * z + x), 1 - f * (x * x + y * y)
    for i in range(3):
        for j in range(3):
            out[i, j] = Q[i, 0] * R[0, j] + Q[i, 1] * R[1, j] + Q[i, 2] * R[2, j]
