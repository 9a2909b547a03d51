"""What approvals can refuse before there is anything to record.

ApprovalError   a request that cannot be opened as asked; the message says why
"""

from __future__ import annotations


class ApprovalError(Exception):
    pass
