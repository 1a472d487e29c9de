"""Eigenbases of the Laplace-Beltrami operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from geoframe._cache import cached_arrays
from geoframe._check import as_floats, check_choice, check_int, check_shape
from geoframe._types import Floats, Ints
from geoframe.spectral._lanczos import lowest_pairs
from geoframe.spectral.approximate import approximate_pairs
from geoframe.surface.health import outliers
from geoframe.surface.mesh import Mesh, PointCloud
from geoframe.surface.operators import laplacian

REPEATED = 1e-9  # eigenvalues closer than this, relatively, count as one repeated eigenvalue


@dataclass(frozen=True, eq=False)
class Eigenbasis:
    """K lowest eigenpairs of ``W u = lambda M u``, with ``vecs^T diag(mass) vecs = I``.

    Attributes:
        vals: (K,) ascending eigenvalues, in 1 / length^2.
        vecs: (V, K) eigenvectors, one a column.
        mass: (V,) lumped vertex areas, in length^2.
    """

    vals: Tensor
    vecs: Tensor
    mass: Tensor

    def __post_init__(self) -> None:
        for name in ("vals", "vecs", "mass"):
            object.__setattr__(self, name, as_floats(getattr(self, name), name))
        K = check_shape(self.vals, "K", "vals")["K"]
        sizes = check_shape(self.vecs, "V K", "vecs")
        if sizes["K"] != K:
            raise ValueError(f"vecs: expected {K} columns, one an eigenvalue, found {sizes['K']}")
        if self.mass.shape != (sizes["V"],):
            raise ValueError(f"mass: expected shape ({sizes['V']},), found {tuple(self.mass.shape)}")

    def __repr__(self) -> str:
        return f"Eigenbasis(V={self.n_verts}, K={self.k}, {self.vecs.dtype}, {self.vecs.device})"

    @property
    def k(self) -> int:
        """Number of eigenpairs K."""
        return self.vals.shape[0]

    @property
    def n_verts(self) -> int:
        """Number of vertices V."""
        return self.vecs.shape[0]

    def project(self, f: Tensor) -> Tensor:
        """Coefficients (K, ...) of vertex functions `f` (V, ...): ``vecs^T M f``."""
        f = f if isinstance(f, Tensor) else as_floats(f, "f").to(self.vecs)
        return torch.tensordot(self.vecs.T, self.mass.reshape(-1, *[1] * (f.ndim - 1)) * f, dims=1)

    def lift(self, coefficients: Tensor) -> Tensor:
        """Vertex functions (V, ...) with the given coefficients (K', ...), K' <= K."""
        if not isinstance(coefficients, Tensor):
            coefficients = as_floats(coefficients, "coefficients").to(self.vecs)
        return torch.tensordot(self.vecs[:, : coefficients.shape[0]], coefficients, dims=1)

    def truncate(self, k: int) -> Eigenbasis:
        """The first k pairs."""
        check_int(k, "k", low=1, high=self.k)
        return Eigenbasis(self.vals[:k], self.vecs[:, :k], self.mass)

    def to(self, *args: Any, **kwargs: Any) -> Eigenbasis:
        """Move or cast like `torch.Tensor.to`."""
        return Eigenbasis(*(x.to(*args, **kwargs) for x in (self.vals, self.vecs, self.mass)))


def eigenbasis(
    surface: Mesh | PointCloud,
    k: int = 128,
    *,
    kind: str = "auto",
    mass: str = "barycentric",
    method: str = "exact",
    cache: bool = True,
) -> Eigenbasis:
    """The k lowest eigenpairs of ``W u = lambda M u`` on a mesh or point cloud, ``vecs^T diag(mass) vecs = I``.

    Args:
        surface: V vertices or points.
        k: from 1 to the number of vertices with area.
        kind: of the Laplacian, see `geoframe.surface.laplacian`.
        mass: how areas are lumped, see there.
        method: "exact", every pair to a relative residual of 1e-6 or better (eigenvalues to about 1e-12) and
            none missing, certified by inertia; "approximate", see `geoframe.spectral.approximate`.
        cache: keep the result on disk, keyed on W, M and k (see `geoframe._cache`).

    Returns:
        Eigenbasis with vals (k,) ascending and vecs (V, k), in the dtype and on the device of the surface.

    Several components are solved one by one and merged: each vector lives on one component, and of equal
    eigenvalues those of the larger component come first. Vertices without area (unreferenced ones) have zero
    rows; all else is as if they were not there. Signs: the entry of largest magnitude is positive (of several
    within 1e-4, the first). Of a repeated eigenvalue only the eigenspace is defined: its basis is chosen by
    projecting fixed pseudo-random functions of the vertex index, so it does not depend on the solver, the
    number of threads or the start vector beyond rounding, but it does depend on the order of the vertices.

    Raises:
        ValueError: k out of range, a batch, NaN, or no certified result.
    """
    check_choice(method, ("exact", "approximate"), "method")
    check_int(k, "k", low=1)
    key = ("eigenbasis", kind, mass, method)
    held: dict[str, Eigenbasis] = surface.once(key, dict)
    if not held or held["basis"].k < k:
        held["basis"] = _eigenbasis(surface, k, kind, mass, method, cache)
    basis = held["basis"]
    return basis if basis.k == k else basis.truncate(k)


def kept_basis(surface: Mesh, basis: Eigenbasis | None = None) -> Eigenbasis | None:
    """The eigenbasis that a `geoframe.Surface` keeps for `eigenbasis` with its default options, if any.

    Args:
        surface: a plain mesh keeps none.
        basis: one to be kept from now on, computed elsewhere.
    """
    held: dict[str, Eigenbasis] = surface.once(("eigenbasis", "auto", "barycentric", "exact"), dict)
    if basis is not None:
        held["basis"] = basis
    return held.get("basis")


def _eigenbasis(
    surface: Mesh | PointCloud, k: int, kind: str, mass: str, method: str, cache: bool
) -> Eigenbasis:
    W, M = laplacian(surface, kind=kind, mass=mass)
    used = np.flatnonzero(M > 0)
    if not used.size:
        raise ValueError("surface: no vertex has any area; expected at least one proper triangle")
    if k > used.size:
        raise ValueError(
            f"k: expected at most {used.size}, the number of vertices with area, found {k}; "
            "use fewer eigenpairs or subdivide"
        )
    W = W.tocsr()
    x = surface.points if isinstance(surface, PointCloud) else surface.verts
    points = x.detach().double().cpu().numpy()[used] if method == "approximate" else None

    def compute() -> dict[str, np.ndarray]:
        part = W[used][:, used] if used.size < len(M) else W
        try:
            vals, vecs = _lowest_of_all(part, M[used], k, points)
        except ValueError as err:
            raise ValueError(f"{err}{_why(x)}") from err
        if used.size < len(M):
            vecs, part = np.zeros((len(M), k)), vecs
            vecs[used] = part
        return {"vals": vals, "vecs": vecs}

    parts = ("eigenbasis", method, k, W.data, W.indices, W.indptr, M, points)
    found = cached_arrays(parts, compute) if cache else compute()
    arrays = (found["vals"], found["vecs"], M)
    return Eigenbasis(*(torch.as_tensor(a).to(dtype=x.dtype, device=x.device) for a in arrays))


def _why(positions: Tensor) -> str:
    """What may be the reason that the surface with these positions (V, 3) has no spectrum, and what to do."""
    far = outliers(positions.detach().double().cpu().numpy())
    if not len(far):
        return "; see geoframe.health(mesh), repair the mesh, or use kind='tufted'"
    verb = f"{len(far)} vertices lie" if len(far) > 1 else "1 vertex lies"
    return f"; {verb} very far from all others, first {far[0]}: geoframe.repair(mesh, drop_outliers=True)"


def _lowest_of_all(W: sp.csr_matrix, mass: Floats, k: int, points: Floats | None) -> tuple[Floats, Floats]:
    """The k lowest pairs, vals (k,) and vecs (n, k), of a surface that may fall into components.

    They are exact, or approximate where positions (n, 3) are given.
    """
    members = _components(W, mass)[:k]  # each has an eigenvalue zero: no more than k can matter
    areas = np.array([mass[i].sum() for i in members])
    caps = np.array([min(len(i), k - len(members) + 1) for i in members])
    wanted = np.minimum(caps, np.ceil(1.1 * k * areas / areas.sum() + 4).astype(int))
    pairs: list[tuple[Floats, Floats]] = [(np.zeros(0), np.zeros((0, 0)))] * len(members)
    while True:
        for c, i in enumerate(members):
            if len(pairs[c][0]) < wanted[c]:
                part = W if len(i) == len(mass) else W[i][:, i]
                if points is None:
                    vals, vecs = lowest_pairs(part, mass[i], int(wanted[c]))
                else:
                    vals, vecs = approximate_pairs(part, mass[i], points[i], int(wanted[c]))
                pairs[c] = vals, _canonical(vals, vecs, mass[i])
        limit = np.sort(np.concatenate([vals for vals, _ in pairs]))[k - 1 :][:1]
        short = [
            c
            for c, (vals, _) in enumerate(pairs)
            if len(vals) < caps[c] and (not limit.size or vals[-1] < limit[0])
        ]
        if not short:
            return _merge(pairs, members, len(mass), k)
        wanted[short] = np.minimum(caps[short], 2 * wanted[short])


def _components(W: sp.csr_matrix, mass: Floats) -> list[Ints]:
    """Vertex indices of the connected components, the largest area first, then by first vertex."""
    linked = W.copy()
    linked.eliminate_zeros()
    n, label = sp.csgraph.connected_components(linked, directed=False)
    members = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    area = np.bincount(label, mass, minlength=n)
    return [members[c] for c in np.lexsort((np.arange(n), -area))]


def _merge(pairs: list[tuple[Floats, Floats]], members: list[Ints], n: int, k: int) -> tuple[Floats, Floats]:
    """The k lowest of all components' pairs; equal eigenvalues in the order of the components."""
    if len(members[0]) == n:
        vals, vecs = pairs[0]
        return vals[:k], np.ascontiguousarray(vecs[:, :k])
    vals = np.concatenate([v for v, _ in pairs])
    component = np.repeat(np.arange(len(pairs)), [len(v) for v, _ in pairs])
    column = np.concatenate([np.arange(len(v)) for v, _ in pairs])
    order = np.argsort(vals, kind="stable")
    cluster = np.empty(len(vals), dtype=np.int64)
    cluster[order] = _clusters(vals[order])
    chosen = np.lexsort((column, component, cluster))[:k]
    vecs = np.zeros((n, k))
    for c in np.unique(component[chosen]):
        of_c = np.flatnonzero(component[chosen] == c)
        vecs[np.ix_(members[c], of_c)] = pairs[c][1][:, column[chosen][of_c]]
    return np.sort(vals[chosen]), vecs


def _clusters(vals: Floats) -> Ints:
    """Number the groups of equal (to REPEATED) eigenvalues among ascending `vals`."""
    return np.cumsum(np.r_[False, np.diff(vals) > REPEATED * vals[1:]])


def _canonical(vals: Floats, vecs: Floats, mass: Floats) -> Floats:
    """Give the eigenspaces in `vecs` (n, j) the basis that `eigenbasis` documents, in place."""
    for i in range(0, len(vals), 32):
        part = vecs[:, i : i + 32]
        size = np.abs(part)
        first = np.argmax(size >= (1 - 1e-4) * size.max(0), axis=0)
        part *= np.where(part[first, np.arange(part.shape[1])] < 0, -1.0, 1.0)
    cluster = _clusters(vals)
    for c in np.flatnonzero(np.bincount(cluster) > 1):
        of_c = np.flatnonzero(cluster == c)
        probes = np.random.default_rng(0).standard_normal((len(mass), len(of_c)))
        Q, R = np.linalg.qr(vecs[:, of_c].T @ (mass[:, None] * probes))
        vecs[:, of_c] = vecs[:, of_c] @ (Q * np.where(R.diagonal() < 0, -1.0, 1.0))
    return vecs
