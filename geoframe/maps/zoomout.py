"""ZoomOut: refine a map by going to vertices and back to ever more eigenfunctions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_finite, check_index, check_int, check_shape
from geoframe._threads import together
from geoframe.maps.convert import BLOCK, check_fmap, check_vertex_map, p2p_to_fmap
from geoframe.nearest.dense import lowest_score
from geoframe.nearest.guided import Patches, nearest_by_guess, patches
from geoframe.spectral.basis import Eigenbasis

DENSE = 16  # vertices a function from which it is faster to look near the vertices of the step before
FIRST = 20  # size of the first functional map when a vertex map is refined and nothing is said


@dataclass(frozen=True, eq=False)
class ZoomoutResult:
    """A refined map.

    Attributes:
        C_12: (K, K) functional map from 1 to 2, of the last size.
        p2p_21: (V2,) int64, the vertex map read from it.
        C_21: (K, K) functional map from 2 to 1; None unless `bidirectional`.
        p2p_12: (V1,) int64, the vertex map read from it; None unless `bidirectional`.
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
    sizes: Sequence[int] | None = None,
    samples: tuple[Tensor, Tensor] | None = None,
    bidirectional: bool = False,
    init_21: Tensor | None = None,
    landmarks: Tensor | None = None,
    landmark_weight: float = 1.0,
    block: int = BLOCK,
) -> ZoomoutResult:
    """Refine a map: vertices from k functions, then more functions from the vertices, and so on.

    Args:
        init: a functional map `C_12` (K2, K1), or a vertex map `p2p_21` (V2,), which becomes the functional map
            of the first size.
        basis1: K1 functions or more on surface 1.
        basis2: K2 functions or more on surface 2.
        k_final: the last size, by default all functions of the smaller basis.
        step: growth of the size. A vertex map starts at 20 (or k_final, if less).
        sizes: the sizes instead, ascending, such as (12, 16, 32, 64, 128, 256).
        samples: vertices (N1,) of surface 1 and (N2,) of surface 2 to refine on, well spread, such as
            ``farthest_points(mesh, 1000)`` of each; all vertices are found from the last functional map. On
            each side at least as many as functions; three times as many are safe.
        bidirectional: refine maps both ways together. Each vertex goes where both fit: `p2p_21` minimises
            ``|u1_i - C_12^T u2_j|^2 + |u2_j - C_21^T u1_i|^2`` over i, `p2p_12` over j: ``U2 C_12`` are the
            eigenfunctions of 1 pulled to 2, the best fit also where areas change. Smoother and nearer to a
            bijection, at twice the cost.
        init_21: with `bidirectional` and a functional map `init`, the functional map C_21 (K1, K2) to start the
            other way with; None for the transpose of `init` at unit areas, its inverse on isometric surfaces.
        landmarks: (L, 2) integers, rows (vertex of 1, vertex of 2), which the functional maps are to keep, in the
            sense of least squares.
        landmark_weight: weight of all landmarks together, where the surface has 1.
        block: number of scores held at a time (4 bytes each).

    Computed in float64 on the device of the bases; the result has their dtype. Both surfaces are taken at unit
    area, so that units do not matter. Nearest vertices are exact in every step; on the CPU, from 16 vertices a
    function, they are looked for near those of the step before, which is faster and changes nothing.

    Raises:
        TypeError, ValueError: wrong dtype or shape; sizes that do not ascend, or that a basis does not have;
            samples that do not tell the functions apart.

    Source: Melzi et al. 2019, ZoomOut; both directions together: Ren et al. 2020, MapTree.
    """
    check_int(block, "block", low=1)
    init = _checked_start(init, basis1, basis2)
    sizes = _sizes(init, basis1, basis2, k_final, step, sizes)
    anchors = None if landmarks is None else _anchors(landmarks, landmark_weight, basis1, basis2)
    work = _Work.of(
        init,
        init_21,
        basis1,
        basis2,
        sizes,
        samples=samples,
        anchors=anchors,
        both=bidirectional,
        block=block,
    )
    C_12, C_21, last = work.refined()
    p2p_21, p2p_12 = work.on_all_vertices(C_12, C_21, last)
    C_12, C_21 = work.in_own_units(C_12, C_21)
    return ZoomoutResult(C_12, p2p_21, C_21, p2p_12)


def zoomed_fmaps(
    init: Tensor,
    init_21: Tensor,
    basis1: Eigenbasis,
    basis2: Eigenbasis,
    sizes: Sequence[int],
    *,
    block: int = BLOCK,
) -> tuple[Tensor, Tensor]:
    """The functional maps C_12 and C_21 of `zoomout` in both directions together, without the last vertex maps.

    Args:
        init: the functional map C_12 (k, k) to start with.
        init_21: C_21 (k, k).
        basis1: of surface 1, on all vertices or as seen from samples that share the area.
        basis2: of surface 2, likewise.
        sizes: as in `zoomout`.
        block: number of scores held at a time.
    """
    some1, some2 = (torch.arange(b.n_verts, device=init.device) for b in (basis1, basis2))
    work = _Work.of(
        init, init_21, basis1, basis2, list(sizes), samples=(some1, some2), both=True, block=block
    )
    C_12, C_21, _ = work.refined()
    C_12, C_21 = work.in_own_units(C_12, C_21)
    assert C_21 is not None
    return C_12, C_21


@dataclass(frozen=True)
class _Side:
    """One surface at unit area, in float64.

    every: (V, K) eigenvectors. rows: (N, K), those of the vertices in use. weighted: rows times their share of
    the area. anchors: (L, K) rows of the landmarks times the root of their weight. factor: lower Cholesky factor
    of ``rows^T weighted + anchors^T anchors``, None where that is the identity; its leading blocks are the
    factors of fewer functions.
    """

    every: Tensor
    rows: Tensor
    weighted: Tensor
    anchors: Tensor | None
    factor: Tensor | None

    @classmethod
    def of(
        cls, basis: Eigenbasis, k: int, samples: Tensor | None, anchors: Tensor | None, name: str
    ) -> _Side:
        mass = basis.mass.double()
        every = basis.vecs[:, :k].double() * mass.sum().sqrt()
        if samples is None:
            rows, weighted = every, every * (mass / mass.sum())[:, None]
            if anchors is None:
                return cls(every, rows, weighted, None, None)
            gram = torch.eye(k, dtype=every.dtype, device=every.device)
        else:
            check_index(samples, len(every), f"samples of surface {name}", what="vertices")
            rows = every[samples.long()]
            weighted = rows / max(len(rows), 1)
            gram = rows.T @ weighted
        if anchors is not None:
            anchors = anchors[:, :k]
            gram = gram + anchors.T @ anchors
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed or float(factor.diagonal().min()) < 1e-6 * float(factor.diagonal().max()):
            raise ValueError(
                f"samples of surface {name}: {len(rows)} vertices do not tell {k} functions apart; "
                "take more, spread over all of the surface"
            )
        return cls(every, rows, weighted, anchors, factor)

    def fit(self, other: _Side, p2p: Tensor, k: int) -> Tensor:
        """C (k, k) from functions on `other` to functions on this side, p2p (N,) from this side to the other."""
        C = self.weighted[:, :k].T @ other.rows[:, :k][p2p]
        if self.anchors is not None and other.anchors is not None:
            C += self.anchors[:, :k].T @ other.anchors[:, :k]
        return C if self.factor is None else torch.cholesky_solve(C, self.factor[:k, :k])


Maps = tuple[Tensor, Tensor | None]  # p2p_21 and, of both directions, p2p_12


@dataclass(frozen=True)
class _Work:
    """What `zoomout` starts with, checked.

    C_12: (K2, K1) at unit areas. C_21: likewise, None for one direction. scale: of C_12, to unit areas. sizes: those
    still to come. samples: of both sides, or None. dtype: of the result.
    """

    one: _Side
    two: _Side
    C_12: Tensor
    C_21: Tensor | None
    scale: Tensor
    sizes: list[int]
    samples: tuple[Tensor, Tensor] | None
    block: int
    dtype: torch.dtype

    @classmethod
    def of(
        cls, init: Tensor, init_21: Tensor | None, basis1: Eigenbasis, basis2: Eigenbasis, sizes: list[int], *,
        samples: tuple[Tensor, Tensor] | None, anchors: tuple[Tensor, Tensor] | None = None, both: bool, block: int,
    ) -> _Work:  # fmt: skip
        if samples is not None:
            samples = as_tensor(samples[0], "samples", like=init), as_tensor(samples[1], "samples", like=init)
        (some1, some2), (anchors1, anchors2) = samples or (None, None), anchors or (None, None)
        one = _Side.of(basis1, sizes[-1], some1, anchors1, "1")
        two = _Side.of(basis2, sizes[-1], some2, anchors2, "2")
        scale = (basis1.mass.double().sum() / basis2.mass.double().sum()).sqrt()
        if init.ndim == 1:
            init = p2p_to_fmap(init, basis1.truncate(sizes[0]), basis2.truncate(sizes[0]))
            sizes = sizes[1:]
        elif sizes[0] == max(init.shape):
            sizes = sizes[1:]
        C_12 = init.double() * scale
        C_21 = C_12.T if both else None
        if init_21 is not None:
            C_21 = _checked_back(init_21, C_12, basis1, basis2, both).double() / scale
        return cls(one, two, C_12, C_21, scale, sizes, samples, block, basis2.vecs.dtype)

    def refined(self) -> tuple[Tensor, Tensor | None, Maps | None]:
        """C_12 and C_21 of the last size at unit areas, and the vertex maps of the rows in use before it."""
        one, two, C_12, C_21 = self.one, self.two, self.C_12, self.C_21
        cuts = _cuts(one.rows, two.rows, C_21 is not None, self.block)
        last = None
        for k in self.sizes:
            p2p_21, p2p_12 = _vertices(C_12, C_21, one.rows, two.rows, last, cuts, self.block)
            last = None if cuts is None else (p2p_21, p2p_12)
            C_12 = two.fit(one, p2p_21, k)
            C_21 = None if p2p_12 is None else one.fit(two, p2p_12, k)
        return C_12, C_21, last

    def on_all_vertices(self, C_12: Tensor, C_21: Tensor | None, last: Maps | None) -> Maps:
        """p2p_21 (V2,) and, of both directions, p2p_12 (V1,), read from the functional maps."""
        one, two = self.one, self.two
        cuts = _cuts(one.every, two.every, C_21 is not None, self.block)
        if self.samples is not None:  # all vertices, for the first time
            last = None if cuts is None else _among_samples(C_12, C_21, one, two, *self.samples, self.block)
        return _vertices(C_12, C_21, one.every, two.every, last, cuts, self.block)

    def in_own_units(self, C_12: Tensor, C_21: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The functional maps between the surfaces as they are, in the dtype of the bases."""
        C_21 = None if C_21 is None else (C_21 * self.scale).to(self.dtype)
        return (C_12 / self.scale).to(self.dtype), C_21


def _checked_back(
    init_21: Tensor, C_12: Tensor, basis1: Eigenbasis, basis2: Eigenbasis, both: bool
) -> Tensor:
    """The functional map to start the other way with, which must fit C_12 (K2, K1)."""
    init_21 = as_tensor(init_21, "init_21", like=C_12)
    if not both or C_12.shape != init_21.T.shape:
        raise ValueError(
            f"init_21: expected {tuple(C_12.T.shape)}, a functional map as init, and bidirectional=True, "
            f"found {tuple(init_21.shape)} and bidirectional={both}"
        )
    init_21 = check_fmap(init_21, basis2, basis1, "init_21")
    check_finite(init_21, "init_21")
    return init_21


def _cuts(U1: Tensor, U2: Tensor, both: bool, block: int) -> tuple[Patches | None, Patches] | None:
    """Patches of the queries, on surface 1 only for `both` directions; None where brute force is as fast."""
    if U1.device.type != "cpu" or min(len(U1), len(U2)) < DENSE * U1.shape[1]:
        return None
    return patches(U1, block // len(U2)) if both else None, patches(U2, block // len(U1))


def _vertices(
    C_12: Tensor,
    C_21: Tensor | None,
    U1: Tensor,
    U2: Tensor,
    last: Maps | None,
    cuts: tuple[Patches | None, Patches] | None,
    block: int,
) -> Maps:
    """p2p_21 of `C_12`, or p2p_21 and p2p_12 of both maps together; `last` is what it was before."""
    U1, U2 = U1[:, : C_12.shape[1]], U2[:, : C_12.shape[0]]
    guess_21, guess_12 = last or (None, None)
    cut1, cut2 = cuts or (None, None)
    if C_21 is None:
        return _nearest(U2, U1 @ C_12.T, guess_21, cut2, block), None
    # |u1 - C_12^T u2|^2 + |u2 - C_21^T u1|^2 = |x1|^2 + |x2|^2 - 2 u2 . (C_12 + C_21^T) u1
    x1, x2 = torch.cat([U1, U1 @ C_21], 1), torch.cat([U2 @ C_12, U2], 1)
    carried = U1 @ (C_12.T + C_21)
    p2p_21, p2p_12 = together(
        lambda: _nearest(U2, carried, guess_21, cut2, block, bias=x1.square().sum(1), whole=x2),
        lambda: _nearest(carried, U2, guess_12, cut1, block, bias=x2.square().sum(1), whole=x1),
    )
    return p2p_21, p2p_12


def _among_samples(
    C_12: Tensor, C_21: Tensor | None, one: _Side, two: _Side, samples1: Tensor, samples2: Tensor, block: int
) -> Maps:
    """As `_vertices` of all vertices, where only samples may be hit."""
    p2p_21 = _vertices(C_12, C_21, one.rows, two.every, None, None, block)[0]
    p2p_12 = _vertices(C_12, C_21, one.every, two.rows, None, None, block)[1] if C_21 is not None else None
    return samples1[p2p_21], None if p2p_12 is None else samples2[p2p_12]


def _nearest(
    query: Tensor,
    points: Tensor,
    guess: Tensor | None,
    cut: Patches | None,
    block: int,
    bias: Tensor | None = None,
    whole: Tensor | None = None,
) -> Tensor:
    """Index (Q,) of the nearest of the points, by the guess where there is one."""
    if guess is None or cut is None:
        return lowest_score(query, points, bias, block=block)
    return nearest_by_guess(query, points, guess, cut, block=block, bias=bias, whole=whole)


def _anchors(
    landmarks: Tensor, weight: float, basis1: Eigenbasis, basis2: Eigenbasis
) -> tuple[Tensor, Tensor]:
    """Rows (L, K) of the landmarks on both sides at unit area, times the root of their weight."""
    landmarks = as_tensor(landmarks, "landmarks", like=basis1.vecs)
    L = check_shape(landmarks, "L 2", "landmarks")["L"]
    if L == 0:
        raise ValueError("landmarks: expected at least one row, found none; leave landmarks out instead")
    if not weight >= 0:
        raise ValueError(f"landmark_weight: expected a number of at least 0, found {weight}")
    sides = []
    for side, basis in enumerate((basis1, basis2)):
        column = check_index(landmarks[:, side], basis.n_verts, f"landmarks[:, {side}]", what="vertices")
        area = basis.mass.double().sum()
        sides.append(basis.vecs.double()[column.long()] * (area * weight / L).sqrt())
    return sides[0], sides[1]


def _checked_start(init: Tensor, basis1: Eigenbasis, basis2: Eigenbasis) -> Tensor:
    """A vertex map or a functional map as a tensor that fits the bases."""
    init = as_tensor(init, "init", like=basis1.vecs)
    if init.ndim == 1:
        return check_vertex_map(init, basis1, basis2, "init")
    init = check_fmap(init, basis1, basis2, "init")
    check_finite(init, "init")
    return init


def _sizes(
    init: Tensor,
    basis1: Eigenbasis,
    basis2: Eigenbasis,
    k_final: int | None,
    step: int,
    sizes: Sequence[int] | None,
) -> list[int]:
    """Check the sizes against the start and the bases; the sizes, at least one, the last being the final one."""
    most = min(basis1.k, basis2.k)
    least = 1 if init.ndim == 1 else max(init.shape)
    if sizes is None:
        last = most if k_final is None else check_int(k_final, "k_final", low=least, high=most)
        first = min(FIRST, last) if init.ndim == 1 else min(least, last)
        check_int(step, "step", low=1)
        return [*range(first, last, step), last]
    if k_final is not None:
        raise ValueError("sizes: expected either sizes or k_final, found both; drop one")
    out = [check_int(k, "sizes", low=least, high=most) for k in sizes]
    if not out or any(a >= b for a, b in pairwise(out)):
        raise ValueError(f"sizes: expected ascending numbers of functions, found {out}")
    return out
