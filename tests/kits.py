"""The recorded ModelKits, observed as ingest observes them, with no registry needed; and kits made up for a test."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import transaction

from auditportal.catalog import cards, services as catalog
from auditportal.catalog.models import Version
from auditportal.catalog.services import ObservedKit
from auditportal.connectors import modelkit
from auditproof.signatures import sha256_hex
from tests.factories import NOON

LAYOUT = Path(__file__).parent / "samples/oci/layout"
REPOSITORY = "acme/rf-model-audit"
SOURCE = "registry"
UNREAD = "the layers have not been read yet"
KIT = "application/vnd.kitops.modelkit"


def blob(digest: str) -> bytes:
    """The bytes of a recorded blob or manifest."""
    return (LAYOUT / "blobs" / digest.replace(":", "/")).read_bytes()


def digest_of(reference: str) -> str:
    """The manifest digest of a recorded `repository:tag`."""
    index = json.loads((LAYOUT / "index.json").read_bytes())
    names = {item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"] for item in index["manifests"]}
    return str(names[reference])


def recorded(tag: str, *, repository: str = REPOSITORY, source: str = SOURCE) -> ObservedKit:
    """A recorded kit as its registry gives it: manifest, config and card; its layers unread."""
    digest = digest_of(f"{repository}:{tag}")
    manifest = blob(digest)
    value = json.loads(manifest)
    config = blob(value["config"]["digest"])
    kit = modelkit.read(value, config)
    texts = (cards.find(blob(item.digest), compression=item.compression) for item in kit.layers if item.kind == "Docs")
    card = next((text for text in texts if text is not None), None)
    return ObservedKit(
        source=source,
        repository=repository,
        digest=digest,
        manifest=manifest,
        config=config,
        kit=kit,
        state=Version.Check.REPORTED,
        note=UNREAD,
        card=card,
        card_state="missing" if card is None else "checked",
    )


def observe(
    tag: str = "0.1.0", *, repository: str = REPOSITORY, source: str = SOURCE, now: datetime = NOON, state: str = ""
) -> Version:
    """The version of a recorded kit, its tag noted; with `state`, as if its bytes had been read with that outcome."""
    return observed(recorded(tag, repository=repository, source=source), tag=tag, now=now, state=state)


def make_kit(kitfile: dict[str, Any], *, repository: str = REPOSITORY, layers: Any = (), **changes: Any) -> ObservedKit:
    """A kit that was never pushed: `layers` are (media type after `KIT.`, content), `changes` bend the result."""
    config = json.dumps(kitfile).encode()
    value = {
        "schemaVersion": 2,
        "config": {"mediaType": f"{KIT}.config.v1+json", "digest": f"sha256:{sha256_hex(config)}", "size": len(config)},
        "layers": [
            {"mediaType": f"{KIT}.{form}", "digest": f"sha256:{sha256_hex(content)}", "size": len(content)}
            for form, content in layers
        ],
    }
    manifest = json.dumps(value).encode()
    given: dict[str, Any] = {
        "source": SOURCE,
        "repository": repository,
        "digest": f"sha256:{sha256_hex(manifest)}",
        "manifest": manifest,
        "config": config,
        "kit": modelkit.read(value, config),
        "state": Version.Check.REPORTED,
        "note": UNREAD,
        "card_state": "missing",
    }
    return ObservedKit(**(given | changes))


@transaction.atomic
def observed(kit: ObservedKit, *, tag: str, now: datetime = NOON, state: str = "", note: str = "") -> Version:
    """The version of any kit, its tag noted."""
    version, _ = catalog.observe_kit(kit, tag=tag, now=now)
    if tag:
        catalog.observe_tag(source=kit.source, repository=kit.repository, tag=tag, digest=kit.digest, now=now)
    if state:
        answered = state != Version.Check.UNREACHABLE
        catalog.note_check(version, state=state, note=note, now=now, is_complete=answered)
    return version


@transaction.atomic
def observe_mlflow(name: str = "churn", version: str = "14", *, now: datetime = NOON, **changes: Any) -> Version:
    """A version as MLflow tells it."""
    value = {"name": name, "version": version, "creation_timestamp": 1_760_000_000_000, "run_id": "c07d2e"}
    found, _ = catalog.observe_mlflow_version(value | changes, source="mlflow", now=now)
    return found
