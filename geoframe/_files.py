"""Files and folders: text with or without a byte-order mark, whole writes, JSON, and where a mesh lies."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def mesh_file(path: Path) -> Path:
    """The file of the mesh at `path`: surface.obj in a folder of `geoframe canonical`, else `path` itself."""
    inner = path / "surface.obj"
    return inner if inner.is_file() else path


def plain_utf8(data: bytes) -> bytes:
    """The bytes of a text file in UTF-8 without a byte-order mark; a mark of UTF-16 is taken at its word.

    Editors on Windows write such marks: left in place, one becomes a part of the first word of the file.
    """
    if data.startswith(codecs.BOM_UTF8):
        return data[len(codecs.BOM_UTF8) :]
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with contextlib.suppress(UnicodeError):
            return data.decode("utf-16").encode("utf-8")
    return data


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, or of a UTF-16 one with its byte-order mark; the mark is not part of it.

    Raises:
        ValueError: naming the file, for one that cannot be opened or is not text.
    """
    try:
        text = plain_utf8(Path(path).read_bytes()).decode("utf-8")
    except OSError as err:
        raise ValueError(f"cannot read {path}: {err.strerror or err}") from err
    except UnicodeDecodeError as err:
        raise ValueError(f"cannot read {path}: not a text file") from err
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` (same suffix); on success it is renamed to `path`, else removed.

    The parent folder is made. A reader sees the old file or the whole new one, never a part.

    Raises:
        ValueError: the folder cannot be made or written to.
    """
    path = Path(path)
    temporary = path.parent / f".{path.stem}-{secrets.token_hex(6)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # less the umask
    except OSError as err:
        raise ValueError(f"cannot write {path}: {err.strerror or err}; choose a writable folder") from err
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def staged_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty temporary folder; on success its files move into `path` one by one, else nothing is left.

    An existing `path` keeps its other files. The temporary folder lies in `path`, or in the nearest folder above
    it that exists, so that a move is a rename.

    Raises:
        ValueError: `path` is a file, or cannot be made or written to. Told before any work is done.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(20, "it is not a folder")
        base = path.absolute()
        while not base.exists():
            base = base.parent
        temporary = Path(tempfile.mkdtemp(prefix=".geoframe-", dir=base))
    except OSError as err:
        raise ValueError(f"cannot write to {path}: {err.strerror or err}; choose a writable folder") from err
    try:
        yield temporary
        path.mkdir(parents=True, exist_ok=True)
        for file in sorted(temporary.iterdir()):
            os.replace(file, path / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def to_json(value: Any, *, sort_keys: bool = False, indent: int | None = 1) -> str:
    """`value` as JSON that any reader takes: numbers of torch and numpy as numbers, NaN and infinity as null."""
    plain = json.loads(json.dumps(value, default=float), parse_constant=lambda _: None)
    return json.dumps(plain, indent=indent, sort_keys=sort_keys, allow_nan=False) + "\n"
