"""From a stored delivery to what is recorded: checked at the source, once, whatever comes in between."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection, connections
from django.utils import timezone

from auditportal.accounts.models import ActorAlias
from auditportal.catalog import queries as catalog
from auditportal.catalog.models import Snapshot, TagObservation, Version
from auditportal.ingest import deliveries, oci as notifications, sources
from auditportal.ingest.models import Delivery, Source
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Entry, Kept
from tests.fakes import mlflow as fake_mlflow
from tests.ingest.conftest import (
    bodies,
    deliver,
    notification,
    process,
    pull,
    receive,
    register_mlflow,
    register_oci,
    tell,
)

NOTIFICATIONS = Path(__file__).parents[1] / "samples" / "oci" / "notifications"
HOOKS = Path(__file__).parents[1] / "samples" / "mlflow" / "webhooks"
REPOSITORY = "acme/rf-model-audit"
OLD = "sha256:a09f306ba9ccf1d003fd1e95fa1d7fe79fe6d670e55a7eb69a58f1d73b8f3d65"
NEW = "sha256:fbf31a715261e3362c135c868f43b0ad10ddddac7ff3a2e22e18546be5f86a9d"


def sample(number):
    [path] = NOTIFICATIONS.glob(f"{number:02d}-*.json")
    return path.read_bytes()


def push(tag, digest, event):
    return notification(target={"tag": tag, "digest": digest}, id=event)


# Registries


def test_all_recorded_notifications_in_their_order(oci, registry):
    states = {number: deliver(oci, sample(number)).state for number in range(1, 26)}
    recorded = {number for number, state in states.items() if state == "recorded"}
    assert recorded == {3, 5, 6, 7, 8, 12, 13, 14, 16, 17, 18, 20, 25}
    assert set(states.values()) == {"recorded", "noted"}
    found = bodies(source="registry")
    assert [(body["action"], body["subject"]["id"]) for body in found] == [
        ("package", "acme/rf-model-audit:0.1.0"),
        ("package", "acme/rf-model-audit:0.2.0"),
        ("package", "acme/rf-model-audit:0.1.0"),
        ("package", "acme/rf-model-audit:0.2.0"),
        ("access.download", "acme/rf-model-audit:0.1.0"),
        ("delete", "acme/other"),
        ("delete", "acme/rf-model-audit:0.1.0"),
        ("access.download", REPOSITORY),
        ("access.download", REPOSITORY),
        ("package", "team/x:v1"),
        ("access.download", "acme/rf-model-audit:0.2.0"),
        ("package", "acme/old:v0"),
    ]
    assert {body["actor"]["assurance"] for body in found} == {"unknown", "claimed"}


def test_push_is_checked_at_the_source(oci, registry):
    delivery = deliver(oci, sample(3))
    [body] = bodies(action="package")
    assert body["metadata"]["state"] == "manifest checked"
    assert body["metadata"]["digests"][0] == {"kind": "oci_manifest", "sha256": OLD.removeprefix("sha256:")}
    assert body["metadata"]["tag"] == "0.1.0"
    assert body["timestamp_kind"] == "claimed"
    assert [item["type"] for item in body["related"]] == ["run"]
    version = catalog.find_version("acme/rf-model-audit:0.1.0")
    assert (version.manifest_digest, version.card_state, version.format) == (OLD, "checked", "kit")
    assert version.layers.count() == 4
    assert delivery.events == [Entry.objects.get(source="registry").seq]
    assert bytes(Kept.objects.get(seq=delivery.events[0], kind="raw").content) == sample(3)


def test_moved_tag_names_where_it_stood(oci, registry):
    for number in (3, 5, 6, 7):
        deliver(oci, sample(number))
    assert [body["metadata"].get("tag_was") for body in bodies(action="package")] == [None, None, None, OLD]
    history = TagObservation.objects.filter(tag="latest").order_by("id").values_list("digest", flat=True)
    assert list(history) == [OLD, NEW]


def test_late_notification_does_not_turn_the_tags_history_back(oci, registry):
    deliver(oci, sample(7))  # latest, moved to 0.2.0
    deliver(oci, sample(6))  # latest, at 0.1.0 before
    assert [item.digest for item in TagObservation.objects.filter(tag="latest")] == [NEW]
    assert bodies(action="package")[1]["metadata"]["tag_now"] == NEW


def test_tag_given_again_makes_another_version(oci, registry):
    deliver(oci, push("v1", OLD, "e1"))
    deliver(oci, push("v1", NEW, "e2"))
    assert sorted(Version.objects.values_list("label", flat=True)) == [f"{REPOSITORY}:v1", f"{REPOSITORY}:v1~2"]


def test_delete_told_twice_is_one_event_in_either_order(oci, registry):
    deliver(oci, sample(3))
    del registry.tags[REPOSITORY]["0.1.0"]
    first, second = deliver(oci, sample(14)), deliver(oci, sample(13))
    [body] = bodies(action="delete")
    assert body["subject"] == {"type": "model_version", "id": "acme/rf-model-audit:0.1.0"}
    assert first.events == second.events
    assert "0.1.0" not in [item.tag for item in catalog.current_tags("registry", REPOSITORY)]


def test_delete_that_the_registry_contradicts_leaves_the_tag(oci, registry):
    deliver(oci, sample(3))
    deliver(oci, sample(14))  # but the registry still has it: it was pushed again
    assert bodies(action="delete")[0]["metadata"]["tag_now"] == OLD
    assert [item.tag for item in catalog.current_tags("registry", REPOSITORY)] == ["0.1.0"]


def test_our_own_pulls_are_noted_and_not_recorded(oci, registry):
    from auditportal.connectors.http import USER_AGENT

    delivery = deliver(oci, notification(action="pull", request={"method": "GET", "useragent": USER_AGENT}))
    assert (delivery.state, delivery.note, bodies(source="registry")) == ("noted", "our own pull", [])


def test_push_under_our_user_agent_is_recorded(oci, registry):
    from auditportal.connectors.http import USER_AGENT

    assert deliver(oci, notification(request={"useragent": USER_AGENT})).state == "recorded"


def test_person_stands_as_a_claimed_pseudonym(oci, registry):
    deliver(oci, notification(actor={"name": "alice@corp"}))
    [body] = bodies(action="package")
    assert body["actor"]["assurance"] == "claimed"
    assert body["actor"]["id"].startswith("usr_")
    assert "alice" not in json.dumps(body)
    assert ActorAlias.objects.get(name="alice@corp").actor_id == body["actor"]["id"]


def test_pull_of_an_unknown_digest_says_so(oci, registry):
    deliver(oci, sample(17))
    assert bodies(action="access.download")[0]["metadata"]["caution"] == "no version with this digest is known"


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        (lambda registry: registry.manifests[REPOSITORY].pop(OLD), "missing"),
        (lambda registry: registry.fail(f"/manifests/{OLD}", body=b'{"schemaVersion":2}'), "mismatch"),
        (lambda registry: registry.fail(f"/manifests/{OLD}", close_after=10), "truncated"),
    ],
    ids=["missing", "mismatch", "truncated"],
)
def test_push_of_what_is_not_there_is_recorded_with_its_state(oci, registry, damage, state):
    damage(registry)
    deliver(oci, sample(3))
    [body] = bodies(action="package")
    assert body["metadata"]["state"] == state
    assert "digests" not in body["metadata"]  # we computed none
    assert body["metadata"]["digest"] == OLD
    assert catalog.find_version("acme/rf-model-audit:0.1.0").check_state == state


def test_source_that_is_down_is_asked_again_and_then_reported_only(oci, registry):
    registry.fail(status=500)
    delivery = receive(oci, sample(3))
    now = timezone.now()
    waits = []
    for _ in range(5):
        assert deliveries.process_waiting(now=lambda: now) == 1  # noqa: B023 -- used at once
        delivery.refresh_from_db()
        waits.append(int((delivery.next_attempt_at - now).total_seconds()))
        assert deliveries.process_waiting(now=lambda: now) == 0  # noqa: B023 -- as above
        now = delivery.next_attempt_at
    assert waits[:4] == [5, 30, 120, 600]
    assert delivery.state == "recorded"
    [body] = bodies(action="package")
    assert body["metadata"]["state"] == "unreachable"
    assert "500" in body["metadata"]["note"]
    registry.faults.clear()
    deliver(oci, push("again", OLD, "e9"))
    assert catalog.find_version("acme/rf-model-audit:0.1.0").manifest is not None  # filled in since


def test_source_that_comes_back_in_time_is_checked(oci, registry):
    registry.fail(status=503, times=3)
    delivery = receive(oci, sample(3))
    assert process() == 1
    delivery.refresh_from_db()
    assert (delivery.state, "503" in delivery.note) == ("waiting", True)
    deliveries.process_waiting(now=lambda: timezone.now() + timedelta(hours=2))
    delivery.refresh_from_db()
    assert (delivery.state, delivery.note) == ("recorded", "")
    assert bodies(action="package")[0]["metadata"]["state"] == "manifest checked"


POISON = [
    b"",
    b"\x00",
    b"not json",
    b"{}",
    b'{"events":[{"target":{"repository":"../../x"}}]}',
    b"[" * 50_000,
    "\ud800".encode("utf-8", "surrogatepass"),
]


@pytest.mark.parametrize("body", POISON)
def test_poison_is_kept_shown_and_stops_nothing(oci, mlflow, registry, server, body):
    bad = [receive(oci, body), receive(mlflow, body, native_id="d1"), receive(None, body, kind="oci")]
    good = receive(oci, sample(3))
    assert process() == 4
    for delivery in bad:
        delivery.refresh_from_db()
        assert (delivery.state, bytes(delivery.body)) == ("not understood", body)
        assert delivery.note
    good.refresh_from_db()
    assert good.state == "recorded"


def test_kit_full_of_what_no_database_keeps_is_recorded(oci, registry):
    kitfile = (
        b'{"package":{"name":"a\\u0000b\\ud800"},"model":{"path":"m\\u0000","metrics":{"a":NaN,"b":1e999}},"x":'
        + b'{"y":' * 200
        + b"1"
        + b"}" * 201
    )
    digest = registry.put_kit("acme/odd", "v1", kitfile, [("application/vnd.kitops.modelkit.model.v1.tar", b"x")])
    delivery = deliver(oci, notification(target={"repository": "acme/odd", "tag": "v1", "digest": digest}))
    assert delivery.state == "recorded"
    assert catalog.find_version("acme/odd:v1").metrics == {}


def test_failure_inside_waits_and_is_put_aside_in_the_end(oci, registry, caplog, monkeypatch):
    monkeypatch.setattr(notifications, "read", lambda *_, **__: 1 / 0)
    delivery = receive(oci, sample(3))
    good = receive(oci, b"{}")
    for hours in range(1, 6):
        deliveries.process_waiting(now=lambda: timezone.now() + timedelta(hours=hours))  # noqa: B023 -- used at once
    delivery.refresh_from_db()
    good.refresh_from_db()
    assert (delivery.state, "worker's log" in delivery.note) == ("not understood", True)
    assert good.state == "not understood"
    assert "a deliver" in caplog.text


def test_delivery_that_kills_its_workers_is_given_up(oci):
    delivery = receive(oci, sample(3))
    Delivery.objects.filter(pk=delivery.pk).update(attempts=deliveries.MOST_ATTEMPTS)
    process()
    delivery.refresh_from_db()
    assert (delivery.state, "died" in delivery.note) == ("not understood", True)


def test_same_notification_in_two_deliveries_is_one_event(oci, registry):
    first, second = deliver(oci, sample(3)), deliver(oci, sample(3))
    assert first.events == second.events
    assert len(bodies(action="package")) == 1


def test_known_id_with_another_repository_is_a_recorded_conflict(oci, registry):
    deliver(oci, notification())
    delivery = deliver(oci, notification(target={"repository": "acme/old", "tag": "v0"}))
    assert delivery.state == "not understood"
    [conflict] = bodies(action="source.conflict")
    assert conflict["outcome"] == "refused"
    assert str(Entry.objects.order_by("-seq").first().seq) in delivery.note


def test_envelope_of_many_events_is_all_of_it(oci, registry):
    events = [json.loads(sample(number))["events"][0] for number in (1, 3, 5, 13)]
    delivery = deliver(oci, json.dumps({"events": events}).encode())
    assert (delivery.state, len(delivery.events)) == ("recorded", 3)
    assert delivery.note == "push of a blob"


def test_large_envelope_is_not_copied_beside_each_of_its_events(oci, registry, monkeypatch):
    monkeypatch.setattr(deliveries, "MOST_RAW", 100)
    delivery = deliver(oci, sample(3))
    assert "raw" not in bodies(action="package")[0]["source"]
    assert bytes(delivery.body) == sample(3)


def test_source_that_is_switched_off_keeps_what_arrives_and_asks_nothing(oci, registry):
    sources.set_active(source=oci, is_active=False, reason="moves", actor=SYSTEM, now=timezone.now())
    delivery = receive(oci, sample(3))
    assert process() == 0
    assert registry.requests == []
    sources.set_active(source=oci, is_active=True, reason="moved", actor=SYSTEM, now=timezone.now())
    process()
    delivery.refresh_from_db()
    assert delivery.state == "recorded"


# MLflow


def test_test_delivery_makes_no_event(mlflow, server):
    body = json.loads(next(HOOKS.glob("001_*.json")).read_bytes())["body_raw"].encode()
    delivery = deliver(mlflow, body, native_id="d1")
    assert (delivery.state, bodies(source="mlflow:prod"), server.requests) == ("test received", [], [])


def test_all_recorded_hooks_are_settled(mlflow, server):
    server.create_version("rf-iris")
    for path in sorted(HOOKS.glob("*.json")):
        value = json.loads(path.read_bytes())
        deliver(mlflow, value["body_raw"].encode(), native_id=value["headers"].get("X-MLflow-Delivery-Id", path.stem))
    states = set(Delivery.objects.values_list("state", flat=True))
    assert states == {"recorded", "noted", "test received"}
    assert {body["action"] for body in bodies(source="mlflow:prod")} == {
        "register", "model.created", "alias.set", "alias.removed", "tag.set", "tag.removed",
    }  # fmt: skip


def test_hook_and_pull_make_one_event_whichever_comes_first(mlflow, server):
    version = server.create_version("churn", run_id="r1", source="models:/m-6c6df6ee263e46129d59b74870e91be2")
    tell(mlflow, "registered_model.created", {"name": "churn"})
    tell(mlflow, "model_version.created", {"name": "churn", "version": "1", "run_id": None})
    pull(mlflow)
    [body] = bodies(action="register")
    assert body["subject"]["id"] == "churn:1"
    assert [item["type"] for item in body["related"]] == ["logged_model", "run"]  # which the hook did not say
    assert body["timestamp"].startswith("2026-")
    assert len(bodies(action="model.created")) == 1
    server.create_version("churn")
    pull(mlflow)
    late = tell(mlflow, "model_version.created", {"name": "churn", "version": "2"})
    assert (late.state, late.note) == ("noted", "a pull had recorded it already")
    assert [body["subject"]["id"] for body in bodies(action="register")] == ["churn:1", "churn:2"]
    assert bodies(action="source.changed_object") == []
    assert version["version"] == "1"


def test_repeated_delivery_is_stored_once(mlflow, server):
    hook = fake_mlflow.hook("registered_model.created", {"name": "churn"}, now=timezone.now())
    first = receive(mlflow, hook.body, native_id=hook.delivery_id)
    assert receive(mlflow, hook.body, native_id=hook.delivery_id).pk == first.pk
    assert Delivery.objects.count() == 1


def test_two_hooks_for_one_act_make_one_event(mlflow, server):
    server.create_model("churn")
    for _ in range(2):
        tell(mlflow, "registered_model.created", {"name": "churn"})
    assert len(bodies(action="model.created")) == 1


def test_server_down_for_long_is_reported_only_and_the_later_pull_adds_nothing(mlflow, server):
    server.status = 503
    server.now_ms = int(timezone.now().timestamp() * 1000)
    server.create_version("churn")
    for name, data in (
        ("registered_model.created", {"name": "churn"}),
        ("model_version.created", {"name": "churn", "version": "1", "source": "models:/x"}),
    ):
        delivery = receive(mlflow, fake_mlflow.hook(name, data, now=timezone.now()).body, native_id=name)
        for hours in range(1, 6):
            deliveries.process_waiting(now=lambda: timezone.now() + timedelta(hours=hours))  # noqa: B023 -- used at once
        delivery.refresh_from_db()
        assert delivery.state == "recorded"
        assert delivery.note.startswith("reported only, the server did not answer")
    server.status = 0
    pull(mlflow)
    pull(mlflow)
    assert [body["action"] for body in bodies(source="mlflow:prod")] == ["model.created", "register"]
    assert Version.objects.get().label == "churn:1"
    assert bodies(action="source.changed_object") == []
    server.set_tag("churn", "1", "a", "b")
    pull(mlflow)
    assert len(bodies(action="source.changed_object")) == 1


def test_told_of_after_a_pull_had_seen_it_is_the_same_object(mlflow, server):
    server.now_ms = int(timezone.now().timestamp() * 1000)
    server.create_version("churn")
    pull(mlflow)
    server.status = 500
    hook = fake_mlflow.hook("model_version.created", {"name": "churn", "version": "1"}, now=timezone.now())
    receive(mlflow, hook.body, native_id="late")
    for hours in range(1, 6):
        deliveries.process_waiting(now=lambda: timezone.now() + timedelta(hours=hours))  # noqa: B023 -- used at once
    assert Version.objects.count() == 1
    assert len(bodies(action="register")) == 1


def test_created_and_gone_before_we_asked(mlflow, server):
    delivery = tell(mlflow, "model_version.created", {"name": "churn", "version": "1"})
    assert (delivery.state, "gone from the server since" in delivery.note) == ("recorded", True)
    pull(mlflow)
    [gone] = bodies(action="source.changed_object")
    assert (gone["subject"]["id"], gone["metadata"]["fields"]) == ("churn:1", ["deleted"])


def test_alias_told_and_seen_is_one_event_with_where_it_stood(mlflow, server):
    server.create_version("churn")
    server.create_version("churn")
    server.set_alias("churn", "champion", "1")
    pull(mlflow)
    server.set_alias("churn", "champion", "2")
    tell(mlflow, "model_version_alias.created", {"name": "churn", "alias": "champion", "version": "2"})
    pull(mlflow)
    [body] = bodies(action="alias.set")
    assert body["subject"]["id"] == "churn:2"
    assert body["metadata"] == {"state": "checked", "alias": "champion", "value": "2", "before": "1"}
    assert bodies(action="source.changed_object") == []


def test_alias_that_moved_on_loses_no_change(mlflow, server):
    for _ in range(3):
        server.create_version("churn")
    pull(mlflow)
    server.set_alias("churn", "champion", "3")  # while the delivery about 2 was on its way, and the other was lost
    tell(mlflow, "model_version_alias.created", {"name": "churn", "alias": "champion", "version": "2"})
    [told], [found] = bodies(action="alias.set"), bodies(action="source.changed_object")
    assert told["metadata"]["state"] == "reported only"
    assert found["metadata"]["changes"] == {"aliases.champion": {"after": "3"}}


def test_tag_told_of_leaves_other_silent_changes_to_be_found(mlflow, server):
    server.create_version("churn")
    pull(mlflow)
    server.set_tag("churn", "1", "validation", "approved")
    server.versions["churn", "1"]["current_stage"] = "Production"
    tell(mlflow, "model_version_tag.set", {"name": "churn", "version": "1", "key": "validation", "value": "approved"})
    [found] = bodies(action="source.changed_object")
    assert found["metadata"]["fields"] == ["stage"]
    assert bodies(action="tag.set")[0]["metadata"]["state"] == "checked"


def test_mark_on_a_number_given_again_belongs_to_the_version_made_last(mlflow, server):
    server.create_version("churn")
    pull(mlflow)
    server.delete_model("churn")
    server.create_version("churn")
    pull(mlflow)
    tell(mlflow, "model_version_tag.set", {"name": "churn", "version": "1", "key": "k", "value": "v"})
    assert bodies(action="tag.set")[0]["subject"]["id"] == "churn:1~2"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("registered_model.created", {}),
        ("registered_model.created", {"name": 7}),
        ("model_version.created", {"name": "a"}),
        ("model_version.created", {"name": "a" * 600, "version": "1"}),
        ("model_version_tag.set", {"name": "a", "key": "k"}),
        ("model_version_alias.created", {"name": "a"}),
    ],
)
def test_hook_without_its_members_is_not_understood(mlflow, server, name, data):
    assert tell(mlflow, name, data).state == "not understood"


def test_prompts_and_budgets_are_noted(mlflow, server):
    for name in ("prompt.created", "budget_policy.exceeded", "prompt_alias.created", "brand_new.event"):
        assert tell(mlflow, name, {"name": "x"}).state == "noted"


def test_forged_user_is_only_claimed(mlflow, server):
    server.end_run(user_id="ceo", tags={"mlflow.user": "ceo"})
    pull(mlflow)
    [body] = bodies(action="train")
    assert body["actor"]["assurance"] == "claimed"
    assert "ceo" not in json.dumps(body)


# Crashes and races, with real commits


@pytest.fixture
def stored(committed, registry, server):
    """Both sources in a database of its own."""
    yield register_oci(registry), register_mlflow(server)
    connections.close_all()


def test_killed_between_storing_and_processing_nothing_is_lost(stored, registry):
    from auditportal.ingest import tasks

    oci_source, _ = stored
    delivery = receive(oci_source, sample(3))  # and the process that stored it is gone
    tasks.process_deliveries()
    delivery.refresh_from_db()
    assert delivery.state == "recorded"


def test_killed_while_processing_it_is_taken_up_after_its_lease(stored, registry):
    oci_source, _ = stored
    delivery = receive(oci_source, sample(3))
    now = timezone.now()
    assert deliveries._claim(now) == delivery  # and the worker dies
    assert deliveries.process_waiting(now=lambda: now + deliveries.LEASE / 2) == 0
    assert deliveries.process_waiting(now=lambda: now + deliveries.LEASE * 2) == 1
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts, len(bodies(action="package"))) == ("recorded", 2, 1)


def test_slow_worker_whose_delivery_was_taken_over_writes_nothing(stored, registry, caplog):
    oci_source, _ = stored
    delivery = receive(oci_source, sample(3))
    slow = deliveries._claim(timezone.now())
    deliveries.process_waiting(now=lambda: timezone.now() + deliveries.LEASE * 2)
    with pytest.raises(deliveries._TakenOverError):
        deliveries._understand(slow, timezone.now(), is_last=False)
    deliveries._put_aside(slow, "too late", timezone.now())
    delivery.refresh_from_db()
    assert (delivery.state, delivery.note) == ("recorded", "")
    assert TagObservation.objects.count() == 1


def test_many_workers_record_nothing_twice_and_nothing_is_left(stored, registry, server):
    oci_source, mlflow_source = stored
    for n in range(12):
        server.create_version(f"m{n % 3}")
        digest = registry.put_kit(f"acme/k{n % 4}", f"v{n}", {"package": {"name": str(n)}})
        receive(
            oci_source,
            notification(target={"repository": f"acme/k{n % 4}", "tag": f"v{n}", "digest": digest}, id=f"e{n}"),
        )
    for (name, number), _ in list(server.versions.items()):
        for repeat in range(2):
            hook = fake_mlflow.hook("model_version.created", {"name": name, "version": number}, now=timezone.now())
            receive(mlflow_source, hook.body, native_id=f"{name}{number}{repeat}")
    faults: list[BaseException] = []

    def work(name):
        try:
            if name == "pull":
                pull(mlflow_source)
            else:
                deliveries.process_waiting(now=lambda: timezone.now() + timedelta(hours=1))
        except BaseException as error:  # noqa: BLE001 -- whatever a thread meets must reach the assertion
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c", "d", "pull")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert faults == []
    process()
    assert set(Delivery.objects.values_list("state", flat=True)) <= {"recorded", "noted"}
    registered = [body["subject"]["id"] for body in bodies(action="register")]
    assert sorted(registered) == sorted(f"m{n}:{v}" for n in range(3) for v in range(1, 5))
    assert len(bodies(action="package")) == 12
    assert Version.objects.filter(label__contains="~").count() == 0
    assert Snapshot.objects.filter(type="model_version").count() == 12
    assert Source.objects.count() == 2


def test_known_id_with_another_digest_is_no_repetition(oci):
    assert deliver(oci, notification()).state == "recorded"
    told = deliver(oci, notification(target={"digest": NEW, "tag": "0.2.0"}))
    assert told.state == "not understood"
    assert "recorded with other content" in told.note
    assert len(bodies(action="package")) == len(bodies(action="source.conflict")) == 1


def test_delivery_id_of_one_source_takes_nothing_from_another(mlflow, server):
    other = register_mlflow(server, id="mlflow-2")
    hook = fake_mlflow.hook("registered_model.created", {"name": "m"}, now=timezone.now())
    first = receive(mlflow, hook.body, native_id=hook.delivery_id)
    assert receive(other, hook.body, native_id=hook.delivery_id).pk != first.pk
    assert receive(mlflow, hook.body, native_id=hook.delivery_id).pk == first.pk
