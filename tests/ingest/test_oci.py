"""Notifications of a registry told apart: each recorded one, and bodies that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from auditportal.connectors.http import USER_AGENT
from auditportal.ingest import oci
from auditportal.ingest.errors import NotUnderstoodError
from auditportal.ingest.oci import Meaning
from tests.ingest.conftest import notification

SAMPLES = Path(__file__).parents[1] / "samples" / "oci" / "notifications"
RECORDED = {
    "01-push-blob-config": "nothing", "02-push-blob-layer": "nothing", "03-push-manifest-tag-0.1.0": "push",
    "04-pull-blob-by-head": "nothing", "05-push-manifest-tag-0.2.0": "push", "06-push-tag-latest-to-0.1.0": "push",
    "07-push-tag-latest-moved-to-0.2.0": "push", "08-pull-manifest-get": "pull", "09-pull-manifest-by-head": "nothing",
    "10-pull-blob-get": "nothing", "11-mount-blob-from-other-repository": "nothing", "12-delete-blob": "delete",
    "13-delete-manifest-part-1-digest": "delete", "14-delete-manifest-part-2-tag": "delete",
    "15-pull-head-by-digest-manifest-restored": "nothing", "16-pull-altered-manifest-by-tag": "pull",
    "17-pull-altered-manifest-by-digest": "pull", "18-push-manifest-with-actor-no-references": "push",
    "19-pull-head-after-tag-link-rewritten-on-disk": "nothing", "20-pull-by-skopeo": "pull",
    "21-push-cosign-legacy-sig-tag": "nothing", "22-push-cosign-legacy-att-tag": "nothing",
    "23-push-referrer-bundle-by-digest": "nothing", "24-push-referrers-fallback-index": "nothing",
    "25-push-manifest-old-kit": "push",
}  # fmt: skip


def test_every_recorded_notification_has_its_meaning():
    found = {path.stem: oci.read(path.read_bytes()) for path in sorted(SAMPLES.glob("[0-9]*.json"))}
    assert {name: str(item.meaning) for name, [item] in found.items()} == RECORDED
    assert all(bool(item.why) == (item.meaning == Meaning.NOTHING) for [item] in found.values())


def test_members_of_a_push():
    [item] = oci.read((SAMPLES / "18-push-manifest-with-actor-no-references.json").read_bytes())
    assert (item.repository, item.tag, item.actor) == ("team/x", "v1", "alice")
    assert item.timestamp.endswith("Z")
    assert len(item.timestamp) == len("2026-11-22T04:25:03.864714Z")


def test_fraction_is_cut_and_never_rounded():
    [item] = oci.read(notification(timestamp="2026-11-22T04:25:03.999999999Z"))
    assert item.timestamp == "2026-11-22T04:25:03.999999Z"
    [item] = oci.read(notification(timestamp="2026-11-22T04:25:03+02:00"))
    assert item.timestamp == "2026-11-22T02:25:03.000000Z"


def test_both_parts_of_a_delete_share_their_act():
    parts = [oci.read(path.read_bytes())[0] for path in sorted(SAMPLES.glob("1[34]-*.json"))]
    assert parts[0].request_id == parts[1].request_id
    assert (parts[0].tag, parts[1].digest) == ("", "")


@pytest.mark.parametrize(
    ("action", "actor", "own_account", "meaning"),
    [
        ("pull", {}, "", "nothing"),
        ("pull", {"name": "portal"}, "portal", "nothing"),
        ("pull", {"name": "alice"}, "portal", "pull"),
        ("pull", {"name": "alice"}, "", "pull"),
        ("push", {}, "", "push"),
        ("delete", {}, "", "delete"),
    ],
)
def test_our_user_agent_hides_our_own_pulls_and_nothing_else(action, actor, own_account, meaning):
    raw = notification(action=action, actor=actor, request={"method": "GET", "useragent": USER_AGENT})
    [item] = oci.read(raw, own_account=own_account)
    assert item.meaning == meaning


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b"7", b"null", b"<html>", b"\xff\xfe", b"[" * 100_000, b'{"events":[]}', b'{"events":7}', b'{"events":[7]}',
        b'{"events":[{}]}', b'{"events":[{"target":{}}]}', json.dumps({"events": [{}] * 1001}).encode(),
        notification(id=""), notification(id=7), notification(id=None), notification(timestamp="yesterday"), notification(timestamp=7),
        notification(timestamp="2026-13-22T04:25:03Z"), notification(timestamp="2026-11-22T04:25:03"), notification(timestamp="0001-01-01T00:00:00+14:00"),
        notification(target={"repository": "../etc"}), notification(target={"repository": "a" * 300}), notification(target={"repository": None}),
        notification(target={"digest": "sha256:x"}), notification(target={"tag": "a b"}), notification(target={"tag": "x" * 129}),
    ],
)  # fmt: skip
def test_body_that_is_no_notification(raw):
    with pytest.raises(NotUnderstoodError):
        oci.read(raw)


@pytest.mark.parametrize(
    "raw",
    [
        notification(actor=7),
        notification(actor={"name": 7}),
        notification(actor=None),
        notification(request={"useragent": 7, "id": None}),
        notification(unknown={"x": [1]}, target={"references": [{}] * 5000}),
    ],
)
def test_members_of_other_shapes_are_left_out(raw):
    [item] = oci.read(raw)
    assert (item.meaning, item.actor) == (Meaning.PUSH, "")


def test_odd_actions_change_nothing():
    for action in ("restart", None, 7, "\u202e"):
        assert oci.read(notification(action=action))[0].meaning == Meaning.NOTHING
