"""What rollups count is what a scan of the rows counts, whatever the events, the filter and the range."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from auditportal.ledger import rollups, sealing, search
from auditportal.ledger.drafts import Actor
from auditportal.ledger.models import Rollup
from auditportal.ledger.query import parse
from auditportal.ledger.verification import ROLLUPS
from tests.factories import NOON, make_draft, record

pytestmark = pytest.mark.django_db
ACTORS = [Actor(type="user", id=f"usr_{number:020d}") for number in range(4)]
STARTS = [
    NOON - timedelta(days=400), NOON - timedelta(days=40), NOON - timedelta(hours=30), datetime(1969, 12, 31, 22, tzinfo=UTC),
]  # fmt: skip


def resolve(name):
    return [ACTORS[0].id, ACTORS[1].id] if name == "erin" else []


def random_drafts(chance, count):
    span = chance.choice(
        [
            timedelta(minutes=90),
            timedelta(hours=50),
            timedelta(days=3),
            timedelta(days=300),
            timedelta(days=9_000),
            timedelta(days=30_000),
        ]
    )
    for _ in range(count):
        moment = NOON - span * chance.random()
        if chance.random() < 0.4:
            moment = moment.replace(minute=0, second=0, microsecond=chance.choice([0, 0, 1]))
        if chance.random() < 0.2:
            moment = moment.replace(hour=0)
        yield make_draft(
            timestamp=moment,
            action=chance.choice(["train", "deploy", "promote"]),
            outcome=chance.choices(["done", "refused", "failed"], [8, 1, 1])[0],
            actor=chance.choice(ACTORS),
            environment=chance.choice(["", "production", "staging"]),
            source_id=chance.choice(["ci", "deployer"]),
        )


def random_query(chance):
    terms = [
        "action:train", "action:train,deploy,train", "outcome:done", "outcome:refused,failed", "environment:production",
        "actor:erin", f"actor:{ACTORS[2].id}", "source:ci", "action:nobody", "stage:staging", "-action:train", "action:tr*",
        "model:churn", "sort:recorded", "recorded:9999d", "-during:2026-11-20",
    ]  # fmt: skip
    found = chance.sample(terms, chance.choice([0, 0, 1, 1, 2]))
    for _ in range(chance.choice([0, 0, 1, 1, 2])):
        moment = NOON - timedelta(days=chance.choice([0, 1, 30, 400])) * chance.random()
        text = chance.choice(["%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:00:00Z", "%Y-%m-%d", "%Y-%m"])
        found.append(chance.choice(["after", "before", "on", "during"]) + ':"' + moment.strftime(text) + '"')
    return parse(
        " ".join(found + chance.choice([[], [], ["during:7d"], ["during:26h"], ["during:2026-11-19..2026-11-20"]]))
    )


@pytest.mark.parametrize("seed", range(12))
def test_rollups_count_what_a_scan_counts(seal, monkeypatch, seed):
    chance = random.Random(seed)
    record(*random_drafts(chance, 90))
    seal()
    record(*random_drafts(chance, 60))
    seal()
    asked = [random_query(chance) for _ in range(40)]
    found = [_counts(query) for query in asked]
    with monkeypatch.context() as patch:
        patch.setattr(rollups, "scope_of", lambda *_args, **_options: None)
        for query, counted in zip(asked, found, strict=True):
            assert counted == _counts(query), query.canonical()


def _counts(query):
    return (
        search.histogram(query, now=NOON, resolve=resolve),
        search.facets(query, now=NOON, resolve=resolve, most=4),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", rollups.Scope()),
        ("sort:recorded", rollups.Scope()),
        ("action:train,deploy", rollups.Scope("action", ("deploy", "train"))),
        ("actor:erin", rollups.Scope("actor", (ACTORS[0].id, ACTORS[1].id))),
        ("after:2026-11-20 before:2026-11-22 after:2026-11-19", rollups.Scope("", (), datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC))),
        ("action:train outcome:done", None),
        ("action:train action:deploy", None),
        ("-action:train", None),
        ("action:tr*", None),
        ("recorded:7d", None),
        ("-during:7d", None),
        ("model:churn", None),
        ("churn", None),
        ("after:9999-12-31T23:30:00Z", None),
    ],
)  # fmt: skip
def test_scope_of_a_query(text, expected):
    assert rollups.scope_of(parse(text), now=NOON, resolve=resolve) == expected


def test_no_row_is_read_where_rollups_know_the_answer(seal, django_assert_num_queries):
    record(*random_drafts(random.Random(1), 50))
    seal()
    with django_assert_num_queries(3) as asked:  # one, in a savepoint of the test's transaction
        search.facets(parse("during:2026-11-01..2026-11-20"), now=NOON, resolve=resolve, most=4)
    assert not any("ledger_event" in query["sql"] for query in asked.captured_queries)


@pytest.mark.parametrize(
    "moment", [*STARTS, datetime(1, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, 999_999, UTC)]
)
def test_whole_hours_and_days_enclose_a_moment(moment):
    for seconds in (rollups.HOUR_S, rollups.DAY_S):
        below, above = rollups._down(moment, seconds), rollups._up(moment, seconds)
        assert below <= moment <= above
        assert above - below in (timedelta(0), timedelta(seconds=seconds))
        assert (below.minute, below.second, below.microsecond) == (0, 0, 0)
        assert seconds == rollups.HOUR_S or below.hour == 0


def test_migration_and_sealer_tell_the_same(seal):
    record(*random_drafts(random.Random(3), 80))
    seal()
    columns = ("dimension", "value", "grain", "start", "count", "not_done")
    with connection.cursor() as cursor:
        cursor.execute(ROLLUPS.read_text())
        told = sorted(cursor.fetchall())
    assert sorted(Rollup.objects.values_list(*columns)) == told
    sealing.project([])
    assert sorted(Rollup.objects.values_list(*columns)) == told
