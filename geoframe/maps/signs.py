"""First maps from the signs of the lowest eigenfunctions, all at once on a few samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from geoframe.spectral.basis import Eigenbasis

BLOCK = 2**22  # scores held at a time, 4 bytes each


def refined_signs(
    basis1: Eigenbasis, basis2: Eigenbasis, n: int, sizes: Sequence[int], *, block: int = BLOCK
) -> tuple[Tensor, Tensor, Tensor]:
    """Every choice of signs of the n eigenfunctions after the constant one, refined both ways like `zoomout`.

    All choices take each step together, in float32: each is cheap, and there are 2^n.

    Args:
        basis1: of surface 1 as seen from N1 samples that share its area.
        basis2: of surface 2 as seen from N2 samples.
        n: how many functions have a sign.
        sizes: numbers of functions, ascending, from more than n on.
        block: number of scores held at a time.

    Returns:
        signs: (2^n, n) of 1 and -1.
        C_12: (2^n, k, k) with k the last size, in the dtype of `basis2`; C_21 likewise.

    Source: Melzi et al. 2019, ZoomOut; both directions as in `zoomout`.
    """
    scale = (basis1.mass.double().sum() / basis2.mass.double().sum()).sqrt()
    signs = torch.tensor(list(product((1.0, -1.0), repeat=n)), device=basis1.vecs.device)
    rows = [
        (b.vecs[:, : sizes[-1]].double() * b.mass.double().sum().sqrt()).float() for b in (basis1, basis2)
    ]
    grams = [u.double().T @ u.double() / len(u) for u in rows]
    factors = [torch.linalg.cholesky(g).float() for g in grams]
    step = max(1, block // (len(rows[0]) * len(rows[1])))
    (U1, U2), (L1, L2) = rows, factors
    found = [_refine(s, U1, U2, L1, L2, sizes) for s in signs.split(step)]
    C_12, C_21 = (torch.cat(x).to(basis2.vecs.dtype) for x in zip(*found, strict=True))
    return signs, C_12 / scale, C_21 * scale


def _refine(
    signs: Tensor, U1: Tensor, U2: Tensor, L1: Tensor, L2: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """C_12 and C_21 (S, k, k) of the signs (S, n), between surfaces of unit area."""
    C_12 = torch.diag_embed(torch.cat([signs.new_ones(len(signs), 1), signs], 1))
    C_21 = C_12
    for k in sizes:
        V1, V2 = U1[:, : C_12.shape[-1]], U2[:, : C_12.shape[-1]]
        product_21 = (V2 @ (C_12 + C_21.mT)) @ V1.T  # (S, N2, N1)
        bias1 = (V1.square().sum(1) + (V1 @ C_21).square().sum(2)) / 2
        bias2 = (V2.square().sum(1) + (V2 @ C_12).square().sum(2)) / 2
        p2p_21 = (product_21 - bias1[:, None, :]).max(2).indices
        p2p_12 = (product_21 - bias2[:, :, None]).max(1).indices
        C_12, C_21 = _fit(U1, U2, L2, p2p_21, k), _fit(U2, U1, L1, p2p_12, k)
    return C_12, C_21


def _fit(there: Tensor, here: Tensor, factor: Tensor, to: Tensor, k: int) -> Tensor:
    """(S, k, k) functional maps of vertex maps `to` (S, N) from the samples here to those there."""
    C = here[:, :k].T @ there[:, :k][to] / len(here)
    return torch.cholesky_solve(C, factor[:k, :k].expand(len(C), k, k))
