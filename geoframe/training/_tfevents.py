"""Scalars in the event files that TensorBoard reads, written without it.

A file is a row of records: length (8 bytes), its checksum, the data, its checksum. Data is an Event in protocol
buffers' format: 1 wall time (double), 2 step (varint), 3 file version (string), 5 summary; a summary is a row of
values with 1 tag (string) and 2 number (float).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping


def _table() -> list[int]:
    rows = list(range(256))
    for _ in range(8):
        rows = [row >> 1 ^ (0x82F63B78 if row & 1 else 0) for row in rows]
    return rows


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def header() -> bytes:
    """What a file of events begins with."""
    return _record(struct.pack("<Bd", 0x09, 0.0) + _block(3, b"brain.Event:2"))


def scalars(values: Mapping[str, float], *, step: int, seconds: float) -> bytes:
    """The record of named numbers at a step; `seconds` is its time.

    That is counted from the start of the training, over all its parts, so TensorBoard's axis WALL shows January 1970
    and its axis RELATIVE the time spent.
    """
    summary = b"".join(
        _block(1, _block(1, name.encode()) + struct.pack("<Bf", 0x15, value))
        for name, value in values.items()
    )
    return _record(struct.pack("<BdB", 0x09, seconds, 0x10) + _varint(step) + _block(5, summary))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _block(number: int, data: bytes) -> bytes:
    """A field of variable length."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(n: int) -> bytes:
    digits = bytearray()
    while n > 0x7F:
        digits.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*digits, n])
