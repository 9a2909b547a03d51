"""Events from outside into the log: all of a request or none of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from auditportal.accounts import services as accounts
from auditportal.accounts.services import Alias
from auditportal.ingest.errors import RecordedConflictError
from auditportal.ingest.native import NamedActor, Submission
from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import SYSTEM, Actor, Assurance, Draft, Outcome, Related, Subject
from auditportal.ledger.errors import Conflict, ConflictError
from auditportal.ledger.preparation import Prepared, prepare_all
from auditportal.ledger.services import Recorded

MOST_NAMED = 20  # conflicts named in one event; the answer to the producer names them all


def prepare(submissions: Sequence[Submission], *, now: datetime) -> list[Prepared]:
    """Each submission with its actor's pseudonym, as bytes ready to append.

    Raises:
        InvalidEventError: an event breaks a rule of the format; nothing is stored.
    """
    aliases = {_alias(item.draft, item.actor) for item in submissions if item.actor is not None}
    actors = {
        alias: Actor(type=alias.type, id=pseudonym, assurance=Assurance.CLAIMED)
        for alias, pseudonym in accounts.actors_for_aliases(aliases, now=now).items()
    }
    return prepare_all(
        [item.draft for item in submissions],
        actors=[
            item.draft.actor if item.actor is None else actors[_alias(item.draft, item.actor)] for item in submissions
        ],
    )


def _alias(draft: Draft, actor: NamedActor) -> Alias:
    return Alias(draft.source_id, actor.type, actor.name)


def record(items: Sequence[Prepared], *, source_id: str, submitter: Actor, now: datetime) -> list[Recorded]:
    """The events stand in the log, in order; repeated ones keep the place they had.

    Raises:
        RecordedConflictError: a known id with other content; nothing of `items` is stored, the attempt is.
    """
    try:
        return append_alone(items)
    except ConflictError as error:
        seq = record_conflict(error.conflicts, source_id=source_id, submitter=submitter, now=now)
        raise RecordedConflictError(error.conflicts, seq) from error


@ledger.retried
@transaction.atomic(durable=True)
def append_alone(items: Sequence[Prepared]) -> list[Recorded]:
    """The events stand in the log, in a transaction of their own.

    Raises:
        ConflictError: a known id with other content; nothing is stored, and nothing is recorded about it yet.
    """
    return ledger.append_prepared(items)


@ledger.retried
@transaction.atomic(durable=True)
def record_conflict(conflicts: tuple[Conflict, ...], *, source_id: str, submitter: Actor, now: datetime) -> int:
    """The refused attempt is an event of the portal; what was offered instead is not kept."""
    named = conflicts[:MOST_NAMED]
    [recorded] = ledger.append(
        [
            Draft(
                action="source.conflict",
                actor=submitter if submitter.id else SYSTEM,
                subject=Subject("source", source_id),
                timestamp=now,
                outcome=Outcome.REFUSED,
                reason="an id that is recorded already came with other content",
                related=[Related("event", str(item.seq), "recorded as") for item in named if item.seq is not None],
                metadata={
                    "conflicts": len(conflicts),
                    "event_ids": [item.event_id for item in named],
                },
            )
        ]
    )
    return recorded.seq
