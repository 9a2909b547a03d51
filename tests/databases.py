"""Databases for tests: one template, migrated once a run, cloned for each worker and for each test that commits.

The log's guards refuse TRUNCATE, so Django's flush cannot clean up behind a committing test; a clone costs 40 ms.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from psycopg import sql

TEMPLATE = "auditportal_template"


def directory() -> Path:
    return Path(os.environ["AUDITPORTAL_TEST_DIRECTORY"])


def _superuser_password() -> str | None:
    """Of the cluster that this run made; None when the tests use somebody's own server."""
    path = directory() / "engines" / "engines.secret"
    return str(json.loads(path.read_text())["superuser"]) if path.exists() else None


def _owner() -> sql.Identifier:
    return sql.Identifier(str(settings.DATABASES["owner"]["USER"]))


def _connect(database: str) -> psycopg.Connection:
    owner, password = settings.DATABASES["owner"], _superuser_password()
    user = (
        {"user": "postgres", "password": password}
        if password
        else {"user": owner["USER"], "password": owner["PASSWORD"]}
    )
    host, port = str(owner["HOST"]), str(owner["PORT"]) or None
    return psycopg.connect(host=host, port=port, dbname=database, autocommit=True, **user)


@contextmanager
def _server() -> Iterator[psycopg.Connection]:
    with _connect("postgres") as connection:
        yield connection


def ensure_template() -> None:
    """The template stands, with genesis sealed and static files collected; made by whichever worker comes first."""
    with (directory() / "template.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = directory() / "template.done"
        if done.exists():
            return
        with _server() as server:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(TEMPLATE)))
            server.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(TEMPLATE), _owner()))
        with _connect(TEMPLATE) as connection:
            connection.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(_owner()))
        with pointed_at(TEMPLATE):
            call_command("setup_database", verbosity=0, stdout=io.StringIO())
        call_command("collectstatic", interactive=False, verbosity=0)
        # Out of the way of the default setting: a test that sealed with the template's memory would spoil all others.
        (directory() / "signer").rename(directory() / "signer-of-the-template")
        done.touch()


def clone(name: str) -> None:
    with _server() as server:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        server.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(TEMPLATE), _owner()
            )
        )


def drop(name: str) -> None:
    with _server() as server:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def point_at(name: str) -> None:
    """Both aliases of this process lead to that database from now on."""
    for alias in connections:
        connections[alias].close()
        connections[alias].settings_dict["NAME"] = name
        settings.DATABASES[alias]["NAME"] = name


@contextmanager
def pointed_at(name: str) -> Iterator[None]:
    before = str(settings.DATABASES["default"]["NAME"])
    point_at(name)
    try:
        yield
    finally:
        point_at(before)


@contextmanager
def cloned() -> Iterator[str]:
    """A database of its own, gone afterwards; for tests that commit, fork or look from outside."""
    name = f"auditportal_{uuid.uuid4().hex[:12]}"
    clone(name)
    try:
        with pointed_at(name):
            yield name
    finally:
        drop(name)


def fresh_signer(target: Path) -> Path:
    """The log's key with the memory it had when the template was made."""
    shutil.copytree(directory() / "signer-of-the-template", target)
    return target


@contextmanager
def superuser() -> Iterator[psycopg.Connection]:
    """As whoever owns the server: may disable triggers, and is what verification is there for."""
    with _connect(str(settings.DATABASES["default"]["NAME"])) as connection:
        yield connection
