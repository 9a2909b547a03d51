"""What only shows when transactions really commit: rollbacks, and many writers at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

import pytest
from django.db import connection, connections, transaction

from auditportal.ledger import services
from auditportal.ledger.errors import NotRecordingError
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


def _append_in_process(database: str, count: int, size: int) -> None:
    connections["default"].settings_dict["NAME"] = database
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
