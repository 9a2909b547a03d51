"""Bundles asked for, built, issued, cancelled and downloaded. Each of these is an event of the model it is about."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.accounts.models import User
from auditportal.bundles import builder, queries, signing
from auditportal.bundles.builder import Built, Scope
from auditportal.bundles.errors import BundleError, ChangedError
from auditportal.bundles.models import Bundle
from auditportal.catalog.models import Model
from auditportal.jobs import services as jobs
from auditportal.jobs.errors import JobError
from auditportal.jobs.models import Job
from auditportal.jobs.services import Running
from auditportal.ledger import exports, maps, queries as ledger_queries, services as ledger
from auditportal.ledger.drafts import Actor, Draft, Outcome, Related, Sealed, Subject
from auditportal.ledger.errors import LogBrokenError
from auditproof import bags, bundles, certificates, notes
from auditproof.errors import ProofError
from auditproof.verdicts import Grade

KIND = "bundle"
MOST_RECIPIENT, MOST_PURPOSE = 200, 500  # characters
SEALER_PATIENCE = 30  # times a second; a sealer that is silent for longer does not run
MOST_BUILDS = 3  # with a new map, when something in scope was erased or changed while it was built
log = logging.getLogger("auditportal.bundles")


@ledger.retried
@transaction.atomic
def request_bundle(
    *, model: Model, recipient: str, purpose: str, known_size: int | None, user: User, now: datetime
) -> Bundle:
    """The bundle is asked for, on the record, and waits for a worker.

    Raises:
        BundleError: nobody named as recipient, no purpose, or a checkpoint that this log never had.
    """
    recipient, purpose = recipient.strip(), purpose.strip()
    for name, text, most in (("recipient", recipient, MOST_RECIPIENT), ("purpose", purpose, MOST_PURPOSE)):
        if not text or len(text) > most or not text.isprintable():
            raise BundleError(f"give a {name} of at most {most} characters on one line")
    size = ledger_queries.head().size
    if known_size is not None and not 0 < known_size <= size:
        raise BundleError(f"the newest checkpoint has {size} entries; an earlier one has fewer, and at least 1")
    bundle = Bundle.objects.create(
        model=model,
        recipient=recipient,
        purpose=purpose,
        known_size=known_size,
        requested_by=user,
        requested_at=now,
    )
    bundle.job = jobs.enqueue(kind=KIND, key=str(bundle.pk), actor=accounts.doer(user))
    metadata = {"recipient": Sealed(recipient), "purpose": Sealed(purpose)}
    [recorded] = ledger.append([_draft(bundle, "bundle.requested", accounts.doer(user), now, metadata)])
    bundle.requested_seq = recorded.seq
    bundle.save(update_fields=["job", "requested_seq"])
    return bundle


def _draft(
    bundle: Bundle, action: str, actor: Actor, now: datetime, metadata: Mapping[str, Any], reason: str = ""
) -> Draft:
    return Draft(
        action=action,
        actor=actor,
        subject=Subject("bundle", str(bundle.pk)),
        related=[Related("model", bundle.model.name)],
        timestamp=now,
        metadata=metadata,
        reason=reason,
    )


def cancel_bundle(*, bundle: Bundle, user: User) -> bool:
    """Building stops at its next step. False when it had ended."""
    if bundle.job_id is None:
        return False
    Bundle.objects.filter(pk=bundle.pk, state=Bundle.State.BUILDING).update(cancelled_by=accounts.doer(user).id)
    return jobs.cancel(bundle.job_id)


@ledger.retried
@transaction.atomic
def record_download(*, bundle: Bundle, user: User, now: datetime) -> None:
    """The log says who took a copy, before the first byte leaves."""
    metadata = {"bundle": f"sha256:{bundle.digest}", "bytes": bundle.size_bytes}
    ledger.append([_draft(bundle, "access.download", accounts.doer(user), now, metadata)])


# ---- the job --------------------------------------------------------------------------------------------------------


def run(running: Running) -> Mapping[str, Any]:
    """Builds the bundle, verifies it as an auditor would, and issues it. Safe to repeat from any point.

    Raises:
        JobError: nothing that can be handed out came of it; the message says why.
    """
    bundle = Bundle.objects.select_related("model").get(pk=UUID(running.key))
    if bundle.is_ready:
        return {"digest": bundle.digest}
    try:
        signer = signing.load()
        path, built = _build(bundle, signer, running)
    except (BundleError, LogBrokenError) as error:
        raise JobError(str(error)) from error
    running.step(note="issuing", now=True)  # the last moment to stop, and to notice that another worker has the job
    # Renamed before it is recorded: a file without a record is replaced by the next build, a record without a file
    # would be a promise broken.
    path.replace(queries.path_of(bundle))
    _issue(bundle, built, running.requested_by, timezone.now())
    return {"digest": built.digest}


def _build(bundle: Bundle, signer: signing.Signer, running: Running) -> tuple[Path, Built]:
    directory = queries.directory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in directory.glob(f".{bundle.pk}.*"):  # of a worker that was killed
        left.unlink(missing_ok=True)
    for attempt in range(MOST_BUILDS):
        path = directory / f".{bundle.pk}.{os.getpid()}.{attempt}"
        try:
            scope = _settle(bundle, running)
            built = builder.build(scope, path, signer, running.step)
            running.step(note="verifying", now=True)
            _verify(path, signer, lambda _: running.step())
        except ChangedError:
            log.info("the scope changed while it was built", extra={"bundle": str(bundle.pk)})
            _unsettle(bundle)
            continue
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path, built
    raise BundleError(f"what the bundle holds changed {MOST_BUILDS} times while it was built")


def _settle(bundle: Bundle, running: Running) -> Scope:
    """Map, artifacts and checkpoint stand in the row; a repeated build finds them there."""
    if bundle.map_seq is None:
        _await_checkpoint(bundle.requested_seq or 0, running)
        _record_map(bundle, timezone.now())
    if bundle.checkpoint_size is None:
        _await_checkpoint(bundle.map_seq or 0, running)
        checkpoint = exports.first_checkpoint_above(bundle.map_seq or 0)
        bundle.checkpoint_size = checkpoint.size if checkpoint else None
        bundle.save(update_fields=["checkpoint_size"])
    return scope_of(bundle)


def scope_of(bundle: Bundle) -> Scope:
    """What a settled bundle is built from; building it again gives the same tag manifest."""
    return Scope(
        model=bundle.model.name,
        recipient=bundle.recipient,
        purpose=bundle.purpose,
        known_size=bundle.known_size,
        map_size=bundle.map_size or 0,
        map_seq=bundle.map_seq or 0,
        map_root=bytes(bundle.map_root or b""),
        proofs=bundle.proofs,
        artifacts=bundle.artifacts,
        checkpoint_size=bundle.checkpoint_size or 0,
    )


@ledger.retried
@transaction.atomic
def _record_map(bundle: Bundle, now: datetime) -> None:
    artifacts = builder.artifacts_of(bundle.model.name)
    recorded = maps.record(builder.streams_of(bundle.model.name), now=now)
    bundle.map_size, bundle.map_seq, bundle.map_root = recorded.size, recorded.seq, recorded.root
    bundle.proofs, bundle.artifacts = builder.proof_entries(recorded.proofs), artifacts
    bundle.save(update_fields=["map_size", "map_seq", "map_root", "proofs", "artifacts"])


def _unsettle(bundle: Bundle) -> None:
    bundle.map_size = bundle.map_seq = bundle.map_root = bundle.checkpoint_size = None
    bundle.save(update_fields=["map_size", "map_seq", "map_root", "checkpoint_size"])


def _await_checkpoint(seq: int, running: Running) -> None:
    for _ in range(SEALER_PATIENCE):
        running.step(note="waiting for a checkpoint")
        if ledger_queries.wait_for_checkpoint(seq, timeout_s=1.0):
            return
    raise BundleError("the log gets no new checkpoint; is the sealer running?")


def _verify(path: Path, signer: signing.Signer, on_event: Callable[[int], None]) -> None:
    """The bundle stands every check that an auditor can make with the log's key and the root.

    Raises:
        BundleError: it does not; then it is never handed out.
    """
    roots = tuple(certificates.parse_pem(signer.root_pem, "root"))
    trust = bundles.Trust(at=timezone.now(), key=notes.VerifierKey.parse(ledger_queries.vkey()), roots=roots)
    try:
        with path.open("rb") as file:
            result = bundles.verify(bags.open_bag(path, file), trust, on_event)
    except ProofError as error:
        raise BundleError(f"the built bundle cannot be read: {error}") from error
    if result.verdict.grade == Grade.FAILED:
        raise BundleError(f"the built bundle does not stand its own checks: {result.failures[0]}")


@ledger.retried
@transaction.atomic
def _issue(bundle: Bundle, built: Built, actor: Actor, now: datetime) -> None:
    """The row has the digest, and so has the log."""
    locked = Bundle.objects.select_for_update().select_related("model").get(pk=bundle.pk)
    if not locked.is_building:  # a worker that was overtaken: the bundle was issued, cancelled or given up meanwhile
        return
    locked.size_bytes = queries.path_of(bundle).stat().st_size
    locked.state, locked.digest, locked.events, locked.issued_at = Bundle.State.READY, built.digest, built.events, now
    metadata = {
        "bundle": f"sha256:{built.digest}",
        "bytes": locked.size_bytes,
        "checkpoint": {"size": bundle.checkpoint_size, "root": built.root},
        "map": {"size": bundle.map_size, "seq": bundle.map_seq},
    }
    [recorded] = ledger.append([_draft(locked, "bundle.issued", actor, now, metadata)])
    locked.issued_seq = recorded.seq
    locked.save()


def ended(job: Job) -> None:
    """A job that ended without a bundle ends the bundle too, on the record."""
    bundle = Bundle.objects.select_for_update().select_related("model").filter(job=job).first()
    if bundle is None or not bundle.is_building or job.state == Job.State.DONE:
        return
    now = timezone.now()
    requester = Actor(type=job.requested_type, id=job.requested_by)
    if job.state == Job.State.CANCELLED:
        bundle.state = Bundle.State.CANCELLED
        actor = Actor(type="user", id=bundle.cancelled_by) if bundle.cancelled_by else requester
        draft = _draft(bundle, "bundle.cancelled", actor, now, {})
    else:
        bundle.state = Bundle.State.FAILED
        draft = _failed(bundle, requester, now, job.error)
    bundle.save(update_fields=["state"])
    ledger.append([draft])


def _failed(bundle: Bundle, actor: Actor, now: datetime, why: str) -> Draft:
    return Draft(
        action="bundle.issued",
        actor=actor,
        subject=Subject("bundle", str(bundle.pk)),
        related=[Related("model", bundle.model.name)],
        timestamp=now,
        outcome=Outcome.FAILED,
        reason=why,
    )
