"""STL, text and binary: a soup of triangles that share no vertices, in the file's order.

trimesh merges the vertices of a file of several solids and takes the solids of a text file for separate meshes;
here F triangles always give 3F vertices, and a file whose length is wrong is told so.
"""

from __future__ import annotations

import re

import numpy as np

from geoframe.surface._raw import Raw, number_table

_HEADER = 84  # bytes before the first triangle: 80 of any text, then the number of triangles
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])  # 50 bytes
_TEXT = re.compile(rb"\s*solid\b[^\0]*", re.IGNORECASE)  # a binary header may begin with "solid", too
_NEXT = {  # what may follow a line of each kind
    "": {"solid"},
    "solid": {"facet", "endsolid"},
    "facet": {"outer"},
    "outer": {"vertex"},
    "vertex": {"vertex", "endloop"},
    "endloop": {"endfacet"},
    "endfacet": {"facet", "endsolid"},
    "endsolid": {"solid"},
}


def read_stl(data: bytes) -> Raw:
    """Parse an STL file of one solid or several; normals and attributes are left out."""
    if not is_binary_stl(data) and _TEXT.fullmatch(data):
        corners = _read_text(data)
    else:
        corners = _read_binary(data)
    if not len(corners):
        raise ValueError("no triangles found: the file holds only empty solids")
    return Raw(corners, np.arange(len(corners)).reshape(-1, 3))


def is_binary_stl(data: bytes) -> bool:
    """Whether the file is exactly as long as the number of triangles in its binary header says."""
    return len(data) >= _HEADER and len(data) == _HEADER + _TRIANGLE.itemsize * _announced(data)


def _announced(data: bytes) -> int:
    return int.from_bytes(data[_HEADER - 4 : _HEADER], "little")


def _read_binary(data: bytes) -> np.ndarray:
    """(3F, 3) corners of the F triangles that the header announces."""
    if len(data) < _HEADER:
        raise ValueError(
            f"expected text that begins with 'solid' or a binary header of {_HEADER} bytes, found {len(data)} bytes; "
            "the file is truncated or not an STL file"
        )
    n, rest = _announced(data), len(data) - _HEADER
    room = rest // _TRIANGLE.itemsize
    if room < n:
        raise ValueError(
            f"the header announces {n} triangles, but the file ends after {room}; it is truncated or not an STL file"
        )
    if rest > n * _TRIANGLE.itemsize:
        raise ValueError(
            f"{rest - n * _TRIANGLE.itemsize} bytes follow the {n} triangles that the header announces; "
            "its count is wrong, or something was added to the file"
        )
    return np.frombuffer(data, _TRIANGLE, n, _HEADER)["corners"].reshape(-1, 3).astype(np.float64)


def _read_text(data: bytes) -> np.ndarray:
    """(3F, 3) corners of all solids of a text file."""
    rows, numbers, before = [], [], ""
    for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), 1):
        words = line.split(None, 1)
        if not words:
            continue
        kind = words[0].lower()
        if kind not in _NEXT[before]:
            expected = " or ".join(sorted(_NEXT[before]))
            raise ValueError(f"line {number}: expected {expected}, found {line.strip()[:60]!r}")
        if kind == "vertex":
            rows.append(words[1] if len(words) > 1 else "")
            numbers.append(number)
        elif kind == "endloop" and (len(rows) % 3 or numbers[-3:] != [*range(number - 3, number)]):
            raise ValueError(f"line {number}: expected 3 vertices in the loop that ends here")
        before = kind
    if before != "endsolid":
        raise ValueError(
            f"the file ends with a line {before!r}, not with 'endsolid'; {len(rows) // 3} triangles are complete, "
            "the file is truncated"
        )
    return number_table(rows, numbers, 3, "vertex")
