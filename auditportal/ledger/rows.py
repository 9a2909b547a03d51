"""Stored rows and what proves them: used by the sealer, by verification and by every page (verify on read)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
_EVENT = "SELECT " + ", ".join(COLUMNS) + " FROM ledger_event"


@dataclass(frozen=True, slots=True)
class StoredRow:
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
        return [
            StoredRow(seq, bytes(header), bytes(leaf), source, event_id, _bytes(salt), _bytes(body), _bytes(kept))
            for seq, header, leaf, source, event_id, salt, body, kept in cursor.fetchall()
        ]


def _bytes(value: memoryview | bytes | None) -> bytes | None:
    return None if value is None else bytes(value)


def events_between(start: int, end: int) -> dict[int, EventRow]:
    return _events(f"{_EVENT} WHERE seq >= %s AND seq < %s", [start, end])


def events_at(seqs: Sequence[int]) -> dict[int, EventRow]:
    return _events(f"{_EVENT} WHERE seq = ANY(%s)", [list(seqs)])


def _events(query: str, params: list[Any]) -> dict[int, EventRow]:
    with connection.cursor() as cursor:
        cursor.execute(query, params)
        found = [EventRow(seq, str(event_id), *rest) for seq, event_id, *rest in cursor.fetchall()]
    return {row.seq: row for row in found}


def prove(row: StoredRow, *, prev: bytes | None = None) -> Proven:
    """The entry, if header, leaf, body, streams and, when given, the leaf before it agree.

    Raises:
        LogBrokenError: with the name of FORMAT.md §9 and `seq n`.
    """
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
    for name in COLUMNS:
        if getattr(told, name) != getattr(event, name):
            raise _mismatch(proven.seq, name, str(getattr(told, name)), str(getattr(event, name)))


def _mismatch(seq: int, column: str, expected: str, found: str) -> LogBrokenError:
    return LogBrokenError("PROJECTION_MISMATCH", f"seq {seq}", f"{column} {expected}", found)


def _agree(name: str, seq: int, expected: str, found: str) -> None:
    if expected != found:
        raise LogBrokenError(name, f"seq {seq}", expected, found)


def split_hashes(raw: bytes) -> tuple[bytes, ...]:
    return tuple(raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES))
