"""`POST /api/v1/events` as producers and attackers use it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Entry, Kept
from auditportal.ledger.queries import recorded
from auditproof import events

EVENT = {
    "event_id": "evt-001",
    "action": "train",
    "subject": "run:c07d2e",
    "timestamp": "2026-11-20T14:02:11.123456789+01:00",
    "related": ["model:churn:v2", {"type": "dataset", "id": "DS:1", "relation": "used"}],
    "metadata": {"auc": 0.921},
}


@pytest.fixture
def token(db):
    now = timezone.now()
    return accounts.issue_token(name="ci", source_id="ci-train", scopes=["events:write"], actor=SYSTEM, now=now)[1]


@pytest.fixture
def post(token, monkeypatch):
    """Posts in the test's own transaction: the collector's thread would not see it."""
    from auditportal.api import events as view
    from auditportal.ingest import services

    class Direct:
        @staticmethod
        def record(item, **given):
            return services.record([item], **given)[0]

    monkeypatch.setattr(view, "collector", Direct)

    def send(body, *, authorization=f"Bearer {token}", content_type="application/json"):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": authorization} if authorization else {}
        return Client().post("/api/v1/events", data=raw, content_type=content_type, headers=headers)

    return send


def count():
    return Entry.objects.filter(source="ci-train").count()


def test_one_event_is_recorded_as_the_format_wants_it(post):
    answer = post(EVENT)
    assert answer.status_code == 201
    receipt = answer.json()
    assert receipt["new"] is True
    assert receipt["event"].endswith(f"/events/{receipt['seq']}/")
    body = recorded([receipt["seq"]])[0].body
    assert body["event_id"] == events.event_id_of("ci-train", ["evt-001"])
    assert body["source"] == {"id": "ci-train", "native_id": "evt-001"}
    assert body["timestamp"] == "2026-11-20T13:02:11.123456Z"
    assert body["timestamp_kind"] == "claimed"
    assert body["metadata"] == {"auc": 0.921, "native": {"timestamp": EVENT["timestamp"]}}
    assert body["models"] == ["churn"]
    assert body["related"] == [
        {"id": "DS:1", "relation": "used", "type": "dataset"},
        {"id": "churn:v2", "type": "model_version"},
    ]
    assert body["actor"]["type"] == "service"
    assert body["actor"]["assurance"] == "verified"


def test_named_actor_becomes_a_claimed_pseudonym_and_the_name_stays_outside(post):
    seq = post(EVENT | {"actor": "alice@corp.example"}).json()["seq"]
    again = post(EVENT | {"event_id": "evt-002", "actor": {"type": "user", "id": "alice@corp.example"}}).json()["seq"]
    first, second = recorded([seq, again])
    assert first.body["actor"] == second.body["actor"]
    assert first.body["actor"]["assurance"] == "claimed"
    assert b"alice" not in first.raw_body


def test_same_event_again_answers_200_with_the_same_place(post):
    first = post(EVENT)
    again = post(dict(reversed(EVENT.items())))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json() | {"new": False}
    assert count() == 1


def test_same_id_with_other_content_is_409_and_the_attempt_is_recorded(post):
    seq = post(EVENT).json()["seq"]
    answer = post(EVENT | {"metadata": {"auc": 0.5}})
    assert answer.status_code == 409
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["conflicts"][0]["recorded_as"] == seq
    record = recorded([answer.json()["recorded_as"]])[0].body
    assert (record["action"], record["outcome"], record["subject"]["id"]) == ("source.conflict", "refused", "ci-train")
    assert count() == 1


def test_batch_is_recorded_in_order(post):
    answer = post([EVENT | {"event_id": f"e{n}"} for n in range(3)])
    assert answer.status_code == 201
    seqs = [item["seq"] for item in answer.json()["events"]]
    assert seqs == sorted(seqs)
    assert count() == 3


def test_batch_with_one_conflict_stores_nothing_and_names_its_index(post):
    post(EVENT)
    answer = post([EVENT | {"event_id": "new"}, EVENT | {"reason": "else"}])
    assert answer.status_code == 409
    assert answer.json()["conflicts"][0]["index"] == 1
    assert count() == 1


def test_batch_with_faults_names_each_and_stores_nothing(post):
    answer = post([EVENT, EVENT | {"action": "Train"}, EVENT | {"timestamp": "yesterday", "seq": 4}])
    assert answer.status_code == 400
    assert [(fault["index"], fault["member"]) for fault in answer.json()["errors"]] == [
        (1, "/action"), (2, "/seq"), (2, "/timestamp"),
    ]  # fmt: skip
    assert count() == 0


FAULTY = [
    (b"{", "character 1"),
    (b"", "character 0"),
    (b"\xef\xbb\xbf{}", "byte 0"),
    ("{}".encode("utf-16"), "byte 0"),
    (b'{"action": "train", "action": "train"}', "/action"),
    (b'{"metadata": {"x": NaN}}', "/metadata/x"),
    (b'{"metadata": {"x": -Infinity}}', "/metadata/x"),
    (b'{"metadata": {"x": 1e400}}', "/metadata/x"),
    (b'{"metadata": {"x": 9007199254740993}}', "/metadata/x"),
    (b'{"metadata": {"x": 1e16}}', "/metadata/x"),
    (b'{"metadata": {"x": ' + b"9" * 5000 + b"}}", "/metadata/x"),
    (b'{"metadata": {"x": "\\ud800"}}', "/metadata/x"),
    (b'{"metadata": {"x": "\\u0000"}}', "/metadata/x"),
    (b'{"metadata": {"$sealed": "sha256:00"}}', "/metadata/$sealed"),
    (b"[" * 100_000, ""),
    (b'{"metadata": ' + b"[" * 40 + b"]" * 40 + b"}", None),
    (b"[]", ""),
    (b'"text"', ""),
    (b"[1]", ""),
]


@pytest.mark.parametrize(("raw", "member"), FAULTY)
def test_input_that_is_not_strict_json_is_a_400_that_names_the_place(post, raw, member):
    answer = post(raw)
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    fault = answer.json()["errors"][0]
    assert fault["rule"]
    assert member is None or fault["member"] == member
    assert count() == 0


@pytest.mark.parametrize(
    ("change", "member"),
    [
        ({"action": None}, "/action"),
        ({"action": "ledger.key"}, "/action"),
        ({"action": "key.issued"}, "/action"),
        ({"action": "TRAIN"}, "/action"),
        ({"outcome": "won"}, "/outcome"),
        ({"timestamp": "2026-11-20T14:02:11"}, "/timestamp"),
        ({"timestamp": "2026-11-20"}, "/timestamp"),
        ({"timestamp": 1763647331}, "/timestamp"),
        ({"timestamp": "2026-02-30T00:00:00Z"}, "/timestamp"),
        ({"timestamp": "2026-11-20T23:59:60Z"}, "/timestamp"),
        ({"timestamp": "0000-01-01T00:00:00Z"}, "/timestamp"),
        ({"subject": "churn"}, "/subject"),
        ({"subject": {"type": "model", "id": ""}}, "/subject/id"),
        ({"subject": {"type": "model", "id": "a\nb"}}, "/subject/id"),
        ({"subject": {"type": "model", "id": "x" * 513}}, "/subject/id"),
        ({"subject": {"type": "Model", "id": "x"}}, "/subject/type"),
        ({"related": ["model:a"] * 3 + ["x"]}, "/related/3"),
        ({"related": [f"run:{n}" for n in range(101)]}, "/related"),
        ({"models": ["churn"]}, "/models"),
        ({"unknown": 1}, "/unknown"),
        ({"metadata": []}, "/metadata"),
        ({"reason": ""}, "/reason"),
        ({"environment": 3}, "/environment"),
        ({"actor": {"type": "system", "id": "system"}}, "/actor/type"),
        ({"actor": {"id": "x", "assurance": "verified"}}, "/actor"),
        ({"source": {"id": "other"}}, "/source/id"),
        ({"source": {"seq": -1}}, "/source/seq"),
        ({"event_id": ""}, "/event_id"),
        ({"v": 2}, "/v"),
        ({"integrity": {"artifact_sha256": "abc"}}, "/integrity/artifact_sha256"),
        ({"integrity": {"event_sha256": "0" * 64}}, "/integrity/event_sha256"),
        ({"integrity": {"signature": {"key_id": "k", "value": "x"}}}, "/integrity/signature"),
        ({"metadata": {"x": "y" * 300_000}}, ""),
    ],
)
def test_wrong_member_is_a_400_that_names_it(post, change, member):
    event = {key: value for key, value in (EVENT | change).items() if value is not None}
    answer = post(event)
    assert answer.status_code == 400
    assert member in [fault["member"] for fault in answer.json()["errors"]]
    assert count() == 0


def test_members_are_each_named_once_when_several_are_wrong(post):
    answer = post({"action": "x y", "foo": 1})
    assert [fault["member"] for fault in answer.json()["errors"]] == ["/foo", "/subject", "/timestamp", "/action"]


def test_claimed_hash_of_the_event_is_checked_and_kept_aside(post):
    from auditportal.ledger import canonical

    event = EVENT | {"integrity": {}}
    sha256 = events.sent_hash(canonical.encode(event)).hex()
    seq = post(EVENT | {"integrity": {"event_sha256": sha256}}).json()["seq"]
    body = recorded([seq])[0].body
    kept = Kept.objects.get(seq=seq, kind="sent")
    assert bytes(kept.content) == canonical.encode(event)
    assert body["source"]["sent"] == events.sent_commitment(bytes(kept.salt), bytes(kept.content)).hex()
    assert "event_sha256" not in body.get("integrity", {})


def test_too_many_events_or_bytes_are_413(post):
    assert post([1] * 5001).status_code == 413
    assert post(b" " * (16 * 1024 * 1024 + 1)).status_code == 413
    assert count() == 0


def test_full_batch_of_5000_is_taken(post):
    answer = post([EVENT | {"event_id": f"n{n}"} for n in range(5000)])
    assert answer.status_code == 201
    assert count() == 5000


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer nonsense", "Bearer apt_" + "x" * 43, "Basic YTpi"])
def test_unauthenticated_is_401_and_stores_nothing(post, authorization):
    answer = post(EVENT, authorization=authorization)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert count() == 0


def test_expired_revoked_and_unscoped_tokens_open_nothing(post):
    now = timezone.now()
    read, text = accounts.issue_token(name="r", source_id="r", scopes=["events:read"], actor=SYSTEM, now=now)
    assert post(EVENT, authorization=f"Bearer {text}").status_code == 403
    accounts.revoke_token(token=read, reason="leaked", actor=SYSTEM, now=now)
    assert post(EVENT, authorization=f"Bearer {text}").status_code == 401
    past = now - timedelta(days=2)
    _, old = accounts.issue_token(
        name="o", source_id="o", scopes=["events:write"], actor=SYSTEM, now=past, expires_at=past + timedelta(days=1)
    )
    assert post(EVENT, authorization=f"Bearer {old}").status_code == 401


def test_other_media_type_and_method(post, client):
    assert post(EVENT, content_type="text/plain").status_code == 415
    answer = client.put("/api/v1/events")
    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD, POST")
    assert client.get("/api/v1/nothing").json()["status"] == 404
