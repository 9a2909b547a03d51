"""Reads of the log, verified on read.

Each row is re-hashed from its stored bytes; one that does not prove itself comes back as broken, with the name of what
failed, never as fact.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.db import connection

from auditportal.ledger import drafts, erasures, rows, tiles
from auditportal.ledger.errors import LogBrokenError
from auditportal.ledger.models import Checkpoint, Key, SealedValue, Verification
from auditportal.ledger.projections import EventRow
from auditproof import checkpoints, merkle, notes, receipts
from auditproof.errors import ProofError

CHECK_EVERY = timedelta(hours=26)  # the nightly verification plus two hours; later than that is overdue
POLL_S = 0.02


class ProofState(StrEnum):
    CHECKPOINTED = "checkpointed"
    WAITING = "waiting"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One event as a page shows it. `body` is the verified body; None when the row is broken or erased."""

    seq: int
    proof: ProofState
    body: dict[str, Any] | None
    raw_body: bytes | None
    raw_header: bytes
    salt: bytes | None
    leaf: bytes
    recorded_at: datetime | None
    failure: str  # `PROJECTION_MISMATCH …` and the like; empty when the row proves itself

    @property
    def is_broken(self) -> bool:
        return self.proof == ProofState.BROKEN

    @property
    def action(self) -> str:
        return str(self.body["action"]) if self.body else ""

    @property
    def timestamp(self) -> datetime | None:
        return drafts.parse_instant(self.body["timestamp"]) if self.body else None


@dataclass(frozen=True, slots=True)
class Head:
    """The newest checkpoint and how many entries wait for the next one."""

    size: int
    root: bytes
    note: str
    sealed_at: datetime | None
    waiting: int


def head() -> Head:
    newest = Checkpoint.objects.order_by("-size").first()
    with connection.cursor() as cursor:
        cursor.execute("SELECT size FROM ledger_head WHERE id = 1")
        size = int(cursor.fetchone()[0])
    if newest is None:
        return Head(0, merkle.EMPTY_ROOT, "", None, size)
    return Head(newest.size, bytes(newest.root), newest.note, newest.sealed_at, max(0, size - newest.size))


class SealState(StrEnum):
    EMPTY = "empty"
    INTACT = "intact"
    SELF_ATTESTED = "self_attested"  # intact, but no witness has cosigned it
    CHECKING = "checking"
    OVERDUE = "overdue"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Seal:
    """What the top bar says about the log."""

    state: SealState
    size: int
    checked_at: datetime | None
    failure: str


def seal_state(now: datetime) -> Seal:
    """Three primary-key reads: the newest finished verification, whether one runs, and the head."""
    size = head().size
    finished = Verification.objects.exclude(finished_at=None).order_by("-id").first()
    if finished is not None and finished.failure:
        return Seal(SealState.FAILED, size, finished.finished_at, finished.failure)
    if size == 0:
        return Seal(SealState.EMPTY, size, None, "")
    if finished is None or finished.finished_at is None:
        return Seal(SealState.CHECKING, size, None, "")
    if now - finished.finished_at > CHECK_EVERY:
        return Seal(SealState.OVERDUE, size, finished.finished_at, "")
    return Seal(SealState.SELF_ATTESTED, size, finished.finished_at, "")


def recorded(seqs: Sequence[int]) -> list[RecordedEvent]:
    """The events at these positions, in the order asked, each verified on read. Unknown positions are left out.

    Six queries, however many rows.
    """
    if not seqs:
        return []
    # Before the rows: what is sealed while they are read would miss search rows that were not there yet.
    sealed = head().size
    stored = rows.at(sorted({*seqs, *(seq + 1 for seq in seqs)}))
    columns = rows.events_at(seqs)
    leaves = tiles.leaf_hashes(seqs)
    return [_verified(stored, seq, columns, leaves, sealed) for seq in seqs if seq in stored]


def _verified(
    stored: dict[int, rows.StoredRow],
    seq: int,
    columns: dict[int, EventRow],
    leaves: dict[int, bytes],
    sealed: int,
) -> RecordedEvent:
    row = stored[seq]
    try:
        proven = rows.prove(row)
        _check_neighbour(proven, stored.get(seq + 1))
        if proven.body is None:
            erasures.check(proven, erasures.explanations())
        if seq < sealed:
            _check_tile(proven, leaves.get(seq))
            rows.compare(proven, columns.get(seq))
    except LogBrokenError as error:
        return RecordedEvent(seq, ProofState.BROKEN, None, row.body, row.header, row.salt, row.leaf, None, str(error))
    return RecordedEvent(
        seq=seq,
        proof=ProofState.CHECKPOINTED if seq < sealed else ProofState.WAITING,
        body=proven.body,
        raw_body=row.body,
        raw_header=row.header,
        salt=row.salt,
        leaf=row.leaf,
        recorded_at=drafts.parse_instant(proven.header.t),
        failure="",
    )


def _check_neighbour(proven: rows.Proven, following: rows.StoredRow | None) -> None:
    """The next entry names this one: a row rewritten together with its leaf hash shows here."""
    if following is not None and proven.leaf.hex().encode() not in following.header:
        raise LogBrokenError(
            "PREV_CHAIN", f"seq {proven.seq}", f"{proven.leaf.hex()} named by the next entry", "another"
        )


def _check_tile(proven: rows.Proven, leaf: bytes | None) -> None:
    if leaf != proven.leaf:
        raise LogBrokenError("INCLUSION", f"seq {proven.seq}", f"{proven.leaf.hex()} in the tree", (leaf or b"").hex())


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """What ties one entry to a signed checkpoint, checked before it is given out."""

    checkpoint: checkpoints.Checkpoint
    note: str
    path: list[bytes]
    receipt: str  # C2SP tlog-proof


def inclusion_proof(seq: int) -> InclusionProof | None:
    """The proof of this entry under the newest checkpoint; None while it waits for one.

    Raises:
        LogBrokenError: checkpoint, tiles and entry do not fit together.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.size, c.note, e.leaf_hash, ARRAY(SELECT vkey FROM ledger_key)"
            " FROM (SELECT size, note FROM ledger_checkpoint ORDER BY size DESC LIMIT 1) c"
            " LEFT JOIN ledger_entry e ON e.seq = %s",
            [seq],
        )
        size, note, leaf, vkeys = cursor.fetchone() or (0, "", None, [])
    if seq >= size:
        return None
    if leaf is None:
        raise LogBrokenError("SEQ_GAP", f"seq {seq}", "an entry", "none")
    path = tiles.inclusion_path(seq, size)
    try:
        keys = [notes.VerifierKey.parse(vkey) for vkey in vkeys]
        checkpoint = checkpoints.open_checkpoint(note, origin=settings.LOG_ORIGIN, keys=keys)
        merkle.verify_inclusion(leaf=leaf, index=seq, size=checkpoint.size, path=path, root=checkpoint.root)
    except ProofError as error:
        raise LogBrokenError(str(error.name), f"seq {seq}", error.expected, error.found) from error
    receipt = receipts.format_receipt(index=seq, path=path, checkpoint=note)
    return InclusionProof(checkpoint, note, path, receipt)


def wait_for_checkpoint(seq: int, *, timeout_s: float) -> bool:
    """Waits until a checkpoint covers this entry: a governed act is shown with its proof. False when time is up."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if Checkpoint.objects.filter(size__gt=seq).exists():
            return True
        time.sleep(POLL_S)
    return False


def disclosures(seq: int) -> dict[str, bytes]:
    """The sealed values of one event by JSON pointer, as canonical JSON; the caller decides who may see them."""
    return {item.pointer: bytes(item.value) for item in SealedValue.objects.filter(seq=seq)}


def vkey() -> str:
    """The log's verifier key, for people to note down elsewhere."""
    return str(Key.objects.order_by("first_size").values_list("vkey", flat=True).last() or "")
