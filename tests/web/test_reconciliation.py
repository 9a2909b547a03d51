"""Runs, nights and findings as people see them; what did not answer is never called a match, and never missing."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.approvals import services as approvals
from auditportal.catalog.models import Placement
from auditportal.jobs import services as jobs
from auditportal.jobs.models import Job
from auditportal.ledger import queries as ledger
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Entry
from auditportal.reconciliation import services
from auditportal.reconciliation.examine import Result
from auditportal.reconciliation.models import Check, Finding, Verdict
from tests.kits import make_kit, observe, observe_mlflow, observed

READERS = ("alice", "bob", "carol", "dave", "erin", "frank")
STARTERS = ("alice", "bob", "erin", "frank")
EVIL = "<script>alert(1)</script>\u202egnp.exe\u200b"
HTMX = {"HX-Request": "true"}
EXPECTED, FOUND = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def version(people):
    return observe("0.2.0", now=timezone.now(), state="checked")


def made_run(*verdicts, version=None, by=SYSTEM, scope=None, state=Job.State.DONE, days_ago=0, **changes):
    """A run with a check for each verdict, as a worker leaves it."""
    job = services.request_run(actor=by, now=timezone.now(), version=scope)
    when = timezone.now() - timedelta(days=days_ago)
    Check.objects.bulk_create(
        Check(
            job=job,
            version=version,
            object=f"sha256:{n:064d}",
            title=f"Dataset: part {n}",
            verdict=verdict,
            expected=EXPECTED,
            found=EXPECTED if verdict == Verdict.OK else FOUND,
            bytes_read=1000,
            at=when,
        )
        for n, verdict in enumerate(verdicts)
    )
    is_over = state not in Job.ACTIVE
    given = {"state": state, "created_at": when, "started_at": when} | ({"finished_at": when} if is_over else {})
    Job.objects.filter(pk=job.pk).update(**(given | changes))
    return Job.objects.get(pk=job.pk)


def found(version, kind=Verdict.DIGEST_MISMATCH, title="Dataset: iris", n=1):
    services.settle(
        version, [Result(f"sha256:{n:064d}", title, kind, EXPECTED, FOUND, "other bytes")], now=timezone.now()
    )
    return Finding.objects.order_by("-pk")[0]


def last_event(seal):
    seal()
    [event] = ledger.recorded([Entry.objects.count() - 1])
    return event.body


def get(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def test_open_findings_stand_first_and_closed_ones_last(version, as_person):
    finding = found(version)
    gone = found(version, Verdict.MISSING_BLOB, "Model: forest", n=2)
    services.settle(version, [Result(gone.object, gone.title, Verdict.OK)], now=timezone.now())
    page = get(as_person("dave"), "/reconciliation/")
    addresses = [f"/reconciliation/findings/{item.pk}/" for item in (finding, gone)]
    places = [page.index(text) for text in ("Open findings", addresses[0], "Closed findings", addresses[1])]
    assert places == sorted(places)
    assert "digest mismatch" in page


def test_finding_shows_both_digests_and_all_that_hangs_on_it(version, people, as_person, seal):
    good = made_run(Verdict.OK, version=version)
    Check.objects.filter(job=good).update(object=f"sha256:{1:064d}")
    promotion = approvals.open_promotion(
        version=version, environment="production", reason="x", user=people["erin"], now=timezone.now()
    )
    Placement.objects.create(model=version.model, environment="staging", version=version, since=timezone.now())
    finding = found(version)
    seal()
    page = get(as_person("dave"), f"/reconciliation/findings/{finding.pk}/")
    assert "Digest mismatch in acme/rf-model-audit:0.2.0" in page
    assert page.index(EXPECTED) < page.index(FOUND)
    assert "other bytes" in page
    assert f'href="/events/{finding.opened_seq}/"' in page
    assert f'href="/approvals/{promotion.pk}/"' in page
    assert "It stands in staging" in page
    assert "no earlier reading of it matched" not in page
    assert "not yet" in page


def test_closed_finding_holds_nothing_back(version, people, as_person):
    approvals.open_promotion(
        version=version, environment="production", reason="x", user=people["erin"], now=timezone.now()
    )
    finding = found(version)
    services.settle(version, [Result(finding.object, finding.title, Verdict.OK)], now=timezone.now())
    finding.refresh_from_db()
    page = get(as_person("dave"), f"/reconciliation/findings/{finding.pk}/")
    assert f'href="/events/{finding.closed_seq}/"' in page
    assert "cannot be approved" not in page
    assert "Nothing: the finding is closed." in page
    assert "no earlier reading of it matched" in page


@pytest.mark.parametrize("name", STARTERS)
def test_run_over_everything_is_asked_for_with_one_event(version, people, as_person, seal, name):
    answer = as_person(name).post("/reconciliation/start/")
    job = Job.objects.get()
    assert answer["Location"] == f"/reconciliation/runs/{job.pk}/"
    assert (job.key, job.state) == (services.EVERYTHING, Job.State.QUEUED)
    body = last_event(seal)
    assert (body["action"], body["subject"]["id"]) == ("job.started", f"reconcile-{job.pk}")
    assert body["actor"]["id"] == people[name].actor.id
    before = Entry.objects.count()
    page = as_person(name).post("/reconciliation/start/", follow=True).content.decode()
    assert "was asked for before" in page
    assert (Job.objects.count(), Entry.objects.count()) == (1, before)


def test_one_version_is_checked_again_from_its_finding(version, as_person):
    finding = found(version)
    page = get(as_person("erin"), f"/reconciliation/findings/{finding.pk}/")
    label = re.search(r'name="version" value="([^"]+)"', page)[1]
    as_person("erin").post("/reconciliation/start/", {"version": label})
    assert Job.objects.get().parameters["version"] == version.pk
    assert "Check this version again" not in get(as_person("dave"), f"/reconciliation/findings/{finding.pk}/")


@pytest.mark.parametrize("label", ["acme/none:1", EVIL, "a\0b", "x" * 5000, "churn:14"])
def test_version_that_is_no_modelkit_starts_nothing(people, as_person, label):
    observe_mlflow()
    page = as_person("alice").post("/reconciliation/start/", {"version": label}, follow=True).content.decode()
    assert "Nothing was started: no ModelKit is called" in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert not Job.objects.exists()


@pytest.mark.parametrize("name", ["carol", "dave", "mallory"])
def test_others_start_and_cancel_nothing(version, as_person, name):
    job = made_run(version=version, state=Job.State.RUNNING)
    client = as_person(name)
    assert client.post("/reconciliation/start/").status_code == 403
    assert client.post(f"/reconciliation/runs/{job.pk}/cancel/").status_code == 403
    assert Job.objects.get().cancel_asked is False
    if name != "mallory":
        assert "Reconcile now" not in get(client, "/reconciliation/")
        assert "Cancel the run" not in get(client, f"/reconciliation/runs/{job.pk}/")


def test_cancelling_names_who_did_it(version, people, as_person, seal):
    job = made_run(version=version, by=accounts.doer(people["erin"]), state=Job.State.RUNNING)
    page = as_person("frank").post(f"/reconciliation/runs/{job.pk}/cancel/", follow=True).content.decode()
    assert "It stops at its next step." in page
    assert "Somebody asked to cancel" in page
    body = last_event(seal)
    assert (body["action"], body["actor"]["id"]) == ("job.cancelled", people["frank"].actor.id)
    before = Entry.objects.count()
    as_person("alice").post(f"/reconciliation/runs/{job.pk}/cancel/")
    assert Entry.objects.count() == before  # it was asked for already


def test_cancelling_a_waiting_run_ends_it_with_both_events(version, people, as_person, seal):
    services.request_run(actor=SYSTEM, now=timezone.now())
    job = Job.objects.get()
    as_person("erin").post(f"/reconciliation/runs/{job.pk}/cancel/")
    seal()
    done = ledger.recorded(range(Entry.objects.count() - 2, Entry.objects.count()))
    assert [event.body["action"] for event in done] == ["job.cancelled", "job.finished"]
    assert done[0].body["actor"]["id"] == people["erin"].actor.id
    assert done[1].body["metadata"]["state"] == "cancelled"
    page = as_person("erin").post(f"/reconciliation/runs/{job.pk}/cancel/", follow=True).content.decode()
    assert "It had ended already." in page


def test_run_under_way_shows_its_progress_and_htmx_gets_the_part_it_asks_for(version, as_person):
    job = made_run(version=version, state=Job.State.RUNNING, total=8, done=3, note="acme/x:1")
    client = as_person("erin")
    path = f"/reconciliation/runs/{job.pk}/"
    page = get(client, path)
    assert '<progress aria-label="Progress of the run" max="8" value="3">' in page
    assert 'hx-trigger="every 2s"' in page
    assert 'aria-live="polite"' in page
    assert f'<a class="link" href="{path}">Refresh</a>' in page  # without JavaScript
    part = client.get(path, headers=HTMX)
    assert "<html" not in part.content.decode()
    assert "3 of 8 versions" in part.content.decode()
    assert "HX-Refresh" not in part
    said = client.get(f"{path}?part=said", headers=HTMX).content.decode()
    assert said == "3 of 8 versions read"
    Job.objects.filter(pk=job.pk).update(state=Job.State.DONE, finished_at=timezone.now())
    assert client.get(path, headers=HTMX)["HX-Refresh"] == "true"
    assert "<progress" not in get(client, path)


def test_progress_is_without_a_number_while_nobody_knows_it(version, as_person):
    job = made_run(version=version, state=Job.State.QUEUED, started_at=None)
    page = get(as_person("dave"), f"/reconciliation/runs/{job.pk}/")
    assert '<progress aria-label="Progress of the run">' in page
    assert "waiting for a worker" in page


def test_run_lists_what_is_wrong_first_then_what_did_not_answer(version, as_person):
    job = made_run(Verdict.OK, Verdict.UNREACHABLE, Verdict.OK, Verdict.MISSING_BLOB, version=version)
    page = get(as_person("dave"), f"/reconciliation/runs/{job.pk}/")
    assert re.findall(r"Dataset: part \d", page) == [f"Dataset: part {n}" for n in (3, 1, 0, 2)]
    assert re.findall(r'class="tag (\w*)"><svg[^>]*><use [^>]*/></svg>([a-z ]+)<', page) == [
        ("bad", "missing blob"),
        ("warn", "unreachable"),
        ("ok", "ok"),
        ("ok", "ok"),
    ]
    assert "4.0 kB" in page


def test_unreachable_is_amber_and_neither_a_match_nor_missing(version, as_person):
    made_run(Verdict.OK, Verdict.UNREACHABLE, version=version)
    observe("0.1.0", now=timezone.now(), state="unreachable")
    page = get(as_person("dave"), "/reconciliation/")
    assert '<li class="warn">' in page
    assert "1 unreachable" in page
    assert "all match" not in page
    assert "neither a match nor missing" in page
    assert "acme/rf-model-audit:0.1.0" in page
    assert "Nothing that was read differs from the record." in page


@pytest.mark.parametrize(
    ("verdicts", "state", "tone", "word"),
    [
        ([Verdict.OK], "done", "ok", "all match"),
        ([Verdict.OK, Verdict.UNREACHABLE], "done", "warn", "1 unreachable"),
        ([Verdict.UNREACHABLE, Verdict.TRUNCATED, Verdict.DIGEST_MISMATCH], "done", "bad", "2 wrong"),
        ([], "done", "", "nothing read"),
        ([Verdict.OK], "failed", "bad", "failed"),
        ([Verdict.OK], "cancelled", "warn", "cancelled"),
        ([Verdict.OK], "running", "info", "running"),
    ],
)
def test_night_is_never_better_than_its_worst_part(version, as_person, verdicts, state, tone, word):
    job = made_run(*verdicts, version=version, state=state)
    page = get(as_person("dave"), "/reconciliation/")
    assert cells(page) == [(tone, f"/reconciliation/runs/{job.pk}/", word)]


def cells(page):
    return re.findall(
        r'<li class="(\w*)">(?:<a href="([^"]+)">)?<span class="d">[^<]+</span>.*?</span> ([^<]+)</span>', page
    )


def test_night_without_a_run_is_shown_as_missed_once_there_were_runs(version, as_person):
    client = as_person("dave")
    assert cells(get(client, "/reconciliation/")) == [("", "", "no run")]  # today: nothing yet
    made_run(Verdict.OK, version=version, days_ago=3)
    assert [word for _, _, word in cells(get(client, "/reconciliation/"))] == [
        "all match",
        "no run",
        "no run",
        "no run",
    ]
    made_run(Verdict.OK, version=version, days_ago=70)
    assert len(cells(get(client, "/reconciliation/"))) == 60


def test_nights_show_the_last_full_run_of_their_day(version, as_person):
    made_run(Verdict.TRUNCATED, version=version, days_ago=3)
    later = made_run(Verdict.OK, version=version, days_ago=3)
    made_run(Verdict.TRUNCATED, version=version, scope=version, days_ago=3)  # of one version: no night
    made_run(Verdict.OK, version=version, days_ago=70)
    page = get(as_person("dave"), "/reconciliation/")
    nights = page[page.index('class="nights"') : page.index('id="runs-h"')]
    assert re.findall(r'href="([^"]+)"', nights) == [f"/reconciliation/runs/{later.pk}/"]


def test_table_of_runs_says_who_asked_and_about_what(version, people, as_person):
    made_run(Verdict.OK, version=version, scope=version, by=accounts.doer(people["erin"]))
    made_run(Verdict.OK, Verdict.OK, version=version)
    page = get(as_person("dave"), "/reconciliation/")
    runs = page[page.index('id="runs-h"') :]
    for text in ("Erin Example", "acme/rf-model-audit:0.2.0", "the portal", "everything", "2 ok", "2.0 kB"):
        assert text in runs


def test_failed_run_says_why(version, as_person):
    job = made_run(version=version, state=Job.State.FAILED, error="the source registry is not configured")
    assert "the source registry is not configured" in get(as_person("dave"), f"/reconciliation/runs/{job.pk}/")


def test_hostile_texts_are_shown_and_never_run(version, as_person):
    finding = found(version, title=EVIL)
    Finding.objects.update(detail=EVIL, found=EVIL)
    job = made_run(Verdict.TRUNCATED, version=version, state=Job.State.RUNNING, note=EVIL, error=EVIL)
    Check.objects.update(title=EVIL, found=EVIL, detail=EVIL)
    client = as_person("dave")
    for path in ("/reconciliation/", f"/reconciliation/runs/{job.pk}/", f"/reconciliation/findings/{finding.pk}/", "/"):
        page = get(client, path)
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert "\u202e" not in page
        assert "style=" not in page


@pytest.mark.parametrize("path", ["runs/999999/", f"runs/{2**70}/", "findings/999999/", f"findings/{2**70}/"])
def test_unknown_run_and_finding_are_not_found(people, as_person, path):
    assert as_person("dave").get(f"/reconciliation/{path}").status_code == 404


def test_a_job_of_another_kind_is_no_run(people, as_person):
    job = jobs.enqueue(kind="bundle", key="x", actor=SYSTEM)
    assert as_person("dave").get(f"/reconciliation/runs/{job.pk}/").status_code == 404
    assert as_person("erin").post(f"/reconciliation/runs/{job.pk}/cancel/").status_code == 404
    assert Job.objects.get().state == Job.State.QUEUED


def test_each_person_gets_what_the_role_says(version, as_person):
    job, finding = made_run(Verdict.OK, version=version), found(version)
    for path in (f"/reconciliation/runs/{job.pk}/", f"/reconciliation/findings/{finding.pk}/"):
        assert as_person("mallory").get(path).status_code == 403
        for name in READERS:
            assert as_person(name).get(path).status_code == 200
        assert Client().get(path)["Location"].split("?")[0] == "/account/login/"


@pytest.mark.parametrize("path", ["start/", "runs/{}/cancel/"])
def test_acts_are_posts_with_the_forms_mark(version, people, as_person, path):
    job = made_run(version=version, state=Job.State.RUNNING)
    address = "/reconciliation/" + path.format(job.pk)
    assert as_person("alice").get(address).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(people["alice"], backend="django.contrib.auth.backends.ModelBackend")
    before = Entry.objects.count()
    assert strict.post(address).status_code == 403
    assert Entry.objects.count() == before


def test_overview_names_open_findings(version, as_person):
    assert "No finding is open." in get(as_person("dave"), "/")
    finding = found(version)
    assert f"/reconciliation/findings/{finding.pk}/" in get(as_person("dave"), "/")


def queries_of(client, path):
    client.get(path)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200
    return len(captured)


def made(number):
    kit = make_kit({"manifestVersion": "1.0.0", "package": {"name": f"n{number}"}}, repository=f"acme/n{number}")
    return observed(kit, tag="1.0.0", now=timezone.now(), state="unreachable")


@pytest.mark.parametrize("path", ["/reconciliation/", "/"])
def test_lists_need_the_same_queries_for_any_number(people, as_person, path):
    client = as_person("dave")
    counts = []
    for numbers in ((0,), (1, 2)):
        for n in numbers:
            version = made(n)
            found(version, n=n)
            gone = found(version, n=100 + n)
            services.settle(version, [Result(gone.object, gone.title, Verdict.OK)], now=timezone.now())
            made_run(Verdict.OK, version=version, by=accounts.doer(people["erin"]), days_ago=n)
            made_run(Verdict.OK, version=version, by=accounts.doer(people["bob"]), scope=version)
        counts.append(queries_of(client, path))
    assert counts[0] == counts[1]


def test_pages_of_a_run_and_a_finding_need_the_same_queries_for_any_number(version, people, as_person):
    client = as_person("dave")
    finding = found(version)
    counts = []
    for most in (1, 3):
        job = made_run(*[Verdict.OK] * most, version=version)
        for n in range(most):
            Placement.objects.get_or_create(
                model=version.model, environment=f"e{n}", defaults={"version": version, "since": timezone.now()}
            )
        if most == 1:
            approvals.open_promotion(
                version=version, environment="staging", reason="x", user=people["bob"], now=timezone.now()
            )
        else:
            approvals.open_promotion(
                version=version, environment="production", reason="x", user=people["erin"], now=timezone.now()
            )
        paths = (f"/reconciliation/runs/{job.pk}/", f"/reconciliation/findings/{finding.pk}/")
        counts.append([queries_of(client, path) for path in paths])
    assert counts[0] == counts[1]
