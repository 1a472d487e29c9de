"""Deep matching as a network: descriptors, correlation, and the pyramid of scores built up and decoded again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._check import check_choice, check_float, check_int, check_shape
from geoframe.flow.descriptors import oriented_gradients
from geoframe.heads.backbone import backbone
from geoframe.heads.vgg import Vgg16
from geoframe.layers.matching import ScorePyramid, correlate, deep_scores, patch_descriptors

DESCRIPTORS = ("gradients", "small", "vgg", "lite0")
_LEAST_EXPONENT = 0.1


class SmallDescriptor(nn.Module):
    """Two layers of small filters beside the hand-made channels: it starts as those and learns what to add.

    Args:
        channels: learned ones.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 5, padding=2)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels + 9, 16, 1)
        with torch.no_grad():
            self.mix.weight.mul_(0.1)
            self.mix.weight[:9] = torch.eye(9, channels + 9)[..., None, None]
            self.mix.bias.zero_()  # type: ignore[union-attr]

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, 16, H, W) of images (B, 3, H, W)."""
        learned = F.relu(self.second(F.relu(self.first(image - image.mean((2, 3), keepdim=True)))))
        return F.relu(self.mix(torch.cat([oriented_gradients(image), learned], dim=1)))


class DeepMatcher(nn.Module):
    """Deep matching of two images.

    Args:
        descriptor: "gradients" (made by hand), "small" (a small network that is trained), "vgg" or "lite0" (the first
            convolutions of a pretrained network, of the extras vgg and image).
        stride: pixels between patches of image 0.
        size: places along a side of a patch; by default 4, with "vgg" 1 and with "lite0" 2, whose features see more.
        spacing: pixels between those places.
        radius: how far matches are searched, pixels each way.
        step: pixels between the places of image 1 that are searched.
        levels: of the pyramid.
        exponent: power after each aggregation, to start from.
    """

    def __init__(
        self,
        descriptor: str = "gradients",
        *,
        stride: int = 8,
        size: int | None = None,
        spacing: int = 2,
        radius: int = 80,
        step: int = 2,
        levels: int = 6,
        exponent: float = 1.4,
    ) -> None:
        super().__init__()
        check_choice(descriptor, DESCRIPTORS, "descriptor")
        size = _PLACES[descriptor] if size is None else size
        for name, value in (("stride", stride), ("size", size), ("spacing", spacing), ("step", step)):
            check_int(value, name, low=1)
        check_int(radius, "radius", low=step)
        check_int(levels, "levels", low=1)
        if not exponent > _LEAST_EXPONENT:
            raise ValueError(f"exponent: expected a number above {_LEAST_EXPONENT}, found {exponent}")
        self.settings: dict[str, Any] = {
            "descriptor": descriptor,
            "stride": stride,
            "size": size,
            "spacing": spacing,
            "radius": radius,
            "step": step,
            "levels": levels,
            "exponent": exponent,
        }
        self.stride, self.size, self.spacing = stride, size, spacing
        self.radius, self.step, self.levels = radius, step, levels
        self.exponents = nn.Parameter(torch.full((levels,), float(exponent)))
        self.descriptor = _LEARNED[descriptor]() if descriptor in _LEARNED else None

    def features(self, image: Tensor) -> Tensor:
        """Features of every pixel, of unit length and not negative.

        Args:
            image: (B, 3, H, W) in [0, 1].

        Returns:
            (B, C, H, W).
        """
        if self.descriptor is None:
            return oriented_gradients(image)
        return F.normalize(self.descriptor(image), dim=1)

    def forward(self, image0: Tensor, image1: Tensor) -> ScorePyramid:
        """All scores of matches between two images.

        Args:
            image0: (B, 3, H, W) in [0, 1].
            image1: (B, 3, H1, W1).

        Returns:
            See `geoframe.layers.matching.deep_scores`; patch (i, j) lies at pixel ``stride * i + stride // 2``.
        """
        return self.scores(self.features(image0), self.features(image1))

    def scores(self, features0: Tensor, features1: Tensor) -> ScorePyramid:
        """All scores of matches between fields of features, as of `features` or of any other embedding of pixels.

        Args:
            features0: (B, C, H, W) of unit length.
            features1: (B, C, H1, W1).
        """
        check_float(features0, "features0")
        check_shape(features0, "B C H W", "features0")
        first, second = (
            patch_descriptors(f, size=self.size, spacing=self.spacing) for f in (features0, features1)
        )
        s, at = self.stride, self.stride // 2
        radius = self.radius // self.step
        volume = correlate(first[:, :, at::s, at::s], second, radius, stride=s, offset=at, step=self.step)
        return deep_scores(volume, list(self.exponents.clamp(min=_LEAST_EXPONENT)))


class VggDescriptor(nn.Module):
    """The first four convolutions of VGG-16 (conv1_1 to conv2_2), see `geoframe.heads.vgg`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Vgg16(2)

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, 128, H, W) of images (B, 3, H, W), from half their size."""
        return F.interpolate(self.net(image)[-1], size=image.shape[2:], mode="bilinear", align_corners=False)


class LiteDescriptor(nn.Module):
    """The maps of EfficientNet-Lite0 at a half and a quarter of the size, with the weights of the extra image."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone("efficientnet-lite0", trainable=True)

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, 40, H, W) of images (B, 3, H, W); each map counts alike."""
        maps = self.backbone(image)[:2]
        wide = []
        for stride, level in zip(self.backbone.strides, maps, strict=False):
            whole = F.interpolate(level, scale_factor=stride, mode="bilinear", align_corners=False)
            wide.append(F.normalize(whole[..., : image.shape[2], : image.shape[3]], dim=1))
        return torch.cat(wide, dim=1)


_LEARNED = {"small": SmallDescriptor, "vgg": VggDescriptor, "lite0": LiteDescriptor}
_PLACES = {"gradients": 4, "small": 4, "vgg": 1, "lite0": 2}  # along a side of a patch


def build(settings: Mapping[str, Any]) -> DeepMatcher:
    """A matcher without its weights.

    Args:
        settings: arguments of its constructor.

    Raises:
        ValueError: a setting that it does not have, a value out of range.
    """
    known = tuple(inspect.signature(DeepMatcher).parameters)
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"settings: expected some of {', '.join(known)}, found {', '.join(unknown)}")
    return DeepMatcher(**settings)
