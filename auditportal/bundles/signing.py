"""The signer of bundles: a P-256 key, and the certificate authority of this installation above it.

Not the log's key: the log signs its tree all day, a bundle is signed once and read by openssl for years. The root
belongs into the auditor's hands by another way than the bundle; only its fingerprint is printed.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    pkcs7,
)  # fmt: skip
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from django.conf import settings
from django.db import transaction

from auditportal.bundles.errors import BundleError
from auditportal.ledger import services as ledger
from auditportal.ledger.drafts import SYSTEM, Draft, Subject
from auditproof import dsse
from auditproof.canonical import encode
from auditproof.signatures import pre_authentication, sha256_hex

ROOT_LIFETIME = timedelta(days=365 * 40)
SIGNER_LIFETIME = timedelta(days=365 * 30)  # outlives what it signs: bundles are kept for ten years and more
ROOT, ROOT_KEY, SIGNER, SIGNER_KEY = "root.pem", "root.key", "signer.pem", "signer.key"
LONGEST_NAME = 64  # of an organisation in a certificate (RFC 5280, appendix A.1)


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that signs bundles, with the certificates an auditor checks it by."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    root: x509.Certificate

    @property
    def root_pem(self) -> str:
        return self.root.public_bytes(Encoding.PEM).decode()

    @property
    def certificate_pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def root_fingerprint(self) -> str:
        """Hex SHA-256 of the root's DER bytes, as openssl prints it without its colons."""
        return sha256_hex(self.root.public_bytes(Encoding.DER))

    def sign_detached(self, content: bytes) -> bytes:
        """A detached CMS signature in DER."""
        builder = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(self.certificate, self.key, SHA256())
        options = [
            pkcs7.PKCS7Options.DetachedSignature,
            pkcs7.PKCS7Options.Binary,
            pkcs7.PKCS7Options.NoCapabilities,
        ]
        return builder.sign(Encoding.DER, options)

    def sign_statement(self, statement: bytes) -> bytes:
        """A DSSE envelope around the statement."""
        signature = self.key.sign(pre_authentication(dsse.PAYLOAD_TYPE, statement), ec.ECDSA(SHA256()))
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return encode(
            {
                "payload": base64.b64encode(statement).decode(),
                "payloadType": dsse.PAYLOAD_TYPE,
                "signatures": [{"keyid": sha256_hex(spki), "sig": base64.b64encode(signature).decode()}],
            }
        )


def load() -> Signer:
    """The signer of this installation.

    Raises:
        BundleError: it was not set up.
    """
    directory = Path(settings.BUNDLE_SIGNER)
    try:
        key = load_pem_private_key((directory / SIGNER_KEY).read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((directory / SIGNER).read_bytes())
        root = x509.load_pem_x509_certificate((directory / ROOT).read_bytes())
    except OSError as error:
        raise BundleError("no bundle can be signed: run manage.py setup_signing") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BundleError("the bundle signer's key is no P-256 key")
    return Signer(key, certificate, root)


def set_up(*, now: datetime) -> bool:
    """The installation has its root and signer, and the log says so. True when this call made them."""
    directory = Path(settings.BUNDLE_SIGNER)
    if (directory / SIGNER).exists():
        return False
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".bundle-signer-", dir=directory.parent))  # private: mode 0700
    try:
        signer = _make(fresh, now)
        draft = Draft(
            action="key.issued",
            actor=SYSTEM,
            subject=Subject("bundle_signer", settings.LOG_ORIGIN),
            timestamp=now,
            metadata={
                "certificate_sha256": sha256_hex(signer.certificate.public_bytes(Encoding.DER)),
                "root_sha256": signer.root_fingerprint,
            },
        )
        with transaction.atomic():
            ledger.append([draft])
            fresh.rename(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return True


def _make(directory: Path, now: datetime) -> Signer:
    since = now.replace(microsecond=0)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer, subject = _name("AuditPortal bundle root"), _name("AuditPortal bundle signer")
    root = (
        _builder(issuer, issuer, root_key, since, ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, SHA256())
    )
    certificate = (
        _builder(subject, issuer, key, since, SIGNER_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        # openssl asks for this purpose when it verifies; document signing alone it refuses.
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, SHA256())
    )
    _store(directory / ROOT_KEY, _private(root_key))
    _store(directory / SIGNER_KEY, _private(key))
    _store(directory / ROOT, root.public_bytes(Encoding.PEM))
    _store(directory / SIGNER, certificate.public_bytes(Encoding.PEM))
    return Signer(key, certificate, root)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, settings.LOG_ORIGIN[:LONGEST_NAME]),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since - timedelta(minutes=5))  # an auditor's clock may lag
        .not_valid_after(since + lifetime)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=not authority,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _store(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
