"""Approximate eigenbases of very large surfaces: a coarse space of smooth bumps, prolonged and improved.

The surface is cut into clusters of equal area around samples; the functions of the coarse space are partitions
of unity made of compact bumps around the samples, corrected to reproduce linear functions, so that few of them
span the smooth functions well. The eigenproblem restricted to that space is small and sparse. Its solutions are
prolonged, relaxed on the surface, and made the best possible by a last Rayleigh-Ritz step, after which
``U^T M U = I`` holds exactly and every eigenvalue is an upper bound of the true one. No matrix of the size of
the surface is factored.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
import torch

from geoframe._types import Floats, Ints
from geoframe.linalg import SpdFactor
from geoframe.spectral._lanczos import lowest_pairs, ritz_pairs

SAMPLES = 40  # bumps of the coarse space per eigenpair
LLOYD = 2  # times that the samples move to the middle of their clusters
REACH = 1.8  # radius of a bump in units of the square root of its cluster's area
LINEAR = 0.03  # regularisation of the correction for linear functions, relative
RELAX, DAMPING = 2, 0.7  # sweeps of damped Jacobi on the residual
_ROWS = 50_000  # vertices handled at once, which bounds the memory


def approximate_pairs(W: sp.csr_matrix, mass: Floats, points: Floats, k: int) -> tuple[Floats, Floats]:
    """The k lowest eigenpairs, approximately: vals (k,) and vecs (n, k) with ``vecs^T M vecs = I``.

    Eigenvalues are too large by 0.3 % on average and 1.1 % at most among 256 on a cat of 115k vertices
    (``python -m experiments.bench.eigenbasis --case approximate-115k`` measures it); the first ones are far
    better than the last. Surfaces of fewer than ``4 * SAMPLES * k`` vertices are solved exactly.

    Args:
        W: (n, n) stiffness matrix, connected.
        mass: (n,) positive.
        points: (n, 3) positions.
        k: from 1 to n.

    Source: the coarse space follows Nasikun, Brandt & Hildebrandt 2018, Fast Approximation of Laplace-Beltrami
        Eigenproblems; differs: clusters instead of Dijkstra balls, linear precision, a sparse coarse problem
        with many more functions, relaxation and a Rayleigh-Ritz step on the full surface.
    """
    n_samples = SAMPLES * max(k, 10)
    if len(mass) < 4 * n_samples:
        return lowest_pairs(W, mass, k)
    label, sample = geodesic_cells(W, mass, points, n_samples)
    P = bumps(W, mass, points, label, sample)
    size = k + k // 7 + 10
    vals, vecs = _coarse_pairs(P, W, mass, size)
    vals, vecs = improved_pairs(P @ vecs, vals, W, mass)
    return vals[:k], vecs[:, :k]


def improved_pairs(Z: Floats, vals: Floats, W: sp.csr_matrix, mass: Floats) -> tuple[Floats, Floats]:
    """Functions near the lowest eigenfunctions, made the best that relaxation and a Rayleigh-Ritz step can.

    Args:
        Z: (n, k) functions, from the smoothest on, the first one constant; overwritten.
        vals: (k,) their eigenvalues, roughly.
        W: (n, n) stiffness matrix, connected.
        mass: (n,) positive.

    Returns:
        vals (k,), ascending upper bounds of the true eigenvalues, and vecs (n, k) with ``vecs^T M vecs = I``.
    """
    size = Z.shape[1]
    diagonal = W.diagonal()
    for _ in range(RELAX):
        for i in range(0, size, 32):
            X = np.ascontiguousarray(Z[:, i : i + 32])
            Z[:, i : i + 32] -= DAMPING * (W @ X - (mass[:, None] * X) * vals[i : i + 32]) / diagonal[:, None]
    return _rayleigh_ritz(Z, W, mass, size)


def geodesic_cells(W: sp.csr_matrix, mass: Floats, points: Floats, count: int) -> tuple[Ints, Ints]:
    """A surface cut into cells of about equal area around samples that are spread evenly along it.

    Args:
        W: (n, n) stiffness matrix, connected.
        mass: (n,) areas.
        points: (n, 3) positions.
        count: how many cells.

    Returns:
        cell: (n,) of every vertex, and sample: (count,) the vertex in the middle of every cell.
    """
    n = len(mass)
    entries = W.tocoo()
    linked = (entries.row != entries.col) & (entries.data != 0)
    i, j = entries.row[linked], entries.col[linked]
    length = np.linalg.norm(points[i] - points[j], axis=1)
    graph = sp.csr_array((np.maximum(length, 1e-12 * length.max()), (i, j)), shape=(n, n))
    sample = np.random.default_rng(0).choice(n, count, replace=False, p=(mass / mass.sum() + 1 / n) / 2)
    for _ in range(LLOYD):
        label = _nearest(graph, sample)
        weight = np.bincount(label, mass, minlength=count)
        centre = np.stack([np.bincount(label, mass * x, minlength=count) / weight for x in points.T], axis=1)
        away = ((points - centre[label]) ** 2).sum(1)
        order = np.lexsort((away, label))
        sample = order[np.searchsorted(label[order], np.arange(count))]
    return _nearest(graph, sample), sample


def _nearest(graph: sp.csr_array, sample: Ints) -> Ints:
    """Number of the nearest sample along the edges, for every vertex."""
    number = np.empty(graph.shape[0], dtype=np.int64)
    number[sample] = np.arange(len(sample))
    return number[sp.csgraph.dijkstra(graph, indices=sample, min_only=True, return_predecessors=True)[2]]


def bumps(W: sp.csr_matrix, mass: Floats, points: Floats, label: Ints, sample: Ints) -> sp.csr_array:
    """(n, samples) rows that sum to one: each vertex as a nearly linear combination of the samples around it.

    Args:
        W: (n, n) stiffness matrix.
        mass: (n,) areas.
        points: (n, 3) positions.
        label: (n,) number of the sample whose cell a vertex is in, as of `geodesic_cells`.
        sample: (samples,) vertices.
    """
    n, count = len(mass), len(sample)
    inside = sp.csr_array((np.ones(n), label, np.arange(n + 1)), shape=(n, count))
    touching = inside.T @ abs(W) @ inside
    touching.data[:] = 1
    radius = REACH * np.sqrt(np.bincount(label, mass, minlength=count))
    radius = (touching @ radius) / touching.sum(1)  # neighbours overlap evenly
    away = np.linalg.norm(points - points[sample][label], axis=1)
    reach = np.zeros(count)
    np.maximum.at(reach, label, away)
    radius = np.maximum(radius, 1.05 * reach)  # every vertex lies in the bump of its own cluster
    candidates = touching @ touching  # two rings of clusters
    blocks = []
    for at in range(0, n, _ROWS):
        near = candidates[label[at : at + _ROWS]].tocoo()
        row, col = near.row, near.col
        offset = points[sample[col]] - points[at : at + _ROWS][row]
        x = np.sqrt((offset**2).sum(1)) / radius[col]
        row, col, offset, x = row[x < 1], col[x < 1], offset[x < 1], x[x < 1]
        weight = _linear_precision((1 - x) ** 4 * (4 * x + 1), offset, row, near.shape[0])
        blocks.append(sp.csr_array((weight, (row, col)), shape=near.shape))
    return sp.vstack(blocks, format="csr")


def _linear_precision(weight: Floats, offset: Floats, row: Ints, n: int) -> Floats:
    """Weights (e,) turned into ``w (1 - g . offset)`` with ``sum w = 1`` and ``sum w offset`` near 0 a row."""
    first = np.stack([np.bincount(row, weight * x, minlength=n) for x in offset.T], axis=1)
    second = np.empty((n, 3, 3))
    for a in range(3):
        for b in range(a, 3):
            second[:, a, b] = np.bincount(row, weight * offset[:, a] * offset[:, b], minlength=n)
            second[:, b, a] = second[:, a, b]
    trace = np.trace(second, axis1=1, axis2=2)
    second += np.where(trace > 0, LINEAR * trace, 1.0)[:, None, None] * np.eye(3)
    g = np.linalg.solve(second, first[:, :, None])[:, :, 0]
    weight = weight * (1 - np.einsum("ij,ij->i", g[row], offset))
    return weight / np.bincount(row, weight, minlength=n)[row]


def _coarse_pairs(P: sp.csr_array, W: sp.csr_matrix, mass: Floats, k: int) -> tuple[Floats, Floats]:
    """The k lowest eigenpairs of the eigenproblem restricted to the columns of P."""
    T = P.T.tocsr()
    Wc, Mc = (T @ (W @ P)).tocsr(), (T @ (sp.diags_array(mass) @ P)).tocsr()
    Wc, Mc = (Wc + Wc.T) / 2, (Mc + Mc.T) / 2
    s = 0.05 * 4 * np.pi * k / mass.sum()

    found = ritz_pairs(SpdFactor(Wc + s * Mc), lambda X: (Mc @ X.T).T, k, tolerance=1e-6)
    if found is None:
        raise ValueError("eigenbasis: the coarse problem did not converge; use method='exact'")
    nu, _, rows = found
    vals = np.r_[0.0, 1 / nu[: k - 1] - s]
    return vals, np.c_[np.full(len(Mc.indptr) - 1, mass.sum() ** -0.5), rows[: k - 1].T]


def _rayleigh_ritz(Z: Floats, W: sp.csr_matrix, mass: Floats, k: int) -> tuple[Floats, Floats]:
    """The k best pairs in the span of Z (n, m) and the constants; Z is overwritten."""
    area = mass.sum()
    Z[:, 1:] -= mass @ Z[:, 1:] / area
    Z[:, 0] = area**-0.5
    m = Z.shape[1]
    H, B = torch.zeros(m, m, dtype=torch.float64), torch.zeros(m, m, dtype=torch.float64)
    for at in range(0, len(Z), _ROWS):
        X = torch.from_numpy(Z[at : at + _ROWS])
        H += X.T @ torch.from_numpy(W[at : at + _ROWS] @ Z)
        B += X.T @ (torch.from_numpy(mass[at : at + _ROWS, None]) * X)
    vals, S = la.eigh(((H + H.T) / 2).numpy(), ((B + B.T) / 2).numpy())
    rotation = torch.from_numpy(np.ascontiguousarray(S[:, :k]))
    out = np.empty((len(Z), k))
    for at in range(0, len(Z), _ROWS):
        out[at : at + _ROWS] = (torch.from_numpy(Z[at : at + _ROWS]) @ rotation).numpy()
    vals[0], out[:, 0] = 0.0, area**-0.5  # exactly
    return np.maximum(vals[:k], 0.0), out
