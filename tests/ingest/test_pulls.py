"""What a pull finds by comparing, when nobody told of it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from auditportal.catalog.models import Snapshot, Version
from auditportal.connectors import mlflow as connector
from auditportal.ingest import pulls, sources
from auditportal.ingest.models import Delivery, Source
from auditportal.jobs.models import Job
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Entry
from tests.ingest.conftest import bodies, pull, register_oci


def changes():
    return bodies(action="source.changed_object")


@pytest.fixture
def pulled(mlflow, server):
    """A model with two versions, seen once."""
    for _ in range(2):
        server.create_version("churn")
    server.set_alias("churn", "champion", "1")
    server.set_tag("churn", "1", "validation", "pending")
    pull(mlflow)
    return mlflow


def test_first_pull_records_what_is_there_and_the_next_one_nothing(mlflow, server):
    server.create_version("churn", run_id="r1")
    server.end_run(run_id="r1", params={"n": "1"}, metrics={"auc": 0.9}, tags={"mlflow.source.git.commit": "abc"})
    first = pull(mlflow)
    assert first.result == {"runs": 1, "new": 2, "changed": 0, "gone": 0, "not_understood": 0}
    assert [body["action"] for body in bodies(source="mlflow:prod")] == ["train", "model.created", "register"]
    count = Entry.objects.count()
    second = pull(mlflow)
    assert second.result == {"runs": 0, "new": 0, "changed": 0, "gone": 0, "not_understood": 0}
    assert Entry.objects.count() == count
    mlflow.refresh_from_db()
    assert mlflow.pulled_at is not None
    assert mlflow.pull_error == ""


def test_run_says_what_it_reports_and_what_not(mlflow, server):
    server.end_run(params={"n_estimators": "120", "random_state": "42"}, metrics={"auc": 0.9, "bad": float("nan")})
    server.end_run(status="FAILED")
    pull(mlflow)
    done, failed = bodies(action="train")
    assert (done["outcome"], failed["outcome"]) == ("done", "failed")
    assert done["metadata"]["seed"] == "42"
    assert done["metadata"]["metrics"] == {"auc": 0.9}
    assert (done["metadata"]["commit"], done["metadata"]["datasets"]) == ("not reported", "not reported")


@pytest.mark.parametrize(
    ("change", "subject", "field", "shown"),
    [
        (lambda s: s.set_alias("churn", "champion", "2"), "churn", "aliases.champion", {"before": "1", "after": "2"}),
        (lambda s: s.remove_alias("churn", "champion"), "churn", "aliases.champion", {"before": "1"}),
        (lambda s: s.set_model_tag("churn", "owner", "alice"), "churn", "tags.owner", {"after": None}),
        (lambda s: s.models["churn"].update(description="x"), "churn", "description", {"before": None, "after": None}),
        (lambda s: s.set_tag("churn", "1", "validation", "approved"), "churn:1", "tags.validation", {"before": None, "after": None}),
        (lambda s: s.versions["churn", "2"].update(current_stage="Production"), "churn:2", "stage", {"before": "None", "after": "Production"}),
        (lambda s: s.versions["churn", "2"].update(source="s3://else"), "churn:2", "artifact", {"before": None, "after": None}),
    ],
    ids=["alias moved", "alias removed", "model tag", "description", "version tag", "stage", "artifact"],
)  # fmt: skip
def test_silent_change_is_found_with_both_bounds(pulled, server, change, subject, field, shown):
    seen = Snapshot.objects.order_by("-seen_at").first().seen_at
    change(server)
    assert pull(pulled).result["changed"] == 1
    [body] = changes()
    assert body["subject"]["id"] == subject
    assert body["actor"]["id"] == "unknown"
    assert body["timestamp_kind"] == "observed"
    assert body["not_before"] <= seen.isoformat().replace("+00:00", "Z") < body["timestamp"]
    assert body["metadata"]["fields"] == [field]
    found = body["metadata"]["changes"][field]
    assert found.keys() == shown.keys()
    for part, text in shown.items():
        if text is None:
            assert found[part].keys() == {"$sealed"}  # it may be personal
        else:
            assert found[part] == text
    assert "alice" not in json.dumps(body)
    assert pull(pulled).result["changed"] == 0


def test_deleted_version_and_model_are_found_once(pulled, server):
    server.delete_version("churn", "1")
    pull(pulled)
    server.delete_model("churn")
    pull(pulled)
    pull(pulled)
    assert [(body["subject"]["id"], body["metadata"]["fields"]) for body in changes()] == [
        ("churn:1", ["deleted"]), ("churn", ["deleted"]), ("churn:2", ["deleted"]),
    ]  # fmt: skip
    assert all(body["not_before"] < body["timestamp"] for body in changes())
    assert Version.objects.count() == 2  # what we know of them stays


def test_model_made_anew_is_another_model_with_other_versions(pulled, server):
    server.delete_model("churn")
    server.create_version("churn")
    pull(pulled)
    assert sorted(Version.objects.values_list("label", flat=True)) == ["churn:1", "churn:1~2", "churn:2"]
    assert [body["subject"]["id"] for body in bodies(action="register")] == ["churn:1", "churn:2", "churn:1~2"]
    assert len(bodies(action="model.created")) == 2
    assert [body["subject"]["id"] for body in changes()] == ["churn", "churn:1", "churn:2"]


def test_what_comes_back_is_told_of(pulled, server):
    version = server.versions["churn", "1"]
    server.delete_version("churn", "1")
    pull(pulled)
    server.versions["churn", "1"] = version
    pull(pulled)
    assert [body["metadata"]["fields"] for body in changes()] == [["deleted"], ["restored"]]
    assert len(bodies(action="register")) == 2


def test_page_that_skips_an_object_deletes_nothing(pulled, server, monkeypatch):
    whole = connector.Server.versions
    monkeypatch.setattr(connector.Server, "versions", lambda self: whole(self)[:1])
    assert pull(pulled).result["gone"] == 0
    assert changes() == []


def test_server_that_fails_half_way_deletes_nothing_and_is_told(pulled, server):
    server.status = 500
    job = pull(pulled)
    pulled.refresh_from_db()
    assert (job.state, job.error) == ("failed", "answered 500: the server failed")
    assert pulled.pull_error == "answered 500: the server failed"
    server.status = 0
    assert pull(pulled).state == "done"
    pulled.refresh_from_db()
    assert pulled.pull_error == ""
    assert changes() == []


@pytest.mark.parametrize("body", [b"{}", b"<html>", b"[]", b'{"registered_models":7}'])
def test_answers_that_are_none_delete_nothing(pulled, server, body, monkeypatch):
    # Even a good-looking empty answer is not believed: each absence is asked for by name, and that fails.
    server.body = body
    job = pull(pulled)
    assert job.state == "failed"
    assert changes() == []


def test_prompts_are_no_models(mlflow, server):
    server.create_version("a prompt")
    server.set_model_tag("a prompt", "mlflow.prompt.is_prompt", "true")
    pull(mlflow)
    assert bodies(source="mlflow:prod") == []


# Runs


def test_runs_are_read_from_where_the_last_pull_ended(mlflow, server):
    server.end_run(end_time=1000)
    pull(mlflow)
    server.end_run(end_time=2000)
    server.end_run(end_time=500)  # dated before: only a full pull finds it
    assert pull(mlflow).result["runs"] == 1
    assert pull(mlflow, is_full=True).result["runs"] == 1
    assert len(bodies(action="train")) == 3


def test_end_in_the_future_hides_nothing(mlflow, server):
    ahead = int((timezone.now() + timedelta(days=400)).timestamp() * 1000)
    server.end_run(end_time=ahead)
    pull(mlflow)
    mlflow.refresh_from_db()
    assert mlflow.watermark["end_time"] < ahead
    server.end_run(end_time=int((timezone.now() + timedelta(seconds=5)).timestamp() * 1000))
    assert pull(mlflow).result["runs"] == 1
    assert len(bodies(action="train")) == 2


def test_many_runs_of_one_moment_are_all_recorded(mlflow, server, monkeypatch):
    monkeypatch.setattr(connector, "PAGE", 5)
    monkeypatch.setattr(pulls, "CHUNK", 4)
    for n in range(23):
        server.end_run(end_time=1000 if n < 17 else 2000 + n)
    assert pull(mlflow).result["runs"] == 23
    assert len(bodies(action="train")) == 23
    assert pull(mlflow).result["runs"] == 0


def test_finished_run_that_is_edited_afterwards_is_found_by_a_full_pull(mlflow, server):
    run = server.end_run(metrics={"accuracy": 0.1}, tags={"mlflow.user": "root"})
    pull(mlflow)
    server.end_run()  # the edited one is not the newest any more
    pull(mlflow)
    run["data"]["metrics"] = [{"key": "accuracy", "value": 1.0}]
    run["data"]["tags"] = [{"key": "mlflow.user", "value": "ceo"}]
    assert pull(mlflow).result["changed"] == 0
    assert pull(mlflow, is_full=True).result["changed"] == 1
    [body] = changes()
    assert body["subject"] == {"type": "run", "id": run["info"]["run_id"]}
    assert body["metadata"]["changes"]["metrics.accuracy"] == {"before": "0.1", "after": "1.0"}
    assert "ceo" not in json.dumps(body)


def test_purged_run_is_found_by_a_full_pull(mlflow, server):
    run = server.end_run()
    pull(mlflow)
    del server.runs[run["info"]["run_id"]]
    assert pull(mlflow).result["gone"] == 0
    assert pull(mlflow, is_full=True).result["gone"] == 1


def test_soft_deleted_run_shows_as_a_change(mlflow, server):
    run = server.end_run()
    pull(mlflow)
    run["info"]["lifecycle_stage"] = "deleted"
    pull(mlflow, is_full=True)
    assert changes()[0]["metadata"]["changes"] == {"lifecycle_stage": {"before": "active", "after": "deleted"}}


def test_bad_object_is_kept_aside_once_and_keeps_nothing_else_out(mlflow, server):
    server.end_run(run_id="good")
    server.runs["bad\nname"] = {
        **server.end_run(run_id="x"),
        "info": {**server.runs["x"]["info"], "run_id": "bad\nname"},
    }
    server.create_version("m" * 500)
    server.create_version("fine")
    for _ in range(2):
        assert pull(mlflow).result["not_understood"] == 3
    assert {body["subject"]["id"] for body in bodies(source="mlflow:prod")} == {"good", "x", "fine", "fine:1"}
    kept = Delivery.objects.filter(state=Delivery.State.UNKNOWN)
    assert kept.count() == 3
    assert all(item.note.startswith("pulled: ") for item in kept)
    assert any(b"bad\\nname" in bytes(item.body) for item in kept)


def test_event_that_cannot_be_made_is_kept_aside_and_the_chunk_goes_on(mlflow, server, monkeypatch):
    from auditportal.ingest import mlflow as adapter

    make = adapter.run_draft

    def sometimes(value, **options):
        draft = make(value, **options)
        return draft if value["info"]["run_id"] != "bad" else type(draft)(**{**_members(draft), "action": "No Action"})

    monkeypatch.setattr(adapter, "run_draft", sometimes)
    for run_id in ("a", "bad", "c"):
        server.end_run(run_id=run_id)
    assert pull(mlflow).result["runs"] == 2
    assert [body["subject"]["id"] for body in bodies(action="train")] == ["a", "c"]
    assert "no event can be made of it" in Delivery.objects.get().note
    assert Snapshot.objects.filter(type="run").count() == 2


def _members(draft):
    import dataclasses

    return {field.name: getattr(draft, field.name) for field in dataclasses.fields(draft)}


# The job


def test_every_active_server_is_pulled_and_a_registry_never(pulled, registry):
    oci = register_oci(registry)
    sources.set_active(source=pulled, is_active=False, reason="x", actor=SYSTEM, now=timezone.now())
    assert pulls.request_all() == 0
    for source, reason in ((pulled, "the source is switched off"), (oci, "a registry is not pulled")):
        job = pull(source)
        assert (job.state, reason in job.error) == ("failed", True)


def test_pull_now_while_one_waits_is_that_one_and_a_full_one_is_another(mlflow):
    first, again, full = pulls.request(mlflow), pulls.request(mlflow), pulls.request(mlflow, is_full=True)
    assert first.pk == again.pk != full.pk
    assert Job.objects.count() == 2


def test_cancelled_pull_keeps_what_it_has_and_goes_on_the_next_time(mlflow, server, monkeypatch):
    from auditportal.jobs import services as jobs

    monkeypatch.setattr(jobs, "BEAT_S", 0.0)
    server.end_run()
    server.create_version("churn")
    take = pulls.take_run

    def cancelling(value, **options):
        jobs.cancel(Job.objects.get(state="running").pk)
        return take(value, **options)

    monkeypatch.setattr(pulls, "take_run", cancelling)
    assert pull(mlflow).state == "cancelled"
    monkeypatch.setattr(pulls, "take_run", take)
    assert pull(mlflow).state == "done"
    assert [body["action"] for body in bodies(source="mlflow:prod")] == ["train", "model.created", "register"]


def test_unchanged_objects_cost_no_query_each(mlflow, server, django_assert_max_num_queries):
    for n in range(60):
        server.create_version(f"m{n % 6}")
    pull(mlflow)
    with django_assert_max_num_queries(60):
        pull(mlflow)
    assert Source.objects.get(pk=mlflow.pk).pull_error == ""
