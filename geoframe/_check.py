"""Checks of arguments, and the one way they complain: argument, expected, found, remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_tensor(x: Any, name: str) -> Tensor:
    """Return `x` if it is a torch tensor, else raise `TypeError` naming `name`."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}: expected a torch.Tensor, found {type(x).__name__}; convert with torch.as_tensor(...)"
        )
    return x


def as_tensor(x: Any, name: str, *, like: Tensor | None = None) -> Tensor:
    """`x` as a tensor: the public door, where NumPy arrays and lists of numbers are as welcome as tensors.

    Args:
        x: a tensor (returned as it is), a NumPy array (its dtype is kept), or numbers in nested lists or tuples
            (which become int64 or float64).
        name: of the argument, for the message.
        like: arrays and lists go to the device of this tensor, and take its dtype where both are floating.

    Raises:
        TypeError: anything else, naming `name`.
    """
    if isinstance(x, Tensor):
        return x
    try:
        array = np.asarray(x)  # then a copy: a view of a read-only array can't be a tensor
        out = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError, RuntimeError) as err:
        raise TypeError(
            f"{name}: expected a tensor, a NumPy array or a list of numbers, found {type(x).__name__}"
            + ("; its rows differ in length or hold other things" if isinstance(x, list | tuple) else "")
        ) from err
    if like is None:
        return out
    floating = out.is_floating_point() and like.is_floating_point()
    return out.to(like.device, like.dtype if floating else None)


def as_floats(x: Any, name: str) -> Tensor:
    """As `as_tensor`, floating: whole numbers in arrays and lists become float64, integer tensors are refused."""
    if isinstance(x, Tensor):
        return check_float(x, name)
    found = as_tensor(x, name)
    return check_float(found if found.is_floating_point() or found.is_complex() else found.double(), name)


def check_shape(x: Any, pattern: str, name: str) -> dict[str, int]:
    """Check `x.shape` against a pattern such as ``"V 3"`` or ``"... V 3"`` and return the named sizes.

    Numbers must match, letters bind (a letter used twice must agree), a leading ``...`` allows any batch.
    Works on tensors and arrays. Raises `ValueError` naming `name`, the pattern and the shape found.
    """
    want = pattern.split()
    shape = tuple(x.shape)
    batched = bool(want) and want[0] == "..."
    want = want[1:] if batched else want
    tail = shape[len(shape) - len(want) :] if batched and len(shape) >= len(want) else shape
    sizes: dict[str, int] = {}
    ok = len(tail) == len(want) and (batched or len(shape) == len(want))
    for w, n in zip(want, tail, strict=False):
        if w.isdigit():
            ok = ok and int(w) == n
        else:
            ok = ok and sizes.setdefault(w, n) == n
    if not ok:
        raise ValueError(f"{name}: expected shape ({', '.join(pattern.split())}), found {shape}")
    return sizes


def check_float(x: Any, name: str) -> Tensor:
    """Require a floating-point tensor (`TypeError` otherwise)."""
    check_tensor(x, name)
    if not x.is_floating_point():
        raise TypeError(
            f"{name}: expected a floating dtype, found {x.dtype}; convert with .double() or .float()"
        )
    return x


_REPAIR = "remove or repair them first (geoframe.surface.repair drops such vertices)"


def check_finite(x: Tensor, name: str, *, remedy: str = _REPAIR) -> None:
    """Raise `ValueError` naming the first row of `x` that holds NaN or infinity, and what to do about it."""
    if math.isfinite(float(x.detach().sum())):  # one pass; a sum that overflows proves nothing
        return
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        first = torch.nonzero(~finite)[0].tolist()
        n = int((~finite).sum())
        raise ValueError(
            f"{name}: expected finite numbers, found {n} NaN or infinite entries, the first at index {first}; "
            f"{remedy}"
        )


def check_index(x: Any, n: int, name: str, *, what: str = "entries") -> Tensor:
    """Require an integer tensor with values in [0, n); `what` names the things counted by `n`."""
    check_tensor(x, name)
    if x.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
        raise TypeError(f"{name}: expected an integer dtype (int64), found {x.dtype}; convert with .long()")
    if x.numel():
        lo, hi = int(x.min()), int(x.max())
        if lo < 0 or hi >= n:
            bad = lo if lo < 0 else hi
            raise ValueError(
                f"{name}: expected indices in [0, {n - 1}] ({n} {what}), found {bad}; indices are 0-based"
            )
    return x


def check_int(x: Any, name: str, *, low: int, high: int | None = None) -> int:
    """Require a plain integer in [low, high]."""
    if isinstance(x, bool) or not hasattr(x, "__index__"):
        raise TypeError(f"{name}: expected an integer, found {type(x).__name__}")
    x = int(x)
    if x < low or (high is not None and x > high):
        bound = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name}: expected an integer {bound}, found {x}")
    return x


def check_choice(x: Any, choices: tuple[str, ...], name: str) -> str:
    """Require one of a few words."""
    if x not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, found {x!r}")
    return x


def broadcast_shapes(**shapes: Sequence[int]) -> torch.Size:
    """The shape that the leading dimensions of some arguments, by name, broadcast to. (PyTorch's own function imports
    sympy, which takes a second.)

    Raises:
        ValueError: they do not broadcast.
    """
    try:
        return torch.Size(np.broadcast_shapes(*map(tuple, shapes.values())))
    except ValueError as err:
        found = ", ".join(f"{tuple(s)} of {name}" for name, s in shapes.items())
        raise ValueError(
            f"{next(iter(shapes))}: expected leading dimensions that broadcast, found {found}"
        ) from err
