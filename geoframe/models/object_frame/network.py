"""The networks of object frames: pictures to an embedding of each pixel.

"simple" and "dilations" are the papers', trained from scratch. "field" is ours: a backbone, pretrained on other tasks
if asked for, under a decoder with skip connections.

Source: Thewlis 2019 (thesis), chapter 5 section 3.2; the initialisation and the slope of the activations are those of
the released code of chapter 7.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._check import check_choice, check_int, check_shape
from geoframe.heads import FieldHead, backbone
from geoframe.heads.backbone import Backbone

_CHAINS = {  # (side of the filters, their number, dilation)
    "simple": ((5, 20, 1), (5, 48, 1), (3, 64, 1), (3, 80, 1), (3, 256, 1)),
    "dilations": ((5, 20, 1), (5, 48, 1), (5, 64, 2), (3, 80, 4), (3, 256, 2)),
}
NETWORKS = (*_CHAINS, "field")


class ChainNet(nn.Module):
    """The papers' chain of six convolutions, which halves a picture once.

    Args:
        dim: D of the embedding.
        kind: "simple" or "dilations", which sees farther.
        slope: of the activations where they are negative; 0.2 is the released code's, 0 (ReLU) the text's.

    Attributes:
        stride: 2.
    """

    stride = 2

    def __init__(self, dim: int = 3, *, kind: str = "dilations", slope: float = 0.2) -> None:
        super().__init__()
        check_choice(kind, tuple(_CHAINS), "kind")
        self.settings: dict[str, Any] = {"dim": check_int(dim, "dim", low=1), "kind": kind, "slope": slope}
        self.slope = slope
        layers, norms, before = [], [], 3
        for side, width, dilation in _CHAINS[kind]:
            layers.append(nn.Conv2d(before, width, side, padding=dilation * (side // 2), dilation=dilation))
            norms.append(nn.BatchNorm2d(width))
            before = width
        self.layers, self.norms = nn.ModuleList(layers), nn.ModuleList(norms)
        self.out = nn.Conv2d(before, dim, 1)
        for layer in (*layers, self.out):
            nn.init.xavier_normal_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings (B, D, H / 2, W / 2) of pictures (B, 3, H, W) in [0, 1]."""
        check_shape(image, "B 3 H W", "image")
        x = (image - 0.45) / 0.25
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = F.leaky_relu(norm(layer(x)), self.slope)
            if i == 0:
                x = F.max_pool2d(x, 2)
        out: Tensor = self.out(x)
        return out


class FieldNet(nn.Module):
    """Ours: a backbone under a decoder, see `geoframe.heads.FieldHead`.

    Args:
        dim: D of the embedding.
        backbone: name, see `geoframe.heads.backbone`.
        trainable: whether a pretrained backbone is trained, too.
        width: of the decoder.
        stride: of the embedding, 2 or 4.

    Attributes:
        stride: of the embedding, in pixels.
    """

    def __init__(
        self,
        dim: int = 32,
        *,
        backbone: str = "efficientnet-lite0",
        trainable: bool = False,
        width: int = 64,
        stride: int = 4,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "dim": dim,
            "backbone": backbone,
            "trainable": trainable,
            "width": width,
            "stride": stride,
        }
        self.head = FieldHead(trunk(backbone, trainable), dim, width=width, stride=stride, mask=False)
        self.stride = self.head.stride

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) of pictures (B, 3, H, W) in [0, 1]."""
        embedding: Tensor = self.head(image).embedding
        return embedding


def trunk(name: str, trainable: bool) -> Backbone:
    """A backbone, frozen unless asked otherwise; "small", which starts from chance, is always trained."""
    return backbone(name, trainable=None if name == "small" else trainable)


def build(network: str, settings: dict[str, Any]) -> ChainNet | FieldNet:
    """A network by its name, with the arguments of its constructor.

    Raises:
        ValueError: another name, arguments that it does not have.
    """
    check_choice(network, NETWORKS, "network")
    try:
        if network == "field":
            return FieldNet(**settings)
        return ChainNet(**{**settings, "kind": network})
    except TypeError as err:
        raise ValueError(
            f"settings: expected arguments of network {network!r}, found {settings} ({err})"
        ) from err


def principal_colours(field: Tensor, *, basis: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """An embedding as colours: its three main directions as red, green and blue.

    Args:
        field: (B, D, h, w).
        basis: (D + 2, 3), as returned for other pictures, so that colours mean the same; chosen for these by default.

    Returns:
        colours: (B, 3, h, w) in [0, 1].
        basis: (D + 2, 3), the directions with the lowest and highest value in two rows more.
    """
    x = F.normalize(field, dim=1).movedim(1, -1)
    D = x.shape[-1]
    if basis is None:
        flat = x.reshape(-1, D).double()
        vecs = torch.linalg.eigh(torch.cov(flat.T, correction=0).reshape(D, D))[1].flip(-1)[:, :3].to(x)
        vecs = F.pad(vecs, (0, 3 - vecs.shape[1]))
        low, high = torch.quantile((x.reshape(-1, D) @ vecs)[:100_000], torch.tensor([0.02, 0.98]), dim=0)
        basis = torch.cat([vecs, low[None], high[None]])
    y = (x @ basis[:D] - basis[D]) / (basis[D + 1] - basis[D]).clamp_min(1e-6)
    return y.clamp(0, 1).movedim(-1, 1), basis
