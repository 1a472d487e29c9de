"""Landmarks: pairs of vertices that belong together, from text or JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoframe._check import as_tensor, check_shape
from geoframe._files import read_text


def read_landmarks(path: str | Path) -> Tensor:
    """Read pairs (L, 2) int64 of a source and a target vertex, 0-based, from one file.

    Text: one ``source_vertex target_vertex`` a line; blank lines and what follows a ``#`` are passed over.
    JSON: a list ``[[s, t], ...]``, or ``{"pairs": [[s, t], ...]}``.
    (A JSON file of names belongs to one surface: `read_named_landmarks`.)

    Raises:
        ValueError: naming the file and the line, for a missing file, a malformed line or no pair at all.
    """
    path = Path(path)
    text = read_text(path)
    if text.lstrip().startswith(("{", "[")) or path.suffix.lower() == ".json":
        content = _parse_json(text, path, (dict, list))
        content = {"pairs": content} if isinstance(content, list) else content
        if "pairs" not in content:
            raise ValueError(
                f"{path}: expected a key 'pairs'; a file of names belongs to one surface: read one for each with "
                "read_named_landmarks and join them with pair_landmarks"
            )
        pairs = content["pairs"]
        ok = isinstance(pairs, list) and all(
            isinstance(p, list) and len(p) == 2 and all(_is_vertex(v) for v in p) for p in pairs
        )
        if not ok:
            raise ValueError(f"{path}: expected a list of pairs [source_vertex, target_vertex], 0-based")
    else:
        pairs = [_parse_line(line, number, path) for number, line in enumerate(text.splitlines(), 1)]
        pairs = [pair for pair in pairs if pair is not None]
    if not pairs:
        raise ValueError(f"{path}: expected at least 1 pair 'source_vertex target_vertex', found none")
    return torch.tensor(pairs, dtype=torch.int64)


def read_named_landmarks(path: str | Path) -> dict[str, int]:
    """Read the named vertices ``{"name": vertex, ...}`` of one surface from a JSON file, 0-based; in a file of
    several things they are its ``"landmarks"``.

    Raises:
        ValueError: naming the file, for a missing file, other content or no name at all.
    """
    path = Path(path)
    content: dict[str, Any] = _parse_json(read_text(path), path)
    if isinstance(content.get("landmarks"), dict):
        content = content["landmarks"]
    for name, vertex in content.items():
        if not _is_vertex(vertex):
            raise ValueError(
                f"{path}: expected a 0-based vertex number for {name!r}, found {str(vertex)[:40]!r}"
            )
    if not content:
        raise ValueError(f"{path}: expected at least 1 name with its vertex, found none")
    return content


def pair_landmarks(names1: Mapping[str, int], names2: Mapping[str, int]) -> Tensor:
    """Pairs of the vertices that carry the same name on both surfaces.

    Args:
        names1: name -> vertex of surface 1.
        names2: name -> vertex of surface 2.

    Returns:
        (L, 2) int64, rows (vertex of 1, vertex of 2), in the order of `names1`.

    Raises:
        ValueError: no name in common.
    """
    pairs = [[vertex, names2[name]] for name, vertex in names1.items() if name in names2]
    if not pairs:
        raise ValueError(
            f"names1, names2: expected at least 1 name in common, found {sorted(names1)[:3]} and {sorted(names2)[:3]}"
        )
    return torch.tensor(pairs, dtype=torch.int64)


def check_landmarks(pairs: Any, n_source: int, n_target: int) -> Tensor:
    """Require pairs that can serve as landmarks between two surfaces.

    Args:
        pairs: (L, 2) integers, rows (source vertex, target vertex).
        n_source: number of vertices of the source.
        n_target: number of vertices of the target.

    Returns:
        The pairs as int64.

    Raises:
        TypeError: not a tensor, array or list of integers.
        ValueError: fewer than 1 pair, another shape, a vertex out of range, or a vertex of one surface that
            stands in two pairs.
    """
    pairs = as_tensor(pairs, "landmarks")
    if pairs.is_floating_point() or pairs.is_complex() or pairs.dtype == torch.bool:
        raise TypeError(
            f"landmarks: expected an integer dtype (int64), found {pairs.dtype}; convert with .long()"
        )
    check_shape(pairs, "L 2", "landmarks")
    if not len(pairs):
        raise ValueError("landmarks: expected at least 1 pair, found none")
    pairs = pairs.long()
    for side, (name, n) in enumerate((("source", n_source), ("target", n_target))):
        column = pairs[:, side]
        bad = torch.nonzero((column < 0) | (column >= n)).ravel()
        if len(bad):
            raise ValueError(
                f"landmarks: pair {int(bad[0])} has {name} vertex {int(column[bad[0]])}, expected one in "
                f"[0, {n - 1}] ({n} vertices); pairs are 'source target', 0-based"
            )
        values, counts = column.unique(return_counts=True)
        if bool((counts > 1).any()):
            twice = int(values[counts > 1][0])
            rows = torch.nonzero(column == twice).ravel().tolist()
            raise ValueError(
                f"landmarks: {name} vertex {twice} stands in pairs {rows[0]} and {rows[1]}; remove one of them"
            )
    return pairs


def _is_vertex(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _parse_line(line: str, number: int, path: Path) -> list[int] | None:
    words = line.split("#", 1)[0].split()
    if not words:
        return None
    if len(words) != 2 or not all(w.isascii() and w.isdecimal() and len(w) < 19 for w in words):
        raise ValueError(
            f"{path}: line {number}: expected 'source_vertex target_vertex' (0-based integers), found {line[:60]!r}"
        )
    return [int(w) for w in words]


def _parse_json(text: str, path: Path, kinds: tuple[type, ...] = (dict,)) -> Any:
    try:
        content = json.loads(text, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as err:
        raise ValueError(f"{path}: not valid JSON ({str(err)[:80]})") from err
    if not isinstance(content, kinds):
        names = " or ".join("object" if kind is dict else "list" for kind in kinds)
        raise ValueError(f"{path}: expected a JSON {names}, found {type(content).__name__}")
    return content


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that stands twice it could only keep the last value, so that is told instead."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"the key {twice[:40]!r} stands twice in one object; remove one of them")
    return content
