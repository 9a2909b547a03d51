"""A real MLflow server with its own SQLite store, and the tutorial's training against it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from tests.portal import free_port

TUTORIAL = Path(__file__).parent / "samples" / "mlflow" / "tutorial"
READY_S = 180.0  # its first start migrates its store


@dataclass(slots=True)
class MlflowServer:
    """`url` answers once `start` has returned; hooks may reach this machine, as an on-premises receiver needs it."""

    directory: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> MlflowServer:
        self.directory.mkdir(parents=True, exist_ok=True)
        store = f"sqlite:///{self.directory / 'mlflow.db'}"
        command = [str(Path(sys.executable).parent / "mlflow"), "server", "--backend-store-uri", store, "-w", "1"]
        command += ["--artifacts-destination", str(self.directory / "artifacts")]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "PYTHON"))}
        environment |= {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_CACHE_TTL": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        with (self.directory / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    if answer.read() == b"OK":
                        return self
            except OSError:
                time.sleep(0.3)
            assert self.process.poll() is None, self.log()
        raise AssertionError(self.log())

    def log(self) -> str:
        return (self.directory / "server.log").read_text()[-3000:]

    def stop(self) -> None:
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def post(self, path: str, value: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{path}", json.dumps(value).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def train(self) -> dict[str, Any]:
        """Runs the tutorial with its extras: a run, a dataset input, and `rf-iris` registered; what it wrote."""
        place = self.directory / "tutorial"
        (place / "src").mkdir(parents=True, exist_ok=True)
        (place / "data").mkdir(exist_ok=True)
        shutil.copy(TUTORIAL / "train.py", place / "src" / "train.py")
        shutil.copy(TUTORIAL / "iris.csv", place / "data" / "iris.csv")
        environment = os.environ | {"MLFLOW_TRACKING_URI": self.url, "MLFLOW_DISABLE_TELEMETRY": "true"}
        done = subprocess.run(
            [sys.executable, "src/train.py", "extras"],
            cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        meta: dict[str, Any] = json.loads((place / "mlflow_meta.json").read_text())
        return meta
