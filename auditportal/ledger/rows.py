"""Stored rows and what proves them: used by the sealer, by verification and by every page (verify on read)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from django.conf import settings
from django.db import connection

from auditportal.ledger import projections
from auditportal.ledger.errors import LogBrokenError
from auditportal.ledger.projections import COLUMNS, EventRow
from auditproof import events, headers, streams
from auditproof.errors import ProofError

HASH_BYTES = 32
_LOG = (
    "SELECT e.seq, e.header, e.leaf_hash, e.source, e.event_id::text, b.salt, b.body, b.streams"
    " FROM ledger_entry e LEFT JOIN ledger_body b ON b.seq = e.seq"
)
_EVENT = f"SELECT {projections.SELECTED} FROM ledger_event"


class StoredRow(NamedTuple):
    """One entry as the database gives it; nothing in it is believed yet."""

    seq: int
    header: bytes
    leaf: bytes
    source: str
    event_id: str
    salt: bytes | None
    body: bytes | None
    streams: bytes | None


@dataclass(frozen=True, slots=True)
class Proven:
    """One entry that its own bytes prove; `body` is None once erased."""

    row: StoredRow
    header: headers.Header
    stream_hashes: tuple[bytes, ...]
    body: dict[str, Any] | None

    @property
    def seq(self) -> int:
        return self.row.seq

    @property
    def leaf(self) -> bytes:
        return self.row.leaf


def between(start: int, end: int, most: int) -> list[StoredRow]:
    """Up to `most` rows with start <= seq < end, in order."""
    return _read(f"{_LOG} WHERE e.seq >= %s AND e.seq < %s ORDER BY e.seq LIMIT %s", [start, end, most])


def at(seqs: Sequence[int]) -> dict[int, StoredRow]:
    rows = _read(f"{_LOG} WHERE e.seq = ANY(%s)", [list(seqs)])
    return {row.seq: row for row in rows}


def _read(query: str, params: list[Any]) -> list[StoredRow]:
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        return list(map(StoredRow._make, cursor.fetchall()))


def events_between(start: int, end: int) -> dict[int, EventRow]:
    return _events(f"{_EVENT} WHERE seq >= %s AND seq < %s", [start, end])


def events_at(seqs: Sequence[int]) -> dict[int, EventRow]:
    return _events(f"{_EVENT} WHERE seq = ANY(%s)", [list(seqs)])


def _events(query: str, params: list[Any]) -> dict[int, EventRow]:
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        return {row[0]: EventRow._make(row) for row in cursor.fetchall()}


def prove(row: StoredRow, *, prev: bytes | None = None) -> Proven:
    """The entry, if header, leaf, body, streams and, when given, the leaf before it agree.

    Raises:
        LogBrokenError: with the name of FORMAT.md §9 and `seq n`.
    """
    return _proven_whole(row, prev) or _proven_in_parts(row, prev)


def _proven_whole(row: StoredRow, prev: bytes | None) -> Proven | None:
    """The entry, if its header is, byte for byte, the one that everything else gives; None where that is not so.

    Making a header costs a third of reading one and comparing its members.
    """
    if row.salt is None or row.body is None or row.streams is None or len(row.salt) != events.SALT_BYTES:
        return None
    try:
        header = headers.Header(
            body=events.body_commitment(row.salt, row.body),
            event_id=row.event_id,
            origin=settings.LOG_ORIGIN,
            prev=headers.told_prev(row.header, settings.LOG_ORIGIN) if prev is None else prev,
            seq=row.seq,
            streams=streams.joined_commitment(row.streams),
            t=headers.told_time(row.header),
        )
    except (ProofError, ValueError):
        return None
    if headers.write_header(header) != row.header or headers.leaf_hash(row.header) != row.leaf:
        return None
    body: dict[str, Any] = orjson.loads(row.body)  # committed bytes are those that were admitted, so they parse
    named = tuple(sorted(map(streams.stream_hash, streams.stream_keys(body))))
    if b"".join(named) != row.streams or body["event_id"] != row.event_id:
        return None
    return Proven(row, header, named, body)


def _proven_in_parts(row: StoredRow, prev: bytes | None) -> Proven:
    """Check by check, so that the first one that fails can be named."""
    if row.streams is None:
        raise LogBrokenError("UNEXPLAINED_ABSENCE", f"seq {row.seq}", "a row for its body", "none")
    kept = split_hashes(row.streams)
    try:
        header = headers.parse_header(row.header)
        _agree("LEAF_HASH", row.seq, headers.leaf_hash(row.header).hex(), row.leaf.hex())
        _agree("SEQ_GAP", row.seq, str(row.seq), str(header.seq))
        _agree("ORIGIN", row.seq, settings.LOG_ORIGIN, header.origin)
        if prev is not None:
            _agree("PREV_CHAIN", row.seq, prev.hex(), header.prev.hex())
        _agree("STREAMS_COMMITMENT", row.seq, header.streams.hex(), streams.streams_commitment(kept).hex())
        _agree("LEAF_HASH", row.seq, header.event_id, row.event_id)
        body = _proven_body(row, header, kept)
    except ProofError as error:
        raise LogBrokenError(str(error.name), f"seq {row.seq}", error.expected, error.found) from error
    return Proven(row, header, kept, body)


def _proven_body(row: StoredRow, header: headers.Header, kept: tuple[bytes, ...]) -> dict[str, Any] | None:
    """The body that the header commits to; None when body and salt are erased (their event explains it)."""
    if row.body is None or row.salt is None:
        if row.body is not None or row.salt is not None:
            raise LogBrokenError("UNEXPLAINED_ABSENCE", f"seq {row.seq}", "body and salt, or neither", "one of them")
        return None
    _agree("BODY_COMMITMENT", row.seq, f"a salt of {events.SALT_BYTES} bytes", f"a salt of {len(row.salt)} bytes")
    _agree("BODY_COMMITMENT", row.seq, header.body.hex(), events.body_commitment(row.salt, row.body).hex())
    body: dict[str, Any] = orjson.loads(row.body)
    # Committed bytes are those that were admitted, so they parse; the streams must be the ones they name.
    named = sorted(map(streams.stream_hash, streams.stream_keys(body)))
    _agree("STREAMS_COMMITMENT", row.seq, b"".join(named).hex(), b"".join(kept).hex())
    _agree("BODY_COMMITMENT", row.seq, str(body["event_id"]), header.event_id)
    return body


def compare(proven: Proven, event: EventRow | None) -> None:
    """The search columns say what the body says.

    Raises:
        LogBrokenError: PROJECTION_MISMATCH with the first column that differs.
    """
    if proven.body is None:
        return
    if proven.row.source != proven.body["source"]["id"]:
        raise _mismatch(proven.seq, "source", proven.body["source"]["id"], proven.row.source)
    if event is None:
        raise _mismatch(proven.seq, "row", "a search row", "none")
    told = projections.event_row(proven.seq, proven.header.t, proven.body)
    for name, expected, found in zip(COLUMNS, told, event, strict=True):
        if expected != found:
            raise _mismatch(proven.seq, name, str(expected), str(found))


def _mismatch(seq: int, column: str, expected: str, found: str) -> LogBrokenError:
    return LogBrokenError("PROJECTION_MISMATCH", f"seq {seq}", f"{column} {expected}", found)


def _agree(name: str, seq: int, expected: str, found: str) -> None:
    if expected != found:
        raise LogBrokenError(name, f"seq {seq}", expected, found)


def split_hashes(raw: bytes) -> tuple[bytes, ...]:
    return tuple(raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES))
