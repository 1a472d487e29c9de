"""ZoomOut: refine a map by alternating between vertices and growing numbers of eigenfunctions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe._check import check_int, check_tensor
from geoframe.maps.convert import check_fmap, check_vertex_map, fmap_to_p2p, p2p_to_fmap
from geoframe.spectral.basis import Eigenbasis


@dataclass(frozen=True, eq=False)
class ZoomoutResult:
    """A refined map.

    Attributes:
        C_12: (K, K) functional map from 1 to 2 in the last size.
        p2p_21: (V2,) int64, its vertex map from 2 to 1.
        C_21, p2p_12: the map the other way, None unless `bidirectional`.
    """

    C_12: Tensor
    p2p_21: Tensor
    C_21: Tensor | None = None
    p2p_12: Tensor | None = None


def zoomout(
    init: Tensor,
    basis1: Eigenbasis,
    basis2: Eigenbasis,
    *,
    k_final: int | None = None,
    step: int = 1,
) -> ZoomoutResult:
    """Refine `init`, a `C_12` (K2, K1) or a `p2p_21` (V2,), to `k_final` functions in steps of `step`.

    Each step turns the map of k functions into a vertex map and that into the map of k + step functions.

    Source: Melzi et al. 2019, ZoomOut: spectral upsampling for efficient shape correspondence.
    """
    C_12 = init
    ks = list(range(C_12.shape[0] + step, k_final + 1, step))
    for k in ks:
        p2p_21 = fmap_to_p2p(C_12, basis1, basis2)
        C_12 = p2p_to_fmap(p2p_21, basis1.truncate(k), basis2.truncate(k))
    return ZoomoutResult(C_12, fmap_to_p2p(C_12, basis1, basis2))
