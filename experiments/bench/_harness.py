"""The contract of the benchmarks: measure, compare, print a table, write JSON.

A benchmark is a module with a dict of named cases, each a function that returns rows::

    CASES = {"k256-28k": case_k256_28k}
    if __name__ == "__main__":
        main(__doc__, CASES)

``python -m experiments.bench.NAME [--json FILE] [--case CASE ...]`` prints a table and writes
``{"rows": [{"case", "ours_s", "peer_s", "ratio", "peer", "note"}], "machine": {...}}``.
`ratio` is peer_s / ours_s: above 1 we are faster. Losses are published like wins; a missing peer or missing
data gives a row without a ratio, never a crash.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from geoframe._files import atomic_path

T = TypeVar("T")


@dataclass(frozen=True)
class Timing(Generic[T]):
    """Seconds of repeated calls: median, spread (interquartile range), number of calls; and the last value."""

    median: float
    spread: float
    repeats: int
    value: T


@dataclass(frozen=True)
class Row:
    """One line of a benchmark: seconds of ours and of the peer (None: not run), ratio = peer_s / ours_s."""

    case: str
    ours_s: float | None
    peer_s: float | None = None
    ratio: float | None = None
    peer: str = ""
    note: str = ""


def measure(fn: Callable[[], T], *, warmup: int = 1, repeats: int = 5) -> Timing[T]:
    """Median and spread of the wall-clock seconds of `fn()` over `repeats` calls after `warmup` unmeasured ones."""
    for _ in range(warmup):
        fn()
    seconds: list[float] = []
    for _ in range(repeats):
        value = _timed(fn, seconds)
    return _timing(seconds, value)


def compare(
    case: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any] | None,
    *,
    peer_name: str,
    check: Callable[[Any, Any], str] | None = None,
    warmup: int = 1,
    repeats: int = 5,
) -> Row:
    """Time `ours` and `peer` in alternation, so that a busy moment of the machine hurts both alike.

    Args:
        peer: None when the peer is not installed; the row then has no ratio.
        check: given both values (the peer's is None without a peer), returns the note that says how well
            they agree.
    """
    runs = [fn for fn in (ours, peer) if fn is not None]
    seconds: list[list[float]] = [[] for _ in runs]
    values: list[Any] = [None, None]
    for fn in runs * warmup:
        fn()
    for _ in range(repeats):
        for i, fn in enumerate(runs):
            values[i] = _timed(fn, seconds[i])
    first = _timing(seconds[0], None)
    second = _timing(seconds[1], None) if peer is not None else None
    note = "" if check is None else check(*values)
    spread = f"spread {first.spread:.2g}" + (f"/{second.spread:.2g} s" if second else " s")
    note = "; ".join(
        x for x in (note, spread if repeats > 1 else "", "" if peer else "peer not installed") if x
    )
    ratio = None if second is None else second.median / first.median
    return Row(case, first.median, second.median if second else None, ratio, peer_name, note)


def peak_memory(fn: Callable[[], T], *, interval: float = 0.002) -> tuple[T, float]:
    """The value of `fn()` and by how many MiB the resident memory of this process rose at most meanwhile.

    Sampled from outside (psutil), so that numpy, BLAS and compiled solvers count. What an earlier call left
    with the allocator is reused unseen: for exact figures measure in a fresh process, the big case first.
    """
    import psutil

    gc.collect()
    process = psutil.Process()
    start = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(interval):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        value = fn()
        peak = max(peak, process.memory_info().rss)
    finally:
        done.set()
        watcher.join()
    return value, (peak - start) / 2**20


def installed(module: str) -> bool:
    """Whether `module` can be imported (it is not imported)."""
    return importlib.util.find_spec(module) is not None


def peer_label(distribution: str) -> str:
    """Name and version of an installed distribution; the name alone when it is absent."""
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution


def data_folder() -> Path | None:
    """The folder of real data named by GEOFRAME_DATA, or None."""
    folder = os.environ.get("GEOFRAME_DATA")
    return Path(folder) if folder and Path(folder).is_dir() else None


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, load at the start, threads, versions."""
    import torch

    names = ("torch", "numpy", "scipy", "cholespy", "potpourri3d")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "packages": [peer_label(n) for n in names],
    }


def main(
    description: str, cases: Mapping[str, Callable[[], Sequence[Row]]], argv: Sequence[str] | None = None
) -> list[Row]:
    """Parse the command line, run the cases, print the table as it grows, write the JSON file."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows and machine here")
    parser.add_argument(
        "--case", action="append", choices=list(cases), help="only this case (may be repeated)"
    )
    args = parser.parse_args(argv)
    info = machine()
    print("  ".join(f"{k}={v}" for k, v in info.items() if k in ("processor", "cores", "load", "threads")))
    print(f"{'case':<28}{'ours':>10}{'peer':>10}{'ratio':>8}  peer / note")
    rows: list[Row] = []
    for name in args.case or cases:
        for row in cases[name]():
            rows.append(row)
            print(_line(row), flush=True)
        if args.json is not None:  # after every case, as a run may be killed
            with atomic_path(args.json) as temporary:
                described = {"rows": [asdict(r) for r in rows], "machine": info}
                temporary.write_text(json.dumps(described, indent=1) + "\n")
    return rows


def _timed(fn: Callable[[], T], seconds: list[float]) -> T:
    gc.collect()
    start = time.perf_counter()
    value = fn()
    seconds.append(time.perf_counter() - start)
    return value


def _timing(seconds: list[float], value: T) -> Timing[T]:
    quartiles = (
        statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [0.0, 0.0, 0.0]
    )
    return Timing(statistics.median(seconds), quartiles[2] - quartiles[0], len(seconds), value)


def _line(row: Row) -> str:
    ours = "-" if row.ours_s is None else f"{row.ours_s:.4g} s"
    peer = "-" if row.peer_s is None else f"{row.peer_s:.4g} s"
    ratio = "-" if row.ratio is None else f"{row.ratio:.2f}x"
    return f"{row.case:<28}{ours:>10}{peer:>10}{ratio:>8}  {'; '.join(x for x in (row.peer, row.note) if x)}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
