"""The env file of an instance: its keys are made once, its addresses are written anew at each start."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from auditportal.embedded.engines import Endpoints

ROOT = Path(__file__).resolve().parent.parent.parent
COMMENT = "# Made by bin/run: keys once, addresses at each start. Private; never commit it.\n"


def default_data() -> Path:
    return ROOT / "var"


def path_for(data: Path) -> Path:
    """`.env` beside manage.py for the default instance, else in its data directory."""
    return ROOT / ".env" if data == default_data() else data / ".env"


def read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def write(
    path: Path, *, data: Path, port: int, demo: bool, endpoints: Endpoints | None, demo_port: int = 0
) -> dict[str, str]:
    """The instance's variables, stored (mode 0600); what stood in the file stays, but for the addresses.

    `endpoints` is None where the person's own database and queue are used.
    """
    values = read(path)
    values.setdefault("AUDITPORTAL_MODE", "embedded")
    values.setdefault("AUDITPORTAL_SECRET_KEY", secrets.token_urlsafe(48))
    values.setdefault("AUDITPORTAL_ORIGIN", f"demo.invalid/{secrets.token_hex(4)}")
    values.setdefault("AUDITPORTAL_DEMO", "1" if demo else "0")
    values.setdefault("AUDITPORTAL_DEMO_PASSWORD", secrets.token_urlsafe(9))
    if demo_port:
        values["AUDITPORTAL_DEMO_PORT"] = str(demo_port)
    values["AUDITPORTAL_DATA"] = str(data / "portal")
    values["AUDITPORTAL_URL"] = f"http://localhost:{port}"
    if endpoints is not None:
        values["DATABASE_URL"] = endpoints.database_url
        values["DATABASE_OWNER_URL"] = endpoints.database_owner_url
        values["REDIS_URL"] = endpoints.redis_url
    _store(path, values)
    return values


def _store(path: Path, values: Mapping[str, str]) -> None:
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(COMMENT + "".join(f"{name}={value}\n" for name, value in values.items()))
    fresh.replace(path)
