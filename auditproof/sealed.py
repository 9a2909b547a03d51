"""Sealed values: a body holds a salted commitment, the value lies aside, to be disclosed or erased (FORMAT.md §1)."""

from __future__ import annotations

import hashlib
from typing import Any

from . import canonical
from .errors import HashMismatchError, MalformedError, Name, malformed

SALT_BYTES = 16
_PREFIX = b"auditportal/sealed/v1\n"


def commit_bytes(salt: bytes, value: bytes) -> str:
    r"""`sha256:` and the hex of `H("auditportal/sealed/v1\\n" || salt || value)`, for the value's RFC 8785 bytes."""
    return "sha256:" + hashlib.sha256(_PREFIX + salt + value).hexdigest()


def commit(salt: bytes, value: canonical.Json) -> str:
    """As `commit_bytes`, for the value itself."""
    return commit_bytes(salt, canonical.encode(value))


def resolve(body: Any, pointer: str) -> Any:  # noqa: ANN401 -- any JSON
    """What stands at a JSON pointer (RFC 6901).

    Raises:
        MalformedError: nothing stands there.
    """
    if pointer and not pointer.startswith("/"):
        raise malformed("pointer", "a JSON pointer", pointer)
    found = body
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isascii() and name.isdigit() and str(int(name[:9])) == name:
            if int(name) >= len(found):
                raise malformed("pointer", "a member of the body", pointer)
            found = found[int(name)]
        else:
            raise malformed("pointer", "a member of the body", pointer)
    return found


def check_disclosure(body: Any, *, pointer: str, salt: bytes, value: bytes, place: str) -> canonical.Json:  # noqa: ANN401 -- any JSON
    """The disclosed value, if it is what the body committed to at that pointer.

    Raises:
        HashMismatchError: DISCLOSURE.
        MalformedError: the value is not canonical JSON.
    """
    try:
        sealed = resolve(body, pointer)
    except MalformedError as error:
        raise HashMismatchError(Name.DISCLOSURE, place, "a sealed value there", error.found) from error
    allowed = pointer == "/reason" or pointer.startswith("/metadata/") or pointer == "/metadata"
    if not allowed or not canonical.is_sealed(sealed):
        raise HashMismatchError(Name.DISCLOSURE, place, "a sealed value under /metadata or /reason", pointer[:120])
    found = commit_bytes(salt, value)
    if len(salt) != SALT_BYTES or found != sealed[canonical.SEALED_MEMBER]:
        raise HashMismatchError(Name.DISCLOSURE, place, str(sealed[canonical.SEALED_MEMBER]), found)
    opened = canonical.admit(value)
    if canonical.encode(opened) != value:
        raise malformed(place, "RFC 8785 bytes", "another spelling of the same value")
    return opened
