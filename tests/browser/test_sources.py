"""Sources and deliveries in a real Chromium."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from auditportal.ingest import sources
from auditportal.ingest.models import Delivery, Source
from auditportal.jobs.models import Job
from auditportal.ledger.drafts import SYSTEM
from tests.browser.contract import check_page, sign_in
from tests.conftest import PASSWORD
from tests.ingest.conftest import notification

pytestmark = pytest.mark.browser
LONG = "m" * 90


@pytest.fixture(scope="module")
def filled(portal):
    now = timezone.now()
    registry = sources.register(
        id="registry", kind="oci", url="https://registry.example.org", hosts=["cdn.example.org", "auth.example.org:8443"],
        repositories=["acme/rf-model-audit"], username="robot", password="x", actor=SYSTEM, now=now,
    )  # fmt: skip
    mlflow = sources.register(
        id=f"mlflow:{LONG}", kind="mlflow", url="https://mlflow.example.org", hook_secret="x", actor=SYSTEM, now=now
    )
    Source.objects.filter(pk=mlflow.pk).update(pull_error="no answer: timed out " + "y" * 200, pulled_at=now)
    states = ["recorded", "noted", "test received", "not understood", "waiting"]
    for n in range(60):
        Delivery.objects.create(
            source=registry if n % 3 else mlflow, kind="oci", body=notification(id="x" * 300) + b"\x00\xff<script>", state=states[n % 5],
            headers={"content-type": "application/json", "user-agent": "Go-http-client/1.1"}, attempts=n % 4, events=[0] if n % 5 == 0 else [],
            note="the body has no list of events, as a registry's notification has" if n % 5 == 3 else "", received_at=now - timedelta(minutes=60 - n),
            next_attempt_at=now + timedelta(hours=5), processed_at=now,
        )  # fmt: skip
    for n, state in enumerate(("done", "failed", "queued")):
        Job.objects.create(
            kind="pull", key=mlflow.pk, state=state, parameters={"full": n == 0}, requested_by="system", requested_type="system", created_at=now,
            result={"runs": 3, "new": 2, "changed": 1, "gone": 0, "not_understood": 1} if n == 0 else {}, error="no answer: timed out" if n == 1 else "",
        )  # fmt: skip
        if state == "queued":
            Job.objects.filter(state="queued").update(state="cancelled")
    return portal


@pytest.fixture
def signed_in(filled, page: Page) -> Page:
    sign_in(page, filled.url, "frank", PASSWORD)
    return page


@pytest.mark.parametrize(
    "path",
    ["/settings/sources/", "/settings/sources/registry/", f"/settings/sources/mlflow:{LONG}/", "/settings/deliveries/"],
)
def test_page_keeps_the_contract(signed_in, filled, path):
    check_page(signed_in, filled.url + path)


def test_delivery_keeps_the_contract(signed_in, filled):
    newest = Delivery.objects.order_by("-id").first()
    check_page(signed_in, f"{filled.url}/settings/deliveries/{newest.pk}/")
    expect(signed_in.get_by_text("⟨U+0000⟩")).to_be_visible()


def test_source_is_added_and_switched_off_by_its_form(signed_in, filled):
    page = signed_in
    page.goto(f"{filled.url}/settings/sources/")
    page.get_by_label("Name").fill("second")
    page.get_by_label("Address").fill("nowhere")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("an address is http:// or https:// and a host")
    assert page.get_by_label("Name").input_value() == "second"
    page.get_by_label("Address").fill("https://second.example.org")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", name="second", exact=True)).to_be_visible()
    expect(page.get_by_label("Configuration of the registry")).to_contain_text(f"{filled.url}/hooks/oci/")
    page.get_by_label("Reason").fill("it moves")
    page.get_by_role("button", name="Switch off").click()
    expect(page.get_by_text("is not asked any more from now on")).to_be_visible()
    expect(page.get_by_role("button", name="Switch on")).to_be_visible()


def test_older_deliveries_are_a_link_away(signed_in, filled):
    page = signed_in
    page.goto(f"{filled.url}/settings/deliveries/")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Load 50 older").click()
    expect(page.locator("tbody tr")).to_have_count(10)
    page.get_by_label("State", exact=True).select_option("not understood")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr")).to_have_count(12)
