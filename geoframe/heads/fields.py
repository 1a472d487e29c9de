"""A head that gives each pixel an embedding and says whether it belongs to the object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoframe._check import check_choice, check_int
from geoframe.heads.backbone import Backbone, conv

_WIDE_STRIDE = 16  # from here on all levels have the full width; finer ones less, by the root of the stride


class Field(NamedTuple):
    """What a `FieldHead` says about images, one value for each square of `stride` pixels.

    Attributes:
        embedding: (B, D, h, w), not normalised.
        mask: (B, h, w) logits: above 0 where the object is.
    """

    embedding: Tensor
    mask: Tensor


class FieldHead(nn.Module):
    """Backbone and decoder with skip connections: images to embeddings and a mask.

    From the coarsest map on, each is enlarged, put beside the next finer one, mixed with it pixel by pixel, and passed
    through a convolution that adds to it. (Mixing by 3 x 3 convolutions takes 2.3 times as many operations.) The
    mean over the whole image goes in at the coarsest level, since whether an animal looks left or right is not to be
    seen in a part of it.

    Args:
        backbone: gives the maps.
        dim: D, numbers of an embedding.
        width: channels of the coarse levels; a multiple of 8.
        stride: 2 or 4, wanted of the field; it is that of the backbone's finest map that is not finer. A backbone
            without maps so fine (a transformer) is followed by levels of its own.
        mask: whether to predict one; without, its logits are a constant that says "object".
        fine: into how many parts each side of a square of the finest level is divided: the last convolution tells the
            values of `fine` x `fine` parts side by side. The finest level then has `fine` times the stride of the
            field, which takes a third of the time of a level of its own.

    Attributes:
        stride: of the field, in pixels.
        dim: D.
        settings: the arguments width, stride, mask and fine, to build it again.
        n_unused: how many of the backbone's finest maps are not looked at.
    """

    def __init__(
        self,
        backbone: Backbone,
        dim: int = 16,
        *,
        width: int = 128,
        stride: int = 4,
        mask: bool = True,
        fine: int = 1,
    ) -> None:
        super().__init__()
        check_int(dim, "dim", low=1)
        check_int(width, "width", low=16)
        if width % 8:
            raise ValueError(f"width: expected a multiple of 8, found {width}")
        check_choice(stride, (2, 4), "stride")  # type: ignore[arg-type]
        self.backbone, self.dim, self.has_mask = backbone, dim, mask
        check_int(fine, "fine", low=1, high=4)
        self.settings = {"width": width, "stride": stride, "mask": mask, "fine": fine}
        stride, self.fine = stride * fine, fine
        used = [(s, c) for s, c in zip(backbone.strides, backbone.channels, strict=True) if s >= stride]
        if not used:
            raise ValueError(
                f"stride: expected at most {max(backbone.strides)}, which is all that {backbone.name!r} has, "
                f"found {stride}"
            )
        self.n_unused = len(backbone.strides) - len(used)
        levels = [*reversed(used)]  # coarsest first
        while levels[-1][0] >= 2 * stride:
            levels.append((levels[-1][0] // 2, 0))
        self.level_strides = [s for s, _ in levels]
        self.stride = self.level_strides[-1] // fine
        widths = [max(round(width * min(1, s / _WIDE_STRIDE) ** 0.5 / 8), 2) * 8 for s in self.level_strides]
        before = [0, *widths[:-1]]
        self.context = nn.Linear(levels[0][1], widths[0])
        self.enter = nn.ModuleList(
            conv(b + c, w, size=1) for b, (_, c), w in zip(before, levels, widths, strict=True)
        )
        self.refine = nn.ModuleList(conv(w, w) for w in widths)
        self.out = nn.Conv2d(widths[-1], (dim + mask) * fine**2, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor | Sequence[Tensor]) -> Field:
        """The field (B, D, h, w) and (B, h, w) of images; h and w are H and W over the stride, rounded up.

        Args:
            image: (B, 3, H, W) in [0, 1]; or what the backbone says of it, finest first, which a frozen backbone
                allows to compute once. Then h and w are of the image continued to a multiple of the largest stride.
        """
        if isinstance(image, Tensor):
            height, width = (-(-n // self.stride) for n in image.shape[-2:])
            maps = self.backbone(image)
        else:
            maps = list(image)
            if len(maps) != len(self.backbone.strides):
                raise ValueError(
                    f"image: expected the {len(self.backbone.strides)} maps of {self.backbone.name!r}, "
                    f"found {len(maps)}"
                )
            scale = self.backbone.strides[-1] // self.stride
            height, width = (n * scale for n in maps[-1].shape[-2:])
        found = self._decoded(list(reversed(maps[self.n_unused :])))[..., :height, :width]
        embedding = found[:, : self.dim]
        mask = found[:, self.dim] if self.has_mask else torch.ones_like(found[:, 0])
        return Field(embedding, mask)

    def _decoded(self, maps: list[Tensor]) -> Tensor:
        """(B, D + 1, h, w) from the maps, coarsest first."""
        x: Tensor | None = None
        for i, (enter, refine) in enumerate(zip(self.enter, self.refine, strict=True)):
            skip = maps[i] if i < len(maps) else None
            if x is None:
                assert skip is not None
                context = self.context(skip.mean((2, 3)))[..., None, None]
                x = enter(skip) + context
            else:
                scale = self.level_strides[i - 1] // self.level_strides[i]
                if scale > 1:
                    x = F.interpolate(x, scale_factor=float(scale), mode="nearest")
                x = enter(x if skip is None else torch.cat([x, skip], dim=1))
            x = x + refine(x)
        assert x is not None
        found: Tensor = self.out(x)
        return F.pixel_shuffle(found, self.fine) if self.fine > 1 else found

    def at_size(self, field: Field, height: int, width: int) -> Field:
        """The field of every pixel of an image, bilinear between the centres of the squares.

        Args:
            field: what this head said of images of that size.
            height: H, of the images.
            width: W, of the images.

        Returns:
            embedding (B, D, H, W) and mask (B, H, W).
        """
        both = torch.cat([field.embedding, field.mask[:, None]], dim=1)
        h, w = both.shape[-2:]
        size = (h * self.stride, w * self.stride)
        both = F.interpolate(both, size=size, mode="bilinear", align_corners=False)[..., :height, :width]
        return Field(both[:, :-1], both[:, -1])
