"""The query language of timeline, API, saved views and bundle scope: pure, from text to terms and back.

    query := term*                       terms are ANDed
    term  := ["-"] key ":" value ("," value)*  |  ["-"] word  |  '"' text '"'
    value := word | '"' text '"' | (">" | ">=" | "<" | "<=") scalar | a ".." b | prefix "*"

An unknown key is an error that names the nearest one; nothing is ever ignored.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

LONGEST = 2_000  # characters
MOST_TERMS = 30
LEAST_DIGEST_DIGITS, MOST_DIGEST_DIGITS = 8, 64
COLUMNS = ("action", "actor", "actor_type", "assurance", "environment", "outcome", "source")
OBJECTS = {
    "version": "model_version",
    "run": "run",
    "dataset": "dataset",
    "commit": "commit",
    "env_hash": "environment",
    "deployment": "deployment",
    "prediction": "prediction",
    "promotion": "promotion",
    "policy": "policy",
    "case": "case",
    "bundle": "bundle",
    "tag": "tag",
}
TIMES = ("before", "after", "on", "during", "recorded")
OTHERS = ("model", "subject", "related", "id", "seq", "digest", "proof", "has", "sort", "stage")
KEYS = tuple(sorted({*COLUMNS, *OBJECTS, *TIMES, *OTHERS}))
CLOSED = {
    "outcome": ("done", "refused", "failed"),
    "actor_type": ("user", "service", "system", "unknown"),
    "assurance": ("verified", "vouched", "claimed", "unknown"),
    "proof": ("checkpointed", "waiting"),
    "sort": ("recorded",),
}
_KEY = re.compile(r"([a-z_]+(?:\.[A-Za-z0-9_.\-/]+)?):")
_RANGE = re.compile(r"(.*?)\.\.(.*)")
_PLAIN = re.compile(r'[^\s,"]+')
_AGO = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_QUARTER = re.compile(r"([0-9]{4})-Q([1-4])")
_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")
_YEAR = re.compile(r"[0-9]{4}")


class Form(StrEnum):
    EXACT = "exact"
    PREFIX = "prefix"
    RANGE = "range"
    ABOVE = ">"
    FROM = ">="
    BELOW = "<"
    UP_TO = "<="


@dataclass(frozen=True, slots=True)
class Value:
    form: Form
    text: str
    upper: str = ""  # of a range

    def __str__(self) -> str:
        match self.form:
            case Form.EXACT:
                return _quoted(self.text)
            case Form.PREFIX:
                return f"{self.text}*"
            case Form.RANGE:
                return f"{self.text}..{self.upper}"
            case _:
                return f"{self.form}{self.text}"


@dataclass(frozen=True, slots=True)
class Term:
    """One condition; the key is empty for free text. Start and end are its place in the text it was read from."""

    key: str
    values: tuple[Value, ...]
    is_negated: bool = False
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        values = ",".join(map(str, self.values))
        return ("-" if self.is_negated else "") + (f"{self.key}:{values}" if self.key else values)


@dataclass(frozen=True, slots=True)
class Query:
    terms: tuple[Term, ...] = ()

    def canonical(self) -> str:
        """The one spelling of this query: equal views have equal addresses."""
        return " ".join(sorted({str(term) for term in self.terms}, key=lambda text: (text.lstrip("-"), text)))

    def without(self, term: Term) -> Query:
        return Query(tuple(item for item in self.terms if item is not term))

    def toggled(self, key: str, value: str) -> Query:
        """With this value added to the key, or taken away if it is there."""
        wanted = Value(Form.EXACT, value)
        rest = [term for term in self.terms if term.key != key or term.is_negated]
        values = [item for term in self.terms if term.key == key and not term.is_negated for item in term.values]
        values = [item for item in values if item != wanted] if wanted in values else [*values, wanted]
        return Query((*rest, Term(key, tuple(values)))) if values else Query(tuple(rest))

    def has(self, key: str, value: str) -> bool:
        wanted = Value(Form.EXACT, value)
        return any(term.key == key and not term.is_negated and wanted in term.values for term in self.terms)


class QueryError(Exception):
    """What is wrong, and the span of the token that is wrong."""

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.message = message
        self.start = start
        self.end = end


def parse(text: str) -> Query:
    """The terms of a query.

    Raises:
        QueryError: with the place of the first thing that cannot be read.
    """
    if len(text) > LONGEST:
        raise QueryError(f"a query has at most {LONGEST} characters", LONGEST, len(text))
    if "\0" in text:
        raise QueryError("a query holds no NUL", text.index("\0"), text.index("\0") + 1)
    terms = tuple(_terms(text))
    if len(terms) > MOST_TERMS:
        raise QueryError(f"a query has at most {MOST_TERMS} terms", terms[MOST_TERMS].start, terms[-1].end)
    return Query(terms)


def _terms(text: str) -> Iterator[Term]:
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return
        term = _term(text, at)
        _check(term)
        yield term
        at = term.end


def _term(text: str, start: int) -> Term:
    at = start
    is_negated = text.startswith("-", at) and at + 1 < len(text) and not text[at + 1].isspace()
    at += is_negated
    match = _KEY.match(text, at)
    if match is None or match.end() >= len(text) or text[match.end()].isspace():
        if match is not None and _base(match[1]) in (*KEYS, "meta"):
            raise QueryError(f"{match[1]}: needs a value", start, match.end())
        value, end = _text_value(text, at)
        return Term("", (value,), is_negated, start, end)
    key = match[1]
    if _base(key) not in (*KEYS, "meta") or (key == "meta"):
        raise QueryError(_unknown_key(key), at, match.end() - 1)
    values, at = [], match.end()
    while True:
        value, at = _value(text, at)
        values.append(value)
        if not text.startswith(",", at):
            break
        at += 1
    if at < len(text) and not text[at].isspace():
        raise QueryError("a value ends with a space or a comma", at, at + 1)
    return Term(key, tuple(values), is_negated, start, at)


def _base(key: str) -> str:
    return "meta" if key.startswith("meta.") else key


def _unknown_key(key: str) -> str:
    near = difflib.get_close_matches(key, KEYS, n=1)
    hint = f"; did you mean {near[0]}:?" if near else ""
    return f"there is no key {key}:{hint}"


def _text_value(text: str, at: int) -> tuple[Value, int]:
    if text[at] == '"':
        return _quotation(text, at)
    end = at
    while end < len(text) and not text[end].isspace():
        end += 1
    word = text[at:end]
    if len(word) > 1 and word.endswith("*"):
        return Value(Form.PREFIX, word[:-1]), end
    return Value(Form.EXACT, word), end


def _quotation(text: str, at: int) -> tuple[Value, int]:
    end = text.find('"', at + 1)
    if end < 0:
        raise QueryError("the quotation does not end", at, len(text))
    if end == at + 1:
        raise QueryError("an empty text finds nothing", at, end + 1)
    return Value(Form.EXACT, text[at + 1 : end]), end + 1


def _value(text: str, at: int) -> tuple[Value, int]:
    if text.startswith('"', at):
        return _quotation(text, at)
    for form in (Form.FROM, Form.UP_TO, Form.ABOVE, Form.BELOW):
        if text.startswith(form, at):
            plain, end = _plain(text, at + len(form))
            return Value(form, plain), end
    plain, end = _plain(text, at)
    match = _RANGE.fullmatch(plain)
    if match and match[1] and match[2]:
        return Value(Form.RANGE, match[1], match[2]), end
    if len(plain) > 1 and plain.endswith("*"):
        return Value(Form.PREFIX, plain[:-1]), end
    return Value(Form.EXACT, plain), end


def _plain(text: str, at: int) -> tuple[str, int]:
    match = _PLAIN.match(text, at)
    if match is None:
        raise QueryError("a value is missing", at, min(at + 1, len(text)))
    return match[0], match.end()


def _quoted(text: str) -> str:
    """The text so that it reads back as one exact value."""
    is_special = text[:1] in "-<>" or text.endswith("*") or ".." in text or re.search(r"[\s,:]", text)
    return f'"{text}"' if is_special else text


def _check(term: Term) -> None:
    """Closed sets, numbers and times are checked when they are typed, not when they find nothing."""
    for value in term.values:
        if term.key in CLOSED and (value.form != Form.EXACT or value.text not in CLOSED[term.key]):
            raise QueryError(f"{term.key}: is one of {', '.join(CLOSED[term.key])}", term.start, term.end)
        if term.key == "seq" and not all(part.isascii() and part.isdigit() for part in _bounds(value)):
            raise QueryError("seq: takes whole numbers, as in seq:12 or seq:10..20", term.start, term.end)
        if term.key == "digest":
            _check_digest(term, value)
        if term.key in ("subject", "related") and ":" not in value.text:
            raise QueryError(f"{term.key}: takes type:id, as in {term.key}:dataset:DS1", term.start, term.end)
        if term.key == "has" and not re.fullmatch(r"attestation\.\S+|sealed|reason", value.text):
            raise QueryError("has: knows attestation.<kind>, sealed and reason", term.start, term.end)
    if term.key in TIMES:
        period(term, now=datetime(2026, 1, 1, tzinfo=UTC))  # any clock will do to see whether it reads


def _check_digest(term: Term, value: Value) -> None:
    digits = value.text.removeprefix("sha256:")
    if not LEAST_DIGEST_DIGITS <= len(digits) <= MOST_DIGEST_DIGITS or set(digits) - set("0123456789abcdef"):
        raise QueryError(f"digest: takes {LEAST_DIGEST_DIGITS} to 64 lower-case hex digits", term.start, term.end)


def _bounds(value: Value) -> tuple[str, ...]:
    return (value.text, value.upper) if value.form == Form.RANGE else (value.text,)


@dataclass(frozen=True, slots=True)
class Period:
    """[since, until), each open where it is None."""

    since: datetime | None
    until: datetime | None


def period(term: Term, *, now: datetime) -> Period:
    """The half-open time range of a time term; dates without a zone are UTC.

    Raises:
        QueryError: a time that cannot be read.
    """
    if len(term.values) != 1:
        raise QueryError(f"{term.key}: takes one time", term.start, term.end)
    value = term.values[0]
    try:
        return _period(term.key, value, now)
    except (ValueError, OverflowError):
        message = f"{term.key}: takes a time such as 2026-11-20, 2026-11, 2026-Q2, 24h, or a..b"
        raise QueryError(message, term.start, term.end) from None


def _period(key: str, value: Value, now: datetime) -> Period:
    if value.form == Form.RANGE:
        return Period(_span(value.text, now).since, _span(value.upper, now).until)
    span = _span(value.text, now)
    match value.form:
        case Form.ABOVE:
            return Period(span.until, None)
        case Form.FROM:
            return Period(span.since, None)
        case Form.BELOW:
            return Period(None, span.since)
        case Form.UP_TO:
            return Period(None, span.until)
        case _:
            pass
    if key == "before":
        return Period(None, span.since)
    if key == "after":
        return Period(span.since, None)
    return span


def _span(text: str, now: datetime) -> Period:
    """What a time word covers: a year, quarter, month, day, the last hours, or one instant."""
    if match := _AGO.fullmatch(text):
        hours = int(match[1]) * {"h": 1, "d": 24, "w": 168}[match[2]]
        return Period(now - timedelta(hours=hours), None)
    if match := _QUARTER.fullmatch(text):
        month = 3 * int(match[2]) - 2
        return Period(_month(int(match[1]), month), _month(int(match[1]), month + 3))
    if match := _MONTH.fullmatch(text):
        datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC)
        return Period(_month(int(match[1]), int(match[2])), _month(int(match[1]), int(match[2]) + 1))
    if _YEAR.fullmatch(text):
        return Period(_month(int(text), 1), _month(int(text) + 1, 1))
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    is_day = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None
    return Period(moment, moment + (timedelta(days=1) if is_day else timedelta(microseconds=1)))


def _month(year: int, month: int) -> datetime:
    return datetime(year + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=UTC)
