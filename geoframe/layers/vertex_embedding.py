"""Vertex embeddings: every vertex of a surface as a unit vector of D numbers, learned, smooth over the surface.

`VertexEmbedding` is ``E = normalise(Phi W)``: Phi holds M eigenfunctions of the surface, W (M, D) is learned. So a
surface of any resolution, and of another species through a functional map, has the embedding from the same W.
`SharedEmbedding` holds several surfaces in one space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from geoframe._check import as_tensor, check_choice, check_float, check_int, check_shape
from geoframe._precision import outside_autocast
from geoframe.canonical.surface import Surface
from geoframe.maps.convert import p2p_to_fmap
from geoframe.nearest import nearest
from geoframe.nearest.embedded import unit_rows
from geoframe.surface.mesh import Mesh

if TYPE_CHECKING:
    from geoframe.maps import Match

DIM = 16
FUNCTIONS = 256


class VertexEmbedding(nn.Module):
    """Unit embeddings E (V, D) of the vertices of a surface.

    Either ``E = normalise(Phi W)`` with `functions` eigenfunctions Phi (V, M) of the surface, at unit area, and a
    learned `weight` W (M, D); or, with ``functions=None``, a free table `weight` (V, D), normalised. The weights are
    drawn so that every entry of the rows before normalisation has variance one.

    Phi is not part of the state: it is the surface's own (`Surface.basis`), which keeps it on disk.

    Args:
        mesh: the surface.
        dim: D.
        functions: M, at most the number of vertices; None for a free table.
        seed: of the initial weights; an int or a generator.

    Raises:
        TypeError: not a mesh.
        ValueError: sizes out of range.

    Source: Neverova et al. 2020, section 3.2, with D = 16 and M = 256. The released code starts from zeros and takes
        its weights from a file; ours start at random.
    """

    basis: Tensor | None

    def __init__(
        self,
        mesh: Mesh,
        dim: int = DIM,
        *,
        functions: int | None = FUNCTIONS,
        seed: int | torch.Generator = 0,
    ) -> None:
        super().__init__()
        check_int(dim, "dim", low=1)
        self.surface = Surface.of(mesh)
        draw = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        if functions is None:
            start = torch.randn(self.surface.n_verts, dim, generator=draw)
            phi = None
        else:
            check_int(functions, "functions", low=1, high=self.surface.n_verts)
            start = torch.randn(functions, dim, generator=draw) / math.sqrt(functions)
            phi = _unit_area_functions(self.surface, functions)
        self.weight = nn.Parameter(start)
        self.register_buffer("basis", phi, persistent=False)

    def extra_repr(self) -> str:
        """Sizes, for the printed module."""
        kind = "a free table" if self.functions is None else f"{self.functions} eigenfunctions"
        return f"{self.n_verts} vertices, dim={self.dim}, {kind}"

    @property
    def n_verts(self) -> int:
        """Number of vertices V."""
        return self.surface.n_verts

    @property
    def dim(self) -> int:
        """Number of entries D of an embedding."""
        return self.weight.shape[1]

    @property
    def functions(self) -> int | None:
        """Number of eigenfunctions M, or None for a free table."""
        return None if self.basis is None else self.basis.shape[1]

    def forward(self, vertices: Tensor | None = None) -> Tensor:
        """E (V, D) of unit rows; of `vertices` (N,) only their rows (N, D)."""
        if self.basis is None:
            return unit_rows(self.weight if vertices is None else self.weight[vertices])
        with outside_autocast():  # eight bits of a sum over all functions would blur neighbours
            return unit_rows((self.basis if vertices is None else self.basis[vertices]) @ self.weight)

    def transferred(self, match: Match | Tensor, mesh: Mesh, *, form: str = "auto") -> VertexEmbedding:
        """The embedding of another surface on which corresponding vertices have equal embeddings, to train on from.

        Args:
            match: of this surface (1) with the other (2); or its functional map `C_12` (K2, K1), floating; or its
                vertex map `p2p_21` (V2,), integers: for every vertex of the other surface a vertex of this one.
            mesh: the other surface.
            form: "spectral" is ``W' = C_12 W``, an embedding of eigenfunctions; "vertices" is ``E' = T E`` with T
                the vertex map, a free table. "auto" keeps the kind of this embedding.

        Returns:
            An embedding with weights of its own. With the spectral form and M functions here it has M functions, or
            those that the functional map has where that is given as a matrix; what the map lacks is zero.

        Raises:
            TypeError, ValueError: a map of other surfaces, an unknown form, a spectral form of a free table.

        Source: Neverova et al. 2020, section 3.3: E' = T E, in coefficients W' = C W.
        """
        check_choice(form, ("auto", "spectral", "vertices"), "form")
        other = Surface.of(mesh)
        C_12, p2p_21 = _maps(match)
        if form == "auto":
            form = "vertices" if self.basis is None else "spectral"
        out = VertexEmbedding.__new__(VertexEmbedding)
        nn.Module.__init__(out)
        out.surface = other
        with torch.no_grad():
            if form == "vertices":
                if p2p_21 is None:
                    raise ValueError(
                        "match: expected a Match or a vertex map for the form 'vertices', found C_12"
                    )
                weight, phi = self._pulled(p2p_21, other), None
            else:
                if self.functions is None:
                    raise ValueError(
                        "form: 'spectral' needs eigenfunctions, this is a free table; use 'vertices'"
                    )
                if p2p_21 is not None:
                    k = min(self.functions, other.n_verts)
                    self._check_pull(p2p_21, other)
                    C_12 = p2p_to_fmap(p2p_21.cpu(), self.surface.basis(self.functions), other.basis(k))
                assert C_12 is not None
                weight, phi = self._mapped(C_12, other)
        out.weight = nn.Parameter(weight.to(self.weight))
        out.register_buffer("basis", None if phi is None else phi.to(self.weight), persistent=False)
        return out

    def on(self, mesh: Mesh) -> VertexEmbedding:
        """The same embedding on another mesh of the same surface in the same place: finer, coarser, remeshed.

        The eigenfunctions of the two meshes are made to agree (signs, order, repeated eigenvalues) by the functional
        map of the nearest vertices; the weights are carried by it. Nothing is trained.

        Args:
            mesh: another triangulation, in the same coordinates.

        Raises:
            TypeError, ValueError: not a mesh; one that lies elsewhere, more than a tenth of the surface's size away.
        """
        other = Surface.of(mesh)
        mine, theirs = self.surface.verts.detach().double().cpu(), other.verts.detach().double().cpu()
        p2p_21, gap = nearest(theirs, mine)
        size = float((mine.amax(0) - mine.amin(0)).norm())
        if float(gap.max()) > 0.1 * size:
            raise ValueError(
                f"mesh: expected another triangulation of the same surface in the same place, found a vertex "
                f"{float(gap.max()):.3g} away from it; match the two and use VertexEmbedding.transferred"
            )
        return self.transferred(p2p_21, other)

    def frozen(self) -> VertexEmbedding:
        """A copy as a free table that does not train: what is kept of a trained embedding to predict with."""
        out = self.transferred(torch.arange(self.n_verts), self.surface, form="vertices")
        out.weight.requires_grad_(False)
        return out

    def _check_pull(self, p2p_21: Tensor, other: Surface) -> None:
        if p2p_21.shape != (other.n_verts,):
            raise ValueError(
                f"match: expected a vertex of this surface for each of the {other.n_verts} vertices of the other, "
                f"found {tuple(p2p_21.shape)}; the arrow of p2p_21 points from the other surface to this one"
            )
        if len(p2p_21) and (int(p2p_21.min()) < 0 or int(p2p_21.max()) >= self.n_verts):
            raise ValueError(
                f"match: expected vertices of this surface, 0 to {self.n_verts - 1}, found others; "
                "for a match made the other way round pass match.p2p_12"
            )

    def _pulled(self, p2p_21: Tensor, other: Surface) -> Tensor:
        self._check_pull(p2p_21, other)
        return self(p2p_21.to(self.weight.device))

    def _mapped(self, C_12: Tensor, other: Surface) -> tuple[Tensor, Tensor]:
        """W' = C_12 W, at unit areas, and the functions of the other surface."""
        K2, K1 = check_shape(check_float(C_12, "match"), "K2 K1", "match").values()
        k1 = min(K1, self.weight.shape[0])
        scale = float(
            (self.surface.area.double() / other.area.double()).sqrt()
        )  # a constant: rows are normalised
        C = C_12[:, :k1].double().to(self.weight.device) * scale
        return C @ self.weight[:k1].double(), _unit_area_functions(other, K2)


class SharedEmbedding(nn.Module):
    """Embeddings of several surfaces in one space, by name: one image head serves them all.

    Args:
        embeddings: name -> embedding, all of one D.

    Raises:
        ValueError: none at all, different D, a name that is empty or contains a dot.
    """

    def __init__(self, embeddings: Mapping[str, VertexEmbedding]) -> None:
        super().__init__()
        if not embeddings:
            raise ValueError("embeddings: expected at least one surface, found none")
        self._embeddings = nn.ModuleDict()
        for name, embedding in embeddings.items():
            self.add(name, embedding)

    def add(self, name: str, embedding: VertexEmbedding) -> None:
        """Put one more surface into the space, or another embedding in the place of one that is there.

        Raises:
            ValueError: another D, a name that is empty or contains a dot.
        """
        if not name or "." in name:
            raise ValueError(f"name: expected a word without dots, found {name!r}")
        if len(self._embeddings) and embedding.dim != self.dim:
            raise ValueError(f"embedding: expected dim {self.dim} as the others have, found {embedding.dim}")
        self._embeddings[name] = embedding

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the surfaces, in the order in which they came."""
        return tuple(self._embeddings)

    @property
    def dim(self) -> int:
        """Number of entries D of an embedding."""
        return next(iter(self.values())).dim

    def values(self) -> list[VertexEmbedding]:
        """The embeddings, in the order of `names`."""
        return [self[name] for name in self.names]

    def __len__(self) -> int:
        return len(self._embeddings)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> VertexEmbedding:
        """The embedding of one surface.

        Raises:
            ValueError: an unknown name.
        """
        if name not in self._embeddings:
            raise ValueError(f"name: expected one of {', '.join(self.names)}, found {name!r}")
        embedding = self._embeddings[name]
        assert isinstance(embedding, VertexEmbedding)
        return embedding

    def forward(self) -> dict[str, Tensor]:
        """Name -> E (V, D)."""
        return {name: self[name]() for name in self.names}


def _unit_area_functions(surface: Surface, k: int) -> Tensor:
    """(V, k) float32 eigenfunctions of the surface at unit area, so that their squares have mean one."""
    area = surface.area.double().sqrt()
    return (surface.basis(k).vecs.double() * area).float()


def _maps(match: Match | Tensor) -> tuple[Tensor | None, Tensor | None]:
    """(C_12, p2p_21) that are given; of a match its vertex map, which has all functions."""
    if hasattr(match, "p2p_21"):
        return None, match.p2p_21
    found = as_tensor(match, "match")
    return (found, None) if found.is_floating_point() else (None, found.long())
