"""Pictures with points on surfaces, of one size and in memory: what embeddings of pixels are trained on.

Rendered pictures and annotated photographs become the same thing here: a picture, a mask or none, and some pixels
with the vertex that is seen there. Where a backbone is frozen, its maps of each picture can be kept too, so that a
step of training costs no more than the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from geoframe._check import as_floats, check_index, check_int, check_shape
from geoframe.data.crops import Crop, check_box, resized
from geoframe.data.image_files import ImageSet, box_of_mask
from geoframe.warps import similarities

if TYPE_CHECKING:
    from geoframe.data.rendered import RenderedBatch, RenderedSet

_FIELDS = ("image", "mask", "masked", "points", "vertex", "surface")  # one row a picture
_PADDING = 0.1  # around the box of an annotated object, in parts of its longer side


@dataclass(frozen=True, eq=False)
class PixelSamples:
    """n pictures of S x S pixels.

    Attributes:
        image: (n, 3, S, S) uint8.
        mask: (n, S, S) bool, the foreground.
        masked: (n,) bool, whether the mask is known.
        points: (n, P, 2) float32 pixel x, pixel y.
        vertex: (n, P) int64, the vertex seen there; -1 fills up where a picture has fewer points.
        surface: (n,) int64 into `names`.
        names: of the surfaces that vertices refer to.
        maps: (n, C, h, w) float16 each, a frozen backbone's of all pictures; empty where they are not kept.

    Raises:
        TypeError, ValueError: shapes or types that do not fit.
    """

    image: Tensor
    mask: Tensor
    masked: Tensor
    points: Tensor
    vertex: Tensor
    surface: Tensor
    names: tuple[str, ...]
    maps: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        n, size = check_shape(self.image, "n 3 S S", "image").values()
        check_shape(self.mask, f"{n} {size} {size}", "mask")
        check_shape(self.masked, f"{n}", "masked")
        P = check_shape(self.points, f"{n} P 2", "points")["P"]
        check_shape(self.vertex, f"{n} {P}", "vertex")
        check_shape(self.surface, f"{n}", "surface")
        check_index(self.surface, len(self.names), "surface", what="surfaces")
        for x in self.maps:
            check_shape(x, f"{n} C h w", "maps")

    def __len__(self) -> int:
        """Number of pictures n."""
        return len(self.image)

    @property
    def size(self) -> int:
        """S, pixels."""
        return self.image.shape[-1]

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> PixelSamples:
        """Some of the pictures."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index, dtype=torch.int64)
        some = {name: getattr(self, name)[index] for name in _FIELDS}
        return replace(self, **some, maps=tuple(x[index] for x in self.maps))

    def with_maps(self, backbone: Callable[[Tensor], Sequence[Tensor]], *, skip: int = 0) -> PixelSamples:
        """The same pictures with the maps of a frozen backbone beside them, in float16.

        Args:
            backbone: takes images (B, 3, S, S) in [0, 1].
            skip: how many of the finest maps are not kept: nothing of size zero stands in their place.
        """
        kept: list[Tensor] = []
        with torch.no_grad():
            for start in range(0, len(self), 32):
                found = backbone(self.image[start : start + 32].float() / 255)
                for i, x in enumerate(found):
                    if start == 0:
                        shape = (len(self), *(x.shape[1:] if i >= skip else (0, 0, 0)))
                        kept.append(torch.empty(shape, dtype=torch.float16))
                    if i >= skip:
                        kept[i][start : start + len(x)] = x.half()
        return replace(self, maps=tuple(kept))

    def batches(
        self,
        size: int,
        n_points: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        mirrors: Sequence[Tensor | None] = (),
        motion: float = 0.0,
        sides: Sequence[int] = (),
    ) -> Iterator[Mapping[str, Tensor]]:
        """One epoch: all pictures in a random order, of each some of its points.

        Args:
            size: pictures a batch, of all processes together; a last batch that would be smaller is left out,
                unless it is the only one.
            n_points: points a picture.
            seed: of order, points and changes.
            rank: number of this process.
            world: how many there are.
            mirrors: of each surface, for each vertex the one on the other side, or None: half of the pictures on
                surfaces that have one are mirrored. None of them where this is empty or maps are kept.
            motion: how far pictures are turned, scaled and shifted, see `moved`; not where maps are kept.
            sides: of each batch, S is one of these numbers of pixels by chance; empty: as they are. Not where maps
                are kept.

        Yields:
            `image` (B, 3, S, S) float32 in [0, 1], or `map0`, `map1`, ... where maps are kept; `mask`, `masked`;
            `points` (B, n_points, 2), `vertex` (B, n_points), `surface` (B,).
        """
        draw = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=draw)
        size = min(size, len(self))
        for start in range(0, len(self) - size + 1, size):
            at = order[start : start + size]
            chosen = torch.randint(2**31, (size, n_points), generator=draw)
            at, chosen = at[rank::world], chosen[rank::world]
            count = (self.vertex[at] >= 0).sum(1, keepdim=True)
            chosen = chosen % count.clamp_min(1)
            out = {name: getattr(self, name)[at] for name in ("mask", "masked", "surface")}
            out["points"] = self.points[at].gather(1, chosen[..., None].expand(-1, -1, 2))
            out["vertex"] = self.vertex[at].gather(1, chosen)
            if self.maps:
                out |= {f"map{i}": x[at].float() for i, x in enumerate(self.maps)}
            else:
                out["image"] = self.image[at].float() / 255
                if sides:
                    out = at_side(out, sides[int(torch.randint(len(sides), (), generator=draw))])
                if mirrors:
                    out = mirrored(out, mirrors, torch.rand(size, generator=draw)[rank::world] < 0.5)
                if motion:
                    out = moved(out, random_moves(size, motion, draw)[rank::world])
            yield out


def mirrored(
    batch: Mapping[str, Tensor], mirrors: Sequence[Tensor | None], which: Tensor
) -> dict[str, Tensor]:
    """A batch some of whose pictures are replaced by their mirror images: what was left is then right.

    Args:
        batch: as `PixelSamples.batches` yields it, with images.
        mirrors: of each surface, (V,) the vertex on the other side; or None, and its pictures stay as they are.
        which: (B,) bool.
    """
    image, mask, points, vertex = (batch[k] for k in ("image", "mask", "points", "vertex"))
    flat = torch.tensor([mirror is not None for mirror in mirrors])
    which = which & flat[batch["surface"]]
    other = vertex.clone()
    for i, mirror in enumerate(mirrors):
        if mirror is not None:
            chosen = (which & (batch["surface"] == i))[:, None] & (vertex >= 0)
            other[chosen] = mirror[vertex[chosen]]
    across = torch.stack([image.shape[-1] - points[..., 0], points[..., 1]], -1)
    return dict(batch) | {
        "image": torch.where(which[:, None, None, None], image.flip(-1), image),
        "mask": torch.where(which[:, None, None], mask.flip(-1), mask),
        "points": torch.where(which[:, None, None], across, points),
        "vertex": other,
    }


def random_moves(n: int, motion: float, draw: torch.Generator) -> Tensor:
    """(n, 2, 3) random similarities of the plane for `moved`.

    Args:
        n: how many.
        motion: largest logarithm of a scale; turns have half of it as standard deviation, in radians, and shifts
            0.4 of it, of half of the side.
        draw: gives the random numbers.
    """
    scale = torch.exp(motion * (2 * torch.rand(n, generator=draw) - 1))
    turn = 0.5 * motion * torch.randn(n, generator=draw)
    shift = 0.4 * motion * torch.randn(n, 2, generator=draw)
    return similarities(turn, scale, shift)


def moved(batch: Mapping[str, Tensor], moves: Tensor) -> dict[str, Tensor]:
    """A batch seen through affine maps; beyond the border pictures are continued by their last pixels, masks end.

    Args:
        batch: as `PixelSamples.batches` yields it, with images.
        moves: (B, 2, 3) from places in the new pictures to places in the old ones, both in [-1, 1].
    """
    image, mask, points, vertex = (batch[k] for k in ("image", "mask", "points", "vertex"))
    grid = torch.nn.functional.affine_grid(moves, list(image.shape), align_corners=False)
    new = torch.nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
    shown = torch.nn.functional.grid_sample(mask[:, None].float(), grid, align_corners=False)[:, 0] > 0.5
    S = image.shape[-1]
    place = (2 * points / S - 1) - moves[:, None, :, 2]
    place = torch.linalg.solve(moves[:, :, :2], place.mT).mT
    inside = (place.abs() < 1).all(-1)
    return dict(batch) | {
        "image": new,
        "mask": shown,
        "points": (place + 1) * (S / 2),
        "vertex": torch.where(inside, vertex, -1),
    }


def at_side(batch: Mapping[str, Tensor], side: int) -> dict[str, Tensor]:
    """A batch in another size.

    Args:
        batch: as `PixelSamples.batches` yields it, with images.
        side: S, in pixels.
    """
    old = batch["image"].shape[-1]
    if side == old:
        return dict(batch)
    mask = resized(batch["mask"][:, None].float(), (side, side))[:, 0] > 0.5
    image = resized(batch["image"], (side, side)).clamp(0, 1)
    return dict(batch) | {"image": image, "mask": mask, "points": batch["points"] * (side / old)}


def joined(samples: Sequence[PixelSamples]) -> PixelSamples:
    """Several sets as one.

    Raises:
        ValueError: none, or sets of different sizes or surfaces.
    """
    if not samples:
        raise ValueError("samples: expected at least one set, found none")
    first = samples[0]
    for other in samples[1:]:
        if (other.size, other.names) != (first.size, first.names):
            raise ValueError(
                f"samples: expected pictures of {first.size} px on {', '.join(first.names)}, found {other.size} px "
                f"on {', '.join(other.names)}"
            )
    most = max(s.points.shape[1] for s in samples)
    padded = [
        replace(
            s,
            points=torch.nn.functional.pad(s.points, (0, 0, 0, most - s.points.shape[1])),
            vertex=torch.nn.functional.pad(s.vertex, (0, most - s.vertex.shape[1]), value=-1),
        )
        for s in samples
    ]
    joined = {f: torch.cat([getattr(s, f) for s in padded]) for f in _FIELDS}
    return PixelSamples(names=first.names, **joined)  # type: ignore[arg-type]


def rendered_samples(
    pictures: RenderedSet | Iterable[RenderedBatch],
    names: Sequence[str],
    surface: Sequence[int],
    *,
    n_points: int = 512,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> PixelSamples:
    """Rendered pictures, of each some random pixels of the foreground.

    Args:
        pictures: the set, or its batches.
        names: of the surfaces.
        surface: number in `names` of each category of the set.
        n_points: P, of each picture.
        seed: of the choice of pixels.
        progress: called with (text, share done), for a set.

    Raises:
        ValueError: no picture.
    """
    check_int(n_points, "n_points", low=1)
    total = len(pictures) if isinstance(pictures, Sized) else 0
    draw = torch.Generator().manual_seed(seed)
    parts: list[PixelSamples] = []
    whole, done = None, 0
    for batch in pictures.batches(32) if hasattr(pictures, "batches") else pictures:
        number = torch.tensor(list(surface))[batch.category]
        part = _of_masks(batch.image, batch.vertex, number, tuple(names), n_points, draw)
        if total:  # each set where it belongs: of thousands of pictures there is no room for a second copy
            whole = _room(part, total) if whole is None else whole
            for name in _FIELDS:
                getattr(whole, name)[done : done + len(part)] = getattr(part, name)
        else:
            parts.append(part)
        done += len(part)
        if progress is not None and total:
            progress(f"rendering, {done} of {total} pictures", done / total)
    return joined(parts) if whole is None else whole[:done]


def _room(part: PixelSamples, n: int) -> PixelSamples:
    """Samples like these, n of them, all zero."""
    empty = {name: getattr(part, name).new_zeros(n, *getattr(part, name).shape[1:]) for name in _FIELDS}
    return replace(part, **empty)


def _of_masks(
    image: Tensor,
    vertex: Tensor,
    surface: Tensor,
    names: tuple[str, ...],
    n_points: int,
    draw: torch.Generator,
) -> PixelSamples:
    """Pictures (B, 3, S, S) with a vertex (B, S, S) of each foreground pixel."""
    points, chosen = dense_points(vertex, n_points, draw)
    known = torch.ones(len(image), dtype=torch.bool)
    return PixelSamples(
        (image * 255).round().to(torch.uint8), vertex >= 0, known, points, chosen, surface, names
    )


def dense_points(vertex: Tensor, n_points: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Some random foreground pixels.

    Args:
        vertex: (B, H, W) integers, -1 outside the foreground.
        n_points: P.
        draw: gives the random numbers.

    Returns:
        points: (B, P, 2) centres of pixels.
        vertex: (B, P) int64 seen there; -1 where the foreground has fewer pixels.
    """
    B, H, W = vertex.shape
    flat = vertex.reshape(B, -1)
    score = torch.rand(flat.shape, generator=draw).masked_fill(flat < 0, -1.0)
    at = score.topk(min(n_points, H * W), dim=1).indices
    points = torch.stack([at % W, at // W], -1).float() + 0.5
    return points, flat.gather(1, at).long()


def image_samples(
    images: ImageSet, names: Sequence[str], *, size: int = 128, copies: int = 1, seed: int = 0
) -> PixelSamples:
    """Annotated objects, each cut out around its box and brought to one size.

    Without a box the box of the mask is taken, else the whole picture. Of a picture without mask the points alone
    are learned from.

    Args:
        images: the objects.
        names: of the surfaces; the one that an object's points refer to has to be among them.
        size: S.
        copies: how many crops are made of each object; those after the first are shifted, zoomed and of other
            brightness and colours by chance.
        seed: of these.

    Raises:
        ValueError: no object, an unknown surface, an object with neither points nor mask, an empty mask, no point
            inside the crop.
    """
    from geoframe.data.augment import augment

    check_int(copies, "copies", low=1)
    if not len(images):
        raise ValueError("images: expected at least one annotated object, found none")
    rng = torch.Generator().manual_seed(seed)
    parts = []
    for item in images:
        where = item.name or "an image"
        if item.surface and item.surface not in names:
            raise ValueError(f"{where}: expected points on {', '.join(names)}, found {item.surface!r}")
        if not len(item.vertex) and item.mask is None:
            raise ValueError(f"{where}: expected points or a mask to learn from, found neither")
        picture = item.read()
        mask = None if item.mask is None else item.foreground()
        box = item.box
        if box is None and mask is not None:
            box = box_of_mask(mask)
        if box is None:
            box = torch.tensor([0.0, 0.0, picture.shape[2], picture.shape[1]])
        number = names.index(item.surface) if item.surface else 0
        for copy in range(copies):
            padding, moved = _PADDING, box
            if copy:
                shift, zoom = (torch.rand(3, generator=rng) - 0.5).split([2, 1])
                side = float((box[2:] - box[:2]).max())
                moved = box + (0.12 * side * shift).repeat(2)
                padding = _PADDING + 0.3 * float(zoom)
            crop = Crop.around(moved, size, padding=padding)
            cut = continued(crop, picture)
            if copy:
                cut = augment(cut, seed=int(torch.randint(2**31, (), generator=rng)))
            parts.append(_of_points(cut, crop, item.points, item.vertex, mask, number, tuple(names)))
    return joined(parts)


def crop_box(box: Tensor | Sequence[float] | None, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels x0, y0, x1, y1 of the crop around a box, inside an image (H, W).

    Raises:
        ValueError: a box that lies outside of the image.
    """
    H, W = size
    if box is None:
        return 0, 0, W, H
    x0, y0, x1, y1 = check_box(as_floats(box, "boxes")).tolist()
    if x1 <= 0 or y1 <= 0 or x0 >= W or y0 >= H:
        raise ValueError(f"boxes: expected boxes in the image of {W} x {H} pixels, found {[x0, y0, x1, y1]}")
    room = _PADDING * max(x1 - x0, y1 - y0)
    left, top = max(int(x0 - room), 0), max(int(y0 - room), 0)
    right, bottom = min(int(x1 + room + 1), W), min(int(y1 + room + 1), H)
    return left, top, right, bottom


def continued(crop: Crop, picture: Tensor) -> Tensor:
    """The crop (C, height, width) of a picture (C, H, W), outside of it continued with its first and last pixels."""
    x0, y0, x1, y1 = crop.box
    rows = torch.arange(y0, y1).clamp(0, picture.shape[1] - 1)
    cols = torch.arange(x0, x1).clamp(0, picture.shape[2] - 1)
    return resized(picture[:, rows][:, :, cols], crop.size).clamp(0, 1)


def _of_points(
    cut: Tensor,
    crop: Crop,
    points: Tensor,
    vertex: Tensor,
    mask: Tensor | None,
    surface: int,
    names: tuple[str, ...],
) -> PixelSamples:
    at = crop.to_crop(points) if len(points) else points
    inside = ((at >= 0) & (at < cut.shape[-1])).all(-1)
    at, vertex = at[inside], vertex[inside]
    if not len(vertex):
        at, vertex = torch.zeros(1, 2), torch.tensor([-1])
    shown = torch.zeros(cut.shape[-2:], dtype=torch.bool)
    if mask is not None:
        shown = crop.cut(mask[None], fill=0, nearest=True)[0]
    return PixelSamples(
        (cut * 255).round().to(torch.uint8)[None],
        shown[None],
        torch.tensor([mask is not None]),
        at.float()[None],
        vertex[None],
        torch.tensor([surface]),
        names,
    )
