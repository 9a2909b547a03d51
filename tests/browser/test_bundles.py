"""Bundles in a real Chromium: asked for, watched, downloaded and verified, in the steps an auditor has."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone
from playwright.sync_api import Page, expect

from auditportal.accounts.models import User
from auditportal.bundles import services, signing
from auditportal.bundles.models import Bundle
from auditportal.catalog.models import Model
from auditportal.jobs import services as jobs
from auditproof import bundles, certificates, notes, verdicts
from tests.browser.contract import check_page, sign_in
from tests.bundles.conftest import live, make_version, reject, verify
from tests.conftest import PASSWORD

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def filled(portal):
    """Bundles are built in this process, where the portal's own processes find them."""
    before = settings.BUNDLE_SIGNER, settings.DATA
    environment = portal.environment()
    settings.DATA = Path(environment["AUDITPORTAL_DATA"])
    settings.BUNDLE_SIGNER = Path(environment["AUDITPORTAL_BUNDLE_SIGNER"])
    signing.set_up(now=timezone.now())
    live()
    reject(make_version(), {user.username: user for user in User.objects.all()})
    yield portal
    settings.BUNDLE_SIGNER, settings.DATA = before


@pytest.fixture
def signed_in(filled, page: Page) -> Page:
    sign_in(page, filled.url, "dave", PASSWORD)
    return page


def ask() -> Bundle:
    return services.request_bundle(
        model=Model.objects.get(name="churn"),
        recipient="Audit Office",
        purpose="yearly review",
        known_size=None,
        user=User.objects.get(username="dave"),
        now=timezone.now(),
    )


def test_pages_keep_the_contract(signed_in, filled):
    building = ask()
    cancelled = ask()
    services.cancel_bundle(bundle=cancelled, user=User.objects.get(username="dave"))
    waiting = f"{filled.url}/bundles/{building.pk}/"
    check_page(signed_in, f"{filled.url}/bundles/new/")
    check_page(signed_in, f"{filled.url}/bundles/{cancelled.pk}/")
    check_page(signed_in, waiting)
    jobs.run_due()
    check_page(signed_in, waiting)
    check_page(signed_in, f"{filled.url}/bundles/")


def test_auditor_gets_a_verified_bundle_in_three_steps(signed_in, filled, tmp_path):
    page, steps = signed_in, 0
    page.goto(f"{filled.url}/bundles/new/?model=churn")  # the link on the model's page
    steps += 1
    page.get_by_role("button", name="Make the bundle").click()
    steps += 1
    expect(page.get_by_text("waiting for a worker").first).to_be_visible()
    jobs.run_due()
    expect(page.get_by_text("Digest, to read aloud")).to_be_visible(timeout=20_000)  # the page finds out by itself
    steps += 1
    assert steps <= 3
    with page.expect_download() as download:
        page.get_by_role("link", name="Download, ").click()
    copy = tmp_path / "bundle.zip"
    download.value.save_as(copy)
    key = page.locator("dt:has-text('Log key') + dd").inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="Root certificate").click()
    root = Path(download.value.path()).read_text()
    trust = bundles.Trust(
        at=timezone.now(), key=notes.VerifierKey.parse(key), roots=tuple(certificates.parse_pem(root, "root"))
    )
    assert verify(copy, trust).verdict == verdicts.RELATIVE


def test_bundle_can_be_asked_for_and_cancelled_without_javascript(filled, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, filled.url, "carol", PASSWORD)
    page.goto(f"{filled.url}/bundles/")
    page.get_by_role("link", name="New bundle").click()
    page.get_by_label("Model").fill("churn")
    page.get_by_label("Recipient").fill("Audit Office")
    page.get_by_label("Purpose").fill("a look")
    page.get_by_role("button", name="Make the bundle").click()
    page.get_by_role("link", name="Refresh").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("It was cancelled before it was issued")).to_be_visible()
    context.close()


def test_report_of_a_bundle_opens_from_a_file_and_loads_nothing(signed_in, filled, tmp_path):
    import zipfile

    from auditportal.bundles import queries

    bundle = ask()
    jobs.run_due()
    bundle.refresh_from_db()
    with zipfile.ZipFile(queries.path_of(bundle)) as archive:
        (tmp_path / "report.html").write_bytes(archive.read("data/report.html"))
    asked: list[str] = []
    page = signed_in
    page.on("request", lambda request: asked.append(request.url))
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"file://{tmp_path}/report.html")
    expect(page.get_by_role("heading", level=1)).to_have_text("Audit bundle of churn")
    expect(page.get_by_text("What cryptography cannot prove")).to_be_visible()
    expect(page.get_by_role("heading", name="Alice Example")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert asked == [f"file://{tmp_path}/report.html"]
    assert said == []
