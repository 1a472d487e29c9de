"""PCD, the point clouds of PCL and of many sensors: text, binary, and binary compressed by LZF."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoframe._types import Array, Floats
from geoframe.surface._raw import Raw

_KINDS = {"F": "f", "I": "i", "U": "u"}
_SIZES = {"F": (4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}


def read_pcd(data: bytes) -> Raw:
    """Points, normals and packed colours of a PCD file; points that the sensor did not see are NaN.

    Raises:
        ValueError: saying what is missing or does not fit.
    """
    head, body = _header(data)
    names, counts = head["FIELDS"], [int(x) for x in head.get("COUNT", ["1"] * len(head["FIELDS"]))]
    if not len(names) == len(counts) == len(head["SIZE"]) == len(head["TYPE"]):
        raise ValueError("the header's FIELDS, SIZE, TYPE and COUNT have different lengths")
    kinds = [_kind(t, int(s)) for t, s in zip(head["TYPE"], head["SIZE"], strict=True)]
    n = int(head["POINTS"][0]) if "POINTS" in head else int(head["WIDTH"][0]) * int(head["HEIGHT"][0])
    if missing := {"x", "y", "z"} - set(names):
        raise ValueError(f"the header has no field {', '.join(sorted(missing))}")
    way = head["DATA"][0].lower()
    if way == "ascii":
        table = _text(body, n, names, counts, kinds)
    elif way == "binary":
        table = _rows(body, n, names, counts, kinds)
    elif way == "binary_compressed":
        table = _columns(body, n, names, counts, kinds)
    else:
        raise ValueError(f"DATA {way!r} is none of ascii, binary and binary_compressed")

    def together(*fields: str) -> Floats | None:
        if not set(fields) <= table.keys():
            return None
        return np.stack([np.asarray(table[f], np.float64).reshape(n, -1)[:, 0] for f in fields], 1)

    verts = together("x", "y", "z")
    assert verts is not None
    normals = together("normal_x", "normal_y", "normal_z")
    return Raw(verts, np.empty((0, 3), np.int64), _colors(table), normals)


def write_pcd(points: Array, *, colors: Array | None, normals: Array | None) -> bytes:
    """Binary PCD; positions in their own precision, colours packed into `rgb`."""
    real, size = ("<f8", 8) if points.dtype == np.float64 else ("<f4", 4)
    fields: list[tuple[str, str, Array]] = [(k, real, points[:, i]) for i, k in enumerate("xyz")]
    if normals is not None:
        fields += [(f"normal_{k}", real, normals[:, i]) for i, k in enumerate("xyz")]
    if colors is not None:
        part = np.rint(np.clip(np.nan_to_num(colors[:, :3]), 0, 1) * 255).astype(np.uint32)
        fields.append(("rgb", "<f4", (part[:, 0] << 16 | part[:, 1] << 8 | part[:, 2]).view(np.float32)))
    table = np.empty(len(points), [(k, kind) for k, kind, _ in fields])
    for k, _, values in fields:
        table[k] = values
    n = len(points)
    head = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(k for k, _, _ in fields)}",
        f"SIZE {' '.join(str(size if kind == real else 4) for _, kind, _ in fields)}",
        f"TYPE {' '.join('F' for _ in fields)}",
        f"COUNT {' '.join('1' for _ in fields)}",
        f"WIDTH {n}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {n}",
        "DATA binary\n",
    ]
    return "\n".join(head).encode() + table.tobytes()


def _header(data: bytes) -> tuple[dict[str, list[str]], bytes]:
    """Words of the header by their first one, and what follows it."""
    head: dict[str, list[str]] = {}
    at = 0
    while "DATA" not in head:
        end = data.find(b"\n", at)
        if end < 0 or at > 10_000:
            raise ValueError("the header has no line DATA")
        words = data[at:end].decode("ascii", errors="replace").split()
        at = end + 1
        if words and not words[0].startswith("#"):
            head[words[0].upper()] = words[1:]
    needed = ("FIELDS", "SIZE", "TYPE", *(() if "POINTS" in head else ("WIDTH", "HEIGHT")))
    if missing := [k for k in needed if not head.get(k)]:
        raise ValueError(f"the header has no line {' and no line '.join(missing)}")
    return head, data[at:]


def _kind(letter: str, size: int) -> np.dtype[Any]:
    if size not in _SIZES.get(letter.upper(), ()):
        raise ValueError(f"a field of TYPE {letter} and SIZE {size} is none of PCD's")
    return np.dtype(f"<{_KINDS[letter.upper()]}{size}")


def _text(body: bytes, n: int, names: list[str], counts: list[int], kinds: list[Any]) -> dict[str, Array]:
    rows = [line.split() for line in body.decode("utf-8", errors="replace").splitlines() if line.strip()]
    if len(rows) < n or any(len(row) != sum(counts) for row in rows[:n]):
        raise ValueError(f"expected {n} lines of {sum(counts)} numbers, found other ones")
    try:
        values = np.array(rows[:n], dtype=np.float64).reshape(n, sum(counts))
    except ValueError as err:
        raise ValueError("a line holds something else than numbers") from err
    ends = np.cumsum(counts)
    table = {}
    for name, count, end, kind in zip(names, counts, ends, kinds, strict=True):
        part = values[:, end - count : end]
        table[name] = part if name not in ("rgb", "rgba") else part.astype(kind)
    return table


def _rows(body: bytes, n: int, names: list[str], counts: list[int], kinds: list[Any]) -> dict[str, Array]:
    form = np.dtype(
        [(f"{i}", kind, (count,)) for i, (kind, count) in enumerate(zip(kinds, counts, strict=True))]
    )
    if len(body) < n * form.itemsize:
        raise ValueError(f"expected {n * form.itemsize} bytes of points, found {len(body)}")
    table = np.frombuffer(body, form, count=n)
    return {name: table[f"{i}"] for i, name in enumerate(names)}


def _columns(body: bytes, n: int, names: list[str], counts: list[int], kinds: list[Any]) -> dict[str, Array]:
    if len(body) < 8:
        raise ValueError("the sizes of the compressed points are missing")
    packed, whole = np.frombuffer(body, "<u4", count=2).tolist()
    need = n * sum(k.itemsize * c for k, c in zip(kinds, counts, strict=True))
    if len(body) < 8 + packed or whole < need:
        raise ValueError(f"expected {packed} compressed bytes for {need}, found {len(body) - 8} for {whole}")
    plain = unpack_lzf(body[8 : 8 + packed], whole)
    table, at = {}, 0
    for name, count, kind in zip(names, counts, kinds, strict=True):
        table[name] = np.frombuffer(plain, kind, count=n * count, offset=at).reshape(n, count)
        at += n * count * kind.itemsize
    return table


def unpack_lzf(data: bytes, size: int) -> bytes:
    """What LZF made `data` of.

    Raises:
        ValueError: it is not `size` bytes.
    """
    out = bytearray()
    at = 0
    try:
        while at < len(data):
            control = data[at]
            at += 1
            if control < 32:  # literal bytes
                out += data[at : at + control + 1]
                at += control + 1
                continue
            length, back = control >> 5, (control & 31) << 8
            if length == 7:
                length += data[at]
                at += 1
            start = len(out) - (back | data[at]) - 1
            at += 1
            if start < 0:
                raise IndexError
            for i in range(length + 2):  # it may overlap what it makes
                out.append(out[start + i])
    except IndexError:
        out.clear()
    if len(out) != size:
        raise ValueError("the compressed points are broken")
    return bytes(out)


def _colors(table: dict[str, Array]) -> Floats | None:
    """(N, 3) of the packed field rgb or rgba."""
    packed = table.get("rgb", table.get("rgba"))
    if packed is None:
        return None
    column = np.ascontiguousarray(packed[:, 0])
    if column.dtype.itemsize != 4:
        return None
    value = column.view(np.uint32)
    return np.stack([value >> 16 & 255, value >> 8 & 255, value & 255], 1) / 255.0
