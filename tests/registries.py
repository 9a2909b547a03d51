"""A real CNCF Distribution registry (Debian's `docker-registry`) for tests, with the kits of the samples."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from tests.fakes.registry import LAYOUT, MANIFEST, digest_of
from tests.portal import free_port

READY_S = 10.0
ALICE = "alice:$2y$05$yPa8aFgWUbuHh9geQd8GE.iCAPcfDO0nJHkla6WSlyYOUA6jJuc1m"  # s3cret


@dataclass
class RealRegistry:
    """`url` answers after `start`; its storage lies below `directory` and may be damaged by the test."""

    directory: Path
    sink: str = ""  # where notifications are sent
    token: str = "test-token"
    cache: bool = False  # the blob descriptor cache, Debian's default
    htpasswd: bool = False
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> RealRegistry:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        path = self.directory / "config.yml"
        path.write_text(json.dumps(self._settings()))
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", str(path)], stdout=log, stderr=log)
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            try:
                self.request("GET", "/v2/")
            except HTTPError:
                return self  # 401: it answers
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise AssertionError((self.directory / "log").read_text()[-2000:])

    def _settings(self) -> dict[str, Any]:
        storage: dict[str, Any] = {
            "filesystem": {"rootdirectory": str(self.directory / "storage")},
            "delete": {"enabled": True},
        }
        if self.cache:
            storage["cache"] = {"blobdescriptor": "inmemory"}
        settings: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": storage,
            "http": {"addr": f"127.0.0.1:{self.port}", "secret": "test"},
        }
        if self.sink:
            endpoint = {
                "name": "portal",
                "url": self.sink,
                "headers": {"Authorization": [f"Bearer {self.token}"]},
                "timeout": "5s",
                "threshold": 5,
                "backoff": "1s",
            }
            settings["notifications"] = {"events": {"includereferences": True}, "endpoints": [endpoint]}
        if self.htpasswd:
            (self.directory / "htpasswd").write_text(ALICE + "\n")
            settings["auth"] = {"htpasswd": {"realm": "Registry Realm", "path": str(self.directory / "htpasswd")}}
        return settings

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
        url = path if path.startswith("http") else self.url + path
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.htpasswd:
            named["Authorization"] = "Basic YWxpY2U6czNjcmV0"
        asked = urllib.request.Request(url, data=body, method=method, headers=named)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()

    def push_blob(self, repository: str, raw: bytes) -> str:
        _, headers, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/", b"")
        place = headers["Location"]
        joint = "&" if "?" in place else "?"
        self.request("PUT", f"{place}{joint}digest={digest_of(raw)}", raw, Content_Type="application/octet-stream")
        return digest_of(raw)

    def push_manifest(self, repository: str, reference: str, raw: bytes, media_type: str = MANIFEST) -> str:
        agent = "kit/1.14.0 (handmade)"
        self.request("PUT", f"/v2/{repository}/manifests/{reference}", raw, Content_Type=media_type, User_Agent=agent)
        return digest_of(raw)

    def delete_manifest(self, repository: str, digest: str) -> None:
        self.request("DELETE", f"/v2/{repository}/manifests/{digest}")

    def push(self, name: str, layout: Path = LAYOUT) -> str:
        """One artifact of an image layout with its blobs, by its name there; the manifest's digest."""
        index = json.loads((layout / "index.json").read_bytes())
        [item] = [i for i in index["manifests"] if i["annotations"]["org.opencontainers.image.ref.name"] == name]
        repository, _, reference = re.split("([:@])", name, maxsplit=1)
        raw = _bytes(layout, item["digest"])
        value = json.loads(raw)
        for named in [value.get("config"), *value.get("layers", [])]:
            if named:
                self.push_blob(repository, _bytes(layout, named["digest"]))
        return self.push_manifest(repository, reference, raw, item["mediaType"])

    def push_kits(self) -> list[str]:
        """The versions of the samples, without their signatures."""
        names = ["acme/rf-model-audit:0.1.0", "acme/rf-model-audit:0.2.0", "acme/rf-model-audit:latest", "acme/old:v0", "acme/mp:v1"]  # fmt: skip
        return [self.push(name) for name in names]

    def data(self, digest: str) -> Path:
        """The file that holds the bytes of a blob or manifest."""
        digits = digest.removeprefix("sha256:")
        blobs = self.directory / "storage" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return blobs / digits[:2] / digits / "data"

    def tag_link(self, repository: str, tag: str) -> Path:
        """The file that says where a tag stands."""
        root = self.directory / "storage" / "docker" / "registry" / "v2" / "repositories"
        return root / repository / "_manifests" / "tags" / tag / "current" / "link"


def _bytes(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()


@contextmanager
def running(directory: Path, **options: Any) -> Iterator[RealRegistry]:
    """A started registry, ended and removed afterwards."""
    registry = RealRegistry(directory, **options)
    try:
        yield registry.start()
    finally:
        registry.stop()
        shutil.rmtree(directory, ignore_errors=True)
