from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from auditportal.accounts import services as accounts
from auditportal.accounts.models import User
from auditportal.accounts.roles import Role
from auditportal.ledger import sealing
from auditportal.ledger.drafts import SYSTEM
from tests import databases
from tests.portal import Portal

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PASSWORD = "a long enough password"
PEOPLE = {
    "alice": Role.LEAD,
    "bob": Role.LEAD,
    "carol": Role.COMPLIANCE,
    "dave": Role.AUDITOR,
    "erin": Role.ENGINEER,
    "frank": Role.ADMIN,
    "mallory": Role.NONE,
}
NEEDED = {
    "browser": ("chromium", "apt-get install chromium"),
    "registry": ("docker-registry", "apt-get install docker-registry"),
    "mlflow": (str(Path(sys.executable).parent / "mlflow"), "bin/test installs it into .venv"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A part that this machine lacks is skipped with how to get it, or fails where it is required."""
    required = set(filter(None, os.environ.get("AUDITPORTAL_REQUIRE", "").split(",")))
    for name, (program, how) in NEEDED.items():
        if shutil.which(os.environ.get(program.upper(), program)) is not None:
            continue
        if name in required:
            raise pytest.UsageError(f"{program} is required and not installed: {how}")
        skip = pytest.mark.skip(reason=f"{program} is not installed: {how}")
        for item in items:
            if item.get_closest_marker(name):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: DjangoDbBlocker, worker_id: str) -> Iterator[None]:
    with django_db_blocker.unblock():
        databases.ensure_template()
        name = f"auditportal_worker_{worker_id}"
        databases.clone(name)
        databases.point_at(name)
        yield
        databases.drop(name)


@pytest.fixture(autouse=True)
def _signer_of_its_own(settings: LazySettings, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "django_db_setup" in request.fixturenames and "portal" not in request.fixturenames:
        settings.SIGNER_DIRECTORY = databases.fresh_signer(tmp_path / "signer")


@pytest.fixture(autouse=True)
def _fast_passwords(settings: LazySettings) -> None:
    """Seven people a test would otherwise cost a second and a half of key stretching."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def committed(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, settings: LazySettings, tmp_path: Path
) -> Iterator[str]:
    """A database of its own in which the test commits."""
    with django_db_blocker.unblock(), databases.cloned() as name:
        yield name


@pytest.fixture
def seal() -> Callable[[], int]:
    """The sealer's step, until nothing waits."""
    return lambda: sealing.seal_all(signer=sealing.default_signer(), now=timezone.now())


@pytest.fixture
def people(db: None) -> dict[str, User]:
    return make_people()


def make_people() -> dict[str, User]:
    return {
        name: accounts.create_user(
            username=name, printed_name=f"{name.title()} Example", role=role, password=PASSWORD, actor=SYSTEM, now=NOON
        )
        for name, role in PEOPLE.items()
    }


@pytest.fixture
def as_person(people: dict[str, User]) -> Callable[[str], Client]:
    """A test client signed in as one of the people."""

    def sign_in(name: str) -> Client:
        client = Client()
        client.force_login(people[name], backend="django.contrib.auth.backends.ModelBackend")
        return client

    return sign_in


@pytest.fixture(scope="module")
def portal(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Portal]:
    """The real portal with its people, on a database of its own, for all tests of a module."""
    from django.conf import settings

    directory = tmp_path_factory.mktemp("portal")
    before = settings.SIGNER_DIRECTORY
    with django_db_blocker.unblock(), databases.cloned():
        settings.SIGNER_DIRECTORY = databases.fresh_signer(directory / "signer")
        make_people()
        running = Portal(directory)
        try:
            yield running.start()
        finally:
            running.stop()
            settings.SIGNER_DIRECTORY = before
