"""Counts from `ledger_rollup` instead of the rows, where they give the same numbers.

They do for what is counted by at most one dimension over a range of the events' own time: whole days and hours come
from the rollups, what is left of an hour at either end from the rows. Everything else has to be scanned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import Any

from auditportal.ledger.models import Rollup
from auditportal.ledger.query import TIMES, Form, Query, Term, period

DIMENSIONS = ("action", "outcome", "environment", "actor", "source")
HOUR_S, DAY_S = 3_600, 86_400
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # where the rollups of all time stand
Resolve = Callable[[str], list[str]]  # the pseudonyms a name in a search stands for


@dataclass(frozen=True, slots=True)
class Condition:
    sql: str
    params: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """What is counted: [since, until), open where it is None, and the values of one dimension, all of them if empty."""

    dimension: str = ""
    values: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


def scope_of(query: Query, *, now: datetime, resolve: Resolve) -> Scope | None:
    """The scope of a query that rollups can count; None for every other one."""
    scope: Scope | None = Scope()
    for term in query.terms:
        if term.key != "sort" and scope is not None:
            scope = _narrowed(scope, term, now, resolve)
    return scope


def _narrowed(scope: Scope, term: Term, now: datetime, resolve: Resolve) -> Scope | None:
    if term.is_negated or term.key == "recorded":
        return None
    if term.key in TIMES:
        span = period(term, now=now)
        starts = [moment for moment in (scope.since, span.since) if moment is not None]
        ends = [moment for moment in (scope.until, span.until) if moment is not None]
        if any(moment.year == MAXYEAR for moment in starts):
            return None  # the next whole hour may be no time any more
        return replace(scope, since=max(starts, default=None), until=min(ends, default=None))
    if term.key not in DIMENSIONS or scope.dimension or any(value.form != Form.EXACT for value in term.values):
        return None
    values = {value.text for value in term.values}
    if term.key == "actor":
        values = {actor for text in values for actor in resolve(text) or [text]}
    return replace(scope, dimension=term.key, values=tuple(sorted(values)))


def parts(scope: Scope, column: str, scanned: Condition, *, by_day: bool) -> Condition:
    """The SELECTs whose counts add up to those of `scanned`.

    That one gives a row an event: with the column `value` its value and count, with `start` its time, count and
    not_done. Here the start of a row is that of its hour, or of its day where a day will do.
    """
    low, high = _up(scope.since, HOUR_S), _down(scope.until, HOUR_S)
    if low is not None and high is not None and low >= high:
        return scanned
    found = [_rolled_up(scope, column, *piece) for piece in _pieces(low, high, by_day=by_day)]
    found += [
        Condition(f"{scanned.sql} AND e.timestamp {operator} %s", (*scanned.params, bound))
        for operator, bound, edge in (("<", low, scope.since), (">=", high, scope.until))
        if bound is not None and bound != edge
    ]
    return Condition(
        " UNION ALL ".join(item.sql for item in found), tuple(param for item in found for param in item.params)
    )


def _pieces(
    low: datetime | None, high: datetime | None, *, by_day: bool
) -> Iterator[tuple[str, datetime | None, datetime | None]]:
    """The grains and ranges that make up [low, high), both whole hours."""
    first, last = _up(low, DAY_S), _down(high, DAY_S)
    if not by_day or (first is not None and last is not None and first >= last):
        yield Rollup.Grain.HOUR, low, high
        return
    yield Rollup.Grain.DAY, first, last
    if low != first:
        yield Rollup.Grain.HOUR, low, first
    if last != high:
        yield Rollup.Grain.HOUR, last, high


def _rolled_up(scope: Scope, column: str, grain: str, since: datetime | None, until: datetime | None) -> Condition:
    if column == "value" and since is None and until is None:
        grain = Rollup.Grain.ALL
    sql = ["SELECT value, count" if column == "value" else "SELECT start, count, not_done"]
    sql.append("FROM ledger_rollup WHERE dimension = %s AND grain = %s")
    params: list[Any] = [scope.dimension, str(grain)]
    for operator, bound in ((">=", since), ("<", until)):
        if bound is not None:
            sql.append(f"AND start {operator} %s")
            params.append(bound)
    if scope.values:
        sql.append("AND value = ANY(%s)")
        params.append(list(scope.values))
    return Condition(" ".join(sql), tuple(params))


def _down(moment: datetime | None, seconds: int) -> datetime | None:
    """The last whole hour or day, in UTC, that is not after the moment."""
    if moment is None:
        return None
    return moment - (moment - EPOCH) % timedelta(seconds=seconds)  # exact, unlike seconds as a float


def _up(moment: datetime | None, seconds: int) -> datetime | None:
    below = _down(moment, seconds)
    return below if below is None or below == moment else below + timedelta(seconds=seconds)
