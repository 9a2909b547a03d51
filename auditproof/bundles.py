"""Audit bundles: every check of FORMAT.md §8 over a bag, and the one verdict of §9.

Trust comes from outside only: the log's key, the root of the signer's certificate, an earlier checkpoint. A check that
fails does not end the others where they can still be made, so that a report names each fault. Events are read line by
line: memory does not grow with their number.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from . import (
    approvals,
    bags,
    canonical,
    certificates,
    checkpoints,
    claims,
    cms,
    dsse,
    events,
    exports,
    keys,
    merkle,
    notes,
    report,
    sealed,
    streammap,
    streams,
    verdicts,
)  # fmt: skip
from .bags import Bag
from .claims import Facts
from .errors import (
    ChainError,
    CompletenessError,
    ConsistencyError,
    HashMismatchError,
    Name,
    NotCheckedError,
    ProofError,
    SignatureError,
    malformed,
)  # fmt: skip
from .exports import Control, Opened
from .signatures import sha256_hex

T = TypeVar("T")
FORMAT = "auditportal/bundle/v1"
PROFILE = "pseudonyms"  # the one redaction profile: bodies as recorded, sealed values unopened, signers' names opened
CONTROL_STREAMS = ("action:ledger.credential", "action:ledger.erased", "action:ledger.key")
MAX_SHARD_EVENTS = 100_000
_SHARD = re.compile(r"data/events/events-([0-9]{5})\.jsonl")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_SUPPORT_EXTRA = frozenset({"seq", "path"})
NOT_PROVEN = (
    "that everything that happened was recorded: only what was recorded can be proven",
    "that what was recorded is true",
)


class Status(StrEnum):
    """What became of one check."""

    OK = "ok"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    what: str
    status: Status
    detail: str = ""
    error: ProofError | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """What the verifier knows from outside the bundle."""

    at: datetime
    key: notes.VerifierKey | None = None
    roots: tuple[certificates.Certificate, ...] = ()
    against: str | None = None  # an earlier checkpoint, as a signed note


@dataclass(slots=True)
class Result:
    """Everything that was checked, in order, and the verdict over it."""

    checks: list[Check] = field(default_factory=list)
    verdict: verdicts.Verdict = verdicts.UNAUTHENTICATED
    digest: str = ""
    scope: dict[str, Any] = field(default_factory=dict)

    @property
    def failures(self) -> list[ProofError]:
        """The checks that failed, as errors."""
        return [check.error for check in self.checks if check.error is not None]


@dataclass(frozen=True, slots=True)
class _Description:
    """What `bundle.json` says of the bundle; nothing in it is believed before it was proven."""

    log: str
    model: str
    stream: str
    end_size: int
    end_seq: int
    value: Mapping[str, Any]


@dataclass(slots=True)
class _Support:
    """What support.jsonl proves."""

    control: Control
    ranges: list[keys.KeyRange]
    announced: list[tuple[int, keys.KeyRange]]  # (seq of the event, range) in order
    genesis: notes.VerifierKey
    end: exports.MapState
    lines: int


class _Run:
    """Makes checks and notes what became of each."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def attempt(self, what: str, check: Callable[[], tuple[T, str]]) -> T | None:
        """The check's value, or None where it failed or could not be made."""
        try:
            value, detail = check()
        except ProofError as error:
            self.fail(what, error)
        except NotCheckedError as error:
            self.skip(what, error.what)
        else:
            self.checks.append(Check(what, Status.OK, detail))
            return value
        return None

    def fail(self, what: str, error: ProofError) -> None:
        self.checks.append(Check(what, Status.FAILED, str(error), error))

    def skip(self, what: str, why: str) -> None:
        self.checks.append(Check(what, Status.NOT_CHECKED, why))


def verify(bag: Bag, trust: Trust, on_event: Callable[[int], None] = lambda _: None) -> Result:
    """Every check that can be made with what is known from outside; never raises for what the bundle holds.

    Args:
        bag: The files.
        trust: What is known from outside.
        on_event: Called with the seq of each event of the model that was proven, to show progress.
    """
    run, result = _Run(), Result()
    faults = bags.check_manifests(bag)
    for fault in faults:
        run.fail("files against their manifests", fault)
    if not faults:
        run.checks.append(Check("files against their manifests", Status.OK, f"files: {len(bag.sizes)}"))
    result.digest = run.attempt("bundle digest", lambda: _digest(bag)) or ""
    signer = run.attempt("signature over the manifests", lambda: _signature(bag))
    _check_certificate(run, signer, trust)
    description = run.attempt("scope", lambda: _describe(bag))
    if description is not None:
        result.scope = {
            "model": description.model,
            "log": description.log,
            "map_from": 0,
            "map_to": description.end_size,
            "checkpoint_to": description.value["checkpoint_to"],
        }
        _check_content(run, bag, trust, description, signer, on_event)
    for name in _unread(bag):
        run.skip(
            name, "a convenience copy, not the record" if name == bags.TABLE else "this version reads no such file"
        )
    result.checks = run.checks
    result.verdict = _verdict(run, trust, description)
    return result


def unreadable(error: ProofError) -> Result:
    """The result for a container that is refused before anything in it is read."""
    check = Check("container", Status.FAILED, str(error), error)
    return Result([check], verdicts.failed(error))


def _verdict(run: _Run, trust: Trust, description: _Description | None) -> verdicts.Verdict:
    failures = [check.error for check in run.checks if check.error is not None]
    if failures:
        placed = [error for error in failures if error.place.startswith("seq ")]
        return verdicts.failed((placed or failures)[0])
    unchecked = {check.what for check in run.checks if check.status == Status.NOT_CHECKED}
    if trust.roots and unchecked & {"signature over the manifests", "certificate of the signer"}:
        # Asked for by giving a root, and this machine cannot do it: never green.
        return verdicts.failed(SignatureError(Name.SIGNATURE, "", "a signature that can be checked here", "no means"))
    found = [verdicts.RELATIVE]
    if trust.key is None:
        found.append(verdicts.UNAUTHENTICATED)
    counts = description.value["counts"] if description else {}
    if counts.get("withheld"):
        found.append(verdicts.partial(counts["events"] - counts["withheld"], counts["events"]))
    return verdicts.worst(found)


def _unread(bag: Bag) -> list[str]:
    read_by_nobody = ("data/report.pdf", "verify.html", bags.TABLE, f"{bags.SIGNATURE}.tsr")
    found = [name for name in read_by_nobody if name in bag.sizes]
    return found + sorted(name for name in bag.sizes if name.startswith("data/standards/"))


def _digest(bag: Bag) -> tuple[str, str]:
    digest = bag.digest(bags.TAG_MANIFEST)
    return digest, digest


def _signature(bag: Bag) -> tuple[cms.Signed, str]:
    signed = cms.verify_detached(bag.read(bags.SIGNATURE), bag.read(bags.TAG_MANIFEST))
    return signed, "by the key of the certificate inside"


def _check_certificate(run: _Run, signer: cms.Signed | None, trust: Trust) -> None:
    what = "certificate of the signer"
    if not trust.roots:
        run.skip(what, "no root was given (--root)")
    elif signer is None:
        run.skip(what, "the signature does not stand")
    else:
        run.attempt(what, lambda: _certificate(signer, trust))


def _certificate(signer: cms.Signed, trust: Trust) -> tuple[None, str]:
    certificates.check_chain(signer.signer, signer.others, roots=trust.roots, at=trust.at, place="certificate")
    return None, f"leads to the given root; valid at {trust.at:%Y-%m-%d}"


# ---- what bundle.json says ------------------------------------------------------------------------------------------


def _describe(bag: Bag) -> tuple[_Description, str]:
    place = bags.BUNDLE
    value = _object(bag, place, {
        "format", "log", "scope", "map_from", "map_to", "checkpoint_to", "counts", "privacy", "artifacts", "recipient",
        "purpose", "claims",
    })  # fmt: skip
    _expect(value["format"] == FORMAT, place, f"format {FORMAT}", value["format"])
    scope = _members(value["scope"], {"model", "streams", "filter"}, f"{place}#/scope")
    model = scope["model"]
    _expect(isinstance(model, str) and bool(model), f"{place}#/scope/model", "a name", model)
    stream = "model:" + streams.escape(model)
    _expect(scope["streams"] == [stream], f"{place}#/scope/streams", stream, scope["streams"])
    _expect(isinstance(scope["filter"], str), f"{place}#/scope/filter", "a filter", scope["filter"])
    start = _members(value["map_from"], {"size", "seq"}, f"{place}#/map_from")
    _expect(start == {"size": 0, "seq": None}, f"{place}#/map_from", "the empty map (other periods come later)", start)
    end = _members(value["map_to"], {"size", "seq", "root"}, f"{place}#/map_to")
    _expect(_is_count(end["size"]) and _is_count(end["seq"]), f"{place}#/map_to", "size and seq", end)
    counts = _members(value["counts"], {"events", "bodies", "erased", "withheld", "support"}, f"{place}#/counts")
    _expect(all(map(_is_count, counts.values())), f"{place}#/counts", "counts", counts)
    head = _members(value["checkpoint_to"], {"size", "root"}, f"{place}#/checkpoint_to")
    _expect(_is_count(head["size"]), f"{place}#/checkpoint_to", "a size", head["size"])
    _hash(head["root"], f"{place}#/checkpoint_to")
    privacy = _members(value["privacy"], {"profile"}, f"{place}#/privacy")
    _expect(privacy["profile"] == PROFILE, f"{place}#/privacy", f"the profile {PROFILE}", privacy["profile"])
    for name in ("log", "recipient", "purpose"):
        _expect(isinstance(value[name], str), f"{place}#/{name}", "a text", value[name])
    return (
        _Description(value["log"], model, stream, end["size"], end["seq"], value),
        f"model {claims.display(model)}, its whole history up to map {end['size']}",
    )


def _object(bag: Bag, name: str, members: set[str]) -> dict[str, Any]:
    """A JSON file in canonical form with exactly these members."""
    return _members(_json(bag.read(name), name), members, name)


def _json(raw: bytes, place: str) -> Any:  # noqa: ANN401 -- any JSON
    try:
        value = canonical.admit(raw, max_bytes=bags.MAX_TAG_BYTES, sealed="allowed")
        if canonical.encode(value) != raw:
            raise malformed(place, "RFC 8785 bytes", "another spelling of the same value")
    except ProofError as error:
        raise malformed(place, error.expected, error.found) from error
    return value


def _members(value: object, members: set[str], place: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != members:
        raise malformed(place, ", ".join(sorted(members)), value if not isinstance(value, dict) else str(sorted(value)))
    return value


def _expect(holds: bool, place: str, expected: str, found: object) -> None:  # noqa: FBT001 -- an assertion with a name
    if not holds:
        raise malformed(place, expected, found)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _hash(value: object, place: str) -> bytes:
    if not isinstance(value, str) or _HASH.fullmatch(value) is None:
        raise malformed(place, "64 lower-case hex digits", value)
    return bytes.fromhex(value)


def _path(value: object, place: str) -> list[bytes]:
    if not isinstance(value, list) or len(value) > streammap.HASH_BITS:
        raise malformed(place, "a list of hashes", value)
    return [_hash(item, place) for item in value]


# ---- what the log proves --------------------------------------------------------------------------------------------


def _check_content(
    run: _Run,
    bag: Bag,
    trust: Trust,
    description: _Description,
    signer: cms.Signed | None,
    on_event: Callable[[int], None],
) -> None:
    note = run.attempt("checkpoint", lambda: _checkpoint(bag, description))
    if note is None:
        return
    text, checkpoint = note
    support = run.attempt("control events", lambda: _support(bag, description, checkpoint))
    proofs = run.attempt("consistency proofs", lambda: _consistency(bag, checkpoint))
    _check_key(run, bag, trust, text, checkpoint, support, proofs)
    _check_earlier(run, trust, checkpoint, proofs)
    if support is None:
        return
    facts = run.attempt("events of the model", lambda: _events(bag, description, checkpoint, support, on_event))
    if facts is None:
        return
    signatures = run.attempt(
        "signatures of approvals", lambda: _approvals(bag, description, facts, support, checkpoint, proofs or {})
    )
    run.attempt("artifacts", lambda: _artifacts(bag, description))
    run.attempt("custody", lambda: _custody(bag, facts))
    if signatures is not None:
        run.attempt("claims and report", lambda: _claims(bag, description, facts, support, checkpoint, signatures))
    if signer is not None:
        run.attempt("in-toto statement", lambda: _statement(bag, description, signer))


def predicate(value: Mapping[str, Any]) -> dict[str, Any]:
    """What the in-toto statement says of a bundle with this `bundle.json`."""
    return {name: value[name] for name in ("log", "scope", "map_from", "map_to", "checkpoint_to", "counts")}


def _statement(bag: Bag, description: _Description, signer: cms.Signed) -> tuple[None, str]:
    statement = dsse.make_statement(
        subject=bags.TAG_MANIFEST, sha256=bag.digest(bags.TAG_MANIFEST), predicate=predicate(description.value)
    )
    dsse.verify(bag.read(bags.STATEMENT), key=signer.signer.key, statement=statement)
    return None, "by the same key, over the same digest"


def _checkpoint(bag: Bag, description: _Description) -> tuple[tuple[str, checkpoints.Checkpoint], str]:
    """The tree head as it stands; who signed it is checked once the control events are read."""
    place = "data/proofs/checkpoint-to.txt"
    try:
        text = bag.read(place, most=notes.MAX_NOTE_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise malformed(place, "UTF-8", "other bytes") from None
    checkpoint = checkpoints.parse_text(notes.parse_note(text).text)
    events.check_origin(checkpoint.origin, description.log, place)
    stated = {"size": checkpoint.size, "root": checkpoint.root.hex()}
    if description.value["checkpoint_to"] != stated:
        raise HashMismatchError(Name.CLAIM, f"{bags.BUNDLE}#/checkpoint_to", str(stated), "another checkpoint")
    return (text, checkpoint), f"log {checkpoint.origin}, {checkpoint.size} entries"


def _support(bag: Bag, description: _Description, checkpoint: checkpoints.Checkpoint) -> tuple[_Support, str]:
    """Control events are complete from 0 to the map, and every entry from the map to the checkpoint stands here."""
    reader = _SupportReader(description, checkpoint)
    for number, raw in enumerate(bag.lines(bags.SUPPORT)):
        reader.add(raw, f"{bags.SUPPORT} line {number + 1}")
    support = reader.finish(_map_proofs(bag))
    tail = checkpoint.size - description.end_size
    return support, f"complete to map {description.end_size}; entries from there to the checkpoint: {tail}"


class _SupportReader:
    """Follows support.jsonl line by line."""

    def __init__(self, description: _Description, checkpoint: checkpoints.Checkpoint) -> None:
        self._description = description
        self._checkpoint = checkpoint
        self._hashes = {key: streams.stream_hash(key) for key in (*CONTROL_STREAMS, "action:ledger.streams")}
        self._before: list[Opened] = []  # control events below the map
        self._tail: list[Opened] = []  # opened events from the map on
        self._next = description.end_size  # the seq that the tail needs next
        self._last = -1
        self._prev: bytes | None = None
        self._t = ""
        self._lines = 0

    def add(self, raw: bytes, place: str) -> None:
        value = exports.parse_json_line(raw, place)
        line = exports.parse_line(value, place, extra=_SUPPORT_EXTRA)
        _expect(value.keys() >= _SUPPORT_EXTRA, place, "seq and path", sorted(value))
        item = exports.open_line(line, origin=self._description.log)
        if value["seq"] != item.seq or item.seq <= self._last:
            raise malformed(place, f"its header's seq {item.seq}, above {self._last}", value["seq"])
        exports.check_inclusion(
            item, size=self._checkpoint.size, root=self._checkpoint.root, path=_path(value["path"], place)
        )
        if item.header.t < self._t:
            raise ChainError(Name.CLOCK_SKEW, f"seq {item.seq}", f"not before {self._t}", item.header.t)
        self._last, self._t = item.seq, item.header.t
        self._lines += 1
        if item.seq < self._description.end_size:
            self._add_control(item)
        else:
            self._add_tail(item)

    def _add_control(self, item: Opened) -> None:
        if item.body is None:
            raise CompletenessError(
                Name.UNEXPLAINED_ABSENCE, f"seq {item.seq}", "a control event, which is never erased", "no body"
            )
        _expect(
            item.seq == 0 or any(value in item.hashes for value in self._hashes.values()),
            f"seq {item.seq}",
            "genesis and control events only",
            item.body["action"],
        )
        self._before.append(item)

    def _add_tail(self, item: Opened) -> None:
        place = f"seq {item.seq}"
        if item.seq != self._next:
            raise ChainError(Name.SEQ_GAP, place, str(self._next), str(item.seq))
        if self._prev is not None and item.header.prev != self._prev:
            raise ChainError(Name.PREV_CHAIN, place, self._prev.hex(), item.header.prev.hex())
        self._next, self._prev = item.seq + 1, item.leaf
        if item.body is not None:
            self._tail.append(item)
        elif item.line.absent != "context" or any(value in item.hashes for value in self._hashes.values()):
            raise CompletenessError(Name.UNEXPLAINED_ABSENCE, place, "the body of a control event", "none")

    def finish(self, proofs: Mapping[str, streammap.MapProof]) -> _Support:
        if self._next != self._checkpoint.size:
            raise ChainError(Name.SEQ_GAP, f"seq {self._next}", f"entries to {self._checkpoint.size}", "no more")
        opened = [*self._before, *self._tail]
        genesis = _genesis(opened)
        control = exports.read_control(opened)
        end = self._map(control)
        for name in CONTROL_STREAMS:
            if name not in proofs:
                raise CompletenessError(Name.INCOMPLETE_STREAM, name, "a proof of this stream", "none")
        for name in sorted(proofs.keys() & self._hashes.keys()):
            self._check_stream(name, proofs[name], end, control)
        ranges, announced = _key_events(opened)
        return _Support(control, ranges, announced, genesis, end, self._lines)

    def _map(self, control: Control) -> exports.MapState:
        end = control.maps.get(self._description.end_seq)
        place = f"seq {self._description.end_seq}"
        stated = self._description.value["map_to"]
        if end is None:
            raise CompletenessError(Name.STREAM_MAP, place, "the event of the map", "none")
        if (end.size, end.root.hex()) != (stated["size"], stated["root"]):
            raise CompletenessError(Name.STREAM_MAP, place, f"the map of size {stated['size']}", str(end.size))
        return end

    def _check_stream(self, name: str, proof: streammap.MapProof, end: exports.MapState, control: Control) -> None:
        fold = exports.Fold(name, start=exports.EMPTY_MAP, start_proof=None, end=end, end_proof=proof)
        for item in self._before:
            if self._hashes[name] in item.hashes:
                fold.add(item, control)
        fold.finish()


def _genesis(opened: Sequence[Opened]) -> notes.VerifierKey:
    first = opened[0].body if opened else None
    if first is None or opened[0].seq != 0 or first["action"] != "ledger.genesis":
        raise CompletenessError(Name.INCOMPLETE_STREAM, "seq 0", "the log's genesis", "none")
    return notes.VerifierKey.parse(str(first.get("metadata", {}).get("vkey")))


def _key_events(opened: Iterable[Opened]) -> tuple[list[keys.KeyRange], list[tuple[int, keys.KeyRange]]]:
    """The ranges of the log's keys after all events, and when each key was announced."""
    ranges: list[keys.KeyRange] = []
    announced: list[tuple[int, keys.KeyRange]] = []
    for item in opened:
        if item.body is not None:
            before = {entry.key for entry in ranges}
            ranges = keys.apply(ranges, seq=item.seq, body=item.body)
            announced += [(item.seq, entry) for entry in ranges if entry.key not in before]
    return ranges, announced


def _map_proofs(bag: Bag) -> dict[str, streammap.MapProof]:
    place = "data/proofs/completeness.json"
    listed = _object(bag, place, {"streams"})["streams"]
    _expect(isinstance(listed, list) and bool(listed), place, "a list of streams", listed)
    proofs: dict[str, streammap.MapProof] = {}
    for item in listed:
        entry = _members(item, {"stream", "siblings", "stands"}, place)
        _expect(isinstance(entry["stream"], str) and entry["stream"].isascii(), place, "a stream", entry["stream"])
        _expect(entry["stream"] not in proofs, place, "each stream once", entry["stream"])
        proofs[entry["stream"]] = streammap.MapProof(
            tuple(_path(entry["siblings"], place)), _standing(entry["stands"], place)
        )
    return proofs


def _standing(value: object, place: str) -> streammap.Standing | None:
    if value is None:
        return None
    stands = _members(value, {"stream", "count", "last_seq", "acc"}, place)
    _expect(_is_count(stands["count"]) and _is_count(stands["last_seq"]), place, "a count and a seq", stands)
    state = streammap.StreamState(stands["count"], stands["last_seq"], _hash(stands["acc"], place))
    return streammap.Standing(_hash(stands["stream"], place), state)


def _consistency(bag: Bag, checkpoint: checkpoints.Checkpoint) -> tuple[dict[int, bytes], str]:
    """The roots of earlier sizes, each proven to be the beginning of this tree."""
    place = "data/proofs/consistency.json"
    listed = _object(bag, place, {"proofs"})["proofs"]
    _expect(isinstance(listed, list), place, "a list of proofs", listed)
    roots: dict[int, bytes] = {}
    for item in listed:
        entry = _members(item, {"size", "root", "path"}, place)
        _expect(_is_count(entry["size"]) and entry["size"] not in roots, place, "each size once", entry["size"])
        root = _hash(entry["root"], place)
        merkle.verify_consistency(
            old_size=entry["size"],
            new_size=checkpoint.size,
            old_root=root,
            new_root=checkpoint.root,
            path=_path(entry["path"], place),
        )
        roots[entry["size"]] = root
    return roots, f"earlier tree heads: {len(roots)}"


def _check_key(
    run: _Run,
    bag: Bag,
    trust: Trust,
    note: str,
    checkpoint: checkpoints.Checkpoint,
    support: _Support | None,
    proofs: Mapping[int, bytes] | None,
) -> None:
    """The checkpoint's signature: under the given key, or, where none was given, under the bundle's own genesis."""
    if trust.key is None:
        run.skip("key of the log", "no key was given (--key)")
        if support is not None:
            run.attempt("signature of the checkpoint", lambda: _own_signature(note, checkpoint, support))
    elif support is None:
        key = trust.key
        run.attempt("signature of the checkpoint", lambda: _plain_signature(note, checkpoint, key))
    else:
        key, known = trust.key, support
        run.attempt(
            "signature of the checkpoint", lambda: _trusted_signature(bag, note, checkpoint, key, known, proofs or {})
        )


def _own_signature(note: str, checkpoint: checkpoints.Checkpoint, support: _Support) -> tuple[None, str]:
    keys.open_ranged(note, origin=checkpoint.origin, ranges=support.ranges)
    return None, "under the key that the log itself names, which proves nothing about whose log it is"


def _plain_signature(note: str, checkpoint: checkpoints.Checkpoint, key: notes.VerifierKey) -> tuple[None, str]:
    checkpoints.open_checkpoint(note, origin=checkpoint.origin, keys=[key])
    return None, f"under the given key {key.key_id.hex()}"


def _trusted_signature(
    bag: Bag,
    note: str,
    checkpoint: checkpoints.Checkpoint,
    given: notes.VerifierKey,
    support: _Support,
    proofs: Mapping[int, bytes],
) -> tuple[None, str]:
    """From the given key over the checkpoints of rotations to the key of this checkpoint (FORMAT.md §4)."""
    place = "data/proofs/rotation.json"
    listed = _object(bag, place, {"checkpoints"})["checkpoints"]
    _expect(isinstance(listed, list) and all(isinstance(item, str) for item in listed), place, "notes", listed)
    ranges = {entry.key: entry for entry in support.ranges}
    trusted = [ranges.get(given, keys.KeyRange(given, 0))]
    for text in listed:
        step = keys.open_ranged(text, origin=checkpoint.origin, ranges=trusted)
        if proofs.get(step.size) != step.root:
            raise ConsistencyError(Name.CONSISTENCY, f"checkpoint {step.size}", "a proof that it leads here", "none")
        known = {entry.key for entry in trusted}
        trusted += [
            ranges[entry.key]
            for seq, entry in support.announced
            if seq < step.size and entry.key not in known and entry.key in ranges
        ]
    _expect_signed(note, checkpoint, trusted)
    # A tree that a trusted key signed makes every control event in it trusted, and with them every key's range.
    known = {entry.key for entry in trusted}
    keys.open_ranged(
        note, origin=checkpoint.origin, ranges=[*trusted, *(e for e in support.ranges if e.key not in known)]
    )
    return None, f"under the given key {given.key_id.hex()}" + (f", by {len(listed)} rotations" if listed else "")


def _expect_signed(note: str, checkpoint: checkpoints.Checkpoint, trusted: Sequence[keys.KeyRange]) -> None:
    covering = [entry.key for entry in trusted if entry.covers(checkpoint.size)]
    checkpoints.open_checkpoint(note, origin=checkpoint.origin, keys=covering or [entry.key for entry in trusted])


def _check_earlier(
    run: _Run, trust: Trust, checkpoint: checkpoints.Checkpoint, proofs: Mapping[int, bytes] | None
) -> None:
    if trust.against is None:
        run.skip("an earlier checkpoint", "none was given (--against)")
    else:
        note = trust.against
        run.attempt("an earlier checkpoint", lambda: _earlier(note, checkpoint, proofs or {}))


def _earlier(note: str, checkpoint: checkpoints.Checkpoint, proofs: Mapping[int, bytes]) -> tuple[None, str]:
    """The tree that somebody kept is the beginning of this one."""
    kept = checkpoints.parse_text(notes.parse_note(note).text)
    events.check_origin(checkpoint.origin, kept.origin, "earlier checkpoint")
    place = f"size {kept.size} to {checkpoint.size}"
    if kept.size > checkpoint.size:
        raise ConsistencyError(Name.ROLLBACK, place, f"at least {kept.size} entries", str(checkpoint.size))
    if kept.size in (0, checkpoint.size):
        if kept.size and kept.root != checkpoint.root:
            raise ConsistencyError(Name.FORK, place, kept.root.hex(), checkpoint.root.hex())
        return None, f"{kept.size} entries, the same tree" if kept.size else "the empty tree"
    if kept.size not in proofs:
        raise ConsistencyError(
            Name.CONSISTENCY, place, "a proof in this bundle from that size (ask for one when you request it)", "none"
        )
    if proofs[kept.size] != kept.root:
        raise ConsistencyError(Name.CONSISTENCY, place, kept.root.hex(), proofs[kept.size].hex())
    return None, f"{kept.size} entries, unchanged since"


# ---- the events themselves ------------------------------------------------------------------------------------------


def _events(
    bag: Bag,
    description: _Description,
    checkpoint: checkpoints.Checkpoint,
    support: _Support,
    on_event: Callable[[int], None],
) -> tuple[Facts, str]:
    """Every event of the model stands here, proven one by one, and nothing is left out."""
    proofs = _map_proofs(bag)
    if description.stream not in proofs:
        raise CompletenessError(Name.INCOMPLETE_STREAM, description.stream, "a proof of this stream", "none")
    _expect(
        proofs.keys() <= {description.stream, *CONTROL_STREAMS, "action:ledger.streams"},
        "data/proofs/completeness.json",
        "the streams of this scope",
        sorted(proofs),
    )
    fold = exports.Fold(
        description.stream,
        start=exports.EMPTY_MAP,
        start_proof=None,
        end=support.end,
        end_proof=proofs[description.stream],
    )
    facts = Facts()
    for shard in _shards(bag):
        for item, path in _shard(bag, shard, description, checkpoint):
            fold.add(item, support.control)
            if item.line.absent == "context":
                raise CompletenessError(
                    Name.UNEXPLAINED_ABSENCE, f"seq {item.seq}", "a body: no event is outside the period", "none"
                )
            exports.check_inclusion(item, size=checkpoint.size, root=checkpoint.root, path=path)
            facts.add(item)
            on_event(item.seq)
    fold.finish()
    counts = {
        "events": facts.events,
        "bodies": facts.events - facts.erased - facts.withheld,
        "erased": facts.erased,
        "withheld": facts.withheld,
        "support": support.lines,
    }
    if description.value["counts"] != counts:
        raise HashMismatchError(Name.CLAIM, f"{bags.BUNDLE}#/counts", str(counts), str(description.value["counts"]))
    return facts, f"{facts.events}, from the empty map to map {support.end.size}, none left out"


def _shards(bag: Bag) -> list[int]:
    """The numbers of the event files: 0, 1, 2 …, each with its proofs."""
    numbers = sorted(int(match[1]) for match in map(_SHARD.fullmatch, bag.sizes) if match)
    for number, found in zip(itertools.count(), numbers, strict=False):
        _expect(number == found, "data/events", f"events-{number:05d}.jsonl next", found)
    proofs = sum(name.startswith("data/proofs/inclusion-") for name in bag.sizes)
    _expect(proofs == len(numbers), "data/proofs", f"{len(numbers)} files of inclusion proofs", proofs)
    return numbers


def _shard(
    bag: Bag, number: int, description: _Description, checkpoint: checkpoints.Checkpoint
) -> Iterable[tuple[Opened, list[bytes]]]:
    place = f"data/proofs/inclusion-{number:05d}.json"
    proofs = _object(bag, place, {"size", "hashes", "paths"})
    _expect(proofs["size"] == checkpoint.size, place, f"proofs for size {checkpoint.size}", proofs["size"])
    hashes, paths = proofs["hashes"], proofs["paths"]
    _expect(isinstance(hashes, list) and isinstance(paths, list), place, "hashes and paths", proofs)
    _expect(len(paths) <= MAX_SHARD_EVENTS, place, f"at most {MAX_SHARD_EVENTS} events a file", len(paths))
    table = [_hash(item, place) for item in hashes]
    name = f"data/events/events-{number:05d}.jsonl"
    count = 0
    for raw in bag.lines(name):
        where = f"{name} line {count + 1}"
        item = exports.open_line(exports.parse_line(exports.parse_json_line(raw, where), where), origin=description.log)
        if count >= len(paths):
            raise malformed(place, "a path for each event", f"{len(paths)} paths")
        yield item, _looked_up(paths[count], table, place)
        count += 1
    _expect(count == len(paths), place, f"{count} paths", len(paths))


def _looked_up(indices: object, table: Sequence[bytes], place: str) -> list[bytes]:
    if not isinstance(indices, list) or len(indices) > merkle.HASH_BYTES * 8:
        raise malformed(place, "a path of places in `hashes`", indices)
    for index in indices:
        _expect(_is_count(index) and index < len(table), place, f"places below {len(table)}", index)
    return [table[index] for index in indices]


# ---- what lies beside the events ------------------------------------------------------------------------------------


def _approvals(
    bag: Bag,
    description: _Description,
    facts: Facts,
    support: _Support,
    checkpoint: checkpoints.Checkpoint,
    proofs: Mapping[int, bytes],
) -> tuple[list[dict[str, Any]], str]:
    """Each signature's statement is the one its event names; what it means for the report."""
    present = {int(name.split("/")[2]) for name in bag.sizes if name.startswith("data/approvals/")}
    for seq in sorted(present - facts.signed.keys()):
        raise CompletenessError(Name.UNLISTED_FILE, f"data/approvals/{seq}", "a signing event of this model", "none")
    challenges: set[str] = set()
    signatures = []
    for seq, body in sorted(facts.signed.items()):
        if seq not in present:
            if (seq, "statement") not in support.control.erasures:
                raise CompletenessError(Name.UNEXPLAINED_ABSENCE, f"seq {seq}", "the signed statement", "none")
            continue
        signatures.append(_approval(bag, seq, body, description.log, checkpoint, proofs))
        challenge = str(body["metadata"]["approval"]["challenge"])
        if challenge in challenges:
            raise SignatureError(Name.SIGNATURE, f"seq {seq}", "a challenge that stands in one event only", challenge)
        challenges.add(challenge)
    sessions = sum(item["method"] == "session" for item in signatures)
    detail = f"statements read: {len(signatures)}"
    if sessions:
        detail += f"; by session: {sessions}, where the portal attests that it authenticated the person again, and no"
        detail += " signature is the person's own"
    return signatures, detail


def _approval(
    bag: Bag,
    seq: int,
    body: events.Body,
    origin: str,
    checkpoint: checkpoints.Checkpoint,
    proofs: Mapping[int, bytes],
) -> dict[str, Any]:
    place = f"seq {seq}"
    raw = bag.read(f"data/approvals/{seq}/statement.json", most=canonical.MAX_BYTES)
    statement = approvals.parse_statement(raw)
    approvals.check_agreement(statement, body, origin=origin, place=place)
    approval = body["metadata"]["approval"]
    found = approvals.challenge(raw).hex()
    if not isinstance(approval, dict) or approval.get("challenge") != found:
        raise SignatureError(Name.SIGNATURE, f"{place}, challenge", found, "another in the event")
    if statement["method"] != "session":
        raise SignatureError(
            Name.SIGNATURE, f"{place}, method", "session, which is all that this version checks", statement["method"]
        )
    factors = approval.get("factors")
    if not isinstance(factors, list) or not factors or not all(isinstance(item, str) for item in factors):
        raise SignatureError(Name.SIGNATURE, f"{place}, factors", "how the person was authenticated", "nothing")
    _check_seen(statement["checkpoint"], seq, checkpoint, proofs)
    return describe_signature(seq, body, statement, _printed_name(bag, seq, statement))


def describe_signature(seq: int, body: events.Body, statement: Mapping[str, Any], printed_name: str) -> dict[str, Any]:
    """One signature as the claims and the report tell it."""
    return {
        "seq": seq,
        "action": body["action"],
        "request": statement["request"],
        "subject": statement["subject"]["id"],
        "environment": statement["environment"],
        "signer": statement["signer"]["id"],
        "role": statement["signer"]["role"],
        "printed_name": printed_name,
        "meaning": statement["meaning"],
        "at": statement["at"],
        "method": statement["method"],
        "factors": ", ".join(body["metadata"]["approval"]["factors"]),
    }


def _check_seen(
    seen: Mapping[str, Any], seq: int, checkpoint: checkpoints.Checkpoint, proofs: Mapping[int, bytes]
) -> None:
    """The tree head that the signer saw is older than the signature and the beginning of this tree."""
    place = f"seq {seq}"
    size, root = seen["size"], _hash(seen["root"], f"{place}, checkpoint")
    if not _is_count(size) or size > seq:
        raise SignatureError(Name.SIGNATURE, f"{place}, checkpoint", f"a size of at most {seq}", str(size)[:40])
    known = checkpoint.root if size == checkpoint.size else merkle.EMPTY_ROOT if size == 0 else proofs.get(size)
    if known != root:
        found = "no proof" if known is None else known.hex()
        raise ConsistencyError(Name.CONSISTENCY, f"{place}, checkpoint {size}", root.hex(), found)


def _printed_name(bag: Bag, seq: int, statement: Mapping[str, Any]) -> str:
    name = f"data/approvals/{seq}/printed-name.json"
    value = _object(bag, name, {"salt", "value"})
    text, salt = value["value"], value["salt"]
    _expect(isinstance(text, str), name, "a name", text)
    if not isinstance(salt, str) or re.fullmatch(r"[0-9a-f]{32}", salt) is None:
        raise malformed(name, "32 lower-case hex digits", salt)
    expected = statement["signer"]["printed_name"][canonical.SEALED_MEMBER]
    found = sealed.commit(bytes.fromhex(salt), text)
    if found != expected:
        raise HashMismatchError(Name.DISCLOSURE, f"seq {seq}", expected, found)
    return str(text)


def _artifacts(bag: Bag, description: _Description) -> tuple[None, str]:
    """Each artifact has the digest it is listed under; one that is withheld is listed with the reason."""
    place = f"{bags.BUNDLE}#/artifacts"
    listed = description.value["artifacts"]
    _expect(isinstance(listed, list), place, "a list", listed)
    names: set[str] = set()
    withheld = 0
    for item in listed:
        _expect(isinstance(item, dict), place, "objects", item)
        entry = _members(item, {"digest", "kind", "of"} | ({"withheld"} & item.keys()), place)
        texts = [entry[name] for name in sorted(entry)]
        _expect(all(isinstance(text, str) for text in texts), place, "texts", entry)
        _expect(_DIGEST.fullmatch(entry["digest"]) is not None, place, "sha256:…", entry["digest"])
        if "withheld" in entry:
            withheld += 1
            continue
        name = "data/artifacts/" + entry["digest"].removeprefix("sha256:")
        names.add(name)
        if name not in bag.sizes:
            raise HashMismatchError(Name.MANIFEST, name, "this file", "none")
        if bag.digest(name) != entry["digest"].removeprefix("sha256:"):
            raise HashMismatchError(Name.MANIFEST, name, entry["digest"], bag.digest(name))
    for name in sorted(bag.sizes):
        if name.startswith("data/artifacts/") and name not in names:
            raise CompletenessError(Name.UNLISTED_FILE, name, f"an entry in {place}", "none")
    return None, f"files: {len(names)}" + (f"; withheld and listed by digest: {withheld}" if withheld else "")


def _custody(bag: Bag, facts: Facts) -> tuple[None, str]:
    expected = claims.custody_lines(facts)
    found = bag.read(bags.CUSTODY)
    if found != expected:
        raise HashMismatchError(Name.CLAIM, bags.CUSTODY, sha256_hex(expected), sha256_hex(found))
    return None, f"earlier requests, issues and downloads: {len(facts.custody)}"


def _claims(
    bag: Bag,
    description: _Description,
    facts: Facts,
    support: _Support,
    checkpoint: checkpoints.Checkpoint,
    signatures: Sequence[Mapping[str, Any]],
) -> tuple[None, str]:
    computed = claims.make(
        facts,
        model=description.model,
        issued_to={name: description.value[name] for name in ("recipient", "purpose")},
        map_to=support.end,
        checkpoint={"size": checkpoint.size, "root": checkpoint.root.hex()},
        signatures=signatures,
    )
    claims.check(description.value["claims"], computed)
    report.check(bag.read(bags.REPORT), computed)
    return None, f"{len(computed)} claims recomputed; the report is made from them and from nothing else"
