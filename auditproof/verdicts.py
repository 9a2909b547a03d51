"""The five verdicts, and that the worst wins (FORMAT.md §9). Nothing less than the last two is ever shown green."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from .errors import ProofError


class Grade(IntEnum):
    """From best to worst."""

    COMPLETE = 0
    RELATIVE = 1
    PARTIAL = 2
    UNAUTHENTICATED = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verdict in the exact words every screen, report and program uses."""

    grade: Grade
    text: str

    @property
    def is_green(self) -> bool:
        """Whether it may be shown as good."""
        return self.grade <= Grade.RELATIVE


COMPLETE = Verdict(Grade.COMPLETE, "complete")
RELATIVE = Verdict(Grade.RELATIVE, "complete relative to the map")
UNAUTHENTICATED = Verdict(Grade.UNAUTHENTICATED, "self-consistent, not authenticated")


def partial(shown: int, of: int) -> Verdict:
    """Some bodies of the scope were withheld."""
    return Verdict(Grade.PARTIAL, f"partial {shown} of {of}")


def failed(error: ProofError) -> Verdict:
    """A check failed; `seq n` is named where the place is one."""
    where = f" at {error.place}" if error.place.startswith("seq ") else ""
    return Verdict(Grade.FAILED, f"failed{where}: {error.name}")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a whole: never better than its worst part."""
    return max(verdicts, key=lambda verdict: verdict.grade)
