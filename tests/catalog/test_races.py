"""Two that write to one version at a time, each with a connection of its own."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

from django.db import connection, transaction

from auditportal.catalog import services
from auditportal.catalog.models import Version
from tests import kits
from tests.factories import NOON

LATER = NOON + timedelta(hours=1)


def test_reading_that_ends_meanwhile_is_not_undone_by_what_is_filled_in(committed):
    """A notification fills in a card while a reconciliation finds the bytes changed: both stay."""
    whole = kits.recorded("0.1.0")
    version = kits.observed(replace(whole, card=None, card_state="unreachable"), tag="0.1.0")

    def fill():
        try:
            kits.observed(whole, tag="0.1.0", now=LATER)
        finally:
            connection.close()

    with transaction.atomic():
        locked = Version.objects.select_for_update().get(pk=version.pk)
        thread = threading.Thread(target=fill)
        thread.start()
        while not _waiting():
            assert thread.is_alive()
        services.note_check(locked, state="mismatch", note="other bytes", now=LATER, is_complete=True)
    thread.join(30)
    version.refresh_from_db()
    assert (version.check_state, version.checked_at, version.card_state) == ("mismatch", LATER, "checked")


def _waiting():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0]
