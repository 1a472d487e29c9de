"""Wavefront OBJ, read and written in the file's own order.

trimesh cuts an OBJ apart at texture seams and materials and drops vertices without a face, so this reader
parses the lines itself: v (with colours), vt, vn and f. Groups, materials, lines and curves are passed over.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any

import numpy as np

from geoframe._types import Array, Floats, Ints
from geoframe.surface._polygons import triangulate
from geoframe.surface._raw import (
    Raw,
    content_lines,
    number_format,
    number_table,
    pad_uv,
    rows_text,
    unit_colors,
)

# texts whose corners are all of one form: v, v/vt, v/vt/vn or v//vn
_CORNERS = tuple(
    re.compile(rf"(?:\s*+{corner}(?=\s|$))++\s*")
    for corner in (
        r"-?[0-9]{1,18}",
        r"-?[0-9]{1,18}/-?[0-9]{1,18}",
        r"-?[0-9]{1,18}/(?:-?[0-9]{1,18})?/-?[0-9]{1,18}",
    )
)


def read_obj(data: bytes) -> Raw:
    """Parse an OBJ file; polygons become triangles, negative (relative) indices are resolved."""
    text = data.decode("utf-8", errors="replace").replace("\\\r\n", " ").replace("\\\n", " ")
    lines, numbers = content_lines(text)
    kinds = [line.split(None, 1)[0] for line in lines]
    body: dict[str, list[str]] = {"v": [], "vt": [], "vn": [], "f": []}
    where: dict[str, list[int]] = {"v": [], "vt": [], "vn": [], "f": []}
    for line, number, kind in zip(lines, numbers, kinds, strict=True):
        if kind in body:
            body[kind].append(line[len(kind) :])
            where[kind].append(number)
    verts, colors = _vertices(body["v"], where["v"])
    normals = number_table(body["vn"], where["vn"], 3, "normal") if len(body["vn"]) == len(verts) else None
    if not body["f"]:
        return Raw(verts, np.empty((0, 3), np.int64), colors, normals)
    uv = number_table(body["vt"], where["vt"], 2, "texture coordinate")
    corner_v, corner_t, counts = _corners(body["f"], where["f"])
    corner_v = _resolve(corner_v, counts, len(verts), kinds, "v", where["f"])
    corner_t = _resolve(corner_t, counts, len(uv), kinds, "vt", where["f"], optional=True)
    triangles = triangulate(verts, corner_v, counts)
    faces = corner_v[triangles]
    if not len(uv) or (corner_t < 0).all():
        return Raw(verts, faces, colors)
    uv, uv_faces = pad_uv(uv, corner_t[triangles])
    same = len(uv) == len(verts) and np.array_equal(uv_faces, faces)
    return Raw(verts, faces, colors, None, uv, None if same else uv_faces)


def _vertices(lines: list[str], numbers: list[int]) -> tuple[Floats, Floats | None]:
    """Positions (V,3), and colours where every vertex line has 6 (rgb) or 7 (rgba) numbers."""
    columns = len(lines[0].split()) if lines else 3
    if columns in (6, 7) and all(len(line.split()) == columns for line in lines):
        table = number_table(lines, numbers, columns, "vertex with colour")
        return table[:, :3], unit_colors(table[:, 3:])
    return number_table(lines, numbers, 3, "vertex"), None


def _corners(lines: list[str], numbers: list[int]) -> tuple[Ints, Ints, Ints]:
    """Flat 1-based vertex and texture indices of all corners (0: no texture), and corners a polygon."""
    counts = np.array([len(line.split()) for line in lines])
    small = np.flatnonzero(counts < 3)
    if len(small):
        at = int(small[0])
        raise ValueError(
            f"line {numbers[at]}: expected a face of 3 or more corners, found 'f{lines[at][:60]}'"
        )
    text = " ".join(lines)
    for slashes, corner in enumerate(_CORNERS):
        if corner.fullmatch(text):
            table = np.fromstring(text.replace("//", "/0/").replace("/", " "), np.int64, sep=" ")
            table = table.reshape(-1, slashes + 1)
            return table[:, 0], table[:, 1] if slashes else np.zeros(len(table), np.int64), counts
    words = text.split()
    wrong = [word for word in words if not any(corner.fullmatch(word) for corner in _CORNERS)]
    if wrong:
        at = next(i for i, line in enumerate(lines) if wrong[0] in line.split())
        raise ValueError(
            f"line {numbers[at]}: expected face corners like 3, 3/1 or 3/1/2, found 'f{lines[at][:60]}'"
        )
    parts = [word.split("/") for word in words]
    vertex = np.array([int(p[0]) for p in parts], np.int64)
    texture = np.array([int(p[1]) if len(p) > 1 and p[1] else 0 for p in parts], np.int64)
    return vertex, texture, counts


def _resolve(
    index: Ints,
    counts: Ints,
    n: int,
    kinds: list[str],
    kind: str,
    numbers: list[int],
    *,
    optional: bool = False,
) -> Ints:
    """0-based indices from 1-based or negative ones, which count back from the face's place in the file.

    Index 0 means "none" (-1) where `optional`, and is an error elsewhere.
    """
    face = np.repeat(np.arange(len(counts)), counts)
    out = np.where(index > 0, index - 1, index)
    if (index < 0).any():
        seen = accumulate(k == kind for k in kinds)
        seen_at_face = np.array([s for s, k in zip(seen, kinds, strict=True) if k == "f"])
        out = np.where(index < 0, seen_at_face[face] + index, out)
    bad = (out < 0) | (out >= n) | (index == 0)
    if optional:
        bad &= index != 0
        out = np.where(index == 0, -1, out)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        what = "vertices" if kind == "v" else "texture coordinates"
        raise ValueError(
            f"line {numbers[face[at]]}: face index {index[at]} points outside the {n} {what} (OBJ counts from 1)"
        )
    return out


def write_obj(
    verts: Array, faces: Ints, *, colors: Array | None, normals: Array | None, uv: Any, uv_faces: Any
) -> bytes:
    """OBJ text with colours behind the positions and texture coordinates as vt."""
    fmt = number_format(verts.dtype)
    rows = verts if colors is None else np.concatenate([verts, colors.astype(verts.dtype)], axis=1)
    out = rows_text(rows, fmt, "v ")
    if normals is not None:
        out += rows_text(normals, fmt, "vn ")
    if uv is None:
        return (out + rows_text(faces + 1, "%d", "f ")).encode()
    known = ~np.isnan(uv).any(1)
    out += rows_text(uv[known], number_format(uv.dtype), "vt ")
    number = np.where(known, np.cumsum(known), 0)
    if uv_faces is None:
        name = [f"{v}/{t}" if t else f"{v}" for v, t in enumerate(number.tolist(), 1)]
        return (out + "".join([f"f {name[i]} {name[j]} {name[k]}\n" for i, j, k in faces.tolist()])).encode()
    if known.all():
        both = np.stack([faces + 1, number[uv_faces]], -1).reshape(-1, 6)
        return (out + ("f %d/%d %d/%d %d/%d\n" * len(both)) % tuple(both.ravel().tolist())).encode()
    pairs = zip((faces + 1).tolist(), number[uv_faces].tolist(), strict=True)
    text = [" ".join([f"{v}/{t}" if t else f"{v}" for v, t in zip(*row, strict=True)]) for row in pairs]
    return (out + "".join([f"f {row}\n" for row in text])).encode()
