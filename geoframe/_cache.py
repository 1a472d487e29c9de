"""A disk cache of arrays, keyed on content: what went in decides the name, and a file proves itself.

Files are ``<key>.npz`` without pickle, in ``$GEOFRAME_CACHE`` (``off`` disables the cache) or in the user's
cache folder. Each holds its key and a digest of its arrays, so that a truncated, corrupted, renamed or
foreign file is never trusted: it counts as absent and is replaced. The cache only saves time: an unwritable
folder costs a warning, not the computation. Above `MAX_BYTES` the files used longest ago are dropped.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import struct
import sys
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from geoframe._files import atomic_path

log = logging.getLogger(__name__)

VERSION = 1  # part of every key: raise it when the meaning of a stored array changes
MAX_BYTES = 8 * 2**30
_NAME = re.compile(r"\.?[0-9a-f]{40}(-\w+)?\.npz")  # finished files, and temporary ones of a killed process
_STALE_S = 3600.0
_UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, KeyError, EOFError, MemoryError, NotImplementedError, RuntimeError, SyntaxError),
    *(TypeError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def cache_folder() -> Path | None:
    """Where the cache lives; None when ``GEOFRAME_CACHE=off``."""
    chosen = os.environ.get("GEOFRAME_CACHE", "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "geoframe"


def cache_key(*parts: Any) -> str:
    """40 hexadecimal digits that stand for `parts`: arrays, tensors, strings, numbers, None, tuples of these.

    Arrays count by dtype, shape and bytes. The same content gives the same key in every process.

    Raises:
        TypeError: a part of another type.
    """
    h = hashlib.blake2b(digest_size=20)
    _update(h, ("geoframe", VERSION, parts))
    return h.hexdigest()


def _update(h: hashlib.blake2b, part: Any) -> None:
    if isinstance(part, Tensor):
        part = part.detach().cpu().numpy()
    if isinstance(part, np.ndarray) and part.dtype != object:
        h.update(f"array {part.dtype.str} {part.shape};".encode())
        h.update(np.ascontiguousarray(part).data if part.size else b"")
    elif isinstance(part, tuple | list):
        h.update(f"tuple {len(part)};".encode())
        for p in part:
            _update(h, p)
    elif part is None or isinstance(part, str | bytes | bool | int | float | np.number | np.bool_):
        text = repr(part.item() if isinstance(part, np.generic) else part)
        h.update(f"{len(text)} {text};".encode())
    else:
        raise TypeError(
            f"parts: expected arrays, strings, numbers or tuples of these, found {type(part).__name__}"
        )


def load_arrays(key: str) -> dict[str, np.ndarray] | None:
    """The arrays stored under `key`, or None where there are none that can be trusted (logged)."""
    folder = cache_folder()
    if folder is None:
        return None
    path = folder / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as z:
            arrays = {name: z[name] for name in z.files}
        if str(arrays.pop("__key__")) != key or str(arrays.pop("__digest__")) != _digest(arrays):
            raise ValueError("its content does not belong to its name")
    except FileNotFoundError:
        return None
    except _UNREADABLE as err:
        log.warning("cache file %s cannot be trusted (%s); computing afresh", path, err)
        return None
    try:
        os.utime(path)
    except OSError:
        log.debug("cannot touch %s", path)
    return arrays


def store_arrays(key: str, arrays: dict[str, np.ndarray]) -> None:
    """Store `arrays` under `key`; a failure to write is logged, not raised.

    Raises:
        TypeError: an array of Python objects.
    """
    for name, x in arrays.items():
        if np.asarray(x).dtype == object:
            raise TypeError(f"arrays[{name!r}]: expected numbers or strings, found Python objects")
    folder = cache_folder()
    if folder is None:
        return
    own = {"__key__": np.array(key), "__digest__": np.array(_digest(arrays))}
    try:
        with atomic_path(folder / f"{key}.npz") as temporary:
            np.savez(temporary, **arrays, **own)  # type: ignore[arg-type]
        _evict(folder, MAX_BYTES)
    except (OSError, ValueError) as err:
        log.warning(
            "cannot use the cache folder %s (%s); set GEOFRAME_CACHE to another, or to off", folder, err
        )


def cached_arrays(
    parts: tuple[Any, ...], compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """``compute()``, or what it returned the last time for the same `parts` (see `cache_key`)."""
    if cache_folder() is None:
        return compute()
    key = cache_key(*parts)
    arrays = load_arrays(key)
    if arrays is None:
        arrays = compute()
        store_arrays(key, arrays)
    return arrays


def clear_cache() -> int:
    """Remove every file of the cache and return how many; other files in the folder are left alone."""
    folder = cache_folder()
    return 0 if folder is None else _evict(folder, 0, stale_s=0.0)


def _evict(folder: Path, max_bytes: int, *, stale_s: float = _STALE_S) -> int:
    """Drop files, the longest unused first, until `max_bytes` remain; leftovers of killed writers go too."""
    files = []
    for path in folder.glob("*.npz") if folder.is_dir() else ():
        if _NAME.fullmatch(path.name):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process was faster
                continue
            files.append((stat.st_mtime, stat.st_size, path))
    total, dropped = sum(size for _, size, _ in files), 0
    for mtime, size, path in sorted(files):
        temporary = path.name.startswith(".")
        if (time.time() - mtime >= stale_s) if temporary else (total > max_bytes):
            path.unlink(missing_ok=True)
            total, dropped = total - size, dropped + 1
    return dropped


def _digest(arrays: dict[str, np.ndarray]) -> str:
    return cache_key(*((name, np.asarray(arrays[name])) for name in sorted(arrays)))
