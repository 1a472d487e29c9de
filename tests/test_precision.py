"""Geometry leaves autocast and widens half precision: the decorator itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoframe._check import as_tensor
from geoframe._precision import full_precision


@full_precision
def _product(a, b, *, rest=()):
    assert not torch.is_autocast_enabled("cpu")
    out = a @ b
    for r in rest:
        out = out + r
    return out


def test_autocast_stops_at_the_door():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 8, 8, generator=g)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ b).dtype == torch.bfloat16
        torch.testing.assert_close(_product(a, b), (a.double() @ b.double()).float())
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    a = torch.eye(3, dtype=half).requires_grad_()
    out = _product(a, b=torch.ones(3, 3), rest=[a.detach(), a.detach()])
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.ones(3, 3) + 2 * torch.eye(3))
    out.sum().backward()
    assert a.grad.dtype == half and (a.grad == 3).all()


def test_arrays_and_lists_at_the_door():
    x = torch.zeros(3)
    assert as_tensor(x, "x") is x
    array = np.arange(6.0).reshape(2, 3)[:, ::-1]
    array.flags.writeable = False
    assert as_tensor(array, "x").dtype == torch.float64
    assert as_tensor(array, "x").tolist() == array.tolist()
    assert as_tensor([[1, 2, 3]], "faces", like=x).dtype == torch.int64
    assert as_tensor([0.1, 2], "x", like=x.double()).tolist() == [0.1, 2.0]
    assert as_tensor(np.float32(2.5), "x", like=x.double()).dtype == torch.float64
    for bad in ("abc", [[1.0], [1.0, 2.0]], None, np.array(["a"])):
        with pytest.raises(TypeError, match="x: expected a tensor, a NumPy array or a list of numbers"):
            as_tensor(bad, "x")
