"""Asking, signing, rejecting and withdrawing, as people do it on the pages; every refusal is on the record."""

from __future__ import annotations

import re

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from auditportal.approvals import queries, services
from auditportal.approvals.models import Decision, Promotion
from auditportal.catalog.models import Placement, Version
from auditportal.ledger import queries as ledger
from auditportal.ledger.models import Entry
from auditportal.reconciliation import services as reconciliation
from auditportal.reconciliation.examine import Result
from auditportal.reconciliation.models import Verdict
from auditportal.web import approvals as pages
from tests.conftest import PASSWORD
from tests.kits import make_kit, observe, observe_mlflow, observed

READERS = ("alice", "bob", "carol", "dave", "erin", "frank")
EVIL = "<script>alert(1)</script>\u202egnp.exe\u200b"
HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """Nothing seals beside these tests, so waiting for a checkpoint would only cost its second."""
    monkeypatch.setattr(pages, "PROOF_WAIT_S", 0.0)
    cache.clear()


@pytest.fixture
def version(people):
    return observe("0.2.0", now=timezone.now(), state="checked")


@pytest.fixture
def promotion(version, people):
    return ask(version, people["erin"])


def ask(version, user, environment="production", reason="better recall"):
    return services.open_promotion(
        version=version, environment=environment, reason=reason, user=user, now=timezone.now()
    )


def address(promotion, act=""):
    return f"/approvals/{promotion.pk}/" + (f"{act}/" if act else "")


def seen_on(client, promotion):
    """What the page of this person carries along; nothing once the request is closed."""
    page = client.get(address(promotion)).content.decode()
    found = re.search(r'name="seen" value="([0-9a-f]{64})"', page)
    return found[1] if found else ""


def approve(client, promotion, **changes):
    given = {"meaning": "approved for use", "password": PASSWORD, "comment": "", "seen": seen_on(client, promotion)}
    return client.post(address(promotion, "approve"), given | changes)


def reject(client, promotion, **changes):
    given = {"password": PASSWORD, "comment": "recall fell in the north", "seen": seen_on(client, promotion)}
    return client.post(address(promotion, "reject"), given | changes)


def last_event(seal):
    seal()
    [event] = ledger.recorded([Entry.objects.count() - 1])
    return event.body


def damage(version):
    """What the next reading of the version's bytes would find and record."""
    bad = Result("sha256:" + "1" * 64, "Dataset: iris", Verdict.DIGEST_MISMATCH, "sha256:1", "sha256:2", "other bytes")
    reconciliation.settle(version, [bad], now=timezone.now())


def test_engineer_asks_and_the_request_stands_in_the_log(version, as_person, people, seal):
    client = as_person("erin")
    given = {"version": version.label, "environment": "production", "reason": "better recall"}
    answer = client.post("/approvals/new/", given)
    promotion = Promotion.objects.get()
    assert answer["Location"] == address(promotion)
    body = last_event(seal)
    assert (body["action"], body["outcome"], body["reason"]) == ("request", "done", "better recall")
    assert body["actor"]["id"] == people["erin"].actor.id
    page = client.get(address(promotion)).content.decode()
    assert "Erin Example asks to bring acme/rf-model-audit:0.2.0 into production" in page
    assert version.manifest_digest in page
    assert 'aria-label="checked"' in page  # its event, with its proof


@pytest.mark.parametrize("name", ["carol", "dave", "frank", "mallory"])
def test_asking_is_for_engineers_and_leads(version, as_person, name):
    client = as_person(name)
    assert client.get("/approvals/new/").status_code == 403
    given = {"version": version.label, "environment": "production", "reason": "x"}
    assert client.post("/approvals/new/", given).status_code == 403
    assert not Promotion.objects.exists()


def test_conditions_are_shown_before_asking_with_and_without_javascript(version, as_person):
    Version.objects.filter(pk=version.pk).update(check_state="unreachable", check_note="answered 503")
    client = as_person("erin")
    where = {"version": version.label, "environment": "production"}
    page = client.get("/approvals/new/", where).content.decode()
    fragment = client.get("/approvals/new/", where, headers=HTMX).content.decode()
    assert "<html" in page
    assert "<html" not in fragment
    for text in (page, fragment):
        assert "Can 0.2.0 go to production?" in text
        assert "unreachable: answered 503" in text
        assert "Run a reconciliation of this version, and mend at the registry what it finds." in text
        assert text.count('aria-label="met"') == 3
        assert text.count('aria-label="not met"') == 1
        assert "nobody can approve until every condition about the version is met" in text
    assert not Promotion.objects.exists()


def test_conditions_name_what_the_request_would_replace_and_one_that_is_open(version, as_person, people):
    old = observe("0.1.0", now=timezone.now(), state="checked")
    Placement.objects.create(model=version.model, environment="production", version=old, since=timezone.now())
    where = {"version": version.label, "environment": "production"}
    assert "in place of acme/rf-model-audit:0.1.0" in as_person("erin").get("/approvals/new/", where).content.decode()
    known = ask(version, people["alice"])
    page = as_person("erin").get("/approvals/new/", where).content.decode()
    assert "open already" in page
    assert address(known) in page
    assert "Ask for production" not in page


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "acme/none:1"}, "No version is called acme/none:1."),
        ({"version": EVIL}, "&lt;script&gt;alert(1)&lt;/script&gt;⟨U+202E⟩gnp.exe⟨U+200B⟩"),
        ({"version": ""}, "This field is required."),
        ({"version": "x" * 601}, "at most 600 characters"),
        ({"version": "a\0b"}, "Null characters are not allowed."),
        ({"environment": "moon"}, "moon is not one of the available choices"),
    ],
)
def test_choice_that_cannot_be_is_explained_and_opens_nothing(version, as_person, changes, said):
    given = {"version": version.label, "environment": "production", "reason": "x"} | changes
    client = as_person("erin")
    shown = client.get("/approvals/new/", {name: given[name] for name in ("version", "environment")})
    assert shown.status_code == 200
    assert said in shown.content.decode()
    answer = client.post("/approvals/new/", given)
    assert answer.status_code == 400
    assert said in answer.content.decode()
    assert not Promotion.objects.exists()


@pytest.mark.parametrize("reason", ["", "   ", "x" * 2001, "a\0b"])
def test_request_without_a_good_reason_opens_nothing(version, as_person, reason):
    given = {"version": version.label, "environment": "production", "reason": reason}
    answer = as_person("erin").post("/approvals/new/", given)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.content.decode()
    assert not Promotion.objects.exists()


def test_second_request_for_the_same_is_refused_in_words(promotion, version, as_person):
    given = {"version": version.label, "environment": "production", "reason": "again"}
    answer = as_person("alice").post("/approvals/new/", given)
    assert answer.status_code == 400
    assert "open already" in answer.content.decode()
    assert Promotion.objects.count() == 1


def test_version_of_mlflow_can_be_asked_for_and_has_nothing_to_sign(people, as_person):
    promotion = ask(observe_mlflow(now=timezone.now()), people["erin"])
    page = as_person("alice").get(address(promotion)).content.decode()
    assert "this version has no manifest digest" in page
    answer = approve(as_person("alice"), promotion)
    assert answer.status_code == 409
    assert not Decision.objects.exists()


def test_two_people_approve_and_the_version_is_promoted(promotion, version, as_person, seal):
    answer = approve(as_person("bob"), promotion)
    assert answer["Location"] == address(promotion)
    page = as_person("carol").get(address(promotion)).content.decode()
    assert "1 of 2" in page
    assert "by password in a session: the weaker way" in page
    assert "any of: lead, compliance" in page
    assert not Placement.objects.exists()
    answer = approve(as_person("carol"), promotion, meaning="approved as risk owner")
    assert answer["Location"] == address(promotion)
    promotion.refresh_from_db()
    assert promotion.state == Promotion.State.PROMOTED
    assert Placement.objects.get().version_id == version.pk
    body = last_event(seal)
    assert (body["action"], body["environment"]) == ("promote", "production")
    page = as_person("dave").get(address(promotion)).content.decode()
    assert "Erin Example asked to bring" in page
    assert "Approve</button>" not in page


def test_each_signature_shows_printed_name_time_and_meaning(promotion, as_person, seal):
    """21 CFR 11.50 (a) and (b): on the page, which is also what is printed."""
    approve(as_person("bob"), promotion, meaning="reviewed and approved", comment="watch the drift")
    approve(as_person("carol"), promotion)
    seal()
    page = as_person("dave").get(address(promotion)).content.decode()
    for decision in Decision.objects.all():
        assert f"<strong>{decision.printed_name}</strong></dd>" in page
        assert f"<dd>{decision.meaning}</dd>" in page
        assert decision.at.strftime("%Y-%m-%dT%H:%M:%S") in page
        assert f'href="/events/{decision.seq}/"' in page
    assert "watch the drift" in page
    assert page.count("The statement that was signed") == 2


def test_page_shows_the_statement_before_it_is_signed(promotion, version, people, as_person):
    page = as_person("alice").get(address(promotion)).content.decode()
    shown = page[page.index("The statement you would sign") :]
    packet = queries.packet(promotion, now=timezone.now())
    for part in (version.manifest_digest, packet.policy.digest, packet.evidence_digest, people["alice"].actor.id):
        assert part in shown
    assert "&quot;method&quot;: &quot;session&quot;" in shown
    assert "The statement you would sign" not in as_person("dave").get(address(promotion)).content.decode()


BARRED = [
    ("erin", "who asks for a promotion may not sign it"),
    ("erin", "the role engineer may not sign; lead and compliance may"),
    ("dave", "the role auditor may not sign; lead and compliance may"),
    ("frank", "the role admin may not sign; lead and compliance may"),
]


@pytest.mark.parametrize(("name", "rule"), BARRED)
@pytest.mark.parametrize("act", ["approve", "reject"])
def test_barred_person_sees_the_rule_may_press_and_is_recorded(promotion, as_person, people, seal, name, rule, act):
    client = as_person(name)
    page = client.get(address(promotion)).content.decode()
    assert "You may not sign this" in page
    assert f"<li>{rule}</li>" in page
    answer = client.post(address(promotion, act), {"seen": seen_on(client, promotion)})  # nothing filled in
    assert answer.status_code == 409
    said = answer.content.decode()
    assert "Refused, and recorded" in said
    assert rule in said
    seq = Entry.objects.count() - 1
    assert f'href="/events/{seq}/"' in said
    body = last_event(seal)
    assert (body["action"], body["outcome"], body["actor"]["id"]) == (act, "refused", people[name].actor.id)
    assert rule in body["reason"]
    assert f"{act} refused" in client.get(address(promotion)).content.decode()  # as visible as a success
    assert not Decision.objects.exists()


def test_lead_asks_and_cannot_approve_the_own_request(version, people, as_person, seal):
    promotion = ask(version, people["alice"])
    answer = approve(as_person("alice"), promotion)
    assert answer.status_code == 409
    assert "who asks for a promotion may not sign it" in answer.content.decode()
    body = last_event(seal)
    assert (body["action"], body["outcome"]) == ("approve", "refused")
    assert body["reason"] == "who asks for a promotion may not sign it"


def test_signing_twice_is_refused(promotion, as_person):
    client = as_person("bob")
    approve(client, promotion)
    assert "this person has signed already" in client.get(address(promotion)).content.decode()
    assert approve(client, promotion).status_code == 409
    assert Decision.objects.count() == 1


def test_wrong_password_signs_nothing_and_is_recorded(promotion, as_person, seal):
    answer = approve(as_person("alice"), promotion, password="wrong")
    assert answer.status_code == 409
    page = answer.content.decode()
    assert "the password was wrong" in page
    assert 'value="wrong"' not in page
    assert last_event(seal)["reason"] == "the password was wrong"


@pytest.mark.parametrize(
    "changes", [{"meaning": ""}, {"meaning": "because"}, {"password": ""}, {"comment": "x" * 2001}]
)
def test_form_that_is_not_filled_in_is_no_attempt(promotion, as_person, changes):
    before = Entry.objects.count()
    answer = approve(as_person("alice"), promotion, **changes)
    assert answer.status_code == 400
    assert 'class="wrong" role="alert"' in answer.content.decode()
    assert PASSWORD not in answer.content.decode()
    assert Entry.objects.count() == before


@pytest.mark.parametrize("changes", [{"comment": ""}, {"comment": "  "}, {"password": ""}])
def test_rejecting_needs_a_reason_and_the_password(promotion, as_person, changes):
    assert reject(as_person("alice"), promotion, **changes).status_code == 400
    promotion.refresh_from_db()
    assert promotion.is_open


@pytest.mark.parametrize("seen", ["", "0" * 64])
def test_page_drawn_before_a_change_signs_nothing(promotion, as_person, seen):
    answer = approve(as_person("alice"), promotion, seen=seen)
    assert answer.status_code == 409
    assert "what the signature would cover changed since the page was drawn" in answer.content.decode()
    assert not Decision.objects.exists()


def test_finding_behind_an_open_page_stops_the_signature(promotion, version, as_person, seal):
    client = as_person("alice")
    before = seen_on(client, promotion)
    damage(version)
    answer = approve(client, promotion, seen=before)
    assert answer.status_code == 409
    page = answer.content.decode()
    assert "changed since the page was drawn" in page
    assert "digest mismatch: Dataset: iris" in page
    assert "changed since" in last_event(seal)["reason"]


def test_stale_signature_stays_visible_struck_through_with_its_reason(promotion, version, as_person):
    approve(as_person("bob"), promotion)
    damage(version)
    page = as_person("carol").get(address(promotion)).content.decode()
    assert "<s>Bob Example</s>" in page
    assert "The evidence changed since it was given. It does not count." in page
    assert "0 of 2" in page
    queue = as_person("bob").get("/approvals/").content.decode()
    assert "1 stale" in queue
    waiting = queue[queue.index("Waiting for you") : queue.index("Open, waiting for others")]
    assert address(promotion) in waiting  # whose signature went stale is asked again


def test_signature_of_a_decided_request_is_not_struck_by_what_came_later(promotion, version, as_person):
    approve(as_person("bob"), promotion)
    approve(as_person("carol"), promotion)
    damage(version)
    page = as_person("dave").get(address(promotion)).content.decode()
    assert "<s>" not in page
    assert "The evidence changed after the request was decided." in page
    assert "The version today" in page
    assert "digest mismatch: Dataset: iris" in page


def test_rejection_ends_the_request_with_its_reason(promotion, as_person, seal):
    answer = reject(as_person("alice"), promotion)
    assert answer["Location"] == address(promotion)
    body = last_event(seal)
    assert (body["action"], body["outcome"], body["reason"]) == ("reject", "done", "recall fell in the north")
    page = as_person("dave").get(address(promotion)).content.decode()
    assert "recall fell in the north" in page
    assert "rejected" in page
    assert "Approve</button>" not in page
    late = approve(as_person("bob"), promotion)
    assert late.status_code == 409
    assert "the request is no longer open" in late.content.decode()


def test_rejection_needs_no_condition(promotion, version, as_person):
    damage(version)
    assert reject(as_person("alice"), promotion).status_code == 302


def test_who_asked_withdraws_and_nobody_else(promotion, as_person, seal):
    page = as_person("alice").get(address(promotion)).content.decode()
    assert "/withdraw/" not in page
    refused = as_person("alice").post(address(promotion, "withdraw"))
    assert refused.status_code == 409
    assert "only who asked may withdraw" in refused.content.decode()
    assert last_event(seal)["outcome"] == "refused"
    client = as_person("erin")
    assert "/withdraw/" in client.get(address(promotion)).content.decode()
    answer = client.post(address(promotion, "withdraw"), follow=True)
    assert "Withdrawn. The request is closed." in answer.content.decode()
    body = last_event(seal)
    assert (body["action"], body["outcome"]) == ("withdraw", "done")
    assert client.post(address(promotion, "withdraw")).status_code == 409


@pytest.mark.parametrize("act", ["approve", "reject", "withdraw"])
def test_acts_are_posts_with_the_forms_mark(promotion, people, as_person, act):
    assert as_person("alice").get(address(promotion, act)).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(people["alice"], backend="django.contrib.auth.backends.ModelBackend")
    before = Entry.objects.count()
    answer = strict.post(address(promotion, act), {"password": PASSWORD, "meaning": "approved for use"})
    assert answer.status_code == 403
    assert Entry.objects.count() == before
    stranger = Client().post(address(promotion, act))
    assert (stranger.status_code, stranger["Location"].split("?")[0]) == (302, "/account/login/")


@pytest.mark.parametrize("act", ["", "approve", "reject", "withdraw"])
def test_each_person_gets_what_the_role_says(promotion, as_person, act):
    client = as_person("mallory")
    answer = client.post(address(promotion, act)) if act else client.get(address(promotion))
    assert answer.status_code == 403
    if act:
        return
    for name in READERS:
        answer = as_person(name).get(address(promotion))
        assert answer.status_code == 200
        assert answer["Cache-Control"] == "no-store"
        assert "style=" not in answer.content.decode()


@pytest.mark.parametrize("pk", ["5b0e2c1a-6a0e-4a52-9d7e-3f1f0c6f7a11", "x", "00000000-0000-0000-0000-00000000000g"])
def test_unknown_request_is_not_found(people, as_person, pk):
    assert as_person("alice").get(f"/approvals/{pk}/").status_code == 404
    assert as_person("alice").post(f"/approvals/{pk}/approve/").status_code == 404


def test_hostile_texts_are_shown_and_never_run(version, people, as_person, seal):
    people["erin"].printed_name = EVIL
    people["erin"].save()
    promotion = ask(version, people["erin"], reason=EVIL)
    seal()
    approve(as_person("bob"), promotion, comment=EVIL)
    client = as_person("alice")
    for path in ("/approvals/", address(promotion), "/"):
        page = client.get(path).content.decode()
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert "\u202e" not in page
        assert "⟨U+202E⟩" in page


def test_queue_puts_what_waits_for_a_person_first_and_the_oldest_on_top(people, as_person):
    first, second = (made(n) for n in range(2))
    older, newer = ask(first, people["erin"]), ask(second, people["alice"], environment="staging")
    done = ask(second, people["erin"])
    services.withdraw(promotion=done, user=people["erin"], now=timezone.now())
    page = as_person("bob").get("/approvals/").content.decode()
    places = [page.index(text) for text in (address(older), address(newer), "Open, waiting for others", address(done))]
    assert places == sorted(places)
    page = as_person("alice").get("/approvals/").content.decode()
    places = [page.index(text) for text in (address(older), "Open, waiting for others", address(newer))]
    assert places == sorted(places)
    page = as_person("dave").get("/approvals/").content.decode()
    assert "Nothing waits for your signature." in page
    assert "withdrawn" in page


def test_overview_tells_who_is_waited_for(promotion, as_person):
    assert address(promotion) in as_person("bob").get("/").content.decode()
    assert "Nothing waits for your signature." in as_person("erin").get("/").content.decode()


def made(number):
    kit = make_kit({"manifestVersion": "1.0.0", "package": {"name": f"n{number}"}}, repository=f"acme/n{number}")
    return observed(kit, tag="1.0.0", now=timezone.now(), state="checked")


def queries_of(client, path):
    client.get(path)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200
    return len(captured)


@pytest.mark.parametrize("path", ["/approvals/", "/approvals/new/", "/"])
def test_lists_need_the_same_queries_for_any_number(people, as_person, path):
    client = as_person("alice")
    counts = []
    for most in (1, 3):
        for n in range(2 * Promotion.objects.filter(state="open").count(), 2 * most):
            promotion = ask(made(2 * n), people["erin"])
            approve(as_person("bob"), promotion)
            gone = ask(made(2 * n + 1), people["erin"])
            services.withdraw(promotion=gone, user=people["erin"], now=timezone.now())
        counts.append(queries_of(client, path))
    assert counts[0] == counts[1]


def test_page_of_a_request_needs_the_same_queries_for_any_number_of_signatures(promotion, version, as_person, seal):
    counts = []
    for names in (("alice",), ("bob", "carol")):
        for name in names:
            assert approve(as_person(name), promotion).status_code == 302
            Version.objects.filter(pk=version.pk).update(run_id=name)  # stale from now on, so that more can be given
        seal()
        counts.append(queries_of(as_person("dave"), address(promotion)))
    assert counts[0] == counts[1]
