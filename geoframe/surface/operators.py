"""Discrete operators of a surface, computed from squared edge lengths.

Signs and forms: the Laplacian is the positive semi-definite stiffness matrix `W` (weak form), to be used
with a mass `M`: ``W u = lambda M u``. Sparse matrices are scipy CSR, float64, on the CPU.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from geoframe._check import check_finite
from geoframe.surface.mesh import Mesh


def edge_lengths_squared(mesh: Mesh) -> NDArray[np.float64]:
    """(F, 3) squared lengths of the edges opposite to each corner, in squared mesh units."""
    check_finite(mesh.verts, "verts")
    v = mesh.verts.detach().double().cpu().numpy()
    f = mesh.faces.cpu().numpy()
    a, b, c = v[f[:, 0]], v[f[:, 1]], v[f[:, 2]]
    return np.stack([((b - c) ** 2).sum(1), ((c - a) ** 2).sum(1), ((a - b) ** 2).sum(1)], axis=1)


def cotangent_laplacian_intrinsic(
    l_sq: NDArray[np.float64], faces: NDArray[np.int64], n_verts: int
) -> sp.csr_matrix:
    """Stiffness matrix (V, V) from squared edge lengths (F, 3): off-diagonal -(cot a + cot b) / 2."""
    area = face_areas_intrinsic(l_sq)
    half_cot = (l_sq.sum(1, keepdims=True) - 2 * l_sq) / (8 * np.where(area > 0, area, np.inf))[:, None]
    i = faces[:, [1, 2, 0]].ravel()
    j = faces[:, [2, 0, 1]].ravel()
    w = half_cot.ravel()
    W = sp.coo_matrix((np.r_[-w, -w, w, w], (np.r_[i, j, i, j], np.r_[j, i, i, j])), shape=(n_verts, n_verts))
    return W.tocsr()


def face_areas_intrinsic(l_sq: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,) triangle areas from squared edge lengths (F, 3), by Heron's formula in Kahan's stable order."""
    a, b, c = np.sort(np.sqrt(l_sq), axis=1)[:, ::-1].T
    s = (a + (b + c)) * (c - (a - b)) * (c + (a - b)) * (a + (b - c))
    return 0.25 * np.sqrt(np.maximum(s, 0.0))


def mass_barycentric_intrinsic(
    l_sq: NDArray[np.float64], faces: NDArray[np.int64], n_verts: int
) -> NDArray[np.float64]:
    """(V,) a third of the area of the triangles around each vertex."""
    area = face_areas_intrinsic(l_sq) / 3
    return np.bincount(faces.ravel(), np.repeat(area, 3), minlength=n_verts)


def laplacian(mesh: Mesh) -> tuple[sp.csr_matrix, NDArray[np.float64]]:
    """Cotangent stiffness matrix W (V, V) and lumped mass (V,) of a mesh."""
    l_sq, f = edge_lengths_squared(mesh), mesh.faces.cpu().numpy()
    return (
        cotangent_laplacian_intrinsic(l_sq, f, mesh.n_verts),
        mass_barycentric_intrinsic(l_sq, f, mesh.n_verts),
    )
