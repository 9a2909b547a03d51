"""Rows in PostgreSQL's binary COPY format: one buffer, one write, whatever the size of a batch."""

from __future__ import annotations

import struct
from collections.abc import Iterable

HEADER = b"PGCOPY\n\xff\r\n\x00" + b"\x00" * 8
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
_length = struct.Struct(">i").pack
_keyed = struct.Struct(">hiq").pack


def keyed(key: int, fields: bytes, count: int) -> bytes:
    """A row of a bigint and `count` further fields, already packed."""
    return _keyed(count + 1, 8, key) + fields


def packed(*values: bytes | None) -> bytes:
    """Fields of bytea, text or uuid: four bytes of length, then the bytes; None is NULL."""
    return b"".join([NULL if value is None else _length(len(value)) + value for value in values])


def stream(rows: Iterable[bytes]) -> bytes:
    """The whole stream of these rows."""
    return b"".join([HEADER, *rows, TRAILER])
