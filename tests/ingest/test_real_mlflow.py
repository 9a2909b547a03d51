"""A real MLflow server: its webhooks and its answers make the same events, and its silences are found."""

from __future__ import annotations

import time

import pytest
from django.utils import timezone

from auditportal.catalog.models import Version
from auditportal.ingest import deliveries, sources
from auditportal.ingest.models import Delivery, Source
from auditportal.ledger.drafts import SYSTEM
from tests.ingest.conftest import bodies, pull
from tests.mlflows import running

pytestmark = pytest.mark.mlflow
SECRET = "whsec-real"
PATIENCE_S = 60.0
EVENTS = [
    ("REGISTERED_MODEL", "CREATED"), ("MODEL_VERSION", "CREATED"), ("MODEL_VERSION_TAG", "SET"), ("MODEL_VERSION_TAG", "DELETED"),
    ("MODEL_VERSION_ALIAS", "CREATED"), ("MODEL_VERSION_ALIAS", "DELETED"),
]  # fmt: skip


@pytest.fixture(scope="module")
def real(portal, tmp_path_factory):
    """The server, whose webhook leads to the portal."""
    with running(tmp_path_factory.mktemp("mlflow")) as server:
        sources.register(
            id="mlflow:real", kind="mlflow", url=server.url, hook_secret=SECRET, actor=SYSTEM, now=timezone.now()
        )
        events = [{"entity": entity, "action": action} for entity, action in EVENTS]
        server.call(
            "POST", "webhooks", name="portal", url=f"http://127.0.0.1:{portal.port}/hooks/mlflow/", secret=SECRET, events=events
        )  # fmt: skip
        time.sleep(2)  # it remembers its list of webhooks for a second
        yield server


@pytest.fixture
def source(real):
    return Source.objects.get(pk="mlflow:real")


def told(count):
    """Works off deliveries until so many have arrived and are settled."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        deliveries.process_waiting()
        settled = Delivery.objects.exclude(state="waiting").count()
        if settled >= count and not Delivery.objects.filter(state="waiting").exists():
            return
        time.sleep(0.1)
    raise AssertionError(list(Delivery.objects.values_list("state", "note")))


def changes():
    return [(body["subject"]["id"], body["metadata"]["fields"]) for body in bodies(action="source.changed_object")]


def test_life_of_a_model(real, source):
    run = real.call("POST", "runs/create", experiment_id="0", user_id="ceo", start_time=1)["run"]["info"]["run_id"]
    real.call("POST", "runs/log-metric", run_id=run, key="auc", value=0.9, timestamp=1)
    real.call("POST", "runs/log-parameter", run_id=run, key="n_estimators", value="120")
    real.call("POST", "runs/update", run_id=run, status="FINISHED", end_time=int(time.time() * 1000))
    real.call("POST", "registered-models/create", name="churn")
    for _ in range(2):
        real.call("POST", "model-versions/create", name="churn", source="s3://bucket/model", run_id=run)
    real.call("POST", "registered-models/alias", name="churn", alias="champion", version="1")
    real.call("POST", "model-versions/set-tag", name="churn", version="1", key="approved_by", value="alice")
    told(5)
    assert pull(source).state == "done"
    found = [(body["action"], body["subject"]["id"]) for body in bodies(source="mlflow:real")]
    assert sorted(found) == sorted(
        [
            ("model.created", "churn"), ("register", "churn:1"), ("register", "churn:2"), ("alias.set", "churn:1"),
            ("tag.set", "churn:1"), ("train", run),
        ]
    )  # fmt: skip
    assert changes() == []
    [trained] = bodies(action="train")
    assert trained["actor"]["assurance"] == "claimed"
    assert (trained["metadata"]["metrics"], trained["metadata"]["parameters"]) == (
        {"auc": 0.9},
        {"n_estimators": "120"},
    )
    # What MLflow tells nobody.
    real.call(
        "POST",
        "model-versions/transition-stage",
        name="churn",
        version="2",
        stage="Production",
        archive_existing_versions=False,
    )
    real.call("POST", "registered-models/set-tag", name="churn", key="owner", value="alice")
    real.call("POST", "runs/log-metric", run_id=run, key="auc", value=0.1, timestamp=2)
    real.call("DELETE", "model-versions/delete", name="churn", version="1")
    pull(source, is_full=True)
    assert sorted(changes()) == sorted(
        [
            (run, ["metrics.auc"]), ("churn", ["aliases.champion", "tags.owner"]), ("churn:2", ["stage"]), ("churn:1", ["deleted"]),
        ]
    )  # fmt: skip
    # A name that is given again.
    real.call("DELETE", "registered-models/delete", name="churn")
    real.call("POST", "registered-models/create", name="churn")
    real.call("POST", "model-versions/create", name="churn", source="s3://bucket/other", run_id=run)
    told(7)
    pull(source)
    assert sorted(Version.objects.values_list("label", flat=True)) == ["churn:1", "churn:1~2", "churn:2"]
    assert len(bodies(action="model.created")) == 2
    assert len(bodies(action="register")) == 3
    count = len(bodies())
    pull(source, is_full=True)
    assert len(bodies()) == count
