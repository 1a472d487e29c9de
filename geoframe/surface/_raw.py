"""What every file reader hands over, and the helpers they share: lines, number tables, checks and colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geoframe._types import Array, Floats, Ints


class Raw(NamedTuple):
    """The content of a surface file in its own order; `faces` (F,3) is empty for a file of points.

    verts (V,3) · faces (F,3), 0-based · colors (V,3) or (V,4) in [0,1] · normals (V,3) · uv (T,2) with
    uv_faces (F,3), which is None where the corners use `faces`.
    """

    verts: Floats
    faces: Ints
    colors: Floats | None = None
    normals: Floats | None = None
    uv: Floats | None = None
    uv_faces: Ints | None = None


def content_lines(text: str, comment: str = "#") -> tuple[list[str], list[int]]:
    """Lines that hold something once comments are cut off, and their 1-based numbers in the file."""
    cut = [line.split(comment, 1)[0].strip() for line in text.splitlines()]
    numbers = [n for n, line in enumerate(cut, 1) if line]
    return [line for line in cut if line], numbers


def number_table(lines: Sequence[str], numbers: Sequence[int], columns: int, what: str) -> Floats:
    """(len(lines), columns) leading numbers of each line; NaN and infinity are numbers, more columns are left.

    Raises:
        ValueError: naming the line of the file that holds fewer numbers or something else.
    """
    if not lines:
        return np.empty((0, columns))
    try:
        return np.loadtxt(lines, usecols=range(columns), ndmin=2, comments=None, dtype=np.float64)
    except ValueError:
        for line, number in zip(lines, numbers, strict=True):
            words = line.split()[:columns]
            try:
                ok = len([float(w) for w in words]) == columns
            except ValueError:
                ok = False
            if not ok:
                raise ValueError(
                    f"line {number}: expected {columns} numbers for a {what}, found {line[:60]!r}"
                ) from None
        raise


def polygon_rows(lines: Sequence[str], numbers: Sequence[int]) -> tuple[Ints, Ints]:
    """Flat corner indices and the corners of each polygon, from lines ``n i_1 ... i_n [more]``."""
    if not lines:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first = lines[0].split()[0]
    n = int(first) if first.isdigit() else 0
    if n >= 3 and all(line.split(None, 1)[0] == first for line in lines):
        rows = number_table(lines, numbers, n + 1, f"face of {n} corners")[:, 1:]
        whole = np.abs(rows) < 2**53
        whole &= rows == np.rint(rows)
        if not whole.all():
            at = int(np.flatnonzero(~whole.all(1))[0])
            raise ValueError(
                f"line {numbers[at]}: expected whole numbers for a face, found {lines[at][:60]!r}"
            )
        return rows.astype(np.int64).ravel(), np.full(len(lines), n)
    flat: list[int] = []
    counts = np.empty(len(lines), np.int64)
    for row, (line, number) in enumerate(zip(lines, numbers, strict=True)):
        words = line.split()
        try:
            n = int(words[0])
            corners = [int(w) for w in words[1 : n + 1]] if n >= 0 else []
        except ValueError:
            raise ValueError(f"line {number}: expected a face 'n i_1 ... i_n', found {line[:60]!r}") from None
        if n < 3 or len(corners) != n:
            raise ValueError(f"line {number}: expected a face of 3 or more corners, found {line[:60]!r}")
        counts[row] = n
        flat += corners
    return np.array(flat, np.int64), counts


def check_corners(flat: Ints, counts: Ints, n_verts: int, numbers: Sequence[int] | None = None) -> None:
    """Raise `ValueError` naming the first polygon (and its line) with a corner outside [0, n_verts)."""
    bad = np.flatnonzero((flat < 0) | (flat >= n_verts))
    if len(bad):
        face = int(np.searchsorted(np.cumsum(counts), bad[0], side="right"))
        where = f"line {numbers[face]}" if numbers is not None else f"face {face}"
        raise ValueError(
            f"{where}: expected vertex indices in [0, {n_verts - 1}] ({n_verts} vertices), found {flat[bad[0]]}"
        )


def unit_colors(colors: Floats) -> Floats:
    """Colours in [0, 1]: values above 1 mean that the file counts to 255; an alpha that is 1 everywhere goes."""
    if colors.size and np.nanmax(colors) > 1:
        colors = colors / 255
    colors = np.clip(colors, 0, 1)
    return colors[:, :3] if colors.shape[1] == 4 and (colors[:, 3] == 1).all() else colors


def pad_uv(uv: Floats, uv_faces: Ints) -> tuple[Floats, Ints]:
    """Give corners without texture coordinate (index -1) one appended row of NaN to point to."""
    missing = uv_faces < 0
    if missing.any():
        uv_faces = np.where(missing, len(uv), uv_faces)
        uv = np.concatenate([uv, np.full((1, 2), np.nan)])
    return uv, uv_faces


def number_format(dtype: np.dtype) -> str:
    """A % format that prints a number of `dtype` so that it reads back the same."""
    return "%r" if dtype == np.float64 else "%.9g"


def rows_text(rows: Array, fmt: str, prefix: str = "") -> str:
    """Lines of text, one a row of `rows`, each column printed with `fmt`."""
    line = prefix + " ".join([fmt] * rows.shape[1]) + "\n"
    return (line * len(rows)) % tuple(rows.ravel().tolist())
