"""The doors for webhooks: who may knock, what is stored before the answer, and that nothing is bounced."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.db import OperationalError
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.api import hooks
from auditportal.ingest import deliveries, sources
from auditportal.ingest.models import Delivery
from auditportal.ledger.drafts import SYSTEM
from tests.fakes.mlflow import hook, sign

SAMPLES = Path(__file__).parents[1] / "samples"
NOTIFICATIONS = sorted((SAMPLES / "oci" / "notifications").glob("[0-9]*.json"))
HOOKS = sorted((SAMPLES / "mlflow" / "webhooks").glob("*.json"))
SECRET = "whsec-test"


@pytest.fixture
def oci(db):
    return sources.register(id="registry", kind="oci", url="http://r.test", actor=SYSTEM, now=timezone.now())


@pytest.fixture
def mlflow(db):
    return register("mlflow:prod", SECRET)


def register(name, secret):
    return sources.register(
        id=name, kind="mlflow", url="http://m.test", hook_secret=secret, actor=SYSTEM, now=timezone.now()
    )


@pytest.fixture
def token(oci):
    return issue("registry", "hooks")


def issue(source, scope):
    _, text = accounts.issue_token(name="t", source_id=source, scopes=[scope], actor=SYSTEM, now=timezone.now())
    return text


def notify(client, body, token, **headers):
    media_type = "application/vnd.docker.distribution.events.v1+json"
    return client.post(
        "/hooks/oci/", body, content_type=media_type, headers={"Authorization": f"Bearer {token}", **headers}
    )


def send(client, found, **headers):
    given = {**found.headers, **headers}
    return client.post("/hooks/mlflow/", found.body, content_type=given.pop("Content-Type"), headers=given)


# Registries


@pytest.mark.parametrize("path", NOTIFICATIONS, ids=lambda path: path.stem[:2])
def test_recorded_notification_is_stored_as_it_came(client, token, path):
    headers = json.loads((SAMPLES / "oci" / "notifications" / "_headers.json").read_bytes())[path.name]
    answer = notify(client, path.read_bytes(), token, **{"User-Agent": headers["User-Agent"]})
    assert answer.status_code == 200
    delivery = Delivery.objects.get()
    assert answer.json() == {"delivery": delivery.pk, "stored": True}
    assert bytes(delivery.body) == path.read_bytes()
    assert (delivery.source_id, delivery.kind, delivery.state) == ("registry", "oci", "waiting")
    assert delivery.headers == {
        "content-type": headers["Content-Type"],
        "user-agent": "Go-http-client/1.1",
    }  # and never the token


@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"not json", b"[" * 50_000, b'{"events":[]}'])
def test_poison_is_answered_with_200_and_kept(client, token, body):
    assert notify(client, body, token).status_code == 200
    deliveries.process_waiting()
    delivery = Delivery.objects.get()
    assert (bytes(delivery.body), delivery.state) == (body, "not understood")


def test_token_of_no_registry_of_ours_is_kept_and_shown(client, token, mlflow):
    for source in ("elsewhere", "mlflow:prod"):
        assert notify(client, b"{}", issue(source, "hooks")).status_code == 200
    deliveries.process_waiting()
    assert [(item.source, item.state, item.note) for item in Delivery.objects.all()] == [
        (None, "not understood", "no configured source is behind it")
    ] * 2


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Bearer apt_wrong", "Basic YTpi", "Bearer é"])
def test_stranger_is_refused_and_nothing_stored(client, oci, header, caplog):
    answer = client.post(
        "/hooks/oci/", b"secret body", content_type="application/json", headers={"Authorization": header}
    )
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert answer["Content-Type"] == "application/problem+json"
    assert Delivery.objects.count() == 0
    assert "secret body" not in caplog.text


def test_token_for_events_opens_no_hook_and_a_revoked_one_neither(client, oci):
    text = issue("registry", "events:write")
    assert notify(client, b"{}", text).status_code == 401
    good, revoked = accounts.issue_token(
        name="t", source_id="registry", scopes=["hooks"], actor=SYSTEM, now=timezone.now()
    )
    accounts.revoke_token(token=good, reason="x", actor=SYSTEM, now=timezone.now())
    assert notify(client, b"{}", revoked).status_code == 401


def test_notification_of_a_kit_of_thousands_of_layers_is_taken(client, token):
    references = [{"mediaType": "application/x", "size": n, "digest": "sha256:" + "a" * 64} for n in range(30_000)]
    body = json.dumps({"events": [{"target": {"references": references}}]}, indent=3).encode()
    assert len(body) > 4_000_000
    assert notify(client, body, token).status_code == 200


@pytest.mark.parametrize("method", ["get", "put", "delete", "head", "options", "patch"])
@pytest.mark.parametrize("path", ["/hooks/oci/", "/hooks/mlflow/"])
def test_hooks_are_posted_to(client, db, method, path):
    answer = getattr(client, method)(path)
    assert (answer.status_code, answer["Allow"]) == (405, "POST")


# MLflow


@pytest.mark.parametrize("path", HOOKS, ids=lambda path: path.stem[:3])
def test_recorded_delivery_with_its_own_signature(client, db, monkeypatch, path):
    for name, secret in (("a", "whsec-demo-1"), ("b", "whsec-demo-2")):
        register(name, secret)
    value = json.loads(path.read_bytes())
    received = datetime.fromtimestamp(value["received_at"], UTC)
    monkeypatch.setattr("auditportal.api.hooks.timezone.now", lambda: received)
    headers = {
        name: text for name, text in value["headers"].items() if name not in ("Host", "Content-Length", "Content-Type")
    }
    answer = client.post(
        "/hooks/mlflow/", value["body_raw"].encode(), content_type=value["headers"]["Content-Type"], headers=headers
    )
    if value["path"] == "/bad":  # a hook without a secret
        assert (answer.status_code, Delivery.objects.count()) == (401, 0)
        return
    assert answer.status_code == 200
    delivery = Delivery.objects.get()
    assert delivery.source_id == {"/ok": "a", "/fail": "b"}[value["path"]]
    assert bytes(delivery.body).decode() == value["body_raw"]
    assert delivery.native_id == value["headers"]["X-MLflow-Delivery-Id"]
    assert "x-mlflow-signature" not in delivery.headers


def test_retried_delivery_is_stored_once(client, mlflow):
    found = hook("registered_model.created", {"name": "churn"}, now=timezone.now())
    answers = [send(client, found) for _ in range(4)]
    assert {(answer.status_code, answer.json()["delivery"]) for answer in answers} == {(200, Delivery.objects.get().pk)}


def test_poison_with_a_good_signature_is_kept(client, mlflow):
    for body in (b"", b"\xff\x00", b"not json", b"[" * 50_000):
        assert send(client, sign(body, secret=SECRET, now=timezone.now())).status_code == 200
    deliveries.process_waiting()
    assert set(Delivery.objects.values_list("state", flat=True)) == {"not understood"}


@pytest.mark.parametrize(
    "change",
    [
        {"X-MLflow-Signature": ""},
        {"X-MLflow-Signature": "v1,AAAA"},
        {"X-MLflow-Signature": "v1,\u00e9"},
        {"X-MLflow-Delivery-Id": ""},
        {"X-MLflow-Delivery-Id": "x" * 65},
        {"X-MLflow-Delivery-Id": "a b"},
        {"X-MLflow-Timestamp": "1"},
        {"X-MLflow-Timestamp": "now"},
        {"X-MLflow-Timestamp": ""},
    ],
)
def test_unsigned_or_old_delivery_is_refused_and_nothing_stored(client, mlflow, change):
    found = hook("registered_model.created", {"name": "churn"}, now=timezone.now())
    assert send(client, found, **change).status_code == 401
    assert Delivery.objects.count() == 0


def test_delivery_is_its_source_that_signed_it(client, mlflow):
    register("mlflow:test", "another")
    send(client, hook("registered_model.created", {"name": "a"}, now=timezone.now(), secret="another"))
    assert Delivery.objects.get().source_id == "mlflow:test"
    assert send(client, hook("x.y", {}, now=timezone.now(), secret="")).status_code == 401


def test_source_without_a_secret_is_no_door(client, db):
    register("open", "")
    assert send(client, hook("x.y", {}, now=timezone.now(), secret="")).status_code == 401


def test_unsigned_body_is_bounded(client, mlflow):
    answer = send(client, sign(b"x" * (hooks.MOST_UNSIGNED + 1), secret=SECRET, now=timezone.now()))
    assert (answer.status_code, Delivery.objects.count()) == (413, 0)


# Both


@pytest.mark.parametrize("count", [1, 3])
def test_hook_needs_the_same_few_queries(client, token, mlflow, django_assert_num_queries, count):
    notify(client, b"{}", token)
    for n in range(count - 1):
        register(f"more{n}", f"secret{n}")
    with django_assert_num_queries(7):  # token, source, and the stored bytes in their savepoints
        assert notify(client, b"{}", token).status_code == 200
    with django_assert_num_queries(6):  # sources, and the stored bytes in their savepoints
        assert send(client, hook("x.y", {}, now=timezone.now())).status_code == 200


def test_database_that_is_away_asks_to_send_again(client, token, mlflow, monkeypatch):
    def away(**_):
        raise OperationalError

    monkeypatch.setattr(Delivery.objects, "create", away)
    for answer in (notify(client, b"{}", token), send(client, hook("x.y", {}, now=timezone.now()))):
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")


def test_answer_waits_for_nothing_but_the_bytes(client, token, monkeypatch, django_capture_on_commit_callbacks):
    rung: list[str] = []
    monkeypatch.setattr(deliveries, "ring", rung.append)
    with django_capture_on_commit_callbacks(execute=True):
        notify(client, b"{}", token)
        assert rung == []
    assert rung == ["ingest.process_deliveries"]
    assert Delivery.objects.get().state == "waiting"
