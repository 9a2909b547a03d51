"""What ends a job early.

JobError            the work cannot be done; the message is shown
CancelledError      somebody asked to stop
LostLeaseError      another worker took the job over; this one writes nothing more
"""

from __future__ import annotations


class JobError(Exception):
    pass


class CancelledError(Exception):
    pass


class LostLeaseError(Exception):
    pass
