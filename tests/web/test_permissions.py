"""Every address for every person, with its expected answer. A new route must be given its line."""

from __future__ import annotations

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from tests import kits
from tests.factories import record

READERS = {"alice", "bob", "carol", "dave", "erin", "frank"}
EVERYBODY = READERS | {"mallory"}
BUNDLERS = {"alice", "bob", "carol", "dave"}
OPEN = None  # needs no sign-in

# route name: (address, who gets 200). The others get 403, and strangers are sent to sign in.
ROUTES = {
    "overview": ("/", EVERYBODY),
    "healthz": ("/healthz", OPEN),
    "timeline": ("/timeline/", READERS),
    "timeline-histogram": ("/timeline/histogram/", READERS),
    "timeline-facets": ("/timeline/facets/", READERS),
    "timeline-newer": ("/timeline/newer/?seen=0", READERS),
    "event": ("/events/1/", READERS),
    "event-row": ("/events/1/row/", READERS),
    "event-json": ("/events/1/json", READERS),
    "event-proof": ("/events/1/proof", READERS),
    "approvals": ("/approvals/", READERS),
    "approvals-new": ("/approvals/new/", {"alice", "bob", "erin"}),
    "reconciliation": ("/reconciliation/", READERS),
    "models": ("/models/", READERS),
    "models-detail": ("/models/acme/rf-model-audit/", READERS),
    "models-version": ("/models/acme/rf-model-audit/versions/0.1.0/", READERS),
    "models-compare": ("/models/acme/rf-model-audit/compare/0.1.0..0.1.0/", READERS),
    "models-pick": ("/compare/", READERS),
    "models-text": ("/compare.txt?a=acme/rf-model-audit:0.1.0&b=acme/rf-model-audit:0.1.0", READERS),
    "bundles": ("/bundles/", BUNDLERS),
    "bundles-new": ("/bundles/new/", BUNDLERS),
    "bundles-vkey": ("/bundles/log.vkey", OPEN),
    "integrity": ("/integrity/", READERS),
    "tlog-checkpoint": ("/tlog/checkpoint", OPEN),
    "account": ("/account/", EVERYBODY),
    "settings-people": ("/settings/people/", {"frank"}),
    "settings-tokens": ("/settings/tokens/", {"frank"}),
    "settings-sources": ("/settings/sources/", {"frank"}),
    "settings-deliveries": ("/settings/deliveries/", {"carol", "dave", "frank"}),
    "account_change_password": ("/account/password/", EVERYBODY),
    "mfa_index": ("/account/2fa/", EVERYBODY),
    "account_inactive": ("/account/inactive/", OPEN),
    "account_signup": ("/account/signup/", OPEN),
    "account_reset_password": ("/account/reset/", OPEN),
    "account_login": ("/account/login/", OPEN),
}
# Addresses whose answer is no page: a redirect, a form's target, or a step inside allauth's own flow.
ELSEWHERE = {
    "jump": "redirects; test_timeline.py",
    "approvals-detail": "needs a request; test_approvals.py",
    "approvals-sign": "POST only; test_approvals.py",
    "approvals-reject": "POST only; test_approvals.py",
    "approvals-withdraw": "POST only; test_approvals.py",
    "reconciliation-start": "POST only; test_reconciliation.py",
    "reconciliation-run": "needs a run; test_reconciliation.py",
    "reconciliation-cancel": "POST only; test_reconciliation.py",
    "reconciliation-finding": "needs a finding; test_reconciliation.py",
    "bundles-detail": "needs a bundle; test_bundles.py",
    "bundles-download": "needs a bundle; test_bundles.py",
    "bundles-cancel": "POST only; test_bundles.py",
    "bundles-root": "needs the signer; test_bundles.py",
    "settings-source": "needs a source; test_sources.py",
    "settings-source-pull": "POST only; test_sources.py",
    "settings-source-switch": "POST only; test_sources.py",
    "settings-delivery": "needs a delivery; test_sources.py",
    "settings-delivery-raw": "needs a delivery; test_sources.py",
    "settings-role": "POST only; test_people.py",
    "settings-revoke": "POST only; test_people.py",
    "account_logout": "a stranger is sent to the overview, and so to sign in; test_account.py",
    "account_reauthenticate": "inside allauth's flow",
    "mfa_authenticate": "inside allauth's flow",
    "mfa_reauthenticate": "inside allauth's flow",
    "mfa_activate_totp": "asks for the password first; test_account.py",
    "mfa_deactivate_totp": "needs an active factor; test_account.py",
    "mfa_view_recovery_codes": "needs an active factor; test_account.py",
    "mfa_generate_recovery_codes": "needs an active factor; test_account.py",
    "mfa_download_recovery_codes": "needs an active factor; test_account.py",
    "api-events": "tokens, not people; tests/api/test_events.py",
    "api-event-schema": "open and cached; tests/api/test_search.py",
    "hooks-oci": "tokens, not people; tests/api/test_hooks.py",
    "hooks-mlflow": "signatures, not people; tests/api/test_hooks.py",
}


def names(resolver=None):
    for item in (resolver or get_resolver()).url_patterns:
        if isinstance(item, URLResolver):
            yield from names(item)
        elif isinstance(item, URLPattern):
            yield item.name


def test_every_route_has_its_line():
    assert set(names()) == set(ROUTES) | set(ELSEWHERE)


@pytest.fixture
def log(people, seal):
    record()
    kits.observe("0.1.0")
    seal()


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_each_person_gets_what_the_role_says(log, as_person, client, name):
    address, allowed = ROUTES[name]
    answer = client.get(address)
    if allowed is OPEN:
        assert answer.status_code == 200
        return
    assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/account/login/")
    found = {person for person in EVERYBODY if as_person(person).get(address).status_code == 200}
    assert found == allowed
    for person in EVERYBODY - allowed:
        assert as_person(person).get(address).status_code == 403


def test_forbidden_page_says_who_may(log, as_person):
    answer = as_person("erin").get("/settings/people/")
    assert answer.status_code == 403
    assert "needs one of the roles admin" in answer.content.decode()


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_each_answer_has_the_strict_policy_and_is_not_stored(log, as_person, name):
    address, _ = ROUTES[name]
    answer = as_person("frank").get(address)
    assert answer["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["X-Request-ID"]
    assert "no-store" in answer["Cache-Control"] or name == "tlog-checkpoint"
    if answer["Content-Type"].startswith("text/html"):
        page = answer.content.decode()
        assert "style=" not in page
        assert "<style" not in page
        assert " onclick" not in page


def test_inactive_person_is_signed_out(log, people, as_person):
    client = as_person("alice")
    people["alice"].is_active = False
    people["alice"].save()
    assert client.get("/timeline/").status_code == 302
