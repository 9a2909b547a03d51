"""Headers and leaves: the 370 ASCII bytes of each entry that the tree is built over (FORMAT.md §3, RFC 6962 §2.1)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from . import events, streams
from .errors import ChainError, HashMismatchError, Name, malformed, show

NO_PREV = bytes(32)  # what seq 0 names as the leaf before it
ORIGIN = re.compile(r"[a-z0-9.-]+(/[a-z0-9._~-]+)*")
_HEADER = re.compile(
    rb'\{"body":"([0-9a-f]{64})","id":"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",'
    rb'"log":"([a-z0-9.-]+(?:/[a-z0-9._~-]+)*)","prev":"([0-9a-f]{64})","seq":(0|[1-9][0-9]*),'
    rb'"streams":"([0-9a-f]{64})",'
    rb'"t":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)","v":1\}'
)
_PREV_AT = len('{"body":"","id":"","log":"","prev":"') + 64 + 36  # and the length of the log's name
MAX_SEQ_DIGITS = 18  # a log of 10^18 entries is not to be had; longer numbers are refused before they are read
MAX_HEADER_BYTES = 65_535  # an entry of C2SP tlog-tiles has a 16-bit length


@dataclass(frozen=True, slots=True)
class Header:
    """The members of a header; hashes are 32 bytes."""

    body: bytes
    event_id: str
    origin: str
    prev: bytes
    seq: int
    streams: bytes
    t: str


def make_header(*, body: bytes, event_id: str, origin: str, prev: bytes, seq: int, streams: bytes, t: str) -> bytes:
    """The exact bytes of a header; the members are taken as valid, as `parse_header` would find."""
    return (
        f'{{"body":"{body.hex()}","id":"{event_id}","log":"{origin}","prev":"{prev.hex()}","seq":{seq},'
        f'"streams":"{streams.hex()}","t":"{t}","v":1}}'
    ).encode()


def write_header(header: Header) -> bytes:
    """The exact bytes of a header of these members."""
    return make_header(
        body=header.body,
        event_id=header.event_id,
        origin=header.origin,
        prev=header.prev,
        seq=header.seq,
        streams=header.streams,
        t=header.t,
    )


def told_prev(raw: bytes, origin: str) -> bytes:
    """The leaf hash that stands where a header of this log names the one before it; the rest is not looked at.

    Raises:
        ValueError: no hex digits stand there.
    """
    at = _PREV_AT + len(origin)
    return bytes.fromhex(raw[at : at + 64].decode("ascii"))


def told_time(raw: bytes, place: str = "") -> str:
    """The time that stands where a header has it; the rest is not looked at.

    Raises:
        MalformedError: no time stands there.
    """
    return events.check_time(raw[-35:-8].decode("ascii", "replace"), place)


def parse_header(raw: bytes, place: str = "") -> Header:
    """The members of a header.

    Raises:
        MalformedError: any byte differs from the form of FORMAT.md §3.
    """
    if len(raw) > MAX_HEADER_BYTES:
        raise malformed(place, f"at most {MAX_HEADER_BYTES} bytes", len(raw))
    match = _HEADER.fullmatch(raw)
    if match is None:
        raise malformed(place, "a header", raw)
    body, event_id, origin, prev, seq, stream_commitment, t = match.groups()
    check_origin_name(origin.decode(), place)
    events.check_time(t.decode(), place)
    if len(seq) > MAX_SEQ_DIGITS:
        raise malformed(place, f"a seq of at most {MAX_SEQ_DIGITS} digits", len(seq))
    return Header(
        body=bytes.fromhex(body.decode()),
        event_id=event_id.decode(),
        origin=origin.decode(),
        prev=bytes.fromhex(prev.decode()),
        seq=int(seq),
        streams=bytes.fromhex(stream_commitment.decode()),
        t=t.decode(),
    )


def check_origin_name(origin: str, place: str = "") -> str:
    """A log's name: lower-case segments, none of them `.` or `..`.

    Raises:
        MalformedError: otherwise.
    """
    if ORIGIN.fullmatch(origin) is None or {".", ".."} & set(origin.split("/")):
        raise malformed(place, "an origin such as audit.example.org/ledger", origin)
    return origin


def leaf_hash(header: bytes) -> bytes:
    """`H(0x00 || header)` (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x00" + header).digest()


def instant(header: Header) -> datetime:
    """When the log recorded the entry, by its own clock."""
    return datetime.fromisoformat(header.t)


def check_entry(
    raw: bytes,
    *,
    seq: int,
    origin: str,
    leaf: bytes | None = None,
    prev: bytes | None = None,
    salt: bytes | None = None,
    body: bytes | None = None,
    stream_hashes: list[bytes] | None = None,
) -> tuple[Header, events.Body | None]:
    """One entry proven from its bytes, as far as they are given; a body is given with its salt.

    Raises:
        MalformedError: header, body or stream hashes break the format.
        ChainError: SEQ_GAP, ORIGIN, PREV_CHAIN.
        HashMismatchError: LEAF_HASH, BODY_COMMITMENT, STREAMS_COMMITMENT.
    """
    place = f"seq {seq}"
    header = parse_header(raw, place)
    if leaf is not None and leaf != leaf_hash(raw):
        raise HashMismatchError(Name.LEAF_HASH, place, leaf_hash(raw).hex(), leaf.hex())
    if header.seq != seq:
        raise ChainError(Name.SEQ_GAP, place, str(seq), str(header.seq))
    events.check_origin(header.origin, origin, place)
    if prev is not None and header.prev != prev:
        raise ChainError(Name.PREV_CHAIN, place, prev.hex(), header.prev.hex())
    if stream_hashes is not None:
        check_streams(header, streams.check_hashes(stream_hashes), place)
    if body is None or salt is None:
        return header, None
    return header, check_body_of(header, salt=salt, body=body, place=place)


def check_streams(header: Header, hashes: list[bytes], place: str) -> None:
    """The header commits to exactly these stream hashes.

    Raises:
        HashMismatchError: STREAMS_COMMITMENT.
    """
    found = streams.streams_commitment(hashes)
    if found != header.streams:
        raise HashMismatchError(Name.STREAMS_COMMITMENT, place, header.streams.hex(), found.hex())


def check_body_of(header: Header, *, salt: bytes, body: bytes, place: str) -> events.Body:
    """The header commits to this body, and body and header agree about id, version and streams.

    Raises:
        MalformedError: the body breaks the format.
        HashMismatchError: BODY_COMMITMENT, STREAMS_COMMITMENT.
    """
    if len(salt) != events.SALT_BYTES:
        raise malformed(f"{place}/salt", "16 bytes", salt)
    found = events.body_commitment(salt, body)
    if found != header.body:
        raise HashMismatchError(Name.BODY_COMMITMENT, place, header.body.hex(), found.hex())
    value = events.parse_body(body)
    if value["event_id"] != header.event_id:
        raise HashMismatchError(Name.BODY_COMMITMENT, place, show(value["event_id"]), show(header.event_id))
    check_streams(header, [streams.stream_hash(key) for key in streams.stream_keys(value)], place)
    return value
