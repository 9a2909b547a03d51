"""An MLflow server on loopback, with state that a test changes behind everybody's back.

It answers the calls our connector makes, in the shapes that a real 3.17 gave (tests/samples/mlflow/rest): empty members
are absent, times are epoch milliseconds, versions are strings, page tokens are offsets. Nothing that MLflow does not
record is recorded here either.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

BEGIN_MS = 1_795_321_590_000  # when the samples were recorded


@dataclass
class FakeMlflow:
    """`status` makes every answer that refusal; `body` replaces every body."""

    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    page_size: int = 1000
    status: int = 0
    body: bytes | None = None
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    now_ms: int = BEGIN_MS

    def __post_init__(self) -> None:
        self.experiments["0"] = {"experiment_id": "0", "name": "Default", "lifecycle_stage": "active"}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def tick(self) -> int:
        self.now_ms += 1000
        return self.now_ms

    def create_model(self, name: str, **members: Any) -> dict[str, Any]:
        now = self.tick()
        self.models[name] = {"name": name, "creation_timestamp": now, "last_updated_timestamp": now, **members}
        return self.models[name]

    def create_version(self, name: str, **members: Any) -> dict[str, Any]:
        """The next version of the model, which is made when it is not there; numbers are never given twice to it."""
        model = self.models.get(name) or self.create_model(name)
        model["_last"] = number = model.get("_last", 0) + 1
        now = self.tick()
        version = {
            "name": name,
            "version": str(number),
            "creation_timestamp": now,
            "last_updated_timestamp": now,
            "current_stage": "None",
            "description": "",
            "source": f"models:/m-{uuid.uuid4().hex}",
            "run_id": "",
            "status": "READY",
            "run_link": "",
            **members,
        }
        self.versions[name, str(number)] = version
        return version

    def delete_version(self, name: str, version: str) -> None:
        del self.versions[name, version]

    def delete_model(self, name: str) -> None:
        del self.models[name]
        self.versions = {key: value for key, value in self.versions.items() if key[0] != name}

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Without moving any timestamp, as MLflow does it."""
        aliases = [item for item in self.models[name].get("aliases", []) if item["alias"] != alias]
        self.models[name]["aliases"] = [*aliases, {"alias": alias, "version": version}]

    def remove_alias(self, name: str, alias: str) -> None:
        aliases = [item for item in self.models[name].pop("aliases", []) if item["alias"] != alias]
        if aliases:
            self.models[name]["aliases"] = aliases

    def set_tag(self, name: str, version: str, key: str, value: str) -> None:
        self._set_tag(self.versions[name, version], key, value)

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        self._set_tag(self.models[name], key, value)

    def _set_tag(self, item: dict[str, Any], key: str, value: str) -> None:
        item["tags"] = [tag for tag in item.get("tags", []) if tag["key"] != key] + [{"key": key, "value": value}]

    def end_run(self, *, end_time: int | None = None, status: str = "FINISHED", **members: Any) -> dict[str, Any]:
        """A run that ended; `params`, `tags` and `metrics` are dictionaries."""
        run_id = members.get("run_id") or uuid.uuid4().hex
        now = self.tick()
        info = {
            "run_uuid": run_id,
            "run_id": run_id,
            "experiment_id": "0",
            "run_name": members.get("run_name", "likeable-stag-873"),
            "user_id": members.get("user_id", "root"),
            "status": status,
            "start_time": now - 500,
            "end_time": now if end_time is None else end_time,
            "artifact_uri": f"mlflow-artifacts:/0/{run_id}/artifacts",
            "lifecycle_stage": "active",
        }
        data = {
            name: [{"key": key, "value": value} for key, value in members[name].items()]
            for name in ("metrics", "params", "tags")
            if members.get(name)
        }
        self.runs[run_id] = {
            "info": info,
            "data": data,
            **({"inputs": members["inputs"]} if "inputs" in members else {}),
        }
        return self.runs[run_id]


Answer = tuple[int, dict[str, Any]]


def _missing(message: str) -> Answer:
    code = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": message}
    return 404, {**code, "sqlstate": "KAM00", "error_class": "RESOURCE_NOT_FOUND"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeMlflow

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self._answer(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(urlsplit(self.path).path, json.loads(raw or b"{}"))

    def _answer(self, path: str, given: dict[str, Any]) -> None:
        self.fake.requests.append((self.command, path, given))
        self.fake.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.fake.body is not None:
            status, body = 200, self.fake.body
        elif path == "/version":
            status, body = 200, b"3.17.2"
        else:
            status, value = self._api(path.removeprefix("/api/2.0/mlflow/"), given)
            body = json.dumps(value).encode()
        status = self.fake.status or status
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _api(self, name: str, given: dict[str, Any]) -> Answer:
        fake = self.fake
        if name == "experiments/search":
            return self._page("experiments", list(fake.experiments.values()), given)
        if name == "runs/search":
            return self._runs(given)
        if name == "runs/get":
            run = fake.runs.get(given.get("run_id", ""))
            return (200, {"run": run}) if run else _missing(f"Run with id={given.get('run_id')} not found")
        if name == "registered-models/search":
            return self._page("registered_models", [_shown(item) for item in fake.models.values()], given)
        if name == "registered-models/get":
            model = fake.models.get(given.get("name", ""))
            if model is None:
                return _missing(f"Registered Model with name={given.get('name')} not found")
            return 200, {"registered_model": _shown(model)}
        if name == "model-versions/search":
            return self._page("model_versions", list(fake.versions.values()), given)
        if name == "model-versions/get":
            version = fake.versions.get((given.get("name", ""), given.get("version", "")))
            if version is None:
                return _missing(f"Model Version (name={given.get('name')}, version={given.get('version')}) not found")
            return 200, {"model_version": version}
        return 404, {"detail": "Not Found"}

    def _runs(self, given: dict[str, Any]) -> Answer:
        if not given.get("experiment_ids"):
            return 200, {}
        found = list(self.fake.runs.values())
        match = re.fullmatch(r"attributes\.end_time (>=|=) (\d+)", given.get("filter", ""))
        if match is None:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid filter"}
        bound = int(match[2])
        ends = [(run["info"]["end_time"], run) for run in found if run["info"].get("end_time") is not None]
        kept = [(end, run) for end, run in ends if (end >= bound if match[1] == ">=" else end == bound)]
        return self._page("runs", [run for _, run in sorted(kept, key=lambda item: item[0])], given)

    def _page(self, member: str, found: list[dict[str, Any]], given: dict[str, Any]) -> Answer:
        token = given.get("page_token", "")
        offset = json.loads(base64.b64decode(token))["offset"] if token else 0
        size = min(int(given.get("max_results", 1000)), self.fake.page_size)
        value: dict[str, Any] = {member: found[offset : offset + size]} if found else {}
        if len(found) > offset + size:
            value["next_page_token"] = base64.b64encode(json.dumps({"offset": offset + size}).encode()).decode()
        return 200, value


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if not name.startswith("_")}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no fault of the server."""


@contextmanager
def serving(fake: FakeMlflow | None = None) -> Iterator[FakeMlflow]:
    """A server that answers while the block lasts."""
    fake = fake if fake is not None else FakeMlflow()
    server = _Server(("127.0.0.1", fake.port), type("_Handler", (Handler,), {"fake": fake}))
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True, slots=True)
class Hook:
    """A delivery as MLflow signs and sends it."""

    body: bytes
    headers: dict[str, str]

    @property
    def delivery_id(self) -> str:
        return self.headers["X-MLflow-Delivery-Id"]


def hook(name: str, data: dict[str, Any], *, secret: str = "whsec-test", now: datetime, delivery_id: str = "") -> Hook:
    entity, _, action = name.partition(".")
    sent = now.astimezone(UTC).isoformat()
    body = json.dumps({"entity": entity, "action": action, "timestamp": sent, "data": data}).encode()
    return sign(body, secret=secret, now=now, delivery_id=delivery_id)


def sign(body: bytes, *, secret: str, now: datetime, delivery_id: str = "") -> Hook:
    delivery_id, seconds = delivery_id or str(uuid.uuid4()), str(int(now.timestamp()))
    signed = f"{delivery_id}.{seconds}.".encode() + body
    value = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    return Hook(
        body,
        {
            "Content-Type": "application/json",
            "X-MLflow-Delivery-Id": delivery_id,
            "X-MLflow-Timestamp": seconds,
            "X-MLflow-Signature": f"v1,{value}",
        },
    )
