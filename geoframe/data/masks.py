"""Masks as run lengths, as COCO writes them, and polygons as masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geoframe._types import Array, Ints
from geoframe.data.crops import Crop


@dataclass(frozen=True, eq=False)
class RunLengths:
    """A mask (H, W) as the lengths of its runs, column by column, the first run outside the mask.

    A mask of an object takes some hundred numbers in place of H W bytes: whole data sets fit into memory.

    Attributes:
        counts: (n,) int64 of sum H W.
        size: (H, W).

    Raises:
        ValueError: lengths that are negative or do not add up to H W.
    """

    counts: Ints
    size: tuple[int, int]

    def __post_init__(self) -> None:
        counts = np.asarray(self.counts, dtype=np.int64)
        object.__setattr__(self, "counts", counts)
        if (counts < 0).any() or counts.sum() != self.size[0] * self.size[1]:
            raise ValueError(
                f"counts: expected runs that add up to {self.size[0]} x {self.size[1]} pixels, found {counts.sum()}"
            )

    @classmethod
    def of(cls, mask: Tensor | Array) -> RunLengths:
        """The runs of a mask (H, W) bool."""
        plain = (mask.cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)).astype(bool)
        flat = plain.T.ravel()
        ends = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff(np.r_[0, ends, flat.size])
        first = flat[:1].any()
        return cls(np.r_[0, runs] if first else runs, (plain.shape[0], plain.shape[1]))

    def decode(self) -> Tensor:
        """The mask (H, W) bool."""
        H, W = self.size
        inside = np.arange(len(self.counts)) % 2 == 1
        return torch.from_numpy(np.repeat(inside, self.counts).reshape(W, H).T.copy())

    @property
    def area(self) -> int:
        """Number of pixels of the foreground."""
        return int(self.counts[1::2].sum())

    @classmethod
    def of_coco(cls, coded: Mapping[str, Any]) -> RunLengths:
        """From ``{"size": [H, W], "counts": [...]}``, or with the counts as COCO's compressed text.

        Raises:
            ValueError: other content.
        """
        try:
            H, W = (int(n) for n in coded["size"])
            counts = coded["counts"]
            runs = _from_text(counts) if isinstance(counts, str | bytes) else [int(n) for n in counts]
        except (KeyError, TypeError, ValueError, IndexError) as err:
            raise ValueError(
                f"mask: expected run lengths {{'size', 'counts'}}, found others ({err})"
            ) from err
        return cls(np.array(runs, dtype=np.int64), (H, W))

    def to_coco(self, *, compressed: bool = True) -> dict[str, Any]:
        """As `of_coco` reads it."""
        counts: Any = _to_text(self.counts.tolist()) if compressed else self.counts.tolist()
        return {"size": list(self.size), "counts": counts}


def _from_text(text: str | bytes) -> list[int]:
    """Five bits a character, the sixth says that more follow; from the fourth number on differences to the last but
    one. Source: the format of COCO's API."""
    data = text.encode("ascii") if isinstance(text, str) else text
    out: list[int] = []
    at = 0
    while at < len(data):
        value = shift = 0
        more = True
        while more:
            code = data[at] - 48
            if not 0 <= code < 64:
                raise ValueError(f"character {chr(data[at])!r} at {at}")
            value |= (code & 31) << shift
            more = bool(code & 32)
            at, shift = at + 1, shift + 5
        if code & 16:
            value -= 1 << shift
        out.append(value + (out[-2] if len(out) > 2 else 0))
    return out


def _to_text(counts: Sequence[int]) -> str:
    """The inverse of `_from_text`."""
    out: list[str] = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            code = value & 31
            value >>= 5
            more = value != (-1 if code & 16 else 0)
            out.append(chr(code + (32 if more else 0) + 48))
    return "".join(out)


def polygon_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Tensor:
    """The union of polygons as a mask (H, W) bool.

    A pixel is inside where its centre is. Drawn four times as fine and read at the centres.

    Args:
        polygons: each x, y, x, y, ... in pixels, of three corners or more.
        size: (H, W).

    Raises:
        ValueError: a polygon of fewer than three corners.
    """
    from PIL import Image, ImageDraw

    fine = 4
    image = Image.new("1", (size[1] * fine, size[0] * fine))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"polygon: expected x, y of three corners or more, found {len(polygon)} numbers")
        draw.polygon([fine * float(v) - 0.5 for v in polygon], fill=1)
    plain = np.asarray(image)
    corner = np.mean([plain[i::fine, j::fine] for i in (1, 2) for j in (1, 2)], axis=0)
    return torch.from_numpy(corner >= 0.5)


def pasted_mask(masks: Sequence[Tensor], box: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    """The union of masks that fill a box, such as the 256 x 256 masks of DensePose, as a mask (H, W) of the image.

    Args:
        masks: (h, w) bool each.
        box: x0, y0, x1, y1 in whole pixels.
        size: (H, W).
    """
    out = torch.zeros(size, dtype=torch.bool)
    for mask in masks:
        crop = Crop(box, (mask.shape[0], mask.shape[1]))
        out |= crop.paste(mask[None], size, nearest=True)[0]
    return out
