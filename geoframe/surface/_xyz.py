"""Points as text: a point a line, its first three numbers."""

from __future__ import annotations

import numpy as np

from geoframe.surface._raw import Raw, content_lines, number_table


def read_xyz(data: bytes) -> Raw:
    """Parse a text of points: "x y z" a line, split by blanks or commas; more columns are left.

    A first line with one number, that of the points, is taken as such.
    """
    text = data.decode("utf-8", errors="replace").replace(",", " ").replace(";", " ")
    lines, numbers = content_lines(text)
    if len(lines) > 1 and len(lines[0].split()) == 1 and len(lines[1].split()) >= 3:
        if not lines[0].isdecimal() or int(lines[0][:15]) != len(lines) - 1:
            raise ValueError(
                f"line {numbers[0]}: expected the number of points, {len(lines) - 1}, found {lines[0][:30]!r}"
            )
        lines, numbers = lines[1:], numbers[1:]
    return Raw(number_table(lines, numbers, 3, "point"), np.empty((0, 3), np.int64))
