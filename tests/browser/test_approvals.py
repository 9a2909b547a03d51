"""Approvals and reconciliation in a real Chromium: the counted paths, with and without JavaScript."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.utils import timezone
from playwright.sync_api import Page, expect

from auditportal.accounts.models import User
from auditportal.approvals import services as approvals
from auditportal.approvals.models import Promotion
from auditportal.catalog.models import Placement, Version
from auditportal.jobs.models import Job
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.queries import wait_for_checkpoint
from auditportal.reconciliation import services as reconciliation
from auditportal.reconciliation.examine import Result
from auditportal.reconciliation.models import Check, Finding, Verdict
from tests.browser.contract import check_page, sign_in
from tests.conftest import PASSWORD
from tests.kits import make_kit, observe, observed

pytestmark = pytest.mark.browser
WIDE = "a-very-long-name-" * 6
EXPECTED, FOUND = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Steps:
    """Counts as a person does: one for each click, filled field and page waited for."""

    def __init__(self, page: Page) -> None:
        self.page, self.count = page, 0

    def open(self, url: str) -> None:
        self.page.goto(url)
        self.count += 1

    def fill(self, field: str, text: str) -> None:
        self.page.locator(field).fill(text)
        self.count += 1

    def choose(self, label: str) -> None:
        self.page.get_by_label(label, exact=True).check()
        self.count += 1

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()
        self.count += 1

    def follow(self, name: str) -> None:
        self.page.get_by_role("link", name=name).first.click()
        self.count += 1


def person(name):
    return User.objects.get(username=name)


def stand(number, state="checked"):
    """A version of its own, so that no test meets another's requests."""
    kit = make_kit({"manifestVersion": "1.0.0", "package": {"name": f"n{number}"}}, repository=f"acme/n{number}")
    with transaction.atomic():
        return observed(kit, tag="1.0.0", now=timezone.now(), state=state)


def ask(version, name="erin", environment="production"):
    return approvals.open_promotion(
        version=version, environment=environment, reason="better recall in the north", user=person(name),
        now=timezone.now(),
    )  # fmt: skip


def settle(version, *results):
    with transaction.atomic():
        reconciliation.settle(version, results, now=timezone.now())


@pytest.fixture(scope="module")
def filled(portal):
    with transaction.atomic():
        old = observe("0.1.0", now=timezone.now(), state="checked")
        new = observe("0.2.0", now=timezone.now(), state="checked")
    Placement.objects.create(model=old.model, environment="production", version=old, since=timezone.now())
    ask(new)
    stale = ask(new, environment="staging")
    assert isinstance(sign(stale, "alice", intent="reject"), approvals.Signed)
    kit = make_kit({"manifestVersion": "1.0.0", "package": {"name": "w"}}, repository=f"acme/{WIDE}end")
    with transaction.atomic():
        wide = observed(kit, tag="1.0.0", now=timezone.now(), state="unreachable", note="answered 503 " + "x" * 300)
    ask(wide)
    damaged = stand("damaged")
    ask(damaged)
    settle(
        damaged,
        Result("sha256:" + "1" * 64, "Dataset: " + "y" * 300, Verdict.DIGEST_MISMATCH, EXPECTED, FOUND, "other bytes"),
    )
    stale, promoted = ask(stand("stale")), ask(stand("promoted"))
    for promotion, name in ((stale, "alice"), (promoted, "alice"), (promoted, "carol")):
        assert isinstance(sign(promotion, name), approvals.Signed)
    Version.objects.filter(pk=stale.version_id).update(run_id="another run than alice saw")
    with transaction.atomic():
        job = reconciliation.request_run(actor=SYSTEM, now=timezone.now())
    Check.objects.bulk_create(
        Check(job=job, version=version, object=f"sha256:{n:064d}", title=f"Dataset: {'z' * 40 * n or 'iris'}", verdict=verdict,
              expected=EXPECTED, found=(EXPECTED, FOUND)[n % 2], bytes_read=10**n, at=timezone.now())
        for n, (version, verdict) in enumerate([(new, "ok"), (damaged, "digest mismatch"), (wide, "unreachable")])
    )  # fmt: skip
    Job.objects.update(state="running", started_at=timezone.now(), total=8, done=3, note=wide.label)
    return portal


def sign(promotion, name, *, intent="approve"):
    from auditportal.approvals import queries

    now = timezone.now()
    user = person(name)
    user.set_password(PASSWORD)  # as this process stretches passwords; the portal's own way stays in its table
    return approvals.sign(
        promotion=promotion, user=user, intent=intent, meaning="approved for use", comment="recall fell",
        password=PASSWORD, seen=queries.packet(promotion, now=now).fingerprint, now=now,
    )  # fmt: skip


def request_page(label, environment="production"):
    promotion = Promotion.objects.get(version__label__startswith=label, environment=environment)
    return f"/approvals/{promotion.pk}/"


PAGES = {
    "queue": lambda: "/approvals/",
    "ask": lambda: "/approvals/new/",
    "conditions": lambda: "/approvals/new/?version=acme/rf-model-audit:0.1.0&environment=production",
    "unknown version": lambda: "/approvals/new/?version=none&environment=production",
    "open request": lambda: request_page("acme/rf-model-audit:0.2.0"),
    "rejected request": lambda: request_page("acme/rf-model-audit:0.2.0", "staging"),
    "blocked request": lambda: request_page("acme/ndamaged"),
    "stale signature": lambda: request_page("acme/nstale"),
    "promoted request": lambda: request_page("acme/npromoted"),
    "long names": lambda: request_page("acme/a-very"),
    "reconciliation": lambda: "/reconciliation/",
    "run": lambda: f"/reconciliation/runs/{Job.objects.get(key='everything').pk}/",
    "finding": lambda: f"/reconciliation/findings/{Finding.objects.get().pk}/",
    "overview": lambda: "/",
}


@pytest.mark.parametrize("name", PAGES)
def test_page_keeps_the_contract(filled, page, name):
    sign_in(page, filled.url, "bob", PASSWORD)
    check_page(page, filled.url + PAGES[name]())


def test_lead_approves_in_four_steps_from_the_link(filled, page):
    promotion = ask(stand(1))
    sign_in(page, filled.url, "bob", PASSWORD)
    steps = Steps(page)
    steps.open(f"{filled.url}/approvals/{promotion.pk}/")
    steps.choose("Reviewed and approved")
    steps.fill("#approve-password", PASSWORD)
    steps.press("Approve")
    expect(page.get_by_text("Signed. More approvals are needed.")).to_be_visible()
    assert steps.count <= 4
    expect(page.locator(".signatures strong")).to_have_text("Bob Example")
    expect(page.locator(".stream .ev").first.get_by_role("img", name="checked")).to_be_visible()  # with its proof


def test_lead_rejects_in_three_steps_and_the_password(filled, page):
    promotion = ask(stand(2))
    sign_in(page, filled.url, "bob", PASSWORD)
    steps = Steps(page)
    steps.open(f"{filled.url}/approvals/{promotion.pk}/")
    steps.fill("#reject-comment", "recall fell")
    page.locator("#reject-password").fill(PASSWORD)  # counted apart
    steps.press("Reject")
    expect(page.get_by_text("Rejected. The request is closed.")).to_be_visible()
    assert steps.count <= 3


def test_own_request_is_refused_with_rule_and_log_entry_in_three_steps(filled, page):
    promotion = ask(stand(3), "alice")
    sign_in(page, filled.url, "alice", PASSWORD)
    steps = Steps(page)
    steps.open(f"{filled.url}/approvals/{promotion.pk}/")
    expect(page.get_by_text("You may not sign this")).to_be_visible()
    steps.press("Approve")  # with nothing filled in: the rule is shown, the button still works
    expect(page.get_by_role("alert")).to_contain_text("who asks for a promotion may not sign it")
    steps.follow("The attempt in the log")
    expect(page.get_by_role("heading", level=1)).to_contain_text("tried to approve acme/n3:1.0.0")
    expect(page.get_by_text("Proof holds")).to_be_visible()
    assert steps.count <= 3


def test_engineer_learns_in_one_step_why_it_is_blocked_and_what_to_do(filled, page):
    sign_in(page, filled.url, "erin", PASSWORD)
    steps = Steps(page)
    steps.open(filled.url + request_page("acme/ndamaged"))
    expect(page.locator(".gates .no")).to_contain_text("Mend it at the registry; the next reconciliation closes")
    assert steps.count == 1


def test_request_signed_by_two_is_promoted_and_replaces_what_stood_there(filled, page, browser):
    promotion = ask(stand(4))
    for name in ("bob", "carol"):
        context = browser.new_context()
        page = context.new_page()
        sign_in(page, filled.url, name, PASSWORD)
        page.goto(f"{filled.url}/approvals/")
        page.get_by_role("link", name="acme/n4:1.0.0").click()
        page.get_by_label("Approved for use").check()
        page.locator("#approve-password").fill(PASSWORD)
        page.get_by_role("button", name="Approve", exact=True).click()
        if name == "carol":
            expect(page.get_by_text("acme/n4:1.0.0 stands in production from now on.")).to_be_visible()
        else:
            expect(page.get_by_text("Signed. More approvals are needed.")).to_be_visible()
        context.close()
    assert Placement.objects.get(model__name="acme/n4").version_id == promotion.version_id


def test_conditions_follow_the_choice_without_leaving_the_page_and_keep_the_reason(filled, page):
    sign_in(page, filled.url, "erin", PASSWORD)
    page.goto(f"{filled.url}/approvals/new/")
    page.get_by_label("Reason").fill("typed before choosing")
    page.get_by_label("Version", exact=True).fill("acme/rf-model-audit:0.1.0")
    page.get_by_label("Environment").select_option("staging")
    expect(page.get_by_role("heading", name="Can 0.1.0 go to staging?")).to_be_visible()
    assert "version=acme%2Frf-model-audit%3A0.1.0" in page.url
    expect(page.get_by_label("Reason")).to_have_value("typed before choosing")
    page.get_by_label("Environment").select_option("production")
    expect(page.get_by_role("heading", name="Can 0.1.0 go to production?")).to_be_visible()
    page.get_by_role("button", name="Ask for production").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(
        "asks to bring acme/rf-model-audit:0.1.0 into production"
    )
    page.get_by_role("button", name="Withdraw").click()
    expect(page.get_by_text("Withdrawn. The request is closed.")).to_be_visible()


def test_everything_works_without_javascript(filled, browser):
    stand(5)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, filled.url, "erin", PASSWORD)
    page.goto(f"{filled.url}/approvals/new/")
    page.get_by_label("Version", exact=True).fill("acme/n5:1.0.0")
    page.get_by_role("button", name="Show conditions").click()
    expect(page.get_by_role("heading", name="Can 1.0.0 go to production?")).to_be_visible()
    page.get_by_label("Reason").fill("by hand")
    page.get_by_role("button", name="Ask for production").click()
    address = page.url
    context.close()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, filled.url, "alice", PASSWORD)
    page.goto(address)
    page.get_by_label("Approved for use").check()
    page.locator("#approve-password").fill("not it")
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("the password was wrong")
    page.get_by_label("Approved for use").check()
    page.locator("#approve-password").fill(PASSWORD)
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.get_by_text("Signed. More approvals are needed.")).to_be_visible()
    context.close()


def test_progress_moves_by_itself_and_the_page_reloads_when_the_run_ends(filled, page):
    version = stand(6)
    with transaction.atomic():
        job = reconciliation.request_run(actor=SYSTEM, now=timezone.now(), version=version)
    sign_in(page, filled.url, "erin", PASSWORD)
    page.goto(f"{filled.url}/reconciliation/runs/{job.pk}/")
    expect(page.get_by_text("waiting for a worker")).to_be_visible()
    Job.objects.filter(pk=job.pk).update(state="running", started_at=timezone.now(), total=4, done=1)
    expect(page.get_by_text("1 of 4 versions,")).to_be_visible(timeout=15_000)
    assert page.locator("progress").get_attribute("value") == "1"
    Job.objects.filter(pk=job.pk).update(state="done", done=4, finished_at=timezone.now())
    expect(page.locator("progress")).to_have_count(0, timeout=15_000)
    expect(page.get_by_text("Nothing has been read.")).to_be_visible()


def test_run_is_started_and_cancelled_by_hand(filled, page):
    stand(7)
    sign_in(page, filled.url, "erin", PASSWORD)
    page.goto(f"{filled.url}/reconciliation/")
    page.get_by_label("Version, or empty for everything").fill("acme/n7:1.0.0")
    page.get_by_role("button", name="Reconcile now").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Reconciliation of acme/n7:1.0.0")
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator(".head .tag")).to_have_text("cancelled")


def test_printed_request_shows_signatures_and_no_forms(filled, page):
    promotion = Promotion.objects.get(version__label="acme/rf-model-audit:0.2.0", environment="staging")
    assert wait_for_checkpoint(promotion.decided_seq, timeout_s=20)
    sign_in(page, filled.url, "dave", PASSWORD)
    for path, is_open in (
        (request_page("acme/rf-model-audit:0.2.0", "staging"), False),
        (request_page("acme/ndamaged"), True),
    ):
        page.goto(filled.url + path)
        page.emulate_media(media="print")
        expect(page.get_by_role("button", name="Approve")).to_be_hidden() if is_open else None
        expect(page.get_by_text("printed name, date and time, meaning")).to_be_visible()
        page.emulate_media(media="screen")
    page.goto(filled.url + request_page("acme/rf-model-audit:0.2.0", "staging"))
    page.emulate_media(media="print")
    expect(page.locator(".signatures strong")).to_have_text("Alice Example")
    expect(page.locator(".signatures time")).to_be_visible()
    expect(page.locator(".signatures dd", has_text="rejected")).to_be_visible()
