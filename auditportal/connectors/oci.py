"""A client of the OCI distribution API (distribution-spec 1.1) that believes nothing it did not hash.

A registry names content by digest and then serves whatever its disk holds, with the old digest in the header: so
every byte is hashed here, and headers count for nothing. A 404 means missing only where it comes with the code that
says so, asked with the right `Accept`, from a registry that answers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

from auditportal.connectors.errors import ConnectorError, MismatchError, MissingError, UnreachableError, show
from auditportal.connectors.http import Answer, Client, refusal

T = TypeVar("T")
# Without the OCI types a Distribution registry says 404 about what it has.
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
ACCEPT = ", ".join(MANIFEST_TYPES)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
MOST_MANIFEST = 4 * 1024 * 1024  # as registries themselves accept
MOST_PAGES = 200  # of a tag list: 200 pages of what the registry likes to give
MOST_TAGS = 100_000  # of one repository; a list without end must not fill the memory
ATTEMPTS = 3
PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0  # a Retry-After beyond it ends the attempt: the night goes on with the next object
TOKEN_LIFE_S = 60.0  # when the token server does not say (distribution token spec)
TOKEN_MARGIN_S = 10.0
MOST_TOKEN_LIFE_S = 86_400
MOST_TOKEN = 16_384  # characters; servers refuse longer headers
MISSING_CODES = frozenset({"MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "NAME_UNKNOWN"})
WRONG_ACCEPT = "accept header"
WEB_PAGE = "text/html"  # what login pages and proxies answer with, and no registry
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Manifest:
    """The bytes a registry gave for a reference, and the digest we computed from them."""

    raw: bytes
    digest: str
    media_type: str

    def value(self) -> dict[str, Any]:
        """The manifest as JSON, members once.

        Raises:
            MismatchError: bytes that are no JSON object; whatever they are, they are not the manifest.
        """
        value = _object(self.raw)
        if value is None:
            raise MismatchError(
                "the manifest is no JSON object with each member once", expected="JSON", found=show(str(self.raw[:40]))
            )
        return value


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(slots=True)
class Registry:
    """One registry. `sleep` is what waiting between attempts calls."""

    client: Client
    credentials: Credentials | None = None
    sleep: Callable[[float], None] = time.sleep
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)  # by scope: the header, and until when

    def ping(self) -> None:
        """The registry answers, and lets us in.

        Raises:
            UnreachableError: otherwise.
        """
        answer = self._ask("/v2/", repository="")
        if answer.status != 200:  # noqa: PLR2004 -- HTTP
            raise UnreachableError(f"answered {answer.status} on /v2/")

    def tags(self, repository: str) -> list[str]:
        """All tags, each once, in order of name.

        Raises:
            MissingError: the registry knows no such repository.
            UnreachableError: it does not say, or its pages lead in a circle.
        """
        _check(REPOSITORY, repository, "repository")
        path: str | None = f"/v2/{repository}/tags/list?n=1000"
        found: set[str] = set()
        seen: set[str] = set()
        while path is not None:
            if path in seen or len(seen) >= MOST_PAGES:
                raise UnreachableError("the tag list leads in a circle")
            seen.add(path)
            answer = self._ask(path, repository=repository)
            self._raise_missing(answer, f"repository {repository}")
            value = answer.json()
            # `null` is how a registry says that the last tag is gone; anything else that is no list is no answer.
            tags = value.get("tags", False) if isinstance(value, dict) else False
            if not isinstance(tags, list | None):
                raise UnreachableError("answered without a list of tags")
            found |= {tag for tag in tags or () if isinstance(tag, str) and TAG.fullmatch(tag)}
            if len(found) > MOST_TAGS:
                raise UnreachableError(f"names more than {MOST_TAGS} tags")
            path = self._next(answer, path)
        return sorted(found)

    def _next(self, answer: Answer, path: str) -> str | None:
        """The next page, as the `Link` header names it; it may be relative to this one.

        Raises:
            UnreachableError: it lies on another host, where our credentials have no business.
        """
        match = re.match(r'\s*<([^>]*)>\s*;[^,]*rel="?next"?', answer.headers.get("link", ""))
        if match is None:
            return None
        try:
            target = urljoin(self.client.address(path), str(match[1]))
        except ValueError:
            target = ""
        if not self.client.is_own(target):
            raise UnreachableError("the tag list goes on at an address that is not the registry's")
        return target

    def manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest behind a tag or digest, hashed.

        Raises:
            MissingError: the registry says it has none.
            MismatchError: asked by digest, it gave other bytes.
            UnreachableError, TruncatedError: no usable answer.
        """
        _check(REPOSITORY, repository, "repository")
        by_digest = DIGEST.fullmatch(reference) is not None
        if not by_digest:
            _check(TAG, reference, "tag")
        path = f"/v2/{repository}/manifests/{reference}"
        answer = self._ask(path, repository=repository, headers={"Accept": ACCEPT}, most=MOST_MANIFEST)
        self._raise_missing(answer, f"manifest {repository}:{reference}")
        digest = "sha256:" + hashlib.sha256(answer.body).hexdigest()
        if digest == reference:
            return Manifest(answer.body, digest, answer.media_type)
        if not _looks_like_manifest(answer):
            kind = show(answer.media_type) or "no type"
            raise UnreachableError(f"answered with something that is no manifest ({kind})")
        if by_digest:
            raise MismatchError(
                f"the manifest of {repository} is not the one recorded", expected=reference, found=digest
            )
        return Manifest(answer.body, digest, answer.media_type)

    def blob(self, repository: str, digest: str, *, most: int) -> bytes:
        """A small blob, hashed.

        Raises:
            ConnectorError: as `hash_blob`; MismatchError also for one of more than `most` bytes.
        """
        parts: list[bytes] = []
        self._read_blob(repository, digest, size=None, most=most, take=parts.append)
        return b"".join(parts)

    def hash_blob(
        self, repository: str, digest: str, *, size: int | None, progress: Callable[[int], None] | None = None
    ) -> int:
        """The blob's bytes are those its digest names; how many. Nothing is kept in memory.

        Raises:
            MissingError: the registry says it has none.
            MismatchError: other bytes, or another length than `size`; reading stops one byte beyond it.
            TruncatedError: it breaks off, every time.
            UnreachableError: no usable answer.
        """
        return self._read_blob(
            repository, digest, size=size, most=None, take=lambda chunk: progress(len(chunk)) if progress else None
        )

    def _read_blob(
        self,
        repository: str,
        digest: str,
        *,
        size: int | None,
        most: int | None,
        take: Callable[[bytes], object],
    ) -> int:
        _check(REPOSITORY, repository, "repository")
        _check(DIGEST, digest, "digest")
        limit = size if size is not None else most
        path = f"/v2/{repository}/blobs/{digest}"

        def read() -> int:
            found = hashlib.sha256()
            held: list[bytes] = []
            with self.client.open("GET", path, headers=self._authorization(repository)) as stream:
                if stream.status == 401:  # noqa: PLR2004 -- HTTP
                    raise _AskAgainError(stream.headers.get("www-authenticate", ""))
                error = refusal(stream)
                if error is not None:
                    raise error
                if stream.status == 404:  # noqa: PLR2004 -- HTTP
                    body = b"".join(_few(stream.chunks(), 65_536))
                    self._raise_missing(Answer(404, stream.headers, body), f"blob {digest}")
                for chunk in stream.chunks():
                    if limit is not None and stream.received > limit:
                        raise MismatchError(
                            "longer than recorded", expected=f"{limit} bytes", found=f"more than {limit} bytes"
                        )
                    found.update(chunk)
                    if most is not None:
                        held.append(chunk)
                    else:
                        take(chunk)
                received = stream.received
            is_right = found.hexdigest() == digest.removeprefix("sha256:")
            if not is_right and stream.headers.get("content-type", "").lower().startswith(WEB_PAGE):
                raise UnreachableError("answered with a web page instead of the blob")
            if size is not None and received != size:
                raise MismatchError("another length", expected=f"{size} bytes", found=f"{received} bytes")
            if not is_right:
                raise MismatchError("other bytes", expected=digest, found=f"sha256:{found.hexdigest()}")
            for chunk in held:
                take(chunk)
            return received

        return self._patiently(lambda: self._authenticated(read, repository))

    def _ask(
        self, path: str, *, repository: str, headers: Mapping[str, str] | None = None, most: int = MOST_MANIFEST
    ) -> Answer:
        def ask() -> Answer:
            answer = self.client.get(path, headers={**(headers or {}), **self._authorization(repository)}, most=most)
            if answer.status == 401:  # noqa: PLR2004 -- HTTP
                raise _AskAgainError(answer.headers.get("www-authenticate", ""))
            error = refusal(answer)
            if error is not None:
                raise error
            return answer

        return self._patiently(lambda: self._authenticated(ask, repository))

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Asks again what may succeed the next time, waiting as long as the registry says, within bounds."""
        pause = PAUSE_S
        for _ in range(ATTEMPTS - 1):
            try:
                return ask()
            except ConnectorError as error:
                wait = pause if error.retry_after_s is None else error.retry_after_s
                if not error.retryable or wait > LONGEST_PAUSE_S:
                    raise
            self.sleep(wait)
            pause *= 2
        return ask()

    def _authenticated(self, ask: Callable[[], T], repository: str) -> T:
        """Asks once more after a 401, with what its challenge demands."""
        try:
            return ask()
        except _AskAgainError as challenge:
            self._answer(challenge.challenge, repository)
        try:
            return ask()
        except _AskAgainError as error:
            raise UnreachableError("answered 401: the credentials are missing or not enough") from error

    def _authorization(self, repository: str) -> dict[str, str]:
        header, until = self._tokens.get(_scope(repository), ("", 0.0))
        return {"Authorization": header} if time.monotonic() < until else {}

    def _answer(self, challenge: str, repository: str) -> None:
        """Keeps what the challenge asks for: Basic credentials, or a token of its realm."""
        scheme, _, rest = challenge.partition(" ")
        parameters = dict(_CHALLENGE.findall(rest))
        scope = _scope(repository)
        if scheme.lower() == "basic":
            if self.credentials is None:
                raise UnreachableError("answered 401: it wants a user name and password, and none are configured")
            self._tokens[scope] = (self.credentials.basic(), time.monotonic() + 3600)
            return
        realm = parameters.get("realm", "")
        if scheme.lower() != "bearer" or not self.client.may_reach(realm):
            raise UnreachableError(f"answered 401 and sends to {_place(realm)}, which is not a configured host")
        query = urlencode({"service": parameters.get("service", ""), "scope": scope})
        headers = {"Authorization": self.credentials.basic()} if self.credentials else {}
        answer = self.client.get(f"{realm}{'&' if '?' in realm else '?'}{query}", headers=headers)
        error = refusal(answer)
        if error is not None or answer.status != 200:  # noqa: PLR2004 -- HTTP
            raise error or UnreachableError(f"the token server answered {answer.status}")
        value = answer.json()
        token = (value.get("token") or value.get("access_token")) if isinstance(value, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token) or len(token) > MOST_TOKEN:
            raise UnreachableError("the token server gave no token")
        life = value.get("expires_in")
        lasts = min(life, MOST_TOKEN_LIFE_S) if isinstance(life, int | float) and life > 0 else TOKEN_LIFE_S
        self._tokens[scope] = (f"Bearer {token}", time.monotonic() + max(lasts - TOKEN_MARGIN_S, 1.0))

    def _raise_missing(self, answer: Answer, what: str) -> None:
        """A 404 is "missing" only with the code that says so; any other is no answer about the object."""
        if answer.status != 404:  # noqa: PLR2004 -- HTTP
            return
        codes, messages = _errors(answer)
        if codes & MISSING_CODES and not any(WRONG_ACCEPT in message.lower() for message in messages):
            raise MissingError(f"{what}: the registry says {', '.join(sorted(codes & MISSING_CODES))}")
        raise UnreachableError(f"{what}: answered 404 without saying that it is missing")


class _AskAgainError(Exception):
    """A 401 with its challenge."""

    def __init__(self, challenge: str) -> None:
        super().__init__(challenge)
        self.challenge = challenge


def _errors(answer: Answer) -> tuple[set[str], list[str]]:
    try:
        value = json.loads(answer.body)
        items = [item for item in value["errors"] if isinstance(item, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return set(), []
    return {str(item.get("code", ""))[:64] for item in items}, [str(item.get("message", "")) for item in items]


def _scope(repository: str) -> str:
    return f"repository:{repository}:pull" if repository else ""


def _looks_like_manifest(answer: Answer) -> bool:
    """Whether these bytes are the registry's word about a manifest, right or wrong, and no page of somebody else's."""
    if answer.media_type in MANIFEST_TYPES:
        return True
    value = _object(answer.body)
    return value is not None and "schemaVersion" in value


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _place(url: str) -> str:
    try:
        return show(urlsplit(url).netloc) or "nowhere"
    except ValueError:
        return "nowhere"


def _few(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Chunks up to a size: an error message is not worth more."""
    size = 0
    for chunk in chunks:
        yield chunk
        size += len(chunk)
        if size > most:
            return


def _check(form: re.Pattern[str], text: str, what: str) -> None:
    """A malformed name never reaches the registry, where it would be a server error or another path.

    Raises:
        UnreachableError: it cannot be asked for.
    """
    if not form.fullmatch(text):
        raise UnreachableError(f"{show(text)} is no {what} that can be asked for")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members
