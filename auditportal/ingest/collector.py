"""Group commit: single events posted at the same time share one transaction, and each waits for its own place.

One queue, one thread and one connection a web process, started with the first event (after the server has forked).
There is no timer: a batch is what came in during the last commit, so an idle portal adds no delay. Events are read and
prepared before they get here, so a bad one never spoils a batch; a conflicting one is found by settling the batch's
members one by one. Governed acts never pass here: their record commits with the act.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime

from django.db import close_old_connections, connection

from auditportal.ingest import services
from auditportal.ingest.errors import RecordedConflictError
from auditportal.ledger.drafts import Actor
from auditportal.ledger.errors import ConflictError
from auditportal.ledger.preparation import Prepared
from auditportal.ledger.services import Recorded

MOST_IN_A_BATCH = 500
PATIENCE_S = 20.0  # then the producer is told to repeat; its id makes that safe
log = logging.getLogger("auditportal.ingest.collector")


@dataclass(frozen=True, slots=True)
class Waiting:
    item: Prepared
    source_id: str
    submitter: Actor
    now: datetime
    place: Future[Recorded]


class Collector:
    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Waiting] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process = 0

    def record(self, item: Prepared, *, source_id: str, submitter: Actor, now: datetime) -> Recorded:
        """As `services.record` for one event, sharing its commit with others that wait.

        Raises:
            RecordedConflictError: as `services.record`.
            TimeoutError: nothing is known yet about this event; repeating it is safe.
        """
        self._ensure_running()
        waiting = Waiting(item, source_id, submitter, now, Future())
        self._queue.put(waiting)
        return waiting.place.result(timeout=PATIENCE_S)

    def _ensure_running(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive() or self._process != os.getpid():
                self._process = os.getpid()
                self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            close_old_connections()
            try:
                self._settle(batch)
            except Exception as error:
                # The top of a worker loop: each waiter gets the error, and the next batch its chance.
                log.exception("a batch of %d events failed", len(batch))
                for waiting in batch:
                    if not waiting.place.done():
                        waiting.place.set_exception(error)
                connection.close()

    def _next_batch(self) -> list[Waiting]:
        batch = [self._queue.get()]
        while len(batch) < MOST_IN_A_BATCH:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _settle(self, batch: list[Waiting]) -> None:
        try:
            places = services.append_alone([waiting.item for waiting in batch])
        except ConflictError:
            for waiting in batch:
                self._settle_one(waiting)
            return
        for waiting, place in zip(batch, places, strict=True):
            waiting.place.set_result(place)

    def _settle_one(self, waiting: Waiting) -> None:
        try:
            [place] = services.record(
                [waiting.item], source_id=waiting.source_id, submitter=waiting.submitter, now=waiting.now
            )
        except RecordedConflictError as error:
            waiting.place.set_exception(error)
        else:
            waiting.place.set_result(place)


collector = Collector()
