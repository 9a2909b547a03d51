"""Events as rows: every text formatted here, so that the template only places it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any
from urllib.parse import quote

from django.utils.safestring import SafeString, mark_safe

from auditportal.accounts.queries import display_names
from auditportal.ledger import actions, drafts
from auditportal.ledger.queries import ProofState, RecordedEvent
from auditportal.web import formats
from auditportal.web.templatetags.ui import icon

FAR_APART_S = 3600  # claimed and recorded time further apart than this are both shown
MARKS = {
    ProofState.CHECKPOINTED: ("check", "checked"),
    ProofState.WAITING: ("dots", "waiting for a checkpoint"),
    ProofState.BROKEN: ("x", "does not match the log"),
}


@dataclass(frozen=True, slots=True)
class Row:
    seq: int
    seq_text: str
    href: str
    iso: str
    day: str
    clock: str
    millis: str
    recorded: str  # when far from the event's own time
    tone: str
    action: str
    actor: str
    actor_href: str
    assurance: str
    verb: str
    subject: str
    subject_href: str
    note: str
    tags: list[str]
    mark: str
    mark_label: str
    mark_tone: str
    failure: str
    is_custom: bool

    @property
    def html(self) -> SafeString:
        """The row's markup, made here: a template takes ten times as long, and a page has a hundred rows."""
        return mark_safe(_markup(self))  # noqa: S308 -- every text in it is escaped by `_markup`


def display(events: Iterable[RecordedEvent]) -> list[Row]:
    """The rows of a list, names looked up in one query."""
    found = list(events)
    names = display_names(
        item["id"] for event in found if event.body for item in (event.body["actor"], event.body["subject"])
    )
    return [_row(event, names) for event in found]


def _row(event: RecordedEvent, names: dict[str, str]) -> Row:
    icon, label = MARKS[event.proof]
    href = f"/events/{event.seq}/"
    if event.body is None:
        return _opaque(event, href, icon, label)
    body = event.body
    when = drafts.parse_instant(body["timestamp"])
    clock, millis = formats.clock(when)
    outcome = body["outcome"]
    return Row(
        seq=event.seq,
        seq_text=formats.count(event.seq),
        href=href,
        iso=formats.iso(when),
        day=formats.day(when),
        clock=clock,
        millis=millis,
        recorded=_recorded(event),
        tone=str(actions.tone(body["action"], outcome)),
        action=formats.visible(body["action"] if outcome == "done" else f"{body['action']} {outcome}"),
        actor=actor_name(body["actor"], names),
        actor_href=f"/timeline/?q=actor%3A{quote(body['actor']['id'])}",
        assurance=body["actor"]["assurance"],
        verb=actions.sentence(body["action"], outcome),
        subject=_subject(body["subject"], names),
        subject_href="/timeline/?q=" + quote(term("subject", f"{body['subject']['type']}:{body['subject']['id']}")),
        note=_note(body),
        tags=[formats.visible(text) for text in (body.get("environment"), _source_tag(body)) if text],
        mark=icon,
        mark_label=label,
        mark_tone="" if event.proof == ProofState.CHECKPOINTED else "warn",
        failure="",
        is_custom=actions.is_custom(body["action"]),
    )


def _opaque(event: RecordedEvent, href: str, icon: str, label: str) -> Row:
    """A row that is broken or erased: what is left to say of it."""
    when = event.recorded_at
    clock, millis = formats.clock(when) if when else ("", "")
    return Row(
        seq=event.seq,
        seq_text=formats.count(event.seq),
        href=href,
        iso=formats.iso(when) if when else "",
        day=formats.day(when) if when else "Unknown day",
        clock=clock,
        millis=millis,
        recorded="",
        tone="bad" if event.is_broken else "warn",
        action="broken" if event.is_broken else "erased",
        actor="",
        actor_href="",
        assurance="",
        verb="",
        subject="does not match the log" if event.is_broken else "body erased",
        subject_href=href,
        note="",
        tags=[],
        mark=icon,
        mark_label=label,
        mark_tone="bad" if event.is_broken else "",
        failure=event.failure,
        is_custom=False,
    )


def _markup(row: Row) -> str:
    seq, href, broken = row.seq, escape(row.href), " is-broken" if row.failure else ""
    number, iso = escape(row.seq_text), escape(row.iso)
    recorded = f", recorded {escape(row.recorded)}" if row.recorded else ""
    tags = "".join([f'<span class="tag line">{escape(text)}</span>' for text in row.tags])
    return f"""<li class="ev{broken}" id="e{seq}">
<div class="r">
<a class="tog" role="button" href="{href}" aria-expanded="false" aria-controls="d{seq}" aria-label="Details of event {number}" hx-get="{href}row/" hx-target="#d{seq}" hx-swap="innerHTML">{_icon("chev")}</a>
<time datetime="{iso}" title="{iso}{recorded}">{escape(row.clock)}<span>{escape(row.millis)}</span></time>
<span class="act {escape(row.tone)}"><i aria-hidden="true"></i>{escape(row.action)}</span>
<span class="what">{_what(row, href)}</span>
<span class="ctx">{tags}</span>
<span class="seq {escape(row.mark_tone)}"><a href="{href}" aria-label="Event {number}">{number}</a>{_icon(row.mark, row.mark_label)}</span>
</div>
<div class="detail-slot" id="d{seq}"></div>
</li>"""  # noqa: E501 -- lines as the page has them


def _what(row: Row, href: str) -> str:
    """Who did what to what; of a broken or erased row what is left."""
    subject = escape(row.subject)
    if row.failure:
        return f'<a href="{href}">{subject}</a> <span class="note">{escape(row.failure)}</span>'
    if not row.actor:
        return f'<a href="{href}">{subject}</a>'
    assurance = "" if row.assurance == "verified" else f' <span class="tag warn">{escape(row.assurance)}</span>'
    note = f' <span class="note">{escape(row.note)}</span>' if row.note else ""
    actor = f'<a href="{escape(row.actor_href)}">{escape(row.actor)}</a>{assurance}'
    return f'{actor} {escape(row.verb)} <a href="{escape(row.subject_href)}">{subject}</a>{note}'


@cache
def _icon(name: str, label: str = "") -> str:
    return icon(name, 14, label)


def actor_name(actor: dict[str, Any], names: dict[str, str]) -> str:
    if actor["type"] in ("system", "unknown"):
        return {"system": "the portal", "unknown": "somebody unknown"}[actor["type"]]
    return formats.visible(names.get(actor["id"], actor["id"]))


def _subject(subject: dict[str, Any], names: dict[str, str]) -> str:
    """People by their name in the directory, everything else by its id."""
    name = names.get(subject["id"], subject["id"]) if subject["type"] == "user" else subject["id"]
    return formats.visible(name)


def term(key: str, value: str) -> str:
    """One term of a query, quoted where it must be."""
    return f'{key}:"{value}"' if any(c in value for c in ' ,"') else f"{key}:{value}"


def _recorded(event: RecordedEvent) -> str:
    if event.recorded_at is None or event.timestamp is None:
        return ""
    apart = abs((event.recorded_at - event.timestamp).total_seconds())
    return formats.moment(event.recorded_at) if apart > FAR_APART_S else ""


def _note(body: dict[str, Any]) -> str:
    reason = body.get("reason", "")
    if isinstance(reason, dict):
        return "reason sealed"
    if reason:
        return formats.visible(reason)
    return ", ".join(formats.visible(f"{item['type']} {item['id']}") for item in body["related"][:2])


def _source_tag(body: dict[str, Any]) -> str:
    source = str(body["source"]["id"])
    return "" if source == "auditportal" else source
