"""Stanford PLY, text and binary of both byte orders, read and written in the file's own order.

trimesh splits vertices at texture seams, cannot read binary files that mix triangles and polygons, takes
short text files for complete ones, and writes positions as float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from geoframe._types import Array, Floats, Ints
from geoframe.surface._polygons import triangulate
from geoframe.surface._raw import Raw, check_corners, number_table, unit_colors

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8", "int64": "i8", "uint64": "u8",
}  # fmt: skip
_UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
_COLOR_NAMES = (("red", "green", "blue", "alpha"), ("diffuse_red", "diffuse_green", "diffuse_blue"))


class _Property(NamedTuple):
    name: str
    kind: str
    count_kind: str | None  # the type of the length, for lists


class _Lists(NamedTuple):
    flat: Array
    counts: Ints


class _Element(NamedTuple):
    name: str
    n_rows: int
    properties: list[_Property]


class _Twice(ValueError):
    """A name of the header that stands for two things."""


def read_ply(data: bytes) -> Raw:
    """Parse a PLY file; texture coordinates of vertices (s t, u v) or of face corners (texcoord) are kept."""
    elements, order, body = _header(data)
    if order is None:
        found = _read_text(elements, body)
    else:
        found = _read_binary(elements, body, order)
    vertex = found.get("vertex", {})
    if not all(isinstance(vertex.get(k), np.ndarray) for k in "xyz"):
        raise ValueError("expected an element 'vertex' with properties x, y and z")
    if "tristrips" in found:
        raise ValueError("triangle strips are not read; write the file with an element 'face'")
    verts = _columns(vertex, "x", "y", "z")
    normals = _columns(vertex, "nx", "ny", "nz") if all(k in vertex for k in ("nx", "ny", "nz")) else None
    colors = _colors(vertex)
    face = found.get("face", {})
    corners = face.get("vertex_indices", face.get("vertex_index"))
    if not isinstance(corners, _Lists):
        if any(e.name == "face" and e.n_rows for e in elements):
            raise ValueError("expected a property list 'vertex_indices' of the element 'face'")
        return Raw(verts, np.empty((0, 3), np.int64), colors, normals)
    if len(corners.counts) and corners.counts.min() < 3:
        at = int(np.argmax(corners.counts < 3))
        raise ValueError(f"face {at}: expected 3 or more corners, found {corners.counts[at]}")
    if not (np.isfinite(corners.flat) & (corners.flat == np.rint(corners.flat))).all():
        raise ValueError("expected whole numbers in property vertex_indices of the element 'face'")
    flat = corners.flat.astype(np.int64)
    check_corners(flat, corners.counts, len(verts))
    triangles = triangulate(verts, flat, corners.counts)
    uv, uv_faces = _texture(vertex, face, corners.counts, triangles)
    return Raw(verts, flat[triangles], colors, normals, uv, uv_faces)


def _header(data: bytes) -> tuple[list[_Element], str | None, bytes]:
    """Elements, byte order ('<', '>' or None for text) and the bytes behind the header."""
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise ValueError("expected a PLY header from 'ply' to 'end_header'")
    newline = data.find(b"\n", end)
    body = data[newline + 1 :] if newline >= 0 else b""
    order: str | None = ""
    elements: list[_Element] = []
    for number, line in enumerate(data[:end].decode("utf-8", errors="replace").splitlines(), 1):
        words = line.split()
        try:
            match words:
                case ["format", kind, _]:
                    order = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}[kind]
                case ["element", name, _] if name in (e.name for e in elements):
                    raise _Twice(f"line {number}: the element {name!r} stands twice in the header")
                case ["property", *_, name] if elements and name in (p.name for p in elements[-1].properties):
                    raise _Twice(
                        f"line {number}: the element {elements[-1].name!r} has two properties {name!r}; which one is "
                        "meant cannot be known: rename or remove one"
                    )
                case ["element", name, count]:
                    elements.append(_Element(name, int(count), []))
                    if int(count) < 0:
                        raise ValueError
                case ["property", "list", count_kind, kind, name]:
                    elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[count_kind]))
                case ["property", kind, name]:
                    elements[-1].properties.append(_Property(name, _TYPES[kind], None))
                case ["ply"] | ["comment", *_] | ["obj_info", *_] | []:
                    pass
                case _:
                    raise ValueError
        except _Twice:
            raise
        except (KeyError, IndexError, ValueError):
            raise ValueError(f"line {number}: {line[:60]!r} is not a line of a PLY header") from None
    if order == "":
        raise ValueError(
            "expected a line 'format ascii|binary_little_endian|binary_big_endian 1.0' in the header"
        )
    return elements, order, body


def _read_text(elements: list[_Element], body: bytes) -> dict[str, dict[str, Any]]:
    lines = [line for line in body.decode("utf-8", errors="replace").splitlines() if line.strip()]
    announced = sum(e.n_rows for e in elements if e.properties)
    if len(lines) != announced:
        raise ValueError(
            f"the header announces {announced} lines, but {len(lines)} follow it; "
            "the file is truncated or its counts are wrong"
        )
    found: dict[str, dict[str, Any]] = {}
    start = 0
    for e in elements:
        rows = lines[start : start + e.n_rows]
        start += len(rows)
        numbers = range(1, len(rows) + 1)
        if all(p.count_kind is None for p in e.properties):
            table = (
                number_table(rows, numbers, len(e.properties), e.name)
                if rows
                else np.empty((0, len(e.properties)))
            )
            found[e.name] = {p.name: _typed(table[:, i], p, e) for i, p in enumerate(e.properties)}
        else:
            found[e.name] = _text_lists(e, rows)
    return found


def _text_lists(e: _Element, rows: list[str]) -> dict[str, Any]:
    """An element with list properties, from its lines."""
    flat: dict[str, list[float]] = {p.name: [] for p in e.properties}
    counts: dict[str, list[int]] = {p.name: [] for p in e.properties}
    for number, row in enumerate(rows):
        words, at = row.split(), 0
        for p in e.properties:
            try:
                n = 1
                if p.count_kind is not None:
                    n, at = int(words[at]), at + 1
                values = [float(w) for w in words[at : at + n]]
                if n < 0 or len(values) != n:
                    raise ValueError
            except (ValueError, IndexError):
                raise ValueError(
                    f"{e.name} {number}: cannot read property {p.name} from {row[:60]!r}"
                ) from None
            flat[p.name] += values
            counts[p.name].append(n)
            at += n
    out: dict[str, Any] = {}
    for p in e.properties:
        values_array = _typed(np.array(flat[p.name]), p, e)
        is_list = p.count_kind is not None
        out[p.name] = _Lists(values_array, np.array(counts[p.name], np.int64)) if is_list else values_array
    return out


def _typed(values: Floats, p: _Property, e: _Element) -> Array:
    """Numbers read from text in the integer type that the header gives them; floats stay as printed."""
    if p.kind[0] == "f":
        return values
    info = np.iinfo(p.kind)
    if not ((values == np.rint(values)) & (values >= info.min) & (values <= info.max)).all():
        raise ValueError(
            f"expected whole numbers from {info.min} to {info.max} in {e.name} property {p.name}"
        )
    return values.astype(p.kind)


def _read_binary(elements: list[_Element], body: bytes, order: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    start = 0
    try:
        for e in elements:
            found[e.name], start = _binary_element(e, body, start, order)
    except (ValueError, IndexError):
        raise ValueError(
            f"the file ends inside the {e.n_rows} rows of element {e.name!r}; it is truncated or its counts are wrong"
        ) from None
    if start != len(body):
        raise ValueError(
            f"{len(body) - start} bytes follow the rows that the header announces; its counts are wrong"
        )
    return found


def _binary_element(e: _Element, body: bytes, start: int, order: str) -> tuple[dict[str, Any], int]:
    """Rows of one element: in one go where all lists are as long as in the first row, else row by row."""
    if not e.n_rows or not e.properties:
        empty = {p.name: np.empty(0) for p in e.properties}
        lists = {p.name: _Lists(np.empty(0), np.empty(0, np.int64)) for p in e.properties if p.count_kind}
        return {**empty, **lists}, start
    fields: list[tuple[Any, ...]] = []
    at = start
    for i, p in enumerate(e.properties):
        n = 1
        if p.count_kind is not None:
            n = int(np.frombuffer(body, order + p.count_kind, 1, at)[0])
            at += np.dtype(p.count_kind).itemsize
            fields.append((f"n{i}", order + p.count_kind))
        if not 0 <= n <= len(body):
            raise ValueError
        fields.append((f"p{i}", order + p.kind, (n,)))
        at += n * np.dtype(p.kind).itemsize
    row = np.dtype(fields)
    if start + e.n_rows * row.itemsize <= len(body):
        table = np.frombuffer(body, row, e.n_rows, start)
        if all(
            (table[f"n{i}"] == table[f"n{i}"][0]).all() for i, p in enumerate(e.properties) if p.count_kind
        ):
            out: dict[str, Any] = {}
            for i, p in enumerate(e.properties):
                block = table[f"p{i}"].reshape(e.n_rows, -1)
                counts = np.full(e.n_rows, block.shape[1])
                out[p.name] = _Lists(block.ravel(), counts) if p.count_kind else block[:, 0]
            return out, start + e.n_rows * row.itemsize
    return _binary_rows(e, body, start, order)


def _binary_rows(e: _Element, body: bytes, start: int, order: str) -> tuple[dict[str, Any], int]:
    """Rows of one element whose lists differ in length."""
    if e.n_rows > len(body):
        raise ValueError
    flat: dict[str, list[Array]] = {p.name: [] for p in e.properties}
    counts: dict[str, list[int]] = {p.name: [] for p in e.properties}
    at = start
    for _ in range(e.n_rows):
        for p in e.properties:
            n = 1
            if p.count_kind is not None:
                size = int(p.count_kind[1])
                n = int.from_bytes(body[at : at + size], "little" if order == "<" else "big")
                at += size
            values = np.frombuffer(body, order + p.kind, n, at)
            at += values.nbytes
            flat[p.name].append(values)
            counts[p.name].append(n)
    out: dict[str, Any] = {}
    for p in e.properties:
        joined = np.concatenate(flat[p.name])
        out[p.name] = _Lists(joined, np.array(counts[p.name], np.int64)) if p.count_kind else joined
    return out, at


def _columns(element: dict[str, Any], *names: str) -> Floats:
    return np.stack([np.asarray(element[k], np.float64) for k in names], axis=1)


def _colors(vertex: dict[str, Any]) -> Floats | None:
    for names in _COLOR_NAMES:
        used = [k for k in names if k in vertex]
        if len(used) >= 3:
            colors = _columns(vertex, *used)
            kinds = {np.asarray(vertex[k]).dtype for k in used}
            if kinds == {np.dtype("u1")}:
                colors = colors / 255
            elif all(k.kind == "u" for k in kinds):
                colors = colors / max(np.iinfo(k).max for k in kinds)
            return unit_colors(colors)
    return None


def _texture(
    vertex: dict[str, Any], face: dict[str, Any], counts: Ints, triangles: Ints
) -> tuple[Floats | None, Ints | None]:
    """uv and uv_faces: one row a face corner from 'texcoord', or one a vertex."""
    texcoord = face.get("texcoord")
    if isinstance(texcoord, _Lists) and np.array_equal(texcoord.counts, 2 * counts) and len(counts):
        return texcoord.flat.reshape(-1, 2).astype(np.float64), triangles
    for names in _UV_NAMES:
        if all(isinstance(vertex.get(k), np.ndarray) for k in names):
            return _columns(vertex, *names), None
    return None, None


def write_ply(
    verts: Array,
    faces: Ints,
    *,
    colors: Array | None,
    normals: Array | None,
    uv: Any,
    uv_faces: Any,
    is_mesh: bool,
) -> bytes:
    """Binary little-endian PLY; positions in their own precision, colours as bytes, corners' uv as texcoord."""
    real, word = ("<f8", "double") if verts.dtype == np.float64 else ("<f4", "float")
    fields: list[tuple[str, str, Array]] = [(k, word, verts[:, i]) for i, k in enumerate("xyz")]
    if normals is not None:
        fields += [(k, word, normals[:, i]) for i, k in enumerate(("nx", "ny", "nz"))]
    if colors is not None:
        bytes_ = np.rint(np.clip(np.nan_to_num(colors), 0, 1) * 255).astype(np.uint8)
        channels = ("red", "green", "blue", "alpha")[: colors.shape[1]]
        fields += [(k, "uchar", bytes_[:, i]) for i, k in enumerate(channels)]
    if uv is not None and uv_faces is None:
        fields += [(k, word, uv[:, i]) for i, k in enumerate("st")]
    table = np.empty(len(verts), [(k, "u1" if kind == "uchar" else real) for k, kind, _ in fields])
    for k, _, values in fields:
        table[k] = values
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(verts)}"]
    header += [f"property {kind} {k}" for k, kind, _ in fields]
    if not is_mesh:
        return ("\n".join([*header, "end_header\n"])).encode() + table.tobytes()
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    row: list[tuple[Any, ...]] = [("n", "u1"), ("v", "<i4", 3)]
    if uv_faces is not None:
        header.append(f"property list uchar {word} texcoord")
        row += [("m", "u1"), ("t", real, 6)]
    rows = np.zeros(len(faces), row)
    rows["n"], rows["v"] = 3, faces
    if uv_faces is not None:
        rows["m"], rows["t"] = 6, uv[uv_faces].reshape(-1, 6)
    return ("\n".join([*header, "end_header\n"])).encode() + table.tobytes() + rows.tobytes()
