"""How the outside world fails, sorted into the states that are never merged.

ConnectorError          `reason` is a sentence for people; `retryable` says whether asking again may help
├── UnreachableError    no usable answer: refused, timed out, 401, 403, 429, 5xx, HTML, a foreign redirect
├── MissingError        the system answers well and says that this object is not there
├── MismatchError       an answer whose bytes are not what their name says
└── TruncatedError      an answer that broke off before its end
"""

from __future__ import annotations

SHOWN_CHARS = 200  # what a foreign server says is cut before it reaches a page or a log


class ConnectorError(Exception):
    """An answer that cannot be used as fact."""

    state = "unreachable"

    def __init__(self, reason: str, *, retryable: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class UnreachableError(ConnectorError):
    state = "unreachable"


class MissingError(ConnectorError):
    state = "missing"


class MismatchError(ConnectorError):
    """`expected` and `found` are digests or sizes, as text."""

    state = "mismatch"

    def __init__(self, reason: str, *, expected: str, found: str) -> None:
        super().__init__(reason)
        self.expected = expected
        self.found = found


class TruncatedError(ConnectorError):
    state = "truncated"


def show(text: str) -> str:
    """Foreign text as one printable line of bounded length."""
    line = " ".join(text.split())
    printable = "".join(character if character.isprintable() else "?" for character in line[: SHOWN_CHARS + 1])
    return printable if len(printable) <= SHOWN_CHARS else printable[:SHOWN_CHARS] + "…"
