from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from auditportal.approvals import gates
from auditportal.approvals.gates import Approval, Facts, Granted, Refused, Signing
from auditportal.approvals.policies import POLICIES

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PRODUCTION = POLICIES["production"]
DIGEST = "sha256:" + "a" * 64
GOOD = Facts(
    manifest_digest=DIGEST,
    requested_digest=DIGEST,
    check_state="checked",
    check_note="",
    checked_at=NOW - timedelta(days=1),
    open_findings=(),
    approvals=(Approval("alice", "lead", is_stale=False), Approval("carol", "compliance", is_stale=False)),
    requester="erin",
    now=NOW,
)
SIGNING = Signing(
    signer="alice",
    role="lead",
    is_password_right=True,
    is_throttled=False,
    has_signed=False,
    is_open=True,
    is_unchanged=True,
)


def decide(facts):
    return gates.evaluate(gates.conditions(PRODUCTION, facts))


def test_everything_met_is_granted():
    assert decide(GOOD) == Granted()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"manifest_digest": "", "requested_digest": ""}, "no manifest digest"),
        ({"manifest_digest": "sha256:" + "b" * 64}, "changed since the request"),
        ({"check_state": "reported only"}, "reported only"),
        ({"check_state": "unreachable", "check_note": "answered 503"}, "unreachable: answered 503"),
        ({"check_state": "missing"}, "missing"),
        ({"check_state": "mismatch"}, "mismatch"),
        ({"checked_at": None}, "never read whole"),
        ({"checked_at": NOW - timedelta(days=7, seconds=1)}, "read 7 days ago"),
        ({"open_findings": ("digest mismatch: Dataset",)}, "digest mismatch: Dataset"),
        ({"approvals": ()}, "0 of 2"),
        ({"approvals": (Approval("alice", "lead", is_stale=False),)}, "1 of 2"),
        ({"approvals": (Approval("alice", "lead", is_stale=False),) * 2}, "1 of 2"),
        ({"approvals": (GOOD.approvals[0], Approval("carol", "compliance", is_stale=True))}, "1 of 2"),
        ({"approvals": (GOOD.approvals[0], Approval("erin", "lead", is_stale=False))}, "1 of 2"),
        ({"approvals": (GOOD.approvals[0], Approval("frank", "admin", is_stale=False))}, "1 of 2"),
    ],
)
def test_each_condition_refuses_by_itself_and_says_what_to_do(changes, word):
    facts = replace(GOOD, **changes)
    decision = decide(facts)
    assert isinstance(decision, Refused)
    assert len(decision.reasons) == 1
    assert word in decision.summary
    [unmet] = [item for item in gates.conditions(PRODUCTION, facts) if not item.holds]
    assert unmet.todo


def test_edge_of_the_age_still_counts():
    assert decide(replace(GOOD, checked_at=NOW - timedelta(days=7))) == Granted()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signer": "erin"}, "who asks for a promotion may not sign it"),
        ({"role": "engineer"}, "the role engineer may not sign; lead and compliance may"),
        ({"role": "admin"}, "the role admin may not sign; lead and compliance may"),
        ({"is_password_right": False}, "the password was wrong"),
        ({"is_throttled": True, "is_password_right": False}, "too many wrong passwords; wait a quarter of an hour"),
        ({"has_signed": True}, "this person has signed already"),
        ({"is_open": False}, "the request is no longer open"),
        ({"is_unchanged": False}, "what the signature would cover changed since the page was drawn"),
    ],
)
@pytest.mark.parametrize("intent", ["approve", "reject"])
def test_who_may_not_sign_is_refused_with_the_rule(changes, reason, intent):
    assert gates.may_sign(PRODUCTION, GOOD, replace(SIGNING, **changes), intent=intent) == Refused((reason,))


def test_a_finding_stops_an_approval_and_no_rejection():
    facts = replace(GOOD, open_findings=("missing blob: Model",))
    refused = gates.may_sign(PRODUCTION, facts, SIGNING, intent="approve")
    assert refused == Refused(("no open finding: missing blob: Model",))
    assert gates.may_sign(PRODUCTION, facts, SIGNING, intent="reject") == Granted()


def test_policy_digest_covers_every_field():
    for change in (
        {"approvals": 1},
        {"roles": ("lead",)},
        {"bars_requester": False},
        {"check_age_days": 8},
        {"revision": 2},
    ):
        assert replace(PRODUCTION, **change).digest != PRODUCTION.digest
