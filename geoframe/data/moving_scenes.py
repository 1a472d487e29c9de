"""Two frames of a scene of flat layers that move on their own, with the exact flow between them.

Layers are pictures with masks: photographs, renders of the zoo, anything. Each has an affine motion and a smooth bend
of its own; those in front hide those behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from geoframe._check import check_shape
from geoframe.flow.warp import pixel_grid, sample_at

_ROUNDS = 16  # of the fixed point that inverts a bend; its slope is at most 0.3, so that 16 leave 1e-8 of it


class MovingScene(NamedTuple):
    """Two frames and what moved.

    image0: (3, H, W) in [0, 1].
    image1: (3, H, W).
    flow: (2, H, W) pixels, from image 0 to image 1, exact for every pixel of image 0.
    occluded: (H, W) bool, pixels of image 0 that image 1 does not show.
    layer: (H, W) int64, which layer each pixel of image 0 shows; 0 is the background.
    """

    image0: Tensor
    image1: Tensor
    flow: Tensor
    occluded: Tensor
    layer: Tensor


@dataclass(frozen=True)
class Motion:
    """A smooth motion of the plane: ``p -> A (p - c) + c + t + bend(p)``, all in pixels.

    Attributes:
        A: (2, 2).
        t: (2,).
        centre: (2,) c.
        waves: (n, 2) angular frequencies of the bend.
        amplitudes: (n, 2) along x and y.
        phases: (n,).
    """

    A: Tensor
    t: Tensor
    centre: Tensor
    waves: Tensor
    amplitudes: Tensor
    phases: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """Where points (2, H, W) go."""
        c = self.centre[:, None, None]
        return self._linear(points - c, self.A) + c + self.t[:, None, None] + self._bend(points)

    def inverse(self, points: Tensor) -> Tensor:
        """Where points (2, H, W) come from."""
        c, back = self.centre[:, None, None], torch.linalg.inv(self.A)
        found = points
        for _ in range(_ROUNDS):
            found = self._linear(points - c - self.t[:, None, None] - self._bend(found), back) + c
        return found

    @staticmethod
    def _linear(points: Tensor, A: Tensor) -> Tensor:
        return (A @ points.flatten(1)).reshape(points.shape)

    def _bend(self, points: Tensor) -> Tensor:
        angle = self.waves @ points.flatten(1) + self.phases[:, None]
        return (self.amplitudes.T @ torch.sin(angle)).reshape(points.shape)


def random_motion(
    size: tuple[int, int],
    *,
    shift: float,
    turn: float,
    zoom: float,
    bend: float,
    seed: int | torch.Generator,
) -> Motion:
    """A motion drawn at random.

    Args:
        size: (H, W) of the frame.
        shift: standard deviation of the translation, pixels.
        turn: of the rotation, degrees.
        zoom: of the logarithm of the scale, and of the shear.
        bend: of the amplitude of the bend, pixels.
        seed: int or torch.Generator.
    """
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    H, W = size
    angle = math.radians(turn) * normal(1)
    c, s = torch.cos(angle), torch.sin(angle)
    A = torch.stack([torch.cat([c, -s]), torch.cat([s, c])]) @ torch.matrix_exp(zoom * normal(2, 2))
    centre = torch.tensor([W, H]) * torch.rand(2, generator=generator, dtype=torch.float64)
    length = min(H, W) * (0.5 + torch.rand(3, generator=generator, dtype=torch.float64))
    direction = 2 * math.pi * torch.rand(3, generator=generator, dtype=torch.float64)
    waves = 2 * math.pi / length[:, None] * torch.stack([direction.cos(), direction.sin()], dim=1)
    amplitudes = bend * normal(3, 2) / 3**0.5
    steep = (amplitudes.norm(dim=1) * waves.norm(dim=1)).sum()
    amplitudes = amplitudes * min(1.0, 0.3 / max(float(steep), 1e-12))
    phases = 2 * math.pi * torch.rand(3, generator=generator, dtype=torch.float64)
    return Motion(A, shift * normal(2), centre, waves, amplitudes, phases)


def moving_scene(
    layers: Sequence[tuple[Tensor, Tensor | None]], motions: Sequence[Motion], size: tuple[int, int]
) -> MovingScene:
    """Draw two frames of layers.

    Args:
        layers: (picture (3, h, w) in [0, 1], mask (h, w) in [0, 1] or None for all of it), the background first, which
            has to cover the frame; every layer lies with its corner at the frame's in the first frame.
        motions: of each layer, from frame 0 to frame 1.
        size: (H, W) of the frames.

    Raises:
        ValueError: no layers, or not as many motions.
    """
    if not layers or len(layers) != len(motions):
        raise ValueError(f"motions: expected one a layer, found {len(motions)} for {len(layers)} layers")
    H, W = size
    grid = pixel_grid(H, W, like=torch.zeros(0, dtype=torch.float64))
    frames, top = [], []
    flow = torch.zeros_like(grid)
    for time in (0, 1):
        image, owner = torch.zeros(3, H, W), torch.zeros(H, W, dtype=torch.int64)
        for number, ((picture, mask), motion) in enumerate(zip(layers, motions, strict=True)):
            check_shape(picture, "3 h w", "picture")
            alpha = torch.ones(picture.shape[1:]) if mask is None else mask.float()
            places = grid if time == 0 else motion.inverse(grid)
            cover = sample_at(
                alpha[None, None], places[None].float(), padding="border" if number == 0 else "zeros"
            )[0]
            color = sample_at(picture[None].float(), places[None].float())[0]
            image = image + cover * (color - image) if number else color
            seen = cover[0] > 0.5 if number else torch.ones_like(owner, dtype=torch.bool)
            owner = torch.where(seen, number, owner)
            if time == 0:
                flow = torch.where(seen, motion(grid) - grid, flow)
        frames.append(image.clamp(0, 1))
        top.append(owner)
    goal = grid + flow
    there = sample_at(top[1][None, None].double(), goal[None], mode="nearest", padding="border")[0, 0]
    outside = (goal[0] < 0) | (goal[0] > W) | (goal[1] < 0) | (goal[1] > H)
    occluded = outside | (there.round().long() != top[0])
    return MovingScene(frames[0], frames[1], flow.float(), occluded, top[0])
