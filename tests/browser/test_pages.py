"""Each page of the portal in a real Chromium, as people use it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from auditportal.ledger.drafts import Subject
from auditportal.ledger.queries import wait_for_checkpoint
from tests.browser.contract import check_page, sign_in
from tests.conftest import PASSWORD
from tests.factories import NOON, make_draft, record, record_many

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def filled(portal):
    record_many(60)
    record(
        make_draft(
            action="promote",
            outcome="refused",
            environment="production",
            subject=Subject("model_version", "churn:14"),
            reason="1 of 2 approvals",
        )
    )
    [last] = record(
        make_draft(
            action="frobnicate",
            timestamp=NOON - timedelta(days=3),
            metadata={"x": ["y" * 300]},
            subject=Subject("run", "r" * 400),
        )
    )
    assert wait_for_checkpoint(last.seq, timeout_s=20)
    return portal


@pytest.fixture
def signed_in(filled, page: Page) -> Page:
    sign_in(page, filled.url, "frank", PASSWORD)
    return page


PAGES = [
    "/", "/timeline/", "/timeline/?q=action:promote+outcome:refused", "/timeline/?q=acton:promote", "/timeline/?q=nothing+action:train",
    "/events/20/", "/events/69/", "/integrity/", "/account/", "/account/password/", "/account/logout/", "/account/2fa/", "/settings/people/",
    "/settings/tokens/", "/nowhere", "/approvals/", "/reconciliation/",
    "/settings/sources/", "/settings/deliveries/",
]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_page_keeps_the_contract(signed_in, filled, path):
    check_page(signed_in, filled.url + path)


def test_sign_in_page_keeps_the_contract(filled, page):
    check_page(page, f"{filled.url}/account/login/")


def test_forbidden_page_keeps_the_contract(filled, page):
    sign_in(page, filled.url, "erin", PASSWORD)
    page.goto(f"{filled.url}/settings/people/")
    expect(page.get_by_role("heading", name="Not allowed")).to_be_visible()


def test_row_unfolds_with_its_proof_and_folds_again(signed_in, filled):
    page = signed_in
    page.goto(f"{filled.url}/timeline/?q=action:promote")
    toggle = page.get_by_role("button", name="Details of event")
    toggle.click()
    expect(page.get_by_text("Proof holds")).to_be_visible()
    expect(page.locator(".detail pre")).to_contain_text('"outcome": "refused"')
    toggle.click()
    expect(page.get_by_text("Proof holds")).to_have_count(0)


def test_keys_move_search_and_open(signed_in, filled):
    page = signed_in
    page.goto(f"{filled.url}/timeline/")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.locator(".ev.cursor").get_attribute("id") == page.locator(".ev").nth(1).get_attribute("id")
    page.keyboard.press("k")
    page.keyboard.press("o")
    expect(page.get_by_text("Proof holds").first).to_be_visible()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_older_rows_load_in_place(signed_in, filled):
    page = signed_in
    page.goto(f"{filled.url}/timeline/?q=action:train")
    expect(page.locator(".ev")).to_have_count(50)
    page.get_by_role("link", name="Load 50 older").click()
    expect(page.locator(".ev")).to_have_count(60)
    assert page.url.endswith("q=action:train")


def test_facets_and_bars_come_after_the_rows_and_narrow(signed_in, filled):
    page = signed_in
    page.goto(f"{filled.url}/timeline/")
    expect(page.locator(".histo svg")).to_be_visible()
    page.locator(".facets").get_by_role("link", name="refused").click()
    expect(page.locator(".ev")).to_have_count(1)
    expect(page.get_by_role("link", name="Remove filter outcome refused")).to_be_visible()


def test_officer_finds_promotions_without_an_attestation_in_three_steps(signed_in, filled):
    page, steps = signed_in, 0
    page.locator(".jump input").fill(
        "action:promote environment:production model:churn during:2026-Q4 -has:attestation.fairness"
    )
    page.keyboard.press("Enter")
    steps += 1
    expect(page.locator(".ev")).to_have_count(1)
    steps += 1
    page.locator(".ev .seq a").click()
    steps += 1
    expect(page.get_by_role("heading", level=1)).to_contain_text("tried to promote churn:14")
    assert steps <= 3


def test_receipt_downloads_and_proves_its_event(signed_in, filled, tmp_path):
    from auditportal.ledger import queries
    from auditproof import notes, receipts

    page = signed_in
    page.goto(f"{filled.url}/events/20/")
    with page.expect_download() as download:
        page.get_by_role("link", name="Receipt").click()
    text = download.value.path().read_text()
    [event] = queries.recorded([20])
    key = notes.VerifierKey.parse(queries.vkey())
    assert receipts.verify_receipt(text, leaf=event.leaf, origin="test.invalid/log", keys=[key]).size > 20


def test_everything_can_be_read_without_javascript(filled, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, filled.url, "dave", PASSWORD)
    page.goto(f"{filled.url}/timeline/")
    page.fill(".qfield input", "action:train")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".ev")).to_have_count(50)
    page.get_by_role("link", name="Load 50 older").click()
    expect(page.locator(".ev")).to_have_count(10)
    page.locator(".ev .tog").first.click()
    expect(page.get_by_text("Proof holds")).to_be_visible()
    context.close()


def test_new_events_are_offered_and_nothing_moves(signed_in, filled):
    page = signed_in
    page.goto(f"{filled.url}/timeline/?q=action:validate")
    expect(page.locator(".ev")).to_have_count(0)
    [item] = record(make_draft(action="validate"))
    assert wait_for_checkpoint(item.seq, timeout_s=20)
    expect(page.get_by_role("link", name="Show 1 newer")).to_be_visible(timeout=20_000)
    page.get_by_role("link", name="Show 1 newer").click()
    expect(page.locator(".ev")).to_have_count(1)
