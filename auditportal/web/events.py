"""One event: its sentence, its facts, its recorded bytes, and the proof beside them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from auditportal.accounts.queries import display_names
from auditportal.accounts.roles import Permission
from auditportal.ledger import actions, drafts, queries as ledger, search
from auditportal.ledger.errors import LogBrokenError
from auditportal.ledger.queries import ProofState, RecordedEvent
from auditportal.ledger.query import Form, Query, Term, Value
from auditportal.web import formats
from auditportal.web.access import SignedInRequest, needs
from auditportal.web.rows import actor_name, display, term

BEYOND = 2**63 - 1  # no entry stands there: the database's own largest number
AROUND = 3  # entries shown before and after
OF_SUBJECT = 10


@dataclass(frozen=True, slots=True)
class Fact:
    name: str
    text: str
    href: str = ""
    is_mono: bool = False
    tag: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    text: str
    is_good: bool
    detail: str = ""


def _event(seq: int) -> RecordedEvent:
    found = ledger.recorded([seq]) if seq < BEYOND else []
    if not found:
        raise Http404
    return found[0]


@needs(Permission.READ)
@require_safe
def detail(request: SignedInRequest, seq: int) -> HttpResponse:
    event = _event(seq)
    [row] = display([event])
    steps, proof = _steps(event)
    neighbours = [n for n in range(max(0, seq - AROUND), seq + AROUND + 1) if n != seq]
    context = {
        "event": event,
        "row": row,
        "heading": _heading(event, row.actor, row.verb, row.subject),
        "facts": _facts(event),
        "steps": steps,
        "proof": proof,
        "indented": _indented(event),
        "header": event.raw_header.decode("ascii", "backslashreplace"),
        "around": display(ledger.recorded(neighbours)),
        "others": display(ledger.recorded(_of_subject(event))),
        "missing": _missing(event),
    }
    return render(request, "events/detail.html", context)


@needs(Permission.READ)
@require_safe
def row(request: SignedInRequest, seq: int) -> HttpResponse:
    """The fold-out of a timeline row."""
    event = _event(seq)
    steps, _ = _steps(event)
    context = {"event": event, "facts": _facts(event), "steps": steps, "indented": _indented(event)}
    return render(request, "events/detail.html#fold", context)


def _heading(event: RecordedEvent, actor: str, verb: str, subject: str) -> str:
    if event.is_broken:
        return f"Event {formats.count(event.seq)} does not match the log"
    return f"{actor} {verb} {subject}" if event.body else f"Event {formats.count(event.seq)}: body erased"


def _facts(event: RecordedEvent) -> list[Fact]:
    body = event.body
    if body is None:
        return [Fact("Seq", formats.count(event.seq))]
    names = display_names([body["actor"]["id"]])
    when, recorded = drafts.parse_instant(body["timestamp"]), event.recorded_at
    actor = body["actor"]
    assurance = actor["assurance"] + (f" by {actor['vouched_by']}" if "vouched_by" in actor else "")
    facts = [
        Fact("Seq", formats.count(event.seq)),
        Fact(body["timestamp_kind"].capitalize(), formats.moment(when), is_mono=False),
        Fact("Recorded", formats.moment(recorded) if recorded else ""),
        Fact(
            "Actor",
            actor_name(actor, names),
            f"/timeline/?q=actor%3A{actor['id']}",
            tag=assurance,
            tone="ok" if actor["assurance"] == "verified" else "warn",
        ),
        Fact("Pseudonym", actor["id"], is_mono=True),
        Fact("Action", body["action"], tag="custom" if actions.is_custom(body["action"]) else ""),
        Fact("Outcome", body["outcome"], tag="" if body["outcome"] == "done" else body["outcome"], tone="bad"),
        _object_fact("Subject", body["subject"]),
    ]
    facts += [_object_fact(item.get("relation", "related").capitalize(), item) for item in body["related"]]
    for name in ("environment", "reason"):
        if name in body:
            sealed = isinstance(body[name], dict)
            facts.append(
                Fact(
                    name.capitalize(),
                    "sealed" if sealed else formats.visible(body[name]),
                    tag="sealed" if sealed else "",
                )
            )
    if not_before := body.get("not_before"):
        facts.append(Fact("Not before", not_before))
    source = body["source"]
    facts.append(Fact("Source", formats.visible(source["id"]), f"/timeline/?q=source%3A{source['id']}"))
    if "native_id" in source:
        facts.append(Fact("Native id", formats.visible(source["native_id"]), is_mono=True))
    facts.append(Fact("Event id", body["event_id"], is_mono=True))
    if artifact := body.get("integrity", {}).get("artifact_sha256"):
        facts.append(Fact("Artifact", f"sha256:{artifact}", is_mono=True, tag="reported only", tone="warn"))
    return facts


def _object_fact(name: str, item: dict[str, Any]) -> Fact:
    query = term("related", f"{item['type']}:{item['id']}")
    return Fact(formats.visible(name), formats.visible(f"{item['type']} {item['id']}"), f"/timeline/?q={quote(query)}")


def _indented(event: RecordedEvent) -> str:
    if event.body is None:
        return ""
    return formats.visible_lines(orjson.dumps(event.body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode())


def _missing(event: RecordedEvent) -> list[str]:
    """What a complete record of this action would also say; never invented, so shown as not reported."""
    if event.body is None:
        return []
    metadata = event.body.get("metadata", {})
    return [name for name in actions.describe(event.body["action"]).expected if name not in metadata]


def _of_subject(event: RecordedEvent) -> list[int]:
    if event.body is None:
        return []
    subject = event.body["subject"]
    text = f"{subject['type']}:{subject['id']}"
    query = Query((Term("related", (Value(Form.EXACT, text),)),))
    page = search.page(query, now=timezone.now(), resolve=lambda _: [], after=None, most=OF_SUBJECT + 1)
    return [seq for seq in page.seqs if seq != event.seq][:OF_SUBJECT]


def _steps(event: RecordedEvent) -> tuple[list[Step], ledger.InclusionProof | None]:
    """What was checked just now, in order; the first failure ends the list."""
    if event.is_broken:
        return [Step(event.failure, is_good=False)], None
    leaf = event.leaf.hex()
    commitment = (
        "Body and salt give the commitment in the header" if event.body else "The body is erased; its commitment stands"
    )
    steps = [
        Step(commitment, is_good=True),
        Step(f"The header hashes to leaf {leaf[:8]}…{leaf[-4:]}", is_good=True, detail=leaf),
        Step(
            "The next entry names this leaf" if event.proof == ProofState.CHECKPOINTED else "No entry contradicts it",
            is_good=True,
        ),
    ]
    try:
        proof = ledger.inclusion_proof(event.seq)
    except LogBrokenError as error:
        return [*steps, Step(str(error), is_good=False)], None
    if proof is None:
        return steps, None
    size = formats.count(proof.checkpoint.size)
    root = hashlib.sha256(proof.note.encode()).hexdigest()
    return [
        *steps,
        Step(f"Included in the checkpoint of size {size} by a path of {len(proof.path)} hashes", is_good=True),
        Step("The checkpoint bears the log's signature", is_good=True, detail=root),
        Step("No witness has cosigned it: self-attested", is_good=False),
    ], proof


@needs(Permission.READ)
@require_safe
def as_json(request: SignedInRequest, seq: int) -> HttpResponse:  # noqa: ARG001 -- the decorators' signature
    """Exactly the recorded bytes; a broken row is an error and never content."""
    event = _event(seq)
    if event.is_broken or event.raw_body is None:
        return HttpResponse(
            event.failure or "erased", status=409 if event.is_broken else 410, content_type="text/plain"
        )
    return HttpResponse(event.raw_body, content_type="application/json")


@needs(Permission.READ)
@require_safe
def proof(request: SignedInRequest, seq: int) -> HttpResponse:  # noqa: ARG001 -- the decorators' signature
    """The receipt: a C2SP tlog-proof of this entry under the newest checkpoint."""
    _event(seq)
    found = ledger.inclusion_proof(seq)
    if found is None:
        response = HttpResponse("waiting for a checkpoint\n", status=404, content_type="text/plain")
        response["Retry-After"] = "1"
        return response
    response = HttpResponse(found.receipt, content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="event-{seq}.tlog-proof"'
    return response
