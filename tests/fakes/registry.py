"""An OCI registry on loopback over an image layout, well-behaved until a test gives it a fault.

It answers as CNCF Distribution 2.8 does (tests/samples/oci/http), and only reads.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LAYOUT = Path(__file__).parents[1] / "samples" / "oci" / "layout"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


@dataclass(slots=True, kw_only=True)
class Fault:
    """One way to misbehave, on requests whose path contains `path`; `times` requests long, or for ever."""

    path: str = ""
    method: str = ""
    times: int = 1_000_000
    status: int | None = None
    body: bytes | None = None
    media_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    bare: bool = False  # no headers of its own at all, the end of the connection ends the body
    close_after: int | None = None  # bytes of the body, whatever was announced
    appended: bytes = b""  # behind the announced end
    endless: bool = False  # no announced end, and none that comes
    gzipped: bool = False  # though nobody asked for it
    pause_s: float = 0.0  # before each byte of the body
    header_pause_s: float = 0.0  # before each byte of the headers
    hang: bool = False  # no answer at all


@dataclass
class FakeRegistry:
    """`url` answers while the block lasts. Everything may be changed by the test at any time."""

    auth: str = ""  # "basic" or "bearer"
    users: dict[str, str] = field(default_factory=lambda: {"alice": "s3cret"})
    realm: str = ""  # where the token server is said to be; here, when empty
    token: dict[str, Any] = field(default_factory=dict)  # members that replace those of the token answer
    page_size: int = 0
    link: str = '</v2/{repository}/tags/list?n={n}&last={last}>; rel="next"'
    faults: list[Fault] = field(default_factory=list)
    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)  # by repository
    manifests: dict[str, dict[str, tuple[str, bytes]]] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    connections: int = 0
    valid_tokens: set[str] = field(default_factory=set)
    port: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def load(self, layout: Path = LAYOUT) -> FakeRegistry:
        """All artifacts of an image layout, each blob in every repository that names it."""
        index = json.loads((layout / "index.json").read_bytes())
        for item in index["manifests"]:
            raw = (layout / "blobs" / "sha256" / item["digest"].removeprefix("sha256:")).read_bytes()
            reference = item["annotations"]["org.opencontainers.image.ref.name"]
            repository, _, tag = re.split("([:@])", reference, maxsplit=1)
            value = json.loads(raw)
            for named in [value.get("config"), *value.get("layers", [])]:
                if named:
                    path = layout / "blobs" / "sha256" / named["digest"].removeprefix("sha256:")
                    self.put_blob(repository, path.read_bytes())
            self.put_manifest(repository, "" if "@" in reference else tag, raw, item["mediaType"])
        return self

    def put_blob(self, repository: str, raw: bytes) -> str:
        self.blobs.setdefault(repository, {})[digest_of(raw)] = raw
        return digest_of(raw)

    def put_manifest(self, repository: str, tag: str, raw: bytes, media_type: str = MANIFEST) -> str:
        self.manifests.setdefault(repository, {})[digest_of(raw)] = (media_type, raw)
        if tag:
            self.tags.setdefault(repository, {})[tag] = digest_of(raw)
        return digest_of(raw)

    def put_kit(
        self, repository: str, tag: str, kitfile: dict[str, Any] | bytes, layers: list[tuple[str, bytes]] | None = None
    ) -> str:
        """A ModelKit with this Kitfile and these (media type, bytes) as layers; its manifest digest."""
        config = kitfile if isinstance(kitfile, bytes) else json.dumps(kitfile).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.kitops.modelkit.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.kitops.modelkit.config.v1+json",
                "digest": self.put_blob(repository, config),
                "size": len(config),
            },
            "layers": [
                {"mediaType": media_type, "digest": self.put_blob(repository, raw), "size": len(raw)}
                for media_type, raw in layers or []
            ],
        }
        return self.put_manifest(repository, tag, json.dumps(manifest).encode())

    def fail(self, path: str = "", **how: Any) -> Fault:
        fault = Fault(path=path, **how)
        self.faults.insert(0, fault)
        return fault

    def asked(self, path: str = "") -> list[tuple[str, str, dict[str, str]]]:
        return [item for item in self.requests if path in item[1]]


@dataclass(slots=True)
class Reply:
    status: int
    body: bytes
    headers: dict[str, str]


def _error(status: int, code: str, message: str = "", **headers: str) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": message or code.lower(), "detail": None}]}).encode()
    return Reply(status, body, {"Content-Type": "application/json; charset=utf-8", **headers})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: FakeRegistry

    def setup(self) -> None:
        super().setup()
        self.registry.connections += 1

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.registry.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        fault = next(
            (
                item
                for item in self.registry.faults
                if item.times > 0 and item.path in self.path and item.method in ("", self.command)
            ),
            Fault(),
        )
        fault.times -= 1
        if fault.hang:
            self.registry.stopping.wait(30)
            self.close_connection = True
            return
        reply = Reply(fault.status, b"", {}) if fault.status is not None else self._reply()
        try:
            self._send(reply, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _reply(self) -> Reply:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/token":
            return self._token(query)
        refused = self._refused(parts.path)
        if refused:
            return refused
        if parts.path == "/v2/":
            return Reply(200, b"{}", {"Content-Type": "application/json"})
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags|referrers)/([^/]+)", parts.path)
        if match is None or match[2] == "referrers":
            return Reply(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})
        return {"manifests": self._manifest, "blobs": self._blob, "tags": self._tags}[match[2]](
            match[1], match[3], query
        )

    def _refused(self, path: str) -> Reply | None:
        given = self.headers.get("Authorization", "")
        fake = self.registry
        if fake.auth == "basic":
            good = {f"{name}:{password}" for name, password in fake.users.items()}
            kind, _, value = given.partition(" ")
            if kind == "Basic" and base64.b64decode(value).decode() in good:
                return None
            return _error(401, "UNAUTHORIZED", **{"WWW-Authenticate": 'Basic realm="Registry Realm"'})
        if fake.auth == "bearer":
            if given.removeprefix("Bearer ") in fake.valid_tokens:
                return None
            found = re.match(r"/v2/(.+)/(?:manifests|blobs|tags)/", path)
            scope = f',scope="repository:{found[1]}:pull"' if found else ""
            realm = fake.realm or f"{fake.url}/token"
            challenge = f'Bearer realm="{realm}",service="{fake.host}"{scope}'
            return _error(401, "UNAUTHORIZED", **{"WWW-Authenticate": challenge})
        return None

    def _token(self, query: dict[str, str]) -> Reply:
        token = f"token-{len(self.registry.requests)}-{query.get('scope', '')}"
        self.registry.valid_tokens.add(token)
        value = {"token": token, "expires_in": 300, **self.registry.token}
        return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _manifest(self, repository: str, reference: str, _: dict[str, str]) -> Reply:
        digest = reference if reference.startswith("sha256:") else self.registry.tags.get(repository, {}).get(reference)
        found = self.registry.manifests.get(repository, {}).get(digest or "")
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, raw = found
        if media_type not in self.headers.get("Accept", ""):
            message = "OCI manifest found, but accept header does not support OCI manifests"
            return _error(404, "MANIFEST_UNKNOWN", message)
        return Reply(
            200, raw, {"Content-Type": media_type, "Docker-Content-Digest": str(digest), "ETag": f'"{digest}"'}
        )

    def _blob(self, repository: str, digest: str, _: dict[str, str]) -> Reply:
        raw = self.registry.blobs.get(repository, {}).get(digest)
        if raw is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return Reply(200, raw, {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest})

    def _tags(self, repository: str, _: str, query: dict[str, str]) -> Reply:
        fake = self.registry
        if repository not in fake.manifests:
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry")
        after = query.get("last", "")
        names = [name for name in sorted(fake.tags.get(repository, {})) if name > after]
        headers = {"Content-Type": "application/json"}
        if fake.page_size and len(names) > fake.page_size:
            names = names[: fake.page_size]
            headers["Link"] = fake.link.format(repository=repository, n=fake.page_size, last=names[-1])
        return Reply(200, json.dumps({"name": repository, "tags": names or None}).encode(), headers)

    def _send(self, reply: Reply, fault: Fault) -> None:
        body = reply.body if fault.body is None else fault.body
        headers = dict(reply.headers)
        if fault.gzipped:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        if fault.media_type is not None:
            headers["Content-Type"] = fault.media_type
        if not fault.endless:
            headers["Content-Length"] = str(len(body))
        headers |= fault.headers
        if fault.bare:
            headers = {}
        if fault.bare or fault.endless or fault.close_after is not None or fault.appended:
            self.close_connection = True
        head = f"HTTP/1.1 {reply.status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._write((head + "\r\n").encode("latin-1"), fault.header_pause_s)
        if self.command == "HEAD":
            return
        while fault.endless and not self.registry.stopping.is_set():
            self._write(b"x" * 65_536, fault.pause_s)
        self._write(body[: fault.close_after] + fault.appended, fault.pause_s)

    def _write(self, raw: bytes, pause_s: float) -> None:
        if not pause_s:
            self.wfile.write(raw)
            return
        for at in range(len(raw)):
            if self.registry.stopping.is_set():
                return
            time.sleep(pause_s)
            self.wfile.write(raw[at : at + 1])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away is what these tests are about."""


@contextmanager
def serving(registry: FakeRegistry | None = None) -> Iterator[FakeRegistry]:
    """A registry that answers; with the kits of the samples when none is given."""
    fake = registry if registry is not None else FakeRegistry().load()
    server = _Server(("127.0.0.1", 0), type("_Handler", (Handler,), {"registry": fake}))
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        fake.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
