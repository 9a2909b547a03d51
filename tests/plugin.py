"""Loaded before Django's settings: gives the run its PostgreSQL and Redis, real ones, unless the environment has them.

The process that starts the run starts the engines and removes them at its end; workers of pytest-xdist inherit the
addresses by their environment.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from auditportal.embedded.engines import Engines

ORIGIN = "test.invalid/log"


REDIS_DATABASES = 15  # besides the first, of a server's usual 16
CRASHED = ("terminated by signal", "PANIC", "reinitializing")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A database that crashed under the tests is told of, since its tests only see a lost connection."""
    log = Path(os.environ["AUDITPORTAL_TEST_DIRECTORY"]) / "engines" / "postgres.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    for number, line in enumerate(lines):
        if any(word in line for word in CRASHED):
            terminalreporter.write_line("\n".join(lines[max(0, number - 5) : number + 3]))


def _apart() -> None:
    """A worker has a Redis database of its own: a test that clears the cache ends no session of another worker."""
    number = 1 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % REDIS_DATABASES
    os.environ["REDIS_URL"] = re.sub(r"\bdb=0$", f"db={number}", os.environ["REDIS_URL"])


def _begin() -> None:
    if os.environ.get("AUDITPORTAL_TEST_DIRECTORY"):
        _apart()
        return  # a worker: everything stands in its environment
    directory = Path(tempfile.mkdtemp(prefix="auditportal-test-"))
    engines = None
    if not os.environ.get("DATABASE_URL"):
        engines = Engines(directory / "engines", fast=True)
        endpoints = engines.start()
        os.environ["DATABASE_URL"] = endpoints.database_url
        os.environ["DATABASE_OWNER_URL"] = endpoints.database_owner_url
        os.environ["REDIS_URL"] = endpoints.redis_url
    os.environ |= {
        "AUDITPORTAL_TEST_DIRECTORY": str(directory),
        "AUDITPORTAL_ENV_FILE": os.devnull,
        "AUDITPORTAL_MODE": "embedded",
        "AUDITPORTAL_SECRET_KEY": "a-key-for-tests-that-guards-nothing-at-all",
        "AUDITPORTAL_ORIGIN": ORIGIN,
        "AUDITPORTAL_URL": "http://localhost:8000",
        "AUDITPORTAL_DATA": str(directory / "portal"),
        "AUDITPORTAL_SIGNER": str(directory / "signer"),
        "AUDITPORTAL_STATIC": str(directory / "static"),
        "AUDITPORTAL_DEMO": "0",
    }

    def end() -> None:
        if engines is not None:
            engines.remove()
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(end)


_begin()
