"""`Surface`: a mesh, its named landmarks, and everything that is computed of it, each once."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from geoframe._check import check_finite, check_index
from geoframe._files import mesh_file, staged_folder
from geoframe._types import Floats
from geoframe.spectral.basis import Eigenbasis, eigenbasis, kept_basis
from geoframe.surface.geodesics import HeatGeodesics, Sources, geodesic_distances, heat_geodesics, kept_rows
from geoframe.surface.io import load, save
from geoframe.surface.mesh import Mesh
from geoframe.surface.operators import laplacian
from geoframe.surface.symmetry import Symmetry, reflective_symmetry

T = TypeVar("T")
_FILES = ("surface.obj", "surface.json", "surface.npz")


class Origin(NamedTuple):
    """Where the vertices of a surface come from: another mesh of V0 vertices, the user's.

    Attributes:
        vertices: (V, 3) int64, the three vertices of the other mesh around each vertex here.
        weights: (V, 3) their weights, of sum 1: ``f = (weights[..., None] * f0[vertices]).sum(1)`` carries
            functions f0 (V0, D) here.
        nearest: (V0,) int64, for each vertex of the other mesh the nearest one here; -1 where it was removed.
    """

    vertices: Tensor
    weights: Tensor
    nearest: Tensor


@dataclass(frozen=True, eq=False)
class Surface(Mesh):
    """A mesh with named landmarks, which keeps what is computed of it.

    A `Surface` is a `Mesh` and goes wherever a mesh goes. Functions that assemble a Laplacian, solve for
    eigenfunctions, factor the heat equation or look for a mirror plane do so once for a surface, whoever calls
    them first, and use what is there from then on. Its tensors must therefore not be changed in place;
    `with_verts` and `to` give a new surface that has computed nothing yet.

    Attributes:
        landmarks: name -> vertex.
        origin: where the vertices come from, or None where they are the user's own.
        notes: what was done to make it, in sentences.

    Raises:
        TypeError: as `Mesh`.
        ValueError: as `Mesh`; a batch of poses, a landmark out of range.
    """

    landmarks: Mapping[str, int] = field(default_factory=dict)
    origin: Origin | None = None
    notes: tuple[str, ...] = ()
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.verts.ndim != 2:
            raise ValueError(
                f"verts: expected one pose (V, 3), found {tuple(self.verts.shape)}; make a surface of each"
            )
        object.__setattr__(self, "landmarks", {str(n): int(v) for n, v in dict(self.landmarks).items()})
        if self.landmarks:
            at = torch.tensor(list(self.landmarks.values()))
            check_index(at, self.n_verts, "landmarks", what="vertices")

    def __repr__(self) -> str:
        named = f", {len(self.landmarks)} landmarks" if self.landmarks else ""
        return f"Surface(V={self.n_verts}, F={self.n_faces}{named}, {self.verts.dtype}, {self.verts.device})"

    @classmethod
    def of(cls, mesh: Mesh, landmarks: Mapping[str, int] | None = None) -> Surface:
        """The mesh as a surface.

        Args:
            mesh: one pose. A `Surface` is returned as it is, with all it has computed.
            landmarks: name -> vertex; None leaves those the surface has.

        Raises:
            TypeError: not a mesh.
            ValueError: a batch, a landmark out of range.
        """
        if not isinstance(mesh, Mesh):
            raise TypeError(f"mesh: expected a Mesh, found {type(mesh).__name__}")
        if isinstance(mesh, cls):
            return mesh if landmarks is None else mesh.described(landmarks=landmarks)
        return cls(mesh.verts, mesh.faces, mesh.colors, mesh.uv, mesh.uv_faces, landmarks or {})

    def described(self, **said: Any) -> Surface:
        """The same surface, with all it has computed, under other `landmarks`, `origin` or `notes`."""
        out = replace(self, **said)
        object.__setattr__(out, "_kept", self._kept)
        return out

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gave the first time that `key` was asked for."""
        if key not in self._kept:
            self._kept[key] = compute()
        value: T = self._kept[key]
        return value

    @property
    def laplacian(self) -> tuple[sp.csr_matrix, Floats]:
        """Stiffness matrix W (V, V) and lumped mass (V,), as `geoframe.surface.laplacian` makes them."""
        return laplacian(self)

    def basis(self, k: int = 128) -> Eigenbasis:
        """The k lowest eigenpairs; fewer than were computed before are taken from those."""
        return eigenbasis(self, k)

    @property
    def k(self) -> int:
        """Number of eigenfunctions that are computed already."""
        basis = kept_basis(self)
        return 0 if basis is None else basis.k

    @property
    def heat(self) -> HeatGeodesics:
        """The heat method's solver, factored."""
        return heat_geodesics(self)

    def distances(self, sources: Sources) -> Tensor:
        """(S, V) heat distances from each of the S vertices `sources` to every vertex, in mesh units."""
        return geodesic_distances(self, sources)

    @property
    def symmetry(self) -> Symmetry:
        """The best mirror plane."""
        return reflective_symmetry(self)

    def save(self, folder: str | Path, *, about: Mapping[str, Any] | None = None) -> None:
        """Write the surface and all that it has computed: surface.obj, surface.json and surface.npz, all or none.

        Args:
            folder: made if need be; its other files are left alone.
            about: more entries of surface.json, such as options it was made with.

        Raises:
            ValueError: the folder cannot be written to.
        """
        with staged_folder(folder) as staged:
            self.write(staged, about=about)

    def write(self, folder: Path, *, about: Mapping[str, Any] | None = None) -> None:
        """The three files of `save`, one after the other into a folder that is there."""
        save(Mesh(self.verts, self.faces, self.colors, self.uv, self.uv_faces), folder / _FILES[0])
        told: dict[str, Any] = {"landmarks": self.landmarks, "notes": list(self.notes), **(about or {})}
        arrays: dict[str, Tensor] = {}
        basis, rows = kept_basis(self), kept_rows(self)
        if basis is not None:
            arrays |= {"vals": basis.vals, "vecs": basis.vecs, "mass": basis.mass}
        if rows:
            arrays |= {"sources": torch.tensor(list(rows)), "distances": torch.stack(list(rows.values()))}
        if self.origin is not None:
            arrays |= {f"origin_{name}": x for name, x in self.origin._asdict().items()}
        if "symmetry" in self._kept:
            plane = self.symmetry
            told["mirror"] = {
                "normal": plane.normal.tolist(),
                "offset": float(plane.offset),
                "residual": plane.residual,
            }
            told["symmetry"] = plane.vertex_map.tolist()
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(v, default=float)}" for key, v in told.items())
        (folder / _FILES[1]).write_text(f"{{{lines}}}\n", encoding="utf-8")
        with (folder / _FILES[2]).open("wb") as file:
            np.savez(file, **{name: x.cpu().numpy() for name, x in arrays.items()})  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: str | Path) -> Surface:
        """Read what `save` wrote; nothing that is in the folder is computed again.

        Raises:
            ValueError: naming what is missing or does not fit.
        """
        folder = Path(folder)
        mesh = load(folder / _FILES[0])
        if not isinstance(mesh, Mesh):
            raise ValueError(f"{folder / _FILES[0]}: expected a mesh, found points")
        check_finite(mesh.verts, str(folder / _FILES[0]))
        try:
            told = json.loads((folder / _FILES[1]).read_text(encoding="utf-8"))
            with np.load(folder / _FILES[2]) as file:
                arrays = {name: torch.from_numpy(file[name]) for name in file.files}
            origin = None
            if "origin_vertices" in arrays:
                origin = Origin(*(arrays[f"origin_{name}"] for name in Origin._fields))
            out = replace(cls.of(mesh, told["landmarks"]), origin=origin, notes=tuple(told["notes"]))
            out._fill(arrays, told)
        except (OSError, KeyError, TypeError, ValueError) as err:
            raise ValueError(
                f"{folder}: expected a surface as `geoframe canonical` writes it, found one that cannot be "
                f"used ({err}); make it again"
            ) from err
        return out

    def _fill(self, arrays: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Take over what a folder holds."""
        if "vecs" in arrays:
            basis = Eigenbasis(*(arrays[x].to(self.dtype) for x in ("vals", "vecs", "mass")))
            if basis.n_verts != self.n_verts:
                raise ValueError(
                    f"surface.obj has {self.n_verts} vertices, the eigenbasis {basis.n_verts}: not of one surface"
                )
            kept_basis(self, basis)
        if "distances" in arrays:
            rows = arrays["distances"].to(self.dtype)
            if rows.shape != (len(arrays["sources"]), self.n_verts):
                raise ValueError(f"distances: expected {self.n_verts} columns, found {tuple(rows.shape)}")
            kept_rows(self).update(zip(arrays["sources"].tolist(), rows, strict=True))
        if "mirror" in told:
            plane, where = told["mirror"], torch.tensor(told["symmetry"], dtype=torch.int64)
            if len(where) != self.n_verts:
                raise ValueError(f"symmetry: expected {self.n_verts} vertices, found {len(where)}")
            normal, offset = (torch.tensor(plane[x], dtype=self.dtype) for x in ("normal", "offset"))
            self._kept["symmetry"] = Symmetry(normal, offset, where, float(plane["residual"]))


def load_surface(path: str | Path) -> Surface:
    """The surface of a folder that `Surface.save` or ``geoframe canonical`` wrote, or of a mesh file.

    Raises:
        ValueError: another folder, a file that cannot be read, or one of points without faces.
    """
    path = Path(path)
    if mesh_file(path) != path:
        return Surface.load(path)
    if path.is_dir():
        raise ValueError(
            f"{path}: expected a mesh file or a folder of geoframe canonical, found another folder"
        )
    mesh = load(path)
    if not isinstance(mesh, Mesh):
        raise ValueError(f"{path}: expected a mesh, found points without faces; reconstruct a surface first")
    return Surface.of(mesh)


def named_landmarks(folder: Path) -> dict[str, int]:
    """Name -> vertex of a surface's folder, empty where it has none or is something else."""
    from geoframe.surface.landmarks import read_named_landmarks

    file = folder / _FILES[1]
    if not file.is_file() or not json.loads(file.read_text(encoding="utf-8")).get("landmarks"):
        return {}
    return read_named_landmarks(file)
