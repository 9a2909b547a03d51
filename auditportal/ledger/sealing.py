"""The sealer's step: new entries become tiles, streams, search rows and a signed checkpoint.

One transaction a step. Each entry is checked against its own bytes first: a broken row is named and never signed.
The signer remembers outside the database, so after a crash between signing and commit the next step simply signs a
tree that contains the one already signed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from auditportal.ledger import projections, rollups, rows, tiles
from auditportal.ledger.drafts import Outcome
from auditportal.ledger.errors import LogBrokenError
from auditportal.ledger.models import Checkpoint, Rollup
from auditportal.ledger.rows import HASH_BYTES, Proven
from auditportal.ledger.signer import FileSigner, Signer
from auditproof import checkpoints, merkle, streammap, streams

PROJECTIONS = (
    "ledger_tile",
    "ledger_stream",
    "ledger_event",
    "ledger_eventmodel",
    "ledger_eventrelated",
    "ledger_eventtext",
    "ledger_rollup",
)
MOST_A_STEP = 5_000  # entries: some 15 MB of rows, under a second of work


@dataclass(frozen=True, slots=True)
class Seal:
    """What one step did: entries sealed by it, and the size it reached."""

    count: int
    size: int


def default_signer() -> Signer:
    return FileSigner(settings.SIGNER_DIRECTORY, settings.LOG_ORIGIN)


@transaction.atomic
def seal_once(*, signer: Signer, now: datetime, most: int = MOST_A_STEP) -> Seal:
    """Seals up to `most` waiting entries; afterwards projections and the newest checkpoint cover them.

    Raises:
        LogBrokenError: a waiting entry does not prove itself; nothing is sealed.
        SignerRefusedError: the signer's memory contradicts the log; nothing is sealed.
    """
    size, frontier = _locked_state()
    entries = _waiting(size, most, _last_leaf(size))
    if entries:
        writer = tiles.Writer(size)
        writer.append([entry.leaf for entry in entries])
        frontier.extend([entry.leaf for entry in entries])
        _store_tiles(writer)
        project(entries)
        _store_state(frontier)
    if frontier.size == 0:
        return Seal(0, 0)
    if Checkpoint.objects.filter(size__gte=frontier.size).exists():
        _check_signed(frontier)  # a rebuild passes sizes that were signed long ago
        return Seal(len(entries), frontier.size)
    checkpoint = checkpoints.Checkpoint(settings.LOG_ORIGIN, frontier.size, frontier.root())
    note = signer.sign(checkpoint, tiles.consistency_path)
    Checkpoint.objects.create(size=checkpoint.size, root=checkpoint.root, note=note, sealed_at=now)
    return Seal(len(entries), frontier.size)


def seal_all(*, signer: Signer, now: datetime) -> int:
    """Seals until nothing waits; the size reached."""
    while True:
        seal = seal_once(signer=signer, now=now)
        if seal.count < MOST_A_STEP:
            return seal.size


def rebuild(*, signer: Signer, now: datetime, progress: Callable[[int], None]) -> int:
    """All projections are derived anew from the log; checkpoints stay, as they are part of it. The size reached.

    Each step commits, so an interrupted rebuild is simply continued by the sealer.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM ledger_sealing WHERE id = 1 FOR UPDATE")
        for table in PROJECTIONS:
            cursor.execute(f"DELETE FROM {table}")  # noqa: S608 -- a constant; DELETE since TRUNCATE is the owner's
        _store_state(merkle.Frontier(0, []))
    while True:
        seal = seal_once(signer=signer, now=now)
        progress(seal.size)
        if seal.count < MOST_A_STEP:
            return seal.size


def _locked_state() -> tuple[int, merkle.Frontier]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT size, frontier FROM ledger_sealing WHERE id = 1 FOR UPDATE")
        size, raw = cursor.fetchone()
    hashes = [bytes(raw)[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]
    return size, merkle.Frontier(size, hashes)


def _check_signed(frontier: merkle.Frontier) -> None:
    signed = Checkpoint.objects.filter(size=frontier.size).values_list("root", flat=True).first()
    if signed is not None and bytes(signed) != frontier.root():
        raise LogBrokenError("CONSISTENCY", f"checkpoint {frontier.size}", bytes(signed).hex(), frontier.root().hex())


def _store_state(frontier: merkle.Frontier) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE ledger_sealing SET size = %s, frontier = %s WHERE id = 1",
            [frontier.size, b"".join(frontier.hashes)],
        )


def _last_leaf(size: int) -> bytes:
    if size == 0:
        return bytes(HASH_BYTES)
    leaf = tiles.leaf_hashes([size - 1]).get(size - 1)
    if leaf is None:
        raise LogBrokenError("INCLUSION", f"seq {size - 1}", "its hash in the tiles", "none")
    return leaf


def _waiting(size: int, most: int, prev: bytes) -> list[Proven]:
    """The next entries, each proven from its stored bytes and following the one before."""
    entries: list[Proven] = []
    for place, row in enumerate(rows.between(size, size + most, most), start=size):
        if row.seq != place:
            raise LogBrokenError("SEQ_GAP", f"seq {place}", str(place), str(row.seq))
        entries.append(rows.prove(row, prev=prev))
        prev = row.leaf
    return entries


def _store_tiles(writer: tiles.Writer) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger_tile (level, index, hashes) VALUES (%s, %s, %s)"
            " ON CONFLICT (level, index) DO UPDATE SET hashes = excluded.hashes",
            [(level, index, bytes(hashes)) for (level, index), hashes in sorted(writer.changed.items())],
        )


def project(entries: Sequence[Proven]) -> None:
    """Streams, search rows and rollups of these entries; each entry exactly once."""
    _advance_streams(entries)
    readable = [(entry, entry.body) for entry in entries if entry.body is not None]
    found = [projections.event_row(entry.seq, entry.header.t, body) for entry, body in readable]
    _copy_rows(
        "ledger_event (" + ", ".join(projections.COLUMNS) + ")",
        [tuple(getattr(row, name) for name in projections.COLUMNS) for row in found],
    )
    _copy_rows(
        "ledger_eventmodel (model, seq, timestamp)",
        [
            (model, row.seq, row.timestamp)
            for row, (_, body) in zip(found, readable, strict=True)
            for model in body["models"]
        ],
    )
    _copy_rows(
        "ledger_eventrelated (type, object_id, relation, seq, timestamp)",
        [
            (*related, row.seq, row.timestamp)
            for row, (_, body) in zip(found, readable, strict=True)
            for related in projections.related_rows(body)
        ],
    )
    _index_words([(row, projections.words(body)) for row, (_, body) in zip(found, readable, strict=True)])
    _count(found)


def _copy_rows(target: str, values: Sequence[tuple[Any, ...]]) -> None:
    if not values:
        return
    with connection.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN") as copy:
        for value in values:
            copy.write_row(value)


def _index_words(indexed: Sequence[tuple[projections.EventRow, list[str]]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger_eventtext (seq, timestamp, words) VALUES (%s, %s, array_to_tsvector(%s::text[]))",
            [(row.seq, row.timestamp, words) for row, words in indexed],
        )


def _count(counted: Sequence[projections.EventRow]) -> None:
    counts: Counter[tuple[str, str, str, datetime]] = Counter()
    not_done: Counter[tuple[str, str, str, datetime]] = Counter()
    for row in counted:
        keys = [
            (dimension, value, grain, start)
            for grain, start in _grains(row.timestamp)
            for dimension, value in projections.rollup_keys(row)
        ]
        counts.update(keys)
        if row.outcome != Outcome.DONE:
            not_done.update(keys)
    if not counts:
        return
    columns = zip(*((*key, count, not_done[key]) for key, count in sorted(counts.items())), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO ledger_rollup (dimension, value, grain, start, count, not_done) SELECT * FROM"
            " unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::bigint[], %s::bigint[])"
            " ON CONFLICT (dimension, grain, start, value) DO UPDATE SET"
            " count = ledger_rollup.count + excluded.count, not_done = ledger_rollup.not_done + excluded.not_done",
            list(map(list, columns)),
        )


def _grains(moment: datetime) -> tuple[tuple[str, datetime], ...]:
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return (Rollup.Grain.HOUR, hour), (Rollup.Grain.DAY, hour.replace(hour=0)), (Rollup.Grain.ALL, rollups.EPOCH)


def _advance_streams(entries: Sequence[Proven]) -> None:
    """Folds each entry into the streams it belongs to (FORMAT.md §5)."""
    touched = sorted({stream for entry in entries for stream in entry.stream_hashes})
    if not touched:
        return
    names = _stream_names(entries)
    with connection.cursor() as cursor:
        cursor.execute("SELECT hash, count, last_seq, acc FROM ledger_stream WHERE hash = ANY(%s::bytea[])", [touched])
        states = {
            bytes(stream): streammap.StreamState(count, last_seq, bytes(acc))
            for stream, count, last_seq, acc in cursor.fetchall()
        }
        for entry in entries:
            for stream in entry.stream_hashes:
                before = states.get(stream)
                acc = streammap.fold(before.acc if before else streammap.ACC0, entry.leaf)
                states[stream] = streammap.StreamState(before.count + 1 if before else 1, entry.seq, acc)
        cursor.executemany(
            "INSERT INTO ledger_stream (hash, key, count, last_seq, acc) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (hash) DO UPDATE SET count = excluded.count, last_seq = excluded.last_seq,"
            " acc = excluded.acc, key = CASE WHEN ledger_stream.key = '' THEN excluded.key ELSE ledger_stream.key END",
            [
                (stream, names.get(stream, ""), states[stream].count, states[stream].last_seq, states[stream].acc)
                for stream in touched
            ],
        )


def _stream_names(entries: Sequence[Proven]) -> dict[bytes, str]:
    """Keys by their hash, as far as bodies are there to tell them; the empty key stands for "known by hash only"."""
    return {
        streams.stream_hash(key): key
        for entry in entries
        if entry.body is not None
        for key in streams.stream_keys(entry.body)
    }
