"""The keys of a log over its life: which key may sign which sizes (FORMAT.md §4).

The log announces, retires and disowns its keys by `ledger.key` events. A verifier starts from the key it was given and
believes such an event only when a key it already trusts has signed a checkpoint that covers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import checkpoints, notes
from .errors import Name, SignatureError, malformed
from .events import PORTAL


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The sizes a key may sign: `first_size` to the smaller of the two ends, where they are set."""

    key: notes.VerifierKey
    first_size: int
    last_size: int | None = None
    trusted_up_to: int | None = None

    def covers(self, size: int) -> bool:
        """Whether a checkpoint of this size may bear, and must bear, this key's signature."""
        ends = [end for end in (self.last_size, self.trusted_up_to) if end is not None]
        return self.first_size <= size and all(size <= end for end in ends)


def apply(ranges: Sequence[KeyRange], *, seq: int, body: Mapping[str, Any]) -> list[KeyRange]:
    """The ranges after one control event; events that are none, or were not done, change nothing.

    Raises:
        MalformedError: a key event that says what it may not.
    """
    if body["source"]["id"] != PORTAL or body["outcome"] != "done":
        return list(ranges)
    if body["action"] == "ledger.genesis":
        key = notes.VerifierKey.parse(str(body.get("metadata", {}).get("vkey")))
        return [*(item for item in ranges if item.key != key), KeyRange(key, 0)]
    if body["action"] != "ledger.key":
        return list(ranges)
    return _change(list(ranges), seq, body.get("metadata", {}))


def _change(ranges: list[KeyRange], seq: int, metadata: Mapping[str, Any]) -> list[KeyRange]:
    place = f"seq {seq}/metadata"
    key = notes.VerifierKey.parse(str(metadata.get("vkey")))
    if "first_size" in metadata:
        if metadata["first_size"] != seq + 1:
            raise malformed(f"{place}/first_size", str(seq + 1), metadata["first_size"])
        return [*(item for item in ranges if item.key != key), KeyRange(key, seq + 1)]
    for name in ("last_size", "trusted_up_to"):
        if name in metadata:
            if type(metadata[name]) is not int or metadata[name] < 0:
                raise malformed(f"{place}/{name}", "a size", metadata[name])
            change: dict[str, Any] = {name: metadata[name]}
            return [replace(item, **change) if item.key == key else item for item in ranges]
    raise malformed(place, "first_size, last_size or trusted_up_to", "none of them")


def open_ranged(note: str, *, origin: str, ranges: Sequence[KeyRange]) -> checkpoints.Checkpoint:
    """The checkpoint, signed by every key whose range covers its size, and by no known key outside its range.

    Raises:
        SignatureError: SIGNATURE when none signed or one's signature fails, KEY_RANGE otherwise.
        ProofError: MALFORMED, ORIGIN.
    """
    checkpoint, signed = checkpoints.open_signed(note, origin=origin, keys=[item.key for item in ranges])
    for item in ranges:
        if item.covers(checkpoint.size) != (item.key in signed):
            wanted = "a signature" if item.covers(checkpoint.size) else "no signature"
            place = f"checkpoint {checkpoint.size}"
            found = "one" if item.key in signed else "none"
            raise SignatureError(Name.KEY_RANGE, place, f"{wanted} of {item.key.key_id.hex()}", found)
    return checkpoint
