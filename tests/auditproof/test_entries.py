"""Headers and bodies of the known answers: each single changed byte is caught, under its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from auditproof import canonical, events, headers, sealed, streams
from auditproof.errors import ChainError, HashMismatchError, MalformedError, ProofError

KNOWN = json.loads((Path(__file__).parents[1] / "vectors" / "ledger-v1.json").read_text())
ORIGIN = KNOWN["origin"]


def entry(seq):
    item = KNOWN["events"][seq]
    prev = bytes.fromhex(KNOWN["events"][seq - 1]["leaf_hash"]) if seq else headers.NO_PREV
    hashes = sorted(map(streams.stream_hash, item["stream_keys"]))
    return {
        "raw": item["header"].encode(),
        "seq": seq,
        "origin": ORIGIN,
        "leaf": bytes.fromhex(item["leaf_hash"]),
        "prev": prev,
        "salt": bytes.fromhex(item["salt"]),
        "body": item["body"].encode(),
        "stream_hashes": hashes,
    }


def check(given):
    given = dict(given)
    return headers.check_entry(given.pop("raw"), **given)


@pytest.mark.parametrize("seq", range(len(KNOWN["events"])))
@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("raw", {"LEAF_HASH", "MALFORMED"}),
        ("leaf", {"LEAF_HASH"}),
        ("prev", {"PREV_CHAIN"}),
        ("salt", {"BODY_COMMITMENT"}),
        ("body", {"BODY_COMMITMENT"}),
    ],
)
def test_every_single_changed_byte_is_caught_under_its_name(seq, part, names):
    given = entry(seq)
    check(given)
    for at in range(len(given[part])):
        changed = bytearray(given[part])
        changed[at] ^= 0x01
        with pytest.raises(ProofError) as caught:
            check(given | {part: bytes(changed)})
        assert caught.value.name in names, at


@pytest.mark.parametrize("seq", range(len(KNOWN["events"])))
def test_every_changed_stream_hash_is_caught(seq):
    given = entry(seq)
    for index, item in enumerate(given["stream_hashes"]):
        for change in ([], [bytes(32)], [item[:-1] + bytes([item[-1] ^ 1])]):
            hashes = sorted([*given["stream_hashes"][:index], *change, *given["stream_hashes"][index + 1 :]])
            with pytest.raises(HashMismatchError) as caught:
                check(given | {"stream_hashes": hashes})
            assert caught.value.name == "STREAMS_COMMITMENT"


@given(st.integers(0, len(KNOWN["events"]) - 1), st.data())
@settings(max_examples=300)
def test_any_changed_byte_of_a_header_alone_never_passes(seq, data):
    """Without the leaf: the header's own form, body, prev and streams must catch what they commit to."""
    given = entry(seq)
    raw = bytearray(given["raw"])
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255).filter(lambda value: value != raw[at]))
    start = bytes(given["raw"]).index(b'"t":"') + 5
    try:
        check(given | {"raw": bytes(raw), "leaf": None})
    except ProofError:
        return
    assert start <= at < start + 27  # only the time itself is covered by the leaf alone


@pytest.mark.parametrize(
    ("change", "error", "name"),
    [
        ({"seq": 3}, ChainError, "SEQ_GAP"),
        ({"origin": "else.example/log"}, ChainError, "ORIGIN"),
        ({"salt": bytes(15)}, MalformedError, "MALFORMED"),
    ],
)
def test_wrong_place_or_log_is_named(change, error, name):
    with pytest.raises(error) as caught:
        check(entry(2) | change)
    assert caught.value.name == name


HEADER = entry(1)["raw"].decode()


@pytest.mark.parametrize(
    "wrong",
    [
        HEADER + "\n", " " + HEADER, HEADER.replace('"seq":1', '"seq":01'), HEADER.replace('"seq":1', '"seq":-1'),
        HEADER.replace('"seq":1', '"seq":' + "9" * 30), HEADER.replace('"v":1', '"v":2'),
        HEADER.replace("T00:00:", "T00:60:"), HEADER.replace("Z", "+"),
        HEADER.replace("audit.example.org", "../x"), HEADER.replace("audit.example.org", ".."), HEADER.replace("ledger", "Ledger"),
        HEADER.replace('{"body"', '{ "body"'), HEADER.replace(",", ", "), HEADER.upper(), "", "{}", "é" + HEADER,
        HEADER.replace("2026-05-05", "2026-02-30"), HEADER.replace("2026-05-05T00", "2026-05-05T24"),
    ],
)  # fmt: skip
def test_header_of_another_form_is_malformed(wrong):
    assert wrong != HEADER
    with pytest.raises(MalformedError):
        headers.parse_header(wrong.encode())


@given(st.binary(max_size=80))
def test_any_bytes_are_a_header_or_a_named_error(raw):
    with pytest.raises(ProofError):
        headers.parse_header(raw)


BODY = json.loads(KNOWN["events"][1]["body"])
BODY.pop("metadata")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"v": 2}, "/v"), ({"v": True}, "/v"), ({"v": 1.5}, "/v"),
        ({"event_id": BODY["event_id"].upper()}, "/event_id"), ({"event_id": "evt-1"}, "/event_id"), ({"event_id": None}, "/event_id"),
        ({"action": "Train"}, "/action"), ({"action": ""}, "/action"), ({"action": "1x"}, "/action"),
        ({"action": "ledger.key"}, "/action"),
        ({"outcome": "ok"}, "/outcome"), ({"outcome": ["done"]}, "/outcome"),
        ({"actor": "x"}, "/actor"), ({"actor": {"type": "user", "id": "alice", "assurance": "claimed"}}, "/actor/id"),
        ({"actor": {"type": "system", "id": "x", "assurance": "verified"}}, "/actor/id"),
        ({"actor": {"type": "robot", "id": "system", "assurance": "verified"}}, "/actor/type"),
        ({"actor": {"type": "system", "id": "system", "assurance": "sure"}}, "/actor/assurance"),
        ({"actor": {"type": "system", "id": "system"}}, "/actor/assurance"),
        ({"actor": {"type": "system", "id": "system", "assurance": "verified", "name": "x"}}, "/actor/name"),
        ({"timestamp": "2026-05-05T00:00:01Z"}, "/timestamp"), ({"timestamp": "2026-05-05T00:00:60.000000Z"}, "/timestamp"),
        ({"timestamp": "2026-05-05T00:00:01.000000+00:00"}, "/timestamp"), ({"timestamp": "2026-02-30T00:00:01.000000Z"}, "/timestamp"),
        ({"timestamp": "0000-01-01T00:00:00.000000Z"}, "/timestamp"), ({"timestamp": 5}, "/timestamp"),
        ({"timestamp_kind": "guessed"}, "/timestamp_kind"), ({"not_before": "x"}, "/not_before"),
        ({"subject": {"type": "run", "id": ""}}, "/subject/id"), ({"subject": {"type": "run", "id": "a\x07"}}, "/subject/id"),
        ({"subject": {"type": "run", "id": "x" * 513}}, "/subject/id"), ({"subject": {"type": "R", "id": "x"}}, "/subject/type"),
        ({"subject": {"type": "model_version", "id": "churn"}}, "/subject/id"), ({"subject": {"type": "run"}}, "/subject/id"),
        ({"related": {}}, "/related"), ({"related": [{"type": "run", "id": str(n)} for n in range(101)]}, "/related"),
        ({"related": [{"type": "run", "id": "b"}, {"type": "run", "id": "a"}]}, "/related/1"),
        ({"related": [{"type": "run", "id": "a"}, {"type": "run", "id": "a"}]}, "/related/1"),
        ({"related": [{"type": "run", "id": "a", "relation": ""}]}, "/related/0/relation"),
        ({"models": ["churn", "churn"]}, "/models/1"), ({"models": ["z", "churn"]}, "/models/1"), ({"models": "churn"}, "/models"),
        ({"models": [1]}, "/models/0"), ({"models": []}, "/models"),
        ({"environment": ""}, "/environment"), ({"reason": 5}, "/reason"), ({"reason": {"$sealed": "x"}}, "/reason"),
        ({"metadata": []}, "/metadata"), ({"integrity": {"x": 1}}, "/integrity/x"), ({"integrity": {"artifact_sha256": "AB"}}, "/integrity/artifact_sha256"),
        ({"source": {"id": ""}}, "/source/id"), ({"source": {"id": "x", "seq": -1}}, "/source/seq"), ({"source": {"id": "x", "seq": 1.5}}, "/source/seq"),
        ({"source": {"id": "x", "seq": True}}, "/source/seq"), ({"source": {"id": "x", "raw": "00"}}, "/source/raw"), ({"source": {"id": "x", "x": 1}}, "/source/x"),
        ({"extra": 1}, "/extra"),
    ],
)  # fmt: skip
def test_each_rule_of_a_body_is_kept_under_the_members_place(change, place):
    events.check_body(BODY)
    with pytest.raises(ProofError) as caught:
        events.check_body(BODY | change)
    assert caught.value.place == place


@pytest.mark.parametrize("name", sorted(BODY))
def test_missing_member_is_named(name):
    body = {key: value for key, value in BODY.items() if key != name}
    if name in ("integrity", "not_before", "environment", "reason"):
        events.check_body(body)
        return
    with pytest.raises(ProofError) as caught:
        events.check_body(body)
    assert caught.value.place == f"/{name}"


@pytest.mark.parametrize(
    "raw", [b" {}", b"{}", b"[]", b"null", KNOWN["events"][1]["body"].encode() + b" ", b'{"v":1.0}']
)
def test_body_that_is_not_its_own_canonical_form_is_malformed(raw):
    with pytest.raises(MalformedError):
        events.parse_body(raw)


def test_disclosures_open_only_what_was_sealed_there():
    item = KNOWN["events"][1]
    body = json.loads(item["body"])
    [opening] = item["sealed"]
    given = {
        "pointer": opening["pointer"],
        "salt": bytes.fromhex(opening["salt"]),
        "value": opening["value"].encode(),
        "place": "seq 1",
    }
    assert sealed.check_disclosure(body, **given) == json.loads(opening["value"])
    for change in (
        {"salt": bytes(16)}, {"value": b'"x"'}, {"pointer": "/metadata"}, {"pointer": "/action"}, {"pointer": "/metadata/none"},
        {"pointer": "x"}, {"pointer": ""}, {"salt": given["salt"][:-1]},
    ):  # fmt: skip
        with pytest.raises(ProofError) as caught:
            sealed.check_disclosure(body, **(given | change))
        assert caught.value.name == "DISCLOSURE" or change.get("pointer") == "x"


def test_stream_keys_separate_without_doubt():
    body = BODY | {"subject": {"type": "model_version", "id": "a|b:1"}, "models": ["a|b"], "related": []}
    assert "model:a%7Cb" in streams.stream_keys(body)
    assert streams.escape("é /@:~|") == "%C3%A9%20/@:~%7C"


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=8, unique=True))
def test_listed_hashes_read_back(hashes):
    raw = streams.encode_hashes(hashes)
    assert streams.decode_hashes(raw + b"rest") == (sorted(hashes), b"rest")
    for wrong in (raw[:-1], b"", b"\x00"):
        if wrong != raw:
            with pytest.raises(MalformedError):
                streams.decode_hashes(wrong if hashes else b"\x00")


def test_event_ids_of_native_keys_differ_by_source_and_by_part():
    assert events.event_id_of("a", ["b", "c"]) != events.event_id_of("a", ["bc"])
    assert events.event_id_of("a", ["b"]) != events.event_id_of("b", ["b"])
    assert canonical.encode(["x"]) == b'["x"]'
