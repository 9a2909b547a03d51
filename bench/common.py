"""What the benchmarks share: engines of their own, interleaved rounds, and a table of ratios.

`begin` must run before any app of the portal is imported: it starts PostgreSQL and Valkey out of their wheels, durable
as in production, with a fresh database in which the log has begun. All of it is gone when the process ends.

A line of the table is the ratio of two medians out of the same run. Absolute times are never printed: on shared
machines they move by half, while the ratios stay.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import ParamSpec

import django
from django.core.management import call_command
from django.db import connections

from auditportal.embedded.engines import Engines

P = ParamSpec("P")
ORIGIN = "bench.invalid/log"
LEAST_ROUNDS = 3  # a median of fewer is no median
GOAL_EVENTS = 10_000_000  # the size for which the floors of searches and proofs are meant
SHOWN = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "jit")

Measure = Callable[[], Mapping[str, float]]  # one round of one variant: seconds by name
Times = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Options:
    events: int
    rounds: int
    is_checked: bool  # a floor that is missed fails the run
    directory: Path


def begin(description: str, *, events: int, rounds: int) -> Options:
    """Engines, settings, apps and an empty log are ready; everything is removed when the process ends."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if events:
        parser.add_argument("--events", type=int, default=events, help=f"events in the log, {events:,} unless said")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds of each ratio, {rounds} unless said")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a floor is missed")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="auditportal-bench-"))
    engines = Engines(directory / "engines", fast=False)
    atexit.register(_end, engines, directory)
    signal.signal(signal.SIGTERM, _leave)
    endpoints = engines.start()
    os.environ |= {
        "DATABASE_URL": endpoints.database_url,
        "DATABASE_OWNER_URL": endpoints.database_owner_url,
        "REDIS_URL": endpoints.redis_url,
        "DJANGO_SETTINGS_MODULE": "auditportal.settings",
        "AUDITPORTAL_ENV_FILE": os.devnull,
        "AUDITPORTAL_MODE": "embedded",
        "AUDITPORTAL_SECRET_KEY": "a-key-for-benchmarks-that-guards-nothing",
        "AUDITPORTAL_ORIGIN": ORIGIN,
        "AUDITPORTAL_URL": "http://localhost:8000",
        "AUDITPORTAL_DATA": str(directory / "portal"),
        "AUDITPORTAL_SIGNER": str(directory / "signer"),
        "AUDITPORTAL_STATIC": str(directory / "static"),
        "AUDITPORTAL_DEMO": "0",
    }
    (directory / "static").mkdir()
    django.setup()
    call_command("setup_database", verbosity=0, stdout=io.StringIO())
    return Options(getattr(given, "events", 0), max(given.rounds, LEAST_ROUNDS), given.check, directory)


def _end(engines: Engines, directory: Path) -> None:
    if os.environ.get("DATABASE_URL"):
        connections.close_all()
    engines.remove()
    shutil.rmtree(directory, ignore_errors=True)


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)  # so that what was registered with atexit still runs


def seconds(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    began = time.perf_counter()
    work(*args, **kwargs)
    return time.perf_counter() - began


def interleaved(rounds: int, *variants: Measure) -> Times:
    """The seconds of each variant in each round, one after the other; a first round warms up and is dropped."""
    times: Times = {}
    for number in range(rounds + 1):
        for variant in variants:
            gc.collect()
            for name, took in variant().items():
                if number:
                    times.setdefault(name, []).append(took)
    return times


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def owner_executes(*statements: str) -> None:
    """As the owner of the tables, each statement in a transaction of its own."""
    with connections["owner"].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connections["owner"].close()


@dataclass(frozen=True, slots=True)
class Line:
    subject: str
    baseline: str
    ratio: float
    lowest: float
    highest: float
    floor: float | None
    is_speed: bool  # at least the floor is wanted, else at most
    load: float

    @property
    def is_missed(self) -> bool:
        if self.floor is None:
            return False
        return self.ratio < self.floor if self.is_speed else self.ratio > self.floor

    def cells(self) -> tuple[str, ...]:
        floor, verdict = "", ""
        if self.floor is not None:
            floor = f"{'at least' if self.is_speed else 'at most'} {_number(self.floor)}"
            verdict = "below" if self.is_missed else "ok"
        spread = f"{_number(self.lowest)} - {_number(self.highest)}"
        busy = "*" if self.load > (os.cpu_count() or 1) else ""
        return self.subject, self.baseline, _number(self.ratio), spread, floor, verdict, f"{self.load:.1f}{busy}"


HEADINGS = ("measured", "against", "ratio", "lowest - highest", "floor", "", "load")


@dataclass(slots=True)
class Table:
    title: str
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def speed(
        self, subject: str, baseline: str, took: Sequence[float], against: Sequence[float], floor: float | None = None
    ) -> None:
        """How fast it is as a share of the baseline's speed; the floor is the least that will do."""
        self._add(subject, baseline, against, took, floor, is_speed=True)

    def cost(
        self, subject: str, baseline: str, took: Sequence[float], against: Sequence[float], floor: float | None = None
    ) -> None:
        """How many times the baseline's time it takes; the floor is the most that will do."""
        self._add(subject, baseline, took, against, floor, is_speed=False)

    def _add(
        self,
        subject: str,
        baseline: str,
        upper: Sequence[float],
        lower: Sequence[float],
        floor: float | None,
        *,
        is_speed: bool,
    ) -> None:
        each = [above / below for above, below in zip(upper, lower, strict=True)]
        ratio = median(upper) / median(lower)
        load = os.getloadavg()[0]
        self.lines.append(Line(subject, baseline, ratio, min(each), max(each), floor, is_speed, load))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self, options: Options) -> None:
        """Prints the table; ends the process with 1 when a floor is missed and that was asked for."""
        print(f"\n{self.title}\n{_machine()}; {options.rounds} rounds, interleaved\n")
        rows = [HEADINGS, *(line.cells() for line in self.lines)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print()
        for note in self.notes:
            print(f"- {note}")
        if any(line.load > (os.cpu_count() or 1) for line in self.lines):
            print("- * the machine had more to do than it has cores: repeat before believing this line")
        sys.exit(1 if options.is_checked and any(line.is_missed for line in self.lines) else 0)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 -- three digits say enough of a ratio


def _machine() -> str:
    with connections["default"].cursor() as cursor:
        found = []
        for name in SHOWN:
            cursor.execute(f"SHOW {name}")
            found.append(f"{name} {cursor.fetchone()[0]}")
    return f"{os.cpu_count()} cores; Python {sys.version.split()[0]}; {', '.join(found)}"
