"""Shared multi-layer perceptrons over point features, channels last, with batch statistics that cross processes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (..., C) over everything but channels.

    In training under `torch.distributed` the statistics are those of all processes together, on any device
    (torch's SyncBatchNorm is for GPUs only), so that two processes compute what one would on the whole batch.
    The processes are to hold batches of one size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalised x, same shape (..., C)."""
        flat = x.reshape(-1, x.shape[-1])
        if not (
            self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        ):
            return super().forward(flat).view_as(x)
        count = len(flat) * dist.get_world_size()
        mean = _SumOfAll.apply(flat.sum(0)) / count
        centred = flat - mean
        var = _SumOfAll.apply(centred.square().sum(0)) / count
        with torch.no_grad():
            momentum = self.momentum or 0.0
            assert self.running_mean is not None and self.running_var is not None
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * (count / (count - 1)), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        return (centred * (var + self.eps).rsqrt() * self.weight + self.bias).view_as(x)

    def folded(self, layer: nn.Linear, x: Tensor, *, shift: bool = True) -> Tensor:
        """What this norm makes of ``layer(x)`` with its running statistics, at the cost of the layer alone.

        Args:
            layer: linear, C_in to C.
            x: (..., C_in).
            shift: False leaves out the part that does not depend on x.

        Returns:
            (..., C).
        """
        weight, bias = self.fold(layer)
        return nn.functional.linear(x, weight, bias if shift else None)

    def fold(self, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        """Weight (C, C_in) and bias (C,) of the linear layer that does what `layer` and then this norm do."""
        assert self.running_mean is not None and self.running_var is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        mean = self.running_mean if layer.bias is None else self.running_mean - layer.bias
        return layer.weight * scale[:, None], self.bias - mean * scale


class _SumOfAll(torch.autograd.Function):
    """The sum of a tensor over all processes; the gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SharedMLP(nn.Sequential):
    """Linear layers with batch norm and ReLU; in evaluation norms are folded into the weights before them."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) of the last layer, of x (..., C) of the first."""
        if self.training:
            return super().forward(x)  # type: ignore[no-any-return]
        for layer, after in pairwise([*self, None]):
            if isinstance(layer, nn.Linear) and isinstance(after, BatchNorm):
                x = after.folded(layer, x)
            elif isinstance(layer, nn.Linear):
                x = layer(x)
            elif isinstance(layer, nn.ReLU):
                x = x.relu_()  # of what a linear layer just made
        return x


def shared_mlp(sizes: Sequence[int], *, activate_last: bool = True) -> SharedMLP:
    """Linear layers on (..., C), each with batch norm and ReLU.

    Weights are drawn from N(0, 2 / fan_in), biases are 0.

    Args:
        sizes: numbers of channels: of the input, after each layer.
        activate_last: False leaves the last layer linear.
    """
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        norm = activate_last or not last
        layers.append(linear(a, b, bias=not norm))
        if norm:
            layers += [BatchNorm(b), nn.ReLU(inplace=True)]
    return SharedMLP(*layers)


def linear(n_in: int, n_out: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer with weights from N(0, 2 / n_in) and bias 0.

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        bias: False for none.
    """
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.normal_(layer.weight, std=(2 / n_in) ** 0.5)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
