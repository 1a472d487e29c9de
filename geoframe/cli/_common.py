"""What commands share: options that were given, progress, failures of a part, reading meshes and landmarks, JSON."""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: the others keep the library's defaults."""
    return {name: value for name, value in options.items() if value is not None}


_LINE_SECONDS = 30.0  # between two lines of progress in a log file


class PartFailed(Exception):
    """A batch was done but for a part of it, which was told; the exit status is 1."""


def warn(message: str) -> None:
    """One line on stderr about something that does not stop the command."""
    print(f"warning: {' '.join(message.split())}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def slow_imports() -> Iterator[None]:
    """Import here what brings torch, in a process that has not: a tenth faster, as nothing of it is garbage."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[str, float], None]]:
    """A callable (step, share done) that moves a bar on stderr, or writes a line every 30 s where that is a file.

    Args:
        what: is being done; it leads the bar and every line.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[step]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=1.0, step="")
        yield lambda step, share: bar.update(task, completed=share, step=step)


def _lines(what: str) -> Callable[[str, float], None]:
    """A callable (step, share done) that writes a line now and then."""
    last = time.monotonic()

    def tell(step: str, share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            print(f"{what}: {share:.0%}, {step}", file=sys.stderr, flush=True)

    return tell


def load_mesh(path: Path) -> Any:
    """The mesh of a file or of a folder of `geoframe canonical`; a file of points only is refused."""
    from geoframe import surface
    from geoframe._files import mesh_file

    file = mesh_file(path)
    if file.is_dir():
        raise ValueError(
            f"{path}: expected a mesh file or a folder of geoframe canonical, found another folder"
        )
    return surface.load_mesh(file)


def text_table(rows: Iterable[Sequence[Any]], head: Sequence[str]) -> str:
    """A table as plain text, columns as wide as what stands in them, so that nothing is cut in a pipe.

    Args:
        rows: cells; the first column of numbers and those after it stand at the right, floats with four decimals.
        head: names of the columns.
    """
    listed = [list(row) for row in rows]
    cells = [[f"{x:.4f}" if isinstance(x, float) else str(x) for x in row] for row in (list(head), *listed)]
    right = [any(isinstance(row[i], int | float) for row in listed) for i in range(len(head))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * w for w in widths])
    lines = (
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def counted(n: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 loop", "2 loops"; `plural` where it is not the noun with an s."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def read_pairs(path: Path, source: Path, target: Path) -> Any:
    """(L, 2) vertex pairs from a file of pairs, or from a folder of <mesh>.json files with named vertices."""
    from geoframe.surface import pair_landmarks, read_landmarks, read_named_landmarks

    if not path.is_dir():
        return read_landmarks(path)
    named1, named2 = (read_named_landmarks(path / f"{mesh.stem}.json") for mesh in (source, target))
    try:
        return pair_landmarks(named1, named2)
    except ValueError as err:
        raise ValueError(f"{path}: {source.stem}.json and {target.stem}.json share no landmark name") from err


def shared_landmarks(source: Path, target: Path) -> Any:
    """(L, 2) vertex pairs of the names that two canonical folders share; None without any."""
    from geoframe.canonical.surface import named_landmarks
    from geoframe.surface import pair_landmarks

    named1, named2 = named_landmarks(source), named_landmarks(target)
    return pair_landmarks(named1, named2) if named1.keys() & named2.keys() else None


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """Complaints about what a file held are told with its name."""
    try:
        yield
    except ValueError as err:
        raise ValueError(f"{path}: {err}") from err


def save_json(value: Any, path: Path) -> None:
    """Write `value` as JSON, numbers of torch and numpy as numbers, NaN and infinity as null."""
    from geoframe._files import to_json

    path.write_text(to_json(value), encoding="utf-8")


def read_boxes(path: Path | None, files: Sequence[Path]) -> dict[str, Any]:
    """Name of an image -> its box, from a JSON file; nothing without one. Images without a box are told.

    Raises:
        ValueError: not valid JSON, no box of any of the files.
    """
    import json

    from geoframe._files import read_text

    if path is None:
        return {}
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as err:
        raise ValueError(f"{path}: not valid JSON ({str(err)[:80]})") from err
    names = {file.name for file in files}
    if not isinstance(found, dict) or not names & set(found):
        told = f"{', '.join(list(found)[:3])}" if isinstance(found, dict) and found else "none"
        raise ValueError(
            f"{path}: expected boxes by the names of the images, as {files[0].name}, found {told}"
        )
    if less := sorted(names - set(found)):
        warn(f"{path}: no box for {counted(len(less), 'image')}, first {less[0]}; all of each is looked at")
    return found
