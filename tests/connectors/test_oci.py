"""The registry client: against a fake that lies, and against the real thing with damaged storage."""

from __future__ import annotations

import json
import time

import pytest

from auditportal.connectors.errors import ConnectorError, MismatchError, MissingError, TruncatedError, UnreachableError
from auditportal.connectors.http import Client
from auditportal.connectors.oci import MOST_MANIFEST, Credentials, Registry
from tests.fakes.registry import MANIFEST, FakeRegistry, digest_of, serving

REPOSITORY = "acme/rf-model-audit"
NEW = "sha256:fbf31a715261e3362c135c868f43b0ad10ddddac7ff3a2e22e18546be5f86a9d"
LAYER = "sha256:f5dbe18a4b20a9d284440130141e541b66258ad2c0d685b834a943e6b50becee"
LAYER_SIZE = 10_240
ABSENT = "sha256:" + "0" * 64
LONG_S = 20.0


@pytest.fixture
def fake():
    with serving() as fake:
        yield fake


@pytest.fixture
def other():
    with serving() as fake:
        yield fake


class Asking:
    """A registry client that never really sleeps, and remembers how long it would have."""

    def __init__(self, fake, *, credentials=None, hosts=(), small_s=2.0, whole_s=3.0, read_s=0.4):
        client = Client(
            fake.url, hosts=frozenset(hosts), connect_s=2.0, read_s=read_s, whole_s=whole_s, small_s=small_s
        )
        self.slept: list[float] = []
        self.registry = Registry(client, credentials, sleep=self.slept.append)

    def manifest(self, reference="0.2.0", repository=REPOSITORY):
        return self.registry.manifest(repository, reference)

    def blob(self, digest=LAYER, size=LAYER_SIZE):
        return self.registry.hash_blob(REPOSITORY, digest, size=size)

    def tags(self):
        return self.registry.tags(REPOSITORY)


def state_of(ask):
    """The state in which asking ends, in bounded time, and the error."""
    begun = time.monotonic()
    try:
        ask()
    except ConnectorError as error:
        assert time.monotonic() - begun < LONG_S
        return error.state, error
    return "checked", None


def test_good_registry_is_checked(fake):
    asking = Asking(fake)
    asking.registry.ping()
    manifest = asking.manifest()
    assert (manifest.digest, manifest.media_type) == (NEW, MANIFEST)
    assert asking.manifest(NEW).raw == manifest.raw
    for layer in manifest.value()["layers"]:
        assert asking.blob(layer["digest"], layer["size"]) == layer["size"]
    assert [tag for tag in asking.tags() if not tag.startswith("sha256-")] == ["0.1.0", "0.2.0", "latest"]
    assert asking.slept == []


def test_progress_is_told_and_a_small_blob_comes_whole(fake):
    asking = Asking(fake)
    told: list[int] = []
    assert asking.registry.hash_blob(REPOSITORY, LAYER, size=None, progress=told.append) == sum(told) == LAYER_SIZE
    assert digest_of(asking.registry.blob(REPOSITORY, LAYER, most=LAYER_SIZE)) == LAYER
    with pytest.raises(MismatchError, match="longer than recorded"):
        asking.registry.blob(REPOSITORY, LAYER, most=LAYER_SIZE - 1)


BLOB_FAULTS = {
    "altered": ({"body": b"y" * LAYER_SIZE}, "mismatch", "other bytes"),
    "shorter, and says so": ({"body": b"y" * 100}, "mismatch", "another length"),
    "longer, and says so": ({"body": b"y" * 20_000}, "mismatch", "longer than recorded"),
    "closed early": ({"close_after": 100}, "truncated", "closed after 100"),
    "closed at once": ({"close_after": 0}, "truncated", "closed after 0"),
    "endless": ({"endless": True}, "mismatch", "longer than recorded"),
    "gzip": ({"gzipped": True}, "mismatch", "another length"),
    "dripping": ({"pause_s": 0.01}, "unreachable", "took too long as a whole"),
    "stalling": ({"pause_s": 1.0}, "unreachable", "stalled"),
    "hanging": ({"hang": True}, "unreachable", "timed out"),
    "lying length": ({"headers": {"Content-Length": "20000"}}, "unreachable", "stalled"),
    "web page": (
        {"body": b"<html>sign in</html>", "media_type": "text/html; charset=utf-8"},
        "unreachable",
        "web page",
    ),
    "403": ({"status": 403}, "unreachable", "403"),
    "500": ({"status": 500}, "unreachable", "500"),
    "part": ({"status": 206, "body": b"x"}, "unreachable", "206"),
    "nothing": ({"status": 204}, "unreachable", "204"),
    "plain 404": ({"status": 404, "body": b"404 page not found\n", "media_type": "text/plain"}, "unreachable", "404"),
    "web page 404": ({"status": 404, "body": b"<html>", "media_type": "text/html"}, "unreachable", "404"),
    "unknown code": ({"status": 404, "body": b'{"errors":[{"code":"ODD"}]}'}, "unreachable", "404"),
    "no errors": ({"status": 404, "body": b'{"errors":7}'}, "unreachable", "404"),
    "missing": ({"status": 404, "body": b'{"errors":[{"code":"BLOB_UNKNOWN"}]}'}, "missing", "BLOB_UNKNOWN"),
    "lying headers": ({"headers": {"Docker-Content-Digest": ABSENT, "ETag": '"x"'}}, "checked", ""),
    "no headers": ({"bare": True}, "checked", ""),
    "more behind the end": ({"appended": b"more"}, "checked", ""),
}


@pytest.mark.parametrize("name", BLOB_FAULTS)
def test_blob_ends_in_the_right_state(fake, name):
    fault, state, reason = BLOB_FAULTS[name]
    fake.fail("/blobs/", **fault)
    found, error = state_of(Asking(fake).blob)
    assert found == state
    assert reason in (error.reason if error else "")


MANIFEST_FAULTS = {
    "altered": ({"body": b'{"schemaVersion":2}', "media_type": MANIFEST}, "mismatch", "mismatch"),
    "altered, type hidden": ({"body": b'{"schemaVersion":2}', "media_type": "text/html"}, "mismatch", "mismatch"),
    "no json": ({"body": b'{"schemaVersion":', "media_type": MANIFEST}, "mismatch", "mismatch"),
    "twice a member": ({"body": b'{"a":1,"a":2}', "media_type": MANIFEST}, "mismatch", "mismatch"),
    "depth bomb": ({"body": b'{"a":' + b"[" * 100_000, "media_type": MANIFEST}, "mismatch", "mismatch"),
    "web page": ({"body": b"<html>sign in</html>", "media_type": "text/html"}, "unreachable", "unreachable"),
    "other json": (
        {"body": b'{"detail":"maintenance"}', "media_type": "application/json"},
        "unreachable",
        "unreachable",
    ),
    "too large": ({"body": b" " * (MOST_MANIFEST + 1), "media_type": MANIFEST}, "unreachable", "unreachable"),
    "closed early": ({"close_after": 100}, "truncated", "truncated"),
    "endless": ({"endless": True}, "unreachable", "unreachable"),
    "500": ({"status": 500}, "unreachable", "unreachable"),
    "wrong Accept": (
        {"status": 404, "body": b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"Accept header does not support"}]}'},
        "unreachable",
        "unreachable",
    ),
    "missing": ({"status": 404, "body": b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'}, "missing", "missing"),
    "lying headers": (
        {"headers": {"Docker-Content-Digest": ABSENT, "Content-Type": "text/plain"}},
        "checked",
        "checked",
    ),
    "no headers": ({"bare": True}, "checked", "checked"),
}


@pytest.mark.parametrize("name", MANIFEST_FAULTS)
def test_manifest_ends_in_the_right_state(fake, name):
    fault, by_digest, by_tag = MANIFEST_FAULTS[name]
    fake.fail("/manifests/", **fault)
    assert state_of(lambda: Asking(fake).manifest(NEW))[0] == by_digest
    assert state_of(lambda: Asking(fake).manifest("0.2.0").value())[0] == by_tag if by_tag != "mismatch" else True


def test_altered_manifest_by_tag_is_another_digest_and_no_json_is_no_manifest(fake):
    fake.fail("/manifests/", body=b'{"schemaVersion":2}', media_type=MANIFEST)
    assert Asking(fake).manifest("0.2.0").digest == digest_of(b'{"schemaVersion":2}')
    fake.fail("/manifests/", body=b'{"a":1,"a":2}', media_type=MANIFEST)
    with pytest.raises(MismatchError, match="each member once"):
        Asking(fake).manifest("0.2.0").value()


def test_asked_without_the_right_accept_the_same_registry_says_404(fake):
    from auditportal.connectors import http

    answer = http.Client(fake.url).get(f"/v2/{REPOSITORY}/manifests/0.2.0")
    assert (answer.status, b"accept header" in answer.body) == (404, True)


@pytest.mark.parametrize(
    "ask",
    [
        lambda asking: asking.manifest("UPPER CASE"),
        lambda asking: asking.manifest("../../etc"),
        lambda asking: asking.manifest("sha256:ABC"),
        lambda asking: asking.manifest(repository="acme/../x"),
        lambda asking: asking.blob("sha256:" + "A" * 64),
        lambda asking: asking.registry.tags("acme//x"),
    ],
)
def test_malformed_names_never_reach_the_registry(fake, ask):
    assert state_of(lambda: ask(Asking(fake)))[0] == "unreachable"
    assert fake.requests == []


def test_truncation_is_tried_thrice_and_a_good_second_answer_counts(fake):
    fake.fail("/blobs/", close_after=100)
    asking = Asking(fake)
    assert state_of(asking.blob)[0] == "truncated"
    assert (len(fake.requests), asking.slept) == (3, [0.5, 1.0])
    fake.faults.clear()
    fake.fail("/blobs/", close_after=100, times=2)
    assert asking.blob() == LAYER_SIZE


def test_wrong_bytes_are_not_asked_for_again(fake):
    fake.fail("/blobs/", body=b"y" * LAYER_SIZE)
    assert state_of(Asking(fake).blob)[0] == "mismatch"
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_waited_out(fake, status):
    fake.fail("/manifests/", status=status, times=2)
    asking = Asking(fake)
    assert asking.manifest().digest == NEW
    assert asking.slept == [0.5, 1.0]


def test_retry_after_is_honoured_and_one_too_long_ends_the_attempt(fake):
    fake.fail("/manifests/", status=429, headers={"Retry-After": "7"}, times=1)
    asking = Asking(fake)
    assert asking.manifest().digest == NEW
    assert asking.slept == [7.0]
    fake.fail("/manifests/", status=429, headers={"Retry-After": "3600"})
    asking = Asking(fake)
    state, error = state_of(asking.manifest)
    assert (state, error.retry_after_s, asking.slept) == ("unreachable", 3600.0, [])


# tags


@pytest.mark.parametrize(
    "link",
    [
        '</v2/{repository}/tags/list?n={n}&last={last}>; rel="next"',
        "<list?n={n}&last={last}>; rel=next",
        '<{url}/v2/{repository}/tags/list?n={n}&last={last}>; rel="next"',
    ],
    ids=["absolute path", "relative", "whole address"],
)
def test_pages_of_tags_are_followed(fake, link):
    fake.page_size = 2
    fake.link = link.replace("{url}", fake.url)
    assert len(Asking(fake).tags()) == 6
    assert len(fake.asked("/tags/list")) == 3


def test_pages_lead_nowhere_else_and_in_no_circle(fake, other):
    fake.page_size = 2
    for link in (f"<{other.url}/v2/x>", f"<//{other.host}/v2/x>", "<http://[>"):
        fake.link = f'{link}; rel="next"'
        asking = Asking(fake, hosts=[other.host], credentials=Credentials("alice", "s3cret"))
        state, error = state_of(asking.tags)
        assert (state, other.requests) == ("unreachable", [])
        assert "not the registry's" in error.reason
    fake.link = '</v2/{repository}/tags/list?n=1000>; rel="next"'
    state, error = state_of(Asking(fake).tags)
    assert (state, error.reason) == ("unreachable", "the tag list leads in a circle")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"name":"x","tags":null}', []),
        (b'{"name":"x","tags":["b","a","b","a"]}', ["a", "b"]),
        (b'{"name":"x","tags":["a",7,null,"../x","ok"]}', ["a", "ok"]),
        (b'{"name":"x"}', None),
        (b'{"name":"x","tags":"abc"}', None),
        (b'{"name":"x","tags":7}', None),
        (b"[]", None),
        (b"<html>", None),
    ],
)
def test_tag_lists_of_every_shape(fake, body, expected):
    fake.fail("/tags/list", body=body)
    if expected is None:
        assert state_of(Asking(fake).tags)[0] == "unreachable"
    else:
        assert Asking(fake).tags() == expected


def test_tag_list_without_end_is_cut_off(fake):
    pages = iter(range(1000))

    class Endless(dict[str, str]):
        def __iter__(self):
            at = next(pages)
            return iter([f"t{at}-{n}" for n in range(5000)])

    fake.tags[REPOSITORY] = Endless()
    fake.page_size = 4000
    fake.link = '</v2/{repository}/tags/list?x={last}>; rel="next"'
    state, error = state_of(Asking(fake).tags)
    assert (state, "more than 100000 tags" in error.reason) == ("unreachable", True)


def test_unknown_repository_is_missing(fake):
    with pytest.raises(MissingError, match="NAME_UNKNOWN"):
        Asking(fake).registry.tags("acme/never")


# authentication


def test_basic_credentials_are_sent_when_asked_for(fake):
    fake.auth = "basic"
    asking = Asking(fake, credentials=Credentials("alice", "s3cret"))
    assert asking.manifest().digest == NEW
    assert asking.blob() == LAYER_SIZE
    assert [("authorization" in sent) for _, _, sent in fake.requests] == [False, True, True]


@pytest.mark.parametrize("credentials", [None, Credentials("alice", "wrong")])
def test_refused_credentials_are_unreachable_never_missing(fake, credentials):
    fake.auth = "basic"
    asking = Asking(fake, credentials=credentials)
    for ask in (asking.manifest, asking.blob, asking.tags, asking.registry.ping):
        state, error = state_of(ask)
        assert (state, "401" in error.reason) == ("unreachable", True)
    assert asking.slept == []


def test_token_is_fetched_once_and_again_when_it_ends(fake):
    fake.auth = "bearer"
    asking = Asking(fake, credentials=Credentials("alice", "s3cret"))
    assert asking.manifest().digest == NEW
    assert asking.blob() == LAYER_SIZE
    assert len(fake.asked("/token")) == 1
    fake.valid_tokens.clear()  # revoked before its time
    assert asking.manifest().digest == NEW
    assert len(fake.asked("/token")) == 2
    _, path, sent = fake.asked("/token")[0]
    assert "scope=repository%3Aacme%2Frf-model-audit%3Apull" in path
    assert sent["authorization"].startswith("Basic ")


def test_token_that_is_short_lived_is_renewed_and_an_anonymous_one_is_asked_without_a_password(fake):
    fake.auth, fake.token = "bearer", {"expires_in": 1}
    asking = Asking(fake)
    asking.manifest()
    asking.registry._tokens = {scope: (header, 0.0) for scope, (header, _) in asking.registry._tokens.items()}
    asking.manifest()
    assert [("authorization" in sent) for _, _, sent in fake.asked("/token")] == [False, False]


@pytest.mark.parametrize(
    "token",
    [
        {"token": None},
        {"token": "a\nb"},
        {"token": "é"},
        {"token": "x" * 20_000},
        {"token": 7},
        {"token": ""},
    ],
)
def test_token_that_cannot_be_sent_is_none(fake, token):
    fake.auth, fake.token = "bearer", token
    assert state_of(Asking(fake).manifest)[0] == "unreachable"


@pytest.mark.parametrize("life", [0, -1, None, "x", True, 1e308, float("inf"), float("nan"), 10**400])
def test_life_of_a_token_may_be_anything(fake, life):
    fake.auth = "bearer"
    fake.fail("/token", body=b'{"token":"t","expires_in":%s}' % json.dumps(life).encode(), status=200)
    fake.valid_tokens.add("t")
    assert Asking(fake).manifest().digest == NEW


@pytest.mark.parametrize("realm", ["{other}/token", "http://[", "", "ftp://x/token", "relative"])
def test_password_goes_to_no_realm_that_is_not_configured(fake, other, realm):
    fake.auth, fake.realm = "bearer", realm.format(other=other.url) or " "
    state, error = state_of(Asking(fake, credentials=Credentials("alice", "s3cret")).manifest)
    assert (state, other.requests) == ("unreachable", [])
    assert "not a configured host" in error.reason


def test_realm_on_a_configured_host_is_asked(fake, other):
    fake.auth, fake.realm = "bearer", f"{other.url}/token"
    other.valid_tokens = fake.valid_tokens
    assert Asking(fake, hosts=[other.host]).manifest().digest == NEW


def test_token_server_in_trouble_is_waited_out_or_unreachable(fake):
    fake.auth = "bearer"
    fake.fail("/token", status=429, headers={"Retry-After": "3"}, times=1)
    asking = Asking(fake)
    assert asking.manifest().digest == NEW
    assert asking.slept == [3.0]
    fake.valid_tokens.clear()
    fake.fail("/token", status=401)
    assert state_of(asking.manifest)[0] == "unreachable"


def test_redirected_blob_is_fetched_without_our_credentials(fake, other):
    fake.auth = "basic"
    asking = Asking(fake, hosts=[other.host], credentials=Credentials("alice", "s3cret"))
    asking.manifest()
    fake.fail("/blobs/", status=307, headers={"Location": f"{other.url}/v2/{REPOSITORY}/blobs/{LAYER}"})
    assert asking.blob() == LAYER_SIZE
    assert "authorization" not in other.requests[0][2]


def test_many_threads_share_a_client(fake):
    import threading

    fake.auth = "bearer"
    asking = Asking(fake, credentials=Credentials("alice", "s3cret"), whole_s=60.0, small_s=60.0, read_s=20.0)
    faults: list[Exception] = []

    def work():
        try:
            for _ in range(5):
                asking.manifest()
                asking.blob()
                asking.registry.manifest("acme/old", "v0")
        except Exception as error:  # noqa: BLE001 -- whatever a thread meets must reach the assertion
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []


def test_errors_of_every_kind_are_connector_errors():
    assert {error.state for error in (UnreachableError, MissingError, MismatchError, TruncatedError)} == {
        "unreachable", "missing", "mismatch", "truncated",
    }  # fmt: skip
    assert FakeRegistry().url == "http://127.0.0.1:0"
