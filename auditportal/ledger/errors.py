"""What can go wrong in the ledger.

LedgerError
├── NotRecordingError    append outside a transaction: act and record would not commit together
├── InvalidEventError    an event that breaks FORMAT.md §1; `faults` name index, member and rule
├── ConflictError        a known (source, event_id) with other content; `conflicts` name index and seq
├── LogBrokenError       stored bytes that do not prove what they claim; `name` from FORMAT.md §9
└── SignerRefusedError   the signer's memory contradicts the database; nothing was signed
"""

from __future__ import annotations

from dataclasses import dataclass


class LedgerError(Exception):
    pass


class NotRecordingError(LedgerError):
    pass


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule that one event broke. `member` is a JSON pointer into that event."""

    index: int
    member: str
    rule: str


class InvalidEventError(LedgerError):
    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(f"event {fault.index}{fault.member}: {fault.rule}" for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Conflict:
    index: int
    source: str
    event_id: str
    seq: int | None  # where the other content stands; None when it is in the same batch


class ConflictError(LedgerError):
    def __init__(self, conflicts: tuple[Conflict, ...]) -> None:
        super().__init__("; ".join(f"event {item.index}: {item.event_id} is recorded otherwise" for item in conflicts))
        self.conflicts = conflicts


class LogBrokenError(LedgerError):
    def __init__(self, name: str, place: str, expected: str = "", found: str = "") -> None:
        super().__init__(f"{place}: {name}" + (f" (expected {expected}, found {found})" if expected or found else ""))
        self.name = name
        self.place = place
        self.expected = expected
        self.found = found


class SignerRefusedError(LedgerError):
    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
