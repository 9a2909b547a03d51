"""Exports of one stream: nothing left out between two maps (FORMAT.md §5), every absence explained (§8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import canonical, events, headers, merkle, sealed, streammap, streams
from .errors import CompletenessError, MalformedError, Name, malformed

_LINE = frozenset({"body", "header", "salt", "disclosures"})
_ABSENT = frozenset({"absent", "header", "streams"})
ABSENCES = ("erased", "withheld", "context")


@dataclass(frozen=True, slots=True)
class Line:
    """One event line of an export, or of the support of one; `path` is there where it carries its own proof."""

    header: bytes
    body: bytes | None = None
    salt: bytes | None = None
    disclosures: tuple[tuple[str, bytes, bytes], ...] = ()
    absent: str | None = None
    by: int | None = None
    streams: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """A line whose header, body and streams agree with each other."""

    seq: int
    leaf: bytes
    header: headers.Header
    body: events.Body | None
    hashes: tuple[bytes, ...]
    line: Line


@dataclass(frozen=True, slots=True)
class MapState:
    """A map of the log as its `ledger.streams` event states it; the empty map at size 0 needs no event."""

    size: int
    root: bytes
    seq: int | None


EMPTY_MAP = MapState(0, streammap.EMPTY, None)


@dataclass(slots=True)
class Control:
    """What the control events of a log say, as far as they were opened."""

    maps: dict[int, MapState] = field(default_factory=dict)  # by the seq of their event
    erasures: dict[tuple[int, str], tuple[int, str]] = field(default_factory=dict)  # (seq, what) -> (by, leaf hex)


@dataclass(frozen=True, slots=True)
class Export:
    """What was proven: `count` events of the stream from map to map, `shown` of them with their bodies or erased."""

    stream: str
    count: int
    withheld: int
    events: tuple[Opened, ...]


def parse_line(value: object, place: str, *, extra: frozenset[str] = frozenset()) -> Line:
    """One line as a value.

    Raises:
        MalformedError: other members, or members of another form.
    """
    if not isinstance(value, dict):
        raise malformed(place, "an object", value)
    members = value.keys() - extra
    if members == _LINE:
        return Line(
            header=_ascii(value["header"], f"{place}/header"),
            body=_utf8(value["body"], f"{place}/body"),
            salt=_hex(value["salt"], events.SALT_BYTES, f"{place}/salt"),
            disclosures=_disclosures(value["disclosures"], f"{place}/disclosures"),
        )
    if members not in (_ABSENT, _ABSENT | {"by"}):
        raise malformed(place, "the members of an event line", ", ".join(sorted(map(str, members))))
    if value["absent"] not in ABSENCES or (value["absent"] == "erased") != ("by" in value):
        raise malformed(f"{place}/absent", "erased (with by), withheld or context", value["absent"])
    by = value.get("by")
    if by is not None and (type(by) is not int or by < 0):
        raise malformed(f"{place}/by", "a seq", by)
    hashes = value["streams"]
    if not isinstance(hashes, list):
        raise malformed(f"{place}/streams", "a list of hashes", hashes)
    kept = streams.check_hashes([_hex(item, 32, f"{place}/streams") for item in hashes])
    return Line(header=_ascii(value["header"], f"{place}/header"), absent=value["absent"], by=by, streams=tuple(kept))


def _disclosures(value: object, place: str) -> tuple[tuple[str, bytes, bytes], ...]:
    if not isinstance(value, list):
        raise malformed(place, "a list", value)
    found = []
    for item in value:
        if (
            not isinstance(item, dict)
            or item.keys() != {"pointer", "salt", "value"}
            or not isinstance(item["pointer"], str)
        ):
            raise malformed(place, "pointer, salt and value", item)
        found.append((item["pointer"], _hex(item["salt"], sealed.SALT_BYTES, place), _utf8(item["value"], place)))
    return tuple(found)


def _hex(value: object, size: int, place: str) -> bytes:
    if isinstance(value, str) and len(value) == 2 * size and value == value.lower():
        try:
            return bytes.fromhex(value)
        except ValueError:
            pass
    raise malformed(place, f"{2 * size} lower-case hex digits", value)


def _ascii(value: object, place: str) -> bytes:
    if not isinstance(value, str) or not value.isascii():
        raise malformed(place, "ASCII", value)
    return value.encode()


def _utf8(value: object, place: str) -> bytes:
    try:
        if isinstance(value, str):
            return value.encode()
    except UnicodeEncodeError:
        pass
    raise malformed(place, "text", value)


def open_line(line: Line, *, origin: str) -> Opened:
    """The line, with header, body, streams and disclosures agreeing.

    Raises:
        ProofError: under the name of whatever disagrees.
    """
    header = headers.parse_header(line.header)
    place = f"seq {header.seq}"
    events.check_origin(header.origin, origin, place)
    body: events.Body | None = None
    hashes = list(line.streams)
    if line.body is not None and line.salt is not None:
        body = headers.check_body_of(header, salt=line.salt, body=line.body, place=place)
        hashes = sorted(map(streams.stream_hash, streams.stream_keys(body)))
        for pointer, salt, value in line.disclosures:
            sealed.check_disclosure(body, pointer=pointer, salt=salt, value=value, place=place)
    else:
        headers.check_streams(header, hashes, place)
    return Opened(header.seq, headers.leaf_hash(line.header), header, body, tuple(hashes), line)


def read_control(opened: Iterable[Opened]) -> Control:
    """What control events state: maps and erasures. Only the portal's own, and only what was done, has effect.

    Raises:
        MalformedError: a control event that says what it may not.
    """
    control = Control()
    for item in opened:
        body = item.body
        if body is None or body["source"]["id"] != events.PORTAL or body["outcome"] != "done":
            continue
        metadata = body.get("metadata", {})
        if body["action"] == "ledger.streams":
            control.maps[item.seq] = _map_state(metadata, item.seq)
        elif body["action"] == "ledger.erased":
            for target in _targets(metadata, item.seq):
                control.erasures[target["seq"], str(target["what"])] = (item.seq, str(target["leaf"]))
    return control


def _map_state(metadata: Mapping[str, Any], seq: int) -> MapState:
    place = f"seq {seq}/metadata"
    size = metadata.get("size")
    if type(size) is not int or not 0 < size <= seq:
        raise CompletenessError(Name.STREAM_MAP, place, f"a size from 1 to {seq}", str(size)[:40])
    return MapState(size, _hex(metadata.get("root"), 32, f"{place}/root"), seq)


def _targets(metadata: Mapping[str, Any], seq: int) -> list[dict[str, Any]]:
    targets = metadata.get("targets")
    if not isinstance(targets, list) or not targets:
        raise malformed(f"seq {seq}/metadata/targets", "a list of targets", targets)
    for target in targets:
        shape = isinstance(target, dict) and target.keys() == {"seq", "leaf", "what"}
        if not shape or type(target["seq"]) is not int or not 0 <= target["seq"] < seq:
            raise malformed(f"seq {seq}/metadata/targets", "seq (below this one), leaf and what", target)
    return targets


def check_absence(item: Opened, control: Control) -> None:
    """A body that is absent is explained by its erasure, and an erased one is absent.

    Raises:
        CompletenessError: UNEXPLAINED_ABSENCE.
    """
    place = f"seq {item.seq}"
    erasure = control.erasures.get((item.seq, "body"))
    if erasure is not None and erasure[1] != item.leaf.hex():
        raise CompletenessError(
            Name.UNEXPLAINED_ABSENCE, place, f"an erasure of leaf {item.leaf.hex()}", erasure[1][:80]
        )
    if item.line.absent == "erased":
        if erasure is None or erasure[0] != item.line.by:
            found = "none" if erasure is None else f"event {erasure[0]}"
            raise CompletenessError(Name.UNEXPLAINED_ABSENCE, place, f"the erasing event {item.line.by}", found)
    elif erasure is not None and item.line.absent is None:
        raise CompletenessError(Name.UNEXPLAINED_ABSENCE, place, f"no body, erased by event {erasure[0]}", "a body")


class Fold:
    """One stream followed event by event from map `start` (its size included) to map `end` (excluded).

    Keeps numbers and one hash, so that an export of any length is checked in constant memory. Inclusion of the events
    and of the maps' own events is checked beside this (`check_inclusion`).
    """

    def __init__(
        self,
        stream: str,
        *,
        start: MapState,
        start_proof: streammap.MapProof | None,
        end: MapState,
        end_proof: streammap.MapProof,
    ) -> None:
        """Takes the stream's states out of both maps.

        Raises:
            CompletenessError: STREAM_MAP.
        """
        self.stream = stream
        self.key = streams.stream_hash(stream)
        self.count = self.withheld = 0
        self._before = _state_in(start, start_proof, self.key)
        self._after = _state_in(end, end_proof, self.key)
        if start.size > end.size:
            raise CompletenessError(Name.STREAM_MAP, stream, f"maps in order, from {start.size}", str(end.size))
        self._end = end.size
        self._accumulator, self._previous = self._before.acc, start.size - 1

    def add(self, item: Opened, control: Control) -> None:
        """The next event of the stream.

        Raises:
            CompletenessError: INCOMPLETE_STREAM, UNEXPLAINED_ABSENCE.
        """
        place = f"seq {item.seq}"
        if not self._previous < item.seq < self._end:
            raise CompletenessError(
                Name.INCOMPLETE_STREAM, place, f"a seq above {self._previous} and below {self._end}", str(item.seq)
            )
        streams.check_member(self.key, item.hashes, place)
        check_absence(item, control)
        self._accumulator, self._previous = streammap.fold(self._accumulator, item.leaf), item.seq
        self.count += 1
        self.withheld += item.line.absent == "withheld"

    def finish(self) -> None:
        """Nothing of the stream is left out between the maps.

        Raises:
            CompletenessError: INCOMPLETE_STREAM.
        """
        held = self._after.count - self._before.count
        if held != self.count:
            raise CompletenessError(Name.INCOMPLETE_STREAM, self.stream, f"{held} events", str(self.count))
        last = self._previous if self.count else self._before.last_seq
        if self._after.last_seq != last:
            raise CompletenessError(
                Name.INCOMPLETE_STREAM, self.stream, f"seq {self._after.last_seq} as the last", str(last)
            )
        if self._after.acc != self._accumulator:
            raise CompletenessError(Name.INCOMPLETE_STREAM, self.stream, self._after.acc.hex(), self._accumulator.hex())


def verify_export(
    *,
    stream: str,
    lines: Sequence[Opened],
    start: MapState,
    start_proof: streammap.MapProof | None,
    end: MapState,
    end_proof: streammap.MapProof,
    control: Control,
) -> Export:
    """The lines are all events of the stream between the maps; see `Fold`.

    Raises:
        CompletenessError: INCOMPLETE_STREAM, STREAM_MAP, UNEXPLAINED_ABSENCE.
    """
    fold = Fold(stream, start=start, start_proof=start_proof, end=end, end_proof=end_proof)
    for item in lines:
        fold.add(item, control)
    fold.finish()
    return Export(stream, fold.count, fold.withheld, tuple(lines))


def _state_in(state: MapState, proof: streammap.MapProof | None, key: bytes) -> streammap.StreamState:
    place = f"map {state.size}"
    if state.size == 0:
        if proof is not None:
            raise CompletenessError(Name.STREAM_MAP, place, "no proof of the empty map", "one")
        return streammap.check_state(None, 0, place)
    if proof is None:
        raise CompletenessError(Name.STREAM_MAP, place, "a proof", "none")
    found = streammap.verify_map_proof(proof, stream=key, root=state.root, place=place)
    return streammap.check_state(found, state.size, place)


def check_inclusion(item: Opened, *, size: int, root: bytes, path: Sequence[bytes]) -> None:
    """The entry stands in the tree at the index its header names.

    Raises:
        InclusionError: INCLUSION.
    """
    merkle.verify_inclusion(leaf=item.leaf, index=item.seq, size=size, path=path, root=root)


def check_period(*, before: headers.Header | None, after: headers.Header, since: str, until: str | None) -> None:
    """The headers around a period prove that it lies between the maps.

    Raises:
        CompletenessError: INCOMPLETE_STREAM.
    """
    if before is not None and not before.t < since:
        raise CompletenessError(Name.INCOMPLETE_STREAM, f"seq {before.seq}", f"recorded before {since}", before.t)
    if until is not None and not after.t >= until:
        raise CompletenessError(Name.INCOMPLETE_STREAM, f"seq {after.seq}", f"recorded from {until} on", after.t)


def replay_maps(entries: Iterable[tuple[bytes, tuple[bytes, ...]]], opened: Sequence[Opened]) -> int:
    """Every map the log states is what the log itself gives; how many were compared.

    Args:
        entries: From seq 0, without a gap: header and stream hashes of each entry.
        opened: Every entry of stream `action:ledger.streams`, also those without effect, opened with their bodies.

    Raises:
        CompletenessError: STREAM_MAP, for a map that was not opened or differs from the replay.
        ProofError: an entry that does not prove itself.
    """
    stream = streams.stream_hash("action:ledger.streams")
    readable = {item.seq for item in opened if item.body is not None}
    maps = list(read_control(opened).maps.values())
    wanted = {item.size for item in maps}
    roots: dict[int, bytes] = {}
    states: dict[bytes, streammap.StreamState] = {}
    for seq, (raw, hashes) in enumerate(entries):
        header, _ = headers.check_entry(
            raw, seq=seq, origin=headers.parse_header(raw).origin, stream_hashes=list(hashes)
        )
        if stream in hashes and seq not in readable:
            raise CompletenessError(Name.STREAM_MAP, f"seq {seq}", "the opened event of this map", header.event_id)
        streammap.replay(states, seq=seq, leaf=headers.leaf_hash(raw), streams=hashes)
        if seq + 1 in wanted:
            roots[seq + 1] = streammap.StreamMap(states).root()
    for item in maps:
        if roots.get(item.size) != item.root:
            found = roots.get(item.size, b"").hex() or "fewer entries"
            raise CompletenessError(Name.STREAM_MAP, f"seq {item.seq}", found, item.root.hex())
    return len(maps)


def parse_json_line(raw: bytes, place: str) -> Any:  # noqa: ANN401 -- any JSON
    """One line of a JSON Lines file, in canonical form.

    Raises:
        MalformedError: otherwise.
    """
    try:
        value = canonical.admit(raw, max_bytes=8 * canonical.MAX_BYTES, sealed="allowed")
        if canonical.encode(value) != raw:
            raise malformed(place, "RFC 8785 bytes", "another spelling of the same value")
    except MalformedError as error:
        raise malformed(place, error.expected, error.found) from error
    return value
