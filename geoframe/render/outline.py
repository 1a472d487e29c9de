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

from geoframe.render._scene import Scene

Found = tuple[Tensor, Tensor, Tensor]


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
    """

    into: Tensor
    beside: Tensor
    weight: Tensor
    face_id: Tensor
    barycentric: Tensor


@dataclass(frozen=True, eq=False)
class Outline:
    """The outlines of a batch of pictures, found when first asked for.

    An outline is where the surface that a pixel sees ends before the next pixel: at a fold (the next face is turned
    away) or at a border. It is found by walking over the faces from a pixel centre to its neighbours' centres, so
    faces smaller than a pixel do no harm.

    Attributes:
        scene: the triangles on the screen; what is computed of outlines is differentiable in its points.
        find: gives the crossings of outlines and pairs of neighbouring pixels.
        batch: leading shape of the pictures.
        images: the pictures chosen from the batch by `Fragments.__getitem__`, or None for all.
        whole: the outlines that these were chosen from.
    """

    scene: Scene
    find: Callable[[], Found]
    batch: tuple[int, ...]
    images: Tensor | None = None
    whole: Outline | None = None

    def __getitem__(self, index: Any) -> Outline:
        """The outlines of some pictures."""
        n = int(torch.Size(self.batch).numel())
        images = torch.arange(n, device=self.scene.screen.device).view(self.batch)[index]
        return Outline(self.scene, self.find, tuple(images.shape), images.reshape(-1), self)

    @cached_property
    def _found(self) -> Found:
        """Pixel, neighbour and half-edge of each crossing, sorted by picture."""
        if self.whole is None or self.images is None:
            return self.find()
        near, far, edge = self.whole._found
        H, W = self.scene.size
        image = near // (H * W)
        bounds = torch.searchsorted(image, torch.stack([self.images, self.images + 1]))
        spans = [torch.arange(a, b, device=near.device) for a, b in bounds.T.tolist()]
        rows = torch.cat(spans) if spans else near[:0]
        counts = bounds[1] - bounds[0]
        new = torch.arange(len(spans), device=near.device).repeat_interleave(counts)
        shift = (new - image[rows]) * (H * W)
        return near[rows] + shift, far[rows] + shift, edge[rows]

    @cached_property
    def mixing(self) -> Mixing:
        """By how much pixels are mixed: the area of the pixel beyond the outline.

        The outline is known where it crosses the lines between pixel centres. In every square of four centres these
        crossings are joined by a straight segment, and the areas that it cuts off the four quarter pixels are
        summed. They change steadily while the outline moves, also as it passes a pixel's centre, and for a straight
        outline they are exact.
        """
        near, far, edge = self._found
        scene = self.scene
        H, W = scene.size
        tri, i = edge // 3, edge % 3
        corners = scene.faces[tri]
        a, b = (
            scene.screen.index_select(0, corners.gather(1, k[:, None])[:, 0]).double()
            for k in (i, (i + 1) % 3)
        )
        first = torch.minimum(near, far)
        sideways = torch.maximum(near, far) // W == first // W
        centre = torch.stack([first % W, first // W % H], 1).to(a.dtype) + 0.5
        # u along the way from the first pixel to the second, v across it
        (ua, va), (ub, vb) = (
            torch.where(sideways[:, None], x, x.flip(1)).unbind(1)
            for x in (a[:, :2] - centre, b[:, :2] - centre)
        )
        along, across = ub - ua, vb - va
        share = -va / across  # of the edge, from a to b
        place = (ua + share * along).clamp(0, 1)
        steep = across.square() / (along.square() + across.square())
        n = int(torch.Size(self.batch).numel()) * H * W
        cut_first, cut_second = _cut_off(first, sideways, place, steep, n, (H, W))
        onto_first = near == first
        lost, gained = (
            torch.where(onto_first, x, y) for x, y in ((cut_first, cut_second), (cut_second, cut_first))
        )
        into, weight = torch.cat([far, near]), torch.cat([gained, lost])
        total = weight.new_zeros(n).index_add(0, into, weight)  # above 1 only where outlines meet
        weight = weight / total.index_select(0, into).clamp_min(1)
        face_id, bary = self._at_edge(tri, i, share, a[:, 2], b[:, 2])
        return Mixing(into, torch.cat([near, far]), weight, face_id, bary)

    def _at_edge(
        self, tri: Tensor, i: Tensor, share: Tensor, za: Tensor, zb: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Faces and barycentric coordinates of points on the edges i of triangles."""
        scene = self.scene
        share = share.clamp(0, 1)
        if scene.perspective:
            wa, wb = (1 - share) * zb, share * za
            share = wb / (wa + wb)
        bary = share.new_zeros(len(tri), 3)
        bary = bary.scatter(1, i[:, None], (1 - share)[:, None])
        bary = bary.scatter(1, ((i + 1) % 3)[:, None], share[:, None])
        if scene.face_id is not None:
            face_id = scene.face_id[tri]
        else:
            face_id = tri % max(scene.n_faces or 1, 1)
        if scene.corners is not None:
            bary = (bary[:, None, :] @ scene.corners[tri])[:, 0]
        return face_id, bary.to(scene.dtype)

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
            edge: (m, C) what the surface carries at the points `mixing` tells; default what the pixel beside carries.
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
            edge = flat.index_select(0, mixing.beside[:m])
        change = mixing.weight[:, None].to(flat.dtype) * (
            torch.cat([edge, beyond]) - flat.index_select(0, mixing.into)
        )
        return flat.index_add(0, mixing.into, change)


def _cut_off(
    first: Tensor, sideways: Tensor, place: Tensor, steep: Tensor, n: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Areas (N,) that outlines cut off the first and the second pixel of each pair.

    Args:
        first: (N,) the left or upper pixel of the pair, an index into the n pixels of all pictures.
        sideways: (N,) whether the other pixel is to the right, else it is below.
        place: (N,) where the outline crosses, from 0 at the first centre to 1 at the second.
        steep: (N,) squared cosine between the edge's normal and the way from pixel to pixel.
        n: number of pixels.
        size: (H, W) of a picture.
    """
    H, W = size
    number = torch.arange(len(first), device=first.device)
    table = torch.full((2, n), -1, device=first.device)
    kind = torch.where(sideways, 0, 1)
    table[kind, first] = number
    reach = torch.where(sideways, 1, W)  # to the second pixel
    shift = torch.where(sideways, W, 1)  # to the pair beside
    lane, lanes = torch.where(sideways, first // W % H, first % W), torch.where(sideways, H, W)
    sums = torch.zeros_like(place), torch.zeros_like(place)
    for step in (-1, 1):  # the squares of four centres on either side of the pair
        inside = (lane + step >= 0) & (lane + step < lanes)
        home = (
            first if step == 1 else first - shift
        )  # upper or left end of the pair across, at the first pixel

        def found(pixel: Tensor, which: Tensor, inside: Tensor = inside) -> Tensor:
            return torch.where(inside, table[which, torch.where(inside, pixel, 0)], -1)

        facing = found(first + step * shift, kind)
        at_first, at_second = found(home, 1 - kind), found(home + reach, 1 - kind)
        others = (facing >= 0).int() + (at_first >= 0).int() + (at_second >= 0).int()

        def at(other: Tensor) -> Tensor:
            return place.index_select(0, other.clamp_min(0)) if len(place) else place

        across = [at(x) if step == 1 else 1 - at(x) for x in (at_first, at_second)]
        straight = _strip(place, at(facing))
        corner = _corner(place, across[0])
        mirrored = _corner(1 - place, across[1])[::-1]
        lone = [torch.where(inside, steep, 1.0) * x for x in _strip(place, place)]
        sums = tuple(  # type: ignore[assignment]
            total
            + torch.where(
                others != 1,
                lone[k],
                torch.where(facing >= 0, straight[k], torch.where(at_first >= 0, corner[k], mirrored[k])),
            )
            for k, total in enumerate(sums)
        )
    return sums


def _strip(here: Tensor, facing: Tensor) -> tuple[Tensor, Tensor]:
    """Quarter areas cut off the first and the second pixel by a segment to the opposite side of the square."""
    start, end = 0.5 - here, 0.5 - (here + facing) / 2
    return _positive_area(start, end), _positive_area(-start, -end)


def _positive_area(start: Tensor, end: Tensor) -> Tensor:
    """Integral over half a unit of the positive part of what goes linearly from start to end."""
    high, low = torch.maximum(start, end), torch.minimum(start, end)
    gap = torch.where(high > low, high - low, 1.0)
    crossing = torch.where((high > 0) & (low < 0), high.square() / (2 * gap), (high + low) / 2)
    return 0.5 * torch.where(high > 0, crossing, 0.0)


def _corner(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Quarter areas where a segment cuts the first pixel's corner off the square, a along the pair and b across it:
    half of what it cuts off the first pixel (the pair across tells the other half), and off the second pixel."""
    beyond = (a - 0.5).clamp_min(0).square() * b / (2 * a.clamp_min(0.5))
    aside = (b - 0.5).clamp_min(0).square() * a / (2 * b.clamp_min(0.5))
    return (0.25 - (a * b / 2 - beyond - aside)) / 2, beyond
