"""Random numbers of code that knows torch's own generator only, such as the weights of a new module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's generator on the CPU starts from a seed; afterwards it is as it was.

    Args:
        seed: of what is drawn inside.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would set those of all devices
        yield
