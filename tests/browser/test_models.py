"""Models and comparisons in a real Chromium."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import transaction
from playwright.sync_api import Page, expect

from auditportal.accounts.models import User
from auditportal.approvals import queries as approval_queries, services as approvals
from auditportal.catalog import services as catalog
from auditportal.ledger.drafts import Subject
from auditportal.ledger.queries import wait_for_checkpoint
from tests import kits
from tests.browser.contract import check_page, sign_in
from tests.conftest import PASSWORD
from tests.factories import NOON, make_draft, record

pytestmark = pytest.mark.browser
KIT = "/models/acme/rf-model-audit/"
LONG = "a-model-with-a-name-of-quite-some-length/" * 4 + "end"


@pytest.fixture(scope="module")
def filled(portal):
    first = kits.observe("0.1.0", state="checked")
    second = kits.observe("0.2.0", now=NOON + timedelta(hours=1))
    kits.observe("latest")
    kits.observe("v1", repository="acme/mp", state="unreachable")
    kits.observe("v0", repository="acme/old", state="mismatch")
    kits.observe_mlflow()
    kits.observe_mlflow(LONG, description="x" * 300)
    promote(first)
    with transaction.atomic():
        catalog.place(version=second, environment="staging", request="", now=NOON)
    subject = Subject("model_version", first.label)
    [last] = record(make_draft(action="promote", outcome="refused", subject=subject, related=[]))
    assert wait_for_checkpoint(last.seq, timeout_s=20)
    return portal


def promote(version):
    people = {name: User.objects.get(username=name) for name in ("erin", "alice", "carol")}
    promotion = approvals.open_promotion(
        version=version, environment="production", reason="better recall", user=people["erin"], now=NOON
    )
    for name in ("alice", "carol"):
        people[name].set_password(PASSWORD)  # as this process stretches passwords
        seen = approval_queries.packet(promotion, now=NOON).fingerprint
        done = approvals.sign(
            promotion=promotion, user=people[name], intent="approve", meaning="approved for use", comment="",
            password=PASSWORD, seen=seen, now=NOON,
        )  # fmt: skip
        assert isinstance(done, approvals.Signed)


@pytest.fixture
def signed_in(filled, page: Page) -> Page:
    sign_in(page, filled.url, "alice", PASSWORD)
    return page


PAGES = [
    "/", "/models/", "/models/?q=nothing", KIT, f"{KIT}?tab=history", f"{KIT}versions/0.1.0/", f"{KIT}versions/0.1.0/?tab=card",
    f"{KIT}versions/0.2.0/?tab=card", f"{KIT}versions/0.1.0/?tab=kitfile", "/models/acme/old/versions/v0/", "/models/churn/versions/14/",
    f"/models/{LONG}/", f"{KIT}compare/0.1.0..0.2.0/", f"{KIT}compare/0.1.0..0.1.0/", "/compare/",
    "/compare/?a=acme/old:v0&b=acme/mp:v1", "/compare/?a=churn:14&b=acme/mp:v1",
]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_page_keeps_the_contract(signed_in, filled, path):
    check_page(signed_in, filled.url + path)


def test_two_versions_are_chosen_compared_and_downloaded(signed_in, filled):
    page = signed_in
    page.get_by_role("navigation", name="Main", exact=True).get_by_role("link", name="Models").click()
    page.get_by_role("link", name="acme/rf-model-audit").click()
    page.get_by_label("Base: 0.2.0").check()
    page.get_by_label("Head: 0.1.0").check()
    page.get_by_role("button", name="Compare the two").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("acme/rf-model-audit: 0.2.0 to 0.1.0")
    page.get_by_role("link", name="Swap base and head").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("acme/rf-model-audit: 0.1.0 to 0.2.0")
    expect(page.get_by_text("1 unchanged layer")).to_be_visible()
    expect(page.get_by_text("src", exact=True)).to_be_hidden()
    page.get_by_text("1 unchanged layer").click()
    expect(page.get_by_text("src", exact=True)).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as text").click()
    text = download.value.path().read_text()
    assert text.startswith("Comparing:\n  ModelKit1: acme/rf-model-audit:0.1.0  sha256:a09f306b")
    assert download.value.suggested_filename == "comparison.txt"


def test_stage_leads_to_its_promotion(signed_in, filled):
    page = signed_in
    page.goto(filled.url + KIT)
    page.get_by_role("list", name="Where it stands").get_by_role("link", name=re.compile("^event")).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("promoted acme/rf-model-audit:0.1.0")


def test_models_are_read_without_javascript(filled, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, filled.url, "dave", PASSWORD)
    page.goto(f"{filled.url}{KIT}versions/0.2.0/")
    page.get_by_label("Another version").select_option("0.1.0")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("heading", name="Version 0.1.0")).to_be_visible()
    page.get_by_role("navigation", name="About this model").get_by_role("link", name="Card").click()
    expect(page.get_by_role("heading", name="Model card").first).to_be_visible()
    context.close()
