"""Every address and every form with input that no honest browser sends: never a 500, and always the strict policy."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme

from auditportal.accounts import services as accounts
from auditportal.approvals import services as approvals
from auditportal.catalog.models import Version
from auditportal.ingest import sources
from auditportal.ingest.models import Delivery
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Entry
from auditportal.reconciliation import services as reconciliation
from auditportal.reconciliation.examine import Result
from auditportal.reconciliation.models import Finding, Verdict
from auditportal.web import approvals as approval_pages
from tests import kits
from tests.conftest import PASSWORD
from tests.factories import record
from tests.web.test_permissions import ROUTES

POLICY = "default-src 'none'; script-src 'self'; style-src 'self';"
TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "\x01\x1f\x7f",
    "\ud800",  # sent as the bytes that no UTF-8 has
    "\r\nSet-Cookie: x=1\r\n\r\n<b>",
    "'\"`;--/*",
    "%00%0d%0a%s%(x)s{0}{x}",
    "../../etc/passwd",
    "..",
    "<script>alert(1)</script>{{ 7 }}{% now %}",
    "=HYPERLINK(1)",
    "\u202egnp.exe\u200b\ufeff\U0001f525\u0661\u0662",
    "-1",
    "0",
    "1e999",
    "NaN",
    "9" * 19,
    "9" * 5000,
    "x" * 20_000,
    "//evil.test/\\@evil.test",
    "javascript:alert(1)",
    "[" * 3000,
)
# The query language has its own ways to go wrong.
QUERIES = (
    "seq:" + "9" * 400,
    "seq:5..1",
    "seq:>" + "9" * 30,
    "meta.a.b.0:x",
    "meta.a:>5",
    "digest:" + "f" * 64,
    "during:0000",
    "during:9999-Q4",
    "during:9999",
    "on:9999-12-31",
    "on:0001-01-01T00:00:00+14:00",
    "during:99999w",
    "before:0001",
    "recorded:9999-12-31..0001-01-01",
    "has:attestation.'|&!",
    "has:attestation.\\",
    '"\'\\"',
    "'a':*|b",
    "\\*",
    "actor:'",
    "model:\ud800*",
    "subject::",
    "-" * 300,
    "a " * 40,
    "sort:recorded -sort:recorded",
    "action:promote,promote,,",
    "version:a..b",
)
CURSORS = (
    "9999-12-31T23:59:59.999999Z_999999999999999999",
    "0000-01-01T00:00:00.000000Z_1",
    "2026-11-20T12:00:00.000000Z_\u0661",
    "\u0662026-11-20T12:00:00.000000Z_1",
    "0001-01-01T00:00:00.000000Z_0",
)
# What each page reads from its address; the others are tried with all of these names at once.
READS = {
    "jump": ("q",),
    "timeline": ("q", "cursor"),
    "timeline-histogram": ("q",),
    "timeline-facets": ("q",),
    "timeline-newer": ("q", "seen"),
    "approvals-new": ("version", "environment"),
    "models": ("q", "page", "name", "version"),
    "models-detail": ("tab", "before", "cursor"),
    "models-version": ("tab",),
    "models-pick": ("a", "b"),
    "models-text": ("a", "b"),
    "reconciliation-run": ("part",),
    "bundles-new": ("model",),
    "settings-deliveries": ("state", "source", "before"),
    "account_login": ("next",),
    "account_logout": ("next",),
    "mfa_authenticate": ("next",),
}
PARAMETERS = tuple(dict.fromkeys(name for names in READS.values() for name in names))
NUMBERS = ("0", "2147483648", "9223372036854775807", "9223372036854775808", "9" * 40, "9" * 5000)
SEGMENTS = (*(text for text in TEXTS if text not in ("", "..")), "a:b", "a..b", "..x", "x..", "a/b", "....")


def routes(resolver: URLResolver | None = None, before: str = "") -> Iterator[tuple[str, str]]:
    """Name and pattern of each address."""
    for item in (resolver or get_resolver()).url_patterns:
        if isinstance(item, URLResolver):
            yield from routes(item, before + str(item.pattern))
        elif isinstance(item, URLPattern):
            yield str(item.name), "/" + before + str(item.pattern)


PATTERNS = dict(routes())
# Who is let through the door, so that the input reaches what is behind it.
ADMINS = {name for name in PATTERNS if name.startswith("settings-")}
PERSON = (
    {"approvals-new": "erin"}
    | dict.fromkeys(ADMINS, "frank")
    | dict.fromkeys((name for name in PATTERNS if name.startswith("reconciliation-")), "frank")
)


def encoded(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def addresses(pattern: str) -> Iterator[str]:
    """The pattern filled with odd values of each kind; without parameters it is the address."""
    kinds = re.findall(r"<(\w+):(\w+)>", pattern)
    if not kinds:
        yield pattern
        return
    values = {"int": NUMBERS, "uuid": (str(uuid.UUID(int=0)),), "str": SEGMENTS, "path": SEGMENTS}
    for turn in range(max(len(values[kind]) for kind, _ in kinds)):
        address = pattern
        for kind, name in kinds:
            address = address.replace(f"<{kind}:{name}>", encoded(values[kind][turn % len(values[kind])]))
        yield address


def check(answer, what):
    assert answer.status_code < 500, what
    assert answer["Content-Security-Policy"].startswith(POLICY), what
    assert answer["X-Content-Type-Options"] == "nosniff", what
    for name, value in answer.items():
        assert "\n" not in value, (what, name)
        assert "\r" not in value, (what, name)
    if answer.status_code in (301, 302):
        assert url_has_allowed_host_and_scheme(answer["Location"][:1000], allowed_hosts=None), (
            what,
            answer["Location"],
        )
    if answer.get("Content-Type", "").startswith("text/html"):
        page = b"".join(answer)
        assert b"<script>alert(1)" not in page, what
    if answer.streaming:  # its files; to close the answer itself would close the test's connection
        for close in answer._resource_closers:
            close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(approval_pages, "PROOF_WAIT_S", 0.0)


@pytest.fixture
def world(people, seal):
    """One of everything that a page shows, with hostile words where strangers give words."""
    record()
    now = timezone.now()
    evil = kits.make_kit({"model": {"name": TEXTS[11], "parameters": {TEXTS[13]: TEXTS[6]}}}, repository="evil/kit")
    kits.observe("0.1.0")
    version = kits.observed(evil, tag="0.2.0", now=now, state=Version.Check.CHECKED, note="")
    bad = Result("tag:x", TEXTS[11], Verdict.TAG_MOVED, TEXTS[13][:40], "=1+1", TEXTS[11])
    reconciliation.settle(version, [bad], now=now)
    promotion = approvals.open_promotion(
        version=version, environment="production", reason=TEXTS[11] + TEXTS[13], user=people["erin"], now=now
    )
    source = sources.register(id="registry", kind="oci", url="http://r.test", actor=SYSTEM, now=now)
    delivery = Delivery.objects.create(
        source=source, kind="oci", headers={"user-agent": TEXTS[11]}, body=TEXTS[11].encode(), received_at=now,
        next_attempt_at=now,
    )  # fmt: skip
    job = reconciliation.request_run(actor=SYSTEM, now=now)
    _, token = accounts.issue_token(
        name="t", source_id="ci", scopes=["events:write", "events:read", "hooks"], actor=SYSTEM, now=now
    )
    seal()
    return {
        "pk": {"delivery": delivery.pk, "run": job.pk, "finding": Finding.objects.get().pk, "promotion": promotion.pk},
        "token": token,
        "version": version,
        "people": people,
    }


@pytest.fixture
def knock(world, as_person):
    """A client that gets an answer whatever happens, signed in as somebody who may open this route."""

    def enter(name):
        client = as_person(PERSON.get(name, "alice"))
        client.raise_request_exception = False
        return client

    return enter


def live(name: str, world) -> str:
    """An address at which something stands, so that its parameters are read."""
    if name in ROUTES:
        return ROUTES[name][0].split("?")[0]
    pattern, pks = PATTERNS[name], world["pk"]
    for kind, key in (("delivery", "delivery"), ("reconciliation-run", "run"), ("reconciliation-cancel", "run"),
                      ("finding", "finding"), ("approvals", "promotion")):  # fmt: skip
        if kind in name:
            pattern = re.sub(r"<(int|uuid):pk>", str(pks[key]), pattern)
    pattern = pattern.replace("<path:pk>", "registry").replace("<int:pk>", str(world["people"]["bob"].pk))
    return pattern.replace("<uuid:pk>", str(uuid.UUID(int=0)))


@pytest.mark.parametrize("name", sorted(PATTERNS))
@pytest.mark.parametrize("method", ["get", "post"])
def test_no_address_breaks_the_portal(knock, name, method):
    client = knock(name)
    for address in addresses(PATTERNS[name]):
        if name.startswith("event") and "9" * 19 in address:
            continue  # test_no_seq_breaks_an_event
        check(client.generic(method.upper(), address), address[:200])


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_no_parameter_breaks_a_page(knock, world, name):
    client = knock(name)
    address = live(name, world)
    for parameter in READS.get(name, ()):
        odd = TEXTS + (QUERIES if parameter == "q" else ()) + (CURSORS if parameter == "cursor" else ())
        for text in odd:
            asked = f"{address}?{parameter}={encoded(text)}"
            check(client.get(asked), asked[:200])
    for text in ("1", "\0", "\ud800", "-1"):
        asked = f"{address}?{'&'.join(f'{parameter}=1&{parameter}={encoded(text)}' for parameter in PARAMETERS)}"
        check(client.get(asked, headers={"HX-Request": "true"}), asked)


@pytest.mark.parametrize("address", ["/timeline/", "/timeline/histogram/", "/timeline/facets/"])
def test_nul_in_a_query_breaks_no_page(knock, address):
    check(knock("timeline").get(f"{address}?q=id:%00"), address)


def test_nul_in_a_query_breaks_no_api(world):
    client = Client(raise_request_exception=False)
    check(client.get("/api/v1/events?q=id:%00", headers={"Authorization": f"Bearer {world['token']}"}), "id")


def test_digit_that_is_no_number_breaks_no_page(knock):
    check(knock("timeline-newer").get("/timeline/newer/?seen=%C2%B2"), "seen")


@pytest.mark.parametrize("part", ["", "row/", "json", "proof"])
def test_no_seq_breaks_an_event(knock, part):
    check(knock("event").get(f"/events/{'9' * 40}/{part}"), part)


FORMS = {
    "approvals-new": ("version", "environment", "reason"),
    "approvals-sign": ("seen", "meaning", "comment", "password"),
    "approvals-reject": ("seen", "comment", "password"),
    "approvals-withdraw": ("x",),
    "reconciliation-start": ("version",),
    "reconciliation-cancel": ("x",),
    "bundles-new": ("model", "recipient", "purpose", "known_size"),
    "bundles-cancel": ("x",),
    "account": ("theme", "uses_keys"),
    "account_login": ("login", "password", "next"),
    "account_signup": ("username", "password1", "password2"),
    "account_change_password": ("oldpassword", "password1", "password2"),
    "account_reauthenticate": ("password", "next"),
    "account_logout": ("next",),
    "mfa_activate_totp": ("code",),
    "settings-role": ("role", "reason"),
    "settings-tokens": ("name", "source_id", "scopes", "days"),
    "settings-revoke": ("reason",),
    "settings-sources": ("kind", "id", "url", "hosts", "repositories", "username", "password", "hook_secret"),
    "settings-source-pull": ("full",),
    "settings-source-switch": ("is_active", "reason"),
}
SOUND = {
    "environment": "production", "reason": "x", "meaning": "approved for use", "password": PASSWORD, "model": "evil/kit",
    "recipient": "x", "purpose": "x", "theme": "dark", "role": "lead", "name": "x", "source_id": "ci",
    "scopes": "events:read", "days": "90", "kind": "oci", "id": "r2", "url": "https://r2.test", "is_active": "off",
    "version": "evil/kit:0.2.0", "oldpassword": PASSWORD,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FORMS))
def test_no_field_breaks_a_form(knock, world, name):
    """One odd field among sound ones, and all of them odd."""
    address = live(name, world)
    client = knock(name)
    for text in TEXTS:
        for odd in ((field,) for field in FORMS[name]) if text else ((),):
            if name.startswith("account"):
                client = knock(name)  # who signed out, or has another password, does not come as far again
            given = {field: text if field in odd else SOUND.get(field, "") for field in FORMS[name]}
            body = "&".join(f"{field}={encoded(value)}" for field, value in given.items())
            answer = client.generic("POST", address, body, content_type="application/x-www-form-urlencoded")
            check(answer, (name, odd, text[:60]))
        body = "&".join(f"{field}={encoded(text)}" for field in FORMS[name])
        check(client.generic("POST", address, body, content_type="application/x-www-form-urlencoded"), (name, text))


@pytest.mark.parametrize("name", sorted(FORMS))
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a\0"\r\n\r\n\xff\r\n--x--'),
        ("multipart/form-data; boundary=\xff", b"--"),
        ("application/x-www-form-urlencoded; charset=utf-7", b"reason=%2B"),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 1500)),
        ("application/json", b"{" * 5000),
        ("", b"\xff\xfe"),
    ],
)
def test_no_body_breaks_a_form(knock, world, name, content_type, body):
    check(knock(name).generic("POST", live(name, world), body, content_type=content_type), (name, content_type))


def test_every_form_is_tried():
    """Whatever takes a POST stands in FORMS, or is named here."""
    elsewhere = {
        "api-events", "hooks-oci", "hooks-mlflow",  # below
        "mfa_authenticate", "mfa_reauthenticate", "mfa_deactivate_totp", "mfa_generate_recovery_codes",  # allauth's
        "mfa_download_recovery_codes", "mfa_view_recovery_codes", "mfa_index", "account_inactive",
    }  # fmt: skip
    safe = {name for name, pattern in PATTERNS.items() if name not in FORMS and name not in elsewhere}
    client = Client()
    for name in safe:
        address = next(addresses(PATTERNS[name]))
        assert client.post(address).status_code in (302, 404, 405), name


API_BODIES = [
    *(text.encode("utf-8", "surrogatepass") for text in TEXTS),
    *(json.dumps(text).encode() for text in TEXTS if "\ud800" not in text),
    b"\xef\xbb\xbf{}",
    b"null",
    b"true",
    b"[]",
    b"[[]]",
    b"[null]",
    b"{}",
    b'{"a":1,"a":2}',
    b'{"action":"train","subject":"\\ud800","timestamp":"2026-11-20T00:00:00Z"}',
    b'{"action":"train","subject":"run:\\u0000","timestamp":"2026-11-20T00:00:00Z"}',
    b'{"action":"train","subject":"run:x","timestamp":"9999-12-31T23:59:59-23:59"}',
    b'{"action":"train","subject":"run:x","timestamp":"0001-01-01T00:00:00+23:59"}',
    b'{"action":"train","subject":"run:x","timestamp":"2026-11-20T00:00:60Z"}',
    b'{"action":"train","subject":"run:x","timestamp":1e999}',
    b'{"action":"train","subject":"run:x","timestamp":"2026-11-20T00:00:00Z","metadata":{"n":1e400}}',
    b'{"action":"train","subject":"run:x","timestamp":"2026-11-20T00:00:00Z","metadata":{"n":' + b"9" * 5000 + b"}}",
    b'{"action":"train","subject":"run:x","timestamp":"2026-11-20T00:00:00Z","metadata":' + b'{"a":' * 40 + b"1" + b"}" * 41,
    b'{"action":"train","subject":"run:x","timestamp":"2026-11-20T00:00:00Z","metadata":{"$sealed":"x"}}',
    b'{"action":"ledger.genesis","subject":"run:x","timestamp":"2026-11-20T00:00:00Z"}',
    b'{"action":"train","subject":{"type":"model_version","id":"a"},"timestamp":"2026-11-20T00:00:00Z"}',
    b'{"action":"train","subject":{"type":[],"id":{}},"timestamp":"2026-11-20T00:00:00Z"}',
    b'{"action":"train","subject":"run:x","timestamp":"2026-11-20T00:00:00Z","related":[{"type":"a"},5,null]}',
    b'{"action":"train","subject":"run:x","timestamp":"2026-11-20T00:00:00Z","source":{"id":"auditportal"}}',
    b'{"action":"train","subject":"run:x","timestamp":"2026-11-20T00:00:00Z","actor":{"type":"system","id":"system"}}',
    b'{"action":"train","subject":"run:x","timestamp":"2026-11-20T00:00:00Z","integrity":{"event_sha256":"x"}}',
    b'{"action":"train","subject":"run:x","timestamp":"2026-11-20T00:00:00Z","source":{"seq":99999999999999999999}}',
]  # fmt: skip


def test_no_posted_event_breaks_the_api(world):
    client = Client(raise_request_exception=False)
    size = Entry.objects.count()
    for body in API_BODIES:
        for headers in ({"Authorization": f"Bearer {world['token']}"}, {"Authorization": "Bearer apt_\xff"}, {}):
            answer = client.post("/api/v1/events", body, content_type="application/json", headers=headers)
            check(answer, body[:120])
            assert answer.status_code in (400, 401), body[:120]
    assert Entry.objects.count() == size


def test_no_search_breaks_the_api(world):
    client = Client(raise_request_exception=False)
    given = {"Authorization": f"Bearer {world['token']}"}
    for text in (*TEXTS, *QUERIES):
        check(client.get(f"/api/v1/events?q={encoded(text)}", headers=given), text[:60])
    for text in (*TEXTS, *CURSORS, "\u00b2"):
        check(client.get(f"/api/v1/events?cursor={encoded(text)}", headers=given), text[:60])
        check(client.get(f"/api/v1/events?limit={encoded(text)}", headers=given), text[:60])


def test_no_delivery_breaks_a_hook(world):
    client = Client(raise_request_exception=False)
    for body in API_BODIES:
        for path in ("/hooks/oci/", "/hooks/mlflow/"):
            headers = {
                "Authorization": f"Bearer {world['token']}", "X-MLflow-Delivery-Id": "1", "X-MLflow-Timestamp": "9" * 40,
                "X-MLflow-Signature": "v1,\xff",
            }  # fmt: skip
            check(client.post(path, body, content_type="text/plain", headers=headers), body[:60])


@pytest.mark.parametrize(
    "header", ["Host", "X-Forwarded-Proto", "Cookie", "Accept-Language", "HX-Request", "HX-Current-URL", "Referer",
               "X-Request-ID", "If-Modified-Since", "If-None-Match", "Range", "Content-Length", "Authorization"]
)  # fmt: skip
def test_no_header_breaks_a_page(knock, header):
    client = knock("overview")
    for text in (text for text in TEXTS[1::2] if "\ud800" not in text):
        for address in ("/timeline/", "/account/login/", "/static/css/base.css"):
            value = text.encode("latin-1", "replace").decode("latin-1")
            check(client.get(address, headers={header: value}), (header, address, text[:40]))
