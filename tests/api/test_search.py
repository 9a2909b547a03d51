from __future__ import annotations

import json

import jsonschema
import pytest
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.api.schema import event_schema
from auditportal.ingest import native
from auditportal.ledger.drafts import SYSTEM, Actor
from tests import databases
from tests.factories import make_draft, record, record_many


def token(*scopes):
    _, text = accounts.issue_token(name="t", source_id="ci", scopes=scopes, actor=SYSTEM, now=timezone.now())
    return {"HTTP_AUTHORIZATION": f"Bearer {text}"}


@pytest.fixture
def reader(db):
    return token("events:read")


def test_found_events_are_the_recorded_bytes_page_by_page(client, reader, seal):
    record_many(5)
    record(make_draft(action="validate"))
    seal()
    answer = client.get("/api/v1/events?q=action:train&limit=2", **reader)
    assert answer.status_code == 200
    first = answer.json()
    assert [item["body"]["action"] for item in first["events"]] == ["train", "train"]
    assert all(item["proof"] == "checkpointed" for item in first["events"])
    seqs = [item["seq"] for item in first["events"]]
    following = first["next"]
    while following:
        page = client.get(following.removeprefix("http://localhost:8000"), **reader).json()
        seqs += [item["seq"] for item in page["events"]]
        following = page.get("next")
    assert len(seqs) == len(set(seqs)) == 5
    raw = client.get(f"/api/v1/events?q=seq:{seqs[0]}", **reader).content
    stored = client.get(f"/api/v1/events?q=seq:{seqs[0]}", **reader).json()["events"][0]["body"]
    assert json.dumps(stored, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode() in raw


@pytest.mark.parametrize("count", [1, 3])
def test_queries_do_not_grow_with_the_rows(client, reader, seal, django_assert_num_queries, count):
    record_many(count)
    seal()
    client.get("/api/v1/events?q=action:train", **reader)
    with django_assert_num_queries(9) as counted:
        client.get("/api/v1/events?q=action:train", **reader)
    assert counted


@pytest.mark.parametrize(
    ("query", "status", "word"),
    [
        ("q=acton:train", 400, "acton"),
        ("q=during:soon", 400, "during"),
        ("limit=0", 400, "limit"),
        ("limit=101", 400, "limit"),
        ("limit=x", 400, "limit"),
        ("cursor=nonsense", 400, "cursor"),
    ],
)
def test_wrong_search_is_a_problem_that_says_what(client, reader, query, status, word):
    answer = client.get(f"/api/v1/events?{query}", **reader)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    assert word in answer.json()["detail"]


def test_reading_needs_its_scope_and_a_token(client, db):
    assert client.get("/api/v1/events").status_code == 401
    assert client.get("/api/v1/events", **token("events:write")).status_code == 403
    assert client.delete("/api/v1/events", **token("events:read")).status_code == 405


def test_broken_row_comes_as_its_failure(client, committed, seal):
    record()
    seal()
    with databases.superuser() as root:
        root.execute("ALTER TABLE ledger_body DISABLE TRIGGER ALL")
        root.execute("UPDATE ledger_body SET body = replace(body::text, 'x', 'x')::bytea || ' ' WHERE seq = 1")
    [item] = [
        item for item in client.get("/api/v1/events", **token("events:read")).json()["events"] if item["seq"] == 1
    ]
    assert "BODY_COMMITMENT" in item["failure"]
    assert "body" not in item


GOOD = [
    {"action": "train", "subject": "run:1", "timestamp": "2026-11-20T12:00:00Z"},
    {
        "action": "promote", "subject": {"type": "model_version", "id": "churn:14"}, "timestamp": "2026-11-20T12:00:00Z",
        "outcome": "refused", "actor": {"type": "user", "id": "alice"}, "related": ["run:1", {"type": "a", "id": "b"}],
        "environment": "production", "reason": "no", "metadata": {"x": [1]}, "source": {"seq": 4},
        "integrity": {"artifact_sha256": "a" * 64},
    },
]  # fmt: skip
BAD = [
    {"action": "train", "subject": "run:1"},
    {"action": "ledger.key", "subject": "run:1", "timestamp": "2026-11-20T12:00:00Z"},
    {"action": "Train", "subject": "run:1", "timestamp": "2026-11-20T12:00:00Z"},
    {"action": "train", "subject": "run", "timestamp": "2026-11-20T12:00:00Z"},
    {"action": "train", "subject": "run:1", "timestamp": "2026-11-20T12:00:00Z", "models": []},
    {"action": "train", "subject": "run:1", "timestamp": "2026-11-20T12:00:00Z", "outcome": "maybe"},
    {"action": "train", "subject": "run:1", "timestamp": "2026-11-20T12:00:00Z", "integrity": {"artifact_sha256": "A"}},
]


def read(event):
    return native.read(json.dumps(event).encode(), source_id="ci", nobody=Actor("service", "svc_0"))


@pytest.mark.parametrize("event", GOOD)
def test_schema_and_reader_take_the_same_events(event):
    jsonschema.validate(event, event_schema())
    assert read(event)[0]


@pytest.mark.parametrize("event", BAD)
def test_schema_and_reader_refuse_the_same_events(event):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event, event_schema())
    with pytest.raises(native.FaultyInputError):
        read(event)


def test_schema_is_served_to_everybody(client):
    answer = client.get("/api/v1/schema/event.json")
    assert answer.json() == event_schema()
    assert answer["Cache-Control"] == "public, max-age=3600"


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(event_schema())
