"""A first functional map, from landmarks or from descriptors."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import as_floats, as_tensor, check_index, check_int, check_shape
from geoframe.spectral.basis import Eigenbasis
from geoframe.surface.mesh import Mesh


def fmap_from_landmarks(
    landmarks: Tensor, basis1: Eigenbasis, basis2: Eigenbasis, k: int = 12, *, regularisation: float = 0.1
) -> Tensor:
    """Functional map `C_12` (k, k) that keeps pairs of landmarks.

    Minimises, at unit areas, ``mean_l |u2(l2) C - u1(l1)|^2 + regularisation * sum_ij d_ij C_ij^2`` with
    ``d_ij = (lambda2_i - lambda1_j)^2 / max``: C should commute with the Laplacians. With fewer landmarks than
    functions the first term leaves directions open; the second decides them by what an isometry does, which
    sends a frequency to the same frequency, and so stays solvable from one landmark on. A plain ridge would
    instead pull C to zero, hence the map to a point.

    Args:
        landmarks: (L, 2) integers, rows (vertex of 1, vertex of 2), L >= 1.
        basis1: at least k functions on surface 1.
        basis2: at least k functions on surface 2.
        k: size of C, small: few landmarks determine low frequencies only.
        regularisation: weight of the second term, positive.

    Raises:
        TypeError, ValueError: no landmarks, index out of range, k larger than a basis.

    Source: Ovsjanikov et al. 2012, Functional Maps, sec. 5, with point constraints.
    """
    landmarks = check_landmark_pairs(landmarks, basis1.n_verts, basis2.n_verts)
    check_int(k, "k", low=1, high=min(basis1.k, basis2.k))
    area1, area2 = basis1.mass.double().sum(), basis2.mass.double().sum()
    a = basis1.vecs[:, :k].double()[landmarks[:, 0].long()] * area1.sqrt()
    b = basis2.vecs[:, :k].double()[landmarks[:, 1].long()] * area2.sqrt()
    penalty = _commuting_penalty(basis1, basis2, k)
    # One small system for each column j of C: its entries share the matrix b^T b and differ in the penalty.
    gram = b.T @ b / len(a)
    systems = gram + regularisation * torch.diag_embed(penalty.T)
    C = torch.linalg.solve(systems, (b.T @ a / len(a)).T.unsqueeze(-1)).squeeze(-1).T
    return (C * (area2 / area1).sqrt()).to(basis2.vecs.dtype)


def fmap_from_descriptors(
    f1: Tensor,
    f2: Tensor,
    basis1: Eigenbasis,
    basis2: Eigenbasis,
    k: int = 20,
    *,
    regularisation: float = 0.1,
    commutativity: float = 0.0,
    orientation: float = 0.0,
    meshes: tuple[Mesh, Mesh] | None = None,
) -> Tensor:
    """Functional map `C_12` (k, k) that sends descriptor functions of surface 1 to those of surface 2.

    Minimises, at unit areas, over C::

        |C A1 - A2|^2 / p + regularisation * sum d_ij C_ij^2
          + commutativity * mean_q |C X1_q - X2_q C|^2
          + orientation * mean_q |C Y1_q - Y2_q C|^2

    with A the spectral coefficients of the p descriptors, each scaled to unit norm, d as in `fmap_from_landmarks`
    (Laplacian commutativity), X_q multiplication by descriptor q, and Y_q the operator g -> n . (grad f_q x
    grad g), scaled to unit norm. Descriptors such as `wks` are the same on the left and on the right; Y_q
    changes its sign under a reflection, so the last term prefers maps that keep the outside outside.

    Args:
        f1: (V1, p) descriptors of surface 1, such as `wks`, `hks` or functions of landmarks.
        f2: (V2, p) the corresponding descriptors of surface 2.
        basis1: at least k functions on surface 1.
        basis2: at least k functions on surface 2.
        k: size of C. The system has k^2 unknowns and is dense: up to 40 or so.
        regularisation: weight of the second term, positive.
        commutativity: weight of the third term.
        orientation: weight of the last term; it needs the `meshes`, with faces counter-clockwise from outside.
        meshes: surfaces 1 and 2, for `orientation` only.

    Raises:
        TypeError, ValueError: wrong shape, k larger than a basis, `orientation` without `meshes`.

    Source: Nogneng & Ovsjanikov 2017, Informative Descriptor Preservation via Commutativity; Ren et al. 2018,
        Continuous and Orientation-preserving Correspondences via Functional Maps.
    """
    f1, f2 = as_floats(f1, "f1").to(basis1.vecs.device), as_floats(f2, "f2").to(basis2.vecs.device)
    for f, basis, name in ((f1, basis1, "f1"), (f2, basis2, "f2")):
        check_shape(f, "V p", name)
        if len(f) != basis.n_verts:
            raise ValueError(
                f"{name}: expected {basis.n_verts} rows, one a vertex of its basis, found {len(f)}"
            )
    if f1.shape[1] != f2.shape[1]:
        raise ValueError(f"f2: expected {f1.shape[1]} descriptors as in f1, found {f2.shape[1]}")
    check_int(k, "k", low=1, high=min(basis1.k, basis2.k))
    A1, A2 = _coefficients(f1, basis1, k), _coefficients(f2, basis2, k)
    if not (commutativity > 0 or orientation > 0):
        return _preserving(A1, A2, basis1, basis2, regularisation)
    scaled1, scaled2 = _unit_norm(f1, basis1), _unit_norm(f2, basis2)
    u1, m1 = _unit_area(basis1, k)
    u2, m2 = _unit_area(basis2, k)
    p = f1.shape[1]
    penalty = _commuting_penalty(basis1, basis2, k)
    eye = torch.eye(k, dtype=A1.dtype, device=A1.device)
    # Row-major vec(C): C X -> kron(I, X^T), X C -> kron(X, I).
    H = torch.kron(eye, A1 @ A1.T / p) + regularisation * torch.diag(penalty.reshape(-1))
    if commutativity > 0:
        both = zip((u1, u2), (m1[:, None] * scaled1, m2[:, None] * scaled2), strict=True)
        H += commutativity / p * _commuting(*(_products(u, f) for u, f in both))
    if orientation > 0:
        if meshes is None:
            raise ValueError("meshes: expected both surfaces for the orientation term, found None")
        sides = zip(meshes, (scaled1, scaled2), (u1, u2), strict=True)
        Y1, Y2 = (_turning_operators(mesh, f, u) for mesh, f, u in sides)
        unit = (Y1.norm(dim=(1, 2)) * Y2.norm(dim=(1, 2))).clamp_min(torch.finfo(Y1.dtype).tiny).sqrt()
        H += orientation / p * _commuting(Y1 / unit[:, None, None], Y2 / unit[:, None, None])
    C = torch.linalg.solve(H, (A2 @ A1.T / p).reshape(-1)).reshape(k, k)
    return _at_own_areas(C, basis1, basis2)


def fmaps_from_descriptors(
    f1: Tensor, f2: Tensor, basis1: Eigenbasis, basis2: Eigenbasis, k: int, *, regularisation: float
) -> tuple[Tensor, Tensor]:
    """The maps `C_12` and `C_21` of `fmap_from_descriptors` in both directions; coefficients are computed once.

    Args:
        f1: (V1, p) descriptors of surface 1.
        f2: (V2, p) the corresponding descriptors of surface 2.
        basis1: at least k functions on surface 1.
        basis2: at least k functions on surface 2.
        k: size of the maps.
        regularisation: weight of the commutativity with the Laplacians, positive.
    """
    A1, A2 = _coefficients(f1, basis1, k), _coefficients(f2, basis2, k)
    return (
        _preserving(A1, A2, basis1, basis2, regularisation),
        _preserving(A2, A1, basis2, basis1, regularisation),
    )


def _coefficients(f: Tensor, basis: Eigenbasis, k: int) -> Tensor:
    """(k, p) of the functions f (V, p) at unit norm, in the first k functions at unit area."""
    u, m = _unit_area(basis, k)
    return (m[:, None] * u).T @ f.double() / _norms(f, basis)


def _preserving(A1: Tensor, A2: Tensor, basis1: Eigenbasis, basis2: Eigenbasis, weight: float) -> Tensor:
    """The C_12 (k, k) of least ``|C A1 - A2|^2 / p + weight * sum d_ij C_ij^2`` with A1, A2 (k, p)."""
    k, p = A1.shape
    # One small system for each row i of C: they share the matrix A1 A1^T and differ in the penalty.
    systems = A1 @ A1.T / p + weight * torch.diag_embed(_commuting_penalty(basis1, basis2, k))
    C = torch.linalg.solve(systems, (A2 @ A1.T / p).unsqueeze(-1)).squeeze(-1)
    return _at_own_areas(C, basis1, basis2)


def _at_own_areas(C: Tensor, basis1: Eigenbasis, basis2: Eigenbasis) -> Tensor:
    """A functional map at unit areas as one at the surfaces' own areas, in the dtype of the bases."""
    return (C * (basis2.mass.double().sum() / basis1.mass.double().sum()).sqrt()).to(basis2.vecs.dtype)


def _commuting(X1: Tensor, X2: Tensor) -> Tensor:
    """Quadratic form (k^2, k^2) of the sum of ``|C X1_q - X2_q C|^2`` in the row-major vec(C); X1 and X2 (p, k, k).

    With ``R_q = kron(I, X1_q^T) - kron(X2_q, I)`` it is the sum of ``R_q^T R_q``, multiplied out: the products of
    Kronecker factors are summed over q first, so that no matrix of k^2 rows is multiplied.
    """
    p, k, _ = X1.shape
    eye = torch.eye(k, dtype=X1.dtype, device=X1.device)
    square1, square2 = torch.einsum("qij,qlj->il", X1, X1), torch.einsum("qji,qjl->il", X2, X2)
    crossed = (X2.reshape(p, -1).T @ X1.reshape(p, -1)).view(k, k, k, k)  # [a, b, c, d]: sum of X2_ab X1_cd
    crossed = crossed.transpose(1, 2).reshape(k * k, k * k)  # kron(X2_q, X1_q)
    return torch.kron(eye, square1) + torch.kron(square2, eye) - crossed - crossed.T


def _products(u: Tensor, f: Tensor) -> Tensor:
    """(p, k, k) multiplication by each of the functions f (V, p), times the areas, in the functions u (V, k)."""
    return torch.stack([(f * column[:, None]).T @ u for column in u.T], 1)


def _turning_operators(mesh: Mesh, f: Tensor, u: Tensor) -> Tensor:
    """(p, k, k) of g -> n . (grad f_q x grad g) in the functions u (V, k), of f (V, p).

    Its integral over a triangle needs no metric: it is half the determinant of the differences of f and g along
    two edges. Each corner takes a third.
    """
    p, k = f.shape[1], u.shape[1]
    out = u.new_zeros(k, p * k)
    for faces in mesh.faces.split(4096):  # so that what is held stays in the order of 50 MB
        a, b, c = f[faces].unbind(1)
        slope = torch.stack([c - b, a - c, b - a], 2) / 2  # (F, p, 3)
        corners = u[faces]  # (F, 3, k)
        out += corners.mean(1).T @ (slope @ corners).flatten(1)
    return out.view(k, p, k).transpose(0, 1)


def check_landmark_pairs(landmarks: Tensor, n1: int, n2: int) -> Tensor:
    """Require landmarks that the two surfaces have.

    Args:
        landmarks: (L, 2) integers, rows (vertex of 1, vertex of 2).
        n1: number of vertices of surface 1.
        n2: number of vertices of surface 2.

    Returns:
        The landmarks as a tensor.

    Raises:
        TypeError, ValueError: not integers, another shape, no row, a vertex that a surface lacks.
    """
    landmarks = as_tensor(landmarks, "landmarks")
    check_shape(landmarks, "L 2", "landmarks")
    if len(landmarks) < 1:
        raise ValueError("landmarks: expected at least 1 pair, found none; leave them out to match without")
    check_index(landmarks[:, 0], n1, "landmarks[:, 0]", what="vertices of surface 1")
    check_index(landmarks[:, 1], n2, "landmarks[:, 1]", what="vertices of surface 2")
    return landmarks


def _commuting_penalty(basis1: Eigenbasis, basis2: Eigenbasis, k: int) -> Tensor:
    """(k, k) squared differences of eigenvalues at unit area, in [0, 1], bounded away from zero."""
    lam1 = basis1.vals[:k].double() * basis1.mass.double().sum()
    lam2 = basis2.vals[:k].double() * basis2.mass.double().sum()
    d = (lam2[:, None] - lam1[None, :]) ** 2
    return d / d.max().clamp_min(torch.finfo(d.dtype).tiny) + 1e-6


def _unit_area(basis: Eigenbasis, k: int) -> tuple[Tensor, Tensor]:
    area = basis.mass.double().sum()
    return basis.vecs[:, :k].double() * area.sqrt(), basis.mass.double() / area


def _norms(f: Tensor, basis: Eigenbasis) -> Tensor:
    """(p,) of the functions f (V, p) at unit area, positive."""
    square = (basis.mass.double() / basis.mass.double().sum()) @ f.double().square()
    return square.sqrt().clamp_min(torch.finfo(torch.float64).tiny)


def _unit_norm(f: Tensor, basis: Eigenbasis) -> Tensor:
    return f.double() / _norms(f, basis)
