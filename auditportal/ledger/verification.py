"""Verification of the whole log from its bytes: resumable, with progress, trusting nothing that is derived.

Walks entry by entry in bounded memory of bytes (the stream states stay in memory: some 150 bytes a stream), compares
each checkpoint at its size, and at the end head, tiles, streams, keys, guards and the signer's memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from auditportal.ledger import erasures, guards, projections, rows, tiles
from auditportal.ledger.errors import LogBrokenError
from auditportal.ledger.models import Checkpoint, Key, Verification
from auditportal.ledger.signer import Signer
from auditproof import checkpoints, merkle, notes, streammap
from auditproof.errors import ProofError

CHUNK = 2_000  # rows read at a time
ROLLUPS = Path(__file__).with_name("sql") / "rollups.sql"
SAVED_EACH = 50_000  # entries between two saved positions
_state = struct.Struct(">32sQQ32s")
_NO_STATE = (0, 0, streammap.ACC0)
State = tuple[int, int, bytes]  # of a stream: count, last seq, accumulator

Progress = Callable[[int, int], None]  # (entries checked, entries in all)


@dataclass(slots=True)
class Walk:
    """What is known after `position` entries."""

    frontier: merkle.Frontier
    prev: bytes = bytes(32)
    t: str = ""
    streams: dict[bytes, State] = field(default_factory=dict)

    @property
    def position(self) -> int:
        return self.frontier.size

    def dump(self) -> bytes:
        states = b"".join(_state.pack(key, *state) for key, state in self.streams.items())
        hashes = b"".join(self.frontier.hashes)
        fixed = struct.pack(">QB", self.frontier.size, len(self.frontier.hashes)) + hashes + self.prev
        return zlib.compress(fixed + self.t.encode().ljust(27) + states, 1)

    @classmethod
    def load(cls, raw: bytes) -> Walk:
        data = zlib.decompress(raw)
        size, count = struct.unpack_from(">QB", data)
        at = 9
        hashes = [data[at + 32 * i : at + 32 * (i + 1)] for i in range(count)]
        at += 32 * count
        prev, t = data[at : at + 32], data[at + 32 : at + 59].decode().strip()
        states = {key: (n, last, acc) for key, n, last, acc in _state.iter_unpack(data[at + 59 :])}
        return cls(merkle.Frontier(size, hashes), prev, t, states)


def verify_log(*, signer: Signer, now: Callable[[], datetime], progress: Progress, resume: bool = True) -> Verification:
    """The finished pass; `failure` is empty, or the first failure as `place: NAME …`.

    An unfinished earlier pass is continued unless `resume` is false.
    """
    run = _run(now(), resume=resume)
    try:
        _walk(run, progress)
        _check_ends(run, signer)
    except LogBrokenError as error:
        run.failure = str(error)
    run.finished_at = now()
    run.state = b""
    run.save()
    return run


def _run(now: datetime, *, resume: bool) -> Verification:
    if resume:
        unfinished = Verification.objects.filter(finished_at=None).order_by("-id").first()
        if unfinished is not None:
            return unfinished
    Verification.objects.filter(finished_at=None).delete()
    return Verification.objects.create(started_at=now, size=head_size())


def head_size() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT size FROM ledger_head WHERE id = 1")
        row = cursor.fetchone()
    if row is None:
        raise LogBrokenError("HEAD_MISMATCH", "head", "one row", "none")
    return int(row[0])


def _walk(run: Verification, progress: Progress) -> None:
    walk = Walk.load(bytes(run.state)) if run.state else Walk(merkle.Frontier(0, []))
    signed = {item.size: item for item in Checkpoint.objects.filter(size__gte=walk.position).iterator()}
    keys = [notes.VerifierKey.parse(key.vkey) for key in Key.objects.all()]
    saved = walk.position
    explained = erasures.explanations()
    _check_checkpoint(walk, signed, keys)
    while walk.position < run.size:
        chunk = rows.between(walk.position, run.size, CHUNK)
        if not chunk:
            raise LogBrokenError("HEAD_MISMATCH", f"seq {walk.position}", f"{run.size} entries", str(walk.position))
        told = Told()
        for row in chunk:
            entry = _step(walk, row, signed, keys)
            erasures.check(entry, explained)
            told.add(entry)
        _check_projections(chunk, told)
        progress(walk.position, run.size)
        if walk.position - saved >= SAVED_EACH:
            run.position, run.state, saved = walk.position, walk.dump(), walk.position
            run.save(update_fields=["position", "state"])
    run.position = walk.position
    _check_derived(walk)


def _step(walk: Walk, row: rows.StoredRow, signed: dict[int, Checkpoint], keys: list[notes.VerifierKey]) -> rows.Proven:
    """One entry further: proven, following the one before, and under each checkpoint of that size."""
    if row.seq != walk.position:
        raise LogBrokenError("SEQ_GAP", f"seq {walk.position}", str(walk.position), str(row.seq))
    proven = rows.prove(row, prev=walk.prev)
    if proven.header.t < walk.t:
        raise LogBrokenError("CLOCK_SKEW", f"seq {row.seq}", f"not before {walk.t}", proven.header.t)
    walk.prev, walk.t = row.leaf, proven.header.t
    walk.frontier.append(row.leaf)
    for stream in proven.stream_hashes:
        count, _, acc = walk.streams.get(stream, _NO_STATE)
        walk.streams[stream] = (count + 1, row.seq, streammap.fold(acc, row.leaf))
    _check_checkpoint(walk, signed, keys)
    return proven


def _check_checkpoint(walk: Walk, signed: dict[int, Checkpoint], keys: list[notes.VerifierKey]) -> None:
    item = signed.get(walk.position)
    if item is None:
        return
    place = f"checkpoint {item.size}"
    try:
        opened = checkpoints.open_checkpoint(item.note, origin=settings.LOG_ORIGIN, keys=keys)
    except ProofError as error:
        raise LogBrokenError(str(error.name), place, error.expected, error.found) from error
    root = walk.frontier.root()
    if (opened.size, opened.root, bytes(item.root)) != (item.size, root, root):
        raise LogBrokenError("CONSISTENCY", place, root.hex(), opened.root.hex())


@dataclass(slots=True)
class Told:
    """What the sealer derives from entries one after the other: leaves, search rows, words and links.

    Entries themselves are not kept, as thousands of parsed bodies keep the garbage collector busy.
    """

    leaves: list[bytes] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    words: list[tuple[int, str]] = field(default_factory=list)
    models: set[tuple[int, str]] = field(default_factory=set)
    related: set[tuple[int, str, str, str]] = field(default_factory=set)
    is_whole: bool = True  # no body erased, and each source is the one of its body

    def add(self, entry: rows.Proven) -> None:
        seq, body = entry.seq, entry.body
        if body is None or body["source"]["id"] != entry.row.source:
            self.is_whole = False
            return
        self.leaves.append(entry.leaf)
        self.events.append(projections.event_texts(seq, entry.header.t, body))
        self.words.append((seq, projections.vector(projections.words(body))))
        self.models.update([(seq, model) for model in body["models"]])
        self.related.update([(seq, *related) for related in projections.related_rows(body)])

    def is_stored(self, start: int, end: int) -> bool:
        """Whether the projections of these positions hold exactly this."""
        return (
            self.is_whole
            and tiles.leaves(start, end) == b"".join(self.leaves)
            and _stored(projections.SELECTED_TEXTS, "event", start, end) == self.events
            and _stored("seq, words::text", "eventtext", start, end) == self.words
            and set(_stored("seq, model", "eventmodel", start, end)) == self.models
            and set(_stored("seq, type, object_id, relation", "eventrelated", start, end)) == self.related
        )


def _stored(columns: str, table: str, start: int, end: int) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM ledger_{table} WHERE seq >= %s AND seq < %s ORDER BY seq",  # noqa: S608 -- constants
            [start, end],
        )
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _check_projections(chunk: list[rows.StoredRow], told: Told) -> None:
    """Search rows, links and words of these entries, as far as the sealer has come."""
    start, end, sealed = chunk[0].seq, chunk[-1].seq + 1, _sealed_size()
    if start < sealed and (sealed < end or not told.is_stored(start, end)):
        _check_each(chunk, min(end, sealed))


def _check_each(chunk: list[rows.StoredRow], end: int) -> None:
    """Entry by entry up to `end`, so that the first one that differs can be named."""
    proven = [rows.prove(row) for row in chunk]
    start = chunk[0].seq
    found = rows.events_between(start, end)
    links = _links(start, end)
    leaves = tiles.leaf_hashes(range(start, end))
    for entry in proven:
        if entry.seq >= end:
            return
        if leaves.get(entry.seq) != entry.leaf:
            raise LogBrokenError(
                "PROJECTION_MISMATCH", f"seq {entry.seq}", f"{entry.leaf.hex()} in its tile", "another"
            )
        rows.compare(entry, found.get(entry.seq))
        told = _told_links(entry)
        if links.get(entry.seq, set()) != told:
            raise LogBrokenError("PROJECTION_MISMATCH", f"seq {entry.seq}", "its links and words", "others")


def _told_links(entry: rows.Proven) -> set[tuple[str, ...]]:
    if entry.body is None:
        return set()
    told: set[tuple[str, ...]] = {("model", model) for model in entry.body["models"]}
    told |= {("related", *item) for item in projections.related_rows(entry.body)}
    return told | {("word", word) for word in projections.words(entry.body)}


def _links(start: int, end: int) -> dict[int, set[tuple[str, ...]]]:
    links: dict[int, set[tuple[str, ...]]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq, ARRAY['model', model] FROM ledger_eventmodel WHERE seq >= %s AND seq < %s"
            " UNION ALL SELECT seq, ARRAY['related', type, object_id, relation] FROM ledger_eventrelated"
            " WHERE seq >= %s AND seq < %s"
            " UNION ALL SELECT seq, ARRAY['word', unnest(tsvector_to_array(words))] FROM ledger_eventtext"
            " WHERE seq >= %s AND seq < %s",
            [start, end] * 3,
        )
        for seq, link in cursor.fetchall():
            links.setdefault(seq, set()).add(tuple(link))
    return links


def _sealed_size() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT size FROM ledger_sealing WHERE id = 1")
        return int(cursor.fetchone()[0])


def _check_derived(walk: Walk) -> None:
    """Streams and tiles against what the walk computed; they can only be compared at the size they were made for."""
    size = _sealed_size()
    if size != walk.position:
        return  # the sealer went on while we walked, or lags; the next pass compares
    with connection.cursor() as cursor:
        cursor.execute("SELECT hash, count, last_seq, acc FROM ledger_stream")
        stored = {bytes(key): (n, last, bytes(acc)) for key, n, last, acc in cursor.fetchall()}
    if stored != walk.streams:
        differing = sum(1 for key in stored.keys() | walk.streams.keys() if stored.get(key) != walk.streams.get(key))
        raise LogBrokenError(
            "PROJECTION_MISMATCH", "streams", f"{len(walk.streams)} as replayed", f"{differing} differ"
        )
    _check_tiles(walk)
    _check_rollups()


def _check_rollups() -> None:
    """The counts are those of the search rows, each of which was compared with its entry."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH told AS MATERIALIZED ({ROLLUPS.read_text()})"  # noqa: S608 -- a file of ours
            " SELECT count(*) FROM told t FULL JOIN ledger_rollup r USING (dimension, grain, start, value)"
            " WHERE (t.count, t.not_done) IS DISTINCT FROM (r.count, r.not_done)"
        )
        [differing] = cursor.fetchone()
    if differing:
        raise LogBrokenError("PROJECTION_MISMATCH", "rollups", "the counts of the search rows", f"{differing} differ")


def _check_tiles(walk: Walk) -> None:
    """Each full tile hashes to its place in the tile above, and all of them to the root we walked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t.level, t.index, t.hashes, substring(p.hashes FROM (t.index %% %s)::int * 32 + 1 FOR 32)"
            " FROM ledger_tile t LEFT JOIN ledger_tile p ON p.level = t.level + 1 AND p.index = t.index / %s"
            " WHERE length(t.hashes) = %s * 32 ORDER BY t.level, t.index",
            [tiles.WIDTH] * 3,
        )
        for level, index, hashes, above in cursor:
            root = merkle.root(rows.split_hashes(bytes(hashes)))
            if above is None or bytes(above) != root:
                raise LogBrokenError("PROJECTION_MISMATCH", f"tile {level}/{index}", root.hex(), "another above it")
    if walk.position and tiles.subtree(0, walk.position) != walk.frontier.root():
        raise LogBrokenError("PROJECTION_MISMATCH", "tiles", walk.frontier.root().hex(), "another root")


def _check_ends(run: Verification, signer: Signer) -> None:
    """What lies beside the entries: the head, what was signed beyond it, the signer's memory, the guards."""
    size = head_size()
    if size < run.size:
        raise LogBrokenError("ROLLBACK", "head", f"at least {run.size} entries", str(size))
    newest = Checkpoint.objects.order_by("-size").values_list("size", flat=True).first() or 0
    remembered = signer.remembered().size
    if max(newest, remembered) > size:
        raise LogBrokenError("ROLLBACK", "head", f"at least {max(newest, remembered)} entries, as signed", str(size))
    if not Key.objects.filter(vkey=signer.vkey).exists():
        raise LogBrokenError("KEY_RANGE", "signer", "a key that the log announces", signer.vkey)
    missing = guards.check()
    if missing:
        raise LogBrokenError("GUARD_MISSING", "database", "every guard", "; ".join(missing))
