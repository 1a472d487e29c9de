"""Discrete operators of a surface, computed from squared edge lengths.

The core functions (`*_intrinsic`) know only the squared edge lengths ``l_sq (F, 3)``, column i opposite to
corner i of ``faces (F, 3)``; the others measure a surface and delegate.

Signs and forms: the Laplacian is the positive semi-definite stiffness matrix `W` (weak form), to be used
with a lumped mass `M`: ``W u = lambda M u``. With the gradient `G` and the triangle areas `A` (each counted
three times) ``W = G^T A G``. Sparse matrices are scipy CSR, float64, on the CPU.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from geoframe._check import check_choice, check_finite, check_shape
from geoframe._types import Floats, Ints
from geoframe.surface.mesh import Mesh, PointCloud
from geoframe.surface.topology import collapsed_faces

NEIGHBORS = 30  # of a point of a cloud, for its local triangulation (Sharp & Crane 2020)
LARGEST = 1e60  # coordinate, so that products of four lengths stay within float64
MOLLIFY = 1e-6  # least excess of the triangle inequality, relative to the triangle's longest edge


def laplacian(
    surface: Mesh | PointCloud, *, kind: str = "auto", mass: str = "barycentric"
) -> tuple[sp.csr_matrix, Floats]:
    """Stiffness matrix W (V, V), symmetric positive semi-definite, and lumped mass (V,) in squared mesh units.

    Args:
        surface: a mesh, or a point cloud (then V is its number of points).
        kind: "cotangent", the piecewise linear finite elements of the mesh as it is; "tufted", those of the
            intrinsic Delaunay triangulation of its tufted cover, or of local triangulations of a point cloud;
            "equilateral", that of the mesh if all edges had the length 1, also in its masses, whatever its positions;
            "auto", cotangent for a mesh whose edges have at most two triangles each, tufted for the rest.
        mass: "barycentric", a third of the triangles around a vertex, or "voronoi", its mixed Voronoi cell
            (meshes only).

    Degenerate triangles are fattened just enough to have finite weights (see `mollify_intrinsic`). Triangles
    that name a vertex twice bound no surface and count for nothing; of duplicates, each counts. A vertex
    without triangles has a zero row and zero mass.

    Raises:
        ValueError: unknown `kind` or `mass`, a batch, NaN, or what a point cloud cannot have.

    Source: Pinkall & Polthier 1993 (cotangent); Sharp & Crane 2020, A Laplacian for Nonmanifold Triangle
        Meshes (tufted, through the package robust_laplacian).
    """
    check_choice(kind, ("auto", "cotangent", "tufted", "equilateral"), "kind")
    check_choice(mass, ("barycentric", "voronoi"), "mass")
    if isinstance(surface, PointCloud):
        return surface.once(("laplacian", kind, mass), lambda: _laplacian_of_points(surface, kind, mass))
    if kind == "auto":
        faces, n = _proper_faces(surface), surface.n_verts
        manifold = surface.once("edge-manifold", lambda: is_edge_manifold(faces, n))
        kind = "cotangent" if manifold else "tufted"
    return surface.once(("laplacian", kind, mass), lambda: _laplacian_of_mesh(surface, kind, mass))


def _laplacian_of_mesh(mesh: Mesh, kind: str, mass: str) -> tuple[sp.csr_matrix, Floats]:
    faces, n_verts = _proper_faces(mesh), mesh.n_verts
    if kind == "equilateral":
        _positions(mesh)  # checked, although they do not count
        l_sq, kind = np.ones(faces.shape), "cotangent"
    else:
        l_sq = mollify_intrinsic(edge_lengths_squared(mesh, faces))
    lump = mass_voronoi_intrinsic if mass == "voronoi" else mass_barycentric_intrinsic
    if kind == "cotangent":
        return cotangent_laplacian_intrinsic(l_sq, faces, n_verts), lump(l_sq, faces, n_verts)
    W, M = _tufted(_positions(mesh), faces[l_sq.any(1)])
    return W, M if mass == "barycentric" else lump(l_sq, faces, n_verts)


def gradient(mesh: Mesh) -> sp.csr_matrix:
    """Gradient operator G (3F, V): ``(G @ u).reshape(F, 3)`` is the constant gradient of u on each triangle.

    It is exact for linear functions, tangent to the triangle, in units of u per mesh unit. ``G^T A G``, A the
    areas ``np.repeat(areas, 3)``, is the cotangent stiffness matrix of `laplacian`: for a degenerate triangle
    both use its mollified edge lengths, and the plane of the gradient is any plane through its longest edge.

    Raises:
        ValueError: a batch, or NaN.
    """
    faces, v = mesh.faces.cpu().numpy(), _positions(mesh)
    F = len(faces)
    proper = ~collapsed_faces(faces)
    l_sq = mollify_intrinsic(edge_lengths_squared(mesh))
    # Lay each triangle out in the plane, its longest edge from (0, 0) to (base, 0), the third corner at (x, y).
    turn = (l_sq.argmax(1)[:, None] + np.array([1, 2, 0])) % 3
    corner = np.take_along_axis(faces, turn, 1)
    l_sq = np.take_along_axis(l_sq, turn, 1)
    base = np.sqrt(l_sq[:, 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (l_sq[:, 1] + l_sq[:, 2] - l_sq[:, 0]) / (2 * base)
        y = 2 * face_areas_intrinsic(l_sq) / base
        flat = np.stack(  # (F, corner, 2) gradients of the three hat functions
            [np.stack([-1 / base, (x - base) / (base * y)], 1),
             np.stack([1 / base, -x / (base * y)], 1),
             np.stack([np.zeros(F), 1 / y], 1)], 1)  # fmt: skip
    flat[~(proper & (base > 0))] = 0
    values = np.einsum("fci,fid->fdc", flat, _frames(v, corner))
    indices = np.repeat(corner[:, None, :], 3, axis=1).ravel()
    G = sp.csr_matrix((values.ravel(), indices, np.arange(0, 9 * F + 1, 3)), shape=(3 * F, mesh.n_verts))
    G.sum_duplicates()
    return G


def divergence(mesh: Mesh) -> sp.csr_matrix:
    """Integrated divergence D (V, 3F) of per-triangle vectors: ``D = -G^T A``, so that ``D G = -W``.

    ``D @ X.ravel()``, X (F, 3), is the flux of X out of each vertex's hat function, in units of X times length
    (divide by the mass for a pointwise value). On a closed surface it sums to zero.
    """
    area = face_areas_intrinsic(mollify_intrinsic(edge_lengths_squared(mesh)))
    return -(gradient(mesh).T @ sp.diags(np.repeat(area, 3))).tocsr()


def edge_lengths_squared(mesh: Mesh, faces: Ints | None = None) -> Floats:
    """(F, 3) squared lengths of the edges opposite to each corner, in squared mesh units."""
    v = _positions(mesh)
    f = mesh.faces.cpu().numpy() if faces is None else faces
    a, b, c = (v.take(f[:, i], axis=0) for i in range(3))
    return np.stack([np.einsum("ij,ij->i", e, e) for e in (b - c, c - a, a - b)], axis=1)


def mollify_intrinsic(l_sq: Floats, relative: float = MOLLIFY) -> Floats:
    """Squared edge lengths (F, 3) in which every triangle has positive area; good triangles are untouched.

    Where ``b + c - a < relative * a``, a the longest edge, the same length is added to all three edges to
    reach that bound. A collinear triangle becomes so a thin one whose stiff weights hold its middle vertex on
    the opposite edge, as it should be, instead of leaving a slit in the surface. Only a triangle of three
    equal positions keeps its zeros.

    Source: Sharp & Crane 2020, section 4.5; differs: done per triangle and relative to it, so that one bad
        triangle does not move the spectrum of all the others.
    """
    lengths = np.sqrt(l_sq)
    longest = lengths.max(1)
    lack = (2 + relative) * longest - lengths.sum(1)
    bad = (lack > 0) & (longest > 0)
    if not bad.any():
        return l_sq
    # with e added everywhere the excess grows by e, the bound by relative * e
    added = lack[bad] / (1 - relative)
    out = l_sq.copy()
    out[bad] = (lengths[bad] + added[:, None]) ** 2
    return out


def cotangent_laplacian_intrinsic(l_sq: Floats, faces: Ints, n_verts: int) -> sp.csr_matrix:
    """Stiffness matrix (V, V) from squared edge lengths (F, 3): off-diagonal -(cot a + cot b) / 2.

    A triangle of zero area contributes nothing; `mollify_intrinsic` the lengths first where it should.
    """
    w = half_cotangents(l_sq).ravel()
    i, j = faces[:, [1, 2, 0]].ravel(), faces[:, [2, 0, 1]].ravel()
    S = sp.coo_matrix((w, (np.minimum(i, j), np.maximum(i, j))), shape=(n_verts, n_verts)).tocsr()
    S = S + S.T
    return (sp.diags(np.asarray(S.sum(1)).ravel()) - S).tocsr()


def face_areas_intrinsic(l_sq: Floats) -> Floats:
    """(F,) triangle areas from squared edge lengths (F, 3), by Heron's formula in Kahan's stable order."""
    lengths = np.sqrt(l_sq)
    a, c = lengths.max(1), lengths.min(1)
    b = np.median(lengths, axis=1)
    s = (a + (b + c)) * (c - (a - b)) * (c + (a - b)) * (a + (b - c))
    return 0.25 * np.sqrt(np.maximum(s, 0.0))


def mass_barycentric_intrinsic(l_sq: Floats, faces: Ints, n_verts: int) -> Floats:
    """(V,) a third of the area of the triangles around each vertex."""
    area = face_areas_intrinsic(l_sq) / 3
    return np.bincount(faces.ravel(), np.repeat(area, 3), minlength=n_verts).astype(np.float64)


def mass_voronoi_intrinsic(l_sq: Floats, faces: Ints, n_verts: int) -> Floats:
    """(V,) mixed Voronoi area: the Voronoi cell, clipped to halves and quarters in obtuse triangles.

    Source: Meyer, Desbrun, Schröder & Barr 2003, section 3.3.
    """
    area = face_areas_intrinsic(l_sq)[:, None]
    cell = l_sq * half_cotangents(l_sq) / 4  # of the edge opposite to each corner, for each of its two ends
    obtuse = 2 * l_sq > l_sq.sum(1, keepdims=True)
    part = np.where(
        obtuse.any(1, keepdims=True),
        np.where(obtuse, area / 2, area / 4),
        cell.sum(1, keepdims=True) - cell,
    )
    return np.bincount(faces.ravel(), part.ravel(), minlength=n_verts).astype(np.float64)


def is_edge_manifold(faces: Ints, n_verts: int) -> bool:
    """Whether no edge belongs to more than two of the triangles `faces` (F, 3)."""
    i, j = faces, faces[:, [1, 2, 0]]
    key = np.sort((np.minimum(i, j) * n_verts + np.maximum(i, j)).ravel())
    return not bool((key[2:] == key[:-2]).any())


def _positions(mesh: Mesh) -> Floats:
    """(V, 3) float64 coordinates of a single finite mesh."""
    check_shape(mesh.verts, "V 3", "verts")
    check_finite(mesh.verts, "verts")
    verts = mesh.verts.detach().double().cpu().numpy()
    if verts.size and np.abs(verts).max() > LARGEST:
        at = int(np.abs(verts).max(1).argmax())
        raise ValueError(
            f"verts: expected coordinates up to {LARGEST:.0e}, found {np.abs(verts[at]).max():.3g} at vertex {at}; "
            "remove it with geoframe.repair(mesh, drop_outliers=True), or change the unit"
        )
    return verts


def _proper_faces(mesh: Mesh) -> Ints:
    """The triangles with three different corners."""
    faces = mesh.faces.cpu().numpy()
    bad = collapsed_faces(faces)
    return faces[~bad] if bad.any() else faces


def half_cotangents(l_sq: Floats) -> Floats:
    """(F, 3) half the cotangent at each corner; zero in triangles without area."""
    area = face_areas_intrinsic(l_sq)
    return (l_sq.sum(1, keepdims=True) - 2 * l_sq) / (8 * np.where(area > 0, area, np.inf))[:, None]


def _frames(v: Floats, corner: Ints) -> Floats:
    """(F, 2, 3) orthonormal tangent vectors, the first along corner 0 to 1; any plane where there is no area."""
    edge = v[corner[:, 1]] - v[corner[:, 0]]
    normal = np.cross(edge, v[corner[:, 2]] - v[corner[:, 0]])
    length = np.linalg.norm(edge, axis=1, keepdims=True)
    along = edge / np.where(length > 0, length, 1)
    thin = np.linalg.norm(normal, axis=1) <= 1e-12 * length[:, 0] ** 2
    normal[thin] = np.cross(along[thin], np.eye(3)[np.abs(along[thin]).argmin(1)])
    across = np.cross(normal, along)
    size = np.linalg.norm(across, axis=1, keepdims=True)
    return np.stack([along, across / np.where(size > 0, size, 1)], axis=1)


def _tufted(v: Floats, faces: Ints) -> tuple[sp.csr_matrix, Floats]:
    """The tufted Laplacian on the vertices that have triangles; zero rows elsewhere."""
    import robust_laplacian

    n_verts = len(v)
    used, compact = np.unique(faces, return_inverse=True)
    if used.size == 0:
        return sp.csr_matrix((n_verts, n_verts)), np.zeros(n_verts)
    W, M = robust_laplacian.mesh_laplacian(v[used], compact.reshape(-1, 3))
    mass = np.zeros(n_verts)
    mass[used] = M.diagonal()
    W = W.tocoo()
    return sp.csr_matrix((W.data, (used[W.row], used[W.col])), shape=(n_verts, n_verts)), mass


def _laplacian_of_points(cloud: PointCloud, kind: str, mass: str) -> tuple[sp.csr_matrix, Floats]:
    if kind in ("cotangent", "equilateral"):
        raise ValueError(f"kind: a point cloud has no triangles for {kind!r}; use 'auto' or 'tufted'")
    if mass == "voronoi":
        raise ValueError("mass: a point cloud has no triangles for 'voronoi'; use 'barycentric'")
    N = check_shape(cloud.points, "N 3", "points")["N"]
    check_finite(cloud.points, "points")
    if N < 4:
        raise ValueError(f"points: expected at least 4 points for a Laplacian, found {N}")
    import robust_laplacian

    points = cloud.points.detach().double().cpu().numpy()
    try:
        W, M = robust_laplacian.point_cloud_laplacian(points, n_neighbors=min(NEIGHBORS, N - 1))
    except RuntimeError as err:
        raise ValueError(
            "points: expected points that spread over a surface, found none to triangulate around some of them; "
            "points on a line or at one place have no Laplacian"
        ) from err
    return W.tocsr(), M.diagonal()
