"""A canonical surface from any mesh: mended, resized, with eigenbasis, geodesics, symmetry and landmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_index, check_int
from geoframe.canonical.surface import Origin, Surface
from geoframe.surface import topology
from geoframe.surface.health import Health, health
from geoframe.surface.mesh import Mesh
from geoframe.surface.repair import repair
from geoframe.surface.resize import resize
from geoframe.surface.sampling import spread_vertices

Progress = Callable[[str, float], None]

SIMILAR = 0.1  # a mesh whose number of vertices is that near to the one asked for keeps its triangles
ROUNDS = 5  # of cutting away the vertices where holes meet, so that they can be closed
SOURCES = 16  # sources of the geodesics where there are no landmarks
SYMMETRIC = 0.01  # residual of a mirror plane above which a surface is called not symmetric


def make_canonical(
    mesh: Mesh,
    landmarks: Mapping[str, int] | None = None,
    *,
    n_verts: int = 5000,
    component: int = 0,
    fill_holes: int = 64,
    k: int = 256,
    progress: Progress | None = None,
) -> Surface:
    """Make a canonical surface of a mesh in any state: mend, keep one component, resize, and compute on it.

    1. Vertices at NaN go, twins are merged, flat and repeated faces go, sheets that touch come apart.
    2. One component is kept, its faces turned outward, its smaller holes closed; larger ones stay open.
    3. Unless its number of vertices is within a tenth of `n_verts`, it is remeshed (`geoframe.surface.resize`);
       landmarks stay exactly where they are.

    Args:
        mesh: one pose (V0, 3).
        landmarks: name -> vertex of `mesh`; those on what is removed are left out.
        n_verts: vertices wanted.
        component: the one to keep, 0 the largest by area, 1 the next, ...
        fill_holes: close holes of at most this many edges, 0 to 1000; 0 leaves all open.
        k: number of eigenfunctions; at most a third of the vertices are computed.
        progress: called with the name of a step and the share of all that is done, in [0, 1].

    Raises:
        TypeError, ValueError: not a mesh or a batch, a landmark out of range, no triangle with area, fewer
            components than `component` asks for, a one-sided surface, all landmarks on what is removed.
    """
    tell = progress or (lambda step, done: None)
    check_int(n_verts, "n_verts", low=100, high=1_000_000)
    check_int(k, "k", low=2)
    named = dict(landmarks or {})
    if named:
        check_index(torch.tensor(list(named.values())), mesh.n_verts, "landmarks", what="vertices")
    tell("health", 0.0)
    before = health(mesh)
    tell("repair", 0.05)
    mended, vertex_map, vertex_source, notes = _mend(mesh, before, component, fill_holes)
    lost = [name for name, vertex in named.items() if vertex_map[vertex] < 0]
    pins = {name: int(vertex_map[vertex]) for name, vertex in named.items() if name not in lost}
    if lost:
        notes.append(f"landmarks left out, their vertices were removed: {', '.join(lost)}")
        if not pins:
            raise ValueError(
                f"landmarks: {', '.join(lost)}: all lie on removed parts; choose another component"
            )
    tell("remeshing", 0.1)
    places = torch.tensor(list(pins.values()), dtype=torch.int64)
    new, source, weights, places = _to_size(mended, n_verts, places, notes)
    names = dict(zip(pins, places.tolist(), strict=True))
    from_source = _nearest_of_kept(mesh, new, vertex_map)
    tell("eigenbasis", 0.5)
    surface = Surface(
        new.verts,
        new.faces,
        new.colors,
        new.uv,
        new.uv_faces,
        landmarks=names,
        origin=Origin(vertex_source[source], weights, from_source),
    )
    surface.basis(min(k, max(2, new.n_verts // 3)))
    tell("geodesics", 0.75)
    surface.distances(places if len(places) else spread_vertices(surface, SOURCES))
    tell("symmetry", 0.85)
    symmetry = surface.symmetry
    kind = "symmetric" if symmetry.residual <= SYMMETRIC else "not clearly symmetric, look before use"
    notes.append(f"mirror plane: residual {symmetry.residual:.4f} of sqrt(area), {kind}")
    tell("done", 1.0)
    return surface.described(notes=tuple(notes))


def _mend(
    mesh: Mesh, before: Health, component: int, fill_holes: int
) -> tuple[Mesh, Tensor, Tensor, list[str]]:
    """The mended component, the new vertex (V0,) of each old one (-1: removed), the old one of each, and notes."""
    notes = [f"found: {problem.split(': repair')[0]}" for problem in before.problems]
    if before.n_faces == 0:
        raise ValueError("mesh: expected triangles, found no faces; reconstruct a surface first")
    first = repair(
        mesh,
        drop_nonfinite=True,
        merge_vertices=True,
        drop_degenerate=True,
        drop_duplicates=True,
        split_nonmanifold=True,
    )
    rest = first.mesh
    if rest.n_faces == 0:
        raise ValueError("mesh: no triangle with area is left after repair; check the file's coordinates")
    rest, source = _component(rest, component, notes), first.vertex_source
    for _ in range(ROUNDS):
        second = repair(rest, orient=True, fill_holes=fill_holes)
        pinched = _pinched(second.mesh, fill_holes)
        if not len(pinched):
            break
        cut = ~torch.isin(rest.faces, pinched).any(1)
        if not cut.any():
            break
        parted = repair(Mesh(rest.verts, rest.faces[cut]), split_nonmanifold=True)  # copies come last
        rest, source = _component(parted.mesh, 0, []), source[parted.vertex_source]
    second = repair(rest, orient=True, fill_holes=fill_holes, drop_unreferenced=True)
    mended, after = second.mesh, health(second.mesh)
    if not after.is_orientable:
        raise ValueError("mesh: the surface is one-sided (like a Moebius strip); cut it open and try again")
    if not (after.is_manifold and after.is_oriented):
        raise ValueError(f"mesh: could not be mended, what is left has {after.problems[0]}")
    n_new = mended.n_faces - rest.n_faces
    if n_new:
        notes.append(f"holes closed with {n_new} faces, those of at most {fill_holes} edges")
    if after.boundary_loops:
        n, more = len(after.boundary_loops), ", ..." * (len(after.boundary_loops) > 5)
        sizes = ", ".join(map(str, after.boundary_loops[:5]))
        notes.append(f"{n} hole{'s' * (n > 1)} left open, of {sizes}{more} edges")
    last = torch.cat([second.vertex_map, second.vertex_map.new_tensor([-1])])  # -1 stays -1
    copies = source[second.vertex_source]
    vertex_map = last[first.vertex_map]
    # a vertex where sheets touched has copies: where the first is gone, the one that was kept stands for it
    missing = copies[vertex_map[copies] < 0]
    vertex_map[missing] = torch.nonzero(vertex_map[copies] < 0).ravel()
    return mended, vertex_map, copies, notes


def _pinched(mesh: Mesh, longest: int) -> Tensor:
    """(n,) vertices at which a boundary loop of at most `longest` edges meets itself: of those that stand on one spot
    all but the one of most faces."""
    verts, faces = mesh.verts.double().cpu().numpy(), mesh.faces.cpu().numpy()
    place, n_faces = topology.first_equal_rows(verts), np.bincount(faces.ravel(), minlength=mesh.n_verts)
    out: list[int] = []
    for loop in topology.boundary_loops(faces):
        spots, count = np.unique(place[loop], return_counts=True)
        for spot in spots[count > 1] if len(loop) <= longest else ():
            twins = loop[place[loop] == spot]
            out += np.delete(twins, np.argmax(n_faces[twins])).tolist()
    return torch.tensor(out, dtype=torch.int64, device=mesh.device)


def _component(mesh: Mesh, rank: int, notes: list[str]) -> Mesh:
    """The component of this rank by area, largest first; its vertices keep their numbers."""
    n, label = topology.vertex_components(mesh.faces.cpu().numpy(), mesh.n_verts)
    of_face = label[mesh.faces[:, 0].cpu().numpy()]
    area = np.bincount(of_face, mesh.face_areas.double().cpu().numpy(), minlength=n)
    if check_int(rank, "component", low=0) >= n:
        raise ValueError(f"component: expected one in [0, {n - 1}], found {rank}; the mesh has {n} by area")
    order = np.argsort(-area, kind="stable")
    if n > 1:
        share = area[order[rank]] / area.sum()
        which = "largest" if rank == 0 else f"number {rank}"
        notes.append(f"kept the {which} of {n} components, {share:.1%} of the area")
    kept = torch.from_numpy(of_face == order[rank]).to(mesh.device)
    return Mesh(mesh.verts, mesh.faces[kept])


def _to_size(
    mesh: Mesh, n_verts: int, places: Tensor, notes: list[str]
) -> tuple[Mesh, Tensor, Tensor, Tensor]:
    """The mesh in about `n_verts` vertices, the old vertices (V, 3) and weights (V, 3) each comes from, and where the
    vertices `places` (P,) are now."""
    V = mesh.n_verts
    if abs(V - n_verts) <= SIMILAR * n_verts:
        notes.append(f"triangles kept: {V:,} vertices are near enough to {n_verts:,}")
        source = torch.arange(V, device=mesh.device)[:, None].expand(V, 3)
        weights = torch.tensor([1.0, 0, 0]).to(mesh.verts).expand(V, 3)
        return mesh, source, weights, places
    out = resize(mesh, n_verts, pins=places.to(mesh.device))
    notes.append(f"remeshed: {V:,} vertices to {out.mesh.n_verts:,}")
    if out.mesh.n_verts > 1.01 * n_verts:
        notes.append(f"{n_verts:,} vertices could not hold its handles and holes")
    return out.mesh, out.source, out.weights, out.pins


def _nearest_of_kept(mesh: Mesh, new: Mesh, vertex_map: Tensor) -> Tensor:
    """(V0,) vertex of `new` nearest to each vertex of `mesh` that was kept, -1 for the others."""
    from geoframe.nearest.dense import nearest

    out, kept = torch.full_like(vertex_map, -1), vertex_map >= 0
    out[kept] = nearest(mesh.verts[kept], new.verts)[0]
    return out
