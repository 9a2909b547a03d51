"""SQL as the application's role, as the owner and as a superuser: what the database refuses, and what it cannot."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connection, connections, transaction
from django.db.utils import DatabaseError

from auditportal.ledger import guards
from auditproof import headers
from tests import databases
from tests.factories import record

REFUSED = [
    "UPDATE ledger_entry SET source = 'x' WHERE seq = 1",
    "DELETE FROM ledger_entry WHERE seq = 1",
    "TRUNCATE ledger_entry",
    "UPDATE ledger_body SET body = 'x' WHERE seq = 1",
    "DELETE FROM ledger_body",
    "TRUNCATE ledger_body",
    "UPDATE ledger_checkpoint SET note = 'x'",
    "DELETE FROM ledger_checkpoint",
    "TRUNCATE ledger_checkpoint",
    "UPDATE ledger_head SET size = 99",
    "UPDATE ledger_head SET leaf = '\\x00'",
    "UPDATE ledger_head SET lock_token = 1",
    "DELETE FROM ledger_head",
    "INSERT INTO ledger_head (id, size, leaf, t, lock_token) VALUES (2, 0, '', '', 0)",
    "INSERT INTO ledger_entry SELECT * FROM ledger_entry WHERE seq = 1 ON CONFLICT (seq) DO UPDATE SET source = 'x'",
    "INSERT INTO ledger_body (seq, salt, body, streams) VALUES (77, '', '', '')",
    "ALTER TABLE ledger_entry DISABLE TRIGGER ALL",
    "DROP TRIGGER chain ON ledger_entry",
    "CREATE OR REPLACE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "SET session_replication_role = replica",
]


def _last():
    with connection.cursor() as cursor:
        cursor.execute("SELECT seq, leaf_hash FROM ledger_entry ORDER BY seq DESC LIMIT 1")
        seq, leaf = cursor.fetchone()
    return seq, bytes(leaf)


def _insert(seq, *, prev, leaf=None, header_seq=None, t="2036-01-01T00:00:00.000000Z"):
    header = headers.make_header(
        body=bytes(32), event_id="7d444840-9dc0-41d1-b245-5ffdce74fad2", origin="test.invalid/log", prev=prev,
        seq=seq if header_seq is None else header_seq, streams=bytes(32), t=t,
    )  # fmt: skip
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO ledger_entry (seq, source, event_id, header, leaf_hash) VALUES (%s, 'x', %s, %s, %s)",
            [seq, "7d444840-9dc0-41d1-b245-5ffdce74fad2", header, leaf or headers.leaf_hash(header)],
        )


@pytest.mark.parametrize("statement", REFUSED)
def test_application_role_cannot_change_the_log(db, statement):
    record()
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_well_formed_entry_goes_in_so_the_refusals_below_are_about_their_one_fault(db):
    seq, leaf = _last()
    _insert(seq + 1, prev=leaf)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"seq": 5}, "SEQ_GAP"),
        ({"seq": 0}, "duplicate key"),
        ({"prev": b"\1" * 32}, "PREV_CHAIN"),
        ({"header_seq": 9}, "PREV_CHAIN"),
        ({"t": "1999-01-01T00:00:00.000000Z"}, "PREV_CHAIN"),
        ({"leaf": b"\2" * 32}, "leaf_hash_is_sha256"),
    ],
)
def test_gap_wrong_prev_and_forged_hash_are_refused(db, fault, name):
    seq, leaf = _last()
    given = {"seq": seq + 1, "prev": leaf} | fault
    with pytest.raises(DatabaseError, match=name):
        _insert(given.pop("seq"), **given)


def test_copy_fires_the_guards_too(db):
    seq, leaf = _last()
    header = headers.make_header(
        body=bytes(32), event_id="7d444840-9dc0-41d1-b245-5ffdce74fad2", origin="test.invalid/log", prev=leaf,
        seq=seq + 2, streams=bytes(32), t="2036-01-01T00:00:00.000000Z",
    )  # fmt: skip
    with pytest.raises(psycopg.errors.CheckViolation, match="SEQ_GAP"), connection.cursor() as cursor:
        with cursor.copy("COPY ledger_entry (seq, source, event_id, header, leaf_hash) FROM STDIN") as copy:
            copy.write_row((seq + 2, "x", "7d444840-9dc0-41d1-b245-5ffdce74fad2", header, headers.leaf_hash(header)))


@pytest.mark.parametrize(
    "statement", ["UPDATE ledger_entry SET source = 'x'", "TRUNCATE ledger_entry", "DELETE FROM ledger_body"]
)
@pytest.mark.parametrize("first", ["SELECT 1", "SET session_replication_role = replica"])
def test_owner_and_superuser_are_refused_while_triggers_stand(committed, statement, first):
    record()
    with databases.superuser() as server, pytest.raises(psycopg.DatabaseError, match="append-only"):
        server.execute(first)
        server.execute(statement)
    with pytest.raises(DatabaseError, match="append-only"), connections["owner"].cursor() as cursor:
        cursor.execute(statement)


def test_check_finds_nothing_missing_and_names_what_is(committed):
    assert guards.check() == []
    for damage, word in (
        ("ALTER TABLE ledger_entry DISABLE TRIGGER refuse_change", "refuse_change on ledger_entry"),
        ("ALTER TABLE ledger_body ENABLE TRIGGER body_follows", "body_follows on ledger_body"),
        ("ALTER TABLE ledger_entry DROP CONSTRAINT leaf_hash_is_sha256", "CHECK"),
        (
            "CREATE OR REPLACE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "ledger_refuse is not ours",
        ),
        ("GRANT UPDATE ON ledger_entry TO auditportal", "UPDATE on ledger_entry"),
    ):
        with databases.superuser() as server:
            server.execute(damage)
        assert any(word in line for line in guards.check()), damage
