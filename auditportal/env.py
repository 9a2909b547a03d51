"""What the environment says, read once and typed.

Real environment variables win over the file; the file is `AUDITPORTAL_ENV_FILE`, or `.env` beside `manage.py`.
`bin/run` writes it (mode 0600). Lines are `NAME=value`, taken literally: no quotes, no expansion.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

ROOT = Path(__file__).resolve().parent.parent


class MisconfiguredError(Exception):
    """An installation that must not start; the message says what to set."""


def load(path: Path | None = None) -> dict[str, str]:
    """The variables of the file, overridden by those of the process."""
    path = path or Path(os.environ.get("AUDITPORTAL_ENV_FILE") or ROOT / ".env")
    values: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        text = ""  # no file is normal in production: everything comes from the process
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith("#"):
            values[name.strip()] = value.strip()
    return values | dict(os.environ)


def flag(values: dict[str, str], name: str) -> bool:
    return values.get(name, "").lower() in {"1", "true", "yes", "on"}


def database(url: str) -> dict[str, Any]:
    """Django's form of a `postgresql://` URL; a `host` in the query is the directory of a unix socket.

    Raises:
        MisconfiguredError: the URL is not PostgreSQL's, or names no database.
    """
    parts = urlsplit(url)
    name = unquote(parts.path.lstrip("/"))
    if parts.scheme not in {"postgresql", "postgres"} or not name:
        raise MisconfiguredError("DATABASE_URL must look like postgresql://user:password@host:5432/name")
    options = dict(parse_qsl(parts.query))
    host = options.pop("host", parts.hostname or "")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(parts.port or options.pop("port", "")),
        "OPTIONS": options,
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }


def celery_broker(redis_url: str) -> str:
    """The broker URL Celery wants: its word for a unix socket is `redis+socket`."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    query = dict(parse_qsl(parts.query))
    options = {"virtual_host": query.get("db", "0")}
    password = f":{query['password']}@" if "password" in query else ""
    return f"redis+socket://{password}{parts.path}?{urlencode(options)}"
