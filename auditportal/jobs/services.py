"""Jobs asked for, run and cancelled.

A job's steps are safe to repeat, since the job of a killed worker is taken up again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from celery import current_app
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from auditportal.jobs.errors import CancelledError, JobError, LostLeaseError
from auditportal.jobs.models import Job
from auditportal.ledger.drafts import Actor

LEASE = timedelta(
    seconds=180
)  # longer than the slowest step, an answer with its retries; a killed worker's job waits for it
BEAT_S = 1.0  # between two writes of progress
NOTE_CHARS = 300
MOST_ATTEMPTS = 5  # a job that kills its worker five times is not given to a sixth
log = logging.getLogger("auditportal.jobs")


@dataclass(frozen=True, slots=True)
class Handler:
    """How one kind of job is done. `ended` is called, in the transaction that ends the job, with its last row."""

    run: Callable[[Running], Mapping[str, Any]]
    ended: Callable[[Job], None] | None = None


HANDLERS: dict[str, Handler] = {}


def register(
    kind: str, run: Callable[[Running], Mapping[str, Any]], ended: Callable[[Job], None] | None = None
) -> None:
    HANDLERS[kind] = Handler(run, ended)


def enqueue(*, kind: str, key: str, actor: Actor, parameters: Mapping[str, Any] | None = None) -> Job:
    """The job waits for a worker; when the same one is waiting or running already, it is that one.

    Inside the caller's transaction, so that an act and the work it asks for are there together or not at all.
    """
    try:
        with transaction.atomic():
            job = Job.objects.create(
                kind=kind,
                key=key,
                parameters=dict(parameters or {}),
                requested_by=actor.id,
                requested_type=actor.type,
                created_at=timezone.now(),
            )
    except IntegrityError:
        active = Job.objects.filter(kind=kind, key=key, state__in=Job.ACTIVE).first()
        if active is None:  # it ended between the two statements
            return enqueue(kind=kind, key=key, actor=actor, parameters=parameters)
        return active
    transaction.on_commit(lambda: ring("jobs.ring"))
    return job


def ring(task: str) -> None:
    """Celery is told that work waits. When it cannot be reached nothing is lost: beat rings each minute."""
    try:
        current_app.send_task(task, retry=False, ignore_result=True)
    except (KombuError, RedisError, OSError):
        log.warning("the queue cannot be reached; the work waits for the next minute", extra={"task": task})


def cancel(job_id: int) -> bool:
    """The job stops at its next step, or at once where none has begun. False when it had ended."""
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=job_id)
        if not job.is_active:
            return False
        job.cancel_asked = True
        job.save(update_fields=["cancel_asked"])
        if job.state == Job.State.QUEUED:
            _end(job, Job.State.CANCELLED)
        return True


def run_due(*, most: int = 100) -> int:
    """Runs waiting jobs, and those whose worker has died, until none is left; how many."""
    for count in range(most):
        job = _claim()
        if job is None:
            return count
        _run(job)
    return most


def _claim() -> Job | None:
    now = timezone.now()
    with transaction.atomic():
        waiting = Job.objects.select_for_update(skip_locked=True).order_by("id")
        job = (
            waiting.filter(state=Job.State.QUEUED).first()
            or waiting.filter(state=Job.State.RUNNING, lease_until__lt=now).first()
        )
        if job is None:
            return None
        job.state, job.attempts, job.lease_until = Job.State.RUNNING, job.attempts + 1, now + LEASE
        job.started_at = job.started_at or now
        job.save(update_fields=["state", "attempts", "lease_until", "started_at"])
        return job


def _run(job: Job) -> None:
    handler = HANDLERS.get(job.kind)
    if handler is None:
        _finish(job, Job.State.FAILED, error=f"this release knows no work of the kind {job.kind}")
        return
    if job.attempts > MOST_ATTEMPTS:
        _finish(job, Job.State.FAILED, error=f"given up: its worker died {MOST_ATTEMPTS} times")
        return
    running = Running(job)
    try:
        running.step()
        result = handler.run(running)
        _finish(job, Job.State.DONE, result=dict(result), progress=running.progress)
    except CancelledError:
        _finish(job, Job.State.CANCELLED)
    except LostLeaseError:
        log.warning("another worker took the job over", extra={"job": job.pk})
    except JobError as error:
        _finish(job, Job.State.FAILED, error=str(error)[:500])
    except Exception:
        # The top of a worker loop: the job fails with what happened in the log, and the next one gets its turn.
        log.exception("a job failed", extra={"job": job.pk, "kind": job.kind})
        if connection.in_atomic_block:
            raise  # a caller's transaction, in tests: nothing more can be written in it
        _finish(job, Job.State.FAILED, error="it failed inside; the worker's log says how")


def _finish(
    job: Job,
    state: Job.State,
    *,
    error: str = "",
    result: dict[str, Any] | None = None,
    progress: Mapping[str, Any] | None = None,
) -> None:
    """The job has ended so, unless another worker has it by now."""
    with transaction.atomic():
        mine = Job.objects.select_for_update().filter(pk=job.pk, attempts=job.attempts, state=Job.State.RUNNING).first()
        if mine is None:
            return
        mine.error, mine.result = error, result or {}
        for name, value in (progress or {}).items():
            setattr(mine, name, value)
        _end(mine, state)


def _end(job: Job, state: Job.State) -> None:
    job.state, job.finished_at, job.lease_until = state, timezone.now(), None
    job.save(update_fields=["state", "finished_at", "lease_until", "error", "result", "done", "total", "note"])
    handler = HANDLERS.get(job.kind)
    if handler is not None and handler.ended is not None:
        handler.ended(job)


class Running:
    """A job in its worker's hands: how it tells its progress, keeps its lease, and learns that it should stop."""

    def __init__(self, job: Job) -> None:
        self.id = job.pk
        self.key = job.key
        self.parameters: Mapping[str, Any] = job.parameters
        self.requested_by = Actor(type=job.requested_type, id=job.requested_by)
        self.progress: dict[str, Any] = {"done": job.done}  # the newest of each; written when it is time to
        self._attempt = job.attempts
        self._beaten = -BEAT_S

    def step(self, done: int | None = None, total: int | None = None, note: str = "", *, now: bool = False) -> None:
        """Notes progress and keeps the lease; call it at each step and often in long ones.

        Raises:
            CancelledError: somebody asked to stop.
            LostLeaseError: the lease ran out, and another worker has the job.
        """
        told = {"done": done, "total": total, "note": note[:NOTE_CHARS] or None}
        self.progress |= {name: value for name, value in told.items() if value is not None}
        if not now and time.monotonic() - self._beaten < BEAT_S:
            return
        self._beaten = time.monotonic()
        mine = Job.objects.filter(pk=self.id, attempts=self._attempt, state=Job.State.RUNNING)
        if not mine.update(lease_until=timezone.now() + LEASE, **self.progress):
            raise LostLeaseError
        if Job.objects.filter(pk=self.id, cancel_asked=True).exists():
            raise CancelledError
