"""Stream maps and exports: nothing can be left out, added, swapped or moved."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from auditproof import exports, headers, merkle, streammap, streams
from auditproof.errors import CompletenessError, ProofError

KNOWN = json.loads((Path(__file__).parents[1] / "vectors" / "ledger-v1.json").read_text())
EXPORT = KNOWN["export"]
ORIGIN = KNOWN["origin"]


def state(n):
    return streammap.StreamState(n % 7 + 1, n + 10, hashlib.sha256(bytes([n % 256])).digest())


def stream(n):
    return hashlib.sha256(b"s%d" % n).digest()


def by_the_book(states, depth=0):
    """FORMAT.md §5, word for word: the reference the fast map is held against."""
    if not states:
        return bytes(32)
    if len(states) == 1:
        [(key, value)] = states.items()
        return streammap.leaf_hash(key, value)
    left = {key: value for key, value in states.items() if not streammap.bit(key, depth)}
    right = {key: value for key, value in states.items() if streammap.bit(key, depth)}
    return streammap.node_hash(by_the_book(left, depth + 1), by_the_book(right, depth + 1))


@pytest.mark.parametrize("count", [*range(12), 50, 200])
def test_map_is_the_books_and_proves_presence_and_absence(count):
    states = {stream(n): state(n) for n in range(count)}
    found = streammap.StreamMap(states)
    assert found.root() == by_the_book(states)
    assert len(found) == count
    for n in range(count + 20):
        key = stream(n)
        assert streammap.verify_map_proof(found.prove(key), stream=key, root=found.root()) == states.get(key)


def test_streams_that_share_255_bits_are_told_apart():
    low, high = bytes(31) + b"\x00", bytes(31) + b"\x01"
    found = streammap.StreamMap({low: state(1), high: state(2)})
    assert len(found.prove(low).siblings) == 256
    assert streammap.verify_map_proof(found.prove(high), stream=high, root=found.root()) == state(2)


@given(st.integers(2, 40), st.integers(0, 59), st.data())
@settings(max_examples=150)
def test_any_flipped_bit_of_a_map_proof_fails(count, wanted, data):
    found = streammap.StreamMap({stream(n): state(n) for n in range(count)})
    key, proof = stream(wanted), found.prove(stream(wanted))
    siblings = list(proof.siblings)
    choice = data.draw(st.integers(0, len(siblings)))
    at, bit = data.draw(st.integers(0, 31)), 1 << data.draw(st.integers(0, 7))
    flip = lambda raw: raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :]  # noqa: E731 -- a word for one act
    if choice < len(siblings):
        siblings[choice] = flip(siblings[choice])
        proof = dataclasses.replace(proof, siblings=tuple(siblings))
    elif proof.standing is None:
        return
    else:
        part = data.draw(st.sampled_from(["stream", "acc", "count", "last_seq"]))
        standing = proof.standing
        if part == "stream":
            standing = dataclasses.replace(standing, stream=flip(standing.stream))
        else:
            value = getattr(standing.state, part)
            changed = flip(value) if part == "acc" else value + 1
            standing = dataclasses.replace(standing, state=dataclasses.replace(standing.state, **{part: changed}))
        proof = dataclasses.replace(proof, standing=standing)
    with pytest.raises(CompletenessError, match="STREAM_MAP"):
        streammap.verify_map_proof(proof, stream=key, root=found.root())


def test_absence_cannot_be_faked_with_a_leaf_from_elsewhere():
    found = streammap.StreamMap({stream(n): state(n) for n in range(20)})
    for n in range(20):
        for other in range(20):
            proof = found.prove(stream(n))
            forged = dataclasses.replace(proof, standing=streammap.Standing(stream(other), state(other)))
            if other != n:
                with pytest.raises(CompletenessError):
                    streammap.verify_map_proof(forged, stream=stream(n), root=found.root())
    with pytest.raises(CompletenessError):
        streammap.verify_map_proof(streammap.MapProof((bytes(32),) * 257, None), stream=stream(0), root=bytes(32))


@pytest.mark.parametrize("wrong", [(0, 5), (7, 5), (1, 12), (3, 1)])
def test_state_that_no_map_of_that_size_can_hold_is_refused(wrong):
    with pytest.raises(CompletenessError, match="STREAM_MAP"):
        streammap.check_state(streammap.StreamState(wrong[0], wrong[1], bytes(32)), 12, "map")


# ---- the export of the known answers, and what an operator might do to it ----

LEAVES = [headers.leaf_hash(item["header"].encode()) for item in KNOWN["events"]]


def proof(item):
    standing = item["stands_there"]
    value = streammap.StreamState(standing["count"], standing["last_seq"], bytes.fromhex(standing["acc"]))
    return streammap.MapProof(
        tuple(bytes.fromhex(part) for part in item["siblings"]),
        streammap.Standing(bytes.fromhex(standing["stream_hash"]), value),
    )


def opened(values):
    return [
        exports.open_line(exports.parse_line(value, "line", extra=frozenset({"seq", "path"})), origin=ORIGIN)
        for value in values
    ]


def parts():
    control = exports.read_control(opened(EXPORT["support"]))
    return {
        "stream": EXPORT["stream"],
        "lines": opened(EXPORT["lines"]),
        "start": control.maps[EXPORT["a_seq"]],
        "start_proof": proof(EXPORT["proof_a"]),
        "end": control.maps[EXPORT["b_seq"]],
        "end_proof": proof(EXPORT["proof_b"]),
        "control": control,
    }


def plain(seq):
    item = KNOWN["events"][seq]
    return {"body": item["body"], "header": item["header"], "salt": item["salt"], "disclosures": []}


def test_honest_export_is_complete():
    found = exports.verify_export(**parts())
    assert (found.count, found.withheld) == (len(EXPORT["lines"]), 0)


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (lambda lines: lines[1:], "INCOMPLETE_STREAM"),
        (lambda lines: lines[:-1], "INCOMPLETE_STREAM"),
        (lambda _: [], "INCOMPLETE_STREAM"),
        (lambda lines: lines[::-1], "INCOMPLETE_STREAM"),
        (lambda lines: [lines[0], *lines], "INCOMPLETE_STREAM"),
        (lambda lines: [*lines, *opened([plain(10)])], "INCOMPLETE_STREAM"),
        (lambda lines: [*opened([plain(2)]), *lines], "INCOMPLETE_STREAM"),
    ],
)
def test_dropped_added_doubled_or_reordered_lines_are_named(lines, name):
    given = parts()
    with pytest.raises(CompletenessError) as caught:
        exports.verify_export(**(given | {"lines": lines(given["lines"])}))
    assert caught.value.name == name


def test_maps_swapped_missing_or_of_another_stream_are_named():
    given = parts()
    for change in (
        {
            "start": given["end"],
            "start_proof": given["end_proof"],
            "end": given["start"],
            "end_proof": given["start_proof"],
        },
        {"start_proof": None},
        {"start": exports.EMPTY_MAP},
        {"end_proof": given["start_proof"]},
        {"stream": "model:else"},
    ):
        with pytest.raises(CompletenessError) as caught:
            exports.verify_export(**(given | change))
        assert caught.value.name in {"STREAM_MAP", "INCOMPLETE_STREAM"}


def test_erasure_is_explained_or_named():
    given = parts()
    erased = next(line for line in given["lines"] if line.line.absent == "erased")
    other = dataclasses.replace(given["control"], erasures={})
    with pytest.raises(CompletenessError, match="UNEXPLAINED_ABSENCE"):
        exports.verify_export(**(given | {"control": other}))
    wrong = dataclasses.replace(given["control"], erasures={(erased.seq, "body"): (erased.line.by, "00" * 32)})
    with pytest.raises(CompletenessError, match="UNEXPLAINED_ABSENCE"):
        exports.verify_export(**(given | {"control": wrong}))
    present = opened([plain(erased.seq)])[0]
    lines = [present if line.seq == erased.seq else line for line in given["lines"]]
    with pytest.raises(CompletenessError, match="UNEXPLAINED_ABSENCE"):
        exports.verify_export(**(given | {"lines": lines}))


def test_replay_finds_the_map_that_lies():
    entries = [
        (item["header"].encode(), tuple(sorted(map(streams.stream_hash, item["stream_keys"]))))
        for item in KNOWN["events"]
    ]
    seqs = [seq for seq, item in enumerate(KNOWN["events"]) if "action:ledger.streams" in item["stream_keys"]]
    maps = opened([plain(seq) for seq in seqs])
    assert exports.replay_maps(entries, maps) == len(seqs) == 3
    body = maps[0].body
    lie = body | {"metadata": body["metadata"] | {"root": "00" * 32}}
    lying = [dataclasses.replace(maps[0], body=lie), *maps[1:]]
    unreadable = [dataclasses.replace(maps[0], body=None), *maps[1:]]
    for wrong in (lying, unreadable, maps[1:], []):
        with pytest.raises(CompletenessError, match="STREAM_MAP"):
            exports.replay_maps(entries, wrong)
    with pytest.raises(ProofError):
        exports.replay_maps(entries[1:], maps)


LINE = EXPORT["lines"][0]


@pytest.mark.parametrize(
    "wrong",
    [
        None, [], {}, {"header": "x"}, LINE | {"absent": "lost"}, LINE | {"by": -1}, LINE | {"by": "11"}, LINE | {"x": 1},
        {key: value for key, value in LINE.items() if key != "by"}, LINE | {"absent": "withheld"}, LINE | {"streams": "x"},
        LINE | {"streams": LINE["streams"][::-1]}, LINE | {"streams": ["zz" * 32]}, LINE | {"header": "é"},
        plain(1) | {"salt": "00"}, plain(1) | {"body": 5}, plain(1) | {"disclosures": {}}, plain(1) | {"disclosures": [{}]},
        plain(1) | {"body": "\ud800"}, plain(1) | {"salt": "0" * 31 + "G"},
    ],
)  # fmt: skip
def test_line_of_another_form_is_malformed(wrong):
    with pytest.raises(ProofError, match="MALFORMED"):
        exports.parse_line(wrong, "line")


def test_period_headers_prove_where_it_lies():
    first, last = (headers.parse_header(KNOWN["events"][seq]["header"].encode()) for seq in (2, 12))
    exports.check_period(
        before=first, after=last, since="2026-05-05T00:00:03.000000Z", until="2026-05-05T00:00:12.000000Z"
    )
    exports.check_period(before=None, after=last, since="2026-05-05T00:00:03.000000Z", until=None)
    with pytest.raises(CompletenessError):
        exports.check_period(before=first, after=last, since="2026-05-05T00:00:01.000000Z", until=None)
    with pytest.raises(CompletenessError):
        exports.check_period(
            before=None, after=last, since="2026-05-05T00:00:03.000000Z", until="2026-05-06T00:00:00.000000Z"
        )


def test_included_line_stands_at_its_own_index_only():
    [line] = opened([plain(9)])
    root = merkle.root(LEAVES)
    exports.check_inclusion(line, size=13, root=root, path=merkle.inclusion_path(LEAVES, 9))
    with pytest.raises(ProofError, match="INCLUSION"):
        exports.check_inclusion(line, size=13, root=root, path=merkle.inclusion_path(LEAVES, 8))
