"""What ingest can refuse.

IngestError
├── RecordedConflictError   a known id with other content: refused, and the attempt itself recorded
├── SourceError             a source that cannot be registered as asked; the message names the rule
└── NotUnderstoodError      a delivery of which nothing can be made; its bytes are kept and shown
"""

from __future__ import annotations

from auditportal.ledger.errors import Conflict


class IngestError(Exception):
    pass


class RecordedConflictError(IngestError):
    """`conflicts` as the ledger found them; `seq` is where the record of this attempt stands."""

    def __init__(self, conflicts: tuple[Conflict, ...], seq: int) -> None:
        super().__init__(f"{len(conflicts)} events are recorded otherwise; see event {seq}")
        self.conflicts = conflicts
        self.seq = seq


class SourceError(IngestError):
    pass


class NotUnderstoodError(IngestError):
    pass
