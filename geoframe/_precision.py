"""Geometry is computed in float32 or float64, whatever a training loop around it does.

Eight bits of mantissa (bfloat16) place a vertex of a 256-pixel picture to a pixel at best: enough for a network, not
for who hides whom or for a linear solve. So the public functions of cameras, rendering and solvers leave autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")
_DEVICES = ("cpu", "cuda", "mps", "xpu")
_HALF = (torch.float16, torch.bfloat16)


def full_precision(fn: Callable[P, T]) -> Callable[P, T]:
    """Decorator: `fn` runs outside autocast, and float16 and bfloat16 tensors reach it as float32.

    Tensors inside lists and tuples are cast too; the cast is differentiable, so gradients return in the caller's
    dtype. Also for the static `backward` of a `torch.autograd.Function`, which runs in the state of its caller.
    """

    @wraps(fn)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        args, kwargs = tuple(map(_widened, args)), {k: _widened(x) for k, x in kwargs.items()}  # type: ignore[assignment]
        if not any(map(torch.is_autocast_enabled, _DEVICES)):
            return fn(*args, **kwargs)
        with outside_autocast():
            return fn(*args, **kwargs)

    return run


@contextmanager
def outside_autocast() -> Iterator[None]:
    """Switch autocast off, on every device type where it is on."""
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def usual_precision(accelerator: str = "auto") -> str:
    """In what networks learn where nothing is said: "bf16-mixed" where the processor has bfloat16, else "32-true".

    Convolutions take half of the time then, and a step of the default network two thirds. Without the instructions
    (AVX-512 BF16, AMX) they would take longer.

    Args:
        accelerator: as in Lightning Fabric.
    """
    if accelerator != "cpu" and not (accelerator == "auto" and not torch.accelerator.is_available()):
        return "32-true"
    # older versions of torch do not tell
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if told.get("avx512_bf16") or told.get("amx_bf16") else "32-true"


def _widened(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.float() if x.dtype in _HALF else x
    if type(x) in (list, tuple):
        return type(x)(map(_widened, x))
    return x
