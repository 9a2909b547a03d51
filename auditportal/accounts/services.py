"""People, pseudonyms and tokens. Every change is one transaction and one event; names never enter the log."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.contrib.auth.password_validation import validate_password
from django.db import IntegrityError, transaction

from auditportal.accounts.errors import AccountError
from auditportal.accounts.models import Actor, ActorAlias, ApiToken, User
from auditportal.accounts.roles import Role
from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import PORTAL, Actor as Doer, Draft, Subject

PSEUDONYM_BYTES = 10  # 80 random bits: a pseudonym cannot be guessed from a name
TOKEN_PREFIX = "apt_"  # noqa: S105 -- what every token begins with, so that secret scanners find it
TOKEN_BYTES = 32
SHOWN = 12  # characters of a token that stay visible
SCOPES = ("events:write", "events:read", "hooks")
USE_NOTED_EVERY = timedelta(minutes=1)
_SOURCE = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,99}")


def _pseudonym(kind: str) -> str:
    return {"user": "usr_", "service": "svc_"}[kind] + secrets.token_hex(PSEUDONYM_BYTES)


def doer(user: User) -> Doer:
    """The signed-in person as the log knows them."""
    return Doer(type="user", id=user.actor.id)


@ledger.retried
@transaction.atomic
def create_user(
    *, username: str, printed_name: str, role: Role, password: str, actor: Doer, now: datetime, email: str = ""
) -> User:
    """The person can sign in, has a pseudonym, and the grant stands in the log.

    Raises:
        ValidationError: a field or the password breaks a rule.
    """
    user = User(username=username, printed_name=printed_name, role=role, email=email, date_joined=now)
    validate_password(password, user)
    user.set_password(password)
    user.full_clean()
    user.save()
    directory = Actor.objects.create(id=_pseudonym("user"), type="user", name=printed_name, user=user, first_seen=now)
    _record_grant("grant_access", directory.id, actor, now, role=str(role))
    return user


@ledger.retried
@transaction.atomic
def change_role(*, user: User, role: Role, reason: str, actor: Doer, now: datetime) -> None:
    """The person has this role from now on, and the log says who decided it and why.

    Raises:
        AccountError: nobody changes their own role.
    """
    locked = User.objects.select_for_update().get(pk=user.pk)
    if locked.actor.id == actor.id:
        raise AccountError("nobody changes their own role")
    before, locked.role = locked.role, role
    locked.save(update_fields=["role"])
    action = "revoke_access" if role == Role.NONE else "grant_access"
    _record_grant(action, locked.actor.id, actor, now, role=str(role), before=before, reason=reason)


def _record_grant(
    action: str, subject: str, actor: Doer, now: datetime, *, role: str, before: str = "", reason: str = ""
) -> None:
    metadata = {"role": role} | ({"role_before": before} if before else {})
    ledger.append(
        [
            Draft(
                action=action, actor=actor, subject=Subject("user", subject), timestamp=now, reason=reason,
                metadata=metadata,
            )
        ]
    )  # fmt: skip


def actor_for_alias(*, source_id: str, name: str, type: str, now: datetime) -> Actor:  # noqa: A002 -- the member's name in the format
    """The actor that this source calls so; a new pseudonym when the name is new. Safe under concurrency."""
    known = ActorAlias.objects.filter(source=source_id, type=type, name=name).select_related("actor").first()
    if known is not None:
        return known.actor
    try:
        with transaction.atomic():
            actor = Actor.objects.create(id=_pseudonym(type), type=type, name=name, first_seen=now)
            ActorAlias.objects.create(source=source_id, type=type, name=name, actor=actor)
            return actor
    except IntegrityError:  # somebody else saw the name first
        return ActorAlias.objects.select_related("actor").get(source=source_id, type=type, name=name).actor


class Alias(NamedTuple):
    """The name under which a source knows an actor."""

    source_id: str
    type: str
    name: str


def actors_for_aliases(aliases: Collection[Alias], *, now: datetime) -> dict[Alias, str]:
    """The pseudonym behind each alias, as `actor_for_alias` gives it, with one look-up for each source and type.

    Safe under concurrency.
    """
    found = _known_aliases(aliases)
    fresh = sorted(set(aliases) - found.keys())  # in one order everywhere, so that two batches cannot deadlock
    return found | _created_aliases(fresh, now) if fresh else found


def _known_aliases(aliases: Collection[Alias]) -> dict[Alias, str]:
    names: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for alias in aliases:
        names[alias.source_id, alias.type].append(alias.name)
    return {
        Alias(source_id, kind, name): actor_id
        for (source_id, kind), wanted in names.items()
        for name, actor_id in ActorAlias.objects.filter(source=source_id, type=kind, name__in=wanted).values_list(
            "name", "actor_id"
        )
    }


@ledger.retried
@transaction.atomic
def _created_aliases(fresh: Sequence[Alias], now: datetime) -> dict[Alias, str]:
    made = {
        alias: Actor(id=_pseudonym(alias.type), type=alias.type, name=alias.name, first_seen=now) for alias in fresh
    }
    Actor.objects.bulk_create(made.values())
    ActorAlias.objects.bulk_create(
        [
            ActorAlias(source=alias.source_id, type=alias.type, name=alias.name, actor=actor)
            for alias, actor in made.items()
        ],
        ignore_conflicts=True,
    )
    found = _known_aliases(fresh)
    late = [actor.id for alias, actor in made.items() if found[alias] != actor.id]  # somebody else saw the name first
    if late:
        Actor.objects.filter(id__in=late).delete()
    return found


def is_source_name(text: str) -> bool:
    """Whether events may be recorded under this source; the portal's own name is reserved."""
    return text != PORTAL and _SOURCE.fullmatch(text) is not None


@ledger.retried
@transaction.atomic
def issue_token(
    *,
    name: str,
    source_id: str,
    scopes: Sequence[str],
    actor: Doer,
    now: datetime,
    expires_at: datetime | None = None,
) -> tuple[ApiToken, str]:
    """A token and its text, which is nowhere kept; the service behind it gets its pseudonym with its first token.

    Raises:
        AccountError: a source name or scope that cannot be.
    """
    if not is_source_name(source_id):
        raise AccountError("a source is 1 to 100 of a-z, 0-9, `.`, `_`, `:`, `/`, `-`, and not `auditportal`")
    if not scopes or set(scopes) - set(SCOPES):
        raise AccountError(f"scopes are {', '.join(SCOPES)}")
    if expires_at is not None and expires_at <= now:
        raise AccountError("the token would be expired already")
    text = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    owner = actor_for_alias(source_id=source_id, name=source_id, type="service", now=now)
    token = ApiToken.objects.create(
        name=name,
        prefix=text[:SHOWN],
        hash=_hash(text),
        scopes=list(scopes),
        source_id=source_id,
        actor=owner,
        created_at=now,
        expires_at=expires_at,
    )
    metadata = {"source": source_id, "scopes": sorted(scopes), "prefix": token.prefix}
    ledger.append(
        [
            Draft(
                action="key.issued",
                actor=actor,
                subject=Subject("token", str(token.pk)),
                timestamp=now,
                metadata=metadata,
            )
        ]
    )
    return token, text


@ledger.retried
@transaction.atomic
def revoke_token(*, token: ApiToken, reason: str, actor: Doer, now: datetime) -> None:
    """The token opens nothing from now on. Revoking it again changes nothing."""
    locked = ApiToken.objects.select_for_update().get(pk=token.pk)
    if locked.revoked_at is not None:
        return
    locked.revoked_at = now
    locked.save(update_fields=["revoked_at"])
    ledger.append(
        [
            Draft(
                action="key.revoked", actor=actor, subject=Subject("token", str(token.pk)), timestamp=now, reason=reason
            )
        ]
    )


def authenticate_token(text: str, *, now: datetime) -> ApiToken | None:
    """The valid token with this text; unknown, expired and revoked are the same answer.

    Tokens are 256 random bits, so looking up their hash tells a guesser nothing by its timing.
    """
    if not text.startswith(TOKEN_PREFIX):
        return None
    token = ApiToken.objects.select_related("actor").filter(hash=_hash(text)).first()
    if token is None or not token.is_valid(now):
        return None
    if token.used_at is None or now - token.used_at > USE_NOTED_EVERY:
        ApiToken.objects.filter(pk=token.pk).update(used_at=now)
    return token


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def save_profile(*, user: User, theme: str, uses_keys: bool) -> None:
    """How the portal looks and answers to this person; no matter of governance, so no event."""
    user.theme, user.uses_keys = theme, uses_keys
    user.save(update_fields=["theme", "uses_keys"])
