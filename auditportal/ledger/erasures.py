"""Which absences the log explains: the targets of its `ledger.erased` events (FORMAT.md §8)."""

from __future__ import annotations

from auditportal.ledger import rows
from auditportal.ledger.errors import LogBrokenError
from auditportal.ledger.models import Event
from auditproof import events


def explanations() -> dict[int, tuple[int, str]]:
    """By the seq of an erased body: the event that erased it and the leaf it named. Only proven events count."""
    found: dict[int, tuple[int, str]] = {}
    seqs = list(
        Event.objects.filter(action="ledger.erased", source=events.PORTAL, outcome="done").values_list("seq", flat=True)
    )
    for seq, row in sorted(rows.at(seqs).items()):
        body = rows.prove(row).body or {}
        for target in body.get("metadata", {}).get("targets", []):
            if target["what"] == "body" and target["seq"] < seq:
                found[target["seq"]] = (seq, target["leaf"])
    return found


def check(proven: rows.Proven, explained: dict[int, tuple[int, str]]) -> None:
    """An absent body is explained by an event that names its leaf; an erased one is absent.

    Raises:
        LogBrokenError: UNEXPLAINED_ABSENCE.
    """
    by = explained.get(proven.seq)
    if proven.body is None and (by is None or by[1] != proven.leaf.hex()):
        raise LogBrokenError("UNEXPLAINED_ABSENCE", f"seq {proven.seq}", "an event that erased it", "none")
    if proven.body is not None and by is not None:
        raise LogBrokenError("UNEXPLAINED_ABSENCE", f"seq {proven.seq}", f"no body, erased by event {by[0]}", "a body")
