from __future__ import annotations

import logging
import signal
import time
from typing import Any

from django.core.management.base import BaseCommand
from django.db import OperationalError, connection
from django.utils import timezone

from auditportal.ledger import sealing
from auditportal.ledger.errors import LedgerError
from auditportal.ledger.services import CHANNEL

LONGEST_SILENCE_S = 1.0  # a lost notification delays a checkpoint by no more than this
PAUSE_AFTER_FAILURE_S = 2.0
log = logging.getLogger("auditportal.ledger.sealer")


class Command(BaseCommand):
    help = "Turns new entries into proofs, search rows and signed checkpoints, until it is told to stop."
    _stopping = False

    def handle(self, *_args: Any, **_options: Any) -> None:  # noqa: ANN401 -- Django's signature
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        while not self._stopping:
            try:
                self._seal_until_stopped()
            except OperationalError:
                log.exception("database unreachable, trying again")
                connection.close()
                time.sleep(PAUSE_AFTER_FAILURE_S)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _seal_until_stopped(self) -> None:
        signer = sealing.default_signer()
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        while not self._stopping:
            try:
                sealing.seal_all(signer=signer, now=timezone.now())
            except LedgerError:
                # Nothing is sealed while the log is broken: pages show the backlog, doctor and verification say why.
                log.exception("the log cannot be sealed")
                time.sleep(PAUSE_AFTER_FAILURE_S)
            self._wait()

    def _wait(self) -> None:
        """Until something was appended, or a second has passed."""
        connection.ensure_connection()
        raw = connection.connection
        for _ in raw.notifies(timeout=LONGEST_SILENCE_S, stop_after=1):
            pass
