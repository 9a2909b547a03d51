"""One HTTP client for all connectors: bounded in time, memory and reach.

Only configured hosts are contacted, whatever a redirect or a token realm says, and credentials never leave the host
they belong to. Every answer has a deadline as a whole, kept at the socket: a server that drips bytes, in its headers or
in its body, cannot hold a worker. Every answer that is read into memory has a size.
"""

from __future__ import annotations

import http.client
import io
import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
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
_NUMBER = re.compile(r"[0-9]{1,15}")


class _Clock(threading.local):
    """When the answer to the request that this thread makes must be whole."""

    until: float = math.inf


_clock = _Clock()


class _Bounded(io.RawIOBase):
    """What a socket gives until a moment; each read waits for what is left at most."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, until: float) -> None:
        self._raw, self._sock, self._until = raw, sock, until
        self._patience = sock.gettimeout() or math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 -- any writable buffer
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of the answer has passed")
        if left < self._patience:
            self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- http.client's own
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Bounded(self.fp.detach(), sock, _clock.until))


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


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
        self._pool.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def address(self, path: str) -> str:
        """The whole address of a path below the base; an address with a scheme is one already."""
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
            return path
        return self.base.rstrip("/") + "/" + path.lstrip("/")

    def is_own(self, url: str) -> bool:
        """Whether the address lies on the very host this client is for."""
        return _host(url) == _host(self.base) and self.may_reach(url)

    def may_reach(self, url: str) -> bool:
        """Whether this client talks to that address at all. What began encrypted never goes on in the clear."""
        host = _host(url)
        schemes = ("https",) if self.base.lower().startswith("https:") else ("http", "https")
        if not host or urlsplit(url).scheme not in schemes:
            return False
        return host == _host(self.base) or host in self.hosts or host.rpartition(":")[0] in self.hosts

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
        url = self.address(path)
        asked = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **self.headers, **(headers or {})}
        if not self.may_reach(url):
            raise UnreachableError(f"{show(_host(url)) or 'an address without a host'} is not a configured host")
        response = self._send(method, url, asked, body, deadline)
        for _ in range(REDIRECTS):
            if response.status not in REDIRECTED or "location" not in response.headers:
                break
            target = _joined(url, response.headers["location"])
            response.close()
            if not self.may_reach(target):
                where = show(_host(target)) or "nowhere"
                raise UnreachableError(f"redirects to {where}, which is not a configured host")
            if _host(target) != _host(url):
                asked = {name: value for name, value in asked.items() if name.lower() != "authorization"}
            url = target
            response = self._send(method, url, asked, body, deadline)
        else:
            response.close()
            raise UnreachableError(f"more than {REDIRECTS} redirects")
        try:
            yield Stream(response, deadline)
        finally:
            response.close()

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, deadline: float
    ) -> urllib3.BaseHTTPResponse:
        _clock.until = deadline
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
        self.headers = {
            name.lower(): response.headers[name] for name in response.headers
        }  # repeated ones joined by ", "
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
                chunk = self._response.read1(CHUNK)  # what is there, instead of waiting for a full chunk
                if not chunk:
                    break
                self.received += len(chunk)
                yield chunk
        except urllib3.exceptions.ReadTimeoutError as error:
            if time.monotonic() >= self._deadline:
                raise UnreachableError("the answer took too long as a whole") from error
            raise UnreachableError(f"stalled after {self.received} bytes", retryable=True) from error
        except (HTTPError, OSError) as error:
            raise TruncatedError(f"closed after {self.received} bytes", retryable=True) from error
        announced = self.headers.get("content-length", "")
        if _NUMBER.fullmatch(announced) and self.received < int(announced):
            raise TruncatedError(f"closed after {self.received} of {announced} bytes", retryable=True)


def refusal(answer: Answer | Stream) -> UnreachableError | None:
    """The error of a status that says nothing about the object asked for: 401, 403, 429, 5xx and other surprises."""
    status = answer.status
    wait = _retry_after(answer.headers.get("retry-after", ""))
    if status == 429:  # noqa: PLR2004 -- HTTP
        return UnreachableError("answered 429: too many requests", retryable=True, retry_after_s=wait)
    if status in (401, 403):
        return UnreachableError(f"answered {status}: the credentials are missing or not enough")
    if status >= 500:  # noqa: PLR2004 -- HTTP
        return UnreachableError(f"answered {status}: the server failed", retryable=True, retry_after_s=wait)
    if status not in (200, 404):  # a part (206) was never asked for, so it is no answer either
        return UnreachableError(f"answered {status}, which fits nothing asked for")
    return None


def _retry_after(text: str) -> float | None:
    """Seconds, stated or until a date (RFC 9110 §10.2.3)."""
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _host(url: str) -> str:
    """`host:port` of an address; nothing where it has none, or is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return ""
    return f"{parts.hostname}:{port}" if parts.hostname else ""


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError:
        return ""


def _short(error: Exception) -> str:
    text = str(error)
    return show(text.rpartition(": ")[2] or type(error).__name__)
