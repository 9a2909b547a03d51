"""Streams: for which selections of events an export can be proven complete.

The streams of an event follow from its body alone. Their hashes are committed to in the header; they are unsalted, so
a stream key never holds more than registered ids and pseudonyms.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .errors import CompletenessError, Name, malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_STREAMS = 4096  # of one event; an event with more is split
HASH_BYTES = 32
SUBJECT_TYPES = frozenset({"model_version", "dataset", "deployment", "case"})  # those whose subjects have a stream

# Actors, actions and models repeat from event to event: the caches halve the cost of an event's streams.
_CACHED = 65_536


def stream_keys(body: Mapping[str, Any]) -> list[str]:
    """The stream keys of a valid body, distinct and ascending.

    Raises:
        MalformedError: There are more than `MAX_STREAMS`.
    """
    action = quote_part(body["action"])
    keys = {
        f"action:{action}",
        f"actor:{quote_part(body['actor']['id'])}",
        f"source:{quote_part(body['source']['id'])}",
    }
    for name in body["models"]:
        model = quote_part(name)
        keys.add(f"model:{model}")
        keys.add(f"model:{model}|action:{action}|outcome:{body['outcome']}")
    for subject in (body["subject"], *body["related"]):
        if subject["type"] in SUBJECT_TYPES:
            keys.add(f"{subject['type']}:{quote_part(subject['id'])}")
    if len(keys) > MAX_STREAMS:
        raise malformed("", f"at most {MAX_STREAMS} streams an event", len(keys))
    return sorted(keys)


@lru_cache(maxsize=_CACHED)
def quote_part(text: str) -> str:
    """One part of a stream key, percent-encoded but for RFC 3986 unreserved characters, `/`, `@` and `:`."""
    return quote(text, safe="/@:")


@lru_cache(maxsize=_CACHED)
def stream_hash(key: str) -> bytes:
    """The 32 bytes that stand for a stream."""
    return sha256(b"auditportal/stream/v1\n" + key.encode("ascii")).digest()


def streams_commitment(hashes: Iterable[bytes]) -> bytes:
    """What a header says of an event's stream hashes, given in any order."""
    return sha256(b"auditportal/streams/v1\n" + b"".join(sorted(set(hashes)))).digest()


def encode_streams(hashes: Sequence[bytes]) -> bytes:
    """One entry of `/tlog/streams/…`: `u16be count`, then the hashes as given (they are kept ascending)."""
    return struct.pack(">H", len(hashes)) + b"".join(hashes)


def decode_streams(raw: bytes) -> list[list[bytes]]:
    """The stream hashes of each entry of one `/tlog/streams/…` resource.

    Raises:
        MalformedError: The bytes end inside an entry, or an entry's hashes are not distinct and ascending.
    """
    entries: list[list[bytes]] = []
    at = 0
    while at < len(raw):
        start = at + 2
        at = start + HASH_BYTES * int.from_bytes(raw[at:start], "big")
        if start > len(raw) or at > len(raw):
            raise malformed(f"entry {len(entries)}", "a count and that many hashes", "the end of the resource")
        hashes = [raw[i : i + HASH_BYTES] for i in range(start, at, HASH_BYTES)]
        check_ascending(hashes, f"entry {len(entries)}")
        entries.append(hashes)
    return entries


def check_ascending(hashes: Sequence[bytes], place: str) -> None:
    """Stated stream hashes are distinct, ascending, and not too many.

    Raises:
        MalformedError: They are not.
    """
    if len(hashes) > MAX_STREAMS:
        raise malformed(place, f"at most {MAX_STREAMS} stream hashes", len(hashes))
    if any(later <= earlier for earlier, later in zip(hashes, hashes[1:], strict=False)):
        raise malformed(place, "stream hashes, distinct and ascending", "another order")


def check_member(hashes: Sequence[bytes], stream: bytes, place: str) -> None:
    """An event belongs to the stream for which it is presented.

    Raises:
        CompletenessError: INCOMPLETE_STREAM, it does not.
    """
    if stream not in hashes:
        raise CompletenessError(Name.INCOMPLETE_STREAM, place, f"an event of stream {stream.hex()}", "another event")
