"""The owner of the database edits rows behind the portal: nothing of it is shown or counted as fact."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone

from auditportal.approvals import queries, services
from auditportal.approvals.models import Decision, Promotion
from auditportal.approvals.services import Signed, Turned
from auditportal.catalog import queries as catalog
from auditportal.catalog.models import Placement, Version
from tests.conftest import PASSWORD
from tests.factories import make_draft, record
from tests.kits import observe


@pytest.fixture(autouse=True)
def _fresh_counters():
    cache.clear()


@pytest.fixture
def version(people):
    return observe("0.1.0", now=timezone.now(), state="checked")


@pytest.fixture
def promotion(version, people):
    return services.open_promotion(
        version=version, environment="production", reason="better recall", user=people["erin"], now=timezone.now()
    )


def sign(promotion, user, intent="approve"):
    promotion = Promotion.objects.get(pk=promotion.pk)
    now = timezone.now()
    return services.sign(
        promotion=promotion, user=user, intent=intent, meaning=services.MEANINGS[intent][0], comment="seen it",
        password=PASSWORD, seen=queries.packet(promotion, now=now).fingerprint, now=now,
    )  # fmt: skip


def page_of(as_person, path):
    page = as_person("dave").get(path).content.decode()
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def packet_of(promotion):
    return queries.packet(Promotion.objects.get(pk=promotion.pk), now=timezone.now())


DECISION_EDITS = [
    ({"printed_name": "Carol Example"}, "the printed name"),
    ({"meaning": "approved as risk owner"}, "the meaning"),
    ({"comment": "never saw it"}, "the comment"),
    ({"role": "compliance"}, "the role"),
    ({"intent": "reject"}, "the act"),
    ({"statement": b"{}"}, "the statement"),
    ({"statement": b"\xff"}, "the statement"),
    ({"statement": b""}, "the statement"),
    ({"name_salt": b"x" * 16}, "the printed name"),
    ({"policy_digest": "sha256:0"}, "the policy"),
    ({"evidence_digest": "sha256:0"}, "the evidence"),
    ({"seq": None}, "the log has no entry of it"),
    ({"seq": 10_000}, "the log has no entry of it"),
    ({"seq": 0}, "the act"),
]


@pytest.mark.parametrize(("edit", "said"), DECISION_EDITS)
def test_edited_signature_shows_as_broken_and_does_not_count(promotion, people, as_person, seal, edit, said):
    sign(promotion, people["alice"])
    seal()
    [before] = packet_of(promotion).decisions
    assert before.trouble == ""
    Decision.objects.update(**edit)
    [after] = packet_of(promotion).decisions
    assert said in after.trouble
    page = page_of(as_person, f"/approvals/{promotion.pk}/")
    assert "It does not count." in page
    assert "0 of 2" in page
    assert "not as in the log" in page_of(as_person, "/approvals/") or "intent" in edit


def test_signature_given_to_another_person_shows_as_broken(promotion, people):
    sign(promotion, people["alice"])
    Decision.objects.update(signer=people["bob"])
    [after] = packet_of(promotion).decisions
    assert "the signer" in after.trouble
    Decision.objects.update(signer=people["alice"], at=timezone.now() - timedelta(days=1))
    assert packet_of(promotion).decisions[0].trouble == "the log has it otherwise: the time"


def test_signature_that_was_never_given_promotes_nothing(promotion, people, version):
    """A row of somebody who never signed, with everything a row can hold."""
    sign(promotion, people["alice"])
    row = Decision.objects.get()
    row.pk, row.signer, row.seq = None, people["carol"], None
    row.printed_name = "Carol Example"
    row.save()
    packet = packet_of(promotion)
    assert [item.counts for item in packet.decisions] == [True, False]
    assert "1 of 2" in [item.found for item in packet.conditions]
    assert not Placement.objects.exists()


def test_forged_signature_does_not_help_the_next_one_to_promote(promotion, people, version):
    sign(promotion, people["alice"])
    Decision.objects.update(signer=people["carol"])
    assert sign(promotion, people["bob"]).promoted is False
    assert not Placement.objects.exists()


def test_statement_of_another_request_is_not_the_one_that_was_signed(people, as_person, promotion, version):
    other = services.open_promotion(
        version=version, environment="staging", reason="x", user=people["erin"], now=timezone.now()
    )
    sign(promotion, people["alice"])
    sign(other, people["bob"])
    mine, theirs = Decision.objects.order_by("seq")
    Decision.objects.filter(pk=mine.pk).update(statement=bytes(theirs.statement))
    assert packet_of(promotion).decisions[0].trouble == "the log has it otherwise: the statement"


def test_removed_signature_is_missed(promotion, people, as_person, seal):
    done = sign(promotion, people["alice"])
    seal()
    Decision.objects.all().delete()
    page = page_of(as_person, f"/approvals/{promotion.pk}/")
    assert f"table does not: entry {done.seq}" in page


def test_stranger_cannot_make_a_signature_seem_missing(promotion, as_person, people, seal):
    """Whoever holds a token may post an `approve`; it is shown as claimed, and is no signature."""
    from auditportal.ledger.drafts import Subject

    subject = Subject("model_version", promotion.version.label)
    record(make_draft(action="approve", subject=subject, related=[], metadata={"request": str(promotion.pk)}))
    seal()
    assert "A signature is missing here" not in page_of(as_person, f"/approvals/{promotion.pk}/")


REQUEST_EDITS = [
    ({"reason": "other"}, "the reason"),
    ({"environment": "staging"}, "the environment"),
    ({"manifest_digest": "sha256:" + "0" * 64}, "the manifest"),
    ({"seq": None}, "the log has no entry of it"),
    ({"seq": 0}, "the act"),
    ({"decided_seq": 1}, "it stands as open, and ended in the log"),
    ({"created_at": timezone.now() - timedelta(days=30)}, "the time"),
    ({"state": "promoted"}, "the log has no entry of it"),
]


@pytest.mark.parametrize(("edit", "said"), REQUEST_EDITS)
def test_edited_request_shows_as_broken_and_nobody_can_sign_it(promotion, people, as_person, seal, edit, said):
    assert packet_of(promotion).trouble == ""
    Promotion.objects.update(**edit)
    assert said in packet_of(promotion).trouble
    assert "This request does not match the log" in page_of(as_person, f"/approvals/{promotion.pk}/")
    turned = sign(promotion, people["alice"])
    assert isinstance(turned, Turned)
    assert any("does not match the log" in reason for reason in turned.reasons)
    assert "not as in the log" in page_of(as_person, "/approvals/")


def test_requester_cannot_be_swapped_to_let_them_sign(promotion, people):
    Promotion.objects.update(requested_by=people["bob"])
    assert "who asked" in packet_of(promotion).trouble
    assert isinstance(sign(promotion, people["alice"]), Turned)
    assert isinstance(services.withdraw(promotion=promotion, user=people["bob"], now=timezone.now()), Turned)


def test_version_of_a_request_cannot_be_swapped(promotion, people):
    Promotion.objects.update(version=observe("0.2.0", now=timezone.now(), state="checked"))
    assert "the version" in packet_of(promotion).trouble


@pytest.mark.parametrize(("state", "action"), [("rejected", "reject"), ("withdrawn", "withdraw")])
def test_end_of_a_request_is_the_logs(promotion, people, as_person, seal, state, action):
    if action == "reject":
        assert isinstance(sign(promotion, people["alice"], "reject"), Signed)
    else:
        services.withdraw(promotion=promotion, user=people["erin"], now=timezone.now())
    assert packet_of(promotion).trouble == ""
    Promotion.objects.update(state="promoted")
    assert packet_of(promotion).trouble == "the log has it otherwise: the act"
    seal()
    assert "not as in the log" in page_of(as_person, "/approvals/")


@pytest.fixture
def placed(promotion, people, seal):
    sign(promotion, people["alice"])
    assert sign(promotion, people["carol"]).promoted
    seal()
    return Placement.objects.get()


def told(placed):
    [item] = catalog.in_production(most=5)
    return queries.explained([item])[placed.pk]


def test_placement_is_explained_by_its_event_and_its_signers(placed, promotion, as_person):
    found = told(placed)
    assert (found.trouble, found.approvers) == ("", ["Alice Example", "Carol Example"])
    assert found.seq == Promotion.objects.get().decided_seq
    assert "Alice Example, Carol Example" in page_of(as_person, "/")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"since": timezone.now() - timedelta(days=9)}, "the log has it otherwise: the time"),
        ({"request": ""}, "no request is recorded"),
        ({"request": "00000000-0000-0000-0000-000000000000"}, "no request is recorded"),
    ],
)
def test_edited_placement_is_not_shown_as_approved(placed, as_person, edit, said):
    Placement.objects.update(**edit)
    assert told(placed).trouble == said
    page = page_of(as_person, "/")
    assert f"not proven {said}" in page
    assert "Alice Example" not in page.split("In production now")[1].split("Newest events")[0]
    assert "not proven" in page_of(as_person, "/models/acme/rf-model-audit/")


def test_placement_moved_to_another_version_is_not_shown_as_approved(placed, as_person):
    Placement.objects.update(version=observe("0.2.0", now=timezone.now(), state="checked"))
    assert "the version" in told(placed).trouble
    assert "not proven" in page_of(as_person, "/")


def test_placement_turned_back_to_an_earlier_promotion_is_noticed(placed, people, seal, as_person):
    before = {name: getattr(placed, name) for name in ("version_id", "since", "request")}
    newer = services.open_promotion(
        version=observe("0.2.0", now=timezone.now(), state="checked"), environment="production", reason="x",
        user=people["erin"], now=timezone.now(),
    )  # fmt: skip
    sign(newer, people["alice"])
    assert sign(newer, people["bob"]).promoted
    seal()
    assert told(placed).trouble == ""
    Placement.objects.update(**before)
    assert told(placed).trouble == "another version was promoted since"
    assert "not proven another version was promoted since" in page_of(as_person, "/")


def test_removed_signature_of_a_placement_names_nobody_who_did_not_sign(placed):
    Decision.objects.filter(printed_name="Carol Example").update(printed_name="Mallory Example")
    assert told(placed).approvers == ["Alice Example"]


def test_signature_without_a_chosen_meaning_is_refused(promotion, people):
    now = timezone.now()
    turned = services.sign(
        promotion=promotion, user=people["alice"], intent="approve", meaning="", comment="", password=PASSWORD,
        seen=queries.packet(promotion, now=now).fingerprint, now=now,
    )  # fmt: skip
    assert turned.reasons == ("the meaning of the signature was not chosen",)
    assert not Decision.objects.exists()


def test_names_with_nul_are_nobodys(version):
    assert catalog.find_model("a\0b") is None
    assert catalog.find_version("a\0b") is None
    assert catalog.find_reference("a\0b@sha256:0") is None
    assert catalog.version_named(version.model, "0.1.0\0") is None
    assert Version.objects.filter(label=version.label).exists()
