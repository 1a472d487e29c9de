"""Pose and shape of a template from 2D landmarks of one image, without a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe._check import check_float, check_index, check_int, check_shape, check_tensor
from geoframe.solve.pose import Solution, solve_pose
from geoframe.spectral.basis import eigenbasis
from geoframe.surface.mesh import Mesh


@dataclass(frozen=True, eq=False)
class PointFit:
    """A template brought to its landmarks.

    Attributes:
        mesh: the deformed template, in its own frame. start: the template as it began.
        rigid: the pose of `start`, the fit before. pose: that of `mesh`, the fit after; ``pose.camera(size)`` is the
            camera that sees it. Pictures of both: `geoframe.fitting.masks.landmark_picture`.
        vertices: (L,) the landmarks' vertices. predicted: (L, 2) where they land now.
        distances: (L,) from there to the given points, hidden ones too, in their unit.
    """

    mesh: Mesh
    start: Mesh
    rigid: Solution
    pose: Solution
    vertices: Tensor
    predicted: Tensor
    distances: Tensor


def fit_points(
    mesh: Mesh,
    points2d: Tensor,
    visibility: Tensor | None = None,
    *,
    vertices: Tensor | None = None,
    n_basis: int = 40,
    stiffness: float = 3e-6,
    steps: int = 20,
) -> PointFit:
    """Turn, place, scale and bend a template until its landmarks lie at 2D points, by a weak perspective camera.

    The rigid pose first, the best of all rotations; then pose and shape in turn (`solve_pose`). The shape moves
    by the lowest eigenfunctions of the template, and the more they bend the dearer: the ridge is their bending
    energy ``sum lambda^2 a^2``. Where no landmark says otherwise (in depth, on the far side) it stays as it is.

    Args:
        mesh: template, verts (V, 3).
        points2d: (L, 2) in any unit.
        visibility: (L,) weights of at least 0, or None.
        vertices: (L,) int64 vertex of each landmark; None when there is a point for every vertex, L = V.
        n_basis: eigenfunctions that bend the template, 0 for the pose alone.
        stiffness: weight of the bending energy, a pure number; from 1e-7 (follow the points closely) to 0.01
            (hardly bend).
        steps: alternations of pose and shape.

    Raises:
        TypeError, ValueError: shapes that do not agree, vertices out of range, as `solve_pose`.
    """
    check_shape(mesh.verts, "V 3", "mesh.verts")
    L = check_shape(check_float(points2d, "points2d"), "L 2", "points2d")["L"]
    if vertices is None:
        if mesh.n_verts != L:
            raise ValueError(
                f"points2d: expected {mesh.n_verts} points (one a vertex), found {L}; pass vertices"
            )
        vertices = torch.arange(L, device=mesh.device)
    check_shape(check_tensor(vertices, "vertices"), f"{L}", "vertices")
    vertices = check_index(vertices, mesh.n_verts, "vertices", what="vertices").long()
    check_int(n_basis, "n_basis", low=0)
    if not stiffness > 0:
        raise ValueError(f"stiffness: expected a positive number, found {stiffness}")
    template = mesh.verts[vertices]
    rigid = solve_pose(points2d, visibility, template, scale="free", mode="joint")
    if n_basis == 0:
        return _fit(mesh, mesh, rigid, rigid, vertices, points2d)
    modes = _bending_modes(mesh, n_basis)
    weight = float(L if visibility is None else visibility.sum())
    ridge = stiffness * float(rigid.scale) ** 2 * weight
    pose = solve_pose(
        points2d, visibility, template, modes[:, vertices], ridge=ridge, scale="free", steps=steps
    )
    bent = mesh.with_verts(pose.shape(mesh.verts, modes))
    return _fit(bent, mesh, rigid, pose, vertices, points2d)


def _bending_modes(mesh: Mesh, n: int) -> Tensor:
    """(3 m, V, 3) the m <= n eigenfunctions that bend, along each axis and over their eigenvalues: displacements
    of unit bending energy, at unit area, in the mesh's unit."""
    basis = eigenbasis(mesh, n + 1)
    area = basis.mass.sum()
    bends = basis.vals > 1e-9 * basis.vals[-1]  # constants, one a component, do not
    functions = (basis.vecs * area.sqrt())[:, bends] / (basis.vals * area)[bends]
    axes = area.sqrt() * torch.eye(3, dtype=mesh.dtype, device=mesh.device)
    return (functions.T[:, None, :, None] * axes[:, None]).flatten(0, 1)


def landmark_weights(mesh: Mesh, vertices: Tensor, n: int) -> Tensor:
    """(n, V) rows of weights of the vertices from vertex numbers (n,), or from such rows themselves."""
    vertices = torch.as_tensor(vertices, device=mesh.device)
    if vertices.is_floating_point():
        check_shape(vertices, f"{n} {mesh.n_verts}", "vertices")
        if not bool(((vertices.sum(1) - 1).abs() < 1e-3).all()):
            raise ValueError("vertices: expected rows of weights that sum to 1, found others; normalise them")
        return vertices.to(mesh.verts)
    check_shape(vertices, f"{n}", "vertices")
    vertices = check_index(vertices, mesh.n_verts, "vertices", what="vertices").long()
    return torch.nn.functional.one_hot(vertices, mesh.n_verts).to(mesh.verts)


def _fit(
    mesh: Mesh, start: Mesh, rigid: Solution, pose: Solution, vertices: Tensor, points2d: Tensor
) -> PointFit:
    predicted = pose.project(mesh.verts[vertices])
    distances = torch.linalg.vector_norm(predicted - points2d, dim=1)
    return PointFit(mesh, start, rigid, pose, vertices, predicted, distances)
