"""What a reader of the timeline waits for: pages of verified rows, filters, deep pages, histogram and facets.

Measured, in process and on a warm cache: a page of 100 rows found, verified and formatted against fetching the same
rows raw; filters of the timeline against one look-up by primary key; the deepest page against the first; histogram and
facets against a scan of the same table.

Not measured: the server, sessions and middleware around a page, what the browser does, and a log that does not fit
into the memory of the machine.
"""

# ruff: noqa: E402 -- the portal's apps can only be imported once their settings stand

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache

from bench import common

OPTIONS = common.begin(__doc__, events=50_000, rounds=5)

from django.db import connection
from django.template.loader import render_to_string

from auditportal.accounts.queries import actor_ids
from auditportal.ledger import drafts, queries, search
from auditportal.ledger.projections import COLUMNS
from auditportal.ledger.query import parse
from auditportal.web.rows import Row, display
from bench import events

ROWS = 100  # of a page
REPEATS = 40  # of each query and round
SCANS = 3  # of each scan and round
LOOKUP = "one look-up by primary key"
SCAN = "exact scan"
PRIMARY_KEY = "SELECT " + ", ".join(COLUMNS) + " FROM ledger_event WHERE seq = %s"
RAW_ROWS = (
    "SELECT e.seq, e.header, e.leaf_hash, e.source, e.event_id::text, b.salt, b.body, b.streams"
    " FROM ledger_entry e LEFT JOIN ledger_body b ON b.seq = e.seq WHERE e.seq = ANY(%s)"
)
FACETS = ("action", "outcome", "environment", "actor", "source")
TEXT_FLOOR, FILTER_FLOOR, WORST_FLOOR = 25.0, 5.0, 200.0


def _rank(chance: random.Random, count: int) -> int:
    return int(count * chance.random() ** 3)


def _commonly(chance: random.Random, weights: Mapping[str, float]) -> str:
    return chance.choices(list(weights), list(weights.values()))[0]


@cache
def _pseudonym(rank: int) -> str:
    name = events.actor_name(rank)
    return next(iter(actor_ids(name)), name)


def _week(chance: random.Random) -> str:
    year, month, day = chance.choice((2025, 2026)), chance.randrange(1, 10), chance.randrange(1, 21)
    return f"during:{year}-{month:02d}-{day:02d}..{year}-{month:02d}-{day + 6:02d}"


# Each asks for another value every time, drawn with the skew of the events themselves.
FILTERS: dict[str, Callable[[random.Random], str]] = {
    "no filter": lambda _: "",
    "action": lambda chance: f"action:{_commonly(chance, events.ACTIONS)}",
    "action, the rarest": lambda _: "action:retire",
    "actor, by pseudonym": lambda chance: f"actor:{_pseudonym(_rank(chance, events.ACTORS))}",
    "actor, by name": lambda chance: f"actor:{events.actor_name(_rank(chance, events.ACTORS))}",
    "model": lambda chance: f"model:model-{_rank(chance, events.MODELS):04d}",
    "environment": lambda chance: f"environment:{_commonly(chance, events.ENVIRONMENTS)}",
    "outcome": lambda chance: f"outcome:{chance.choice(('failed', 'refused'))}",
    "version": lambda chance: f"version:model-{_rank(chance, events.MODELS):04d}:v0",
    "time range, 7 days": _week,
    "time range and action": lambda chance: f"{_week(chance)} action:{_commonly(chance, events.ACTIONS)}",
    "action and actor": lambda chance: f"action:train actor:{events.actor_name(_rank(chance, events.ACTORS))}",
    "action and model": lambda chance: f"action:deploy model:model-{_rank(chance, events.MODELS):04d}",
    "negated action": lambda chance: f"-action:{_commonly(chance, events.ACTIONS)}",
    "negated environment": lambda _: "-environment:production",
}
TEXTS: dict[str, Callable[[random.Random], str]] = {
    "text, a common word": lambda chance: events.word(chance.randrange(5)),
    "text, a rare word": lambda chance: events.word(chance.randrange(1_000, events.WORDS)),
    "text, two words": lambda chance: f"{events.word(chance.randrange(5))} {events.word(chance.randrange(20, 200))}",
    "text, rare and common": lambda chance: f"{events.word(chance.randrange(1_500, 2_000))} {events.word(0)}",
    "text, a word nobody wrote": lambda chance: f"nobody{chance.randrange(10**9)}",
    "text and action": lambda chance: f"{events.word(chance.randrange(5))} action:promote",
}


def _page(text: str, after: search.Cursor | None = None) -> search.Page:
    return search.page(parse(text), now=events.END, resolve=actor_ids, after=after, most=ROWS)


def _look_up(seq: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(PRIMARY_KEY, [seq])
        cursor.fetchone()


def measure_filters(table: common.Table, size: int) -> None:
    chance = random.Random(21)
    catalogue = FILTERS | TEXTS

    def catalogue_once() -> Mapping[str, float]:
        """Each query after a look-up of its own, so that whatever disturbs one disturbs both."""
        took: dict[str, list[float]] = {name: [] for name in (LOOKUP, *catalogue)}
        for _ in range(REPEATS):
            for name, make in catalogue.items():
                text = make(chance)
                took[LOOKUP].append(common.seconds(_look_up, chance.randrange(size)))
                took[name].append(common.seconds(_page, text))
        late = {f"{name}, p95": common.percentile(values, 95) for name, values in took.items()}
        return {f"{name}, p50": common.percentile(values, 50) for name, values in took.items()} | late

    times = common.interleaved(OPTIONS.rounds, catalogue_once)
    for name in catalogue:
        floor = TEXT_FLOOR if name in TEXTS else FILTER_FLOOR
        table.cost(f"{name}, p50", f"{LOOKUP}, p50", times[f"{name}, p50"], times[f"{LOOKUP}, p50"], floor)
    worst = max(catalogue, key=lambda name: sum(times[f"{name}, p95"]))
    table.cost(
        f"the worst, p95: {worst}", f"{LOOKUP}, p95", times[f"{worst}, p95"], times[f"{LOOKUP}, p95"], WORST_FLOOR
    )


def measure_pages(table: common.Table) -> None:
    seqs = _page("").seqs
    with connection.cursor() as cursor:
        cursor.execute("SELECT timestamp, seq FROM ledger_event ORDER BY timestamp, seq OFFSET %s LIMIT 1", [ROWS])
        moment, seq = cursor.fetchone()
    last = search.Cursor(drafts.instant(moment), seq)
    if len(_page("", last).seqs) != ROWS or len(_verified_rows()) != ROWS:
        raise RuntimeError("a page is not full")

    def pages() -> Mapping[str, float]:
        works: dict[str, Callable[[], object]] = {
            "raw": lambda: _fetch_raw(seqs),
            "verified": _verified_rows,
            "rendered": _rendered_rows,
            "first": lambda: _page(""),
            "deepest": lambda: _page("", last),
        }
        return _medians(works, REPEATS)

    times = common.interleaved(OPTIONS.rounds, pages)
    name, baseline = "page of 100 rows: found, verified, formatted", "fetching the same rows raw"
    table.cost(name, baseline, times["verified"], times["raw"], 16.0)
    table.cost("  and their HTML", baseline, times["rendered"], times["raw"], 16.0)
    table.cost("deepest page", "first page", times["deepest"], times["first"], 2.0)


def _fetch_raw(seqs: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(RAW_ROWS, [seqs])
        cursor.fetchall()


def _verified_rows() -> list[Row]:
    found = display(queries.recorded(_page("").seqs))
    if any(row.mark_tone for row in found):
        raise RuntimeError("a row does not prove itself")
    return found


def _rendered_rows() -> str:
    return render_to_string("components/rows.html", {"rows": _verified_rows()})


def measure_counts(table: common.Table) -> None:
    works: dict[str, Callable[[], object]] = {
        "histogram": lambda: search.histogram(parse(""), now=events.END, resolve=actor_ids),
        "histogram scan": _scan_days,
        "facets": lambda: search.facets(parse(""), now=events.END, resolve=actor_ids, most=6),
        "facets scan": _scan_facets,
    }
    times = common.interleaved(OPTIONS.rounds, lambda: _medians(works, SCANS))
    table.cost("histogram", SCAN, times["histogram"], times["histogram scan"], 1 / 20)
    table.cost("facets", SCAN, times["facets"], times["facets scan"], 1 / 20)


def _scan_days() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT date_trunc('day', timestamp), count(*) FROM ledger_event GROUP BY 1 ORDER BY 1")
        cursor.fetchall()


def _scan_facets() -> None:
    with connection.cursor() as cursor:
        for name in FACETS:
            cursor.execute(f"SELECT {name}, count(*) FROM ledger_event GROUP BY 1 ORDER BY 2 DESC LIMIT 6")
            cursor.fetchall()


def _medians(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The works take turns."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            took[name].append(common.seconds(work))
    return {name: common.percentile(values, 50) for name, values in took.items()}


def main() -> None:
    size = events.fill(OPTIONS.events)
    table = common.Table(f"Pages, {size:,} events")
    measure_filters(table, size)
    measure_pages(table)
    measure_counts(table)
    table.note(
        f"the floors of filters, depth, histogram and facets are meant for {common.GOAL_EVENTS:,} events;"
        f" here they are measured at {size:,}, and growth from 1 to 10 million is not measured"
    )
    table.note("JSON of 100 rows is not measured")
    table.finish(OPTIONS)


if __name__ == "__main__":
    main()
