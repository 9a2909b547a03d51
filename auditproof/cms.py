"""Detached CMS signatures (RFC 5652): one signer, P-256 with SHA-256, signed attributes, certificates inside.

Stricter than openssl where attackers look: nothing may follow the DER, and the signed attributes are exactly those of
RFC 5652 §11 (content type, message digest, and a signing time, which nothing proves).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from . import certificates, der
from .certificates import Certificate
from .errors import MalformedError, Name, SignatureError, malformed
from .signatures import verify_p256

SIGNED_DATA, DATA = "1.2.840.113549.1.7.2", "1.2.840.113549.1.7.1"
SHA256 = "2.16.840.1.101.3.4.2.1"
CONTENT_TYPE, MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"
PLACE = "CMS signature"
_KNOWN = {CONTENT_TYPE: der.OID, MESSAGE_DIGEST: der.OCTET_STRING, SIGNING_TIME: der.UTC_TIME}
_VERSION_1 = b"\x02\x01\x01"
_DATA_CONTENT = bytes.fromhex("2a864886f70d010701")  # the content octets of DATA


@dataclass(frozen=True, slots=True)
class Signed:
    """Who signed, and the other certificates that came along."""

    signer: Certificate
    others: tuple[Certificate, ...]


def verify_detached(raw: bytes, content: bytes) -> Signed:
    """The signature over the content holds under the key of its own certificate. Whose that is, the chain tells.

    Raises:
        SignatureError: SIGNATURE, it does not hold, or its bytes are not exactly of this form.
        NotCheckedError: this machine cannot check P-256.
    """
    try:
        found, info = _parse(raw)
        signer = _signer_of(info[1], found)
        attributes = _attributes(info[3])
        signature = der.expect(info[5], der.OCTET_STRING, PLACE)
    except MalformedError as error:
        raise SignatureError(Name.SIGNATURE, PLACE, error.expected, error.found) from error
    digest = hashlib.sha256(content).digest()
    if attributes[MESSAGE_DIGEST] != digest:
        raise SignatureError(Name.SIGNATURE, PLACE, digest.hex(), attributes[MESSAGE_DIGEST].hex())
    # The attributes are signed under their universal tag (RFC 5652 §5.4).
    verify_p256(signer.key, signature, bytes([der.SET]) + info[3].raw[1:], place=PLACE)
    return Signed(signer, tuple(item for item in found if item is not signer))


def _parse(raw: bytes) -> tuple[list[Certificate], list[der.Value]]:
    """The certificates, and the parts of the one SignerInfo."""
    kind, wrapped = der.fields(der.read(raw, PLACE), der.SEQUENCE, 2, PLACE)
    _require(der.oid(kind, PLACE) == SIGNED_DATA, "signed data", kind.raw)
    [signed] = der.fields(wrapped, 0xA0, 1, PLACE)
    version, digests, content, listed, signers = der.fields(signed, der.SEQUENCE, 5, PLACE)
    _require(version.raw == _VERSION_1, "version 1", version.raw)
    _require([_algorithm(item) for item in der.children(digests, der.SET, PLACE)] == [SHA256], "SHA-256", digests.raw)
    [inner] = der.fields(content, der.SEQUENCE, 1, PLACE)  # the content itself stands apart
    _require(der.oid(inner, PLACE) == DATA, "detached data", inner.raw)
    found = [certificates.parse(item.raw, PLACE) for item in der.children(listed, 0xA0, PLACE)]
    [info] = der.fields(signers, der.SET, 1, PLACE)
    parts = der.fields(info, der.SEQUENCE, 6, PLACE)
    _require(parts[0].raw == _VERSION_1, "a signer of version 1", parts[0].raw)
    _require(_algorithm(parts[2]) == SHA256, "SHA-256", parts[2].raw)
    _require(_algorithm(parts[4]) == certificates.ECDSA_SHA256, "ECDSA with SHA-256", parts[4].raw)
    return found, parts


def _algorithm(value: der.Value) -> str:
    """The algorithm's name; its parameters are absent or NULL."""
    parts = der.children(value, der.SEQUENCE, PLACE)
    _require(bool(parts) and b"".join(item.raw for item in parts[1:]) in (b"", b"\x05\x00"), "an algorithm", value.raw)
    return der.oid(parts[0], PLACE)


def _signer_of(identifier: der.Value, found: Sequence[Certificate]) -> Certificate:
    issuer, serial = der.fields(identifier, der.SEQUENCE, 2, PLACE)
    number = der.expect(serial, der.INTEGER, PLACE)
    for certificate in found:
        if (certificate.issuer, certificate.serial) == (issuer.raw, number):
            return certificate
    raise malformed(PLACE, "the signer's certificate among those inside", number)


def _attributes(value: der.Value) -> dict[str, bytes]:
    """The signed attributes by name; each once, with one value, none unknown."""
    attributes: dict[str, bytes] = {}
    for item in der.children(value, 0xA0, PLACE):
        kind, values = der.fields(item, der.SEQUENCE, 2, PLACE)
        name = der.oid(kind, PLACE)
        [only] = der.fields(values, der.SET, 1, PLACE)
        _require(name in _KNOWN and name not in attributes, "known attributes, each once", kind.raw)
        attributes[name] = der.expect(only, _KNOWN[name], PLACE) if name != SIGNING_TIME else only.content
    _require({CONTENT_TYPE, MESSAGE_DIGEST} <= attributes.keys(), "content type and message digest", value.raw)
    _require(attributes[CONTENT_TYPE] == _DATA_CONTENT, "the content type of data", attributes[CONTENT_TYPE])
    return attributes


def _require(holds: bool, expected: str, found: bytes) -> None:  # noqa: FBT001 -- an assertion with a name
    if not holds:
        raise malformed(PLACE, expected, found)
