"""Rows of the geodesic matrix of a surface, of those vertices only that are asked for, in the unit sqrt(area)."""

from __future__ import annotations

import torch
from torch import Tensor

from geoframe._check import check_choice, check_index, check_shape
from geoframe.canonical.surface import Surface
from geoframe.surface.geodesics import geodesic_distances
from geoframe.surface.mesh import Mesh

_DTYPES = {"float16": torch.float16, "float32": torch.float32}


class GeodesicRows:
    """Geodesic distances from the vertices that were asked for, each computed once and kept.

    A data set annotates some hundred vertices of a surface, so the matrix of all pairs (100 MB at 5,000 vertices) is
    rarely needed. Distances are divided by the square root of the surface's area: so sigma and kappa mean the same
    on every surface, whatever its unit. Vertices of other components are at infinity.

    Args:
        mesh: the surface.
        dtype: "float32", or "float16" for half the memory (distances to three digits).

    Raises:
        ValueError: an unknown dtype, a batch.
    """

    def __init__(self, mesh: Mesh, *, dtype: str = "float32") -> None:
        check_choice(dtype, tuple(_DTYPES), "dtype")
        self.surface = Surface.of(mesh)
        self.unit = float(self.surface.area.double().sqrt())
        self._dtype = _DTYPES[dtype]
        self._place = torch.full((self.n_verts,), -1, dtype=torch.int64)
        self._rows = torch.empty(0, self.n_verts, dtype=self._dtype)
        self._held = 0

    def __repr__(self) -> str:
        return f"GeodesicRows(V={self.n_verts}, held={len(self)}, {self._dtype})"

    def __len__(self) -> int:
        """Number of rows that are held."""
        return self._held

    @property
    def n_verts(self) -> int:
        """Number of vertices V of the surface."""
        return self.surface.n_verts

    def rows(self, vertices: Tensor) -> Tensor:
        """(N, V) float32 distances from each of the vertices (N,) to all, in sqrt(area).

        Raises:
            TypeError, ValueError: not integers, or out of range.
        """
        table, place = self.table(vertices)
        return table[place].float()

    def table(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """All rows that are held (A, V), and the number (N,) in it of each of the vertices (N,), on their device.

        Raises:
            TypeError, ValueError: not integers, or out of range.
        """
        check_index(vertices, self.n_verts, "vertices", what="vertices")
        check_shape(vertices, "N", "vertices")
        asked = vertices.detach().cpu().long()
        new = torch.unique(asked[self._place[asked] < 0])
        if len(new):
            self._grow(self._held + len(new))
            found = geodesic_distances(self.surface, new) / self.unit
            self._rows[self._held : self._held + len(new)] = found.to(self._rows.device, self._dtype)
            self._place[new] = torch.arange(self._held, self._held + len(new))
            self._held += len(new)
        rows = self._rows[: self._held]
        if rows.device != vertices.device:
            self._rows = self._rows.to(vertices.device)
            rows = self._rows[: self._held]
        return rows, self._place[asked].to(vertices.device)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """(N,) float32 distances between the vertices a[i] and b[i], in sqrt(area).

        Args:
            a: (N,) the vertices whose rows are computed and kept: pass the side with fewer different ones.
            b: (N,) the others; -1 stands for none, which is at infinity.

        Raises:
            TypeError, ValueError: not integers, out of range, different lengths.
        """
        if a.shape != b.shape:
            raise ValueError(f"b: expected shape {tuple(a.shape)} as a, found {tuple(b.shape)}")
        missing = b < 0
        check_index(b.clamp_min(0), self.n_verts, "b", what="vertices")
        table, place = self.table(a)
        found = table[place, b.clamp_min(0).to(place)].float()
        return found.masked_fill(missing.to(found.device), torch.inf)

    def _grow(self, n: int) -> None:
        """Room for n rows; doubled, so that adding one at a time costs no more than once over."""
        if n > len(self._rows):
            more = self._rows.new_empty(min(max(n, 2 * len(self._rows)), self.n_verts), self.n_verts)
            more[: self._held] = self._rows[: self._held]
            self._rows = more
