"""All of a category's model that has weights, and how these are stored small."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_LARGE = 4096  # numbers of a matrix that is worth storing small
_BYTE, _SCALE = ".byte", ".scale"


class Parts(nn.Module):
    """Network, placement and confidence of a category; weights that were stored small are read as well.

    Args:
        model: the network of keypoints.
        placement: see `geoframe.placing.placement`; None where there is none.
        confidence: see `geoframe.placing.confidence`; None where there is none.
    """

    def __init__(self, model: Any, placement: nn.Module | None, confidence: nn.Module | None) -> None:
        super().__init__()
        self.model, self.placement, self.confidence = model, placement, confidence
        self.register_load_state_dict_pre_hook(lambda _module, state, *_: unpacked(state))

    def stored_small(self) -> Parts:
        """The same with a `state_dict` in which large matrices have a byte a number, and a scale a row.

        The parts themselves are shared, and stay as they are.
        """
        small = Parts(self.model, self.placement, self.confidence)
        small.register_state_dict_post_hook(_pack)
        return small


def _pack(_module: nn.Module, state: dict[str, Tensor], _prefix: str, _metadata: Any) -> None:
    for name, x in list(state.items()):
        if x.ndim == 2 and x.numel() >= _LARGE and x.is_floating_point():
            scale = x.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
            state[name + _BYTE] = (x / scale).round().to(torch.int8)
            state[name + _SCALE] = scale
            del state[name]
        elif x.numel() >= _LARGE and x.is_floating_point():
            state[name] = x.half()


def unpacked(state: dict[str, Tensor]) -> None:
    """Replace, in a state that was stored small, bytes and scales by the numbers that they stand for."""
    for name in [k for k in state if k.endswith(_BYTE)]:
        whole = name.removesuffix(_BYTE)
        state[whole] = state.pop(name) * state.pop(whole + _SCALE)
