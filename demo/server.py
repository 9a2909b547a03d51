"""The demo's other systems in one small read-only server on loopback: an OCI registry, and an MLflow that answers.

The registry serves the recorded ModelKits of tests/samples/oci; one layer is served with one byte changed, as a disk
that rots or somebody with access to it would. MLflow's answers are the recorded ones of tests/samples/mlflow.
"""

from __future__ import annotations

import argparse
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

SAMPLES = Path(__file__).resolve().parent.parent / "tests" / "samples"
BLOBS = SAMPLES / "oci" / "layout" / "blobs" / "sha256"
BROKEN = "bd8d72eda741595adc586c07a8c880c784b64f0abf2cd9e957a5c160bcea54b0"  # the dataset layer of 0.2.0
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_MANIFESTS = re.compile(r"/v2/(.+)/manifests/([^/]+)")
_BLOBS = re.compile(r"/v2/(.+)/blobs/sha256:([0-9a-f]{64})")
_TAGS = re.compile(r"/v2/(.+)/tags/list")


def _references() -> dict[str, str]:
    """Digest by `repository:tag`, as the layout's index names them."""
    index = json.loads((BLOBS.parent.parent / "index.json").read_text())
    named = {item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"] for item in index["manifests"]}
    return {name: digest for name, digest in named.items() if "@" not in name}


def _recorded(name: str) -> Any:  # noqa: ANN401 -- any JSON
    return json.loads((SAMPLES / "mlflow" / "rest" / f"{name}.json").read_text())


class Handler(BaseHTTPRequestHandler):
    """Answers as a Distribution registry and an MLflow server do, as far as the portal asks."""

    protocol_version = "HTTP/1.1"
    server_version = "demo"
    references = _references()

    def log_message(self, *_arguments: object) -> None:
        """Says nothing: the portal's own log tells what it asked."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.startswith("/v2/"):
            self._registry(parts.path)
        else:
            self._mlflow(parts.path, parse_qs(parts.query))

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        asked = json.loads(self.rfile.read(size) or b"{}")
        if self.path.endswith("/experiments/search"):
            self._json(_recorded("experiments_search"))
        elif self.path.endswith("/runs/search"):
            self._json({"runs": _runs(asked)})
        else:
            self._json({"error_code": "ENDPOINT_NOT_FOUND", "message": ""}, 404)

    def _registry(self, path: str) -> None:
        if path == "/v2/":
            self._json({})
        elif match := _TAGS.fullmatch(path):
            tags = [name.rpartition(":")[2] for name in self.references if name.rpartition(":")[0] == match[1]]
            self._json({"name": match[1], "tags": tags} if tags else _error("NAME_UNKNOWN"), 200 if tags else 404)
        elif match := _MANIFESTS.fullmatch(path):
            digest = self.references.get(f"{match[1]}:{match[2]}", match[2])
            self._blob(digest.removeprefix("sha256:"), MANIFEST, "MANIFEST_UNKNOWN")
        elif match := _BLOBS.fullmatch(path):
            self._blob(match[2], "application/octet-stream", "BLOB_UNKNOWN")
        else:
            self._json(_error("UNSUPPORTED"), 404)

    def _blob(self, digest: str, media_type: str, missing: str) -> None:
        path = BLOBS / digest
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or not path.exists():
            self._json(_error(missing), 404)
            return
        content = path.read_bytes()
        if digest == BROKEN:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Docker-Content-Digest", f"sha256:{digest}")  # as registries do, whatever they send
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _mlflow(self, path: str, query: dict[str, list[str]]) -> None:
        name, version = (query.get(key, [""])[0] for key in ("name", "version"))
        if path == "/version":
            self._text("3.17.2")
        elif path.endswith("/registered-models/search"):
            self._json(_recorded("registered_models_search"))
        elif path.endswith("/model-versions/search"):
            self._json(_recorded("model_versions_search"))
        elif path.endswith("/registered-models/get"):
            models = _recorded("registered_models_search")["registered_models"]
            self._one("registered_model", [item for item in models if item["name"] == name])
        elif path.endswith("/model-versions/get"):
            versions = _recorded("model_versions_search")["model_versions"]
            self._one("model_version", [v for v in versions if (v["name"], v["version"]) == (name, version)])
        else:
            self._json({"error_code": "ENDPOINT_NOT_FOUND", "message": ""}, 404)

    def _one(self, member: str, found: list[Any]) -> None:
        if found:
            self._json({member: found[0]})
        else:
            self._json({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"{member} not found"}, 404)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _text(self, text: str) -> None:
        self._send(text.encode(), "text/plain; charset=utf-8", 200)

    def _send(self, body: bytes, media_type: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _runs(asked: dict[str, Any]) -> list[Any]:
    """The recorded runs that the filter `attributes.end_time >= N` lets through, oldest first."""
    match = re.search(r"end_time >= (\d+)", str(asked.get("filter", "")))
    since = int(match[1]) if match else 0
    runs = {
        run["info"]["run_id"]: run for name in ("runs_search", "runs_search_page2") for run in _recorded(name)["runs"]
    }
    ended = [run for run in runs.values() if run["info"].get("end_time", 0) >= since and "end_time" in run["info"]]
    return sorted(ended, key=lambda run: run["info"]["end_time"])[: int(asked.get("max_results", 1000))]


def _error(code: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="demo.server", description="The demo's registry and MLflow, read-only.")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    with ThreadingHTTPServer(("127.0.0.1", options.port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
