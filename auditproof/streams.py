"""Streams: what an export can be proven complete for (FORMAT.md §2).

The streams of an event follow from its body alone, by the function here, so writer and verifier cannot disagree.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from .errors import CompletenessError, Name, malformed

MAX_STREAMS = 4096  # of one event; its hashes are listed with a 16-bit count
STREAMED_TYPES = frozenset({"model_version", "dataset", "deployment", "case"})
HASH_BYTES = 32
_KEPT = "/@:"  # beside the unreserved characters of RFC 3986 §2.3, so `|` separates without doubt
_STREAM = b"auditportal/stream/v1\n"
_STREAMS = b"auditportal/streams/v1\n"


def escape(part: str) -> str:
    """One part of a key: percent-encoded UTF-8, uppercase hex, RFC 3986 unreserved characters and `/@:` kept."""
    return quote(part, safe=_KEPT)


# Actors, actions and models repeat from event to event, and escaping costs more than looking up.
@lru_cache(maxsize=65_536)
def _key(kind: str, part: str) -> str:
    return f"{kind}:{escape(part)}"


@lru_cache(maxsize=65_536)
def _key_of_acts(model: str, action: str, outcome: str) -> str:
    return f"model:{escape(model)}|action:{escape(action)}|outcome:{escape(outcome)}"


def stream_keys(body: Mapping[str, Any]) -> list[str]:
    """The distinct stream keys of an event, ascending.

    Args:
        body: The members of a checked body.

    Raises:
        MalformedError: more than 4,096 streams.
    """
    action, outcome = body["action"], body["outcome"]
    keys = {_key("actor", body["actor"]["id"]), _key("action", action), _key("source", body["source"]["id"])}
    for model in body["models"]:
        keys.add(_key("model", model))
        keys.add(_key_of_acts(model, action, outcome))
    for item in (body["subject"], *body["related"]):
        if item["type"] in STREAMED_TYPES:
            keys.add(_key(item["type"], item["id"]))
    if len(keys) > MAX_STREAMS:
        raise malformed("", f"at most {MAX_STREAMS} streams", len(keys))
    return sorted(keys)


@lru_cache(maxsize=65_536)
def stream_hash(key: str) -> bytes:
    r"""`H("auditportal/stream/v1\\n" || key)`, 32 bytes; keys are ASCII by construction."""
    return hashlib.sha256(_STREAM + key.encode("ascii")).digest()


def streams_commitment(hashes: Iterable[bytes]) -> bytes:
    """What a header says of its event's streams: the hash over the distinct stream hashes, ascending."""
    return joined_commitment(b"".join(sorted(set(hashes))))


def joined_commitment(joined: bytes) -> bytes:
    """As `streams_commitment`, for distinct hashes that stand in order one after the other."""
    return hashlib.sha256(_STREAMS + joined).digest()


def encode_hashes(hashes: Iterable[bytes]) -> bytes:
    """`u16be count || hashes`, the form in which a log serves them."""
    ordered = sorted(set(hashes))
    return struct.pack(">H", len(ordered)) + b"".join(ordered)


def decode_hashes(raw: bytes) -> tuple[list[bytes], bytes]:
    """The hashes of one entry, and the bytes after them.

    Raises:
        MalformedError: too few bytes, or hashes not ascending and distinct.
    """
    if len(raw) < 2:  # noqa: PLR2004 -- the 16-bit count
        raise malformed("byte 0", "a 16-bit count", raw)
    (count,) = struct.unpack_from(">H", raw)
    end = 2 + count * HASH_BYTES
    if len(raw) < end:
        raise malformed("byte 2", f"{count} hashes of 32 bytes", len(raw) - 2)
    return check_hashes([raw[at : at + HASH_BYTES] for at in range(2, end, HASH_BYTES)]), raw[end:]


def check_hashes(hashes: list[bytes]) -> list[bytes]:
    """The hashes, if each has 32 bytes and they ascend without a repetition.

    Raises:
        MalformedError: otherwise.
    """
    if len(hashes) > MAX_STREAMS or any(len(item) != HASH_BYTES for item in hashes):
        raise malformed("/streams", f"at most {MAX_STREAMS} hashes of 32 bytes", len(hashes))
    if any(left >= right for left, right in itertools.pairwise(hashes)):
        raise malformed("/streams", "distinct hashes, ascending", "another order")
    return hashes


def check_member(stream: bytes, hashes: Iterable[bytes], place: str) -> None:
    """The event belongs to the stream.

    Raises:
        CompletenessError: INCOMPLETE_STREAM.
    """
    if stream not in hashes:
        raise CompletenessError(Name.INCOMPLETE_STREAM, place, stream.hex(), "an event of other streams")
