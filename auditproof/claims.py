"""The numbers of a bundle's report: made from the events, and made again by whoever verifies it.

The report is made from these claims alone (`report.py`), so that a pretty page cannot say anything that the events do
not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import canonical
from .errors import HashMismatchError, Name
from .events import PORTAL, Body
from .exports import MapState, Opened

EVENTS = "data/events/"
_TEXTS = {
    "scope": ("Model that this bundle is about", "data/bundle.json#/scope", "scope"),
    "issued_to": ("Whom the portal made this bundle for, and why, as it says", "data/bundle.json", "stated"),
    "map": ("Stream map up to which the model's events are complete", "data/events/support.jsonl", "map"),
    "checkpoint": ("Signed tree head that all entries are proven under", "data/proofs/checkpoint-to.txt", "checkpoint"),
    "events": ("Events of the model", EVENTS, "recount"),
    "erased": ("Bodies erased, each by an event", EVENTS, "recount"),
    "withheld": ("Bodies withheld here", EVENTS, "recount"),
    "period": ("When the log recorded the first and the last of them", EVENTS, "recount"),
    "promotions": ("Promotions done", EVENTS, "recount"),
    "approvals": ("Approvals signed", EVENTS, "recount"),
    "rejections": ("Requests rejected", EVENTS, "recount"),
    "refusals": ("Attempts refused", EVENTS, "recount"),
    "failures": ("Attempts that failed", EVENTS, "recount"),
    "findings": ("Findings opened and closed by reconciliation", EVENTS, "recount"),
    "actions": ("Events by action and outcome", EVENTS, "recount"),
    "promotion_list": ("Each attempt to promote, with the approvals of its request", EVENTS, "recount"),
    "signatures": ("Each signature: who, when, what it meant, and how it was given", "data/approvals/", "statements"),
}
_UNSEEN = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


@dataclass(slots=True)
class Facts:
    """What is counted while the events pass by; bodies are not kept, but for those of signatures."""

    events: int = 0
    erased: int = 0
    withheld: int = 0
    first: str | None = None
    last: str | None = None
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    promotions: list[dict[str, Any]] = field(default_factory=list)
    approvals_of: dict[str, list[int]] = field(default_factory=dict)  # by request
    signed: dict[int, Body] = field(default_factory=dict)  # signing events by seq
    custody: list[dict[str, Any]] = field(default_factory=list)

    def add(self, item: Opened) -> None:
        """The next event of the export."""
        self.events += 1
        self.first = self.first or item.header.t
        self.last = item.header.t
        self.erased += item.line.absent == "erased"
        self.withheld += item.line.absent == "withheld"
        body = item.body
        if body is None:
            return
        action, outcome = str(body["action"]), str(body["outcome"])
        self.actions[action, outcome] += 1
        metadata = body.get("metadata", {})
        request = metadata.get("request")
        if action == "promote":
            self.promotions.append(_promotion(item.seq, item.header.t, body, request))
        if is_signature(body):
            self.signed[item.seq] = body
            if action == "approve" and isinstance(request, str):
                self.approvals_of.setdefault(request, []).append(item.seq)
        if body["source"]["id"] == PORTAL and action.startswith(("bundle.", "access.")):
            self.custody.append(_custody(item.seq, item.header.t, body))

    def count(self, action: str, outcome: str = "done") -> int:
        """How many events of this action and outcome."""
        return self.actions[action, outcome]


def is_signature(body: Mapping[str, Any]) -> bool:
    """Whether the event is a signature given in the portal; what other systems report as approved never is."""
    is_decision = body["action"] in ("approve", "reject") and body["outcome"] == "done"
    return is_decision and body["source"]["id"] == PORTAL and "approval" in body.get("metadata", {})


def _promotion(seq: int, recorded: str, body: Mapping[str, Any], request: object) -> dict[str, Any]:
    return {
        "seq": seq,
        "recorded": recorded,
        "outcome": body["outcome"],
        "version": body["subject"]["id"],
        "environment": body.get("environment", ""),
        "request": request if isinstance(request, str) else "",
    }


def _custody(seq: int, recorded: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "action": body["action"],
        "actor": body["actor"]["id"],
        "outcome": body["outcome"],
        "recorded": recorded,
        "seq": seq,
        "subject": body["subject"]["id"],
    }


def custody_lines(facts: Facts) -> bytes:
    """Who asked for, got, viewed or downloaded this scope before: `custody.jsonl`."""
    return b"".join(canonical.encode(item) + b"\n" for item in facts.custody)


def make(
    facts: Facts,
    *,
    model: str,
    issued_to: Mapping[str, str],
    map_to: MapState,
    checkpoint: Mapping[str, Any],
    signatures: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Every claim of a bundle about one model, in order."""
    values: dict[str, Any] = {
        "scope": model,
        "issued_to": dict(issued_to),
        "map": {"size": map_to.size, "seq": map_to.seq, "root": map_to.root.hex()},
        "checkpoint": dict(checkpoint),
        "events": facts.events,
        "erased": facts.erased,
        "withheld": facts.withheld,
        "period": {"first": facts.first, "last": facts.last},
        "promotions": facts.count("promote"),
        "approvals": sum(body["action"] == "approve" for body in facts.signed.values()),
        "rejections": sum(body["action"] == "reject" for body in facts.signed.values()),
        "refusals": sum(count for (_, outcome), count in facts.actions.items() if outcome == "refused"),
        "failures": sum(count for (_, outcome), count in facts.actions.items() if outcome == "failed"),
        "findings": {"opened": facts.count("finding.opened"), "closed": facts.count("finding.closed")},
        "actions": [
            {"action": action, "count": count, "outcome": outcome}
            for (action, outcome), count in sorted(facts.actions.items())
        ],
        "promotion_list": [
            item | {"approvals": facts.approvals_of.get(item["request"], [])} for item in facts.promotions
        ],
        "signatures": list(signatures),
    }
    return [
        {"id": name, "text": text, "value": values[name], "evidence": evidence, "check": check}
        for name, (text, evidence, check) in _TEXTS.items()
    ]


def check(stated: object, computed: Sequence[Mapping[str, Any]]) -> None:
    """What the bundle claims is what its events give.

    Raises:
        HashMismatchError: CLAIM with the first claim that differs.
    """
    if not isinstance(stated, list) or len(stated) != len(computed):
        raise HashMismatchError(Name.CLAIM, "claims", f"{len(computed)} claims", "another number")
    for said, found in zip(stated, computed, strict=True):
        if said != found:
            place = f"claim {found['id']}"
            value = said.get("value") if isinstance(said, dict) else said
            raise HashMismatchError(Name.CLAIM, place, _short(found["value"]), _short(value))


def _short(value: object) -> str:
    return ascii(value)[:120]


def display(value: object) -> str:
    """A value as the report shows it: thousands with commas, unseen characters as escapes."""
    if value is None:
        return "none"
    if isinstance(value, bool) or not isinstance(value, int):
        return _UNSEEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", str(value))
    return f"{value:,}"
