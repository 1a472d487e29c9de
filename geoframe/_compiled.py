"""Loops compiled for the CPU: how they are compiled, and how their work is shared between threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from numba import njit


def compiled(fn: Callable[..., Any]) -> Any:
    """Machine code without the lock, kept on disk; where no folder can be written it is made once a process."""
    return _compiled(fn, fastmath=False)


def compiled_sums(fn: Callable[..., Any]) -> Any:
    """As `compiled`, with sums in whatever order is fastest."""
    return _compiled(fn, fastmath={"reassoc", "contract"})


def _compiled(fn: Callable[..., Any], **options: Any) -> Any:
    try:
        return njit(nogil=True, cache=True, error_model="numpy", **options)(fn)
    except RuntimeError:
        return njit(nogil=True, error_model="numpy", **options)(fn)


def share(run: Callable[..., None], jobs: Sequence[tuple[int, ...]]) -> None:
    """Run every job, at most `torch.get_num_threads()` at a time, this thread among them; the others live as long as
    the call, so that forks and nested threads are safe."""
    n, left = min(torch.get_num_threads(), len(jobs)), iter(jobs)

    def work() -> None:
        for job in left:  # each thread takes the next one
            try:
                run(*job)
            except BaseException:
                for _ in left:  # nothing that is left is begun
                    pass
                raise

    if n <= 1:
        return work()
    with ThreadPoolExecutor(n - 1) as pool:
        others = [pool.submit(work) for _ in range(n - 1)]
        work()
        for done in others:
            done.result()


def share_rows(run: Callable[[int, int], None], n: int) -> None:
    """As `share`, of ``run(first, last)`` for parts of the rows 0 to n of a batch."""
    size = max(1, min(8, n // torch.get_num_threads()))
    share(run, [(i, min(i + size, n)) for i in range(0, n, size)])
