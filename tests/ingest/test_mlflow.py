"""MLflow's deliveries and objects as drafts: each recorded one, its signature, and what nobody should send."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from auditportal.ingest import mlflow
from auditportal.ingest.errors import NotUnderstoodError
from auditportal.ledger.drafts import UNKNOWN, Sealed
from auditportal.ledger.preparation import prepare_all
from tests.factories import NOON
from tests.fakes.mlflow import hook

SAMPLES = Path(__file__).parents[1] / "samples" / "mlflow"
HOOKS = sorted(path.stem for path in (SAMPLES / "webhooks").glob("*.json"))
SECRETS = {"/ok": "whsec-demo-1", "/fail": "whsec-demo-2"}
RUNS = json.loads((SAMPLES / "rest" / "runs_search.json").read_bytes())["runs"]


def recorded(name):
    value = json.loads((SAMPLES / "webhooks" / f"{name}.json").read_bytes())
    return value, value["body_raw"].encode(), datetime.fromtimestamp(value["received_at"], UTC)


def verify(value, body, now, **changes):
    headers = value["headers"]
    return mlflow.verify_signature(
        **{
            "secret": SECRETS[value["path"]],
            "delivery_id": headers["X-MLflow-Delivery-Id"],
            "timestamp": headers["X-MLflow-Timestamp"],
            "signature": headers["X-MLflow-Signature"],
            "body": body,
            "now": now,
            **changes,
        }
    )


@pytest.mark.parametrize("name", [name for name in HOOKS if not name.startswith("028_")])
def test_recorded_signature_holds_and_any_change_breaks_it(name):
    value, body, now = recorded(name)
    assert verify(value, body, now)
    assert not verify(value, body + b" ", now)
    assert not verify(value, body, now, secret="whsec-demo-3")
    assert not verify(value, body, now, delivery_id="da3ba885-ed2e-418e-9ba3-8ac5eb489c56")
    assert not verify(value, body, now + timedelta(seconds=330))
    assert not verify(value, body, now - timedelta(seconds=330))


@pytest.mark.parametrize(
    "change",
    [
        {"signature": ""}, {"signature": "v1,"}, {"signature": "v2,abc"}, {"signature": "v1,é"}, {"timestamp": ""}, {"timestamp": "x"},
        {"timestamp": "1" * 13}, {"timestamp": "-5"}, {"secret": ""},
    ],
)  # fmt: skip
def test_signature_that_is_none(change):
    value, body, now = recorded("002_registered_model.created")
    assert not verify(value, body, now, **change)


@pytest.mark.parametrize("name", HOOKS)
def test_recorded_delivery_is_read(name):
    _, body, _ = recorded(name)
    found = mlflow.read(body)
    assert found.name == name[4:]
    assert found.is_test == name.startswith("001_")
    assert found.timestamp.startswith("2026-11-22T04:")
    assert mlflow.names(found)[0] == found.data["name"]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"7", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"data":7}', b'{"data":{}}', b'{"data":{},"entity":"a"}',
        b'{"data":{},"entity":7,"action":"b","timestamp":"2026-11-22T04:26:30+00:00"}', b'{"data":{},"entity":"a","action":"b"}',
        b'{"data":{},"entity":"a","action":"b","timestamp":"2026-11-22T04:26:30"}', b'{"data":{},"entity":"a","action":"b","timestamp":7}',
    ],
)  # fmt: skip
def test_body_that_is_no_delivery(raw):
    with pytest.raises(NotUnderstoodError):
        mlflow.read(raw)


def mark_draft(name, data, **more):
    said = mlflow.read(hook(name, data, now=NOON).body)
    given = {"label": "", "before": None, "stands": None, "source_id": "mlflow:prod", "delivery_id": "d1", "raw": b"r"}
    return mlflow.mark_draft(said, **{**given, **more})


def test_tag_like_an_approval_is_a_claim_with_a_sealed_value():
    data = {"name": "churn", "version": "3", "key": "approved_by", "value": "alice"}
    draft = mark_draft("model_version_tag.set", data, label="churn:3~2", before="nobody", stands=True)
    assert (draft.action, draft.actor, draft.subject.id) == ("tag.set", UNKNOWN, "churn:3~2")
    assert draft.metadata == {
        "state": "checked",
        "tag": "approved_by",
        "value": Sealed("alice"),
        "before": Sealed("nobody"),
        "caution": "a tag is a claim of whoever could write it, never an approval",
    }
    assert b"alice" not in prepare_all([draft])[0].body


def test_alias_shows_where_it_stood():
    draft = mark_draft(
        "model_version_alias.created", {"name": "churn", "alias": "champion", "version": "2"}, before="1", stands=False
    )
    assert draft.metadata == {
        "state": "reported only",
        "alias": "champion",
        "value": "2",
        "before": "1",
        "note": "the server showed something else when it was asked",
    }
    assert mark_draft("model_version_alias.deleted", {"name": "churn", "alias": "champion"}).subject.type == "model"


@pytest.mark.parametrize(
    "data", [{}, {"name": 7, "alias": "x"}, {"name": "a"}, {"name": "\u202e", "alias": "x"}, {"name": "a", "alias": ""}]
)
def test_mark_without_its_members_is_not_understood(data):
    with pytest.raises(NotUnderstoodError):
        mark_draft("model_version_alias.created", data)


@pytest.mark.parametrize("run", RUNS, ids=[run["info"]["run_id"][:8] for run in RUNS])
def test_recorded_run_is_an_event(run):
    draft = mlflow.run_draft(run, actor=UNKNOWN, source_id="mlflow:prod", raw=b"")
    [prepared] = prepare_all([draft])
    body = json.loads(prepared.body)
    assert body["action"] == "train"
    assert body["outcome"] == ("done" if run["info"]["status"] == "FINISHED" else "failed")
    assert body["subject"] == {"type": "run", "id": run["info"]["run_id"]}
    assert body["metadata"]["state"] == "reported only"


def test_what_a_run_says_of_data_keeps_its_kind():
    run = next(item for item in RUNS if item.get("inputs"))
    found = mlflow.run_draft(run, actor=UNKNOWN, source_id="m", raw=b"").metadata["datasets"]
    assert {item["kind"] for item in found} == {"sha256_of_unknown_content", "mlflow_md5_8"}


def test_late_end_is_another_event_and_an_edit_is_not():
    run = RUNS[0]
    again = {**run, "info": {**run["info"], "end_time": 1001}}
    edited = {**run, "data": {}}
    ids = [mlflow.run_draft(item, actor=UNKNOWN, source_id="m", raw=b"").event_id for item in (run, again, edited)]
    assert ids[0] == ids[2] != ids[1]


def test_largest_run_still_fits_into_a_body():
    data = {
        "params": [{"key": f"\U0001f600{'k' * 240}{n}", "value": "\U0001f600" * 6000} for n in range(500)],
        "metrics": [{"key": f"\U0001f600{'m' * 240}{n}", "value": n / 7} for n in range(500)],
        "tags": [{"key": "mlflow.source.git.commit", "value": "\x00" * 9000}],
    }
    run = {"info": {"run_id": "r1", "end_time": 1, "status": "FINISHED", "run_name": "x" * 10_000}, "data": data}
    [prepared] = prepare_all([mlflow.run_draft(run, actor=UNKNOWN, source_id="m", raw=b"")])
    body = json.loads(prepared.body)
    assert body["metadata"]["parameters"]["left out"] > 0
    assert len(prepared.body) < 256 * 1024


@pytest.mark.parametrize("end", [10**30, -5, 2**62, 0])
def test_end_time_of_any_kind_is_a_time(end):
    run = {"info": {"run_id": "r1", "end_time": end, "status": "FINISHED"}}
    assert prepare_all([mlflow.run_draft(run, actor=UNKNOWN, source_id="m", raw=b"")])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "value", "dataset", "digest"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["params", "tags", "metrics"]), JSON),
    st.dictionaries(st.sampled_from(["status", "user_id", "experiment_id", "run_name"]), JSON),
    JSON,
)
def test_run_of_any_shape_is_an_event_or_named_as_none(data, info, inputs):
    from auditportal.connectors.foreign import clean

    run = clean({"info": {**info, "run_id": "r1", "end_time": 1}, "data": data, "inputs": {"dataset_inputs": inputs}})
    assert prepare_all([mlflow.run_draft(run, actor=UNKNOWN, source_id="m", raw=b"")])
    assert mlflow.kept("run", run)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("run", {"info": {}}), ("run", {"info": {"run_id": 7}}), ("run", {"info": {"run_id": "a\nb"}}), ("run", {"info": {"run_id": "x" * 401}}),
        ("registered_model", {}), ("registered_model", {"name": ""}), ("registered_model", {"name": "a\x00"}), ("registered_model", {"name": "a", "creation_timestamp": "x"}),
        ("registered_model", {"name": "a", "creation_timestamp": 2**63}), ("model_version", {"name": "a"}), ("model_version", {"name": "a", "version": 7}),
    ],
)  # fmt: skip
def test_object_without_a_usable_name_is_not_understood(kind, value):
    with pytest.raises(NotUnderstoodError):
        mlflow.check_names(kind, value)


def test_differences_name_the_key_and_seal_what_may_be_personal():
    changed = {
        "tags": ({"a": "1", "b": "2"}, {"b": "3", "c": "4"}),
        "aliases": ({"champion": "1"}, {"champion": "2"}),
        "stage": ("Staging", "Production"),
        "description": ("by alice", ""),
    }
    found = mlflow.differences(changed)
    assert found == {
        "tags.a": ({"before": "1"}, {}),
        "tags.b": ({"before": "2", "after": "3"}, {}),
        "tags.c": ({"after": "4"}, {}),
        "aliases.champion": ({}, {"before": "1", "after": "2"}),
        "stage": ({}, {"before": "Staging", "after": "Production"}),
        "description": ({"before": "by alice", "after": ""}, {}),
    }
