"""From a query to rows of the timeline: keyset paging, capped counts, and a timeout instead of a plan gone wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

from django.db import OperationalError, connection, transaction

from auditportal.ledger import drafts, projections, rollups
from auditportal.ledger.query import COLUMNS, OBJECTS, TIMES, Form, Query, Term, Value, period
from auditportal.ledger.rollups import Condition, Resolve

PAGE = 50
COUNTED = 10_000  # above it a count says "more than"
PATIENCE_MS = 5_000
TIMED_OUT = "57014"  # query_canceled
MOST_BARS = 60
BAR_SECONDS = (60, 300, 900, 3600, 21_600, 43_200, 86_400, 604_800, 2_592_000)


class SearchTooSlowError(Exception):
    """The query took too long; a narrower range will do."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place after the last row of a page, in the order of the page."""

    timestamp: str
    seq: int

    def __str__(self) -> str:
        return f"{self.timestamp}_{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """The cursor of an address; None for one that is not ours, which then shows the first page."""
        match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)_(\d{1,18})", text)
        if match is None:
            return None
        try:
            datetime.fromisoformat(match[1])
        except ValueError:
            return None
        return cls(match[1], int(match[2]))


@dataclass(frozen=True, slots=True)
class Page:
    seqs: list[int]
    older: Cursor | None


@dataclass(frozen=True, slots=True)
class Count:
    number: int
    is_capped: bool


def conditions(query: Query, *, now: datetime, resolve: Resolve) -> list[Condition]:
    """One condition a term, over `ledger_event e`."""
    found = []
    for term in query.terms:
        if term.key == "sort":
            continue
        condition = _condition(term, now, resolve)
        found.append(Condition(f"NOT ({condition.sql})", condition.params) if term.is_negated else condition)
    return found


def _condition(term: Term, now: datetime, resolve: Resolve) -> Condition:
    if term.key in TIMES:
        return _time(term, now)
    parts = [_one(term.key, value, resolve) for value in term.values]
    return Condition(
        " OR ".join(f"({part.sql})" for part in parts), tuple(param for part in parts for param in part.params)
    )


def _time(term: Term, now: datetime) -> Condition:
    span = period(term, now=now)
    column = "e.recorded_at" if term.key == "recorded" else "e.timestamp"
    sql, params = [], []
    if span.since is not None:
        sql.append(f"{column} >= %s")
        params.append(span.since)
    if span.until is not None:
        sql.append(f"{column} < %s")
        params.append(span.until)
    return Condition(" AND ".join(sql) or "TRUE", tuple(params))


def _one(key: str, value: Value, resolve: Resolve) -> Condition:
    if key == "":
        return _words(value)
    if key == "actor":
        ids = resolve(value.text) or [value.text]
        # One is no list: `= ANY` loses the order of the index, and the page would be sorted from all that match.
        return Condition("e.actor = %s", (ids[0],)) if len(ids) == 1 else Condition("e.actor = ANY(%s)", (ids,))
    if key in COLUMNS:
        return _compared(f"e.{key}", value)
    if key == "stage":
        return _compared("e.environment", value)
    if key == "model":
        inner = _compared("m.model", value)
        return Condition(
            f"EXISTS (SELECT 1 FROM ledger_eventmodel m WHERE m.seq = e.seq AND {inner.sql})", inner.params
        )
    if key in OBJECTS:
        return _object(OBJECTS[key], value)
    if key == "subject":
        kind, _, name = value.text.partition(":")
        inner = _compared("e.subject_id", Value(value.form, name, value.upper))
        return Condition(f"e.subject_type = %s AND {inner.sql}", (kind, *inner.params))
    if key == "related":
        kind, _, name = value.text.partition(":")
        return _object(kind, Value(value.form, name, value.upper))
    return _special(key, value)


def _special(key: str, value: Value) -> Condition:
    match key:
        case "id":
            return _id(value)
        case "seq":
            return _number("e.seq", value)
        case "digest":
            return _lexemes([f"'{value.text.removeprefix('sha256:')}':*"])
        case "proof":
            # The search rows are made together with the checkpoint, so each of them is covered by one.
            return Condition("TRUE" if value.text == "checkpointed" else "FALSE", ())
        case "has":
            return _has(value)
        case _:
            return _meta(key.removeprefix("meta."), value)


def _compared(column: str, value: Value) -> Condition:
    match value.form:
        case Form.EXACT:
            return Condition(f"{column} = %s", (value.text,))
        case Form.PREFIX:
            return Condition(f"starts_with({column}, %s)", (value.text,))
        case Form.RANGE:
            return Condition(f"{column} >= %s AND {column} <= %s", (value.text, value.upper))
        case _:
            return Condition(f"{column} {value.form} %s", (value.text,))


def _number(column: str, value: Value) -> Condition:
    """As `_compared`, for a bigint; a number beyond it is cut, since no row has it."""
    most = 2**63 - 1
    lower = min(int(value.text), most)
    if value.form == Form.RANGE:
        return Condition(f"{column} BETWEEN %s AND %s", (lower, min(int(value.upper), most)))
    operator = "=" if value.form in (Form.EXACT, Form.PREFIX) else str(value.form)
    return Condition(f"{column} {operator} %s", (lower,))


def _object(kind: str, value: Value) -> Condition:
    inner = _compared("r.object_id", value)
    sql = f"EXISTS (SELECT 1 FROM ledger_eventrelated r WHERE r.seq = e.seq AND r.type = %s AND {inner.sql})"
    return Condition(sql, (kind, *inner.params))


def _id(value: Value) -> Condition:
    inner = _compared("r.object_id", value)
    sql = (
        "e.native_id = %s OR e.event_id::text = %s"
        f" OR EXISTS (SELECT 1 FROM ledger_eventrelated r WHERE r.seq = e.seq AND {inner.sql})"
    )
    return Condition(sql, (value.text, value.text.lower(), *inner.params))


def _words(value: Value) -> Condition:
    """All words of the text, wherever they stand; a prefix matches the beginning of a word."""
    words = sorted(projections.split_words(value.text))
    if not words:
        return Condition("FALSE", ())
    suffix = ":*" if value.form == Form.PREFIX else ""
    return _lexemes([f"'{word}'{suffix}" for word in words])


def _lexemes(terms: list[str]) -> Condition:
    sql = "EXISTS (SELECT 1 FROM ledger_eventtext t WHERE t.seq = e.seq AND t.words @@ %s::tsquery)"
    return Condition(sql, (" & ".join(terms),))


def _has(value: Value) -> Condition:
    """Of the event itself (sealed, reason), or of its subject as it stood at that place of the log (attestations)."""
    mark = projections.mark(value.text)
    if not value.text.startswith("attestation."):
        return _lexemes([mark])
    sql = (
        "EXISTS (SELECT 1 FROM ledger_eventrelated r JOIN ledger_event a ON a.seq = r.seq"
        " JOIN ledger_eventtext t ON t.seq = a.seq WHERE r.type = e.subject_type AND r.object_id = e.subject_id"
        " AND a.action = 'attest' AND a.outcome = 'done' AND a.seq <= e.seq AND t.words @@ %s::tsquery)"
    )
    return Condition(sql, (mark,))


def _meta(path: str, value: Value) -> Condition:
    """A member of the metadata by its path; the words find the rows, the body decides."""
    inner = _compared("b.body #>> %s", value)
    sql = (
        "EXISTS (SELECT 1 FROM (SELECT convert_from(body, 'UTF8')::jsonb AS body FROM ledger_body"
        f" WHERE seq = e.seq AND body IS NOT NULL) b WHERE {inner.sql})"
    )
    place = ["metadata", *re.split(r"[./]", path)]
    params: list[Any] = []
    for param in inner.params:
        params += [place, param]
    words = _words(value) if value.form == Form.EXACT and _is_text(value.text) else None
    if words is None or words.sql == "FALSE":
        return Condition(sql, tuple(params))
    return Condition(f"{words.sql} AND {sql}", (*words.params, *params))


def _is_text(value: str) -> bool:
    """Whether only a text member can hold it: numbers and booleans are no words of the search."""
    try:
        float(value)
    except ValueError:
        return value not in ("true", "false", "null")
    return False


def _rows(sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The answer to one statement that gives up instead of blocking everybody.

    Raises:
        SearchTooSlowError: after five seconds.
    """
    # Both in one message, so in one transaction of their own, and the limit ends with it. Inside somebody else's
    # transaction a savepoint keeps that one usable.
    apart = transaction.atomic() if connection.in_atomic_block else nullcontext()
    try:
        with apart, connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {PATIENCE_MS}; {sql}", params)
            cursor.nextset()
            found: list[tuple[Any, ...]] = cursor.fetchall()
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") == TIMED_OUT:
            raise SearchTooSlowError from error
        raise
    return found


def _where(found: list[Condition]) -> tuple[str, list[Any]]:
    sql = " AND ".join(f"({item.sql})" for item in found) or "TRUE"
    return sql, [param for item in found for param in item.params]


def _ordering(query: Query) -> str:
    return "recorded_at" if query.has("sort", "recorded") else "timestamp"


def page(query: Query, *, now: datetime, resolve: Resolve, after: Cursor | None, most: int = PAGE) -> Page:
    """The next rows in the timeline's order: the event's own time, or with `sort:recorded` the log's."""
    found = conditions(query, now=now, resolve=resolve)
    column = _ordering(query)
    if after is not None:
        found.append(Condition(f"(e.{column}, e.seq) < (%s, %s)", (after.timestamp, after.seq)))
    where, params = _where(found)
    sql = f"SELECT e.seq, e.{column} FROM ledger_event e WHERE {where} ORDER BY e.{column} DESC, e.seq DESC LIMIT %s"
    rows = _rows(sql, [*params, most + 1])
    older = None
    if len(rows) > most:
        seq, moment = rows[most - 1]
        older = Cursor(drafts.instant(moment), seq)
    return Page([seq for seq, _ in rows[:most]], older)


def count(query: Query, *, now: datetime, resolve: Resolve) -> Count:
    """How many rows match, up to 10,000."""
    where, params = _where(conditions(query, now=now, resolve=resolve))
    [(number,)] = _rows(
        f"SELECT count(*) FROM (SELECT 1 FROM ledger_event e WHERE {where} LIMIT %s) c", [*params, COUNTED + 1]
    )
    return Count(min(number, COUNTED), number > COUNTED)


def newer_than(query: Query, seq: int, *, now: datetime, resolve: Resolve) -> Count:
    """How many matching rows were recorded after the newest one a reader has seen."""
    newer = Term("seq", (Value(Form.ABOVE, str(seq)),))
    return count(Query((*query.terms, newer)), now=now, resolve=resolve)


@dataclass(frozen=True, slots=True)
class Bar:
    start: datetime
    done: int
    other: int  # refused or failed


@dataclass(frozen=True, slots=True)
class Histogram:
    bars: list[Bar]
    seconds: int


def histogram(query: Query, *, now: datetime, resolve: Resolve) -> Histogram:
    """Events by their own time in at most 60 bars; empty when nothing matches."""
    resolve = cache(resolve)
    where, params = _where(conditions(query, now=now, resolve=resolve))
    [(first, last)] = _rows(f"SELECT min(e.timestamp), max(e.timestamp) FROM ledger_event e WHERE {where}", params)
    if first is None:
        return Histogram([], 0)
    seconds = _bar_seconds((last - first).total_seconds())
    counted = Condition(
        "SELECT e.timestamp AS start, 1 AS count, (e.outcome <> 'done')::int AS not_done"
        f" FROM ledger_event e WHERE {where}",
        tuple(params),
    )
    scope = rollups.scope_of(query, now=now, resolve=resolve)
    if scope is not None and seconds % rollups.HOUR_S == 0:
        counted = rollups.parts(scope, "start", counted, by_day=seconds % rollups.DAY_S == 0)
    bars = _rows(
        "SELECT date_bin(%s * interval '1 second', start, to_timestamp(0)) AS bar,"
        " (sum(count) - sum(not_done))::bigint, sum(not_done)::bigint"
        f" FROM ({counted.sql}) c GROUP BY bar ORDER BY bar",
        [seconds, *counted.params],
    )
    return Histogram([Bar(*row) for row in bars], seconds)


def _bar_seconds(span: float) -> int:
    """The width of a bar, so that there are at most 60; whole days where the known widths are too narrow."""
    fitting = (width for width in BAR_SECONDS if span / width < MOST_BARS - 1)
    return next(fitting, (int(span / (MOST_BARS - 1) / rollups.DAY_S) + 1) * rollups.DAY_S)


@dataclass(frozen=True, slots=True)
class FacetValue:
    value: str
    count: int


def facets(query: Query, *, now: datetime, resolve: Resolve, most: int) -> dict[str, list[FacetValue]]:
    """The commonest values of each facet; a facet ignores its own terms, so that its other values stay countable."""
    resolve = cache(resolve)
    parts = [_facet(key, query, now, resolve, most) for key in rollups.DIMENSIONS]
    asked = " UNION ALL ".join(f"({part.sql})" for part in parts)
    found = _rows(
        f"SELECT key, value, number FROM ({asked}) f ORDER BY place", [p for part in parts for p in part.params]
    )
    return {key: [FacetValue(value, number) for of, value, number in found if of == key] for key in rollups.DIMENSIONS}


def _facet(key: str, query: Query, now: datetime, resolve: Resolve, most: int) -> Condition:
    """A SELECT of the commonest values of one facet, with their places."""
    others = Query(tuple(term for term in query.terms if term.key != key or term.is_negated))
    where, params = _where(conditions(others, now=now, resolve=resolve))
    counted = Condition(
        f"SELECT e.{key} AS value, 1 AS count FROM ledger_event e WHERE {where} AND e.{key} <> ''", tuple(params)
    )
    scope = rollups.scope_of(others, now=now, resolve=resolve)
    if scope is not None and not scope.dimension:
        counted = rollups.parts(replace(scope, dimension=key), "value", counted, by_day=True)
    return Condition(
        f"SELECT '{key}' AS key, value, number, row_number() OVER (ORDER BY number DESC, value) AS place"
        f" FROM (SELECT value, sum(count)::bigint AS number FROM ({counted.sql}) c GROUP BY value) v"
        " ORDER BY number DESC, value LIMIT %s",
        (*counted.params, most),
    )
