from __future__ import annotations

import json

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from auditportal.ledger import queries, sealing, tiles
from auditportal.ledger.errors import SignerRefusedError
from auditportal.ledger.models import Checkpoint, Entry, Stream, Tile
from auditportal.ledger.signer import FileSigner
from auditproof import checkpoints, headers, merkle, notes, receipts, streammap, streams
from tests.factories import record, record_many

pytestmark = pytest.mark.django_db


def leaves():
    return [bytes(leaf) for leaf in Entry.objects.order_by("seq").values_list("leaf_hash", flat=True)]


def test_checkpoint_signs_the_root_over_all_leaves(seal):
    record_many(5)
    assert seal() == 6
    newest = Checkpoint.objects.get(size=6)
    key = notes.VerifierKey.parse(queries.vkey())
    opened = checkpoints.open_checkpoint(newest.note, origin="test.invalid/log", keys=[key])
    assert opened.root == merkle.root(leaves())


def test_nothing_new_signs_nothing_new(seal):
    record()
    seal()
    before = list(Checkpoint.objects.values_list("size", flat=True))
    assert seal() == 2
    assert list(Checkpoint.objects.values_list("size", flat=True)) == before


def test_tiles_prove_every_leaf_and_every_growth_over_tile_borders(seal):
    sizes = []
    for count in (254, 1, 1, 1, 255, 10, 300):
        record_many(count)
        sizes.append(seal())
    everything = leaves()
    size = sizes[-1]
    for index in [0, 1, 254, 255, 256, 257, 511, 512, size - 1]:
        assert tiles.inclusion_path(index, size) == merkle.inclusion_path(everything, index)
        assert queries.inclusion_proof(index) is not None
    for old in sizes[:-1]:
        assert tiles.consistency_path(old, size) == merkle.consistency_path(everything, old)
    assert Tile.objects.filter(level=1).count() == 1


def test_streams_are_what_a_replay_of_the_log_gives(seal):
    record_many(4)
    seal()
    states: dict[bytes, streammap.StreamState] = {}
    for event in queries.recorded(range(5)):
        hashes = [streams.stream_hash(key) for key in streams.stream_keys(event.body)]
        streammap.replay(states, seq=event.seq, leaf=event.leaf, streams=hashes)
    stored = {
        bytes(item.hash): streammap.StreamState(item.count, item.last_seq, bytes(item.acc))
        for item in Stream.objects.all()
    }
    assert stored == states
    assert all(streams.stream_hash(item.key) == bytes(item.hash) for item in Stream.objects.all())


def test_rebuilt_projections_are_the_same(seal):
    record_many(7)
    seal()

    def dump():
        with connection.cursor() as cursor:
            found = {}
            for table in sealing.PROJECTIONS:
                cursor.execute(f"SELECT * FROM {table}")
                names = [column[0] for column in cursor.description]
                found[table] = sorted(
                    [
                        str(value.tobytes().hex() if isinstance(value, memoryview) else value)
                        for name, value in zip(names, row, strict=True)
                        if name != "id"
                    ]
                    for row in cursor.fetchall()
                )
            return found

    before = dump()
    assert sealing.rebuild(signer=sealing.default_signer(), now=timezone.now(), progress=lambda _: None) == 8
    assert dump() == before


def test_receipt_verifies_against_the_log_key_alone(seal):
    record()
    seal()
    proof = queries.inclusion_proof(1)
    header = bytes(Entry.objects.get(seq=1).header)
    key = notes.VerifierKey.parse(queries.vkey())
    checkpoint = receipts.verify_receipt(
        proof.receipt, leaf=headers.leaf_hash(header), origin="test.invalid/log", keys=[key]
    )
    assert checkpoint.size == 2


def test_waiting_event_has_no_proof_yet():
    record()
    assert queries.recorded([1])[0].proof == queries.ProofState.WAITING
    assert queries.inclusion_proof(1) is None
    assert queries.head().waiting == 1


def test_crash_between_signing_and_storing_is_made_good(seal, monkeypatch):
    record_many(3)
    with monkeypatch.context() as broken:
        broken.setattr(Checkpoint.objects, "create", lambda **_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError):
            seal()
    assert sealing.default_signer().remembered().size == 4
    assert Checkpoint.objects.filter(size=4).count() == 0
    record()
    assert seal() == 5


def signer(tmp_path, name="s"):
    return FileSigner(tmp_path / name, "test.invalid/log")


def head(count, salt=b""):
    found = [headers.leaf_hash(salt + bytes([n])) for n in range(count)]
    return found, checkpoints.Checkpoint("test.invalid/log", count, merkle.root(found))


def test_signer_remembers_and_refuses_what_contradicts_it(tmp_path):
    ours = signer(tmp_path)
    everything, five = head(5)
    ours.sign(five, lambda *_: pytest.fail("nothing to prove at first"))
    assert ours.sign(five, lambda *_: pytest.fail("the same again needs no proof")) == ours.sign(five, None)
    for wrong, name in (
        (head(4)[1], "ROLLBACK"),
        (head(5, b"x")[1], "FORK"),
        (head(8, b"x")[1], "CONSISTENCY"),
        (checkpoints.Checkpoint("else.invalid/log", 9, five.root), "ORIGIN"),
    ):
        with pytest.raises(SignerRefusedError, match=name):
            ours.sign(wrong, lambda old, new: merkle.consistency_path(head(new, b"x")[0], old))
    longer, eight = head(8)
    ours.sign(eight, lambda old, _: merkle.consistency_path(longer, old))
    assert signer(tmp_path).remembered().size == 8
    assert everything == longer[:5]


def test_signer_with_a_damaged_memory_refuses(tmp_path):
    ours = signer(tmp_path)
    ours.sign(head(3)[1], None)
    memory = tmp_path / "s" / "memory.json"
    for text in ("", "{", "[]", json.dumps({"size": 3}), json.dumps({"size": "x", "root": "00"})):
        memory.write_text(text)
        with pytest.raises(SignerRefusedError):
            ours.sign(head(4)[1], None)


def test_signer_files_are_private(tmp_path):
    signer(tmp_path).sign(head(1)[1], None)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    for name in ("log.key", "memory.json"):
        assert (tmp_path / "s" / name).stat().st_mode & 0o777 == 0o600


def test_database_restored_from_before_the_last_signature_is_refused(seal):
    record_many(2)
    seal()
    memory = settings.SIGNER_DIRECTORY / "memory.json"
    memory.write_text(json.dumps({"size": 40, "root": "00" * 32}))
    record()
    with pytest.raises(SignerRefusedError, match="ROLLBACK"):
        seal()


def test_row_sealed_while_it_is_read_is_waiting_and_not_broken(db, seal, monkeypatch):
    [item] = record()
    original = tiles.leaf_hashes

    def overtaken(seqs):
        found = original(seqs)
        monkeypatch.setattr(tiles, "leaf_hashes", original)
        seal()
        return found

    monkeypatch.setattr(tiles, "leaf_hashes", overtaken)
    [event] = queries.recorded([item.seq])
    assert (event.proof, event.failure) == ("waiting", "")
    [event] = queries.recorded([item.seq])
    assert event.proof == "checkpointed"
