"""One HTTP client for all connectors: bounded in time, memory and reach.

Only configured hosts are contacted, whatever a redirect or a token realm says, and credentials never leave the host
they belong to. Every answer has a deadline as a whole (a server that drips bytes cannot hold a worker) and a size.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from auditportal.connectors.errors import TruncatedError, UnreachableError, show

USER_AGENT = "AuditPortal/1 (reconciliation)"  # registries report our own pulls back to us; by this we know them
CONNECT_S, READ_S = 5.0, 20.0
WHOLE_S = 600.0  # an answer as a whole; 20 GB of weights at 40 MB/s
SMALL_S = 60.0  # an answer that is read into memory
MOST_BYTES = 8 * 1024 * 1024  # of such an answer; the largest manifest or page we ask for is 4 MiB
CHUNK = 256 * 1024
REDIRECTS = 5
REDIRECTED = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer, whole in memory."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:  # noqa: ANN401 -- any JSON
        """The body as JSON.

        Raises:
            UnreachableError: it is none; a login page or a proxy answered instead.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            shown = show(self.body[:400].decode("utf-8", "replace"))
            raise UnreachableError(f"answered {self.status} with something that is not JSON: {shown}") from error


@dataclass(slots=True)
class Client:
    """Requests to one system. `hosts` are the `host:port` that redirects and realms may lead to, besides its own."""

    base: str
    hosts: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    connect_s: float = CONNECT_S
    read_s: float = READ_S
    whole_s: float = WHOLE_S
    small_s: float = SMALL_S
    _pool: urllib3.PoolManager = field(init=False)

    def __post_init__(self) -> None:
        # Retries are the caller's, who knows what may be repeated; redirects are followed here, one by one.
        self._pool = urllib3.PoolManager(num_pools=4, maxsize=4, retries=Retry(0, redirect=0), block=False)

    def may_reach(self, url: str) -> bool:
        """Whether this client talks to that address at all."""
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and (
            _host(url) == _host(self.base) or _host(url) in self.hosts or parts.hostname in self.hosts
        )

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, most: int = MOST_BYTES) -> Answer:
        """The answer to GET, read whole.

        Raises:
            UnreachableError: no answer, one beyond `most` bytes, or a redirect to a host that is not configured.
            TruncatedError: it broke off.
        """
        return self._small("GET", path, headers=headers, most=most)

    def post(self, path: str, value: Any, *, most: int = MOST_BYTES) -> Answer:  # noqa: ANN401 -- any JSON
        """As `get`, for POST with a JSON body."""
        body = json.dumps(value).encode()  # noqa: TID251 -- a request to another system; nothing is hashed or signed
        return self._small("POST", path, headers={"Content-Type": "application/json"}, body=body, most=most)

    def _small(
        self, method: str, path: str, *, headers: Mapping[str, str] | None, most: int, body: bytes | None = None
    ) -> Answer:
        with self.open(method, path, headers=headers, body=body, whole_s=self.small_s) as stream:
            parts, size = [], 0
            for chunk in stream.chunks():
                size += len(chunk)
                if size > most:
                    raise UnreachableError(f"answered with more than {most} bytes")
                parts.append(chunk)
            return Answer(stream.status, stream.headers, b"".join(parts))

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        whole_s: float | None = None,
    ) -> Iterator[Stream]:
        """A streamed answer, whose connection is given back or closed at the end.

        Raises:
            UnreachableError: no answer, or a redirect that must not be followed.
        """
        deadline = time.monotonic() + (whole_s or self.whole_s)
        url = urljoin(self.base.rstrip("/") + "/", path.lstrip("/")) if "://" not in path else path
        asked = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **self.headers, **(headers or {})}
        if not self.may_reach(url):
            raise UnreachableError(f"{_host(url)} is not a configured host")
        response = self._send(method, url, asked, body)
        for _ in range(REDIRECTS):
            if response.status not in REDIRECTED or "location" not in response.headers:
                break
            target = urljoin(url, response.headers["location"])
            response.close()
            if not self.may_reach(target):
                raise UnreachableError(f"redirects to {show(_host(target))}, which is not a configured host")
            if _host(target) != _host(url):
                asked = {name: value for name, value in asked.items() if name.lower() != "authorization"}
            url = target
            response = self._send(method, url, asked, body)
        else:
            response.close()
            raise UnreachableError(f"more than {REDIRECTS} redirects")
        try:
            yield Stream(response, deadline)
        finally:
            response.close()

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(
                method,
                url,
                body=body,
                headers=dict(headers),
                preload_content=False,
                decode_content=False,
                redirect=False,
                timeout=Timeout(connect=self.connect_s, read=self.read_s),
            )
        except HTTPError as error:
            raise UnreachableError(f"no answer: {_short(error)}", retryable=True) from error
        except ValueError as error:  # headers or status lines that are no HTTP
            raise UnreachableError(f"no HTTP answer: {show(str(error))}") from error


class Stream:
    """One answer as it comes in; `received` counts its bytes."""

    def __init__(self, response: urllib3.BaseHTTPResponse, deadline: float) -> None:
        self._response = response
        self._deadline = deadline
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self.received = 0

    def chunks(self) -> Iterator[bytes]:
        """The bytes as they were sent.

        Raises:
            TruncatedError: the connection closed before the announced end.
            UnreachableError: the deadline passed, or the connection stalled.
        """
        try:
            while True:
                if time.monotonic() > self._deadline:
                    raise UnreachableError("the answer took too long as a whole")
                # read1 gives what is there instead of waiting for a full chunk, so that a dripping server meets
                # the deadline.
                chunk = self._response.read1(CHUNK)
                if not chunk:
                    break
                self.received += len(chunk)
                yield chunk
        except urllib3.exceptions.ReadTimeoutError as error:
            raise UnreachableError(f"stalled after {self.received} bytes", retryable=True) from error
        except (HTTPError, OSError) as error:
            raise TruncatedError(f"closed after {self.received} bytes", retryable=True) from error
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and self.received < int(announced):
            raise TruncatedError(f"closed after {self.received} of {announced} bytes", retryable=True)


def refusal(answer: Answer | Stream) -> UnreachableError | None:
    """The error of a status that says nothing about the object asked for: 401, 403, 429, 5xx and other surprises."""
    status = answer.status
    if status == 429:  # noqa: PLR2004 -- HTTP
        wait = answer.headers.get("retry-after", "")
        seconds = float(wait) if wait.isdigit() else None
        return UnreachableError("answered 429: too many requests", retryable=True, retry_after_s=seconds)
    if status in (401, 403):
        return UnreachableError(f"answered {status}: the credentials are missing or not enough")
    if status >= 500:  # noqa: PLR2004 -- HTTP
        return UnreachableError(f"answered {status}: the server failed", retryable=True)
    if status not in (200, 206, 404):
        return UnreachableError(f"answered {status}, which fits nothing asked for")
    return None


def _host(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        port = 0
    return f"{parts.hostname or ''}:{port}"


def _short(error: Exception) -> str:
    text = str(error)
    return show(text.rpartition(": ")[2] or type(error).__name__)
