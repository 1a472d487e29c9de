"""What cameras and files do to pictures: blur, motion blur, JPEG, noise, colour; on tensors (..., 3, H, W)."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from torch import Tensor

from geoframe._check import check_float, check_int, check_shape


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; the border is repeated.

    Args:
        image: (..., C, H, W).
        sigma: standard deviation in pixels; 0 changes nothing.

    Raises:
        ValueError: negative `sigma`.
    """
    _picture(image)
    if sigma < 0:
        raise ValueError(f"sigma: expected 0 pixels or more, found {sigma}")
    reach = math.ceil(3 * sigma)
    if reach == 0:
        return image
    at = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    line = torch.exp(-(at**2) / (2 * sigma**2))
    line = line / line.sum()
    return _filtered(_filtered(image, line[None]), line[:, None])


def motion_blur(image: Tensor, length: float, angle: float) -> Tensor:
    """Blur along a line; the border is repeated.

    Args:
        image: (..., C, H, W).
        length: of the line in pixels; up to 1 changes nothing.
        angle: degrees from the x axis towards the y axis, which points down.

    Raises:
        ValueError: negative `length`.
    """
    _picture(image)
    if length < 0:
        raise ValueError(f"length: expected 0 pixels or more, found {length}")
    reach = math.ceil((length - 1) / 2)
    if reach <= 0:
        return image
    at = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = c * at[None] + s * at[:, None], c * at[:, None] - s * at[None]
    kernel = ((length + 1) / 2 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp_min(0)
    return _filtered(image, kernel / kernel.sum())


def soften(image: Tensor, factor: float) -> Tensor:
    """A picture that was smaller once: reduced by `factor` of 1 or more, and enlarged again.

    Args:
        image: (..., C, H, W).
        factor: 1 changes nothing.

    Raises:
        ValueError: a factor below 1.
    """
    _picture(image)
    if factor < 1:
        raise ValueError(f"factor: expected 1 or more, found {factor}")
    H, W = image.shape[-2:]
    small = (max(2, round(H / factor)), max(2, round(W / factor)))
    if small == (H, W):
        return image
    flat = image.reshape(-1, 1, H, W)
    flat = torch.nn.functional.interpolate(flat, small, mode="bilinear", antialias=True)
    flat = torch.nn.functional.interpolate(flat, (H, W), mode="bilinear", align_corners=False)
    return flat.view(image.shape)


def add_noise(image: Tensor, strength: float, *, seed: int | torch.Generator = 0) -> Tensor:
    """Noise of a sensor: grows with the root of the light; clamped to [0, 1].

    Args:
        image: (..., C, H, W).
        strength: standard deviation where the picture is white.
        seed: an int or a generator.

    Raises:
        ValueError: negative `strength`.
    """
    _picture(image)
    if strength < 0:
        raise ValueError(f"strength: expected 0 or more, found {strength}")
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator(image.device).manual_seed(seed)
    drawn = torch.randn(image.shape, generator=generator, dtype=image.dtype, device=image.device)
    return (image + strength * drawn * (0.15 + 0.85 * image.clamp_min(0)).sqrt()).clamp(0, 1)


def jitter_color(
    image: Tensor,
    *,
    brightness: float = 1.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    gamma: float = 1.0,
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Other exposure and colours; clamped to [0, 1]. The defaults change nothing.

    Args:
        image: (..., 3, H, W).
        brightness: factor of all values.
        contrast: factor of the distance from the picture's mean.
        saturation: factor of the distance from grey.
        gamma: exponent, positive.
        balance: factors of red, green and blue.

    Raises:
        ValueError: not three channels; a negative factor; `gamma` that is not positive.
    """
    check_shape(check_float(image, "image"), "... 3 H W", "image")
    if min(brightness, contrast, saturation, *balance) < 0 or gamma <= 0:
        raise ValueError("brightness, contrast, saturation, balance, gamma: expected positive factors")
    out = image * (brightness * image.new_tensor(balance))[:, None, None]
    mean = out.mean((-3, -2, -1), keepdim=True)
    out = mean + contrast * (out - mean)
    grey = (out * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(-3, keepdim=True)
    out = (grey + saturation * (out - grey)).clamp(0, 1)
    return out if gamma == 1 else out**gamma


def jpeg(image: Tensor, quality: int) -> Tensor:
    """The picture as it comes back from a JPEG file.

    Args:
        image: (..., 3, H, W).
        quality: 1 to 95.

    Raises:
        ValueError: not three channels, quality out of range.
    """
    from PIL import Image

    check_shape(check_float(image, "image"), "... 3 H W", "image")
    check_int(quality, "quality", low=1, high=95)
    bytes_ = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).cpu()
    flat = bytes_.reshape(-1, *bytes_.shape[-3:]).numpy()
    out = np.empty_like(flat)
    for i, picture in enumerate(flat):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        out[i] = np.asarray(Image.open(file))
    back = torch.from_numpy(out).view(bytes_.shape).movedim(-1, -3)
    return back.to(image.device, image.dtype) / 255


def shuffle_tiles(image: Tensor, n: int = 4, *, seed: int | torch.Generator = 0) -> Tensor:
    """The picture cut into n x n tiles in another order: its colours and textures without its shapes.

    Args:
        image: (..., C, H, W) with H and W at least n; what is left of a division by n stays where it is.
        n: tiles along a side.
        seed: an int or a generator; each picture has an order of its own.

    Raises:
        ValueError: n below 2, or more tiles than pixels.
    """
    check_shape(image, "... C H W", "image")
    h, w = (size // n if n >= 2 else 0 for size in image.shape[-2:])
    if not h or not w:
        raise ValueError(f"n: expected 2 to {min(image.shape[-2:])} tiles a side, found {n}")
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    flat = image.reshape(-1, *image.shape[-3:]).clone()
    for picture in flat:
        part = picture[:, : n * h, : n * w].unflatten(2, (n, w)).unflatten(1, (n, h))
        tiles = part.permute(1, 3, 0, 2, 4).flatten(0, 1)[torch.randperm(n * n, generator=generator)]
        part = tiles.unflatten(0, (n, n)).permute(2, 0, 3, 1, 4)
        picture[:, : n * h, : n * w] = part.flatten(3).flatten(1, 2)
    return flat.reshape(image.shape)


def augment(image: Tensor, *, seed: int | np.random.Generator, strength: float = 1.0) -> Tensor:
    """Some of all that, by chance, the same for all pictures given.

    Args:
        image: (..., 3, H, W).
        seed: an int, or a NumPy generator to draw from.
        strength: 0 changes nothing, 1 is what photographs need, more is more.

    Returns:
        (..., 3, H, W) in [0, 1]; geometry stays as it is.

    Raises:
        ValueError: negative `strength`; pictures without three channels.
    """
    check_shape(check_float(image, "image"), "... 3 H W", "image")
    if strength < 0:
        raise ValueError(f"strength: expected 0 or more, found {strength}")
    rng = np.random.default_rng(seed)
    chance, size = rng.random(6), min(image.shape[-2:]) / 64
    normal, draw, draws = rng.normal(0, strength, 7), rng.random(5), int(rng.integers(2**62))
    out = image
    if chance[0] < 0.25 * strength:
        out = blur(out, 0.3 + 0.8 * float(draw[0]) * size * strength)
    elif chance[1] < 0.12 * strength:
        out = motion_blur(out, 1 + 5 * float(draw[0]) * size * strength, 360 * float(draw[1]))
    elif chance[2] < 0.3 * strength:
        out = soften(out, 1 + 1.2 * float(draw[2]) * strength)
    if chance[3] < 0.8 * strength:
        balance = np.exp(0.07 * normal[:3])
        out = jitter_color(
            out,
            brightness=float(np.exp(0.16 * normal[3])),
            contrast=float(np.exp(0.18 * normal[4])),
            saturation=float(np.exp(0.3 * normal[5])),
            gamma=float(np.exp(0.18 * normal[6])),
            balance=(float(balance[0]), float(balance[1]), float(balance[2])),
        )
    if chance[4] < 0.5 * strength:
        generator = torch.Generator(image.device).manual_seed(draws)
        out = add_noise(out, 0.06 * strength * float(draw[3]) ** 2, seed=generator)
    if chance[5] < 0.3 * strength:
        out = jpeg(out, 25 + int(65 * draw[4]))
    return out.clamp(0, 1)


def _picture(image: Tensor) -> None:
    check_shape(check_float(image, "image"), "... C H W", "image")


def _filtered(image: Tensor, kernel: Tensor) -> Tensor:
    h, w = kernel.shape
    flat = image.reshape(-1, 1, *image.shape[-2:])
    flat = torch.nn.functional.pad(flat, (w // 2, w // 2, h // 2, h // 2), mode="replicate")
    return torch.nn.functional.conv2d(flat, kernel[None, None]).view(image.shape)
