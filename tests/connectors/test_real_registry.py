"""The client against CNCF Distribution itself, with its storage damaged on disk."""

from __future__ import annotations

import pytest

from auditportal.connectors import modelkit
from auditportal.connectors.errors import ConnectorError
from auditportal.connectors.http import Client
from auditportal.connectors.oci import Credentials, Registry
from tests.registries import running

pytestmark = pytest.mark.registry
REPOSITORY = "acme/rf-model-audit"
LAYER = "sha256:f5dbe18a4b20a9d284440130141e541b66258ad2c0d685b834a943e6b50becee"
SIZE = 10_240


@pytest.fixture(params=[False, True], ids=["no cache", "cache"])
def real(request, tmp_path):
    with running(tmp_path / "registry", cache=request.param) as real:
        real.push_kits()
        yield real


def asking(real, credentials=None):
    return Registry(Client(real.url, read_s=5.0, whole_s=10.0, small_s=10.0), credentials, sleep=lambda _: None)


def blob_state(real):
    try:
        asking(real).hash_blob(REPOSITORY, LAYER, size=SIZE)
    except ConnectorError as error:
        return error.state
    return "checked"


def manifest_state(real, reference):
    try:
        found = asking(real).manifest(REPOSITORY, reference)
        found.value()
    except ConnectorError as error:
        return error.state
    return found.digest


def test_every_kit_is_checked(real):
    registry = asking(real)
    registry.ping()
    assert registry.tags(REPOSITORY) == ["0.1.0", "0.2.0", "latest"]
    for repository, tag in ((REPOSITORY, "0.1.0"), (REPOSITORY, "0.2.0"), ("acme/old", "v0"), ("acme/mp", "v1")):
        manifest = registry.manifest(repository, tag)
        for digest, size in modelkit.blobs_of(manifest.value()).items():
            assert registry.hash_blob(repository, digest, size=size) == size


@pytest.mark.parametrize(
    ("damage", "without_cache", "with_cache"),
    [
        (lambda path: path.write_bytes(b"y" * SIZE), "mismatch", "mismatch"),
        (lambda path: path.write_bytes(b"y" * 100), "mismatch", "truncated"),
        # With its cache the registry sends no more than it remembers, and that is the good beginning.
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), "mismatch", "checked"),
        # With its cache a missing blob looks like one that breaks off at once.
        (lambda path: path.unlink(), "missing", "truncated"),
    ],
    ids=["altered", "cut", "longer", "gone"],
)
def test_damaged_blob(real, damage, without_cache, with_cache):
    assert blob_state(real) == "checked"
    damage(real.data(LAYER))
    assert blob_state(real) == (with_cache if real.cache else without_cache)


def test_damaged_manifest(real):
    digest = manifest_state(real, "0.1.0")
    path = real.data(digest)
    good = path.read_bytes()
    path.write_bytes(good.replace(b"1.14.0", b"1.14.9"))
    assert manifest_state(real, digest) == "mismatch"
    assert manifest_state(real, "0.1.0") not in (digest, "mismatch")  # by tag it is simply another manifest
    path.write_bytes(good[:200])
    assert manifest_state(real, digest) == "unreachable"  # it answers 500, which says nothing about the object
    path.unlink()
    assert manifest_state(real, digest) == "missing"
    assert manifest_state(real, "0.1.0") == "missing"
    assert "0.1.0" in asking(real).tags(REPOSITORY)
    path.write_bytes(good)
    assert manifest_state(real, "0.1.0") == digest


def test_rewritten_tag_and_api_delete(real):
    old, new = manifest_state(real, "0.1.0"), manifest_state(real, "0.2.0")
    real.tag_link(REPOSITORY, "0.1.0").write_text(new)
    assert manifest_state(real, "0.1.0") == new
    real.delete_manifest(REPOSITORY, old)
    assert manifest_state(real, old) == "missing"
    assert blob_state(real) == "checked"  # blobs stay until garbage collection


def test_absent_things_are_missing(real):
    for ask in (
        lambda: asking(real).manifest(REPOSITORY, "never"),
        lambda: asking(real).manifest("acme/never", "v1"),
        lambda: asking(real).tags("acme/never"),
        lambda: asking(real).hash_blob(REPOSITORY, "sha256:" + "0" * 64, size=None),
        lambda: asking(real).hash_blob("acme/old", LAYER, size=None),
    ):
        with pytest.raises(ConnectorError) as raised:
            ask()
        assert raised.value.state == "missing"


def test_passwords(tmp_path):
    with running(tmp_path / "registry", htpasswd=True) as real:
        real.push("acme/old:v0")
        assert asking(real, Credentials("alice", "s3cret")).tags("acme/old") == ["v0"]
        for credentials in (None, Credentials("alice", "wrong")):
            with pytest.raises(ConnectorError) as raised:
                asking(real, credentials).tags("acme/old")
            assert raised.value.state == "unreachable"
