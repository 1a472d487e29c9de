"""Object File Format (OFF), read and written in the file's own order.

trimesh takes the first word "OFF" anywhere for the header, skips vertex colours, and returns what it found
where the counts announce more; here the counts must agree with the lines.
"""

from __future__ import annotations

import re

import numpy as np

from geoframe._types import Array, Ints
from geoframe.surface._polygons import triangulate
from geoframe.surface._raw import (
    Raw,
    check_corners,
    content_lines,
    number_format,
    number_table,
    polygon_rows,
    rows_text,
    unit_colors,
)

_HEADER = re.compile(r"(ST)?(C)?(N)?(4)?(n)?OFF\s*(.*)", re.DOTALL)


def read_off(data: bytes) -> Raw:
    """Parse a text OFF, COFF, NOFF or CNOFF file; the counts may stand on the header's line (ModelNet)."""
    lines, numbers = content_lines(data.decode("utf-8", errors="replace"))
    header = _HEADER.fullmatch(lines[0]) if lines else None
    if header is None:
        raise ValueError(f"expected the header OFF, found {lines[0][:30] if lines else 'nothing'!r}")
    has_color, has_normal, rest = header.group(2), header.group(3), header.group(6)
    if header.group(4) or header.group(5) or rest.upper().startswith("BINARY"):
        raise ValueError(f"expected a text OFF file of 3D points, found header {lines[0][:30]!r}")
    start = 1
    if not rest:
        rest, start = (lines[1] if len(lines) > 1 else ""), 2
    counts = rest.split()[:2]
    if len(counts) < 2 or not all(c.isdecimal() and len(c) < 16 for c in counts):
        raise ValueError(f"expected the counts 'vertices faces edges' after the header, found {rest[:30]!r}")
    n_verts, n_faces = int(counts[0]), int(counts[1])
    if len(lines) - start != n_verts + n_faces:
        raise ValueError(
            f"the header announces {n_verts} vertices and {n_faces} faces, but {len(lines) - start} lines follow; "
            "the file is truncated or its counts are wrong"
        )
    middle = start + n_verts
    columns = 3 + (3 if has_normal else 0)
    table, colors = number_table(lines[start:middle], numbers[start:middle], columns, "vertex"), None
    if has_color and n_verts:
        with_color = min(columns + 4, max(columns + 3, len(lines[start].split())))
        table = number_table(lines[start:middle], numbers[start:middle], with_color, "vertex with colour")
        colors = unit_colors(table[:, columns:])
    flat, sizes = polygon_rows(lines[middle:], numbers[middle:])
    check_corners(flat, sizes, n_verts, numbers[middle:])
    return Raw(
        table[:, :3],
        flat[triangulate(table[:, :3], flat, sizes)],
        colors,
        table[:, 3:6] if has_normal else None,
    )


def write_off(verts: Array, faces: Ints, *, colors: Array | None) -> bytes:
    """OFF text, or COFF with r g b a in [0, 1] behind the positions."""
    rows = verts
    if colors is not None:
        alpha = np.ones((len(colors), 4 - colors.shape[1]))
        rows = np.concatenate([verts, colors.astype(verts.dtype), alpha.astype(verts.dtype)], axis=1)
    out = f"{'OFF' if colors is None else 'COFF'}\n{len(verts)} {len(faces)} 0\n"
    return (out + rows_text(rows, number_format(verts.dtype)) + rows_text(faces, "%d", "3 ")).encode()
