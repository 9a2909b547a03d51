"""Known answers: checks a file of the shape of `ledger-v1.json` against this package, member by member.

The file was made by an independent program, so agreement says that two implementations read the format the same way.
Every member is checked; one that this module does not know is a failure, as is a section without anything in it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import (
    approvals,
    batches,
    canonical,
    checkpoints,
    cosignatures,
    events,
    exports,
    headers,
    keys,
    merkle,
    notes,
    receipts,
    sealed,
    streammap,
    streams,
)
from .errors import ProofError, show

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_FILE_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Failure:
    """One answer that differs."""

    place: str
    expected: str
    found: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.place}: expected {self.expected}, found {self.found}"


class _DisagreementError(Exception):
    def __init__(self, place: str, expected: object, found: object) -> None:
        super().__init__(place)
        self.failure = Failure(place, show(expected), show(found))


@dataclass(slots=True)
class _File:
    """The file's members, and what the sections share."""

    value: dict[str, Any]

    @property
    def origin(self) -> str:
        return str(self.value["origin"])

    @property
    def log_keys(self) -> list[notes.VerifierKey]:
        return [notes.VerifierKey.parse(vkey) for vkey in self.value["keys"]["log"]]

    @property
    def leaves(self) -> list[bytes]:
        return [headers.leaf_hash(item["header"].encode()) for item in self.value["events"]]

    def first(self, size: int) -> list[bytes]:
        """The leaves of the tree of this size; a size beyond the events is a disagreement."""
        leaves = self.leaves
        _same("events, count for a size", min(size, len(leaves)), size)
        return leaves[:size]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [events.parse_body(item["body"].encode()) for item in self.value["events"]]


def check_file(raw: bytes) -> list[Failure]:
    """Every answer of the file that differs from ours; an empty list when all agree. Never raises."""
    try:
        value = canonical.admit(raw, max_bytes=MAX_FILE_BYTES, max_depth=MAX_FILE_DEPTH, sealed="allowed")
    except ProofError as error:
        return [Failure(error.place or "file", error.expected, error.found)]
    if not isinstance(value, dict):
        return [Failure("file", "an object", show(value))]
    failures = [
        Failure(name, "a section this version knows", "another") for name in sorted(value.keys() - SECTIONS.keys())
    ]
    for name, check in SECTIONS.items():
        failures += _section(name, check, value)
    return failures


def _section(name: str, check: Callable[[_File], Iterator[None]], value: dict[str, Any]) -> list[Failure]:
    """The first failure of a section. Its checks are steps of a generator, each of which raises when it disagrees."""
    if not value.get(name):
        return [Failure(name, "a section with something in it", "nothing")]
    try:
        steps = sum(1 for _ in check(_File(value)))
    except _DisagreementError as error:
        return [error.failure]
    except ProofError as error:
        return [Failure(f"{name}, {error.place}", error.expected, f"{error.found} ({error.name})")]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        # The file is outside input of any shape; a known-answer check must say so, not fall over it.
        return [Failure(name, "the shape of the known-answer file", f"{type(error).__name__}: {show(str(error))}")]
    return [] if steps else [Failure(name, "at least one answer", "none")]


def _same(place: str, expected: object, found: object) -> None:
    if type(expected) is not type(found) or expected != found:
        raise _DisagreementError(place, expected, found)


def _members(place: str, value: Mapping[str, Any], *names: str) -> None:
    _same(f"{place}, members", ", ".join(sorted(names)), ", ".join(sorted(value)))


def _hashes(values: list[str]) -> list[bytes]:
    return [bytes.fromhex(item) for item in values]


def _origin(file: _File) -> Iterator[None]:
    _same("origin", file.origin, headers.check_origin_name(file.origin))
    yield


def _keys(file: _File) -> Iterator[None]:
    _members("keys", file.value["keys"], "log", "witness")
    for index, text in enumerate(file.value["keys"]["log"]):
        key = notes.VerifierKey.parse(text)
        _same(f"keys/log/{index}", file.origin, key.name)
        _same(f"keys/log/{index}", text, key.text)
        yield
    witness = notes.VerifierKey.parse(file.value["keys"]["witness"])
    _same("keys/witness", int(notes.KeyType.COSIGNATURE), int(witness.type))
    yield


def _events(file: _File) -> Iterator[None]:
    prev = headers.NO_PREV
    for seq, item in enumerate(file.value["events"]):
        place = f"events/{seq}"
        _members(place, item, "stream_keys", "body", "salt", "header", "leaf_hash", "sealed")
        raw, body, salt = item["header"].encode(), item["body"].encode(), bytes.fromhex(item["salt"])
        value = events.parse_body(body)
        found_keys = streams.stream_keys(value)
        _same(f"{place}/stream_keys", item["stream_keys"], found_keys)
        hashes = sorted(map(streams.stream_hash, found_keys))
        leaf = bytes.fromhex(item["leaf_hash"])
        header, _ = headers.check_entry(
            raw, seq=seq, origin=file.origin, leaf=leaf, prev=prev, salt=salt, body=body, stream_hashes=hashes
        )
        made = headers.make_header(
            body=events.body_commitment(salt, body),
            event_id=value["event_id"],
            origin=file.origin,
            prev=prev,
            seq=seq,
            streams=streams.streams_commitment(hashes),
            t=header.t,
        )
        _same(f"{place}/header", item["header"], made.decode())
        for opening in item["sealed"]:
            _members(f"{place}/sealed", opening, "pointer", "salt", "value")
            sealed.check_disclosure(
                value,
                pointer=opening["pointer"],
                salt=bytes.fromhex(opening["salt"]),
                value=opening["value"].encode(),
                place=place,
            )
        prev = leaf
        yield


def _roots(file: _File) -> Iterator[None]:
    for size, expected in file.value["roots"].items():
        _same(f"roots/{size}", expected, merkle.root(file.first(int(size))).hex())
        yield


def _checkpoints(file: _File) -> Iterator[None]:
    ranges: list[keys.KeyRange] = []
    for seq, body in enumerate(file.bodies):
        ranges = keys.apply(ranges, seq=seq, body=body)
    for size, note in file.value["checkpoints"].items():
        checkpoint = keys.open_ranged(note, origin=file.origin, ranges=ranges)
        _same(f"checkpoints/{size}", int(size), checkpoint.size)
        _same(f"checkpoints/{size}", checkpoint.text(), notes.parse_note(note).text)
        _same(f"checkpoints/{size}, root", merkle.root(file.first(int(size))).hex(), checkpoint.root.hex())
        yield


def _cosigned(file: _File) -> Iterator[None]:
    _members("cosigned", file.value["cosigned"], "timestamp", "note")
    note = file.value["cosigned"]["note"]
    witness = notes.VerifierKey.parse(file.value["keys"]["witness"])
    _same("cosigned/timestamp", file.value["cosigned"]["timestamp"], cosignatures.verify_cosignature(note, witness))
    yield
    checkpoint = checkpoints.open_checkpoint(note, origin=file.origin, keys=file.log_keys)
    _same("cosigned/note", merkle.root(file.first(checkpoint.size)).hex(), checkpoint.root.hex())
    yield


def _inclusion(file: _File) -> Iterator[None]:
    for at, item in enumerate(file.value["inclusion"]):
        _members(f"inclusion/{at}", item, "index", "size", "path")
        index, size, path = item["index"], item["size"], _hashes(item["path"])
        leaves = file.first(size)
        _same(f"inclusion/{at}/path", item["path"], [part.hex() for part in merkle.inclusion_path(leaves, index)])
        merkle.verify_inclusion(leaf=leaves[index], index=index, size=size, path=path, root=merkle.root(leaves))
        yield


def _consistency(file: _File) -> Iterator[None]:
    for at, item in enumerate(file.value["consistency"]):
        _members(f"consistency/{at}", item, "from", "to", "path")
        old, new, path = item["from"], item["to"], _hashes(item["path"])
        leaves = file.first(new)
        _same(f"consistency/{at}/path", item["path"], [part.hex() for part in merkle.consistency_path(leaves, old)])
        merkle.verify_consistency(
            old_size=old, new_size=new, old_root=merkle.root(leaves[:old]), new_root=merkle.root(leaves), path=path
        )
        yield


def _map_proof(item: Mapping[str, Any], place: str) -> streammap.MapProof:
    _members(place, item, "size", "stream", "stream_hash", "siblings", "stands_there", "root")
    standing = item["stands_there"]
    if standing is None:
        return streammap.MapProof(tuple(_hashes(item["siblings"])), None)
    _members(f"{place}/stands_there", standing, "stream_hash", "count", "last_seq", "acc")
    state = streammap.StreamState(standing["count"], standing["last_seq"], bytes.fromhex(standing["acc"]))
    return streammap.MapProof(
        tuple(_hashes(item["siblings"])), streammap.Standing(bytes.fromhex(standing["stream_hash"]), state)
    )


def _states(file: _File, size: int) -> dict[bytes, streammap.StreamState]:
    states: dict[bytes, streammap.StreamState] = {}
    for seq, body in enumerate(file.bodies[:size]):
        hashes = [streams.stream_hash(key) for key in streams.stream_keys(body)]
        streammap.replay(states, seq=seq, leaf=file.leaves[seq], streams=hashes)
    return states


def _check_map(file: _File, item: Mapping[str, Any], place: str) -> None:
    proof = _map_proof(item, place)
    stream = streams.stream_hash(item["stream"])
    _same(f"{place}/stream_hash", item["stream_hash"], stream.hex())
    states = _states(file, item["size"])
    tree = streammap.StreamMap(states)
    _same(f"{place}/root", item["root"], tree.root().hex())
    _same(f"{place}, proof", str(tree.prove(stream)), str(proof))
    found = streammap.verify_map_proof(proof, stream=stream, root=bytes.fromhex(item["root"]), place=place)
    _same(f"{place}, state", str(states.get(stream)), str(found))


def _stream_map(file: _File) -> Iterator[None]:
    for at, item in enumerate(file.value["stream_map"]):
        _check_map(file, item, f"stream_map/{at}")
        yield


def _receipt(file: _File) -> Iterator[None]:
    item = file.value["receipt"]
    _members("receipt", item, "index", "text")
    parsed = receipts.parse_receipt(item["text"])
    _same("receipt/index", item["index"], parsed.index)
    made = receipts.format_receipt(index=parsed.index, path=parsed.path, checkpoint=parsed.checkpoint)
    _same("receipt/text", item["text"], made)
    receipts.verify_receipt(item["text"], leaf=file.leaves[parsed.index], origin=file.origin, keys=file.log_keys)
    yield


def _export(file: _File) -> Iterator[None]:
    item = file.value["export"]
    _members(
        "export",
        item,
        "stream",
        "a",
        "b",
        "a_seq",
        "b_seq",
        "proof_a",
        "proof_b",
        "lines",
        "support",
        "inclusion",
        "size",
    )
    root, size = merkle.root(file.first(item["size"])), item["size"]
    support = _opened_support(file, item["support"], size=size, root=root)
    control = exports.read_control(support)
    start, end = control.maps[item["a_seq"]], control.maps[item["b_seq"]]
    _same("export/a", item["a"], start.size)
    _same("export/b", item["b"], end.size)
    opened = [
        exports.open_line(exports.parse_line(line, f"export/lines/{at}"), origin=file.origin)
        for at, line in enumerate(item["lines"])
    ]
    for at, (line, proof) in enumerate(zip(opened, item["inclusion"], strict=True)):
        _members(f"export/inclusion/{at}", proof, "index", "path")
        _same(f"export/inclusion/{at}/index", line.seq, proof["index"])
        exports.check_inclusion(line, size=size, root=root, path=_hashes(proof["path"]))
    for name in ("proof_a", "proof_b"):
        _same(f"export/{name}/stream", item["stream"], item[name]["stream"])
        _check_map(file, item[name], f"export/{name}")
    found = exports.verify_export(
        stream=item["stream"],
        lines=opened,
        start=start,
        start_proof=_map_proof(item["proof_a"], "export/proof_a"),
        end=end,
        end_proof=_map_proof(item["proof_b"], "export/proof_b"),
        control=control,
    )
    _same("export/lines", len(item["lines"]), found.count)
    yield


def _opened_support(file: _File, values: list[Any], *, size: int, root: bytes) -> list[exports.Opened]:
    support = []
    for at, value in enumerate(values):
        line = exports.parse_line(value, f"export/support/{at}", extra=frozenset({"seq", "path"}))
        item = exports.open_line(line, origin=file.origin)
        _same(f"export/support/{at}/seq", value["seq"], item.seq)
        exports.check_inclusion(item, size=size, root=root, path=_hashes(value["path"]))
        support.append(item)
    return support


def _batch(file: _File) -> Iterator[None]:
    item = file.value["batch"]
    _members("batch", item, "seq", "records")
    body = file.bodies[item["seq"]]
    for index, record in enumerate(item["records"]):
        place = f"batch/records/{index}"
        _members(place, record, "record", "salt", "leaf", "path")
        salt, raw = bytes.fromhex(record["salt"]), record["record"].encode()
        _same(f"{place}/leaf", record["leaf"], batches.record_leaf(salt, raw).hex())
        batches.verify_record(body, index=index, salt=salt, record=raw, path=_hashes(record["path"]))
        yield
    _same("batch/records", body["metadata"]["count"], len(item["records"]))


def _ids(file: _File) -> Iterator[None]:
    for at, item in enumerate(file.value["ids"]):
        _members(f"ids/{at}", item, "source", "key", "event_id")
        _same(f"ids/{at}/event_id", item["event_id"], events.event_id_of(item["source"], item["key"]))
        yield


def _raw(file: _File) -> Iterator[None]:
    item = file.value["raw"]
    _members("raw", item, "bytes", "salt", "hash")
    _same("raw/hash", item["hash"], events.raw_commitment(bytes.fromhex(item["salt"]), item["bytes"].encode()).hex())
    yield


def _sent(file: _File) -> Iterator[None]:
    item = file.value["sent"]
    _members("sent", item, "source", "bytes", "salt", "hash", "event_sha256", "signed", "signature", "public_key")
    sent, signature = item["bytes"].encode(), base64.b64decode(item["signature"], validate=True)
    _same("sent/signature", item["signature"], base64.b64encode(signature).decode())
    _same("sent/event_sha256", item["event_sha256"], events.sent_hash(sent).hex())
    _same("sent/signed", item["signed"], events.signed_message(file.origin, item["source"], sent).hex())
    commitment = events.sent_commitment(bytes.fromhex(item["salt"]), sent, signature)
    _same("sent/hash", item["hash"], commitment.hex())
    events.verify_sent(
        origin=file.origin,
        source_id=item["source"],
        sent=sent,
        signature=signature,
        public_key=bytes.fromhex(item["public_key"]),
    )
    yield


def _approval(file: _File) -> Iterator[None]:
    item = file.value["approval"]
    _members(
        "approval", item, "statement", "challenge", "client_data", "auth_data", "signature", "key_spki", "metadata",
        "printed_name",
    )  # fmt: skip
    raw, signature, key = item["statement"].encode(), bytes.fromhex(item["signature"]), bytes.fromhex(item["key_spki"])
    statement = approvals.parse_statement(raw)
    _same("approval/challenge", item["challenge"], approvals.challenge(raw).hex())
    _members("approval/metadata", item["metadata"], "challenge", "signature_sha256", "key_sha256")
    approvals.check_metadata(item["metadata"], statement=raw, signature=signature, key=key, place="approval/metadata")
    name = item["printed_name"]
    _members("approval/printed_name", name, "salt", "value")
    committed = sealed.commit_bytes(bytes.fromhex(name["salt"]), name["value"].encode())
    _same("approval/printed_name", statement["signer"]["printed_name"][canonical.SEALED_MEMBER], committed)
    canonical.admit(name["value"].encode())
    size = statement["checkpoint"]["size"]
    _same("approval/statement, root", statement["checkpoint"]["root"], merkle.root(file.first(size)).hex())
    _same("approval/statement, log", file.origin, statement["log"])
    client_data = item["client_data"].encode()
    approvals.verify_passkey(
        statement=raw,
        client_data=client_data,
        auth_data=bytes.fromhex(item["auth_data"]),
        signature=signature,
        key=key,
        rp_id=statement["rp_id"],
        origins={f"https://{statement['rp_id']}"},
        place="approval",
    )
    yield


SECTIONS: dict[str, Callable[[_File], Iterator[None]]] = {
    "origin": _origin,
    "keys": _keys,
    "events": _events,
    "roots": _roots,
    "checkpoints": _checkpoints,
    "cosigned": _cosigned,
    "inclusion": _inclusion,
    "consistency": _consistency,
    "stream_map": _stream_map,
    "receipt": _receipt,
    "export": _export,
    "batch": _batch,
    "ids": _ids,
    "raw": _raw,
    "sent": _sent,
    "approval": _approval,
}
