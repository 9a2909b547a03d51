from __future__ import annotations

import re

import pytest

from auditportal.accounts import services
from auditportal.accounts.models import ApiToken, User
from auditportal.accounts.roles import Role
from auditportal.ledger import queries
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Entry
from tests.conftest import NOON, PASSWORD


def last_event(seal):
    seal()
    [event] = queries.recorded([Entry.objects.count() - 1])
    return event.body


@pytest.mark.parametrize("count", [1, 3])
def test_people_page_needs_the_same_queries_for_any_number(as_person, count, django_assert_num_queries):
    for n in range(count):
        services.create_user(
            username=f"p{n}", printed_name="P", role=Role.ENGINEER, password=PASSWORD, actor=SYSTEM, now=NOON
        )
    client = as_person("frank")
    client.get("/settings/people/")
    with django_assert_num_queries(5):
        assert f"p{count - 1}" in client.get("/settings/people/").content.decode()


@pytest.mark.parametrize("count", [1, 3])
def test_token_page_needs_the_same_queries_for_any_number(as_person, count, django_assert_num_queries):
    for n in range(count):
        services.issue_token(name=f"t{n}", source_id=f"s{n}", scopes=["hooks"], actor=SYSTEM, now=NOON)
    client = as_person("frank")
    client.get("/settings/tokens/")
    with django_assert_num_queries(5):
        assert f"t{count - 1}" in client.get("/settings/tokens/").content.decode()


def test_change_of_a_role_is_an_event_and_works_at_once(as_person, people, seal):
    client = as_person("frank")
    answer = client.post(
        f"/settings/people/{people['mallory'].pk}/role/", {"role": "auditor", "reason": "joins the audit"}, follow=True
    )
    assert "mallory was none and is now auditor" in answer.content.decode()
    body = last_event(seal)
    assert (body["action"], body["reason"], body["metadata"]) == (
        "grant_access",
        "joins the audit",
        {"role": "auditor", "role_before": "none"},
    )
    assert body["actor"]["id"] == people["frank"].actor.id
    assert as_person("mallory").get("/timeline/").status_code == 200


@pytest.mark.parametrize(
    "data", [{}, {"role": "auditor"}, {"role": "king", "reason": "x"}, {"role": "service", "reason": "x"}]
)
def test_change_without_a_reason_or_to_no_role_changes_nothing(as_person, people, data):
    before = Entry.objects.count()
    as_person("frank").post(f"/settings/people/{people['mallory'].pk}/role/", data)
    assert User.objects.get(username="mallory").role == "none"
    assert Entry.objects.count() == before


def test_nobody_changes_their_own_role(as_person, people):
    answer = as_person("frank").post(
        f"/settings/people/{people['frank'].pk}/role/", {"role": "lead", "reason": "me"}, follow=True
    )
    assert "nobody changes their own role" in answer.content.decode()
    assert User.objects.get(username="frank").role == "admin"


@pytest.mark.parametrize("name", ["alice", "erin", "mallory", "dave", "carol"])
def test_others_change_no_role_and_issue_no_token(as_person, people, name):
    client = as_person(name)
    assert (
        client.post(f"/settings/people/{people['mallory'].pk}/role/", {"role": "admin", "reason": "x"}).status_code
        == 403
    )
    assert (
        client.post("/settings/tokens/", {"name": "x", "source_id": "x", "scopes": ["events:write"]}).status_code == 403
    )
    assert ApiToken.objects.count() == 0


def test_token_is_shown_once_works_and_ends_with_its_revocation(as_person, people, client, seal):
    admin = as_person("frank")
    page = admin.post(
        "/settings/tokens/", {"name": "CI", "source_id": "ci-train", "scopes": ["events:write"], "days": "90"}
    ).content.decode()
    text = re.search(r"apt_[A-Za-z0-9_-]{43}", page)[0]
    assert text not in admin.get("/settings/tokens/").content.decode()
    body = last_event(seal)
    assert body["action"] == "key.issued"
    assert text not in str(body)
    token = ApiToken.objects.get()
    assert bytes(token.hash).hex() not in page
    admin.post(f"/settings/tokens/{token.pk}/revoke/", {"reason": ""})
    assert ApiToken.objects.get().revoked_at is None
    admin.post(f"/settings/tokens/{token.pk}/revoke/", {"reason": "leaked"})
    assert (
        client.post(
            "/api/v1/events", data=b"{}", content_type="application/json", headers={"Authorization": f"Bearer {text}"}
        ).status_code
        == 401
    )
    assert last_event(seal)["action"] == "key.revoked"


@pytest.mark.parametrize(
    "data",
    [{"source_id": "auditportal"}, {"source_id": "Has Space"}, {"scopes": []}, {"scopes": ["all"]}, {"name": ""}],
)
def test_token_that_cannot_be_is_refused_with_a_reason(as_person, people, data):
    given = {"name": "x", "source_id": "ci", "scopes": ["events:write"], "days": ""} | data
    page = as_person("frank").post("/settings/tokens/", given).content.decode()
    assert 'role="alert"' in page
    assert ApiToken.objects.count() == 0
