"""The real portal on a database of its own: granian, sealer and all, as `bin/run` starts them; for tests from outside."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from django.conf import settings

ROOT = Path(__file__).parents[1]
READY_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def database_url(alias: str) -> str:
    value = settings.DATABASES[alias]
    host = quote(str(value["HOST"]), safe="")
    return f"postgresql://{value['USER']}:{value['PASSWORD']}@/{value['NAME']}?host={host}"


@dataclass(slots=True)
class Portal:
    """Started processes by name; `url` answers once `start` has returned."""

    directory: Path
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def environment(self) -> dict[str, str]:
        # A queue of its own: another portal's worker must not take this one's messages.
        queue = re.sub(r"db=\d+", f"db={1 + self.port % 15}", os.environ["REDIS_URL"])
        return os.environ | {
            "REDIS_URL": queue,
            "DATABASE_URL": database_url("default"),
            "DATABASE_OWNER_URL": database_url("owner"),
            "AUDITPORTAL_URL": self.url,
            "AUDITPORTAL_SIGNER": str(settings.SIGNER_DIRECTORY),
            "AUDITPORTAL_BUNDLE_SIGNER": str(settings.SIGNER_DIRECTORY.parent / "bundle-signer"),
            "AUDITPORTAL_DATA": str(self.directory / "data"),
            "PYTHONPATH": str(ROOT),
        }

    def command(self, name: str) -> list[str]:
        if name == "sealer":
            return [sys.executable, "manage.py", "run_sealer"]
        if name == "worker":
            celery = [sys.executable, "-m", "celery", "-A", "auditportal", "worker"]
            return [*celery, "--loglevel", "WARNING", "--concurrency", "2"]
        granian = str(Path(sys.executable).parent / "granian")
        options = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(self.port), "--no-ws"]
        options += ["--workers", "2", "--blocking-threads", "8", "--respawn-failed-workers"]
        return [granian, *options, "auditportal.wsgi:application"]

    def spawn(self, name: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name), cwd=ROOT, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )

    def start(self, *more: str) -> Portal:
        """Web and sealer, and what else is named, run; the web server answers."""
        for name in ("web", "sealer", *more):
            self.spawn(name)
        self.wait()
        return self

    def wait(self) -> None:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.directory / "web.log").read_text()[-2000:])

    def kill(self, name: str) -> None:
        """As hard as it gets: the whole group, at once."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()
