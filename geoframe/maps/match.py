"""`match`: from two meshes to a map between them, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from geoframe._check import check_int
from geoframe.maps.convert import p2p_to_fmap
from geoframe.maps.fit import check_landmark_pairs, fit_landmarks
from geoframe.maps.quality import coverage, dirichlet_energy, inverted_share, orthogonality, round_trip
from geoframe.maps.reversible import reversible_refine
from geoframe.maps.zoomout import ZoomoutResult, zoomout
from geoframe.spectral.basis import Eigenbasis, eigenbasis
from geoframe.surface.mesh import Mesh
from geoframe.surface.operators import laplacian
from geoframe.surface.sampling import farthest_points

Progress = Callable[[str, float], None]

FIRST = 12  # functions of the first functional map: what a handful of landmarks can tell
LARGE = 20_000  # vertices from which refinement runs on samples
SAMPLES = 1_500
SIGNED = 6  # moving eigenfunctions whose signs are tried without landmarks: 2^6 starts
KEPT = 4  # candidates that are refined in full


@dataclass(frozen=True, eq=False)
class Match:
    """A map between two surfaces, both ways, and how good it looks without knowing the truth.

    Attributes:
        p2p_21: (V2,) int64, for every vertex of surface 2 a vertex of surface 1. p2p_12: (V1,), the other way.
        C_12: (K, K) functional map from 1 to 2 that belongs to p2p_21. C_21: the other way.
        basis1, basis2: the eigenbases.
        landmarks: (L, 2) rows (vertex of 1, vertex of 2), or None.
        energies: `dirichlet` (see `dirichlet_energy`), `coverage` of surface 1 in [0, 1], `round_trip` (mean
            distance 2 -> 1 -> 2 over sqrt(area), along edges), `inverted_share` in [0, 1], `orthogonality` of C_12.
        candidates: without landmarks, the maps that were compared, best first, each with its `energy` and terms.
        ambiguity: without landmarks, energy of the best candidate over that of the best really different one,
            in [0, 1]: near 1 the choice (say, of left and right) is a toss-up. None with landmarks.
        settings: what was computed with, by name.
    """

    p2p_21: Tensor
    p2p_12: Tensor
    C_12: Tensor
    C_21: Tensor
    basis1: Eigenbasis
    basis2: Eigenbasis
    landmarks: Tensor | None
    energies: dict[str, float]
    candidates: list[dict[str, Any]]
    ambiguity: float | None
    settings: dict[str, Any]


def match(
    mesh1: Mesh,
    mesh2: Mesh,
    landmarks: Tensor | None = None,
    *,
    k: int = 128,
    orientation: float = 1.0,
    progress: Progress | None = None,
) -> Match:
    """Match two meshes: every vertex of each gets a vertex of the other.

    With landmarks, a 12 x 12 functional map is fitted to them (`fit_landmarks`), refined both ways together by
    `zoomout` to k / 2 functions, and made smooth and reversible on all k (`reversible_refine`). Landmarks start
    the map and are not enforced after that: they are clicked by hand, and following them exactly was measured
    to cost accuracy elsewhere.

    Without landmarks, surfaces should be roughly isometric. The signs of the first 6 eigenfunctions that are not
    constant are tried in all combinations, each refined on samples; the best few that differ are refined in full
    and ranked by their energy. A left-right flip is as good an isometry as the true map, but turns the surface
    inside out: `orientation` makes it pay. Read `ambiguity` before you trust the choice.

    Surfaces of more than 20,000 vertices are refined on 1,500 samples each, without the reversible step.

    Args:
        mesh1: V1 vertices. mesh2: V2 vertices, any connectivity, scale and pose.
        landmarks: (L, 2) integers, rows (vertex of 1, vertex of 2); None to go without.
        k: number of eigenfunctions; more than the default follow poses of one animal more finely.
        orientation: without landmarks, weight of the share of inverted triangles in the ranking; 0 turns it off.
        progress: called with the name of a step and the share of all that is done, in [0, 1].

    Raises:
        TypeError, ValueError: not meshes, batches, k too large, landmarks out of range or empty, NaN.
    """
    tell = progress or (lambda step, done: None)
    for mesh, name in ((mesh1, "mesh1"), (mesh2, "mesh2")):
        if not isinstance(mesh, Mesh):
            raise TypeError(f"{name}: expected a Mesh, found {type(mesh).__name__}; load faces too")
        if mesh.verts.ndim != 2:
            raise ValueError(f"{name}: expected one pose, verts (V, 3), found {tuple(mesh.verts.shape)}")
    if mesh1.device != mesh2.device or mesh1.dtype != mesh2.dtype:
        raise ValueError(
            f"mesh2: expected {mesh1.dtype} on {mesh1.device}, found {mesh2.dtype} on {mesh2.device}; use .to()"
        )
    check_int(k, "k", low=2)
    tell("eigenbasis of surface 1", 0.0)
    basis1 = eigenbasis(mesh1, k)
    tell("eigenbasis of surface 2", 0.15)
    basis2 = eigenbasis(mesh2, k)
    candidates: list[dict[str, Any]] = []
    ambiguity = None
    if landmarks is None:
        tell("candidates", 0.3)
        found, candidates, ambiguity = _search(mesh1, mesh2, basis1, basis2, orientation)
    else:
        check_landmark_pairs(landmarks, basis1, basis2)
        tell("landmarks and ZoomOut", 0.3)
        C_12 = fit_landmarks(landmarks, basis1, basis2, min(FIRST, k))
        C_21 = fit_landmarks(landmarks.flip(1), basis2, basis1, min(FIRST, k))
        found = _refine(C_12, C_21, mesh1, mesh2, basis1, basis2)
    assert found.p2p_12 is not None
    p2p_21, p2p_12 = found.p2p_21, found.p2p_12
    large = max(mesh1.n_verts, mesh2.n_verts) > LARGE
    if not large:
        tell("reversible refinement", 0.6)
        W1, W2 = laplacian(mesh1)[0], laplacian(mesh2)[0]
        p2p_21, p2p_12 = reversible_refine(p2p_21, p2p_12, basis1, basis2, W1, W2)
    tell("measures", 0.9)
    C_12, C_21 = p2p_to_fmap(p2p_21, basis1, basis2), p2p_to_fmap(p2p_12, basis2, basis1)
    some = farthest_points(mesh2, 200) if large else None
    energies = {
        "dirichlet": dirichlet_energy(mesh1, mesh2, p2p_21),
        "coverage": coverage(mesh1, p2p_21),
        "round_trip": float(round_trip(mesh2, p2p_21, p2p_12, vertices=some).mean()),
        "inverted_share": inverted_share(mesh1, mesh2, p2p_21),
        "orthogonality": orthogonality(C_12),
    }
    tell("done", 1.0)
    settings: dict[str, Any] = {
        "k": k,
        "k_zoomout": _sizes(k)[-1],
        "samples": SAMPLES if large else None,
        "reversible": not large,
    }
    if landmarks is None:
        settings["orientation"] = orientation
    return Match(
        p2p_21, p2p_12, C_12, C_21, basis1, basis2, landmarks, energies, candidates, ambiguity, settings
    )


def _sizes(k: int, first: int = FIRST) -> list[int]:
    """Sizes of ZoomOut: from `first` in steps of 8 to k / 2, where species stop agreeing."""
    last = max(min(k, FIRST), k // 2)
    return sorted({min(first, last), *range(min(first, last), last, 8), last})


def _samples(mesh1: Mesh, mesh2: Mesh, n: int) -> tuple[Tensor, Tensor]:
    return tuple(farthest_points(m, min(n, m.n_verts)) for m in (mesh1, mesh2))  # type: ignore[return-value]


def _refine(
    C_12: Tensor, C_21: Tensor, mesh1: Mesh, mesh2: Mesh, basis1: Eigenbasis, basis2: Eigenbasis
) -> ZoomoutResult:
    large = max(mesh1.n_verts, mesh2.n_verts) > LARGE
    samples = _samples(mesh1, mesh2, SAMPLES) if large else None
    sizes = _sizes(basis1.k, len(C_12))
    return zoomout(C_12, basis1, basis2, sizes=sizes, samples=samples, bidirectional=True, init_21=C_21)


def _search(
    mesh1: Mesh, mesh2: Mesh, basis1: Eigenbasis, basis2: Eigenbasis, orientation: float
) -> tuple[ZoomoutResult, list[dict[str, Any]], float]:
    """Candidates from all signs of the first eigenfunctions: (best, all of them ranked, ambiguity)."""
    n = min(SIGNED, basis1.k - 1)
    samples = _samples(mesh1, mesh2, 400)
    last = min(40, basis1.k, *(len(s) // 3 for s in samples))
    scale = (basis2.mass.sum() / basis1.mass.sum()).sqrt()  # unit functions stay unit functions at unit areas
    starts = []
    for signs in product((1.0, -1.0), repeat=n):
        C = torch.diag(basis1.vecs.new_tensor((1.0, *signs))) * scale
        small = zoomout(
            C, basis1, basis2, k_final=max(last, n + 1), step=3, samples=samples, bidirectional=True
        )
        starts.append((_spectral_energy(small, basis1, basis2), small))
    starts.sort(key=lambda pair: pair[0])
    chosen: list[ZoomoutResult] = []
    for _, small in starts:
        if all(_differ(small, other, mesh1, samples[1]) for other in chosen):
            chosen.append(small)
        if len(chosen) == KEPT:
            break
    ranked = []
    for small in chosen:
        first = min(FIRST, last)
        assert small.C_21 is not None
        full = _refine(small.C_12[:first, :first], small.C_21[:first, :first], mesh1, mesh2, basis1, basis2)
        terms = {
            "spectral": _spectral_energy(full, basis1, basis2),
            "inverted_share": inverted_share(mesh1, mesh2, full.p2p_21),
            "dirichlet": dirichlet_energy(mesh1, mesh2, full.p2p_21),
        }
        ranked.append((terms["spectral"] + orientation * terms["inverted_share"], terms, full))
    ranked.sort(key=lambda row: row[0])
    best = ranked[0][2]
    other = [e for e, _, full in ranked[1:] if _differ(full, best, mesh1, samples[1])]
    ambiguity = ranked[0][0] / min(other) if other else 0.0
    candidates = [{"rank": i + 1, "energy": e, **terms} for i, (e, terms, _) in enumerate(ranked)]
    return best, candidates, float(ambiguity)


def _spectral_energy(result: ZoomoutResult, basis1: Eigenbasis, basis2: Eigenbasis) -> float:
    """How far the maps are from an isometry: not inverse to each other, not commuting with the Laplacians."""
    assert result.C_21 is not None
    C_12, C_21 = result.C_12.double(), result.C_21.double()
    k = len(C_12)
    area1, area2 = basis1.mass.double().sum(), basis2.mass.double().sum()
    C = C_12 * (area1 / area2).sqrt()
    lam1, lam2 = basis1.vals[:k].double() * area1, basis2.vals[:k].double() * area2
    commute = (C * lam1 - lam2[:, None] * C).square().sum() / lam1.square().sum()
    eye = torch.eye(k, dtype=C.dtype, device=C.device)
    inverse = ((C_21 @ C_12 - eye).square().sum() + (C_12 @ C_21 - eye).square().sum()) / (2 * k)
    return float(commute + inverse)


def _differ(a: ZoomoutResult, b: ZoomoutResult, mesh1: Mesh, at: Tensor) -> bool:
    """Whether two maps send the vertices `at` of surface 2 to places that are on average far apart."""
    gap = (mesh1.verts[a.p2p_21[at]] - mesh1.verts[b.p2p_21[at]]).norm(dim=-1).mean()
    return float(gap / mesh1.area.sqrt()) > 0.05
