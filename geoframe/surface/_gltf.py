"""glTF, text and binary, through trimesh, with what that reads wrongly put right or refused.

The geometries of the scene are joined in the order of the file's meshes. Positions and texture coordinates that
are stored as integers (the core format allows it for texture, KHR_mesh_quantization for both) trimesh takes as
they are: here they become floats first.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from geoframe._types import Array
from geoframe.surface._raw import Raw, check_corners, unit_colors
from geoframe.surface.bridges import colors_and_uv

_INTEGERS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4"}  # by componentType
_FLOAT = 5126
_COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def read_gltf(data: bytes, path: Path) -> Raw:
    """The surface in a glTF or GLB file whose bytes are `data`; buffers beside it are found by `path`."""
    import trimesh

    is_binary = data[:4] == b"glTF"
    tree = _checked_tree(data[20 : 20 + int.from_bytes(data[12:16], "little")] if is_binary else data)
    resolver = trimesh.resolvers.FilePathResolver(str(path))
    try:
        if _floats_for_integers(tree, _binary_chunk(data) if is_binary else b"", resolver):
            data = _rewritten(tree, data)
        kind = "glb" if is_binary else "gltf"
        scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, resolver=resolver, process=False)
        names = list(scene.geometry)
        nodes = [(name, *scene.graph[name]) for name in scene.graph.nodes_geometry]
    except Exception as err:
        kind = path.suffix[1:].upper()
        raise ValueError(f"not a readable {kind} file ({type(err).__name__}: {err})") from err
    nodes.sort(key=lambda node: names.index(node[2]))
    found = [_part(scene.geometry[name], matrix) for _, matrix, name in nodes]
    filled = [part for part in found if part is not None and len(part.verts)]
    parts = [part for part in filled if len(part.faces)] or filled
    if not parts:
        raise ValueError(f"no triangles found; truncated, or not a {path.suffix[1:].upper()} file")
    return _join(parts)


def _checked_tree(text: bytes) -> dict[str, Any]:
    """The JSON part; refused is what trimesh would fill with zeros or leave out: compressed or sparse data, fans."""
    try:
        tree: dict[str, Any] = json.loads(text)
        accessors, meshes = tree.get("accessors", []), tree.get("meshes", [])
        packed = any(
            "EXT_meshopt_compression" in v.get("extensions", {}) for v in tree.get("bufferViews", [])
        )
        bare = any("sparse" in a or "bufferView" not in a for a in accessors)
        fans = any(p.get("mode", 4) == 6 for m in meshes for p in m["primitives"])
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as err:
        raise ValueError("its JSON part is not that of a glTF file; truncated?") from err
    if packed or bare or fans:
        what = "triangle fans" if fans else "sparse or compressed (Draco, meshopt) data"
        raise ValueError(f"{what} cannot be read; export the file as plain triangles without compression")
    return tree


def _floats_for_integers(tree: dict[str, Any], chunk: bytes, resolver: Any) -> bool:
    """Give integer positions and texture coordinates a buffer of floats, in `tree`; False where there are none."""
    attributes = [p["attributes"] for m in tree.get("meshes", []) for p in m["primitives"]]
    wanted = {i for a in attributes for k, i in a.items() if k == "POSITION" or k.startswith("TEXCOORD_")}
    wanted = {i for i in wanted if tree["accessors"][i]["componentType"] != _FLOAT}
    out = b""
    for i in sorted(wanted):
        accessor = tree["accessors"][i]
        values = _integers(tree, accessor, chunk, resolver)
        if accessor.get("normalized"):
            values = np.maximum(values / np.iinfo(values.dtype).max, -1)
        block = values.astype("<f4").tobytes()
        view = {"buffer": len(tree["buffers"]), "byteOffset": len(out), "byteLength": len(block)}
        tree["bufferViews"].append(view)
        tree["accessors"][i] = {
            "bufferView": len(tree["bufferViews"]) - 1,
            "componentType": _FLOAT,
            "count": accessor["count"],
            "type": accessor["type"],
        }
        out += block
    if wanted:
        uri = "data:application/octet-stream;base64," + base64.b64encode(out).decode()
        tree["buffers"].append({"byteLength": len(out), "uri": uri})
    return bool(wanted)


def _integers(tree: dict[str, Any], accessor: dict[str, Any], chunk: bytes, resolver: Any) -> Array:
    """(count, columns) integers of an accessor; rows may lie further apart than they are long."""
    view = tree["bufferViews"][accessor["bufferView"]]
    uri = tree["buffers"][view["buffer"]].get("uri")
    if uri is None:
        data = chunk
    elif "base64," in uri:
        data = base64.b64decode(uri.split("base64,", 1)[1])
    else:
        data = resolver[uri]
    start = view.get("byteOffset", 0)
    data = data[start : start + view["byteLength"]]
    dtype, columns = np.dtype(_INTEGERS[accessor["componentType"]]), _COLUMNS[accessor["type"]]
    step = view.get("byteStride") or columns * dtype.itemsize
    shape = (accessor["count"], columns)
    strides = (step, dtype.itemsize)
    return np.ndarray(shape, dtype, data, accessor.get("byteOffset", 0), strides).copy()


def _binary_chunk(data: bytes) -> bytes:
    """The binary part of a GLB file, which follows the JSON part."""
    at = 20 + int.from_bytes(data[12:16], "little")
    return data[at + 8 : at + 8 + int.from_bytes(data[at : at + 4], "little")]


def _rewritten(tree: dict[str, Any], data: bytes) -> bytes:
    """The file with another JSON part."""
    text = json.dumps(tree).encode()
    if data[:4] != b"glTF":
        return text
    text += b" " * (-len(text) % 4)
    rest = data[20 + int.from_bytes(data[12:16], "little") :]
    length = (20 + len(text) + len(rest)).to_bytes(4, "little")
    return data[:8] + length + len(text).to_bytes(4, "little") + data[16:20] + text + rest


def _part(geometry: Any, matrix: np.ndarray) -> Raw | None:
    """One geometry in the scene's frame; None for lines and the like."""
    if not hasattr(geometry, "vertices") or hasattr(geometry, "entities"):
        return None
    verts = np.array(geometry.vertices, np.float64)
    faces = np.array(getattr(geometry, "faces", np.empty((0, 3))), np.int64)
    check_corners(faces.ravel(), np.full(len(faces), 3), len(verts))
    if not np.array_equal(matrix, np.eye(4)):
        verts = verts @ matrix[:3, :3].T + matrix[:3, 3]
        if np.linalg.det(matrix[:3, :3]) < 0:
            faces = faces[:, [0, 2, 1]]
    colors, uv = colors_and_uv(geometry)
    return Raw(verts, faces, colors, None, uv)


def _join(parts: list[Raw]) -> Raw:
    """One surface from several; a part without colours is white, one without texture coordinates has NaN."""
    first = np.cumsum([0, *(len(p.verts) for p in parts)])
    colors = uv = None
    if any(p.colors is not None for p in parts):
        rgba = [np.ones((len(p.verts), 4)) for p in parts]
        for block, p in zip(rgba, parts, strict=True):
            if p.colors is not None:
                block[:, : p.colors.shape[1]] = p.colors
        colors = unit_colors(np.concatenate(rgba))
    if any(p.uv is not None for p in parts):
        uv = np.concatenate([np.full((len(p.verts), 2), np.nan) if p.uv is None else p.uv for p in parts])
    faces = np.concatenate([p.faces + i for p, i in zip(parts, first[:-1], strict=True)])
    return Raw(np.concatenate([p.verts for p in parts]), faces, colors, None, uv)
