"""A real registry tells a real portal: what it pushes, pulls and deletes is recorded once, and our own looks are not."""

from __future__ import annotations

import time

import pytest
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.catalog import queries as catalog
from auditportal.ingest import deliveries, sources
from auditportal.ingest.models import Delivery
from auditportal.ledger.drafts import SYSTEM
from tests.ingest.conftest import bodies
from tests.registries import RealRegistry, running

pytestmark = pytest.mark.registry
REPOSITORY = "acme/rf-model-audit"
PATIENCE_S = 30.0


@pytest.fixture
def told(portal, tmp_path):
    """The registry, whose notifications reach the portal under the name of its source."""
    now = timezone.now()
    _, token = accounts.issue_token(name="hooks", source_id="real", scopes=["hooks"], actor=SYSTEM, now=now)
    with running(tmp_path / "registry", sink=f"{portal.url}/hooks/oci/", token=token, htpasswd=True) as registry:
        sources.register(
            id="real", kind="oci", url=registry.url, username="alice", password="s3cret", actor=SYSTEM, now=now
        )
        yield registry


def settle(action: str, count: int) -> list[dict[str, object]]:
    """Works off deliveries until so many events of the action stand there."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        deliveries.process_waiting()
        found = bodies(source="real", action=action)
        if len(found) >= count and not Delivery.objects.filter(state="waiting").exists():
            return found
        time.sleep(0.1)
    raise AssertionError(list(Delivery.objects.values_list("state", "note")))


def test_life_of_a_kit(told: RealRegistry):
    told.push_kits()
    packed = settle("package", 5)
    assert [body["metadata"]["state"] for body in packed] == ["manifest checked"] * 5
    assert {body["subject"]["id"] for body in packed} == {
        f"{REPOSITORY}:0.1.0", f"{REPOSITORY}:0.2.0", "acme/old:v0", "acme/mp:v1",
    }  # fmt: skip
    assert {body["actor"]["assurance"] for body in packed} == {"claimed"}
    version = catalog.find_version(f"{REPOSITORY}:0.1.0")
    assert (version.card_state, version.layers.count()) == ("checked", 4)
    # The registry told us of our own looks too; they are no pulls.
    assert bodies(source="real", action="access.download") == []
    assert Delivery.objects.filter(note__contains="our own pull").exists()
    told.request("GET", f"/v2/{REPOSITORY}/manifests/0.2.0", Accept="application/vnd.oci.image.manifest.v1+json")
    [pulled] = settle("access.download", 1)
    assert pulled["subject"] == {"type": "model_version", "id": f"{REPOSITORY}:0.2.0"}
    told.delete_manifest(REPOSITORY, version.manifest_digest)
    [deleted] = settle("delete", 1)
    assert deleted["subject"] == {"type": "model_version", "id": f"{REPOSITORY}:0.1.0"}
    until = time.monotonic() + PATIENCE_S
    while "0.1.0" in [item.tag for item in catalog.current_tags("real", REPOSITORY)] and time.monotonic() < until:
        deliveries.process_waiting()
        time.sleep(0.1)
    assert sorted(item.tag for item in catalog.current_tags("real", REPOSITORY)) == ["0.2.0", "latest"]
    assert len(bodies(source="real", action="delete")) == 1
    assert set(Delivery.objects.values_list("state", flat=True)) == {"recorded", "noted"}
