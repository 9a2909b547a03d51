"""A real log with a model's life in it, and a bundle of it built by the real job."""

from __future__ import annotations

import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connections
from django.utils import timezone

from auditportal.accounts.models import User
from auditportal.approvals import queries as approval_queries, services as approvals
from auditportal.bundles import queries, services, signing
from auditportal.bundles.models import Bundle
from auditportal.catalog.models import Model, Version
from auditportal.jobs import services as jobs
from auditportal.ledger import queries as ledger, sealing
from auditportal.ledger.drafts import Related, Sealed, Subject
from auditproof import bags, bundles, certificates, notes
from auditproof.signatures import sha256_hex
from tests import databases
from tests.conftest import PASSWORD, make_people
from tests.factories import NOON, make_draft, record

MODEL = "churn"
MANIFEST = b'{"schemaVersion":2,"layers":[]}'
CARD = "# Churn\n\nPredicts who leaves.\n"


@contextmanager
def sealer() -> Iterator[None]:
    """What `run_sealer` does, in a thread of this process."""
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                sealing.seal_all(signer=sealing.default_signer(), now=timezone.now())
                time.sleep(0.02)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def live(*, name: str = MODEL) -> None:
    """Events of a model as sources report them, among others' events."""
    version = f"{name}:14"
    record(make_draft(subject=Subject("run", "other"), related=[Related("model_version", "fraud:1")]))
    for minute in range(12):
        record(
            make_draft(
                timestamp=NOON + timedelta(minutes=minute),
                subject=Subject("run", f"run-{minute}"),
                related=[Related("model_version", version, "trained")],
            )
        )
    record(make_draft(subject=Subject("run", "other-2"), related=[Related("model_version", "fraud:2")]))
    record(
        make_draft(
            action="scan", subject=Subject("model_version", version), reason='=HYPERLINK("http://x")', related=[]
        ),
        make_draft(
            action="promote",
            outcome="refused",
            subject=Subject("model_version", version),
            environment="production",
            reason=Sealed("asked by Erin Example"),
            related=[],
        ),
        make_draft(action="approve", subject=Subject("model_version", version), metadata={"by": "a tag"}, related=[]),
    )


def make_version(*, name: str = MODEL) -> Version:
    model, _ = Model.objects.get_or_create(name=name, defaults={"first_seen": NOON})
    return Version.objects.create(
        model=model,
        label=f"{name}:14",
        name="14",
        kind=Version.Kind.MODELKIT,
        source="kits",
        native_version="14",
        repository="team/churn",
        manifest_digest=f"sha256:{sha256_hex(MANIFEST)}",
        manifest=MANIFEST,
        config_digest=f"sha256:{sha256_hex(b'kitfile')}",
        config=b"kitfile",
        card=CARD,
        card_state="checked",
        first_seen=NOON,
    )


def reject(version: Version, people: dict[str, User]) -> None:
    """A request for production, rejected by alice with her password."""
    now = timezone.now()
    promotion = approvals.open_promotion(
        version=version, environment="production", reason="better recall", user=people["erin"], now=now
    )
    seen = approval_queries.packet(promotion, now=now).fingerprint
    signed = approvals.sign(
        promotion=promotion,
        user=people["alice"],
        intent="reject",
        meaning="rejected",
        comment="the drift is unexplained",
        password=PASSWORD,
        seen=seen,
        now=timezone.now(),
    )
    assert isinstance(signed, approvals.Signed), signed


@dataclass(slots=True)
class World:
    """A log, its people, and what an auditor is given outside of any bundle."""

    people: dict[str, User]
    directory: Path

    @property
    def vkey(self) -> str:
        return ledger.vkey()

    @property
    def root_pem(self) -> str:
        return signing.load().root_pem

    def trust(self, **changes: object) -> bundles.Trust:
        given: dict[str, object] = {
            "at": datetime.now(UTC),
            "key": notes.VerifierKey.parse(self.vkey),
            "roots": tuple(certificates.parse_pem(self.root_pem, "root")),
        }
        return bundles.Trust(**(given | changes))

    def request(self, **changes: object) -> Bundle:
        given: dict[str, object] = {
            "model": changes.get("model") or Model.objects.get(name=MODEL),
            "recipient": "Audit Office",
            "purpose": "yearly review",
            "known_size": None,
            "user": self.people["dave"],
            "now": timezone.now(),
        }
        return services.request_bundle(**(given | changes))

    def build(self, **changes: object) -> Bundle:
        bundle = self.request(**changes)
        jobs.run_due()
        return Bundle.objects.select_related("model", "job").get(pk=bundle.pk)

    def path(self, bundle: Bundle) -> Path:
        return queries.path_of(bundle)

    def files(self) -> tuple[str, str]:
        """Paths of log.vkey and ROOT.pem, as an auditor keeps them."""
        key, root = self.directory / "log.vkey", self.directory / "ROOT.pem"
        key.write_text(self.vkey + "\n")
        root.write_text(self.root_pem)
        return str(key), str(root)


@contextmanager
def world_in(directory: Path) -> Iterator[World]:
    before = settings.SIGNER_DIRECTORY, settings.BUNDLE_SIGNER, settings.DATA, settings.PASSWORD_HASHERS
    settings.SIGNER_DIRECTORY = databases.fresh_signer(directory / "signer")
    settings.BUNDLE_SIGNER, settings.DATA = directory / "bundle-signer", directory / "data"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    try:
        with sealer():
            signing.set_up(now=timezone.now())
            yield World(make_people(), directory)
    finally:
        settings.SIGNER_DIRECTORY, settings.BUNDLE_SIGNER, settings.DATA, settings.PASSWORD_HASHERS = before


@pytest.fixture
def world(committed: str, tmp_path: Path) -> Iterator[World]:
    with world_in(tmp_path / "world") as found:
        yield found


@dataclass(frozen=True, slots=True)
class Issued:
    """A bundle as it was handed out, and what is known from elsewhere."""

    zip: Path
    vkey: str
    root_pem: str
    digest: str
    trust: bundles.Trust

    def unpack(self, target: Path) -> Path:
        with zipfile.ZipFile(self.zip) as archive:
            archive.extractall(target)
        return target


def verify(path: Path, trust: bundles.Trust) -> bundles.Result:
    from auditproof.errors import ProofError

    try:
        if path.is_dir():
            return bundles.verify(bags.open_bag(path, None), trust)
        with path.open("rb") as file:
            return bundles.verify(bags.open_bag(path, file), trust)
    except ProofError as error:
        return bundles.unreadable(error)


def names(result: bundles.Result) -> set[str]:
    return {str(error.name) for error in result.failures}
