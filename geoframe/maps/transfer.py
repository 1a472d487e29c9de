"""Carry what lives on surface 1 to surface 2: functions, labels, landmarks, texture coordinates, embeddings.

All go from 1 to 2 with the map whose vertices go from 2 to 1, `p2p_21`; the other way exchange the surfaces.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from geoframe._check import as_floats, as_tensor, check_index, check_shape
from geoframe.maps.convert import check_fmap
from geoframe.maps.precise import BarycentricMap
from geoframe.spectral.basis import Eigenbasis
from geoframe.surface.mesh import Mesh


def transfer_functions(f1: Tensor, map_21: Tensor | BarycentricMap) -> Tensor:
    """(V2, ...) vertex functions on surface 2 from `f1` (V1, ...) on surface 1: ``f1[p2p_21]``.

    Args:
        f1: any dtype with a vertex map; floating with a `BarycentricMap`, which interpolates in triangles.
        map_21: `p2p_21` (V2,) integers, or a `BarycentricMap`.
    """
    if isinstance(map_21, BarycentricMap):
        return map_21.apply(f1)
    f1 = as_tensor(f1, "f1")
    if f1.ndim == 0:
        raise ValueError("f1: expected a row a vertex of surface 1, found a single number")
    return f1[_check_vertices(map_21, len(f1)).to(f1.device).long()]


def transfer_spectral(f1: Tensor, C_12: Tensor, basis1: Eigenbasis, basis2: Eigenbasis) -> Tensor:
    """(V2, ...) smooth functions on surface 2 from `f1` (V1, ...): ``U2 C_12 U1^T M1 f1``.

    Only what K1 functions express of `f1` is carried. With the rows of vertex embeddings E (V1, D) as `f1` this
    is E' = T E.

    Args:
        f1: (V1, ...) floating.
        C_12: (K2, K1) functional map.
        basis1: at least K1 functions on surface 1.
        basis2: at least K2 functions on surface 2.

    Raises:
        TypeError, ValueError: not floating, or shapes that do not fit.

    Source: Neverova et al. 2020, Continuous surface embeddings, section 3.3.
    """
    C_12 = check_fmap(C_12, basis1, basis2)
    f1 = as_floats(f1, "f1").to(basis1.vecs.device)
    if f1.ndim == 0 or len(f1) != basis1.n_verts:
        raise ValueError(
            f"f1: expected {basis1.n_verts} rows, one a vertex of surface 1, found {tuple(f1.shape)}"
        )
    K2, K1 = C_12.shape
    c1 = basis1.truncate(K1).project(f1.to(basis1.vecs.dtype))
    return basis2.truncate(K2).lift(torch.tensordot(C_12.to(c1.dtype), c1, dims=1)).to(f1.dtype)


def transfer_labels(labels1: Tensor, map_21: Tensor | BarycentricMap) -> Tensor:
    """(V2,) labels on surface 2 from integer or boolean `labels1` (V1,) on surface 1, in their dtype.

    A vertex map takes the label of the vertex; a `BarycentricMap` the label with the largest weight in the
    triangle, corners of one label together, of equal ones the smallest label. Labels are never averaged.

    Args:
        labels1: (V1,) integers or booleans.
        map_21: `p2p_21` (V2,) integers, or a `BarycentricMap`.

    Raises:
        TypeError, ValueError: floating labels, or shapes and indices that do not fit.
    """
    labels1 = as_tensor(labels1, "labels1")
    check_shape(labels1, "V1", "labels1")
    if labels1.is_floating_point() or labels1.is_complex():
        raise TypeError(
            f"labels1: expected integers or booleans, found {labels1.dtype}; use transfer_functions"
        )
    if not isinstance(map_21, BarycentricMap):
        return transfer_functions(labels1, map_21)
    if len(labels1) != map_21.n_verts:
        raise ValueError(
            f"labels1: expected {map_21.n_verts} entries, one a vertex of surface 1, found {len(labels1)}"
        )
    candidates = labels1[map_21.corners]  # (V2, 3)
    same = candidates[:, :, None] == candidates[:, None, :]
    weight = (same * map_21.barycentric[:, None, :]).sum(2)
    largest = weight >= weight.max(1, keepdim=True).values * (1 - 1e-6)
    order = candidates.long().masked_fill(~largest, torch.iinfo(torch.int64).max)
    return candidates.gather(1, order.argmin(1, keepdim=True))[:, 0]


def transfer_landmarks(landmarks1: Tensor, p2p_21: Tensor, mesh1: Mesh, mesh2: Mesh) -> Tensor:
    """(L,) vertices of surface 2 for the vertices `landmarks1` (L,) of surface 1, against the arrow of `p2p_21`.

    `p2p_21` says where vertices of 2 come from, so a landmark of 1 may have several vertices of 2, or none: taken
    are those whose image is nearest to the landmark (straight, on surface 1), and of several with that image the
    one nearest to their mean on surface 2. For landmarks on 2, ``p2p_21[landmarks2]`` is the answer on 1; with a
    map the other way, ``p2p_12[landmarks1]`` is the answer on 2.

    Args:
        landmarks1: (L,) vertices of surface 1.
        p2p_21: (V2,) integers, for every vertex of surface 2 a vertex of surface 1.
        mesh1: surface 1.
        mesh2: surface 2.

    Returns:
        (L,) int64.

    Raises:
        TypeError, ValueError: not integers, or shapes and indices that do not fit.
    """
    landmarks1 = as_tensor(landmarks1, "landmarks1", like=mesh1.verts)
    check_index(landmarks1, mesh1.n_verts, "landmarks1", what="vertices of surface 1")
    check_shape(landmarks1, "L", "landmarks1")
    p2p_21 = _check_vertices(p2p_21, mesh1.n_verts, mesh2.n_verts)
    images = mesh1.verts[p2p_21.long()]
    out = torch.empty(len(landmarks1), dtype=torch.int64, device=landmarks1.device)
    for n, vertex in enumerate(landmarks1.tolist()):
        distance = (images - mesh1.verts[vertex]).norm(dim=1)
        nearest = (distance == distance.min()).nonzero()[:, 0]
        there = mesh2.verts[nearest]
        out[n] = nearest[(there - there.mean(0)).norm(dim=1).argmin()]
    return out


def transfer_uv(mesh1: Mesh, mesh2: Mesh, map_21: Tensor | BarycentricMap) -> Mesh:
    """Surface 2 with the texture coordinates of surface 1, one for each corner of each triangle.

    A corner takes the coordinate of its image on surface 1. On a seam of the texture a vertex has several
    coordinates, and a triangle may have its corners on both sides: all corners are then taken on one side, that
    which fits best, and a corner that would jump to the other side is placed by continuing the texture of the
    best corner linearly. So no triangle is smeared across the texture; along seams it may show a little of what
    lies just outside a chart.

    Args:
        mesh1: surface 1, with `uv`.
        mesh2: surface 2.
        map_21: `p2p_21` (V2,) integers, or a `BarycentricMap`.

    Returns:
        `mesh2` with `uv` and `uv_faces` in place of its own.
    """
    if mesh1.uv is None:
        raise ValueError("mesh1: expected texture coordinates (uv), found none")
    uv, faces2 = mesh1.uv.double(), mesh2.faces
    if isinstance(map_21, BarycentricMap):
        if map_21.n_verts != mesh1.n_verts or len(map_21.face) != mesh2.n_verts:
            raise ValueError("map_21: expected a map from the vertices of mesh2 to mesh1, found other sizes")
        corners = uv[_uv_faces(mesh1)[map_21.face]]
        option_uv = (map_21.barycentric.double()[..., None] * corners).sum(1)[:, None]  # (V2, 1, 2)
        option_face = map_21.face[:, None]
        place = map_21.apply(mesh1.verts).double()
    else:
        map_21 = _check_vertices(map_21, mesh1.n_verts, mesh2.n_verts)
        chart_uv, option_face = _vertex_options(mesh1)
        option_uv, option_face = chart_uv[map_21.long()], option_face[map_21.long()]
        place = mesh1.verts[map_21.long()].double()
    corner_uv = _fit_corners(place[faces2], option_uv[faces2], option_face[faces2], mesh1)
    unique, index = torch.unique(corner_uv.reshape(-1, 2).to(mesh2.dtype), dim=0, return_inverse=True)
    return replace(mesh2, uv=unique, uv_faces=index.reshape(-1, 3))


def _fit_corners(place: Tensor, option_uv: Tensor, option_face: Tensor, mesh1: Mesh) -> Tensor:
    """(F, 3, 2) texture coordinates of triangles whose corners lie at `place` (F, 3, 3) on surface 1.

    option_uv (F, 3, M, 2) and option_face (F, 3, M) are the coordinates a corner may have and a triangle of
    surface 1 in which it has them; -1 for none.
    """
    F, _, M = option_face.shape
    slope, size = _texture_slopes(mesh1)
    # each option of each corner as the anchor from which the texture is continued: (F, A = 3 M, ...)
    anchor_uv, anchor_face = option_uv.reshape(F, 3 * M, 2), option_face.reshape(F, 3 * M)
    away = place[:, None, :, :] - place.repeat_interleave(M, dim=1)[:, :, None, :]  # (F, A, corner, 3)
    predicted = anchor_uv[:, :, None] + away @ slope[anchor_face].mT  # (F, A, corner, 2)
    gap = (option_uv[:, None] - predicted[:, :, :, None]).norm(dim=-1)  # (F, A, corner, M)
    gap = gap.masked_fill(option_face[:, None] < 0, torch.inf)
    gap, chosen = gap.min(-1)  # (F, A, corner)
    best = gap.sum(-1).masked_fill(anchor_face < 0, torch.inf).argmin(1)
    row = torch.arange(F, device=best.device)
    predicted, gap, chosen = predicted[row, best], gap[row, best], chosen[row, best]
    own = option_uv.gather(2, chosen[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
    extent = (predicted - anchor_uv[row, best][:, None]).norm(dim=-1).max(1).values
    jumps = gap > (extent + size[anchor_face[row, best]])[:, None]
    return torch.where(jumps[..., None], predicted, own)


def _texture_slopes(mesh: Mesh) -> tuple[Tensor, Tensor]:
    """(F, 2, 3) derivative of the texture coordinates in each triangle, and (F,) its longest edge in them."""
    assert mesh.uv is not None
    x, t = mesh.verts.double()[mesh.faces], mesh.uv.double()[_uv_faces(mesh)]
    edges_x, edges_t = x[:, 1:] - x[:, :1], t[:, 1:] - t[:, :1]  # (F, 2, 3), (F, 2, 2)
    slope = (torch.linalg.pinv(edges_x) @ edges_t).mT
    return slope, (t - t.roll(1, 1)).norm(dim=-1).max(1).values


def _vertex_options(mesh: Mesh) -> tuple[Tensor, Tensor]:
    """(V, M, 2) different texture coordinates of each vertex, and (V, M) a triangle that uses each; -1 for none."""
    assert mesh.uv is not None
    corner = torch.stack([mesh.faces.reshape(-1), _uv_faces(mesh).reshape(-1)], 1)
    pairs, inverse = torch.unique(corner, dim=0, return_inverse=True)
    face = torch.arange(mesh.n_faces, device=corner.device).repeat_interleave(3)
    first = torch.full((len(pairs),), mesh.n_faces, device=corner.device).scatter_reduce(
        0, inverse, face, "amin"
    )
    count = torch.bincount(pairs[:, 0], minlength=mesh.n_verts)
    slot = torch.arange(len(pairs), device=corner.device) - (count.cumsum(0) - count)[pairs[:, 0]]
    M = max(int(count.max()), 1)
    option_face = torch.full((mesh.n_verts, M), -1, device=corner.device)
    option_uv = torch.zeros(mesh.n_verts, M, 2, dtype=torch.float64, device=corner.device)
    option_face[pairs[:, 0], slot] = first
    option_uv[pairs[:, 0], slot] = mesh.uv.double()[pairs[:, 1]]
    return option_uv, option_face


def _uv_faces(mesh: Mesh) -> Tensor:
    return mesh.faces if mesh.uv_faces is None else mesh.uv_faces


def _check_vertices(p2p_21: Tensor, n1: int, n2: int | None = None) -> Tensor:
    p2p_21 = as_tensor(p2p_21, "p2p_21")
    check_index(p2p_21, n1, "p2p_21", what="vertices of surface 1")
    check_shape(p2p_21, "V2", "p2p_21")
    if n2 is not None and len(p2p_21) != n2:
        raise ValueError(
            f"p2p_21: expected shape ({n2},), one a vertex of surface 2, found {tuple(p2p_21.shape)}"
        )
    return p2p_21
