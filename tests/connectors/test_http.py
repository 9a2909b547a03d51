"""The HTTP client against a server that does everything wrong."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from auditportal.connectors.errors import TruncatedError, UnreachableError, show
from auditportal.connectors.http import Client
from tests.fakes.registry import FakeRegistry, serving

FAST = {"connect_s": 2.0, "read_s": 0.3, "whole_s": 1.0, "small_s": 1.0}
LONG_S = 10.0  # far beyond the deadlines of these clients and far below those of a client without any


@pytest.fixture
def fake():
    with serving(FakeRegistry()) as fake:
        yield fake


@pytest.fixture
def other():
    with serving(FakeRegistry()) as fake:
        yield fake


def client(fake, **options):
    return Client(fake.url, **{**FAST, **options})


def failure(ask):
    """How it fails, and that it does so in bounded time."""
    begun = time.monotonic()
    with pytest.raises((UnreachableError, TruncatedError)) as raised:
        ask()
    assert time.monotonic() - begun < LONG_S
    return raised.value


def test_answer_is_whole_and_asks_for_the_bytes_as_they_are(fake):
    fake.fail(status=200, body=b"all of it", headers={"X-A": "b"})
    answer = client(fake).get("/x")
    assert (answer.status, answer.body, answer.headers["x-a"]) == (200, b"all of it", "b")
    sent = fake.requests[0][2]
    assert sent["accept-encoding"] == "identity"
    assert sent["user-agent"] == "AuditPortal/1 (reconciliation)"


def test_gzip_that_nobody_asked_for_is_handed_on_as_it_came(fake):
    fake.fail(status=200, body=b"x" * 1000, gzipped=True)
    assert client(fake).get("/x").body.startswith(b"\x1f\x8b")


def test_connections_are_used_again(fake):
    fake.fail(status=200, body=b"{}")
    asking = client(fake)
    for _ in range(5):
        asking.get("/x")
    assert fake.connections == 1


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ({"hang": True}, UnreachableError, "timed out"),
        ({"status": 200, "body": b"x" * 100, "pause_s": 0.05}, UnreachableError, "took too long as a whole"),
        ({"status": 200, "body": b"x", "header_pause_s": 0.05}, UnreachableError, "timed out"),
        ({"status": 200, "body": b"x" * 10, "pause_s": 0.6}, UnreachableError, "stalled after 0 bytes"),
        ({"status": 200, "endless": True, "pause_s": 0.001}, UnreachableError, "took too long as a whole"),
        (
            {"status": 200, "body": b"0" * 300, "pause_s": 0.05, "headers": {"Transfer-Encoding": "chunked"}},
            UnreachableError,
            "took too long as a whole",
        ),
        ({"status": 200, "body": b"x" * 100, "close_after": 40}, TruncatedError, "closed after 40 bytes"),
        ({"status": 200, "body": b"x", "headers": {"Content-Length": "50"}, "close_after": 0}, TruncatedError, "closed"),
        ({"status": 200, "body": b"5\r\nab", "headers": {"Transfer-Encoding": "chunked"}, "close_after": 5}, TruncatedError, "closed"),
        ({"status": 200, "body": b"zz\r\nab", "headers": {"Transfer-Encoding": "chunked"}, "close_after": 6}, TruncatedError, "closed"),
    ],
    ids=["hang", "drip", "headers drip", "stall", "endless", "chunk size drips", "cut", "cut at once", "chunk cut", "no chunk"],
)  # fmt: skip
def test_bad_answer_ends_in_time_as_what_it_is(fake, fault, kind, reason):
    fake.fail(**fault)
    error = failure(lambda: client(fake).get("/x"))
    assert type(error) is kind
    assert reason in error.reason


def test_endless_body_fills_no_memory(fake):
    fake.fail(status=200, endless=True)
    tracemalloc.start()
    error = failure(lambda: client(fake, small_s=30.0).get("/x", most=1_000_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.reason == "answered with more than 1000000 bytes"
    assert peak < 6_000_000


def test_streamed_answer_keeps_nothing(fake):
    fake.fail(status=200, body=b"x" * 30_000_000)
    tracemalloc.start()
    with client(fake, whole_s=60.0).open("GET", "/x") as stream:
        received = sum(map(len, stream.chunks()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert received == 30_000_000
    assert peak < 3_000_000


def test_bytes_behind_the_announced_end_are_not_read(fake):
    fake.fail(status=200, body=b"good", appended=b"more", times=1)
    fake.fail(path="/y", status=200, body=b"next")
    asking = client(fake)
    assert asking.get("/x").body == b"good"
    assert asking.get("/y").body == b"next"


def test_answer_without_any_header_ends_with_its_connection(fake):
    fake.fail(status=200, body=b"good", bare=True)
    assert client(fake).get("/x").body == b"good"


@pytest.mark.parametrize("length", ["²", "-5", "9" * 5000, "1e3", ""])
def test_lengths_that_are_none_are_survived(fake, length):
    fake.fail(status=200, body=b"good", headers={"Content-Length": length}, close_after=4)
    try:
        body = client(fake).get("/x").body
    except UnreachableError as error:
        body = error.reason.encode()
    assert body == b"good" or body.startswith(b"no ")  # read to the end of the connection, or refused as no HTTP


def test_nobody_listening_is_unreachable_and_may_be_asked_again():
    error = failure(lambda: Client("http://127.0.0.1:1", **FAST).get("/x"))
    assert (type(error), error.retryable) == (UnreachableError, True)
    assert "refused" in error.reason


@pytest.mark.parametrize("raw", [b"<html>sign in</html>", b"", b"[" * 100_000, b"\xff\xfe", b"1" * 5000])
def test_what_is_no_json_is_no_answer(fake, raw):
    fake.fail(status=200, body=raw)
    answer = client(fake).get("/x")
    with pytest.raises(UnreachableError, match="not JSON"):
        answer.json()


def test_redirect_on_the_same_host_keeps_the_credentials(fake):
    fake.fail(path="/x", status=307, headers={"Location": "/y"})
    fake.fail(path="/y", status=200, body=b"there")
    assert client(fake).get("/x", headers={"Authorization": "Basic a"}).body == b"there"
    assert fake.requests[1][2]["authorization"] == "Basic a"


def test_redirect_to_an_allowed_host_leaves_the_credentials_behind(fake, other):
    fake.fail(path="/x", status=307, headers={"Location": f"{other.url}/y?signature=1"})
    other.fail(status=200, body=b"there")
    asking = client(fake, hosts=frozenset({other.host}), headers={"Authorization": "Basic own"})
    assert asking.get("/x", headers={"Authorization": "Basic a"}).body == b"there"
    assert [(path, "authorization" in sent) for _, path, sent in other.requests] == [("/y?signature=1", False)]


@pytest.mark.parametrize(
    "location", ["{other}/y", "//{host}/y", "ftp://127.0.0.1/x", "http://[", "http://127.0.0.1:99999/x", "file:///etc/passwd"]
)  # fmt: skip
def test_redirect_elsewhere_is_not_followed(fake, other, location):
    fake.fail(status=302, headers={"Location": location.format(other=other.url, host=other.host)})
    error = failure(lambda: client(fake).get("/x"))
    assert "which is not a configured host" in error.reason
    assert other.requests == []


def test_redirects_in_a_circle_end(fake):
    fake.fail(path="/x", status=301, headers={"Location": "/y"})
    fake.fail(path="/y", status=301, headers={"Location": "/x"})
    assert failure(lambda: client(fake).get("/x")).reason == "more than 5 redirects"
    assert len(fake.requests) == 6


def test_what_began_encrypted_never_goes_on_in_the_clear():
    asking = Client("https://registry.test", hosts=frozenset({"registry.test:80", "cdn.test"}))
    assert asking.may_reach("https://cdn.test/x")
    assert not asking.may_reach("http://cdn.test/x")
    assert not asking.may_reach("http://registry.test/x")
    assert not asking.may_reach("https://elsewhere.test/x")
    assert not asking.may_reach("https://registry.test@elsewhere.test/x")


@pytest.mark.parametrize("path", ["//evil.test/x", "/a?last=b://c", "x"])
def test_path_stays_on_its_host(path):
    assert Client("http://registry.test").address(path).startswith("http://registry.test/")


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("", None), ("soon", None), ("²", None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)]
)
def test_retry_after_is_seconds_or_a_date(fake, value, seconds):
    from auditportal.connectors.http import refusal

    fake.fail(status=429, headers={"Retry-After": value})
    error = refusal(client(fake).get("/x"))
    assert (error.retryable, error.retry_after_s) == (True, seconds)


def test_foreign_text_is_one_printable_line():
    assert show("a\nb\x00\u202ec" + "d" * 500) == "a b??c" + "d" * 194 + "…"
