from __future__ import annotations

import json

import pytest
from django.utils import timezone

from auditportal.ingest import secrets, sources
from auditportal.ingest.errors import SourceError
from auditportal.ingest.models import Source
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Entry
from tests.ingest.conftest import bodies

GIVEN = {"id": "registry", "kind": "oci", "url": "https://registry.test/", "actor": SYSTEM}


def register(**changes):
    return sources.register(**{**GIVEN, "now": timezone.now(), **changes})


def test_registering_is_an_event_that_holds_no_secret(db):
    source = register(
        hosts=["cdn.test:443", "cdn.test:443"], repositories=["acme/x"], username="robot", password="pa55", hook_secret="s3cret"
    )  # fmt: skip
    [body] = bodies(action="source.registered")
    assert body["metadata"] == {
        "kind": "oci",
        "url": "https://registry.test",
        "hosts": ["cdn.test:443"],
        "repositories": ["acme/x"],
        "is_active": True,
        "has_credentials": True,
        "has_hook_secret": True,
    }
    assert "pa55" not in json.dumps(body)
    row = json.dumps(
        list(Source.objects.values()),
        default=lambda value: bytes(value).hex() if not hasattr(value, "isoformat") else "",
    )
    assert b"pa55".hex() not in row
    assert "pa55" not in row
    assert secrets.open_sealed(source.password) == "pa55"


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""}, {"id": "auditportal"}, {"id": "Has Space"}, {"id": "x" * 101}, {"kind": "ftp"}, {"url": ""}, {"url": "ftp://x"},
        {"url": "https://"}, {"url": "https://a:b@x.test"}, {"url": "https://@x.test"}, {"url": "https://x.test/?q=1"}, {"url": "https://x.test/#a"},
        {"url": "http://["}, {"url": "https://x.test:99999"}, {"url": "https://x.test:0"}, {"url": "https://x.test/" + "a" * 300}, {"url": "https://x .test"},
        {"url": "https://\u0445.test"}, {"hosts": ["https://x.test"]}, {"hosts": ["x.test:"]}, {"hosts": [""]}, {"hosts": ["a b"]},
        {"repositories": ["UPPER"]}, {"repositories": ["a/../b"]}, {"repositories": ["a" * 256]}, {"username": "a"}, {"password": "a"},
        {"username": "a:b", "password": "c"}, {"username": "a", "password": "b\n"},
    ],
)  # fmt: skip
def test_source_that_cannot_be_is_refused_with_a_reason(db, change):
    before = Entry.objects.count()
    with pytest.raises(SourceError) as raised:
        register(**change)
    assert str(raised.value)
    assert (Source.objects.count(), Entry.objects.count()) == (0, before)


def test_name_is_given_once(db):
    register()
    with pytest.raises(SourceError, match="already"):
        register(url="https://else.test")
    assert Source.objects.get().url == "https://registry.test"


def test_switching_off_is_an_event_with_its_reason_and_twice_is_once(db):
    source = register()
    for _ in range(2):
        sources.set_active(source=source, is_active=False, reason="moves", actor=SYSTEM, now=timezone.now())
    [body] = bodies(action="source.changed")
    assert (body["reason"], body["metadata"]["is_active"]) == ("moves", False)


def test_moving_is_an_event_and_needs_an_address(db):
    source = register()
    sources.move(source=source, url="https://new.test/", reason="moved", actor=SYSTEM, now=timezone.now())
    assert bodies(action="source.changed")[0]["metadata"]["url"] == "https://new.test"
    with pytest.raises(SourceError):
        sources.move(source=source, url="nowhere", reason="x", actor=SYSTEM, now=timezone.now())


def test_clients_reach_their_hosts_and_carry_the_credentials_of_their_kind(db):
    registry = sources.registry(register(hosts=["CDN.test"], username="robot", password="pa55"))
    assert registry.credentials.password == "pa55"
    assert registry.client.headers == {}
    assert registry.client.may_reach("https://cdn.test/x")
    server = sources.mlflow(register(id="m", kind="mlflow", url="http://mlflow.test", username="a", password="b"))
    assert server.client.headers == {"Authorization": "Basic YTpi"}
    assert sources.registry(register(id="open")).credentials is None


def test_secrets_are_sealed_anew_each_time_and_need_the_portals_key(db, settings):
    sealed = secrets.seal("a")
    assert sealed != secrets.seal("a")
    assert sealed != b"a"
    assert (secrets.seal(""), secrets.open_sealed(b"")) == (b"", "")
    settings.SECRET_KEY = "another key of more than thirty-two characters"
    assert secrets.open_sealed(sealed) == ""
