"""Backbones that know animals or things: their maps tell for each pixel which part is there, and what is background.

The surface embeddings that geoframe comes with say so. They have learned from renders of the zoo with their truth, as
others start from networks that have learned from annotated photographs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoframe._check import check_choice
from geoframe.heads.backbone import Backbone, backbone
from geoframe.heads.fields import FieldHead

ANIMALS, THINGS = "animals", "things"
_FIELD_STRIDE = 4  # pixels; finer fields are averaged to it
SHIPPED = {name: Path(__file__).parent / name for name in (ANIMALS, THINGS)}


def shipped_for(category: str) -> str | None:
    """The model that geoframe comes with and that knows a category of the zoo: "animals", "things" or None.

    Args:
        category: see `geoframe.data.rendered.categories`.
    """
    from geoframe.zoo import species

    if category in species():
        return ANIMALS
    return THINGS if category in _about(SHIPPED[THINGS])["surfaces"] else None


def model_folder(folder: str | Path) -> Path:
    """The folder of a model; where there is none of that name, that of the model that geoframe comes with.

    Args:
        folder: of a model, or "animals" or "things".
    """
    folder = Path(folder)
    return folder if folder.exists() else SHIPPED.get(str(folder), folder)


def _about(folder: Path) -> dict[str, Any]:
    """What is told of a model."""
    told: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return told


class ZooMaps(Backbone):
    """The maps of the network under an embedding that geoframe comes with; one of them has more channels.

    These are the embeddings of the parts of each square, side by side, and then the logits of their masks: of the four
    quarters of the squares of stride 8, each the mean of what a finer field says there.

    Args:
        name: "animals" or "things".
        enlarged: see `backbone`.
        trainable: whether the network is learned on; what its maps tell of parts is read from them as it always was.
    """

    def __init__(self, name: str = ANIMALS, *, enlarged: int = 1, trainable: bool = False) -> None:
        from safetensors.torch import load_file

        folder = SHIPPED[check_choice(name, tuple(SHIPPED), "name")]
        about = _about(folder)
        net = backbone(about["backbone"], trainable=not about["backbone_digest"])
        head = FieldHead(net, about["dim"], **about["head"])
        head.load_state_dict(
            {k[5:]: x for k, x in load_file(folder / "model.safetensors").items() if k.startswith("head.")}
        )
        self._at = net.strides.index(2 * _FIELD_STRIDE)
        channels = list(net.channels)
        channels[self._at] += 4 * (head.dim + 1)
        mean, std = (cast(Tensor, x).flatten().tolist() for x in (net._mean, net._std))
        super().__init__(
            name,
            (net._kept[0] if net.frozen else net.net).requires_grad_(trainable),
            channels=channels,
            strides=[s // enlarged for s in net.strides],
            frozen=not trainable,
            normalisation=(mean, std),
        )
        self.enlarged = enlarged
        # what it reads are maps, so that all it needs of its network is how large these are
        head.backbone = Backbone(name, nn.Identity(), channels=net.channels, strides=net.strides, frozen=True)
        self._kept = (*self._kept, head.eval().requires_grad_(False))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w) of images (B, 3, H, W) in [0, 1], finest first."""
        maps = super().forward(image)
        head = self._kept[-1]
        assert isinstance(head, FieldHead)
        field = head(maps)
        told = torch.cat([field.embedding, field.mask[:, None]], 1)
        if head.stride < _FIELD_STRIDE:
            told = F.avg_pool2d(told, _FIELD_STRIDE // head.stride)
        maps[self._at] = torch.cat([maps[self._at], F.pixel_unshuffle(told, 2)], 1)
        return maps

    def foreground(self, maps: list[Tensor]) -> Tensor:
        """Logits (B, 2h, 2w) of the mask that maps tell of."""
        return F.pixel_shuffle(maps[self._at][:, -4:], 2)[:, 0]
