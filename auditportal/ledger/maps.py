"""The stream map as an event of the log, with proofs of what stands in it (FORMAT.md §5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import connection

from auditportal.ledger import services
from auditportal.ledger.drafts import SYSTEM, Draft, Subject
from auditportal.ledger.errors import LedgerError
from auditproof import streammap, streams


@dataclass(frozen=True, slots=True)
class RecordedMap:
    """The map over the first `size` entries, stated by the event at `seq`; `proofs` by stream key."""

    size: int
    root: bytes
    seq: int
    proofs: dict[str, streammap.MapProof]


def record(keys: Sequence[str], *, now: datetime) -> RecordedMap:
    """The map of the sealed log stands in the log; in the caller's transaction, as its last statements.

    All states are held in memory for the moment: some 400 bytes a stream.

    Raises:
        LedgerError: nothing is sealed yet.
    """
    size, states = _sealed_states()
    if size == 0:
        raise LedgerError("nothing is sealed yet, so there is no map to record")
    found = streammap.StreamMap(states)
    root = found.root()
    draft = Draft(
        action="ledger.streams",
        actor=SYSTEM,
        subject=Subject("log", settings.LOG_ORIGIN),
        timestamp=now,
        metadata={"size": size, "root": root.hex(), "count": len(found)},
    )
    [recorded] = services.append([draft])
    proofs = {key: found.prove(streams.stream_hash(key)) for key in keys}
    return RecordedMap(size, root, recorded.seq, proofs)


def _sealed_states() -> tuple[int, dict[bytes, streammap.StreamState]]:
    """How far the streams reach and the state of each: one statement, so one moment, without a lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT s.size, t.hash, t.count, t.last_seq, t.acc FROM ledger_sealing s LEFT JOIN ledger_stream t ON true"
            " WHERE s.id = 1"
        )
        rows = cursor.fetchall()
    states = {
        bytes(key): streammap.StreamState(count, last_seq, bytes(acc))
        for _, key, count, last_seq, acc in rows
        if key is not None
    }
    return int(rows[0][0]), states
