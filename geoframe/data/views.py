"""Pairs of views of pictures, related by a warp that is known exactly: what frames and landmarks learn from.

A pair is made in one go: the first view is the picture under an affine warp a, the second under a after g, so that its
pixel v shows what the first shows at g(v). Each is sampled once, from the picture, and has colours of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_choice, check_int, check_shape
from geoframe.data.augment import jpeg
from geoframe.warps import Warp, affine_warp, pixel_grid, random_warp

_QUALITIES = (30, 96)  # of JPEG, as in the released code, whose best is 99


@dataclass(frozen=True)
class WarpRange:
    """How far random warps go; see `geoframe.warps.random_warp`.

    Attributes:
        rotation: standard deviation in degrees.
        scale: of the logarithm of the scale.
        shift: in each coordinate, of half a view's side.
        bend: of the splines' non-linear weights.
        strong_bend: of half of them.
        control: centres a side.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    bend: float = 0.0
    strong_bend: float = 0.0
    control: int = 5

    def draw(self, n: int, seed: int | torch.Generator) -> Warp:
        """`n` random warps."""
        return random_warp(
            n,
            rotation=self.rotation,
            scale=self.scale,
            shift=self.shift,
            bend=self.bend,
            strong_bend=self.strong_bend,
            control=self.control,
            seed=seed,
        )


@dataclass(frozen=True)
class ViewPlan:
    """What a training step sees.

    Attributes:
        pairs: pairs of views a step.
        size: side of a view in pixels.
        zoom: share of the picture's side that a view shows, before the random scale of `first`.
        first: warps of the first view.
        second: warps of the second against the first.
        border: what lies outside of the picture, see `Warp.sample`. Black borders would give away where a view was
            taken, and a network could learn places in the picture instead of places on the object.
        flip: how probable it is that a picture is mirrored before its views are made.
        colour: strength of the changes of colour, blur and noise, which are drawn for each view; 1 is the usual.
        jpeg: how probable it is that a view is packed as JPEG, at a quality from 30 to 95.
    """

    pairs: int = 16
    size: int = 96
    zoom: float = 1.0
    first: WarpRange = WarpRange()
    second: WarpRange = WarpRange()
    border: str = "reflection"
    flip: float = 0.5
    colour: float = 1.0
    jpeg: float = 0.0

    def __post_init__(self) -> None:
        check_int(self.pairs, "pairs", low=1)
        check_int(self.size, "size", low=8)
        check_choice(self.border, ("zeros", "border", "reflection"), "border")
        shares = 0 <= self.flip <= 1 and 0 <= self.jpeg <= 1
        if not self.zoom > 0 or not shares or not self.colour >= 0:
            raise ValueError(
                f"zoom, flip, colour, jpeg: expected zoom > 0, flip and jpeg in [0, 1] and colour >= 0, found "
                f"{self.zoom}, {self.flip}, {self.colour} and {self.jpeg}"
            )

    @property
    def whole_size(self) -> int:
        """Side in pixels at which a whole picture is seen as large as in the views; a multiple of 32."""
        return max(32, 32 * round(self.size / self.zoom / 32))


class ViewBatches:
    """Batches of pairs of views: a pure function of the seed, the epoch and the process.

    Each batch is a dict of `first` and `second` (B, 3, s, s) in [0, 1], `truth` (B, h, w, 2), the places in the first
    view of the second's h x w squares of `stride` pixels, `valid` (B, h, w), those that lie inside of it, and `step`
    (), its number in the run.

    Args:
        images: (n, 3, S, S) uint8.
        plan: what a step sees.
        stride: of the network, in pixels.
        steps: batches an epoch.
        seed: of everything random.
    """

    def __init__(
        self, images: Tensor, plan: ViewPlan, *, stride: int, steps: int = 100, seed: int = 0
    ) -> None:
        check_shape(images, "N 3 S S", "images")
        if images.dtype != torch.uint8:
            raise TypeError(f"images: expected uint8, found {images.dtype}; see LandmarkSet.squares")
        if plan.size % stride:
            raise ValueError(
                f"size: expected a multiple of the network's stride, {stride}, found {plan.size}"
            )
        self.images, self.plan, self.stride, self.steps, self.seed = images, plan, stride, steps, seed

    def __call__(self, epoch: int, rank: int, world: int) -> Iterator[Mapping[str, Tensor]]:
        """The share of process `rank` of each batch of an epoch."""
        draw = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) * 4099 + rank)
        for step in range(self.steps):
            index = torch.randint(len(self.images), (max(1, self.plan.pairs // world),), generator=draw)
            batch = view_pair(self.images[index], self.plan, stride=self.stride, seed=draw)
            yield batch | {"step": torch.tensor(epoch * self.steps + step)}


def view_pair(
    images: Tensor, plan: ViewPlan, *, stride: int, seed: int | torch.Generator
) -> dict[str, Tensor]:
    """Two views of each picture, as in `ViewBatches`.

    Args:
        images: (B, 3, S, S) uint8.
        plan: how to make them.
        stride: of the network.
        seed: an int or a generator.
    """
    draw = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    B, s = len(images), plan.size
    a, g = plan.first.draw(B, draw), plan.second.draw(B, draw)
    a = a.after(affine_warp((torch.eye(2, 3) * plan.zoom).repeat(B, 1, 1)))
    x = images.float() / 255
    flip = torch.rand(B, generator=draw) < plan.flip
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    first, second = a.sample(x, s, border=plan.border), a.after(g).sample(x, s, border=plan.border)
    truth = g.grid(s // stride)
    first, second = (
        _packed(change_colours(x, strength=plan.colour, seed=draw), plan.jpeg, draw) for x in (first, second)
    )
    return {
        "first": first,
        "second": second,
        "truth": truth,
        "valid": (truth.abs() < 1).all(-1),
    }


def _packed(views: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """Some of the views as they come back from JPEG files."""
    if not share:
        return views
    chosen = torch.rand(len(views), generator=draw) < share
    quality = torch.randint(*_QUALITIES, (len(views),), generator=draw).tolist()
    return torch.stack(
        [jpeg(v, q) if c else v for v, q, c in zip(views, quality, chosen.tolist(), strict=True)]
    )


def change_colours(images: Tensor, *, strength: float = 1.0, seed: int | torch.Generator = 0) -> Tensor:
    """Brightness, contrast, saturation, tint, blur and noise of each picture, drawn at random, for whole batches.

    Args:
        images: (B, 3, H, W) in [0, 1].
        strength: 0 changes nothing.
        seed: an int or a generator.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    if not strength:
        return images
    draw = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    B = len(images)

    def around(width: float, *shape: int) -> Tensor:
        return 1 + strength * width * (2 * torch.rand(*shape, generator=draw) - 1)

    x = images * around(0.4, B, 1, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * around(0.4, B, 1, 1, 1) + mean
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * around(0.7, B, 1, 1, 1).clamp_min(0)
    x = x * around(0.15, B, 3, 1, 1)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, torch.rand(B, 1, 1, 1, generator=draw) * min(strength, 1.0))
    noise = torch.randn(x.shape, generator=draw) * (0.03 * strength) * torch.rand(B, 1, 1, 1, generator=draw)
    return (x + noise).clamp(0, 1)


class FlowBatches:
    """Batches of pairs of frames of a film with their optical flow, in the form of `ViewBatches`.

    Args:
        first: (n, 3, S, S) uint8 frames.
        second: (n, 3, S, S) uint8, the frames that are matched to the first.
        flow: (n, 2, S, S) pixels, from each pixel of the second frame to its place in the first; NaN where unknown.
        pairs: a step.
        stride: of the network, in pixels.
        still: pixels that move less, in pixels, do not count: what moves is the object.
        steps: batches an epoch.
        seed: of the order.
    """

    def __init__(
        self,
        first: Tensor,
        second: Tensor,
        flow: Tensor,
        *,
        pairs: int,
        stride: int,
        still: float = 0.001,
        steps: int = 100,
        seed: int = 0,
    ) -> None:
        sizes = check_shape(first, "N 3 H W", "first")
        check_shape(second, f"{sizes['N']} 3 {sizes['H']} {sizes['W']}", "second")
        check_shape(flow, f"{sizes['N']} 2 {sizes['H']} {sizes['W']}", "flow")
        self.first, self.second, self.pairs, self.steps, self.seed = first, second, pairs, steps, seed
        H, W = sizes["H"], sizes["W"]
        rows = torch.arange(stride // 2, H, stride)
        columns = torch.arange(stride // 2, W, stride)
        move = flow[:, :, rows][..., columns].movedim(1, -1)
        # the centre of a square lies between pixels where the stride is even: half a pixel is nothing to the flow
        place = pixel_grid(H // stride, W // stride)
        self.truth = (place + move * (2 / torch.tensor([W, H]))).nan_to_num(nan=9.0)
        self.valid = (self.truth.abs() < 1).all(-1) & (move.norm(dim=-1) >= still)

    def __call__(self, epoch: int, rank: int, world: int) -> Iterator[Mapping[str, Tensor]]:
        """The share of process `rank` of each batch of an epoch."""
        draw = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) * 4099 + rank)
        for step in range(self.steps):
            i = torch.randint(len(self.first), (max(1, self.pairs // world),), generator=draw)
            pictures: dict[str, Any] = {
                "first": self.first[i].float() / 255,
                "second": self.second[i].float() / 255,
            }
            yield pictures | {
                "truth": self.truth[i],
                "valid": self.valid[i],
                "step": torch.tensor(epoch * self.steps + step),
            }
