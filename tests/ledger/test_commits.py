"""What only shows when transactions really commit: rollbacks, and many writers at once."""

from __future__ import annotations

import multiprocessing
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier

import pytest
from django.db import connection, connections, transaction

from auditportal.ledger import search, services
from auditportal.ledger.errors import ConflictError, NotRecordingError
from auditportal.ledger.models import Entry
from tests.factories import make_draft, record, record_many


def test_append_outside_a_transaction_is_refused(committed):
    with pytest.raises(NotRecordingError):
        services.append([make_draft()])


def test_rolled_back_act_is_not_in_the_log(committed):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        services.append([make_draft()])
        raise ZeroDivisionError
    assert Entry.objects.count() == 1
    assert record()[0].seq == 1


def _own_connection(database: str) -> None:
    """Connections that this forked process shares with nobody.

    Closing the parent's before forking is not enough: Django keeps one set for threads with a running event loop and
    one for those without, and a fork ends the loop.
    """
    for alias in connections:
        connections[alias] = connections.create_connection(alias)
        connections[alias].settings_dict["NAME"] = database


def _append_in_process(database: str, count: int, size: int) -> None:
    _own_connection(database)
    for _ in range(count):
        record_many(size)
    connection.close()


def test_eight_processes_append_without_a_gap(committed: str, seal: Callable[[], int], monkeypatch):
    connections.close_all()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_in_process, args=(committed, 5, 3)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert list(Entry.objects.order_by("seq").values_list("seq", flat=True)) == list(range(121))
    assert seal() == 121


def _append_ids_in_process(database: str, barrier: Barrier, ids: list[str]) -> None:
    _own_connection(database)
    for start in range(0, len(ids), 10):
        barrier.wait(30)
        record(*(make_draft(event_id=event_id) for event_id in ids[start : start + 10]))
    connection.close()


def test_same_ids_appended_by_many_at_once_stand_once(committed: str):
    """Each process looks its ids up before it waits for the head, and again for what came in between."""
    connections.close_all()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    ids = [str(uuid.UUID(int=number, version=4)) for number in range(100)]
    orders = [ids, ids[::-1], ids[50:] + ids[:50], ids]
    workers = [context.Process(target=_append_ids_in_process, args=(committed, barrier, order)) for order in orders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert Entry.objects.count() == 101
    assert sorted(str(found) for found in Entry.objects.filter(seq__gt=0).values_list("event_id", flat=True)) == ids


def test_id_recorded_between_look_up_and_lock_is_found(committed: str, monkeypatch):
    looked_up = services._seen
    [first, other] = [make_draft(event_id=str(uuid.uuid4()), submitted=text) for text in (b"1", b"2")]

    def overtaken(cursor, items):
        seen = looked_up(cursor, items)
        with overtaker(), transaction.atomic():
            services.append([first, make_draft()])
        return seen

    @contextmanager
    def overtaker() -> Iterator[None]:
        """Another connection in the place of this one, as if another process appended now."""
        monkeypatch.setattr(services, "_seen", looked_up)
        mine = connections["default"]
        del connections["default"]
        try:
            yield
        finally:
            connections["default"].close()
            connections["default"] = mine

    monkeypatch.setattr(services, "_seen", overtaken)
    with transaction.atomic():
        [recorded, new] = services.append([first, other])
    assert (recorded.seq, recorded.is_new, new.seq, new.is_new) == (1, False, 3, True)
    monkeypatch.setattr(services, "_seen", overtaken)
    third = make_draft(event_id=str(uuid.uuid4()), submitted=b"3")
    first = third
    changed = make_draft(event_id=third.event_id, submitted=b"4")
    with pytest.raises(ConflictError), transaction.atomic():
        services.append([changed])


def test_time_limit_of_a_search_ends_with_it(committed: str, monkeypatch):
    monkeypatch.setattr(search, "PATIENCE_MS", 30)
    with pytest.raises(search.SearchTooSlowError):
        search._rows("SELECT pg_sleep(%s)", [5])
    assert search._rows("SELECT current_setting('statement_timeout')", []) == [("30ms",)]
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)
