"""Eigenbases of the Laplace-Beltrami operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_float, check_int, check_shape
from geoframe.surface.mesh import Mesh
from geoframe.surface.operators import laplacian


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
        K = check_shape(check_float(self.vals, "vals"), "K", "vals")["K"]
        sizes = check_shape(check_float(self.vecs, "vecs"), "V K", "vecs")
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
        return torch.tensordot(self.vecs.T, self.mass.reshape(-1, *[1] * (f.ndim - 1)) * f, dims=1)

    def lift(self, coefficients: Tensor) -> Tensor:
        """Vertex functions (V, ...) with the given coefficients (K', ...), K' <= K."""
        return torch.tensordot(self.vecs[:, : coefficients.shape[0]], coefficients, dims=1)

    def truncate(self, k: int) -> Eigenbasis:
        """The first k pairs."""
        check_int(k, "k", low=1, high=self.k)
        return Eigenbasis(self.vals[:k], self.vecs[:, :k], self.mass)

    def to(self, *args: Any, **kwargs: Any) -> Eigenbasis:
        """Move or cast like `torch.Tensor.to`."""
        return Eigenbasis(*(x.to(*args, **kwargs) for x in (self.vals, self.vecs, self.mass)))


def eigenbasis(mesh: Mesh, k: int = 128) -> Eigenbasis:
    """The k lowest eigenpairs of a mesh."""
    import scipy.sparse as sp
    import scipy.sparse.linalg as sla

    W, m = laplacian(mesh)
    s = 1e-8 * W.diagonal().sum() / m.sum()
    from cholespy import CholeskySolverD, MatrixType

    A = (W + s * sp.diags(m)).tocoo()
    solver = CholeskySolverD(W.shape[0], A.row, A.col, A.data, MatrixType.COO)

    def solve(b: np.ndarray) -> np.ndarray:
        b = np.ascontiguousarray(b, dtype=np.float64).reshape(-1)
        x = np.zeros_like(b)
        solver.solve(b, x)
        return x

    op = sla.LinearOperator(W.shape, matvec=solve, dtype=np.float64)
    vals, vecs = sla.eigsh(W, k, M=sp.diags(m).tocsc(), sigma=-s, OPinv=op)
    to = {"dtype": mesh.dtype, "device": mesh.device}
    return Eigenbasis(*(torch.as_tensor(x).to(**to) for x in (vals, vecs, m)))
