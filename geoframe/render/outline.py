"""Outlines: how much of a pixel the surface beside it covers, so that pictures have gradients at silhouettes.

A picture of pixel centres jumps where an edge passes a centre; its derivative there is zero. Here the two pixels on
either side of an outline are mixed by the share that the edge leaves them, and this share moves with the edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from geoframe.render._scene import Found, Scene

Mixed = Callable[[Scene, Found, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Mixing:
    """Pixels that outlines pass, and by what they are mixed. Each of N crossings of an outline and a pair of
    neighbouring pixels stands twice.

    Attributes:
        into: (2 N,) indices into the B H W pixels. First those beyond the outline, mixed with what the surface
            carries at its very edge; then those on the surface, mixed with what is beyond.
        beside: (2 N,) the other pixel of the pair.
        weight: (2 N,) in [0, 1], differentiable in the screen.
        face_id: (N,) the face at the edge.
        barycentric: (N, 3) where on it, differentiable in the screen.
        ending: (N,) the pixel that stands for the edge where only pixels are known: the one that sees the surface that
            ends there, or if neither of the two does the one that shows what is beside it.
        banded: None, or (rows, plus, minus), each (r,): the rows of `into` where something else shows between the two
            pixels, and what is added and taken away there, pixels or, from B H W on, points at edges.
    """

    into: Tensor
    beside: Tensor
    weight: Tensor
    face_id: Tensor
    barycentric: Tensor
    ending: Tensor
    banded: tuple[Tensor, Tensor, Tensor] | None


@dataclass(frozen=True, eq=False)
class Outline:
    """The outlines of a batch of pictures, found when first asked for.

    An outline is where the surface that a pixel sees ends before the next pixel: at a fold (the next face is turned
    away) or at a border. It is found by walking over the faces from a pixel centre to its neighbours' centres, so
    faces smaller than a pixel do no harm.

    Attributes:
        scene: the triangles on the screen; what is computed of outlines is differentiable in its points.
        find: gives the crossings of outlines and pairs of neighbouring pixels.
        mix: gives the weights of these crossings and where they are on their triangles.
        batch: leading shape of the pictures.
        images: the pictures chosen from the batch by `Fragments.__getitem__`, or None for all.
        whole: the outlines that these were chosen from.
    """

    scene: Scene
    find: Callable[[], Found]
    mix: Mixed
    batch: tuple[int, ...]
    images: Tensor | None = None
    whole: Outline | None = None

    def __getitem__(self, index: Any) -> Outline:
        """The outlines of some pictures."""
        n = int(torch.Size(self.batch).numel())
        images = torch.arange(n, device=self.scene.screen.device).view(self.batch)[index]
        return Outline(self.scene, self.find, self.mix, tuple(images.shape), images.reshape(-1), self)

    @cached_property
    def _found(self) -> Found:
        """The crossings, sorted by picture."""
        if self.whole is None or self.images is None:
            return self.find()
        near, far, edge, band, middle = self.whole._found
        H, W = self.scene.size
        image = near // (H * W)
        bounds = torch.searchsorted(image, torch.stack([self.images, self.images + 1]))
        spans = [torch.arange(a, b, device=near.device) for a, b in bounds.T.tolist()]
        rows = torch.cat(spans) if spans else near[:0]
        counts = bounds[1] - bounds[0]
        new = torch.arange(len(spans), device=near.device).repeat_interleave(counts)
        shift = (new - image[rows]) * (H * W)
        middle = torch.where(middle[rows] >= 0, middle[rows] + shift, -1)
        return Found(near[rows] + shift, far[rows] + shift, edge[rows], band[rows], middle)

    @cached_property
    def mixing(self) -> Mixing:
        """By how much pixels are mixed: the area of the pixel beyond the outline.

        The outline is known where it crosses the lines between pixel centres. In every square of four centres these
        crossings are joined by a straight segment, and the areas that it cuts off the four quarter pixels are
        summed. They change steadily while the outline moves, also as it passes a pixel's centre, and for a straight
        outline they are exact.
        """
        found = self._found
        near, far = found.near, found.far
        scene, tri = self.scene, found.edge // 3
        H, W = scene.size
        n = int(torch.Size(self.batch).numel()) * H * W
        weight, bary = self.mix(scene, found, n)
        if scene.face_id is not None:
            face_id = scene.face_id[tri]
        else:
            face_id = tri % max(scene.n_faces or 1, 1)
        if scene.corners is not None:
            bary = (bary[:, None, :] @ scene.corners[tri])[:, 0]
        pairs = torch.cat([far, near]), torch.cat([near, far])
        ending = torch.where(_between(found), far, near)
        return Mixing(*pairs, weight, face_id, bary.to(scene.dtype), ending, _banded(found, n))

    def blend(
        self,
        flat: Tensor,
        *,
        edge: Tensor | None = None,
        under: Tensor | None = None,
        empty: Tensor | None = None,
    ) -> Tensor:
        """Mix the pixels of pictures in one list (B H W, C).

        Args:
            flat: what is seen at the pixel centres.
            edge: (m, C) what the surface carries at the points `mixing` tells; default what the pixels `ending` carry,
                so that what shows only between two pixels is left out.
            under: (B H W, C) the background; default what the empty pixel beside carries.
            empty: (B H W,) where the background is seen, with `under`.

        Returns:
            (B H W, C).
        """
        mixing = self.mixing
        m = len(mixing.face_id)
        beyond = flat.index_select(0, mixing.beside[m:])
        if under is not None and empty is not None:
            bare = empty.index_select(0, mixing.beside[m:])
            beyond = torch.where(bare[:, None], under.index_select(0, mixing.into[m:]), beyond)
        if edge is None:
            edge = flat.index_select(0, mixing.ending)
        change = torch.cat([edge, beyond]) - flat.index_select(0, mixing.into)
        if mixing.banded is not None:
            rows, *sources = mixing.banded
            plus, minus = (self._shown(x, mixing.into[rows], flat, edge, under, empty) for x in sources)
            change = change.index_copy(0, rows, plus - minus)
        return flat.index_add(0, mixing.into, mixing.weight[:, None].to(flat.dtype) * change)

    @staticmethod
    def _shown(
        source: Tensor, into: Tensor, flat: Tensor, edge: Tensor, under: Tensor | None, empty: Tensor | None
    ) -> Tensor:
        """(r, C): what pixels show, or points at edges, from B H W on; where these are empty, the background."""
        n = len(flat)
        pixel = source.clamp_max(n - 1)
        value = flat.index_select(0, pixel)
        if under is not None and empty is not None:
            value = torch.where(empty[pixel, None], under.index_select(0, into), value)
        return torch.where((source >= n)[:, None], edge.index_select(0, (source - n).clamp_min(0)), value)


def _between(found: Found) -> Tensor:
    """(N,) whether two outlines pass the pair and it is the surface that ends here that shows between them."""
    first = torch.minimum(found.near, found.far)
    return (found.band > 0) & ((found.near == first) == (found.band == 2))


def _banded(found: Found, n: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """What is mixed by what in pairs of pixels that two outlines pass; see `Mixing.banded`."""
    near, far, _, band, middle = found
    k = (band > 0).nonzero()[:, 0]
    if not len(k):
        return None
    N, between = len(near), _between(found)
    other = k + 3 - 2 * band[k]
    shown = torch.where(between[other], n + other, middle[k])
    ends, hides = between[k], ~between[k]
    rows = torch.cat([N + k[ends], k[hides], N + k[hides]])
    plus = torch.cat([far[k[ends]], n + k[hides], shown[hides]])
    minus = torch.cat([n + k[ends], shown[hides], near[k[hides]]])
    return rows, plus, minus
