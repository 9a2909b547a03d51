"""Sources: registered and changed by admins, each time with an event; and the clients that ask them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit

from django.db import transaction

from auditportal.accounts import services as accounts
from auditportal.connectors.http import Client
from auditportal.connectors.mlflow import Server
from auditportal.connectors.oci import REPOSITORY, Credentials, Registry
from auditportal.ingest import secrets
from auditportal.ingest.errors import SourceError
from auditportal.ingest.models import Source
from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import Actor, Draft, Subject


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
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise SourceError("an address is http:// or https:// and a host, without name, password or query")
    wrong = [name for name in repositories if not REPOSITORY.fullmatch(name)]
    if wrong:
        raise SourceError(f"no repository name: {', '.join(wrong)}")
    if Source.objects.filter(pk=id).exists():
        raise SourceError(f"there is a source {id} already")
    source = Source.objects.create(
        id=id,
        kind=Source.Kind(kind),
        url=url.rstrip("/"),
        hosts=list(hosts),
        repositories=list(repositories),
        username=username,
        password=secrets.seal(password),
        hook_secret=secrets.seal(hook_secret),
        created_at=now,
    )
    _record("source.registered", source, actor, now)
    return source


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
    """The source is asked at this address from now on."""
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


def client(source: Source) -> Client:
    headers = {}
    if source.kind == Source.Kind.MLFLOW and source.username:
        headers["Authorization"] = Credentials(source.username, secrets.open_sealed(source.password)).basic()
    return Client(source.url, hosts=frozenset(source.hosts), headers=headers)


def registry(source: Source) -> Registry:
    credentials = Credentials(source.username, secrets.open_sealed(source.password)) if source.username else None
    return Registry(client(source), credentials)


def mlflow(source: Source) -> Server:
    return Server(client(source))
