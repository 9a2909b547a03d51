"""Prediction batches: one event holds count and Merkle root, each record is provable by its path (FORMAT.md §1)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from . import canonical, merkle
from .errors import malformed

_PREFIX = b"\x00auditportal/record/v1\n"


def record_leaf(salt: bytes, record: bytes) -> bytes:
    r"""`H(0x00 || "auditportal/record/v1\\n" || salt || record)`, for the record's RFC 8785 bytes."""
    return hashlib.sha256(_PREFIX + salt + record).digest()


def verify_record(
    body: Mapping[str, Any], *, index: int, salt: bytes, record: bytes, path: Sequence[bytes]
) -> canonical.Json:
    """The record, if it stands at this index of the batch.

    Raises:
        MalformedError: the event is no batch, or the record is not canonical JSON.
        InclusionError: the batch holds another record there.
    """
    metadata = body.get("metadata")
    count = metadata.get("count") if isinstance(metadata, dict) else None
    root = metadata.get("root") if isinstance(metadata, dict) else None
    if body.get("action") != "inference.batch" or type(count) is not int or not isinstance(root, str):
        raise malformed("/metadata", "count and root of a prediction batch", body.get("action"))
    try:
        expected = bytes.fromhex(root)
    except ValueError:
        raise malformed("/metadata/root", "64 lower-case hex digits", root) from None
    value = canonical.admit(record)
    if canonical.encode(value) != record:
        raise malformed(f"record {index}", "RFC 8785 bytes", "another spelling of the same value")
    merkle.verify_inclusion(leaf=record_leaf(salt, record), index=index, size=count, path=path, root=expected)
    return value
