"""The one door into the log (DESIGN: one writer).

`append` runs inside the caller's transaction, as its last statements: act and record commit together or not at all.
Nothing slow happens between the head lock and the commit: no network, no signing.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, ParamSpec, TypeVar

from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from auditportal.ledger import copying, drafts
from auditportal.ledger.drafts import SYSTEM, Draft, Subject
from auditportal.ledger.errors import Conflict, ConflictError, LedgerError, NotRecordingError
from auditportal.ledger.models import Kept, Key, SealedValue
from auditportal.ledger.preparation import Prepared, fingerprint, prepare_all
from auditproof import headers

P = ParamSpec("P")
R = TypeVar("R")
CHANNEL = "auditportal_ledger"  # NOTIFY wakes the sealer
SPEC = "auditportal/ledger/v1"
ATTEMPTS = 5  # a serialisation failure or deadlock is the database asking to try again
FIRST_PAUSE_S = 0.02
RETRIED = frozenset({"40001", "40P01"})


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where an event stands. `is_new` is false when the same event had been recorded before."""

    seq: int
    event_id: str
    leaf_hash: bytes
    is_new: bool


_collecting: ContextVar[list[Draft] | None] = ContextVar("ledger_collecting", default=None)


@contextmanager
def recording() -> Iterator[None]:
    """Collects what services append inside the block and writes it as one batch at its end.

    Inside, `append` returns an empty list: places are known only when the block has ended.
    """
    if _collecting.get() is not None:
        yield  # the outermost block writes
        return
    collected: list[Draft] = []
    token = _collecting.set(collected)
    try:
        yield
    finally:
        _collecting.reset(token)
    if collected:
        append(collected)


def append(events: Sequence[Draft]) -> list[Recorded]:
    """Records the events in order, in the caller's transaction; afterwards each has its place in the log.

    The head stays locked until that transaction ends, so call it last.

    Raises:
        NotRecordingError: outside a transaction.
        InvalidEventError: an event breaks FORMAT.md §1; nothing is written.
        ConflictError: a known (source, event_id) with other content; nothing is written.
    """
    if not connection.in_atomic_block:
        raise NotRecordingError("append must run inside the transaction of the act it records")
    collecting = _collecting.get()
    if collecting is not None:
        collecting.extend(events)
        return []
    return append_prepared(prepare_all(events))


def append_prepared(items: Sequence[Prepared]) -> list[Recorded]:
    """As `append`, for events prepared before the transaction began."""
    if not items:
        return []
    fields = [_pack(item) for item in items]
    with connection.cursor() as cursor:
        seen = _seen(cursor, items)
        cursor.execute("SELECT size, leaf, t FROM ledger_head WHERE id = 1 FOR UPDATE")
        size, leaf, last_t = cursor.fetchone()
        if size == 0 and not (len(items) == 1 and items[0].source == drafts.PORTAL):
            raise LedgerError("the log has not begun: run manage.py setup_database")
        known = _known(cursor, items, seen, size)
        t = max(drafts.instant(timezone.now()), last_t)
        result, entries, bodies, fresh = _place(
            items, fields, known, origin=settings.LOG_ORIGIN, seq=size, prev=bytes(leaf), t=t
        )
        if entries:
            with cursor.copy("COPY ledger_entry (seq, source, event_id, header, leaf_hash) FROM STDIN BINARY") as copy:
                copy.write(copying.stream(entries))
            with cursor.copy("COPY ledger_body (seq, salt, body, streams, fingerprint) FROM STDIN BINARY") as copy:
                copy.write(copying.stream(bodies))
            _keep_aside(fresh)
            cursor.execute(f"NOTIFY {CHANNEL}")
    return result


def _pack(item: Prepared) -> tuple[bytes, bytes]:
    """The fields of entry and body that need no place."""
    return (
        copying.packed(item.source.encode(), bytes.fromhex(item.event_id.replace("-", ""))),
        copying.packed(item.salt, item.body, item.stream_hashes, item.fingerprint),
    )


def _place(
    items: Sequence[Prepared],
    fields: Sequence[tuple[bytes, bytes]],
    known: dict[tuple[str, str], _Known],
    *,
    origin: str,
    seq: int,
    prev: bytes,
    t: str,
) -> tuple[list[Recorded], list[bytes], list[bytes], list[tuple[int, Prepared]]]:
    """Gives each new event its seq and header; packs the rows for COPY."""
    result: list[Recorded] = []
    entries: list[bytes] = []
    bodies: list[bytes] = []
    fresh: list[tuple[int, Prepared]] = []
    conflicts: list[Conflict] = []
    for index, (item, (of_entry, of_body)) in enumerate(zip(items, fields, strict=True)):
        key = (item.source, item.event_id)
        before = known.get(key)
        if before is not None:
            if before.is_same(item):
                result.append(Recorded(before.seq, item.event_id, before.leaf_hash, is_new=False))
            else:
                conflicts.append(Conflict(index, item.source, item.event_id, before.seq if before.seq < seq else None))
            continue
        place = seq + len(fresh)
        header = headers.make_header(
            body=item.commitment,
            event_id=item.event_id,
            origin=origin,
            prev=prev,
            seq=place,
            streams=item.streams_commitment,
            t=t,
        )
        prev = headers.leaf_hash(header)
        known[key] = _Known(place, prev, item.salt, item.fingerprint)
        entries.append(copying.keyed(place, of_entry + copying.packed(header, prev), 4))
        bodies.append(copying.keyed(place, of_body, 4))
        fresh.append((place, item))
        result.append(Recorded(place, item.event_id, prev, is_new=True))
    if conflicts:
        raise ConflictError(tuple(conflicts))
    return result, entries, bodies, fresh


class _Known(NamedTuple):
    seq: int
    leaf_hash: bytes
    salt: bytes | None
    fingerprint: bytes | None

    def is_same(self, item: Prepared) -> bool:
        if self.salt is None:  # erased since: nothing is left to compare, and nothing may be recorded twice
            return True
        return fingerprint(self.salt, item.submitted) == self.fingerprint


@dataclass(frozen=True, slots=True)
class _Seen:
    """Which of the ids stand in the log, as far as it had `size` entries; looked up before the lock."""

    size: int
    event_ids: list[str]


def _seen(cursor: CursorWrapper, items: Sequence[Prepared]) -> _Seen:
    # One statement, so one snapshot: the head moves with its entries, so all below its size are seen. A count an id,
    # as the planner would read the whole table for a plain `= ANY` over so many.
    cursor.execute(
        "SELECT size, ARRAY(SELECT w.id::text FROM unnest(%s::uuid[]) w(id) WHERE"
        " (SELECT count(*) FROM ledger_entry e WHERE e.event_id = w.id AND e.source = ANY(%s)) > 0)"
        " FROM ledger_head WHERE id = 1",
        [_uuids(items), sorted({item.source for item in items})],
    )
    return _Seen(*cursor.fetchone())


def _uuids(items: Sequence[Prepared]) -> str:
    """As the text of an array: to adapt a list takes longer than to search for what is in it."""
    return "{" + ",".join([item.event_id for item in items]) + "}"


def _known(cursor: CursorWrapper, items: Sequence[Prepared], seen: _Seen, size: int) -> dict[tuple[str, str], _Known]:
    """What is recorded already under one of these idempotency keys, now that the log stands still at `size`."""
    event_ids = set(seen.event_ids)
    if size > seen.size:  # others were faster: only what they added has to be looked at
        cursor.execute(
            "SELECT event_id::text FROM ledger_entry WHERE seq >= %s AND event_id = ANY(%s::uuid[])",
            [seen.size, _uuids(items)],
        )
        event_ids.update(event_id for (event_id,) in cursor.fetchall())
    if not event_ids:
        return {}
    cursor.execute(
        "SELECT e.source, e.event_id::text, e.seq, e.leaf_hash, b.salt, b.fingerprint"
        " FROM ledger_entry e JOIN ledger_body b USING (seq) WHERE e.event_id = ANY(%s::uuid[])",
        [sorted(event_ids)],
    )
    return {
        (source, event_id): _Known(seq, bytes(leaf), _bytes(salt), _bytes(print_))
        for source, event_id, seq, leaf, salt, print_ in cursor.fetchall()
    }


def _bytes(value: memoryview | bytes | None) -> bytes | None:
    return None if value is None else bytes(value)


def _keep_aside(fresh: Sequence[tuple[int, Prepared]]) -> None:
    sealed = [
        SealedValue(seq=seq, pointer=value.pointer, salt=value.salt, value=value.value)
        for seq, item in fresh
        for value in item.sealed
    ]
    kept = [
        Kept(seq=seq, kind=value.kind, salt=value.salt, content=value.content, signature=value.signature)
        for seq, item in fresh
        for value in item.kept
    ]
    if sealed:
        SealedValue.objects.bulk_create(sealed)
    if kept:
        Kept.objects.bulk_create(kept)


def begin_log(*, vkey: str, now: datetime) -> bool:
    """The log has its genesis entry and its first key. True when this call began it."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT size FROM ledger_head WHERE id = 1 FOR UPDATE")
        if cursor.fetchone()[0] > 0:
            return False
        Key.objects.create(vkey=vkey, first_size=0)
        append(
            [
                Draft(
                    action="ledger.genesis",
                    actor=SYSTEM,
                    subject=Subject("log", settings.LOG_ORIGIN),
                    timestamp=now,
                    metadata={"spec": SPEC, "vkey": vkey},
                )
            ]
        )
        return True


def retried(service: Callable[P, R]) -> Callable[P, R]:
    """Runs an outermost service again when PostgreSQL gave up a deadlock or a serialisation conflict."""

    @functools.wraps(service)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> R:
        pause = FIRST_PAUSE_S
        for _ in range(ATTEMPTS - 1):
            try:
                return service(*args, **kwargs)
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", "") not in RETRIED or connection.in_atomic_block:
                    raise
            time.sleep(pause)
            pause *= 2
        return service(*args, **kwargs)

    return attempt
