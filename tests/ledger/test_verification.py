"""A superuser disables the triggers and rewrites rows: each damage is detected, under its name, where it is."""

from __future__ import annotations

import json

import pytest
from django.conf import settings
from django.utils import timezone

from auditportal.ledger import queries, sealing, verification
from auditportal.ledger.errors import LogBrokenError, SignerRefusedError
from auditportal.ledger.models import Checkpoint, Verification
from auditproof import headers
from tests import databases
from tests.factories import record, record_many


def damage(*statements, params=()):
    with databases.superuser() as server:
        for table in ("ledger_entry", "ledger_body", "ledger_checkpoint", "ledger_head"):
            server.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        for statement in statements:
            server.execute(statement, params)
        for table in ("ledger_entry", "ledger_body", "ledger_checkpoint", "ledger_head"):
            server.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER refuse_truncate")
        server.execute("ALTER TABLE ledger_entry ENABLE ALWAYS TRIGGER chain")
        server.execute("ALTER TABLE ledger_head ENABLE ALWAYS TRIGGER head_moves")
        server.execute("ALTER TABLE ledger_body ENABLE ALWAYS TRIGGER body_follows")
        for table in ("ledger_entry", "ledger_body", "ledger_checkpoint", "ledger_head"):
            server.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER refuse_change")


def verify(**options):
    return verification.verify_log(
        signer=sealing.default_signer(), now=timezone.now, progress=lambda *_: None, **options
    ).failure


@pytest.fixture
def log(committed, seal):
    record_many(6)
    seal()
    record_many(3)
    seal()
    assert verify() == ""
    return committed


BODY = "UPDATE ledger_body SET body = convert_to(replace(convert_from(body, 'UTF8'), '0.921', '0.999'), 'UTF8') WHERE seq = 4"
REWRITTEN = (
    "UPDATE ledger_entry SET header = convert_to(replace(convert_from(header, 'UTF8'), '\"t\":\"20', '\"t\":\"19'), 'UTF8'),"
    " leaf_hash = sha256('\\x00'::bytea || convert_to(replace(convert_from(header, 'UTF8'), '\"t\":\"20', '\"t\":\"19'), 'UTF8'))"
    " WHERE seq = 4"
)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        (BODY, "seq 4: BODY_COMMITMENT"),
        ("UPDATE ledger_body SET salt = salt || substring(body FOR 1), body = substring(body FROM 2) WHERE seq = 4", "seq 4: BODY_COMMITMENT"),
        ("UPDATE ledger_body SET salt = decode(repeat('00', 16), 'hex') WHERE seq = 4", "seq 4: BODY_COMMITMENT"),
        ("UPDATE ledger_body SET streams = substring(streams FROM 33) WHERE seq = 4", "seq 4: STREAMS_COMMITMENT"),
        ("UPDATE ledger_body SET body = NULL WHERE seq = 4", "seq 4: UNEXPLAINED_ABSENCE"),
        ("UPDATE ledger_body SET body = NULL, salt = NULL WHERE seq = 4", "seq 4: UNEXPLAINED_ABSENCE"),
        ("DELETE FROM ledger_body WHERE seq = 4", "seq 4: UNEXPLAINED_ABSENCE"),
        (REWRITTEN, "seq 4: CLOCK_SKEW"),
        ("UPDATE ledger_entry SET event_id = gen_random_uuid() WHERE seq = 4", "seq 4: LEAF_HASH"),
        ("UPDATE ledger_entry SET source = 'else' WHERE seq = 4", "seq 4: PROJECTION_MISMATCH"),
        ("DELETE FROM ledger_entry WHERE seq = 4", "seq 4: SEQ_GAP"),
        ("DELETE FROM ledger_entry WHERE seq = 9", "seq 9: HEAD_MISMATCH"),
        ("UPDATE ledger_event SET outcome = 'refused' WHERE seq = 4", "seq 4: PROJECTION_MISMATCH"),
        ("UPDATE ledger_event SET timestamp = timestamp - interval '1 day' WHERE seq = 4", "seq 4: PROJECTION_MISMATCH"),
        ("DELETE FROM ledger_event WHERE seq = 4", "seq 4: PROJECTION_MISMATCH"),
        ("DELETE FROM ledger_eventmodel WHERE seq = 4", "seq 4: PROJECTION_MISMATCH"),
        ("UPDATE ledger_eventrelated SET object_id = 'x' WHERE seq = 4 AND relation = ''", "seq 4: PROJECTION_MISMATCH"),
        ("UPDATE ledger_eventtext SET words = array_to_tsvector(ARRAY['x']) WHERE seq = 4", "seq 4: PROJECTION_MISMATCH"),
        ("UPDATE ledger_stream SET count = count + 1 WHERE key = 'source:ci-train'", "streams: PROJECTION_MISMATCH"),
        ("UPDATE ledger_rollup SET count = count + 1 WHERE grain = 'day' AND dimension = ''", "rollups: PROJECTION_MISMATCH"),
        ("DELETE FROM ledger_rollup WHERE grain = 'all' AND value = 'train'", "rollups: PROJECTION_MISMATCH"),
        ("UPDATE ledger_tile SET hashes = overlay(hashes placing '\\x00' FROM 130) WHERE level = 0", "seq 4: PROJECTION_MISMATCH"),
        ("UPDATE ledger_checkpoint SET root = decode(repeat('00', 32), 'hex') WHERE size = 7", "checkpoint 7: CONSISTENCY"),
        ("UPDATE ledger_checkpoint SET note = replace(note, 'test.invalid', 'test.invalie') WHERE size = 7", "checkpoint 7: ORIGIN"),
        ("DELETE FROM ledger_key", "checkpoint 1: SIGNATURE"),
    ],
)  # fmt: skip
def test_damage_is_named_by_verification(log, statement, name):
    damage(statement)
    assert verify().startswith(name)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        (BODY, "BODY_COMMITMENT"),
        ("UPDATE ledger_body SET streams = '' WHERE seq = 4", "STREAMS_COMMITMENT"),
        (REWRITTEN, "PREV_CHAIN"),
        ("UPDATE ledger_event SET actor = 'usr_else' WHERE seq = 4", "PROJECTION_MISMATCH"),
        ("DELETE FROM ledger_body WHERE seq = 4", "UNEXPLAINED_ABSENCE"),
    ],
)
def test_damaged_row_is_read_as_broken_and_never_as_fact(log, statement, name):
    damage(statement)
    [event] = queries.recorded([4])
    assert event.is_broken
    assert event.body is None
    assert name in event.failure
    assert not queries.recorded([6])[0].is_broken


def test_every_byte_of_a_stored_header_counts(log):
    with databases.superuser() as server:
        header = server.execute("SELECT header FROM ledger_entry WHERE seq = 4").fetchall()[0][0]
        server.execute("ALTER TABLE ledger_entry DROP CONSTRAINT leaf_hash_is_sha256")
    for at in range(len(header)):
        changed = bytearray(header)
        changed[at] ^= 1
        damage("UPDATE ledger_entry SET header = %s WHERE seq = 4", params=[bytes(changed)])
        assert queries.recorded([4])[0].is_broken, at
    damage("UPDATE ledger_entry SET header = %s WHERE seq = 4", params=[header])
    assert not queries.recorded([4])[0].is_broken


def test_whole_history_rewritten_is_clean_inside_and_refused_by_the_signer(log):
    """All hashes made anew from row 4 on: only a memory outside the database can tell."""
    with databases.superuser() as server:
        rows = server.execute("SELECT seq, header FROM ledger_entry WHERE seq >= 4 ORDER BY seq").fetchall()
    prev = None
    for seq, header in rows:
        parsed = headers.parse_header(header)
        fresh = headers.make_header(
            body=parsed.body, event_id=parsed.event_id, origin=parsed.origin, prev=prev or parsed.prev, seq=seq,
            streams=parsed.streams, t=parsed.t.replace("Z", "Z") if seq != 4 else parsed.t[:-2] + ("1Z" if parsed.t[-2] != "1" else "2Z"),
        )  # fmt: skip
        prev = headers.leaf_hash(fresh)
        damage("UPDATE ledger_entry SET header = %s, leaf_hash = %s WHERE seq = %s", params=[fresh, prev, seq])
    damage("UPDATE ledger_head SET leaf = %s", params=[prev])
    damage("DELETE FROM ledger_checkpoint")
    with pytest.raises(SignerRefusedError, match="FORK|CONSISTENCY"):
        sealing.rebuild(signer=sealing.default_signer(), now=timezone.now(), progress=lambda _: None)
    record()
    with pytest.raises((SignerRefusedError, LogBrokenError)):
        sealing.seal_all(signer=sealing.default_signer(), now=timezone.now())


def test_truncated_tail_with_rewritten_head_is_a_rollback(log):
    with databases.superuser() as server:
        leaf = server.execute("SELECT leaf_hash FROM ledger_entry WHERE seq = 6").fetchall()[0][0]
    damage("DELETE FROM ledger_entry WHERE seq >= 7", "DELETE FROM ledger_body WHERE seq >= 7")
    damage("UPDATE ledger_head SET size = 7, leaf = %s", params=[leaf])
    damage("DELETE FROM ledger_checkpoint WHERE size > 7")
    for table in ("event", "eventmodel", "eventrelated", "eventtext"):
        damage(f"DELETE FROM ledger_{table} WHERE seq >= 7")
    assert "ROLLBACK" in verify()


def test_missing_guard_is_a_failure(log):
    with databases.superuser() as server:
        server.execute("ALTER TABLE ledger_entry DISABLE TRIGGER chain")
    assert verify().startswith("database: GUARD_MISSING")


def test_interrupted_pass_goes_on_where_it_was(log, monkeypatch):
    monkeypatch.setattr(verification, "CHUNK", 2)
    monkeypatch.setattr(verification, "SAVED_EACH", 2)
    seen = []

    def stop_at_six(done, size):
        seen.append((done, size))
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verification.verify_log(signer=sealing.default_signer(), now=timezone.now, progress=stop_at_six)
    assert Verification.objects.get(finished_at=None).position == 4
    seen.clear()
    run = verification.verify_log(signer=sealing.default_signer(), now=timezone.now, progress=lambda *a: seen.append(a))
    assert run.failure == ""
    assert seen == [(6, 10), (8, 10), (10, 10)]


def test_resumed_pass_still_finds_what_an_uninterrupted_one_finds(log, monkeypatch):
    monkeypatch.setattr(verification, "CHUNK", 2)
    monkeypatch.setattr(verification, "SAVED_EACH", 2)

    def stop(done, _size):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verification.verify_log(signer=sealing.default_signer(), now=timezone.now, progress=stop)
    damage("UPDATE ledger_stream SET count = count + 1 WHERE key = 'source:ci-train'")
    assert verify().startswith("streams: PROJECTION_MISMATCH")


def test_seal_state_tells_a_failed_verification(log):
    damage(BODY)
    verify()
    state = queries.seal_state(timezone.now())
    assert state.state == queries.SealState.FAILED
    assert state.failure.startswith("seq 4: BODY_COMMITMENT")


def test_signer_key_that_the_log_does_not_name_is_found(log, tmp_path, settings):
    memory = json.loads((settings.SIGNER_DIRECTORY / "memory.json").read_text())
    settings.SIGNER_DIRECTORY = tmp_path / "other"
    sealing.default_signer()
    (settings.SIGNER_DIRECTORY / "memory.json").write_text(json.dumps(memory))
    assert verify().startswith("signer: KEY_RANGE")


def test_origin_of_settings_is_the_one_of_the_log():
    assert settings.LOG_ORIGIN == "test.invalid/log"


def test_broken_waiting_row_is_named_and_never_signed(committed):
    record_many(2)
    with databases.superuser() as server:
        server.execute("ALTER TABLE ledger_body DISABLE TRIGGER ALL")
        server.execute("UPDATE ledger_body SET body = 'x' WHERE seq = 2")
    with pytest.raises(LogBrokenError, match="BODY_COMMITMENT"):
        sealing.seal_all(signer=sealing.default_signer(), now=timezone.now())
    assert Checkpoint.objects.order_by("-size").first().size == 1
