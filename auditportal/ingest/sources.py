"""Sources: registered and changed by admins, each time with an event; and the clients that ask them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit

from django.db import IntegrityError, transaction

from auditportal.accounts import services as accounts
from auditportal.connectors.http import Client
from auditportal.connectors.mlflow import Server
from auditportal.connectors.oci import REPOSITORY, Credentials, Registry
from auditportal.ingest import secrets
from auditportal.ingest.errors import SourceError
from auditportal.ingest.models import Source
from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import Actor, Draft, Subject

MOST_URL = 300
MOST_REPOSITORY = 255  # as the catalog keeps it
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?(?::[1-9][0-9]{0,4})?", re.IGNORECASE)


@ledger.retried
@transaction.atomic
def register(
    *,
    id: str,  # noqa: A002 -- the member's name
    kind: str,
    url: str,
    actor: Actor,
    now: datetime,
    hosts: Sequence[str] = (),
    repositories: Sequence[str] = (),
    username: str = "",
    password: str = "",
    hook_secret: str = "",
) -> Source:
    """The source is known, listened to and asked from now on.

    Raises:
        SourceError: a name, address or repository that cannot be.
    """
    if not accounts.is_source_name(id):
        raise SourceError("a source is 1 to 100 of a-z, 0-9, `.`, `_`, `:`, `/`, `-`, and not `auditportal`")
    if kind not in Source.Kind.values:
        raise SourceError(f"a source is of the kind {' or '.join(Source.Kind.values)}")
    _check_address(url)
    wrong = [name for name in hosts if not _HOST.fullmatch(name)]
    if wrong:
        raise SourceError(f"no `host` or `host:port`: {', '.join(wrong)}")
    wrong = [name for name in repositories if not REPOSITORY.fullmatch(name) or len(name) > MOST_REPOSITORY]
    if wrong:
        raise SourceError(f"no repository name: {', '.join(wrong)}")
    if bool(username) != bool(password):
        raise SourceError("a user name and a password belong together")
    if ":" in username or not (username + password).isprintable():
        raise SourceError("a user name without `:`, and a password without control characters")
    try:
        with transaction.atomic():
            source = Source.objects.create(
                id=id,
                kind=Source.Kind(kind),
                url=url.rstrip("/"),
                hosts=list(dict.fromkeys(hosts)),
                repositories=list(dict.fromkeys(repositories)),
                username=username,
                password=secrets.seal(password),
                hook_secret=secrets.seal(hook_secret),
                created_at=now,
            )
    except IntegrityError as error:
        raise SourceError(f"there is a source {id} already") from error
    _record("source.registered", source, actor, now)
    return source


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SourceError("this address cannot be read") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or len(url) > MOST_URL:
        raise SourceError("an address is http:// or https:// and a host")
    if parts.query or parts.fragment or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        raise SourceError("an address has no name, password, query, fragment, space or foreign letter in it")


@ledger.retried
@transaction.atomic
def set_active(*, source: Source, is_active: bool, reason: str, actor: Actor, now: datetime) -> None:
    """The source is asked, or is not, from now on; what arrives from it is stored in any case."""
    locked = Source.objects.select_for_update().get(pk=source.pk)
    if locked.is_active == is_active:
        return
    locked.is_active = is_active
    locked.save(update_fields=["is_active"])
    _record("source.changed", locked, actor, now, reason=reason)


@ledger.retried
@transaction.atomic
def move(*, source: Source, url: str, reason: str, actor: Actor, now: datetime) -> None:
    """The source is asked at this address from now on.

    Raises:
        SourceError: an address that cannot be.
    """
    _check_address(url)
    locked = Source.objects.select_for_update().get(pk=source.pk)
    locked.url = url.rstrip("/")
    locked.save(update_fields=["url"])
    _record("source.changed", locked, actor, now, reason=reason)


def _record(action: str, source: Source, actor: Actor, now: datetime, *, reason: str = "") -> None:
    metadata = {
        "kind": source.kind,
        "url": source.url,
        "hosts": source.hosts,
        "repositories": source.repositories,
        "is_active": source.is_active,
        "has_credentials": bool(source.username),
        "has_hook_secret": bool(source.hook_secret),
    }
    ledger.append(
        [
            Draft(
                action=action,
                actor=actor,
                subject=Subject("source", source.pk),
                timestamp=now,
                reason=reason,
                metadata=metadata,
            )
        ]
    )


def lock(source: Source) -> None:
    """What is said of this source is recorded by one transaction at a time, so that nothing is recorded twice."""
    Source.objects.select_for_update().get(pk=source.pk)


def client(source: Source) -> Client:
    headers = {}
    if source.kind == Source.Kind.MLFLOW and source.username:
        headers["Authorization"] = Credentials(source.username, secrets.open_sealed(source.password)).basic()
    return Client(source.url, hosts=frozenset(map(str.lower, source.hosts)), headers=headers)


def registry(source: Source) -> Registry:
    credentials = Credentials(source.username, secrets.open_sealed(source.password)) if source.username else None
    return Registry(client(source), credentials)


def mlflow(source: Source) -> Server:
    return Server(client(source))
