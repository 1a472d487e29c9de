"""The points of a surface that a picture needs, and how what they carry becomes pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_float, check_index, check_shape
from geoframe.render._scene import Size
from geoframe.render.images import sample_image
from geoframe.render.outline import Outline
from geoframe.render.rasterize import Fragments


@dataclass(frozen=True, eq=False)
class Seen:
    """The points of the surface that a picture needs, in one list over the batch: what the n pixels see that see
    something, then, for antialiasing, the m points where outlines pass. All work is done on these."""

    pixel: Tensor  # (n,) indices into the B H W pixels
    face_id: Tensor  # (n + m,)
    image: Tensor | None  # (n + m,) number of the picture, None for one picture
    barycentric: Tensor  # (n + m, 3)
    batch: torch.Size
    size: Size
    outline: Outline | None = None

    @staticmethod
    def of(fragments: Fragments, antialias: bool = False) -> Seen:
        """Of some fragments; with `antialias` the points of outlines too."""
        batch, (H, W) = fragments.face_id.shape[:-2], fragments.face_id.shape[-2:]
        flat = fragments.face_id.reshape(-1)
        at = pixel = (flat >= 0).nonzero()[:, 0]
        face_id, bary = flat[pixel], fragments.barycentric.reshape(-1, 3).index_select(0, pixel)
        outline = fragments.outline if antialias else None
        if antialias and outline is None:
            raise ValueError(
                "fragments: expected those of rasterize, found some without outline; use antialias=False"
            )
        if outline is not None:
            mixing = outline.mixing
            at = torch.cat([pixel, mixing.beside[: len(mixing.face_id)]])
            face_id, bary = torch.cat([face_id, mixing.face_id]), torch.cat([bary, mixing.barycentric])
        image = at // (H * W) if batch.numel() > 1 else None
        return Seen(pixel, face_id, image, bary, batch, (H, W), outline)

    def carried(self, faces: Tensor, values: Tensor) -> Tensor:
        """(n, C) of values (V, C) or (..., V, C) at the rows `faces` (F, 3)."""
        sizes = check_shape(values, "... V C", "values")
        check_shape(faces, "F 3", "faces")
        check_index(faces, sizes["V"], "faces", what="rows of values")
        corner = faces.long()[self.face_id]
        if values.ndim > 2:
            self.check_batch(values.shape[:-2], "values")
            if self.image is not None:
                corner = corner + (self.image * sizes["V"])[:, None]
        table, weights = values.reshape(-1, sizes["C"]), self.barycentric.to(values.dtype)
        if not (torch.is_grad_enabled() and (table.requires_grad or weights.requires_grad)):
            # in one pass; with a gradient it could not be differentiated twice
            return torch.nn.functional.embedding_bag(corner, table, per_sample_weights=weights, mode="sum")
        return (weights[..., None] * torch.nn.functional.embedding(corner, table)).sum(1)

    def of_faces(self, values: Tensor) -> Tensor:
        """(n, C) of values (F, C) or (..., F, C)."""
        sizes = check_shape(values, "... F C", "values")
        check_index(self.face_id, sizes["F"], "fragments", what="rows of values")
        row = self.face_id
        if values.ndim > 2:
            self.check_batch(values.shape[:-2], "values")
            row = row if self.image is None else row + self.image * sizes["F"]
        return torch.nn.functional.embedding(row, values.reshape(-1, sizes["C"]))

    def sampled(self, image: Tensor, at: Tensor) -> Tensor:
        """(n, C) colours of an image (C, h, w), or one for each picture, at its pixels `at` (n, 2)."""
        sizes = check_shape(image, "... C H W", "image")
        if image.ndim == 3:
            return sample_image(image, at.to(image.dtype))
        self.check_batch(image.shape[:-3], "image")
        image = image.reshape(-1, *image.shape[-3:])
        if self.image is None:
            return (
                sample_image(image[0], at.to(image.dtype)) if len(image) else image.new_zeros(0, sizes["C"])
            )
        counts = torch.bincount(self.image, minlength=len(image)).tolist()
        order = self.image.argsort(stable=True)
        parts = zip(image, at.to(image.dtype)[order].split(counts), strict=True)
        return torch.cat([sample_image(i, x) for i, x in parts])[order.argsort()]

    def check_batch(self, batch: torch.Size, name: str) -> None:
        """Require the batch of the fragments."""
        if batch != self.batch:
            raise ValueError(
                f"{name}: expected leading shape {tuple(self.batch)} as the fragments or none, found {tuple(batch)}"
            )


def composed(seen: Seen, carried: Tensor, background: float | Tensor) -> Tensor:
    """(..., C, H, W): what the points of `seen` carry (n + m, C), over the background."""
    C, (H, W), n = carried.shape[-1], seen.size, len(seen.pixel)
    pixels = seen.batch.numel() * H * W
    if isinstance(background, (int, float)):
        under = carried.new_full((1, C), background).expand(pixels, C)
    else:
        under = as_tensor(background, "background", like=carried).to(carried)
        if under.ndim == 1:
            check_shape(under, str(C), "background")
            under = under.expand(pixels, C)
        else:
            check_picture(under, "background", seen, channels=C)
            under = under.movedim(-3, -1).expand(*seen.batch, H, W, C).reshape(pixels, C)
    flat = under.index_put((seen.pixel,), carried[:n])
    if seen.outline is not None:
        empty = torch.ones(pixels, dtype=torch.bool, device=flat.device).index_fill(0, seen.pixel, False)
        edge = carried[n:] if len(carried) > n else None
        flat = seen.outline.blend(flat, edge=edge, under=under, empty=empty)
    return flat.view(*seen.batch, H, W, C).movedim(-1, -3)


def check_picture(x: Tensor, name: str, seen: Seen, channels: int | None = None) -> None:
    """Require (C, H, W) or (..., C, H, W) of the fragments' batch and size."""
    C = check_shape(check_float(x, name), "... C H W", name)["C"]
    fits = x.shape[:-3] in (torch.Size(), seen.batch) and x.shape[-2:] == torch.Size(seen.size)
    if not fits or (channels is not None and channels != C):
        wanted = (*seen.batch, "C" if channels is None else channels, *seen.size)
        raise ValueError(f"{name}: expected shape {wanted} as the fragments, found {tuple(x.shape)}")
