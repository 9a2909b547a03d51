"""X.509 certificates (RFC 5280), as far as a bundle's signature needs them: P-256 keys, ECDSA with SHA-256, one chain.

The root is always given from outside. Certificates with other algorithms, and unknown critical extensions, are refused:
this is no general path validation.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from . import der
from .errors import Name, SignatureError, malformed
from .signatures import verify_p256

ECDSA_SHA256 = "1.2.840.10045.4.3.2"
BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE = "2.5.29.19", "2.5.29.15", "2.5.29.37"
SIGNING_PURPOSES = frozenset(
    {"1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "2.5.29.37.0"}  # emailProtection, documentSigning, any
)
MAX_CHAIN = 4
_DIGITAL_SIGNATURE, _NON_REPUDIATION, _CERTIFICATE_SIGN = 0x80, 0x40, 0x04  # first octet of KeyUsage (§4.2.1.3)
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is used of a certificate; names are the DER bytes, compared as they are."""

    raw: bytes
    signed: bytes
    signature: bytes
    serial: bytes
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    key: bytes  # SubjectPublicKeyInfo
    extensions: Mapping[str, tuple[bool, bytes]]


def parse(raw: bytes, place: str = "certificate") -> Certificate:
    """The certificate of these DER bytes.

    Raises:
        MalformedError: another form, or an algorithm other than ECDSA with SHA-256.
    """
    body, algorithm, signature = der.fields(der.read(raw, place), der.SEQUENCE, 3, place)
    parts = der.children(body, der.SEQUENCE, place)
    if len(parts) not in (7, 8) or parts[0].raw != b"\xa0\x03\x02\x01\x02":  # version 3
        raise malformed(place, "a certificate of version 3", len(parts))
    _, serial, inner, issuer, validity, subject, key, *rest = parts
    for item in (algorithm, inner):
        if _algorithm(item, place) != ECDSA_SHA256:
            raise malformed(place, "ECDSA with SHA-256", _algorithm(item, place))
    not_before, not_after = der.fields(validity, der.SEQUENCE, 2, place)
    return Certificate(
        raw=raw,
        signed=body.raw,
        signature=der.octets(signature, place),
        serial=der.expect(serial, der.INTEGER, place),
        issuer=issuer.raw,
        subject=subject.raw,
        not_before=der.instant(not_before, place),
        not_after=der.instant(not_after, place),
        key=key.raw,
        extensions=_extensions(rest, place),
    )


def parse_pem(text: str, place: str) -> list[Certificate]:
    """The certificates of a PEM text, at least one.

    Raises:
        MalformedError: none, or one that cannot be read.
    """
    found = []
    for encoded in _PEM.findall(text):
        try:
            found.append(parse(base64.b64decode("".join(encoded.split()), validate=True), place))
        except binascii.Error as error:
            raise malformed(place, "base64", str(error)) from None
    if not found:
        raise malformed(place, "a certificate in PEM form", text)
    return found


def _algorithm(value: der.Value, place: str) -> str:
    parts = der.children(value, der.SEQUENCE, place)
    if not parts:
        raise malformed(place, "an algorithm", value.raw)
    return der.oid(parts[0], place)


def _extensions(rest: Sequence[der.Value], place: str) -> dict[str, tuple[bool, bytes]]:
    found: dict[str, tuple[bool, bytes]] = {}
    for wrapped in rest:
        [listed] = der.fields(wrapped, 0xA3, 1, place)
        for extension in der.children(listed, der.SEQUENCE, place):
            parts = der.children(extension, der.SEQUENCE, place)
            if len(parts) not in (2, 3):
                raise malformed(place, "an extension", len(parts))
            name = der.oid(parts[0], place)
            critical = len(parts) == 3 and der.boolean(parts[1], place)  # noqa: PLR2004 -- with its criticality
            if name in found:
                raise malformed(place, "each extension once", name)
            found[name] = (critical, der.expect(parts[-1], der.OCTET_STRING, place))
    return found


def check_chain(
    signer: Certificate, others: Sequence[Certificate], *, roots: Sequence[Certificate], at: datetime, place: str
) -> None:
    """The signer's certificate leads to one of the roots, each link signed, valid at that time and fit for its part.

    Raises:
        SignatureError: SIGNATURE with what does not hold.
        NotCheckedError: this machine cannot check P-256.
    """
    _check_signer(signer, at, place)
    current, unused = signer, [item for item in others if all(item.raw != root.raw for root in roots)]
    for _ in range(MAX_CHAIN):
        for root in roots:
            if root.subject == current.issuer and _issued(root, current):
                _check_authority(root, at, place)
                if unused:
                    raise SignatureError(Name.SIGNATURE, place, "the chain and no other certificate", "one beside it")
                return
        issuers = [item for item in unused if item.subject == current.issuer and _issued(item, current)]
        if not issuers:
            break
        current = issuers[0]
        unused.remove(current)
        _check_authority(current, at, place)
    raise SignatureError(Name.SIGNATURE, place, "a certificate that leads to the given root", "another issuer")


def _issued(issuer: Certificate, subject: Certificate) -> bool:
    try:
        verify_p256(issuer.key, subject.signature, subject.signed, place="certificate")
    except SignatureError:
        return False
    return True


def _check_signer(certificate: Certificate, at: datetime, place: str) -> None:
    _check_common(certificate, at, place)
    if not _usage(certificate, place) & (_DIGITAL_SIGNATURE | _NON_REPUDIATION):
        raise SignatureError(Name.SIGNATURE, place, "a certificate for signing", "another key usage")
    if _is_authority(certificate, place):
        raise SignatureError(Name.SIGNATURE, place, "the certificate of a signer", "that of an authority")
    if EXTENDED_KEY_USAGE in certificate.extensions:
        listed = der.read(certificate.extensions[EXTENDED_KEY_USAGE][1], place)
        if not SIGNING_PURPOSES & {der.oid(item, place) for item in der.children(listed, der.SEQUENCE, place)}:
            raise SignatureError(Name.SIGNATURE, place, "a certificate for e-mail or documents", "another purpose")


def _check_authority(certificate: Certificate, at: datetime, place: str) -> None:
    _check_common(certificate, at, place)
    if not _is_authority(certificate, place) or not _usage(certificate, place) & _CERTIFICATE_SIGN:
        raise SignatureError(Name.SIGNATURE, place, "an authority above the signer", "a certificate that may not issue")


def _check_common(certificate: Certificate, at: datetime, place: str) -> None:
    if not certificate.not_before <= at <= certificate.not_after:
        valid = f"{certificate.not_before:%Y-%m-%dT%H:%M:%SZ} to {certificate.not_after:%Y-%m-%dT%H:%M:%SZ}"
        raise SignatureError(Name.SIGNATURE, place, f"a certificate valid at {at:%Y-%m-%dT%H:%M:%SZ}", valid)
    known = {BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE}
    unknown = [name for name, (critical, _) in certificate.extensions.items() if critical and name not in known]
    if unknown:
        raise SignatureError(Name.SIGNATURE, place, "critical extensions that are known", ", ".join(unknown))


def _usage(certificate: Certificate, place: str) -> int:
    if KEY_USAGE not in certificate.extensions:
        return 0xFF
    octets = der.bits(der.read(certificate.extensions[KEY_USAGE][1], place), place)
    return octets[0] if octets else 0


def _is_authority(certificate: Certificate, place: str) -> bool:
    if BASIC_CONSTRAINTS not in certificate.extensions:
        return False
    parts = der.children(der.read(certificate.extensions[BASIC_CONSTRAINTS][1], place), der.SEQUENCE, place)
    return bool(parts) and parts[0].tag == der.BOOLEAN and der.boolean(parts[0], place)
