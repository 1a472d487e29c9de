"""`health`: what is wrong, or worth knowing, about a mesh before anything is computed on it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from geoframe._types import Bools, Floats, Ints
from geoframe.surface import topology
from geoframe.surface.mesh import Mesh

FAR = 100  # an outlier is so many times farther from the middle than half of the vertices are


@dataclass(frozen=True, eq=False)
class Health:
    """Report on a mesh, as `health` makes it. Lengths are in the mesh's units.

    Attributes:
        n_verts, n_faces, n_edges: counts V, F, E.
        n_components: pieces that hang together through shared vertices.
        boundary_loops: number of vertices of each boundary loop, largest first; empty for a closed mesh.
        nonmanifold_edges: (n, 2) vertices of edges with three or more faces.
        nonmanifold_vertices: (n,) vertices where the faces form more than one fan.
        collapsed_faces: (n,) faces that name a vertex twice.
        flat_faces: (n,) other faces without area, to rounding.
        duplicate_faces: (n,) faces with the same three vertices as an earlier one.
        unreferenced_vertices: (n,) vertices of no face.
        duplicate_vertices: (n,) vertices at exactly the place of an earlier one.
        nonfinite_vertices: (n,) vertices with a NaN or infinite coordinate.
        outlier_vertices: (n,) vertices more than 100 times as far from the middle (the median of every
            coordinate) as half of the vertices: a value that stands for "no data", a wrong decimal point.
        is_oriented: neighbours run their common edge in opposite directions.
        is_orientable: the faces can be turned so that they do.
        facing: "outward", "inward", "mixed" (pieces differ) or "undecided" (flat, or not oriented). Open
            pieces are judged by the volume between them and their centre.
        euler_characteristic: V - E + F over what is in use.
        genus: handles over all components, holes taken as filled; None where not manifold or orientable.
        area: of all faces.
        volume: enclosed, signed; None where the mesh is not closed and oriented.
        size: (3,) edge lengths of the bounding box, NaN where no vertex is finite.
    """

    n_verts: int
    n_faces: int
    n_edges: int
    n_components: int
    boundary_loops: tuple[int, ...]
    nonmanifold_edges: Ints
    nonmanifold_vertices: Ints
    collapsed_faces: Ints
    flat_faces: Ints
    duplicate_faces: Ints
    unreferenced_vertices: Ints
    duplicate_vertices: Ints
    nonfinite_vertices: Ints
    outlier_vertices: Ints
    is_oriented: bool
    is_orientable: bool
    facing: str
    euler_characteristic: int
    genus: int | None
    area: float
    volume: float | None
    size: tuple[float, float, float]

    @property
    def is_closed(self) -> bool:
        """There is a face, and no boundary."""
        return self.n_faces > 0 and not self.boundary_loops

    @property
    def is_manifold(self) -> bool:
        """Every vertex has at most one fan of faces and every edge at most two faces."""
        return not len(self.nonmanifold_vertices) and not len(self.nonmanifold_edges)

    @property
    def problems(self) -> list[str]:
        """Sentences on what may spoil a computation, each with its remedy; empty for a sound mesh.

        Boundaries, handles and several components are facts, not problems.
        """
        counted = [
            (self.nonfinite_vertices, "vert", "with a NaN or infinite coordinate", "drop_nonfinite"),
            (self.outlier_vertices, "vert", "very far from all others", "drop_outliers"),
            (self.unreferenced_vertices, "vert", "that no face uses", "drop_unreferenced"),
            (self.duplicate_vertices, "vert", "at the place of an earlier one (a seam?)", "merge_vertices"),
            (self.collapsed_faces, "face", "naming a vertex twice", "drop_degenerate"),
            (self.flat_faces, "face", "without area", "drop_degenerate"),
            (self.duplicate_faces, "face", "with the vertices of an earlier one", "drop_duplicates"),
            (self.nonmanifold_edges, "edge", "with more than two faces", "split_nonmanifold"),
            (self.nonmanifold_vertices, "vert", "where separate sheets touch", "split_nonmanifold"),
        ]
        words = {"vert": ("vertex", "vertices"), "face": ("face", "faces"), "edge": ("edge", "edges")}
        found = (
            [] if self.n_faces else ["no faces: geoframe needs triangles here; use a PointCloud for points"]
        )
        for which, kind, what, switch in counted:
            if len(which):
                noun, first = words[kind][len(which) > 1], which[0].tolist()
                found.append(f"{len(which)} {noun} {what}, first {first}: repair(mesh, {switch}=True)")
        if not self.is_orientable:
            found.append("one-sided (like a Moebius strip): no orientation fits; cut the mesh open")
        elif not self.is_oriented:
            found.append("neighbouring faces disagree on which side is out: repair(mesh, orient=True)")
        elif self.facing in ("inward", "mixed"):
            what = (
                "faces point inward" if self.facing == "inward" else "some pieces face outward, others inward"
            )
            found.append(f"{what}: repair(mesh, orient=True)")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, words and lists for JSON; index arrays become their counts, problems are included."""
        out: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value = len(value)
            elif isinstance(value, tuple):
                value = [x if np.isfinite(x) else None for x in value]
            elif isinstance(value, float) and not np.isfinite(value):
                value = None
            out[field.name] = value
        return {
            **out,
            "is_closed": self.is_closed,
            "is_manifold": self.is_manifold,
            "problems": self.problems,
        }

    def __str__(self) -> str:
        loops = self.boundary_loops
        shown = ", ".join(map(str, loops[:5])) + (", ..." if len(loops) > 5 else "")
        boundary = f"{len(loops)} loop{'s' * (len(loops) > 1)} of {shown} vertices" if loops else "closed"
        volume = "not defined (open or not oriented)" if self.volume is None else f"{self.volume:.6g}"
        rows = [
            ("vertices", f"{self.n_verts}"),
            ("faces", f"{self.n_faces}"),
            ("edges", f"{self.n_edges}"),
            ("components", f"{self.n_components}"),
            ("boundary", boundary if self.n_faces else "no faces"),
            ("manifold", "yes" if self.is_manifold else "no"),
            ("orientation", f"{'consistent' if self.is_oriented else 'inconsistent'}, {self.facing}"),
            ("genus", "not defined" if self.genus is None else f"{self.genus}"),
            ("Euler number", f"{self.euler_characteristic}"),
            ("area", f"{self.area:.6g}"),
            ("volume", volume),
            ("size", " x ".join(f"{x:.6g}" for x in self.size)),
        ]
        lines = [f"{name:<12}  {value}" for name, value in rows]
        problems = self.problems
        lines += ["problems:", *(f"  - {p}" for p in problems)] if problems else ["problems: none"]
        return "\n".join(lines)


def health(mesh: Mesh) -> Health:
    """Examine a mesh of one pose (V, 3); nothing is changed, whatever its state.

    Raises:
        TypeError: not a `Mesh`.
        ValueError: a batch of poses.
    """
    verts, faces = numpy_pose(mesh)
    V, F = len(verts), len(faces)
    finite = np.all(np.isfinite(verts), axis=1)
    used = np.bincount(faces.ravel(), minlength=V) > 0
    table = topology.edges(faces)
    loops = topology.boundary_loops(faces, table)
    turn = topology.orientation(faces, table)
    collapsed = topology.collapsed_faces(faces)
    sound = finite[faces].all(1)
    with np.errstate(over="ignore"):  # of coordinates beyond 1e77
        area = np.linalg.norm(_double_areas(verts, faces[sound]), axis=1).sum() / 2
    size = np.ptp(verts[finite], axis=0) if finite.any() else np.full(3, np.nan)
    volume = None
    if F and not loops and turn.is_consistent and sound.all():
        volume = float(_patch_volumes(verts, faces, np.zeros(F, np.int64)).sum())
    nonmanifold = topology.nonmanifold_vertices(faces, table)
    n_components = topology.vertex_components(faces, V)[0]
    euler, genus = topology.euler_characteristic(faces, table), None
    if n_components and not len(nonmanifold) and not turn.one_sided.any():
        genus = topology.genus_from_counts(n_components, len(loops), euler)
    return Health(
        n_verts=V,
        n_faces=F,
        n_edges=len(table.verts),
        n_components=n_components,
        boundary_loops=tuple(sorted(map(len, loops), reverse=True)),
        nonmanifold_edges=topology.nonmanifold_edges(faces, table),
        nonmanifold_vertices=nonmanifold,
        collapsed_faces=np.flatnonzero(collapsed),
        flat_faces=np.flatnonzero(flat_faces(verts, faces) & ~collapsed),
        duplicate_faces=topology.duplicate_faces(faces),
        unreferenced_vertices=np.flatnonzero(~used),
        duplicate_vertices=np.flatnonzero(topology.first_equal_rows(verts) != np.arange(V)),
        nonfinite_vertices=np.flatnonzero(~finite),
        outlier_vertices=outliers(verts),
        is_oriented=turn.is_consistent,
        is_orientable=not bool(turn.one_sided.any()),
        facing=_facing(verts, faces[sound], turn.patches[sound], turn.is_consistent),
        euler_characteristic=euler,
        genus=genus,
        area=float(area),
        volume=volume,
        size=(float(size[0]), float(size[1]), float(size[2])),
    )


def outliers(points: Floats) -> Ints:
    """(n,) indices of the points (N, 3) more than `FAR` times as far from their middle as half of them are.

    The middle is the median of every coordinate; points with NaN or infinity are left out. A spectrum, a
    bounding box or a picture says nothing about a surface with such a point: it is all about the point.
    """
    finite = np.flatnonzero(np.all(np.isfinite(points), axis=1))
    which = finite
    for _ in range(100):  # without the outliers the middle is another one, and more may show
        if not len(which):
            break
        with np.errstate(over="ignore", invalid="ignore"):
            away = np.abs(points[which] - np.median(points[which], axis=0)).max(1)
            far = away > FAR * np.median(away)
        if not far.any() or not np.median(away) > 0:
            break
        which = which[~far]
    return np.setdiff1d(finite, which)


def flat_faces(verts: Floats, faces: Ints) -> Bools:
    """(F,) faces whose area is zero to the rounding of their coordinates; faces with NaN do not count."""
    sound = np.all(np.isfinite(verts), axis=1)[faces].all(1)
    corners = verts[faces[sound]]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1, initial=0)
    reach = np.abs(corners).max((1, 2), initial=0)
    out = np.zeros(len(faces), bool)
    rounding = 8 * np.finfo(np.float64).eps * longest * (longest + reach)
    out[sound] = np.linalg.norm(_double_areas(verts, faces[sound]), axis=1) <= rounding
    return out


def patch_facing(verts: Floats, faces: Ints, patches: Ints) -> Ints:
    """(P,) for each patch of oriented faces +1 where they face out, -1 in, 0 where the patch is flat.

    A closed patch is judged by its volume, an open one by the volume between it and its centre.
    """
    n = int(patches.max()) + 1 if len(patches) else 0
    area = np.bincount(patches, np.linalg.norm(_double_areas(verts, faces), axis=1) / 2, minlength=n)
    volume = _patch_volumes(verts, faces, patches)
    return np.where(np.abs(volume) <= 1e-9 * area**1.5, 0, np.sign(volume)).astype(np.int64)


def _patch_volumes(verts: Floats, faces: Ints, patches: Ints) -> Floats:
    """(P,) signed volume between each patch of faces and the mean of its corners."""
    n = int(patches.max()) + 1 if len(patches) else 0
    middle = verts[faces].mean(1)
    count = np.maximum(np.bincount(patches, minlength=n), 1)
    centre = np.stack([np.bincount(patches, middle[:, k], minlength=n) / count for k in range(3)], axis=1)
    height = ((verts[faces[:, 0]] - centre[patches]) * _double_areas(verts, faces)).sum(1)
    return np.bincount(patches, height / 6, minlength=n).astype(np.float64)


def _double_areas(verts: Floats, faces: Ints) -> Floats:
    """(F, 3) normals as long as twice the area."""
    a, b, c = (verts[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def _facing(verts: Floats, faces: Ints, patches: Ints, is_consistent: bool) -> str:
    signs = set(patch_facing(verts, faces, patches).tolist()) - {0}
    if not signs or not is_consistent:
        return "undecided"
    if len(signs) == 2:
        return "mixed"
    return "outward" if signs == {1} else "inward"


def numpy_pose(mesh: Mesh) -> tuple[Floats, Ints]:
    """Vertices (V, 3) and faces (F, 3) of a mesh of one pose as numpy arrays on the CPU."""
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh: expected a Mesh, found {type(mesh).__name__}")
    if mesh.verts.ndim != 2:
        raise ValueError(
            f"mesh: expected one pose (V, 3), found verts {tuple(mesh.verts.shape)}; take mesh.with_verts(verts[i])"
        )
    return mesh.verts.detach().double().cpu().numpy(), mesh.faces.cpu().numpy()
