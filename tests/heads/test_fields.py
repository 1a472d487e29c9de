"""The field head: sizes, places of its values, batch mates, gradients, bad input."""

from __future__ import annotations

import pytest
import torch

from geoframe.heads import Field, FieldHead, backbone


def _head(**options) -> FieldHead:
    torch.manual_seed(0)
    return FieldHead(backbone("small"), 4, width=32, **options).eval()


@pytest.mark.parametrize(("stride", "fine"), [(2, 1), (4, 1), (2, 2)])
@pytest.mark.parametrize("size", [(64, 64), (40, 65)])
def test_sizes(stride, fine, size):
    head = _head(stride=stride, fine=fine)
    field = head(torch.rand(2, 3, *size))
    h, w = (-(-n // stride) for n in size)
    assert head.stride == stride
    assert field.embedding.shape == (2, 4, h, w) and field.mask.shape == (2, h, w)
    whole = head.at_size(field, *size)
    assert whole.embedding.shape == (2, 4, *size) and whole.mask.shape == (2, *size)


def test_values_lie_at_the_centres_of_their_squares():
    """A linear field stays that linear function of the pixels, away from the border."""
    head = _head()
    x = (torch.arange(16) + 0.5) * 4  # centres of squares of 4 pixels
    plane = (2 * x[None, :] + 3 * x[:, None])[None]
    whole = head.at_size(Field(plane[:, None], plane), 64, 64)
    pixel = torch.arange(64) + 0.5
    want = 2 * pixel[None, :] + 3 * pixel[:, None]
    inside = slice(2, -2)
    torch.testing.assert_close(whole.mask[0, inside, inside], want[inside, inside])
    torch.testing.assert_close(whole.embedding[0, 0], whole.mask[0])


def test_a_larger_canvas_does_not_shift_the_field():
    """Moved by the largest stride, an object has the field it had before, moved as much, but for the context."""
    head = _head()
    torch.nn.init.zeros_(head.context.weight)
    for norm in (m for m in head.modules() if isinstance(m, torch.nn.GroupNorm)):
        norm.num_groups = norm.num_channels  # statistics of the canvas move a little with its content
    spot = torch.zeros(1, 3, 192, 192)
    spot[..., 70:90, 70:90] = 1.0
    moved = torch.roll(spot, (32, 32), (2, 3))
    with torch.no_grad():
        one, two = head(spot).mask, head(moved).mask
    peak = (one - one.median()).abs()
    assert float((torch.roll(one, (8, 8), (1, 2)) - two)[..., 14:34, 14:34].abs().max()) < 0.05 * float(
        peak.max()
    )


def test_parts_of_a_square_lie_side_by_side():
    """What the last convolution says of a square, part by part: rows from above, columns from the left."""
    head = _head(stride=2, fine=2)
    torch.nn.init.zeros_(head.out.weight)
    with torch.no_grad():
        head.out.bias.copy_(torch.arange(20.0))  # 5 values of each of 4 parts
        field = head(torch.rand(1, 3, 64, 64))
    assert head.level_strides[-1] == 4 and head.stride == 2
    for k in range(4):
        want = 4 * k + torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(16, 16)
        torch.testing.assert_close(field.embedding[0, k], want)


def test_batch_mates_do_not_matter():
    head, images = _head(), torch.rand(3, 3, 64, 64)
    together, alone = head(images), head(images[1:2])
    torch.testing.assert_close(together.embedding[1:2], alone.embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.mask[1:2], alone.mask, rtol=1e-4, atol=1e-5)


def test_every_weight_learns():
    head = _head()
    field = head(torch.rand(1, 3, 64, 64))
    (field.embedding.square().mean() + field.mask.square().mean()).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in head.parameters())


def test_without_a_mask_everything_is_object():
    head = _head(mask=False)
    assert bool((head(torch.rand(1, 3, 32, 32)).mask > 0).all())


def test_bad_arguments():
    with pytest.raises(ValueError, match="width: expected a multiple of 8, found 36"):
        FieldHead(backbone("small"), 4, width=36)
    with pytest.raises(ValueError, match="stride: expected one of 2, 4, found 3"):
        FieldHead(backbone("small"), 4, stride=3)
    with pytest.raises(ValueError, match="dim: expected an integer at least 1, found 0"):
        FieldHead(backbone("small"), 0)
