"""`PixelMap`: for every pixel of an image a point of a surface. What every system that reads images gives.

One is exact: that of a rendered mesh (`PixelMap.of_fragments`), the ground truth of everything else. Through pixel
maps functions, textures and points travel between image and surface, through a `Match` to another species, and two
of them make a correspondence between two images.

Pixels are counted as everywhere: x to the right, y down, the centre of the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from geoframe._check import as_floats, as_tensor, check_choice, check_float, check_index, check_shape
from geoframe._files import atomic_path
from geoframe._places import SeenPlaces
from geoframe.canonical.surface import Surface
from geoframe.nearest.embedded import check_mask, decode_embedding, nearest_vertices, posterior_confidence
from geoframe.surface.mesh import Mesh

if TYPE_CHECKING:
    from geoframe.maps import Match
    from geoframe.render import Fragments


class Places(NamedTuple):
    """Where points of a surface are seen in an image.

    Attributes:
        pixels: (L, 2) pixel x, pixel y; NaN where a point is not seen.
        confidence: (L,) in [0, 1], of the pixel there; 0 where a point is not seen.
    """

    pixels: Tensor
    confidence: Tensor


class PixelMatches(NamedTuple):
    """Pixels of one image and where the same points of the surface are seen in another.

    Attributes:
        source: (N, 2) pixel x, pixel y in the first image.
        target: (N, 2) in the second image; NaN where the point is not seen there.
        confidence: (N,) in [0, 1], the lower of the two pixels' confidences; 0 where the point is not seen.
    """

    source: Tensor
    target: Tensor
    confidence: Tensor


@dataclass(frozen=True, eq=False)
class PixelMap:
    """For every pixel of the foreground a point of a surface, and how sure that is.

    Attributes:
        surface: the surface that vertices and faces refer to.
        vertex: (H, W) int64, the nearest vertex; -1 outside the mask.
        mask: (H, W) bool, the foreground.
        confidence: (H, W) float32 in [0, 1]; 0 outside the mask.
        face: (H, W) int64, the face the point lies in, -1 outside the mask; None where only vertices are known.
        barycentric: (H, W, 3) float32 weights of its corners, 0 outside the mask; with `face`.
        embedding: (H, W, D) floating, in the space of the surface's vertex embedding; None where there is none.
        turned: degrees, counterclockwise, by which the image was turned to be looked at; the map is of the image as
            it is. None where it was looked at as it is, but which way is up is not clear.

    Raises:
        TypeError: tensors of another type.
        ValueError: shapes that do not fit, a vertex or face out of range, a foreground pixel without a vertex or a
            vertex outside the foreground, a confidence outside [0, 1], `face` without `barycentric`.
    """

    surface: Surface
    vertex: Tensor
    mask: Tensor
    confidence: Tensor
    face: Tensor | None = None
    barycentric: Tensor | None = None
    embedding: Tensor | None = None
    turned: int | None = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "surface", Surface.of(self.surface))
        object.__setattr__(self, "vertex", as_tensor(self.vertex, "vertex"))
        object.__setattr__(self, "mask", as_tensor(self.mask, "mask"))
        object.__setattr__(self, "confidence", as_floats(self.confidence, "confidence").float())
        sizes = check_shape(self.vertex, "H W", "vertex")
        size = (sizes["H"], sizes["W"])
        check_mask(self.mask, size)
        self._check_points(self.vertex, self.surface.n_verts, "vertex", "vertices")
        object.__setattr__(self, "vertex", self.vertex.long())
        if tuple(self.confidence.shape) != size:
            raise ValueError(f"confidence: expected shape {size}, found {tuple(self.confidence.shape)}")
        if not bool(((self.confidence >= 0) & (self.confidence <= 1)).all()):
            raise ValueError("confidence: expected numbers in [0, 1], found others")
        object.__setattr__(self, "confidence", self.confidence.masked_fill(~self.mask, 0))
        if (self.face is None) != (self.barycentric is None):
            raise ValueError("face, barycentric: expected both or neither, found one of them")
        if self.face is not None:
            self._check_points(self.face, self.surface.n_faces, "face", "faces")
            object.__setattr__(self, "face", self.face.long())
            barycentric = check_float(self.barycentric, "barycentric").float()
            check_shape(barycentric, f"{size[0]} {size[1]} 3", "barycentric")
            object.__setattr__(self, "barycentric", barycentric * self.mask[..., None])
        if self.embedding is not None:
            check_shape(check_float(self.embedding, "embedding"), f"{size[0]} {size[1]} D", "embedding")

    def _check_points(self, x: Tensor, n: int, name: str, what: str) -> None:
        """Require numbers below n on the mask and -1 elsewhere."""
        if tuple(x.shape) != tuple(self.mask.shape):
            raise ValueError(f"{name}: expected shape {tuple(self.mask.shape)}, found {tuple(x.shape)}")
        check_index(x.clamp_min(0) if not x.is_floating_point() else x, n, name, what=what)
        if not torch.equal(x >= 0, self.mask):
            odd = int(((x >= 0) != self.mask).sum())
            raise ValueError(
                f"{name}: expected {what} on the mask and -1 outside, found {odd} pixels otherwise; "
                f"pass mask = {name} >= 0 or decode with the mask"
            )

    def __repr__(self) -> str:
        kinds = [name for name in ("barycentric", "embedding") if getattr(self, name) is not None]
        H, W = self.size
        extra = f", with {' and '.join(kinds)}" if kinds else ""
        return f"PixelMap({H} x {W}, {int(self.mask.sum())} pixels on {self.surface!r}{extra})"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.mask.shape[0], self.mask.shape[1]

    @classmethod
    def of_fragments(cls, fragments: Fragments, surface: Mesh, *, confidence: float = 1.0) -> PixelMap:
        """The exact map of one rendered picture: the ground truth.

        Args:
            fragments: of one rasterized picture of the surface, in whatever pose: images (H, W).
            surface: the canonical surface, with the faces that were rasterized.
            confidence: of every pixel of the foreground.

        Raises:
            ValueError: a batch of pictures (index it first), faces that are not those of the surface.
        """
        if fragments.face_id.ndim != 2:
            raise ValueError(
                f"fragments: expected one picture (H, W), found {tuple(fragments.face_id.shape)}; "
                "take one with fragments[i]"
            )
        surface = Surface.of(surface)
        if fragments.faces is not None and not torch.equal(fragments.faces, surface.faces):
            raise ValueError(
                f"fragments: expected a picture of the {surface.n_faces} faces of the surface, found other "
                "faces; pass the surface that was rendered"
            )
        at = fragments.barycentric.detach()
        return cls.of_points(fragments.face_id, at, surface, confidence=confidence)

    @classmethod
    def of_points(
        cls, face: Tensor, barycentric: Tensor, surface: Mesh, *, confidence: float = 1.0
    ) -> PixelMap:
        """The map of points inside triangles; the nearest vertex is the one of the largest weight.

        Args:
            face: (H, W) int64, -1 outside the foreground.
            barycentric: (H, W, 3) weights of its corners.
            surface: the surface.
            confidence: of every pixel of the foreground.

        Raises:
            TypeError, ValueError: as `PixelMap`.
        """
        surface = Surface.of(surface)
        face, barycentric = as_tensor(face, "face"), as_floats(barycentric, "barycentric")
        mask = face >= 0
        check_index(face.clamp_min(0), surface.n_faces, "face", what="faces")
        vertex = face.clamp_min(-1).long().clone()
        vertex[mask] = surface.faces[vertex[mask], barycentric[mask].argmax(-1)]
        return cls(surface, vertex, mask, confidence * mask.float(), face, barycentric)

    @classmethod
    def of_embedding(
        cls,
        embedding: Tensor,
        table: Tensor,
        mask: Tensor,
        surface: Mesh,
        *,
        temperature: float | None = None,
        keep: bool = True,
    ) -> PixelMap:
        """The map of an embedding field: every foreground pixel takes the vertex whose embedding is nearest.

        Args:
            embedding: (D, H, W) of the pixels.
            table: (V, D) of the vertices.
            mask: (H, W) bool, the foreground.
            surface: the surface of V vertices.
            temperature: of the inner product; gives the confidence (`posterior_confidence`, not calibrated). None
                puts it at 1.
            keep: whether the embedding stays with the map.

        Raises:
            TypeError, ValueError: as `decode_embedding` and `PixelMap`.
        """
        vertex = decode_embedding(embedding, table, mask)
        confidence = mask.float()
        if temperature is not None:
            confidence[mask] = posterior_confidence(
                embedding[:, mask].T.float(), table.float(), temperature=temperature
            )
        field = embedding.movedim(0, -1) if keep else None
        return cls(Surface.of(surface), vertex, mask, confidence, embedding=field)

    def replace(self, **fields: Tensor | int | None) -> PixelMap:
        """The same map with other `confidence`, `embedding`, or whatever is named."""
        return replace(self, **fields)  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> PixelMap:
        """The same map with its surface on another device."""
        names = ("vertex", "mask", "confidence", "face", "barycentric", "embedding")
        moved: dict[str, Any] = {n: None if (x := getattr(self, n)) is None else x.to(device) for n in names}
        return PixelMap(Surface.of(self.surface.to(device)), turned=self.turned, **moved)

    def save(self, path: str | Path, *, embedding: bool = False) -> None:
        """Write the map as an npz file, whole or not at all.

        It holds `vertex` (H, W) int32, `mask`, `confidence` float16, with points inside triangles `face` and
        `barycentric`, `turned` (-1 for None), and of the surface the number of vertices and a digest of its faces.

        Args:
            path: the file, ending in .npz.
            embedding: whether the embedding (H, W, D) is written too, as float16.

        Raises:
            ValueError: another ending, no embedding to write, a folder that cannot be written to.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise ValueError(f"path: expected a name that ends in .npz, found {path.name}")
        arrays = {
            "vertex": self.vertex.int(),
            "mask": self.mask,
            "confidence": self.confidence.half(),
            "n_verts": torch.tensor(self.surface.n_verts),
            "turned": torch.tensor(-1 if self.turned is None else self.turned),
        }
        if self.face is not None and self.barycentric is not None:
            arrays |= {"face": self.face.int(), "barycentric": self.barycentric}
        if embedding:
            if self.embedding is None:
                raise ValueError("embedding: expected a map with an embedding, found none; leave it out")
            arrays["embedding"] = self.embedding.detach().half()
        plain = {name: x.cpu().numpy() for name, x in arrays.items()}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, digest=np.array(surface_digest(self.surface)), **plain)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path, surface: Mesh) -> PixelMap:
        """Read what `save` wrote.

        Args:
            path: the npz file.
            surface: the surface that the map was made on; its pose does not matter.

        Raises:
            ValueError: a file that cannot be read, or a map of another surface.
        """
        surface = Surface.of(surface)
        try:
            with np.load(Path(path)) as file:
                arrays = {name: file[name] for name in file.files}
            n_verts, digest = int(arrays.pop("n_verts")), str(arrays.pop("digest"))
            found = {name: torch.from_numpy(x) for name, x in arrays.items()}
            missing = {"vertex", "mask", "confidence"} - set(found)
            if missing:
                raise KeyError(", ".join(sorted(missing)))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as err:
            reason = str(err) or type(err).__name__
            raise ValueError(
                f"{path}: expected a pixel map as PixelMap.save writes it, found one that cannot be read "
                f"({reason[:80]})"
            ) from err
        if n_verts != surface.n_verts or digest != surface_digest(surface):
            raise ValueError(
                f"surface: expected the one of {n_verts} vertices that {path} was made on, found another of "
                f"{surface.n_verts} vertices; load that surface, or carry the map with PixelMap.through"
            )
        known = ("vertex", "mask", "confidence", "face", "barycentric", "embedding")
        moved: dict[str, Any] = {n: found[n].to(surface.device) for n in known if n in found}
        turned = int(found.get("turned", 0))
        return cls(surface, turned=None if turned < 0 else turned, **moved)

    def carry(self, values: Tensor) -> Tensor:
        """Functions of the surface as a picture.

        Args:
            values: (V, C) floating, linear in triangles where the map knows points inside them; of any other type:
                the value at the nearest vertex.

        Returns:
            (H, W, C); zero outside the mask. Differentiable in `values`.

        Raises:
            ValueError: another number of rows than vertices.
        """
        values = as_tensor(values, "values")
        check_shape(values, f"{self.surface.n_verts} C", "values")
        out = values.new_zeros(*self.size, values.shape[1])
        out[self.mask] = self._at_pixels(values)
        return out

    def gather(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The picture as functions of the surface: every vertex takes the mean of the pixels that show it.

        A pixel counts for the corners of its triangle by its weights, and by its confidence.

        Args:
            image: (C, H, W) floating.

        Returns:
            values: (V, C), 0 where no pixel shows the vertex. Differentiable in `image`.
            seen: (V,) bool.

        Raises:
            TypeError, ValueError: not floating, another size.
        """
        image = as_floats(image, "image")
        check_shape(image, f"C {self.size[0]} {self.size[1]}", "image")
        corners, weights = self._corners()
        weights = (weights * self.confidence[self.mask][:, None]).to(image.dtype)
        pixels = image[:, self.mask].T
        values = image.new_zeros(self.surface.n_verts, len(image))
        total = image.new_zeros(self.surface.n_verts)
        for i in range(corners.shape[1]):
            values = values.index_add(0, corners[:, i], pixels * weights[:, i : i + 1])
            total.index_add_(0, corners[:, i], weights[:, i])
        seen = total > 0
        return values / torch.where(seen, total, 1.0)[:, None], seen

    def points(self, vertices: Tensor) -> Places:
        """Where vertices of the surface are seen.

        Args:
            vertices: (L,) integers.

        Returns:
            `Places`: between pixels where the map knows points inside triangles, else the middle of the pixels that
            show the vertex, or one a pixel away from it. NaN where a vertex is not seen.

        Raises:
            TypeError, ValueError: not integers, out of range.
        """
        vertices = as_tensor(vertices, "vertices")
        check_shape(vertices, "L", "vertices")
        check_index(vertices, self.surface.n_verts, "vertices", what="vertices of the surface")
        return self._find(self.surface.verts.detach()[vertices.long()])

    def through(self, match: Match | Tensor, surface: Mesh) -> PixelMap:
        """The map to another surface, pixel by pixel the partner of what it shows.

        Args:
            match: of this map's surface (1) with the other one (2); or its vertex map `p2p_12` (V1,), for every
                vertex of this map's surface a vertex of the other. For a match made the other way round pass
                ``match.p2p_21``.
            surface: the other surface (V2, 3).

        Returns:
            A map with the same mask, confidence and embedding. Where this map knows points inside triangles, the
            vertex is the one nearest to the mean of the corners' partners.

        Raises:
            TypeError, ValueError: not a vertex map of the two surfaces.
        """
        other = Surface.of(surface)
        p2p_12 = as_tensor(match if isinstance(match, Tensor | np.ndarray | list) else match.p2p_12, "match")
        if p2p_12.shape != (self.surface.n_verts,):
            raise ValueError(
                f"match: expected a partner for each of the {self.surface.n_verts} vertices of this map's surface, "
                f"found {tuple(p2p_12.shape)}; of a match made the other way round pass match.p2p_21"
            )
        check_index(p2p_12, other.n_verts, "match", what="vertices of the other surface")
        p2p_12 = p2p_12.long().to(self.vertex.device)
        vertex = torch.full_like(self.vertex, -1)
        if self.face is None:
            vertex[self.mask] = p2p_12[self.vertex[self.mask]]
        else:
            place = self._at_pixels(other.verts.detach()[p2p_12]).double().cpu().numpy()
            near = cKDTree(other.verts.detach().double().cpu().numpy()).query(place)[1]
            vertex[self.mask] = torch.as_tensor(near, dtype=torch.int64, device=vertex.device)
        seen = (vertex, self.mask, self.confidence)
        return PixelMap(other, *seen, embedding=self.embedding, turned=self.turned)

    def correspond(
        self, other: PixelMap, pixels: Tensor | None = None, *, through: str = "auto"
    ) -> PixelMatches:
        """Where the points that this image shows are seen in another image.

        Embeddings are compared with embeddings where both maps hold one: better than through one hard vertex.
        Otherwise each point of the surface is looked for in the other image, to a fraction of a pixel where both
        know points inside triangles.

        Args:
            other: of the same surface; with embeddings, of any surface that shares their space.
            pixels: (N, 2) pixel x, pixel y to be carried; None takes the centres of all foreground pixels. Pixels
                outside the foreground are not seen.
            through: "embedding", "surface", or "auto" for the first where both maps hold embeddings.

        Raises:
            TypeError, ValueError: maps of different surfaces, no embeddings to compare, pixels of another shape.
        """
        check_choice(through, ("auto", "embedding", "surface"), "through")
        both = self.embedding is not None and other.embedding is not None
        if through == "embedding" and not both:
            raise ValueError("through: expected maps that both hold an embedding, found one without")
        source, at, shown = self._asked(pixels)
        find = self._by_embedding if both and through != "surface" else self._by_surface
        places = find(other, at[shown])
        target, confidence = torch.full_like(source, torch.nan), source.new_zeros(len(source))
        # asked for between pixel centres: the same step on the other side
        target[shown] = places.pixels.to(target) + (source - at - 0.5)[shown]
        here = self.confidence[at[shown, 1], at[shown, 0]]
        confidence[shown] = torch.minimum(here, places.confidence.to(here))
        return PixelMatches(source, target, confidence)

    def _asked(self, pixels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Places (N, 2), column and row (N, 2) of their pixels, and whether these are foreground (N,)."""
        if pixels is None:
            at = torch.nonzero(self.mask).flip(1)
            return at.float() + 0.5, at, torch.ones(len(at), dtype=torch.bool, device=at.device)
        source = as_floats(pixels, "pixels").to(self.confidence)
        check_shape(source, "N 2", "pixels")
        last = torch.tensor(self.size[::-1], device=source.device) - 1
        cell = source.nan_to_num(-1).floor().long()
        at = torch.minimum(cell.clamp_min(0), last)
        return source, at, (at == cell).all(1) & self.mask[at[:, 1], at[:, 0]]

    def _by_surface(self, other: PixelMap, at: Tensor) -> Places:
        same = other.surface is self.surface or surface_digest(other.surface) == surface_digest(self.surface)
        if not same:
            raise ValueError(
                f"other: expected a map on the same surface ({self.surface.n_verts} vertices), found one of "
                f"{other.surface.n_verts}; bring it here with PixelMap.through"
            )
        place = torch.zeros(*self.size, 3, dtype=torch.float64, device=at.device)
        place[self.mask] = self._at_pixels(other.surface.verts.detach()).to(place)  # in the other's pose
        return other._find(place[at[:, 1], at[:, 0]])

    def _by_embedding(self, other: PixelMap, at: Tensor) -> Places:
        assert self.embedding is not None and other.embedding is not None
        where = torch.nonzero(other.mask).flip(1)
        if not len(where):
            return Places(torch.full((len(at), 2), torch.nan), torch.zeros(len(at)))
        found = nearest_vertices(
            self.embedding[at[:, 1], at[:, 0]].float(), other.embedding[other.mask].float()
        )
        there = where[found]
        return Places(there.float() + 0.5, other.confidence[there[:, 1], there[:, 0]])

    def _corners(self) -> tuple[Tensor, Tensor]:
        """(n, c) vertices that the foreground pixels show and (n, c) their weights: three corners, or one vertex."""
        if self.face is None or self.barycentric is None:
            vertex = self.vertex[self.mask][:, None]
            return vertex, torch.ones_like(vertex, dtype=torch.float32)
        return self.surface.faces[self.face[self.mask]], self.barycentric[self.mask]

    def _at_pixels(self, values: Tensor) -> Tensor:
        """(n, C) vertex functions (V, C) at the foreground pixels."""
        if not values.is_floating_point():
            return values[self.vertex[self.mask]]
        corners, weights = self._corners()
        return (values[corners] * weights[..., None].to(values.dtype)).sum(1)

    def _find(self, points: Tensor) -> Places:
        """Where surface points (L, 3) are seen."""
        found = self._seen.find(points.detach().double().cpu().numpy())
        pixels, near = (torch.as_tensor(x, device=self.mask.device) for x in found)
        sure = self.confidence[near[:, 1], near[:, 0]].masked_fill(pixels.isnan().any(-1), 0)
        return Places(pixels.float(), sure)

    @cached_property
    def _seen(self) -> SeenPlaces:
        image = torch.full((*self.size, 3), torch.nan, dtype=torch.float64)
        image[self.mask.cpu()] = self._at_pixels(self.surface.verts.detach()).double().cpu()
        return SeenPlaces(image.numpy(), None if self.face is not None else self.vertex.cpu().numpy())


def surface_digest(surface: Mesh) -> str:
    """What a surface is known by: the number of its vertices and its faces, not its pose."""
    faces = surface.faces.detach().cpu().numpy().astype("<i8")
    return hashlib.sha256(f"{surface.n_verts}:".encode() + faces.tobytes()).hexdigest()[:32]
