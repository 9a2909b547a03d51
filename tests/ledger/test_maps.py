"""Maps and exports of the stored log, held against a replay of its own entries."""

from __future__ import annotations

import pytest
from django.db import connection, transaction

from auditportal.ledger import exports, maps, rows, sealing
from auditportal.ledger.errors import LedgerError, LogBrokenError
from auditportal.ledger.verification import head_size
from auditproof import exports as proofs, merkle, streammap, streams
from tests.factories import NOON, make_draft, record, record_many

KEYS = ["model:churn", "action:train", "action:ledger.key", "model:nobody"]


def recorded() -> maps.RecordedMap:
    with transaction.atomic():
        return maps.record(KEYS, now=NOON)


def test_recorded_map_is_what_a_replay_of_the_log_gives(db, seal):
    record_many(30)
    seal()
    first = recorded()
    record_many(5, action="validate")
    seal()
    second = recorded()
    seal()
    found = rows.between(0, head_size(), 1_000)
    opened = []
    for row in found:
        line: dict[str, object] = {
            "body": row.body.decode(),
            "header": row.header.decode(),
            "salt": row.salt.hex(),
            "disclosures": [],
        }
        opened.append(proofs.open_line(proofs.parse_line(line, "line"), origin="test.invalid/log"))
    entries = ((row.header, rows.split_hashes(row.streams)) for row in found)
    assert proofs.replay_maps(entries, opened) == 2
    assert (first.size, second.size, second.seq) == (first.seq, second.seq, head_size() - 1)
    for key in KEYS:
        hashed = streams.stream_hash(key)
        state = streammap.verify_map_proof(second.proofs[key], stream=hashed, root=second.root)
        assert (state is None) == (key in ("action:ledger.key", "model:nobody"))
        if state is not None:
            fold = proofs.Fold(
                key,
                start=proofs.EMPTY_MAP,
                start_proof=None,
                end=proofs.MapState(second.size, second.root, second.seq),
                end_proof=second.proofs[key],
            )
            for item in opened[: second.size]:
                if hashed in item.hashes:
                    fold.add(item, proofs.Control())
            fold.finish()


def test_map_covers_only_what_is_sealed(db, seal):
    record_many(3)
    seal()
    size = head_size()
    record_many(3)
    found = recorded()
    assert (found.size, found.seq) == (size, size + 3)


def test_log_without_a_seal_has_no_map(db):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE ledger_sealing SET size = 0")
        cursor.execute("DELETE FROM ledger_stream")
    with pytest.raises(LedgerError, match="nothing is sealed"):
        recorded()


def test_seqs_of_a_stream_are_those_of_its_state(db, seal):
    record(make_draft(action="validate", related=[]))
    record_many(7)
    seal()
    size = head_size()
    found = list(exports.model_seqs("churn", size))
    assert found == list(range(size - 7, size))
    assert list(exports.model_seqs("churn", size - 2)) == found[:-2]
    assert list(exports.action_seqs("validate", size)) == [size - 8]
    assert [entry.seq for entry in exports.entries(reversed(found))] == found[::-1]


@pytest.mark.parametrize("count", [1, 2, 255, 256, 700])
def test_prover_gives_paths_that_hold(db, seal, count):
    record_many(count)
    size = seal()
    root = exports.tree_head(size)
    prover = exports.Prover(size)
    entries = {entry.seq: entry for entry in exports.entries(range(size))}
    for seq in range(0, size, max(1, size // 50)):
        path = [prover.hashes[place] for place in prover.path(seq)]
        merkle.verify_inclusion(leaf=entries[seq].leaf, index=seq, size=size, path=path, root=root)
    assert len(set(prover.hashes)) == len(prover.hashes)  # what paths share stands once


def test_consistency_reaches_from_every_size(db, seal):
    record_many(20)
    size = seal()
    for old in range(size + 1):
        merkle.verify_consistency(
            old_size=old,
            new_size=size,
            old_root=exports.tree_head(old),
            new_root=exports.tree_head(size),
            path=exports.consistency(old, size),
        )


def test_first_checkpoint_above_covers_the_entry(db, seal):
    [item] = record()
    assert exports.first_checkpoint_above(item.seq) is None
    size = seal()
    record()
    seal()
    assert exports.first_checkpoint_above(item.seq).size == size
    assert exports.checkpoint_at(size).size == size


def test_entry_that_does_not_prove_itself_never_leaves(committed):
    from tests import databases

    [item] = record()
    with databases.superuser() as server:
        server.execute("ALTER TABLE ledger_body DISABLE TRIGGER ALL")
        server.execute("UPDATE ledger_body SET salt = decode(repeat('00', 16), 'hex') WHERE seq = %s", [item.seq])
    with pytest.raises(LogBrokenError, match="BODY_COMMITMENT"):
        list(exports.entries([item.seq]))
    assert sealing.default_signer().vkey
