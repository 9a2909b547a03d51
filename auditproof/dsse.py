"""The second signature of a bundle: an in-toto Statement v1 in a DSSE envelope, for pipelines (DSSE v1.0.0)."""

from __future__ import annotations

from typing import Any

from . import canonical
from .errors import HashMismatchError, MalformedError, Name, SignatureError, malformed
from .signatures import decode_base64, pre_authentication, sha256_hex, verify_p256

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:auditportal:bundle:v1"
PLACE = "in-toto statement"


def make_statement(*, subject: str, sha256: str, predicate: dict[str, Any]) -> bytes:
    """The payload: one subject, by its digest, and what is said of it."""
    return canonical.encode(
        {
            "_type": STATEMENT_TYPE,
            "predicate": predicate,
            "predicateType": PREDICATE_TYPE,
            "subject": [{"digest": {"sha256": sha256}, "name": subject}],
        }
    )


def verify(raw: bytes, *, key: bytes, statement: bytes) -> None:
    """The envelope holds exactly this statement, signed once, by this P-256 key (SPKI DER).

    Raises:
        MalformedError: not an envelope of this form.
        HashMismatchError: MANIFEST, it speaks of other bytes.
        SignatureError: SIGNATURE.
        NotCheckedError: this machine cannot check P-256.
    """
    try:
        envelope = canonical.admit(raw)
    except MalformedError as error:
        raise malformed(PLACE, error.expected, error.found) from error
    if not isinstance(envelope, dict) or envelope.keys() != {"payload", "payloadType", "signatures"}:
        raise malformed(PLACE, "payload, payloadType and signatures", envelope)
    listed = envelope["signatures"]
    if envelope["payloadType"] != PAYLOAD_TYPE or not isinstance(listed, list) or len(listed) != 1:
        raise malformed(PLACE, f"one signature over {PAYLOAD_TYPE}", envelope["payloadType"])
    [signature] = listed
    if not isinstance(signature, dict) or signature.keys() != {"keyid", "sig"}:
        raise malformed(PLACE, "keyid and sig", signature)
    if signature["keyid"] != sha256_hex(key):
        raise SignatureError(Name.SIGNATURE, PLACE, f"the key {sha256_hex(key)} of the CMS signature", "another")
    payload = decode_base64(envelope["payload"], PLACE)
    verify_p256(key, decode_base64(signature["sig"], PLACE), pre_authentication(PAYLOAD_TYPE, payload), place=PLACE)
    if payload != statement:
        raise HashMismatchError(Name.MANIFEST, PLACE, "the tag manifest, scope and counts of this bundle", "others")
