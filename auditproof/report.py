"""`report.html`: one file that loads nothing, made from the claims of a bundle and from nothing else.

Whoever verifies a bundle makes the page again from the claims found in the events, and takes no other byte: what a
browser would show of a page that merely holds the right numbers depends on its styles, and cannot be judged by reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from . import claims
from .canonical import pointer
from .errors import HashMismatchError, Name
from .sealed import resolve
from .signatures import sha256_hex

CSS = (
    ":root{color-scheme:light dark;--ink:light-dark(#1a1d21,#e6e8ea);--dim:light-dark(#565d66,#a0a8b0);"
    "--line:light-dark(#d5d9de,#3a4048);--paper:light-dark(#fff,#16191d);--accent:light-dark(#0b6a66,#56c7bd)}"
    "*{box-sizing:border-box}"
    "body{margin:0 auto;max-width:860px;padding:32px 20px 64px;font:14px/22px Inter,system-ui,sans-serif;"
    "color:var(--ink);background:var(--paper);overflow-wrap:anywhere}"
    "h1{font-size:24px;line-height:32px;margin:0 0 4px}h2{font-size:16px;line-height:24px;margin:32px 0 8px}"
    ".sub,caption{color:var(--dim)}caption{text-align:left;padding-bottom:4px}h3{font-size:14px;margin:0 0 6px}"
    "dl{display:grid;grid-template-columns:180px minmax(0,1fr);gap:2px 16px;margin:0}dt{color:var(--dim)}"
    "dd{margin:0;font-variant-numeric:tabular-nums}"
    ".counts{grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:8px;margin-bottom:12px}"
    ".counts div{display:flex;flex-direction:column-reverse;justify-content:flex-end;border:1px solid var(--line);"
    "border-radius:6px;padding:8px 12px}.counts dt{font-size:12px;line-height:18px}"
    ".counts dd{font-size:20px;line-height:28px}"
    ".limit{border-left:3px solid var(--accent);padding:2px 16px;margin:16px 0}.limit p{margin:8px 0}"
    "article{border:1px solid var(--line);border-radius:6px;padding:12px 14px;margin:0 0 10px}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13px}th{white-space:nowrap}"
    "th,td{text-align:left;overflow-wrap:normal;vertical-align:top;padding:6px 10px 6px 0;"
    "border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}"
    "code{display:block;white-space:pre-wrap;font:12px/18px ui-monospace,monospace;border:1px solid var(--line);"
    "border-radius:4px;padding:10px 12px}footer{margin-top:40px;color:var(--dim)}@media screen and (max-width:600px){"
    "dl{grid-template-columns:1fr}dd{margin-bottom:6px}.counts{grid-template-columns:1fr 1fr}}@media print{"
    "body{max-width:none;padding:0;font-size:10pt;color:#000;background:#fff}h2{break-after:avoid}"
    "tr,article{break-inside:avoid}.first{break-after:page}@page{margin:18mm}}"
)
COMMAND = "python3 -m auditproof verify BUNDLE --key log.vkey --root ROOT.pem"
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
LIMITS = (
    "<strong>What cryptography cannot prove:</strong> that everything that happened was recorded, and that what was"
    " recorded is true. What is proven is that the events in this bundle stand in the log as they were recorded, and"
    " that between the two maps none of the model's events is left out, relative to the map. Whether the map mirrors"
    " the log is shown by replaying it, which needs the whole log."
)
VERDICT = (
    "It recomputes every number on these pages from the events. Without the log's key its verdict is"
    " “self-consistent, not authenticated”. The commands for openssl alone stand in README.txt."
)
SESSION = (
    "“session” means that the portal attests that it authenticated the person again; there is no signature of the"
    " person's own."
)
NOTES = (
    "Times are UTC. People stand under pseudonyms, except where a printed name belongs to a signature. The events"
    " themselves are in data/events. Kitfiles are withheld because they name their authors; data/bundle.json lists"
    " their digests."
)
PROMOTION = ("seq", "recorded", "outcome", "version", "environment")
SIGNATURE = (
    "action",
    "subject",
    "environment",
    "meaning",
    "at",
    "role",
    "method",
    "factors",
    "signer",
    "request",
    "seq",
)
HEADINGS = {
    "seq": "Event",
    "recorded": "Recorded (UTC)",
    "outcome": "Outcome",
    "version": "Version",
    "environment": "Environment",
    "role": "Role",
    "action": "Action",
    "meaning": "Meaning",
    "subject": "Version",
    "at": "Signed (UTC)",
    "method": "Method",
    "factors": "Authenticated by",
    "signer": "Pseudonym",
    "request": "Request",
    "count": "Events",
}


def render(stated: Sequence[Mapping[str, Any]]) -> bytes:
    """The report of a bundle with these claims."""
    page = _Page({str(claim["id"]): claim["value"] for claim in stated}, {c["id"]: c["text"] for c in stated})
    body = "\n".join([*_first_page(page), *_lists(page)])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Audit bundle</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    ).encode()


def check(raw: bytes, computed: Sequence[Mapping[str, Any]]) -> None:
    """The page is, byte for byte, the one that these claims give.

    Raises:
        HashMismatchError: CLAIM.
    """
    expected = render(computed)
    if raw != expected:
        raise HashMismatchError(Name.CLAIM, "report", sha256_hex(expected), sha256_hex(raw))


class _Page:
    def __init__(self, values: Mapping[str, Any], texts: Mapping[str, str]) -> None:
        self.values = values
        self.texts = texts

    def told(self, *steps: str | int) -> str:
        """The value of a claim, marked with its place, so that a reader finds it in `bundle.json`."""
        place = ""
        for step in steps:
            place = pointer(place, step)
        text = claims.display(resolve(self.values, place))
        return f'<data data-claim="{escape(place)}">{escape(text)}</data>'

    def fact(self, name: str, *steps: str | int) -> str:
        return f"<div><dt>{escape(self.texts[name])}</dt><dd>{self.told(name, *steps)}</dd></div>"

    def table(self, name: str, columns: Sequence[str]) -> str:
        head = "".join(f'<th scope="col">{HEADINGS[column]}</th>' for column in columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{self.told(name, index, column)}</td>" for column in columns) + "</tr>"
            for index in range(len(self.values[name]))
        )
        caption = f"<caption>{escape(self.texts[name])}</caption>"
        table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(self.texts[name])}">{table}</div>'

    def signature(self, index: int) -> str:
        """A signature as 21 CFR 11.50 asks for it: printed name, date and time, meaning."""
        facts = "".join(
            f"<dt>{HEADINGS[name]}</dt><dd>{self.told('signatures', index, name)}</dd>" for name in SIGNATURE
        )
        return f"<article><h3>{self.told('signatures', index, 'printed_name')}</h3><dl>{facts}</dl></article>"


def _first_page(page: _Page) -> list[str]:
    counts = ("events", "promotions", "approvals", "rejections", "refusals", "failures", "erased", "withheld")
    return [
        '<section class="first">',
        f"<h1>Audit bundle of {page.told('scope')}</h1>",
        '<p class="sub">The model\'s whole history, from the first entry of the log to the map named below.</p>',
        f'<div class="limit"><p>{LIMITS}</p></div>',
        "<h2>In numbers</h2>",
        '<dl class="counts">' + "".join(page.fact(name) for name in counts),
        f"<div><dt>Findings opened</dt><dd>{page.told('findings', 'opened')}</dd></div>",
        f"<div><dt>Findings closed</dt><dd>{page.told('findings', 'closed')}</dd></div></dl>",
        f"<dl><dt>First event recorded</dt><dd>{page.told('period', 'first')}</dd>",
        f"<dt>Last event recorded</dt><dd>{page.told('period', 'last')}</dd></dl>",
        "<h2>Where it stands in the log</h2>",
        f"<dl><dt>Entries in the checkpoint</dt><dd>{page.told('checkpoint', 'size')}</dd>",
        f"<dt>Root of the checkpoint</dt><dd>{page.told('checkpoint', 'root')}</dd>",
        f"<dt>Entries covered by the map</dt><dd>{page.told('map', 'size')}</dd>",
        f"<dt>Root of the map</dt><dd>{page.told('map', 'root')}</dd>",
        f"<dt>Event that states the map</dt><dd>{page.told('map', 'seq')}</dd></dl>",
        "<h2>How to check it</h2>",
        "<p>Get the log's key, the root certificate and the verifier from elsewhere than this bundle, then run:</p>",
        f"<code>{COMMAND}</code>",
        f"<p>{VERDICT}</p>",
        f"<footer>Issued to {page.told('issued_to', 'recipient')} for: {page.told('issued_to', 'purpose')}.</footer>",
        "</section>",
    ]


def _lists(page: _Page) -> list[str]:
    return [
        "<h2>Signatures</h2>",
        "".join(page.signature(index) for index in range(len(page.values["signatures"])))
        or "<p>No decision was signed in the portal.</p>",
        f"<p>{SESSION}</p>",
        "<h2>Promotions</h2>",
        page.table("promotion_list", PROMOTION)
        if page.values["promotion_list"]
        else "<p>No promotion was attempted.</p>",
        "<h2>Events by action</h2>",
        page.table("actions", ("action", "outcome", "count")) if page.values["actions"] else "<p>No events.</p>",
        f"<p>{NOTES}</p>",
    ]
