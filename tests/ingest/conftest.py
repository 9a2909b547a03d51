"""Sources that are fakes on loopback, and what was recorded from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from auditportal.connectors.oci import Registry
from auditportal.ingest import deliveries, pulls, sources
from auditportal.ingest.models import Delivery, Source
from auditportal.jobs import services as jobs
from auditportal.jobs.models import Job
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Body
from tests.fakes import mlflow as fake_mlflow, registry as fake_registry
from tests.fakes.mlflow import FakeMlflow
from tests.fakes.registry import FakeRegistry

HOOK_SECRET = "whsec-test"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its attempts the registry client would sleep for real."""
    monkeypatch.setattr(sources, "registry", _impatient(sources.registry))


def _impatient(make: Callable[[Source], Registry]) -> Callable[[Source], Registry]:
    def registry(source: Source) -> Registry:
        found = make(source)
        found.sleep = lambda _: None
        return found

    return registry


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry.serving() as fake:
        yield fake


@pytest.fixture
def server() -> Iterator[FakeMlflow]:
    with fake_mlflow.serving() as fake:
        yield fake


def register_oci(registry: FakeRegistry, **options: Any) -> Source:
    given = {"id": "registry", "kind": "oci", "url": registry.url, "actor": SYSTEM, "now": timezone.now(), **options}
    return sources.register(**given)


def register_mlflow(server: FakeMlflow, **options: Any) -> Source:
    given = {
        "id": "mlflow:prod", "kind": "mlflow", "url": server.url, "hook_secret": HOOK_SECRET, "actor": SYSTEM,
        "now": timezone.now(), **options,
    }  # fmt: skip
    return sources.register(**given)


@pytest.fixture
def oci(db: None, registry: FakeRegistry) -> Source:
    return register_oci(registry)


@pytest.fixture
def mlflow(db: None, server: FakeMlflow) -> Source:
    return register_mlflow(server)


def receive(source: Source | None, body: bytes, *, kind: str = "", native_id: str = "") -> Delivery:
    return deliveries.receive(
        source=source, kind=kind or source.kind, native_id=native_id, headers={}, body=body, now=timezone.now()
    )


def process() -> int:
    """Works off what waits, whatever it waits for."""
    return deliveries.process_waiting(now=lambda: timezone.now() + timedelta(hours=1))


def deliver(source: Source, body: bytes, **options: Any) -> Delivery:
    delivery = receive(source, body, **options)
    process()
    delivery.refresh_from_db()
    return delivery


def tell(source: Source, name: str, data: dict[str, Any], **options: Any) -> Delivery:
    """A webhook of MLflow, signed or not: that was checked at the door."""
    hook = fake_mlflow.hook(name, data, now=timezone.now(), **options)
    return deliver(source, hook.body, native_id=hook.delivery_id)


def pull(source: Source, *, is_full: bool = False) -> Job:
    """A pull of that source, done."""
    job = pulls.request(source, is_full=is_full)
    jobs.run_due()
    job.refresh_from_db()
    return job


def bodies(*, source: str = "", action: str = "") -> list[dict[str, Any]]:
    """What was recorded, in order."""
    found = [json.loads(bytes(row.body)) for row in Body.objects.order_by("seq")]
    return [body for body in found if source in ("", body["source"]["id"]) and action in ("", body["action"])]


def notification(**changes: Any) -> bytes:
    """A push of a tagged manifest as Distribution tells of it; `target`, `request` and `actor` are merged in."""
    target = {
        "mediaType": fake_registry.MANIFEST,
        "repository": "acme/rf-model-audit",
        "digest": "sha256:a09f306ba9ccf1d003fd1e95fa1d7fe79fe6d670e55a7eb69a58f1d73b8f3d65",
        "tag": "0.1.0",
        **changes.pop("target", {}),
    }
    request = {"id": "r1", "method": "PUT", "useragent": "kit/1.14.0", **changes.pop("request", {})}
    event = {
        "id": "e1",
        "timestamp": "2026-11-22T04:25:03.86471427Z",
        "action": "push",
        "target": {name: value for name, value in target.items() if value is not None},
        "request": request,
        "actor": {},
        **changes,
    }
    return json.dumps({"events": [event]}).encode()
