"""Verifying the log from its bytes against only reading the rows, and a proof against one look-up by primary key.

Measured: the whole of `verify_log` (hashes, chain, streams, tiles, search rows, checkpoints), the hashes alone (header,
leaf, chain, body commitment, root) as far as they can be had without the rest, and inclusion proofs.

Not measured: several processes (the verification has one), resuming, bundles and exports, and a log that does not fit
into the memory of the machine.
"""

# ruff: noqa: E402 -- the portal's apps can only be imported once their settings stand

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench import common

OPTIONS = common.begin(__doc__, events=20_000, rounds=5)

from django.db import connection
from django.utils import timezone

from auditportal.ledger import queries, rows, sealing, tiles, verification
from auditportal.ledger.projections import COLUMNS
from auditportal.ledger.verification import CHUNK
from auditproof import events as formats, headers, merkle
from bench import events

PROOFS = 300  # of each kind and round
READING = "reading the rows"
LOOKUP = "one look-up by primary key, p95"
# What the verification reads of an entry, with the same join and bounds.
SELECT = (
    "SELECT e.seq, e.header, e.leaf_hash, e.source, e.event_id::text, b.salt, b.body, b.streams"
    " FROM ledger_entry e LEFT JOIN ledger_body b ON b.seq = e.seq"
    " WHERE e.seq >= %s AND e.seq < %s ORDER BY e.seq LIMIT %s"
)
PRIMARY_KEY = "SELECT " + ", ".join(COLUMNS) + " FROM ledger_event WHERE seq = %s"


def read_raw(size: int) -> int:
    count = 0
    with connection.cursor() as cursor:
        for start in range(0, size, CHUNK):
            cursor.execute(SELECT, [start, size, CHUNK])
            count += len(cursor.fetchall())
    return count


def verify_hashes(size: int) -> bytes:
    """Each header, leaf, link and body commitment, and the root over all: no streams, no search rows."""
    frontier, prev = merkle.Frontier(), headers.NO_PREV
    for row in _stored(size):
        header = headers.parse_header(row.header)
        leaf = headers.leaf_hash(row.header)
        if (leaf, row.seq, prev) != (row.leaf, header.seq, header.prev):
            raise RuntimeError(f"seq {row.seq} does not follow")
        if row.salt is not None and row.body is not None:
            commitment = formats.body_commitment(row.salt, row.body)
            if commitment != header.body:
                raise RuntimeError(f"seq {row.seq} has another body")
        frontier.append(leaf)
        prev = leaf
    return frontier.root()


def _stored(size: int) -> Iterator[rows.StoredRow]:
    for start in range(0, size, CHUNK):
        yield from rows.between(start, size, CHUNK)


def verify_all() -> None:
    run = verification.verify_log(
        signer=sealing.default_signer(), now=timezone.now, progress=lambda *_: None, resume=False
    )
    if run.failure:
        raise RuntimeError(run.failure)


def measure_verification(table: common.Table, size: int) -> None:
    if read_raw(size) != size or verify_hashes(size) != queries.head().root:
        raise RuntimeError("the baseline does not read what is verified")
    times = common.interleaved(
        OPTIONS.rounds,
        lambda: {"read": common.seconds(read_raw, size)},
        lambda: {"hashes": common.seconds(verify_hashes, size)},
        lambda: {"all": common.seconds(verify_all)},
    )
    table.speed("hashes alone", READING, times["hashes"], times["read"], 0.40)
    table.speed("all, with streams and projections", READING, times["all"], times["read"], 0.15)


def measure_proofs(table: common.Table, size: int) -> None:
    chance = random.Random(11)

    def proofs() -> Mapping[str, float]:
        """The three kinds take turns, so that whatever disturbs one disturbs all."""
        kinds: dict[str, Callable[[int], Any]] = {
            "lookup": _look_up,
            "path": lambda seq: tiles.inclusion_path(seq, size),
            "proof": queries.inclusion_proof,
        }
        took: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(PROOFS):
            for name, work in kinds.items():
                seq = chance.randrange(size)
                took[name].append(common.seconds(work, seq))
        return {name: common.percentile(values, 95) for name, values in took.items()}

    times = common.interleaved(OPTIONS.rounds, proofs)
    table.cost("inclusion path from tiles, p95", LOOKUP, times["path"], times["lookup"], 8.0)
    table.cost("inclusion proof, checked, as a receipt, p95", LOOKUP, times["proof"], times["lookup"], 8.0)


def _look_up(seq: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(PRIMARY_KEY, [seq])
        cursor.fetchone()


def main() -> None:
    size = events.fill(OPTIONS.events)
    table = common.Table(f"Verify, {size:,} events")
    measure_verification(table, size)
    measure_proofs(table, size)
    table.note(f"the floor of proofs is meant for {common.GOAL_EVENTS:,} events; here it is measured at {size:,}")
    table.note("two processes against one: the verification has one process, so there is nothing to compare")
    table.finish(OPTIONS)


if __name__ == "__main__":
    main()
