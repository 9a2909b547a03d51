"""A real MLflow server for tests; its start takes some twenty seconds, so there is one for a whole module."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from tests.portal import free_port

READY_S = 120.0
TUTORIAL = Path(__file__).parent / "samples" / "mlflow" / "tutorial"


@dataclass
class RealMlflow:
    """`url` answers after `start`; acts go through its REST API, as its own client's do."""

    directory: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> RealMlflow:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        environment = os.environ | {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_CACHE_TTL": "1",
        }
        command = [
            str(Path(sys.executable).parent / "mlflow"), "server", "--backend-store-uri", f"sqlite:///{self.directory}/mlflow.db",
            "--artifacts-destination", str(self.directory / "artifacts"), "--host", "127.0.0.1", "--port", str(self.port), "-w", "1",
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return self
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self.directory / "log").read_text()[-2000:])

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        asked = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{path}",
            data=json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            value: dict[str, Any] = json.loads(answer.read() or b"{}")
            return value

    def train(self) -> dict[str, Any]:
        """Runs the tutorial with its extras: a run, a dataset input, and `rf-iris` registered; what it wrote."""
        place = self.directory / "tutorial"
        for name, below in (("train.py", "src"), ("iris.csv", "data")):
            (place / below).mkdir(parents=True, exist_ok=True)
            shutil.copy(TUTORIAL / name, place / below / name)
        environment = os.environ | {"MLFLOW_TRACKING_URI": self.url, "MLFLOW_DISABLE_TELEMETRY": "true"}
        done = subprocess.run(
            [sys.executable, "src/train.py", "extras"],
            cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        meta: dict[str, Any] = json.loads((place / "mlflow_meta.json").read_text())
        return meta


@contextmanager
def running(directory: Path) -> Iterator[RealMlflow]:
    """A started server, ended afterwards."""
    server = RealMlflow(directory)
    try:
        yield server.start()
    finally:
        server.stop()
