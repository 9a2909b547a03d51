"""Approval signatures: a statement that covers exact digests, and the assertion or signature over it (FORMAT.md §6)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from . import canonical, events, headers
from .errors import Name, SignatureError, malformed, show
from .signatures import pre_authentication, verify_ed25519, verify_p256

PAYLOAD_TYPE = "application/vnd.auditportal.approval.v1+json"
INTENTS = {"promotion.approve": "approve", "promotion.reject": "reject"}
MAX_CLIENT_DATA_BYTES = 4096
_PREFIX = b"auditportal/approval/v1\n"
_MEMBERS = frozenset(
    {
        "v", "intent", "meaning", "log", "request", "environment", "subject", "manifest_digest", "policy_digest",
        "evidence_digest", "signer", "method", "rp_id", "checkpoint", "at", "nonce",
    }
)  # fmt: skip
_AUTH_DATA_BYTES = 37  # rpIdHash, flags, signature counter (WebAuthn Level 3 §6.1)
_USER_PRESENT, _USER_VERIFIED = 0x01, 0x04


def challenge(statement: bytes) -> bytes:
    r"""`H("auditportal/approval/v1\\n" || statement)`: what a passkey signs, or a service by DSSE."""
    return hashlib.sha256(_PREFIX + statement).digest()


def parse_statement(raw: bytes) -> dict[str, Any]:
    """The members of a statement.

    Raises:
        MalformedError: not the canonical bytes of a statement.
    """
    value = canonical.admit(raw, sealed="allowed")
    if canonical.encode(value) != raw:
        raise malformed("statement", "RFC 8785 bytes", "another spelling of the same value")
    if not isinstance(value, dict) or value.keys() != _MEMBERS:
        raise malformed("statement", "the members of a statement", value)
    statement: dict[str, Any] = value
    if statement["v"] != 1 or not isinstance(statement["intent"], str) or statement["intent"] not in INTENTS:
        raise malformed("statement/intent", "an intent of version 1", statement["intent"])
    if statement["method"] not in ("passkey", "service", "session"):
        raise malformed("statement/method", "passkey, service or session", statement["method"])
    signer, checkpoint = statement["signer"], statement["checkpoint"]
    if not isinstance(signer, dict) or signer.keys() != {"id", "printed_name", "role"}:
        raise malformed("statement/signer", "id, printed_name and role", signer)
    if not canonical.is_sealed(signer["printed_name"]):
        raise malformed("statement/signer/printed_name", "a sealed value", signer["printed_name"])
    if not isinstance(checkpoint, dict) or checkpoint.keys() != {"size", "root"}:
        raise malformed("statement/checkpoint", "size and root", checkpoint)
    headers.check_origin_name(str(statement["log"]), "statement/log")
    events.check_time(statement["at"], "statement/at")
    return statement


def check_agreement(statement: Mapping[str, Any], body: Mapping[str, Any], *, origin: str, place: str) -> None:
    """Statement and approving event speak of the same log, request, environment, subject, signer and intent.

    Raises:
        SignatureError: SIGNATURE with the member that differs.
    """
    metadata = body.get("metadata", {})
    pairs = {
        "log": (statement["log"], origin),
        "request": (statement["request"], metadata.get("request")),
        "environment": (statement["environment"], body.get("environment")),
        "subject": (statement["subject"], body["subject"]),
        "signer": (statement["signer"]["id"], body["actor"]["id"]),
        "intent": (INTENTS[statement["intent"]], body["action"]),
    }
    for name, (said, recorded) in pairs.items():
        if said != recorded:
            raise SignatureError(Name.SIGNATURE, f"{place}, {name}", show(str(recorded)), show(str(said)))


def check_metadata(approval: Mapping[str, Any], *, statement: bytes, signature: bytes, key: bytes, place: str) -> None:
    """The event's `metadata.approval` names exactly this statement, signature and key.

    Raises:
        SignatureError: SIGNATURE.
    """
    expected = {
        "challenge": challenge(statement).hex(),
        "signature_sha256": hashlib.sha256(signature).hexdigest(),
        "key_sha256": hashlib.sha256(key).hexdigest(),
    }
    for name, value in expected.items():
        if approval.get(name) != value:
            raise SignatureError(Name.SIGNATURE, f"{place}, {name}", value, show(str(approval.get(name))))


def verify_passkey(
    *,
    statement: bytes,
    client_data: bytes,
    auth_data: bytes,
    signature: bytes,
    key: bytes,
    rp_id: str,
    origins: Collection[str],
    place: str,
) -> None:
    """The assertion (WebAuthn Level 3 §7.2) is over this statement, with the user verified, under this P-256 key.

    Raises:
        SignatureError: SIGNATURE.
        NotCheckedError: this machine cannot check P-256.
    """
    client = _client_data(client_data, place)
    wanted = base64.urlsafe_b64encode(challenge(statement)).rstrip(b"=").decode()
    _require("type", client.get("type") == "webauthn.get", client.get("type"), place)
    _require("challenge", client.get("challenge") == wanted, client.get("challenge"), place)
    _require("origin", client.get("origin") in origins, client.get("origin"), place)
    _require("crossOrigin", client.get("crossOrigin", False) is False, client.get("crossOrigin"), place)
    _require("authenticator data", len(auth_data) >= _AUTH_DATA_BYTES, len(auth_data), place)
    _require("RP id", auth_data[:32] == hashlib.sha256(rp_id.encode()).digest(), rp_id, place)
    flags = auth_data[32]
    _require("user presence", bool(flags & _USER_PRESENT), flags, place)
    _require("user verification", bool(flags & _USER_VERIFIED), flags, place)
    verify_p256(key, signature, auth_data + hashlib.sha256(client_data).digest(), place=place)


def _client_data(raw: bytes, place: str) -> dict[str, Any]:
    """clientDataJSON, parsed and never searched; a browser may add members, none may stand twice."""
    try:
        value = json.loads(raw[:MAX_CLIENT_DATA_BYTES].decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SignatureError(Name.SIGNATURE, f"{place}, client data", "a JSON object", show(raw))
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _require(what: str, holds: bool, found: object, place: str) -> None:  # noqa: FBT001 -- an assertion with a name
    if not holds:
        raise SignatureError(
            Name.SIGNATURE, f"{place}, {what}", "what the statement and the credential demand", show(found)
        )


def verify_service(*, statement: bytes, signature: bytes, key: bytes, place: str) -> None:
    """A service's Ed25519 signature over the statement, in DSSE.

    Raises:
        SignatureError: SIGNATURE.
    """
    verify_ed25519(key, signature, pre_authentication(PAYLOAD_TYPE, statement), place=place)
