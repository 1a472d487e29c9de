"""The logs of a run: log.csv, and a file of events for TensorBoard."""

from __future__ import annotations

import csv
from pathlib import Path

from geoframe._files import atomic_path
from geoframe.training import _tfevents

LOG, EVENTS = "log.csv", "events.out.tfevents.0.geoframe"
Rows = list[dict[str, float]]
_NO_SCALARS = ("epoch", "step", "seconds")


def start_logs(folder: Path, rows: Rows) -> None:
    """Both logs with what was done before, which a kill may have left an epoch short.

    Epochs are appended to the file for TensorBoard, so that it can be watched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if rows:
        _write_log(folder, rows)
    with atomic_path(folder / EVENTS) as temporary:
        temporary.write_bytes(_tfevents.header() + b"".join(_event(rows, i) for i in range(len(rows))))


def append_logs(folder: Path, rows: Rows) -> None:
    """Both logs with one more row, the last; or with the last one anew, of an epoch that is still in work."""
    with (folder / EVENTS).open("ab") as file:
        file.write(_event(rows, len(rows) - 1))
    _write_log(folder, rows)


def _write_log(folder: Path, rows: Rows) -> None:
    with atomic_path(folder / LOG) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)


def _event(rows: Rows, i: int) -> bytes:
    values = {name: value for name, value in rows[i].items() if name not in _NO_SCALARS}
    return _tfevents.scalars(values, step=i, seconds=sum(row["seconds"] for row in rows[: i + 1]))
