"""Long work as rows: claimed once, taken over, cancelled, never lost."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError as KombuError
from redis.exceptions import ConnectionError as RedisConnectionError

from auditportal.jobs import queries, services
from auditportal.jobs.errors import CancelledError, JobError, LostLeaseError
from auditportal.jobs.models import Job
from auditportal.jobs.services import Running
from auditportal.ledger.drafts import SYSTEM, Actor
from tests.factories import ERIN

KIND = "test"


@pytest.fixture(autouse=True)
def _each_step_is_written(monkeypatch):
    monkeypatch.setattr(services, "BEAT_S", 0.0)


@pytest.fixture
def handle(monkeypatch):
    """Registers how jobs of the test's kind are done."""
    monkeypatch.setattr(services, "HANDLERS", dict(services.HANDLERS))
    return lambda run, ended=None: services.register(KIND, run, ended)


def enqueue(key="a", **more):
    return services.enqueue(kind=KIND, key=key, actor=SYSTEM, **more)


def reloaded(job):
    job.refresh_from_db()
    return job


def test_job_is_done_with_its_result_and_its_last_progress(db, handle, monkeypatch):
    seen: list[Any] = []

    def run(running: Running):
        seen.append((running.key, dict(running.parameters), running.requested_by))
        running.step(1, 3, "first")
        monkeypatch.setattr(services, "BEAT_S", 1000.0)
        running.step(3, note="last")  # too soon to be written, yet not lost
        return {"found": 7}

    handle(run)
    job = services.enqueue(kind=KIND, key="a", actor=ERIN, parameters={"x": 1})
    assert (job.state, job.is_active, job.percent) == ("queued", True, 0)
    assert services.run_due() == 1
    job = reloaded(job)
    assert seen == [("a", {"x": 1}, Actor(type="user", id=ERIN.id))]
    assert (job.state, job.done, job.total, job.percent, job.note, job.result) == (
        "done",
        3,
        3,
        100,
        "last",
        {"found": 7},
    )
    assert job.started_at <= job.finished_at
    assert (job.lease_until, job.error, job.attempts) == (None, "", 1)
    assert services.run_due() == 0


def test_jobs_run_in_their_order(db, handle):
    order: list[str] = []

    def run(running):
        order.append(running.key)
        return {}

    handle(run)
    for key in "abc":
        enqueue(key)
    assert services.run_due(most=2) == 2
    assert services.run_due() == 1
    assert order == ["a", "b", "c"]


def test_one_active_job_for_each_key_and_a_new_one_afterwards(db, handle):
    handle(lambda _: {})
    first = enqueue()
    assert enqueue().pk == first.pk
    assert enqueue("b").pk != first.pk
    services.run_due()
    assert enqueue().pk != first.pk
    assert [job.key for job in queries.active(KIND)] == ["a"]
    assert len(queries.latest(KIND, 2)) == 2
    assert queries.find(first.pk, KIND) == reloaded(first)
    assert queries.find(first.pk, "other") is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (JobError("the server is away"), "the server is away"),
        (JobError("x" * 900), "x" * 500),
    ],
)
def test_work_that_cannot_be_done_says_why(db, handle, error, said):
    def run(_):
        raise error

    handle(run)
    job = enqueue()
    services.run_due()
    assert (reloaded(job).state, job.error, job.result) == ("failed", said, {})


def test_kind_that_nobody_knows_fails(db):
    job = enqueue()
    services.run_due()
    assert (reloaded(job).state, "knows no work" in job.error) == ("failed", True)


def test_queued_job_is_cancelled_at_once(db, handle):
    ran: list[Running] = []
    ended: list[Job] = []
    handle(ran.append, ended.append)
    job = enqueue()
    assert services.cancel(job.pk)
    assert (reloaded(job).state, ended, services.run_due(), ran) == ("cancelled", [job], 0, [])
    assert not services.cancel(job.pk)


def test_running_job_is_cancelled_at_its_next_step(db, handle):
    steps: list[int] = []

    def run(running):
        for n in range(10):
            running.step(n, 10)
            steps.append(n)
            if n == 3:
                assert services.cancel(running.id)
        return {}

    handle(run)
    job = enqueue()
    services.run_due()
    assert (reloaded(job).state, steps) == ("cancelled", [0, 1, 2, 3])


def test_work_that_was_done_before_it_heard_of_the_cancel_is_done(db, handle):
    handle(lambda running: {"cancelled": services.cancel(running.id)})
    job = enqueue()
    services.run_due()
    assert reloaded(job).state == "done"


def test_end_is_told_in_the_transaction_that_ends_it(db, handle):
    ended: list[Any] = []
    handle(lambda _: {"x": 1}, lambda job: ended.append((job.state, job.result, connection.in_atomic_block)))
    enqueue()
    services.run_due()
    assert ended == [("done", {"x": 1}, True)]


def test_job_of_a_killed_worker_is_taken_up_after_its_lease(db, handle):
    handle(lambda _: {})
    job = enqueue()
    assert services._claim() == job  # and the worker is gone
    assert services.run_due() == 0
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert services.run_due() == 1
    assert (reloaded(job).state, job.attempts) == ("done", 2)


def test_worker_that_lost_its_lease_writes_nothing_more(db, handle, caplog):
    taken: list[bool] = []

    def run(running):
        if not taken:
            taken.append(True)
            Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
            services.run_due()  # another worker does all of it meanwhile
            with pytest.raises(LostLeaseError):
                running.step(99, note="late")
            raise LostLeaseError
        return {"by": "the second"}

    handle(run)
    job = enqueue()
    services.run_due()
    assert (reloaded(job).state, job.result, job.done, job.attempts) == ("done", {"by": "the second"}, 0, 2)
    assert "took the job over" in caplog.text


def test_late_end_of_a_lost_job_changes_nothing(db, handle):
    ended: list[Any] = []
    handle(lambda _: {}, ended.append)
    job = enqueue()
    slow = services._claim()
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    services.run_due()
    services._finish(slow, Job.State.FAILED, error="late")
    assert (reloaded(job).state, job.error, len(ended)) == ("done", "", 1)


def test_cancelled_while_its_worker_was_dead(db, handle):
    ran: list[Running] = []
    handle(ran.append)
    job = enqueue()
    services._claim()
    assert services.cancel(job.pk)
    assert reloaded(job).state == "running"  # nobody has it, and nobody knows that
    Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    services.run_due()
    assert (reloaded(job).state, ran) == ("cancelled", [])


def test_job_that_kills_every_worker_is_given_up(db, handle):
    ran: list[Running] = []
    handle(ran.append)
    job = enqueue()
    for _ in range(services.MOST_ATTEMPTS):
        assert services._claim() is not None
        Job.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    services.run_due()
    assert (reloaded(job).state, "died 5 times" in job.error, ran) == ("failed", True, [])


@pytest.mark.parametrize("error", [KombuError("away"), RedisConnectionError("away"), OSError("away")])
def test_queue_that_is_away_loses_no_work(db, handle, monkeypatch, caplog, django_capture_on_commit_callbacks, error):
    def unreachable(*_, **__):
        raise error

    monkeypatch.setattr("auditportal.jobs.services.current_app.send_task", unreachable)
    handle(lambda _: {})
    with django_capture_on_commit_callbacks(execute=True):
        job = enqueue()
    assert "waits for the next minute" in caplog.text
    services.run_due()
    assert reloaded(job).state == "done"


def test_bell_rings_after_the_commit_only(db, handle, monkeypatch, django_capture_on_commit_callbacks):
    rung: list[str] = []
    monkeypatch.setattr(services, "ring", rung.append)
    with django_capture_on_commit_callbacks() as callbacks:
        enqueue()
        assert rung == []
    for callback in callbacks:
        callback()
    assert rung == ["jobs.ring"]


# With real commits


@pytest.fixture
def real(committed):
    yield
    connections.close_all()


def test_act_that_is_rolled_back_leaves_no_work(real, handle):
    class _UndoneError(Exception):
        pass

    with pytest.raises(_UndoneError), transaction.atomic():
        enqueue()
        raise _UndoneError
    assert Job.objects.count() == 0


def test_failure_inside_is_logged_and_the_next_job_has_its_turn(real, handle, caplog):
    def run(running):
        if running.key == "bad":
            raise ZeroDivisionError
        return {}

    handle(run)
    bad, good = enqueue("bad"), enqueue("good")
    assert services.run_due() == 2
    assert (reloaded(bad).state, "log says how" in bad.error) == ("failed", True)
    assert reloaded(good).state == "done"
    assert "ZeroDivisionError" in caplog.text


def test_real_broker_that_is_away_is_given_up_at_once(real, handle, monkeypatch, caplog):
    """Not a patched error: kombu's own, from a port where nobody listens."""
    from celery import Celery

    from auditportal.settings import CELERY_BROKER_TRANSPORT_OPTIONS

    away = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False)
    away.conf.broker_transport_options = CELERY_BROKER_TRANSPORT_OPTIONS
    monkeypatch.setattr(services, "current_app", away)
    handle(lambda _: {})
    job = enqueue()
    assert "waits for the next minute" in caplog.text
    assert reloaded(job).state == "queued"


def _threads(work, count):
    faults: list[BaseException] = []

    def guarded():
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- whatever a thread meets must reach the assertion
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []


def test_two_workers_share_the_work_and_do_nothing_twice(real, handle):
    ran: list[str] = []
    both = threading.Barrier(2, timeout=30)

    def run(running):
        if running.key in ("0", "1"):
            both.wait()  # only two workers at once get past this
        ran.append(running.key)
        return {}

    handle(run)
    for n in range(20):
        enqueue(str(n))
    _threads(services.run_due, 2)
    assert sorted(ran, key=int) == [str(n) for n in range(20)]
    assert set(Job.objects.values_list("state", "attempts")) == {("done", 1)}


def test_many_who_ask_for_the_same_get_the_same_job(real, handle):
    found: list[int] = []
    _threads(lambda: found.append(enqueue().pk), 8)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert Job.objects.count() == 1


def test_stopped_reasons_are_errors_of_their_own():
    assert not issubclass(CancelledError, JobError)
    assert not issubclass(LostLeaseError, JobError)
