"""The whole journey with nothing pretended: a real MLflow, a real registry, the real portal and a real browser.

A model is trained and two ModelKits are pushed; both reach the portal. A promotion is asked for, refused to its
requester, and approved by two people; somebody changes a blob on the registry's disk and the reconciliation finds it;
an auditor downloads the bundle, which proves itself with other people's tools, and no longer does after one change.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from auditportal.accounts import services as accounts
from auditportal.bundles import signing
from auditportal.ingest import sources
from auditportal.ingest.models import Source
from auditportal.ledger.drafts import SYSTEM
from tests import databases
from tests.browser.contract import sign_in
from tests.bundles import forging
from tests.conftest import PASSWORD, make_people
from tests.mlflows import RealMlflow
from tests.portal import ROOT, Portal
from tests.registries import RealRegistry

pytestmark = [pytest.mark.browser, pytest.mark.registry, pytest.mark.mlflow]

KIT = "acme/rf-model-audit"
DATASET = "sha256:bd8d72eda741595adc586c07a8c880c784b64f0abf2cd9e957a5c160bcea54b0"  # a layer of 0.2.0
HOOK_SECRET = "a secret that MLflow and the portal share"


@pytest.fixture
def portal(committed, tmp_path, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]  # as the portal's processes
    make_people()
    settings.SIGNER_DIRECTORY = databases.fresh_signer(tmp_path / "signer")
    settings.BUNDLE_SIGNER = settings.SIGNER_DIRECTORY.parent / "bundle-signer"
    running = Portal(tmp_path / "portal")
    running.directory.mkdir()
    subprocess.run(
        [sys.executable, "manage.py", "setup_signing"], cwd=ROOT, env=running.environment(), check=True,
        capture_output=True,
    )  # fmt: skip
    try:
        yield running.start("worker")
    finally:
        running.stop()


@pytest.fixture
def registry(portal, tmp_path):
    _, token = accounts.issue_token(
        name="hook", source_id="registry", scopes=["hooks"], actor=SYSTEM, now=timezone.now()
    )
    sink = f"http://127.0.0.1:{portal.port}/hooks/oci/"
    real = RealRegistry(tmp_path / "registry", sink=sink, token=token)
    try:
        real.start()
        sources.register(id="registry", kind=Source.Kind.OCI, url=real.url, actor=SYSTEM, now=timezone.now())
        yield real
    finally:
        real.stop()


@pytest.fixture
def mlflow(portal, tmp_path):
    server = RealMlflow(tmp_path / "mlflow")
    try:
        server.start()
        sources.register(
            id="mlflow", kind=Source.Kind.MLFLOW, url=server.url, hook_secret=HOOK_SECRET, actor=SYSTEM,
            now=timezone.now(),
        )  # fmt: skip
        hook = f"http://127.0.0.1:{portal.port}/hooks/mlflow/"
        events = [{"entity": name, "action": "CREATED"} for name in ("REGISTERED_MODEL", "MODEL_VERSION")]
        server.call("POST", "webhooks", name="portal", url=hook, secret=HOOK_SECRET, events=events)
        yield server
    finally:
        server.stop()


class People:
    """A browser window for each person, signed in at first use."""

    def __init__(self, browser, url):
        self._browser, self._url = browser, url
        self._pages: dict[str, Page] = {}

    def __call__(self, name) -> Page:
        if name not in self._pages:
            context = self._browser.new_context(accept_downloads=True)
            self._pages[name] = context.new_page()
            sign_in(self._pages[name], self._url, name, PASSWORD)
        return self._pages[name]

    def close(self):
        for page in self._pages.values():
            page.context.close()


@pytest.fixture
def people(portal, browser):
    crew = People(browser, portal.url)
    yield crew
    crew.close()


def find(page: Page, url: str, query: str, count: int = 1) -> None:
    """The timeline shows this many events, at the latest in a minute."""
    for _ in range(60):
        page.goto(f"{url}/timeline/?q={query}")
        if page.locator(".ev").count() >= count:
            return
        page.wait_for_timeout(1000)
    raise AssertionError(f"{page.locator('.ev').count()} events for {query}")


def run(*command, cwd, **options):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120, **options)


def test_from_training_to_a_bundle_that_proves_itself(portal, registry, mlflow, people, tmp_path):
    meta = mlflow.train()
    pull_now(portal, people("frank"))
    see_what_mlflow_told(portal, people("erin"), meta)
    registry.push(f"{KIT}:0.1.0")
    registry.push(f"{KIT}:0.2.0")
    see_what_the_registry_told(portal, people("erin"))
    compare_the_two(portal, people("erin"))
    reconcile(portal, people("erin"), bad=0)
    promote_the_first(portal, people)
    break_a_blob(registry)
    reconcile(portal, people("erin"), bad=1)
    see_the_second_blocked(portal, people)
    bundle = download_the_bundle(portal, people("dave"), tmp_path)
    check_with_the_tools_of_others(portal, bundle, people("dave"), tmp_path)


def pull_now(portal, page):
    page.goto(f"{portal.url}/settings/sources/mlflow/")
    page.get_by_role("button", name="Pull now").click()
    page.wait_for_load_state("networkidle")


def see_what_mlflow_told(portal, page, meta):
    find(page, portal.url, f"action:train run:{meta['mlflow_run_id']}")
    page.locator(".ev .seq a").first.click()
    expect(page.locator("main")).to_contain_text(meta["dataset_sha256"])
    expect(page.locator("main")).to_contain_text("claimed")
    find(page, portal.url, "action:register source:mlflow model:rf-iris")


def see_what_the_registry_told(portal, page):
    find(page, portal.url, f"action:package model:{KIT}", 2)
    page.goto(f"{portal.url}/models/{KIT}/")
    for version in ("0.1.0", "0.2.0"):
        expect(page.get_by_role("link", name=version, exact=True).first).to_be_visible()


def compare_the_two(portal, page):
    page.goto(f"{portal.url}/models/{KIT}/compare/0.1.0..0.2.0/")
    main = page.locator("main")
    for word in ("changed", "removed", "accuracy", "0.9667", "0.9733", "README.md"):
        expect(main).to_contain_text(word)


def reconcile(portal, page, *, bad):
    page.goto(f"{portal.url}/reconciliation/")
    page.get_by_role("button", name="Reconcile now").click()
    page.wait_for_url(re.compile(r".*/reconciliation/runs/\d+/"))
    for _ in range(60):
        page.reload()
        if page.get_by_text("digest mismatch" if bad else "done").count():
            break
        page.wait_for_timeout(500)
    page.goto(f"{portal.url}/reconciliation/")
    expect(page.get_by_text("Digest mismatch", exact=False)).to_have_count(
        0 if not bad else page.get_by_text("Digest mismatch").count()
    )
    page.goto(f"{portal.url}/timeline/?q=action:finding.opened")
    expect(page.locator(".ev")).to_have_count(bad)


def ask(portal, page, version):
    label = f"{KIT}:{version}"
    page.goto(f"{portal.url}/approvals/new/?version={label}&environment=production")
    page.get_by_label("Reason").fill(f"bring {version} to our customers")
    page.get_by_role("button", name=re.compile("^Ask")).last.click()
    page.wait_for_url(re.compile(r".*/approvals/[0-9a-f-]{36}/"))
    return page.url


def approve(page, address):
    page.goto(address)
    form = page.locator("form", has=page.get_by_role("button", name="Approve"))
    form.get_by_role("radio").first.check()
    form.get_by_label("Password").fill(PASSWORD)
    form.get_by_role("button", name="Approve").click()
    page.wait_for_load_state("networkidle")


def promote_the_first(portal, people):
    address = ask(portal, people("alice"), "0.1.0")
    approve(people("alice"), address)
    expect(people("alice").get_by_text("who asks for a promotion may not sign it").first).to_be_visible()
    find(people("alice"), portal.url, f"action:approve outcome:refused model:{KIT}")
    approve(people("bob"), address)
    approve(people("carol"), address)
    expect(people("carol").get_by_text("promoted").first).to_be_visible()
    find(people("carol"), portal.url, f"action:promote outcome:done environment:production model:{KIT}")


def break_a_blob(registry):
    file = registry.data(DATASET)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def see_the_second_blocked(portal, people):
    address = ask(portal, people("erin"), "0.2.0")
    expect(people("erin").get_by_text("digest mismatch").first).to_be_visible()
    approve(people("bob"), address)
    expect(people("bob").get_by_text("Refused, and recorded")).to_be_visible()
    expect(people("bob").locator("main")).to_contain_text("no open finding")


def download_the_bundle(portal, page, tmp_path: Path) -> Path:
    page.goto(f"{portal.url}/bundles/new/?model={KIT}")
    page.get_by_label("Recipient").fill("The Regulator")
    page.get_by_label("Purpose").fill("inspection 2026")
    page.locator("main form button[type=submit]").first.click()
    page.wait_for_url(re.compile(r".*/bundles/[0-9a-f-]{36}/"))
    link = page.get_by_role("link", name=re.compile("Download")).first
    expect(link).to_be_visible(timeout=60_000)
    with page.expect_download() as download:
        link.click()
    target = tmp_path / "bundle.zip"
    download.value.save_as(target)
    return target


def fetch(page: Page, address: str, target: Path) -> Path:
    answer = page.request.get(address)
    assert answer.ok, address
    target.write_bytes(answer.body())
    return target


def check_with_the_tools_of_others(portal, bundle, page, tmp_path):
    from auditportal.ledger import queries

    root = fetch(page, f"{portal.url}/bundles/root.pem", tmp_path / "root.pem")
    key = queries.vkey()
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(unpacked)
    for manifest in ("manifest-sha256.txt", "tagmanifest-sha256.txt"):
        done = run("sha256sum", "--quiet", "-c", manifest, cwd=unpacked)
        assert done.returncode == 0, done.stdout + done.stderr
    signed = "tagmanifest-sha256.txt"
    cms = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", f"signatures/{signed}.p7s"]
    cms += ["-content", signed, "-CAfile", str(root), "-out", "/dev/null"]
    assert run(*cms, cwd=unpacked).returncode == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    assert verify(empty, bundle, key, root) == (0, "complete relative to the map")
    assert verify(empty, unpacked, key, root) == (0, "complete relative to the map")
    events = unpacked / "data" / "events" / "events-00000.jsonl"
    good = events.read_bytes()
    events.write_bytes(good.replace(b"production", b"productioN", 1))
    code, verdict = verify(empty, unpacked, key, root)
    assert code == 1
    assert verdict.startswith("failed")
    assert run("sha256sum", "--quiet", "-c", "manifest-sha256.txt", cwd=unpacked).returncode != 0
    events.write_bytes(good)
    forging.drop_event(unpacked, 0)
    forging.rebuild(unpacked, signing.load())
    assert run("sha256sum", "--quiet", "-c", "manifest-sha256.txt", cwd=unpacked).returncode == 0
    assert run(*cms, cwd=unpacked).returncode == 0
    assert verify(empty, unpacked, key, root) == (1, "failed: INCOMPLETE_STREAM")
    assert run(*cms[:-3], str(another_root(tmp_path)), "-out", "/dev/null", cwd=unpacked).returncode != 0
    code, _ = verify(empty, unpacked, key, another_root(tmp_path))
    assert code == 1


def verify(empty: Path, bundle: Path, key: str, root: Path):
    """Exit code and verdict of `python -m auditproof verify`, run where nothing else is."""
    import json

    done = run(
        sys.executable, "-m", "auditproof", "verify", str(bundle), "--key", key, "--root", str(root), "--json",
        cwd=empty, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    value = json.loads(done.stdout)
    return done.returncode, value["verdict"]


def another_root(tmp_path: Path) -> Path:
    target = tmp_path / "another.pem"
    if not target.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
             str(tmp_path / "another.key"), "-out", str(target), "-subj", "/O=Somebody else/CN=Root", "-days", "30"],
            check=True, capture_output=True,
        )  # fmt: skip
    return target
