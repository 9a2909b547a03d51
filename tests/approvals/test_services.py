"""Promotions over a real log: every attempt stands in it, and only what the gates grant takes effect."""

from __future__ import annotations

import threading

import pytest
from django.core.cache import cache
from django.db import connection, transaction
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.accounts.roles import Role
from auditportal.approvals import queries, services
from auditportal.approvals.errors import ApprovalError
from auditportal.approvals.models import Decision, Promotion
from auditportal.approvals.services import Signed, Turned
from auditportal.catalog import queries as catalog
from auditportal.catalog.models import Placement
from auditportal.ledger import queries as ledger
from auditportal.ledger.drafts import SYSTEM
from auditportal.reconciliation import services as reconciliation
from auditportal.reconciliation.examine import Result
from auditportal.reconciliation.models import Verdict
from auditproof import approvals, sealed
from tests.conftest import PASSWORD, make_people
from tests.kits import observe


@pytest.fixture
def crew(committed):
    cache.clear()
    return make_people()


@pytest.fixture
def version(crew):
    return stand("0.1.0", state="checked")


def stand(tag, **changes):
    with transaction.atomic():
        return observe(tag, now=timezone.now(), **changes)


def ask(version, user, environment="production"):
    return services.open_promotion(
        version=version, environment=environment, reason="better recall", user=user, now=timezone.now()
    )


def sign(promotion, user, *, intent="approve", password=PASSWORD, seen=None, comment="", meaning="approved for use"):
    now = timezone.now()
    promotion.refresh_from_db()
    fingerprint = queries.packet(promotion, now=now).fingerprint if seen is None else seen
    return services.sign(
        promotion=promotion, user=user, intent=intent, meaning=meaning, comment=comment, password=password,
        seen=fingerprint, now=now,
    )  # fmt: skip


def last_event(seal):
    size = seal()
    [event] = ledger.recorded([size - 1])
    return event.body


def test_two_people_approve_and_the_version_takes_its_place(crew, version, seal):
    promotion = ask(version, crew["erin"])
    assert last_event(seal)["action"] == "request"
    first = sign(promotion, crew["alice"])
    assert isinstance(first, Signed)
    assert not first.promoted
    assert not Placement.objects.exists()
    second = sign(promotion, crew["carol"], meaning="approved as risk owner")
    assert second.promoted
    promotion.refresh_from_db()
    assert promotion.state == Promotion.State.PROMOTED
    [placed] = catalog.placements(version.model)
    assert (placed.version, placed.environment) == (version, "production")
    body = last_event(seal)
    assert (body["action"], body["outcome"], body["environment"]) == ("promote", "done", "production")
    assert body["metadata"]["approved_by"] == sorted([crew["alice"].actor.id, crew["carol"].actor.id])
    assert promotion.decided_seq == second.seq + 1


def test_statement_covers_exact_bytes_and_agrees_with_its_event(crew, version, seal):
    promotion = ask(version, crew["erin"])
    seal()
    done = sign(promotion, crew["alice"])
    seal()
    [event] = ledger.recorded([done.seq])
    decision = Decision.objects.get(seq=done.seq)
    raw = bytes(decision.statement)
    statement = approvals.parse_statement(raw)
    approvals.check_agreement(statement, event.body, origin="test.invalid/log", place=f"seq {done.seq}")
    assert event.body["metadata"]["approval"] == {"challenge": approvals.challenge(raw).hex(), "factors": ["password"]}
    assert statement["method"] == "session"
    assert statement["manifest_digest"] == version.manifest_digest
    assert 0 < statement["checkpoint"]["size"] <= done.seq
    assert statement["signer"]["printed_name"] == {
        "$sealed": sealed.commit(bytes(decision.name_salt), decision.printed_name)
    }
    assert "Alice" not in event.raw_body.decode()
    assert "Alice" not in raw.decode()


@pytest.mark.parametrize(
    ("who", "requester", "password", "reason"),
    [
        ("alice", "alice", PASSWORD, "who asks for a promotion may not sign it"),
        ("erin", "alice", PASSWORD, "the role engineer may not sign; lead and compliance may"),
        ("dave", "alice", PASSWORD, "the role auditor may not sign; lead and compliance may"),
        ("frank", "alice", PASSWORD, "the role admin may not sign; lead and compliance may"),
        ("bob", "alice", "wrong", "the password was wrong"),
    ],
)
def test_refused_attempt_signs_nothing_and_stands_in_the_log(crew, version, seal, who, requester, password, reason):
    promotion = ask(version, crew[requester])
    turned = sign(promotion, crew[who], password=password)
    assert turned == Turned((reason,), turned.seq)
    body = last_event(seal)
    assert (body["action"], body["outcome"], body["reason"]) == ("approve", "refused", reason)
    assert body["actor"]["id"] == crew[who].actor.id
    assert body["metadata"]["request"] == str(promotion.pk)
    assert not Decision.objects.exists()


def test_nobody_counts_twice(crew, version):
    promotion = ask(version, crew["erin"])
    assert isinstance(sign(promotion, crew["alice"]), Signed)
    again = sign(promotion, crew["alice"])
    assert isinstance(again, Turned)
    assert again.reasons == ("this person has signed already",)
    assert Decision.objects.count() == 1


def test_signatures_racing_for_the_last_place_promote_once(crew, version):
    promotion = ask(version, crew["erin"])
    results, barrier = [], threading.Barrier(3)

    def run(name):
        try:
            barrier.wait()
            results.append(sign(Promotion.objects.get(pk=promotion.pk), crew[name]))
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(name,)) for name in ("alice", "bob", "carol")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    signed = [item for item in results if isinstance(item, Signed)]
    turned = [item for item in results if isinstance(item, Turned)]
    assert [item.promoted for item in sorted(signed, key=lambda item: item.seq)] == [False, True]
    assert [item.reasons for item in turned] == [("the request is no longer open",)]


def test_role_lost_before_signing_counts(crew, version):
    promotion = ask(version, crew["erin"])
    stale = crew["alice"]
    accounts.change_role(user=stale, role=Role.ENGINEER, reason="moved", actor=SYSTEM, now=timezone.now())
    assert isinstance(sign(promotion, stale), Turned)


def test_page_drawn_before_a_change_signs_nothing(crew, version):
    promotion = ask(version, crew["erin"])
    turned = sign(promotion, crew["alice"], seen="0" * 64)
    assert isinstance(turned, Turned)
    assert turned.reasons == ("what the signature would cover changed since the page was drawn",)


def test_finding_blocks_the_approval_until_it_closes_and_makes_earlier_ones_stale(crew, version, seal):
    promotion = ask(version, crew["erin"])
    sign(promotion, crew["alice"])
    bad = Result("sha256:" + "1" * 64, "Dataset: iris", Verdict.DIGEST_MISMATCH, "sha256:1", "sha256:2", "other bytes")
    with transaction.atomic():
        reconciliation.settle(version, [bad], now=timezone.now())
    turned = sign(promotion, crew["carol"])
    assert isinstance(turned, Turned)
    assert turned.reasons == ("no open finding: digest mismatch: Dataset: iris",)
    packet = queries.packet(promotion, now=timezone.now())
    assert [item.is_stale for item in packet.decisions] == [True]
    with transaction.atomic():
        reconciliation.settle(version, [Result(bad.object, bad.title, Verdict.OK)], now=timezone.now())
    assert not sign(promotion, crew["carol"]).promoted
    packet = queries.packet(promotion, now=timezone.now())
    assert [item.is_stale for item in packet.decisions] == [True, False]  # what was stale once never counts again
    assert sign(promotion, crew["alice"]).promoted


def test_reject_needs_no_gate_and_ends_the_request(crew, version, seal):
    promotion = ask(version, crew["erin"])
    done = sign(promotion, crew["bob"], intent="reject", comment="recall fell in the north", meaning="rejected")
    assert isinstance(done, Signed)
    promotion.refresh_from_db()
    assert promotion.state == Promotion.State.REJECTED
    body = last_event(seal)
    assert (body["action"], body["reason"]) == ("reject", "recall fell in the north")
    assert isinstance(sign(promotion, crew["alice"]), Turned)
    assert ask(version, crew["erin"]).is_open


def test_withdrawing_is_for_who_asked(crew, version, seal):
    promotion = ask(version, crew["erin"])
    refused = services.withdraw(promotion=promotion, user=crew["alice"], now=timezone.now())
    assert isinstance(refused, Turned)
    assert last_event(seal)["outcome"] == "refused"
    assert isinstance(services.withdraw(promotion=promotion, user=crew["erin"], now=timezone.now()), int)
    promotion.refresh_from_db()
    assert promotion.state == Promotion.State.WITHDRAWN


def test_five_wrong_passwords_close_the_door_for_the_right_one_too(crew, version):
    promotion = ask(version, crew["erin"])
    for _ in range(services.MOST_WRONG):
        sign(promotion, crew["alice"], password="wrong")
    turned = sign(promotion, crew["alice"])
    assert isinstance(turned, Turned)
    assert turned.reasons == ("too many wrong passwords; wait a quarter of an hour",)
    assert isinstance(sign(promotion, crew["bob"]), Signed)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [("moon", "why not"), ("production", ""), ("production", "  "), ("production", "x" * 2001)],
)
def test_request_that_cannot_be_is_an_error_and_records_nothing(crew, version, seal, environment, reason):
    before = seal()
    with pytest.raises(ApprovalError):
        services.open_promotion(
            version=version, environment=environment, reason=reason, user=crew["erin"], now=timezone.now()
        )
    assert seal() == before


def test_one_open_request_for_a_version_and_environment(crew, version):
    ask(version, crew["erin"])
    with pytest.raises(ApprovalError, match="open already"):
        ask(version, crew["alice"])
    assert ask(version, crew["alice"], "staging").is_open


def test_unread_version_may_be_asked_for_and_not_approved(crew):
    unread = stand("0.2.0")
    promotion = ask(unread, crew["erin"], "staging")
    turned = sign(promotion, crew["alice"])
    assert isinstance(turned, Turned)
    assert [reason.split(":")[0] for reason in turned.reasons] == [
        "every byte read and matched at the registry",
        "read within 30 days",
    ]


def test_queue_shows_what_a_person_may_sign(crew, version):
    promotion = ask(version, crew["alice"])
    assert queries.waiting_for(crew["alice"]) == []
    assert queries.waiting_for(crew["erin"]) == []
    assert queries.waiting_for(crew["bob"]) == [promotion]
    sign(promotion, crew["bob"])
    assert queries.waiting_for(crew["bob"]) == []
    assert queries.waiting_for(crew["carol"]) == [promotion]


def test_refusal_is_recorded_however_much_is_wrong(crew, version, seal):
    """A registry that lost ten thousand blobs with long names gives no refusal that is too large for the log."""
    promotion = ask(version, crew["erin"])
    bad = [
        Result(f"sha256:{n:064}", "Dataset: " + "\U0001f525" * 500, Verdict.MISSING_BLOB, "x" * 71, "not there")
        for n in range(300)
    ]
    with transaction.atomic():
        reconciliation.settle(version, bad, now=timezone.now())
    turned = sign(promotion, crew["alice"])
    assert isinstance(turned, Turned)
    assert turned.reasons[0].endswith("and 295 more")
    assert last_event(seal)["outcome"] == "refused"
