"""Subdivision of triangles into four, with the matrix that says where each new vertex comes from."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from geoframe._check import check_choice, check_int
from geoframe._types import Ints
from geoframe.surface.mesh import Mesh
from geoframe.surface.topology import Edges, collapsed_faces, edges


def subdivide(mesh: Mesh, n: int = 1, *, scheme: str = "midpoint") -> tuple[Mesh, sp.csr_matrix]:
    """Split every triangle into four, n times; ``verts' = P @ verts`` with P (V', V) scipy CSR, float64.

    Each step has V' = V + E vertices, the old ones first, then one an edge in lexicographic order of its ends,
    and F' = 4 F faces, those of face f at 4 f to 4 f + 3 (its three corners, then the middle one). Rows of P are
    not negative and sum to 1, so P carries any function on the vertices, a batch of poses, and gradients.

    Args:
        mesh: (..., V, 3). Colours follow P; texture coordinates are split at the middle of their edges.
        n: number of steps, 0 or more.
        scheme: "midpoint" keeps the surface as it is; "loop" smooths it (Loop 1987). There edges of one
            triangle, or of more than two, are creases: their middle is the plain one, a vertex on two of them
            moves along the crease only (1/8, 3/4, 1/8), a vertex on another number of them stays.

    Raises:
        ValueError: unknown scheme, n negative, a face that names a vertex twice.
    """
    check_choice(scheme, ("midpoint", "loop"), "scheme")
    check_int(n, "n", low=0)
    faces = mesh.faces.cpu().numpy()
    bad = np.flatnonzero(collapsed_faces(faces))
    if len(bad):
        raise ValueError(
            f"faces: expected three different corners each, found {faces[bad[0]].tolist()} at face {bad[0]}; "
            "repair the mesh first (geoframe.surface.repair)"
        )
    P = sp.identity(mesh.n_verts, format="csr")
    for _ in range(n):
        table = edges(faces)
        P = (_midpoint if scheme == "midpoint" else _loop)(faces, table, P.shape[0]) @ P
        faces = _split(faces, table.face_edges, P.shape[0] - len(table.verts))
    uv, uv_faces = _split_uv(mesh, n)
    colors = None if mesh.colors is None else _apply(P, mesh.colors)
    new_faces = torch.from_numpy(faces).to(mesh.device)
    return Mesh(_apply(P, mesh.verts), new_faces, colors, uv, uv_faces), P


def _split(faces: Ints, face_edges: Ints, n_verts: int) -> Ints:
    """(4F, 3) faces over the old vertices and the edges, numbered from n_verts on."""
    a, b, c = faces.T
    bc, ca, ab = (face_edges + n_verts).T
    children = [np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    return np.stack(children, axis=1).reshape(-1, 3)


def _midpoint(faces: Ints, table: Edges, n_verts: int) -> sp.csr_matrix:
    """(V + E, V) the vertices themselves, then the middles of the edges."""
    E = len(table.verts)
    middle = sp.csr_matrix(
        (np.full(2 * E, 0.5), table.verts.ravel(), np.arange(0, 2 * E + 1, 2)), (E, n_verts)
    )
    return sp.vstack([sp.identity(n_verts), middle], format="csr")


def _loop(faces: Ints, table: Edges, n_verts: int) -> sp.csr_matrix:
    """(V + E, V) weights of Loop's scheme."""
    E, ends = len(table.verts), table.verts
    # edges: 1/2 of each end; a smooth one gives 1/8 of each to the two vertices across
    half = sp.csr_matrix((np.full(2 * E, 0.5), ends.ravel(), np.arange(0, 2 * E + 1, 2)), (E, n_verts))
    across = sp.coo_matrix(
        (np.full(faces.size, 0.125), (table.face_edges.ravel(), faces.ravel())), (E, n_verts)
    )
    smooth = (table.n_faces == 2).astype(float)
    edge_rows = sp.diags(1 - 0.25 * smooth) @ half + sp.diags(smooth) @ across.tocsr()

    i, j = np.r_[ends[:, 0], ends[:, 1]], np.r_[ends[:, 1], ends[:, 0]]
    crease = np.tile(table.n_faces != 2, 2)
    valence = np.bincount(i, minlength=n_verts)
    creases = np.bincount(i[crease], minlength=n_verts)
    n = np.maximum(valence, 1)
    beta = (5 / 8 - (3 / 8 + np.cos(2 * np.pi / n) / 4) ** 2) / n
    weight = np.where(creases[i] == 0, beta[i], np.where((creases[i] == 2) & crease, 1 / 8, 0.0))
    neighbours = sp.csr_matrix((weight, (i, j)), shape=(n_verts, n_verts))
    neighbours.eliminate_zeros()
    vertex_rows = neighbours + sp.diags(1 - np.asarray(neighbours.sum(1)).ravel())
    return sp.vstack([vertex_rows, edge_rows], format="csr")


def _split_uv(mesh: Mesh, n: int) -> tuple[Tensor | None, Tensor | None]:
    """Texture coordinates and their faces after n steps, each edge of the texture split in its middle."""
    if mesh.uv is None:
        return None, None
    faces = (mesh.faces if mesh.uv_faces is None else mesh.uv_faces).cpu().numpy()
    uv = mesh.uv
    for _ in range(n):
        ends, index = _texture_edges(faces)
        faces = _split(faces, index, len(uv))
        uv = torch.cat([uv, uv[torch.from_numpy(ends).to(uv.device)].mean(1)])
    return uv, None if mesh.uv_faces is None else torch.from_numpy(faces).to(uv.device)


def _texture_edges(faces: Ints) -> tuple[Ints, Ints]:
    """(E, 2) edges in lexicographic order and (F, 3) the one opposite to each corner.

    Unlike `topology.edges` for any faces: a texture may squeeze a triangle into an edge or a point.
    """
    ends = np.sort(np.stack([faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]], axis=-1), axis=-1).reshape(-1, 2)
    unique, index = np.unique(ends, axis=0, return_inverse=True)
    return unique, index.reshape(-1, 3)


def _apply(P: sp.csr_matrix, x: Tensor) -> Tensor:
    """``P @ x`` for x (..., V, D), in its dtype, on its device, differentiable."""
    coo = P.tocoo()
    index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    A = torch.sparse_coo_tensor(index, torch.from_numpy(coo.data), P.shape, check_invariants=True)
    columns = x.movedim(-2, 0)
    out = torch.sparse.mm(A.to(x.device, x.dtype), columns.reshape(len(columns), -1))
    return out.reshape(-1, *columns.shape[1:]).movedim(0, -2)
