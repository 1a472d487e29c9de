"""Pointwise signatures made from an eigenbasis: the heat and the wave kernel, global or seen from landmarks.

Both are invariant under isometries, and under the sign and rotation ambiguities of eigenvectors. Of a shape
with several components the pairs of eigenvalue zero count as what they are: constants on a component.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geoframe._check import as_floats, as_tensor, check_index, check_int, check_shape
from geoframe.spectral.basis import Eigenbasis

ZERO = 1e-8  # eigenvalues up to this share of the largest count as zero


def hks(
    basis: Eigenbasis,
    times: int | Tensor | Sequence[float] = 100,
    *,
    landmarks: Tensor | Sequence[int] | None = None,
    scaled: bool = True,
) -> Tensor:
    """Heat kernel signature: ``sum_i exp(-lambda_i t) u_i(x)^2``, how much heat is left at x after time t.

    Args:
        basis: K eigenpairs.
        times: (T,) in length^2, or their number: then they are spaced evenly in the
            logarithm from ``4 ln 10 / lambda_max`` to ``4 ln 10 / lambda_min``, the extreme nonzero eigenvalues.
        landmarks: (L,) vertices; then ``sum_i exp(-lambda_i t) u_i(x) u_i(landmark)``, the heat that reaches x.
        scaled: divide by the heat trace ``sum_i exp(-lambda_i t)``, so that all times weigh alike.

    Returns:
        (V, T), or (V, L * T) with the times of the first landmark first; ``.reshape(V, L, T)`` separates them.
        Units: 1 / length^2: a shape twice as large has, at its default times, a quarter of the signature.

    Raises:
        ValueError: no nonzero eigenvalue, times that are not positive, landmark out of range.

    Source: Sun, Ovsjanikov & Guibas 2009, A Concise and Provably Informative Multi-Scale Signature Based on
        Heat Diffusion; the scaling is that of section 4.
    """
    if isinstance(times, Tensor | Sequence | np.ndarray):
        times = _grid(times, basis, "times")
        if not bool((times > 0).all()):
            raise ValueError(f"times: expected positive numbers, found {float(times.min()):.3g}")
    else:
        check_int(times, "times", low=1)
        low, high = _spectral_range(basis)
        ends = math.log(4 * math.log(10) / high), math.log(4 * math.log(10) / low)
        times = _linspace(*ends, times, basis).exp()
    weights = torch.exp(-times[:, None] * basis.vals.clamp(min=0))
    return _signature(basis, weights, landmarks, scaled=scaled)


def wks(
    basis: Eigenbasis,
    energies: int | Tensor | Sequence[float] = 100,
    *,
    sigma: float | None = None,
    landmarks: Tensor | Sequence[int] | None = None,
    scaled: bool = True,
) -> Tensor:
    """Wave kernel signature: ``sum_i exp(-(e - log lambda_i)^2 / (2 sigma^2)) u_i(x)^2`` over nonzero lambda_i.

    The average probability to meet at x a quantum particle of energy near exp(e): a band-pass filter of
    squared eigenfunctions, where the heat kernel is a low-pass filter.

    Args:
        basis: K eigenpairs.
        energies: (T,) logarithms of eigenvalues, or their number: then they are spaced
            evenly between the logarithms of the extreme nonzero eigenvalues, 2 sigma inside (at most a quarter
            of the range).
        sigma: width in the logarithm; by default 7 times the range over the number of energies, the range
            being that of the given energies or of the logarithms of the nonzero eigenvalues.
        landmarks: (L,) vertices; then with ``u_i(x) u_i(landmark)`` in place of the square.
        scaled: divide by ``sum_i exp(-(e - log lambda_i)^2 / (2 sigma^2))``, so that all energies weigh alike.

    Returns:
        (V, T), or (V, L * T) with the energies of the first landmark first. Units: 1 / length^2.

    Raises:
        ValueError: no nonzero eigenvalue, `sigma` not positive or not known, landmark out of range.

    Source: Aubry, Schlickewei & Cremers 2011, The Wave Kernel Signature, section 3.
    """
    low, high = (math.log(x) for x in _spectral_range(basis))
    if isinstance(energies, Tensor | Sequence | np.ndarray):
        energies = _grid(energies, basis, "energies")
        sigma = 7 * float(energies.max() - energies.min()) / len(energies) if sigma is None else sigma
    else:
        check_int(energies, "energies", low=1)
        sigma = 7 * (high - low) / energies if sigma is None else sigma
        margin = min(2 * sigma, (high - low) / 4)
        energies = _linspace(low + margin, high - margin, energies, basis)
    if not sigma > 0:
        raise ValueError(f"sigma: expected a positive width, found {sigma:.3g}; pass sigma=...")
    nonzero = basis.vals > ZERO * basis.vals[-1]
    logs = basis.vals.clamp(min=math.exp(low)).log()
    exponent = -((energies[:, None] - logs) ** 2) / (2 * sigma**2)
    exponent = exponent.masked_fill(~nonzero, -math.inf)
    if scaled:  # the same factor, taken out before it can underflow far from all eigenvalues
        exponent = exponent - exponent.max(1, keepdim=True).values
    return _signature(basis, exponent.exp(), landmarks, scaled=scaled)


def _signature(
    basis: Eigenbasis, weights: Tensor, landmarks: Tensor | Sequence[int] | None, *, scaled: bool
) -> Tensor:
    """Sum over eigenpairs of weights (T, K) times ``u_i(x)^2``, or times ``u_i(x) u_i(landmark)``."""
    if scaled:
        weights = weights / weights.sum(1, keepdim=True)
    if landmarks is None:
        return basis.vecs**2 @ weights.T
    index = as_tensor(landmarks, "landmarks")
    check_shape(check_index(index, basis.n_verts, "landmarks", what="vertices"), "L", "landmarks")
    seen = basis.vecs[index.long().to(basis.vecs.device)]  # (L, K)
    return basis.vecs @ (seen[:, None] * weights).reshape(-1, basis.k).T


def _spectral_range(basis: Eigenbasis) -> tuple[float, float]:
    """The smallest and the largest nonzero eigenvalue."""
    nonzero = basis.vals[basis.vals > ZERO * basis.vals[-1]]
    if nonzero.numel() == 0 or float(basis.vals[-1]) <= 0:
        raise ValueError(
            f"basis: all {basis.k} eigenvalues are zero, as of a surface in {basis.k} or more components (pieces that "
            "share no vertex, as the triangles of an STL file); join them with geoframe.repair(mesh, "
            "merge_vertices=True), keep one with keep_largest=True, or compute more eigenpairs than components"
        )
    return float(nonzero[0]), float(nonzero[-1])


def _grid(x: Tensor | Sequence[float], basis: Eigenbasis, name: str) -> Tensor:
    x = as_floats(x, name)
    check_shape(x, "T", name)
    if not x.numel():
        raise ValueError(f"{name}: expected at least one number, found none")
    return x.to(basis.vals)


def _linspace(low: float, high: float, n: int, basis: Eigenbasis) -> Tensor:
    return torch.linspace(low, high, n, dtype=basis.vals.dtype, device=basis.vals.device)
