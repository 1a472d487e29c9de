"""Independent work side by side, each part in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import torch

T = TypeVar("T")


def together(*jobs: Callable[[], T]) -> list[T]:
    """What the jobs return, in their order; they run at once where there are threads for it.

    torch's threads are shared out among the jobs: with two threads and two jobs each computes with one thread, which
    is faster than one job after the other with two, as most products here are too small for two threads. Jobs inside
    of jobs therefore run one after another. A job may not depend on another one, nor change what another one reads;
    what it computes is the same as alone.

    Args:
        jobs: functions without arguments.

    Raises:
        Exception: what the first job (in their order) that failed has raised, when all have ended.
    """
    threads = torch.get_num_threads()
    n = min(threads, len(jobs))
    if n < 2:
        return [job() for job in jobs]
    grad, contexts = torch.is_grad_enabled(), [copy_context() for _ in jobs]

    def start() -> None:
        torch.set_num_threads(threads // n)
        torch.set_grad_enabled(grad)

    try:
        with ThreadPoolExecutor(n, initializer=start) as pool:
            started = [pool.submit(c.run, job) for c, job in zip(contexts, jobs, strict=True)]
        return [x.result() for x in started]
    finally:
        torch.set_num_threads(threads)  # what a thread sets holds for those that come after it, too
