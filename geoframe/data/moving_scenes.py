"""Two frames of a scene of flat layers that move on their own, with the exact flow between them.

Layers are pictures with masks: photographs, renders of the zoo, anything. Each has an affine motion and a smooth bend
of its own; those in front hide those behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geoframe._check import check_shape
from geoframe.data._backgrounds import background
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


class Layer(NamedTuple):
    """A flat picture in a scene.

    picture: (3, h, w) in [0, 1].
    mask: (h, w) in [0, 1], how much of what is behind it each pixel hides; None for all of it.
    motion: from frame 0 to frame 1.
    origin: x and y, in frame 0, of the corner of the picture.
    """

    picture: Tensor
    mask: Tensor | None
    motion: Motion
    origin: tuple[float, float] = (0.0, 0.0)


def moving_scene(layers: Sequence[Layer], size: tuple[int, int]) -> MovingScene:
    """Draw two frames of layers.

    Args:
        layers: the background first, which has to cover both frames (its border is continued where it does not).
        size: (H, W) of the frames.

    Raises:
        ValueError: no layers.
    """
    if not layers:
        raise ValueError("layers: expected at least a background, found none")
    H, W = size
    grid = pixel_grid(H, W, like=torch.zeros(0, dtype=torch.float64))
    frames, top = [], []
    flow = torch.zeros_like(grid)
    for time in (0, 1):
        image, owner = torch.zeros(3, H, W), torch.zeros(H, W, dtype=torch.int64)
        for number, layer in enumerate(layers):
            check_shape(layer.picture, "3 h w", "picture")
            places = grid if time == 0 else layer.motion.inverse(grid)
            at = (places - places.new_tensor(layer.origin)[:, None, None])[None].float()
            color = sample_at(layer.picture[None].float(), at)[0]
            if number:
                alpha = torch.ones(layer.picture.shape[1:]) if layer.mask is None else layer.mask.float()
                cover = sample_at(alpha[None, None], at, padding="zeros")[0]
                image, seen = image + cover * (color - image), cover[0] > 0.5
            else:
                image, seen = color, torch.ones_like(owner, dtype=torch.bool)
            owner = torch.where(seen, number, owner)
            if time == 0:
                flow = torch.where(seen, layer.motion(grid) - grid, flow)
        frames.append(image.clamp(0, 1))
        top.append(owner)
    goal = grid + flow
    there = sample_at(top[1][None, None].double(), goal[None], mode="nearest")[0, 0]
    outside = (goal[0] < 0) | (goal[0] > W) | (goal[1] < 0) | (goal[1] > H)
    occluded = outside | (there.round().long() != top[0])
    return MovingScene(frames[0], frames[1], flow.float(), occluded, top[0])


def zoo_scene(
    pictures: Tensor,
    masks: Tensor,
    size: tuple[int, int],
    *,
    objects: tuple[int, int] = (1, 3),
    motion: float = 1.0,
    backdrop: Tensor | None = None,
    seed: int = 0,
) -> MovingScene:
    """A scene of cut-out pictures, such as renders of the zoo, before a background drawn by geoframe or a photograph.

    Args:
        pictures: (n, 3, s, s) in [0, 1], to choose from.
        masks: (n, s, s) bool, the objects on them.
        size: (H, W) of the frames.
        objects: how many, at least and at most.
        motion: factor of all motions; 1 moves the background by about 0.03 and objects by 0.05 of the longer side.
        backdrop: (3, h, w) in [0, 1], a photograph; a part of it drawn at random is the background.
        seed: of everything.

    Raises:
        ValueError: no pictures, or not as many masks.
    """
    n = check_shape(pictures, "n 3 s s", "pictures")["n"]
    check_shape(masks, f"{n} {pictures.shape[2]} {pictures.shape[3]}", "masks")
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    long, margin = max(size), max(size) // 4
    wide = long + 2 * margin
    if backdrop is None:
        drawn = background(rng, wide, (wide * float(rng.uniform(0.3, 0.6)), float(rng.normal(0, 0.05))))
        back = torch.from_numpy(np.asarray(drawn, np.float32)).permute(2, 0, 1)
    else:
        back = _part(backdrop, wide, rng)
    unit = motion * long
    moved = random_motion(
        size, shift=0.03 * unit, turn=1.5 * motion, zoom=0.02 * motion, bend=0.005 * unit, seed=generator
    )
    layers = [Layer(back, None, moved, (-margin, -margin))]
    for _ in range(int(rng.integers(objects[0], objects[1] + 1))):
        i = int(rng.integers(n))
        rows, columns = (masks[i].any(k).nonzero()[:, 0] for k in (1, 0))
        if not len(rows):
            continue
        box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        scale = (
            float(rng.uniform(0.3, 0.8))
            * min(size)
            / max(box[0].stop - box[0].start, box[1].stop - box[1].start)
        )
        part = [x[..., box[0], box[1]][None] for x in (pictures[i], masks[i][None].float())]
        picture, mask = (
            F.interpolate(x, scale_factor=scale, mode="bilinear", antialias=scale < 1, align_corners=False)[0]
            for x in part
        )
        h, w = picture.shape[1:]
        corner = (
            float(rng.uniform(-w / 3, size[1] - 2 * w / 3)),
            float(rng.uniform(-h / 3, size[0] - 2 * h / 3)),
        )
        own = random_motion(
            size, shift=0.05 * unit, turn=6 * motion, zoom=0.05 * motion, bend=0.01 * unit, seed=generator
        )
        middle = torch.tensor([corner[0] + w / 2, corner[1] + h / 2], dtype=torch.float64)
        layers.append(Layer(picture, mask[0], replace(own, centre=middle), corner))
    return moving_scene(layers, size)


def _part(photograph: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """A square of `side` pixels that shows between half and all of the shorter side of a photograph."""
    h, w = (check_shape(photograph, "3 h w", "backdrop")[k] for k in "hw")
    crop = max(1, round(min(h, w) * float(rng.uniform(0.5, 1))))
    y, x = int(rng.integers(h - crop + 1)), int(rng.integers(w - crop + 1))
    part = photograph[None, :, y : y + crop, x : x + crop].float()
    return F.interpolate(part, size=(side, side), mode="bilinear", antialias=True, align_corners=False)[0]
