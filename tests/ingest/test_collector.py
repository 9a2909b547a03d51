"""Group commit, with real commits and real threads."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, connections
from django.utils import timezone

from auditportal.ingest.collector import Collector
from auditportal.ingest.errors import RecordedConflictError
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Entry
from auditportal.ledger.preparation import prepare_all
from tests.factories import make_draft


def _record(collector, draft):
    return collector.record(prepare_all([draft])[0], source_id="ci-train", submitter=SYSTEM, now=timezone.now())


@pytest.fixture
def collector(committed):
    yield Collector()
    connections.close_all()


def test_many_threads_each_get_their_own_place(collector):
    places: list[int] = []
    faults: list[Exception] = []

    def work(number):
        try:
            places.extend(_record(collector, make_draft(metadata={"n": [number, at]})).seq for at in range(5))
        except Exception as error:  # noqa: BLE001 -- whatever a thread meets must reach the assertion
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert sorted(places) == list(range(1, 41))
    assert Entry.objects.count() == 41


def test_conflict_reaches_its_own_sender_and_spoils_nobody_elses(collector):
    event_id = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
    first = _record(collector, make_draft(event_id=event_id))
    with pytest.raises(RecordedConflictError):
        _record(collector, make_draft(event_id=event_id, reason="else"))
    assert _record(collector, make_draft(event_id=event_id)).seq == first.seq
    assert _record(collector, make_draft()).is_new
