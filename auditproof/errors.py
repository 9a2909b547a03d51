"""Everything that a proof can fail with, under the names of the format document.

    ProofError                  name, place, expected, found
    ├── MalformedError          MALFORMED: bytes that the format does not allow
    ├── HashMismatchError       LEAF_HASH, BODY_COMMITMENT, STREAMS_COMMITMENT, DISCLOSURE, MANIFEST, CLAIM
    ├── ChainError              SEQ_GAP, PREV_CHAIN, ORIGIN, CLOCK_SKEW
    ├── SignatureError          SIGNATURE, KEY_RANGE, TIMESTAMP, UNWITNESSED, STALE
    ├── InclusionError          INCLUSION
    ├── ConsistencyError        CONSISTENCY, ROLLBACK, FORK
    └── CompletenessError       INCOMPLETE_STREAM, STREAM_MAP, UNEXPLAINED_ABSENCE, UNLISTED_FILE

    NotCheckedError             not a failed proof: a check for which this machine lacks the means

Parsers and verifiers of this package let nothing else escape, whatever bytes they are given.
"""

from __future__ import annotations

from enum import StrEnum, unique

SHOWN_CHARS = 120  # what came from outside is cut in messages: a hostile value must not fill a terminal or a log


@unique
class Name(StrEnum):
    """The closed list of names under which a check fails."""

    MALFORMED = "MALFORMED"
    LEAF_HASH = "LEAF_HASH"
    BODY_COMMITMENT = "BODY_COMMITMENT"
    STREAMS_COMMITMENT = "STREAMS_COMMITMENT"
    SEQ_GAP = "SEQ_GAP"
    PREV_CHAIN = "PREV_CHAIN"
    ORIGIN = "ORIGIN"
    CLOCK_SKEW = "CLOCK_SKEW"
    INCLUSION = "INCLUSION"
    CONSISTENCY = "CONSISTENCY"
    ROLLBACK = "ROLLBACK"
    FORK = "FORK"
    INCOMPLETE_STREAM = "INCOMPLETE_STREAM"
    STREAM_MAP = "STREAM_MAP"
    UNEXPLAINED_ABSENCE = "UNEXPLAINED_ABSENCE"
    KEY_RANGE = "KEY_RANGE"
    SIGNATURE = "SIGNATURE"
    TIMESTAMP = "TIMESTAMP"
    UNWITNESSED = "UNWITNESSED"
    STALE = "STALE"
    DISCLOSURE = "DISCLOSURE"
    CLAIM = "CLAIM"
    MANIFEST = "MANIFEST"
    UNLISTED_FILE = "UNLISTED_FILE"
    HEAD_MISMATCH = "HEAD_MISMATCH"  # this one and the next two are found by the portal alone
    PROJECTION_MISMATCH = "PROJECTION_MISMATCH"
    GUARD_MISSING = "GUARD_MISSING"


class ProofError(Exception):
    """A check that failed.

    Attributes:
        name: Under which name of the format document.
        place: Where: `seq 12`, a JSON pointer, a file, or a byte offset.
        expected: What the format or the arithmetic demands, in words or hex.
        found: What stood there, cut to a readable length.
    """

    def __init__(self, name: Name | str, place: str, expected: str, found: str) -> None:
        """Takes a name of the closed list; another one is a mistake of the caller (ValueError)."""
        # All four are passed on, so that the error survives pickling between worker processes.
        super().__init__(name, place, expected, found)
        self.name = Name(name)
        self.place = place
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        """One line for a terminal or a log."""
        where = f" at {self.place}" if self.place else ""
        return f"{self.name}{where}: expected {self.expected}, found {self.found}"


class MalformedError(ProofError):
    """Bytes that the format does not allow."""


class HashMismatchError(ProofError):
    """A digest or commitment that its content does not give."""


class ChainError(ProofError):
    """A header that does not stand where it says it stands."""


class SignatureError(ProofError):
    """A signature, a key or a time stamp that does not hold."""


class InclusionError(ProofError):
    """A leaf that the tree does not hold at that index."""


class ConsistencyError(ProofError):
    """A tree that is no continuation of an earlier one."""


class CompletenessError(ProofError):
    """Something left out, or a map that cannot be true."""


class NotCheckedError(Exception):
    """A check that this machine cannot make; never to be read as success.

    Attributes:
        what: The check, in words for the report.
    """

    def __init__(self, what: str) -> None:
        """Names the check that was not made."""
        super().__init__(what)
        self.what = what


def show(value: object) -> str:
    """Any value as printable ASCII of bounded length, for the `found` of an error."""
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value[:SHOWN_CHARS]).hex()
    elif isinstance(value, str):
        text = ascii(value[:SHOWN_CHARS])
    else:
        text = ascii(value) if isinstance(value, int | float | None) and not _is_huge(value) else type(value).__name__
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


def malformed(place: str, expected: str, found: object) -> MalformedError:
    """The error for bytes that the format does not allow; `found` is made printable here."""
    return MalformedError(Name.MALFORMED, place, expected, show(found))


def _is_huge(value: object) -> bool:
    # Python refuses to print integers of more than 4300 digits, with a ValueError that must not escape from here.
    return isinstance(value, int) and value.bit_length() > SHOWN_CHARS
