"""`Mesh` and `PointCloud`: the two things that every other part of geoframe is about."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from geoframe._check import as_floats, as_tensor, check_index, check_shape

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh, or a batch of deformations of one mesh.

    Every attribute may be given as a tensor, a NumPy array or nested lists; it becomes a tensor once. Arrays keep
    their dtype, whole numbers given for positions become float64.

    Attributes:
        verts: (..., V, 3) floating; leading dimensions are poses over the shared `faces`. Any unit: all
            lengths that geoframe returns are in the same unit.
        faces: (F, 3) int64 indices into the V vertices, counter-clockwise seen from outside.
        colors: (V, 3) or (V, 4) in [0, 1], or None.
        uv: (T, 2) texture coordinates, or None; (0, 0) is the lower left corner of the texture.
        uv_faces: (F, 3) int64 indices into `uv`, one per face corner. None with `uv` given means
            T == V and the corners use `faces`.

    Vertex order and count are never changed behind your back: ground truth is by index.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape, index out of range, tensors on two devices.
            NaN coordinates are allowed here, so that `report` can tell and `repair` can mend; the operators
            refuse them.
    """

    verts: Tensor
    faces: Tensor
    colors: Tensor | None = None
    uv: Tensor | None = None
    uv_faces: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("verts", "colors", "uv"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_floats(getattr(self, name), name))
        for name in ("faces", "uv_faces"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_tensor(getattr(self, name), name))
        V = check_shape(self.verts, "... V 3", "verts")["V"]
        check_shape(self.faces, "F 3", "faces")
        check_index(self.faces, V, "faces", what="vertices")
        object.__setattr__(self, "faces", self.faces.long())
        if self.colors is not None and self.colors.shape not in ((V, 3), (V, 4)):
            raise ValueError(f"colors: expected shape ({V}, 3) or ({V}, 4), found {tuple(self.colors.shape)}")
        if self.uv is not None:
            T = check_shape(self.uv, "T 2", "uv")["T"]
            if self.uv_faces is not None:
                check_shape(self.uv_faces, "F 3", "uv_faces")
                check_index(self.uv_faces, T, "uv_faces", what="texture coordinates")
                if len(self.uv_faces) != len(self.faces):
                    raise ValueError(f"uv_faces: expected {len(self.faces)} rows, found {len(self.uv_faces)}")
            elif T != V:
                raise ValueError(f"uv: expected {V} rows (one a vertex) without uv_faces, found {T}")
        elif self.uv_faces is not None:
            raise ValueError("uv_faces: given without uv; pass both or neither")
        for name in ("faces", "colors", "uv", "uv_faces"):
            x = getattr(self, name)
            if x is not None and x.device != self.verts.device:
                raise ValueError(
                    f"{name}: expected device {self.verts.device} as verts, found {x.device}; use .to()"
                )

    def __repr__(self) -> str:
        batch = f", batch={tuple(self.verts.shape[:-2])}" if self.verts.ndim > 2 else ""
        return f"Mesh(V={self.n_verts}, F={self.n_faces}{batch}, {self.verts.dtype}, {self.verts.device})"

    @property
    def n_verts(self) -> int:
        """Number of vertices V."""
        return self.verts.shape[-2]

    @property
    def n_faces(self) -> int:
        """Number of triangles F."""
        return self.faces.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the coordinates."""
        return self.verts.dtype

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.verts.device

    @cached_property
    def face_normals_scaled(self) -> Tensor:
        """(..., F, 3) outward normals whose length is twice the triangle's area."""
        a, b, c = (self.verts[..., self.faces[:, i], :] for i in range(3))
        return torch.linalg.cross(b - a, c - a)

    @property
    def face_areas(self) -> Tensor:
        """(..., F) triangle areas."""
        return self.face_normals_scaled.norm(dim=-1) / 2

    @property
    def area(self) -> Tensor:
        """(...) total surface area."""
        return self.face_areas.sum(-1)

    @property
    def volume(self) -> Tensor:
        """(...) signed enclosed volume by the divergence theorem; meaningful for closed, oriented meshes."""
        return (self.verts[..., self.faces[:, 0], :] * self.face_normals_scaled).sum((-1, -2)) / 6

    @property
    def vertex_normals(self) -> Tensor:
        """(..., V, 3) area-weighted unit normals; zero where a vertex has no area around it."""
        n = torch.zeros_like(self.verts)
        for i in range(3):
            n = n.index_add(-2, self.faces[:, i], self.face_normals_scaled)
        return torch.nn.functional.normalize(n, dim=-1, eps=torch.finfo(n.dtype).tiny)

    def to(self, *args: Any, **kwargs: Any) -> Mesh:
        """Move or cast like `torch.Tensor.to`; a dtype applies to floating tensors only."""
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)

        def move(x: Tensor | None) -> Tensor | None:
            if x is None:
                return None
            return x.to(device, dtype if x.is_floating_point() else None, non_blocking)

        fields = ("verts", "faces", "colors", "uv", "uv_faces")
        return replace(self, **{name: move(getattr(self, name)) for name in fields})  # type: ignore[arg-type]

    def with_verts(self, verts: Tensor) -> Mesh:
        """The same connectivity, colours and texture coordinates at other positions (..., V, 3)."""
        verts = as_floats(verts, "verts")
        if verts.shape[-2:] != self.verts.shape[-2:]:
            raise ValueError(f"verts: expected (..., {self.n_verts}, 3), found {tuple(verts.shape)}")
        return replace(self, verts=verts)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """``compute()``. A `geoframe.Surface` keeps what it gave under `key`; a plain mesh keeps nothing."""
        return compute()


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in space, or a batch of clouds of one size.

    Tensors, NumPy arrays and lists are taken, as in `Mesh`.

    Attributes:
        points: (..., N, 3) floating.
        normals: (..., N, 3) or None.
        colors: (N, 3) or (N, 4) in [0, 1], or None.

    Raises:
        TypeError: wrong type or dtype.
        ValueError: wrong shape or two devices.
    """

    points: Tensor
    normals: Tensor | None = None
    colors: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("points", "normals", "colors"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_floats(getattr(self, name), name))
        N = check_shape(self.points, "... N 3", "points")["N"]
        if self.normals is not None and self.normals.shape != self.points.shape:
            raise ValueError(
                f"normals: expected {tuple(self.points.shape)}, found {tuple(self.normals.shape)}"
            )
        if self.colors is not None and self.colors.shape not in ((N, 3), (N, 4)):
            raise ValueError(f"colors: expected shape ({N}, 3) or ({N}, 4), found {tuple(self.colors.shape)}")
        for name in ("normals", "colors"):
            x = getattr(self, name)
            if x is not None and x.device != self.points.device:
                raise ValueError(
                    f"{name}: expected device {self.points.device} as points, found {x.device}; use .to()"
                )

    def __repr__(self) -> str:
        batch = f", batch={tuple(self.points.shape[:-2])}" if self.points.ndim > 2 else ""
        return f"PointCloud(N={self.n_points}{batch}, {self.points.dtype}, {self.points.device})"

    @property
    def n_points(self) -> int:
        """Number of points N."""
        return self.points.shape[-2]

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the coordinates."""
        return self.points.dtype

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.points.device

    def to(self, *args: Any, **kwargs: Any) -> PointCloud:
        """Move or cast like `torch.Tensor.to`."""
        move = [
            None if x is None else x.to(*args, **kwargs) for x in (self.points, self.normals, self.colors)
        ]
        return PointCloud(*move)  # type: ignore[arg-type]

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """``compute()``, as of a mesh."""
        return compute()
