"""The networks of sparse landmarks: pictures to K score maps, whose soft-argmax are the landmarks.

`ChainLandmarks` is the paper's, six convolutions trained from scratch. `FrameLandmarks` is ours: the embedding of an
object frame, compared with K directions, one a landmark.

Source: Thewlis 2019 (thesis), chapter 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._check import check_int, check_shape
from geoframe.heads import FieldHead
from geoframe.layers.correspondence import soft_argmax
from geoframe.models.object_frame.network import trunk

_FILTERS = ((5, 20), (5, 48), (3, 64), (3, 80), (3, 256))  # side, number


class Heatmaps(NamedTuple):
    """What a network says of pictures.

    Attributes:
        maps: (B, K, h, w) probabilities, each summing to 1.
        points: (B, K, 2) their means, in normalised coordinates.
    """

    maps: Tensor
    points: Tensor


def heatmaps(scores: Tensor) -> Heatmaps:
    """Softmax and soft-argmax of scores (B, K, h, w)."""
    maps = torch.softmax(scores.flatten(2), -1).unflatten(2, scores.shape[2:])
    return Heatmaps(maps, soft_argmax(scores))


class ChainLandmarks(nn.Module):
    """The paper's network.

    Args:
        k: landmarks.
        last: a batch norm and a ReLU behind the last layer, too, as the text says of each layer ("each convolutional
            layer is followed by") and a re-implementation has it; without, scores are free.

    Attributes:
        stride: 2.
    """

    stride = 2

    def __init__(self, k: int = 10, *, last: bool = True) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"k": check_int(k, "k", low=1), "last": last}
        layers: list[nn.Module] = []
        before = 3
        for i, (side, width) in enumerate(_FILTERS):
            layers += [nn.Conv2d(before, width, side, padding=side // 2), nn.BatchNorm2d(width), nn.ReLU()]
            if i == 0:
                layers.append(nn.MaxPool2d(2))
            before = width
        layers.append(nn.Conv2d(before, k, 1))
        if last:
            layers += [nn.BatchNorm2d(k), nn.ReLU()]
        self.net = nn.Sequential(*layers)
        for layer in self.net:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Heatmaps:
        """Maps and landmarks of pictures (B, 3, H, W) in [0, 1]."""
        check_shape(image, "B 3 H W", "image")
        return heatmaps(self.net(image - 0.5))


class FrameLandmarks(nn.Module):
    """Ours: cosines of an embedding with K learned directions, as scores.

    Args:
        k: landmarks.
        dim: of the embedding.
        backbone: see `geoframe.heads.backbone`.
        trainable: whether a pretrained backbone is trained, too.
        width: of the decoder.
        stride: of the maps, 2 or 4.
        sharpness: the scores are cosines times this number.

    Attributes:
        stride: of the maps, in pixels.
        head: the embedding; the same parts as of `geoframe.models.object_frame.network.FieldNet`.
        directions: (K, D).
    """

    def __init__(
        self,
        k: int = 20,
        *,
        dim: int = 32,
        backbone: str = "efficientnet-lite0",
        trainable: bool = False,
        width: int = 64,
        stride: int = 4,
        sharpness: float = 33.0,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "k": check_int(k, "k", low=1),
            "dim": dim,
            "backbone": backbone,
            "trainable": trainable,
            "width": width,
            "stride": stride,
            "sharpness": sharpness,
        }
        self.head = FieldHead(trunk(backbone, trainable), dim, width=width, stride=stride, mask=False)
        self.stride, self.sharpness = self.head.stride, sharpness
        self.directions = nn.Parameter(torch.randn(k, dim))

    def forward(self, image: Tensor) -> Heatmaps:
        """Maps and landmarks of pictures (B, 3, H, W) in [0, 1]."""
        field = F.normalize(self.head(image).embedding, dim=1)
        scores = torch.einsum("kd,bdhw->bkhw", F.normalize(self.directions, dim=1), field)
        return heatmaps(scores * self.sharpness)


NETWORKS: dict[str, type[ChainLandmarks] | type[FrameLandmarks]] = {
    "chain": ChainLandmarks,
    "frame": FrameLandmarks,
}
