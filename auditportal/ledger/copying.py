"""Rows in PostgreSQL's binary COPY format: one buffer, one write, whatever the size of a batch."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator

HEADER = b"PGCOPY\n\xff\r\n\x00" + b"\x00" * 8
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
_bigint = struct.Struct(">iq").pack
_length = struct.Struct(">i").pack
_count = struct.Struct(">h").pack


def bigint(value: int) -> bytes:
    return _bigint(8, value)


def binary(value: bytes | None) -> bytes:
    """A bytea, text or uuid field: four bytes of length, then the bytes; None is NULL."""
    return NULL if value is None else _length(len(value)) + value


def rows(fields: int, packed: Iterable[bytes]) -> bytes:
    """The whole stream of rows, each already packed with `fields` fields."""
    count = _count(fields)
    return HEADER + b"".join(part for row in packed for part in (count, row)) + TRAILER


def parse(blocks: Iterable[bytes], fields: int) -> Iterator[list[bytes | None]]:
    """The rows of `COPY … TO STDOUT (FORMAT binary)`, as raw field bytes.

    Raises:
        ValueError: the stream is not what PostgreSQL writes.
    """
    pending = b""
    started = False
    for block in blocks:
        pending += bytes(block)
        at = 0
        if not started:
            if len(pending) < len(HEADER):
                continue
            at, started = len(HEADER), True
        at, done = yield from _complete_rows(pending, at, fields)
        pending = pending[at:]
        if done:
            return
    raise ValueError("the COPY stream ended without its trailer")


def _complete_rows(data: bytes, at: int, fields: int) -> Generator[list[bytes | None], None, tuple[int, bool]]:
    """Yields the rows that are whole; returns where the next one starts and whether the trailer was reached."""
    size = len(data)
    while at + 2 <= size:
        (count,) = struct.unpack_from(">h", data, at)
        if count == -1:
            return at, True
        if count != fields:
            raise ValueError(f"a row of {count} fields, expected {fields}")
        row: list[bytes | None] = []
        position = at + 2
        for _ in range(fields):
            if position + 4 > size:
                return at, False
            (length,) = struct.unpack_from(">i", data, position)
            position += 4
            if length < 0:
                row.append(None)
                continue
            if position + length > size:
                return at, False
            row.append(data[position : position + length])
            position += length
        yield row
        at = position
    return at, False
