"""Signatures: Ed25519 (RFC 8032), ECDSA over P-256 with SHA-256 (FIPS 186-5), and DSSE around either.

Ed25519 needs nothing but this package. P-256 needs `cryptography` or the `openssl` program; where neither is there
`NotCheckedError` says so, and no caller may take that for success.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import ed25519
from .errors import Name, NotCheckedError, SignatureError, malformed

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519 as fast
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    HAS_CRYPTOGRAPHY = True
except ImportError:  # a bare system Python: the slower or the outer way
    HAS_CRYPTOGRAPHY = False

OPENSSL_PATIENCE_S = 30  # far more than any verification takes; a hanging program must not hang the verifier


def check_ed25519_key(key: bytes, place: str) -> bytes:
    """The 32 bytes, if they are a canonical point that is not of low order.

    Raises:
        MalformedError: otherwise.
    """
    if not ed25519.is_acceptable_key(key):
        raise malformed(place, "a canonical Ed25519 point that is not of low order", key)
    return key


def verify_ed25519(key: bytes, signature: bytes, message: bytes, *, place: str) -> None:
    """The signature over the message holds under the 32-byte key.

    Raises:
        SignatureError: it does not, or the key is not acceptable.
    """
    if not _holds(key, signature, message):
        raise SignatureError(Name.SIGNATURE, place, "a signature of this key over these bytes", signature.hex())


def _holds(key: bytes, signature: bytes, message: bytes) -> bool:
    if not HAS_CRYPTOGRAPHY:
        return ed25519.verify(key, signature, message)
    if not ed25519.is_acceptable_key(key):
        return False
    try:
        fast.Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_p256(spki: bytes, signature: bytes, message: bytes, *, place: str) -> None:
    """The DER signature (ECDSA, SHA-256) over the message holds under the P-256 key, given as SPKI DER.

    Raises:
        SignatureError: it does not, or the key is no P-256 key.
        NotCheckedError: neither `cryptography` nor `openssl` is there.
    """
    if HAS_CRYPTOGRAPHY:
        holds = _p256_by_cryptography(spki, signature, message)
    else:
        holds = _p256_by_openssl(spki, signature, message)
    if not holds:
        raise SignatureError(Name.SIGNATURE, place, "a P-256 signature of this key over these bytes", signature.hex())


def _p256_by_cryptography(spki: bytes, signature: bytes, message: bytes) -> bool:
    try:
        key = load_der_public_key(spki)
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            return False
        key.verify(signature, message, ec.ECDSA(SHA256()))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


P256_SPKI_START = bytes.fromhex(
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004"
)  # RFC 5480 §2.1.1, uncompressed


def _p256_by_openssl(spki: bytes, signature: bytes, message: bytes) -> bool:
    program = shutil.which("openssl")
    if program is None:
        raise NotCheckedError("P-256 signatures (neither the cryptography package nor the openssl program is here)")
    if not spki.startswith(P256_SPKI_START):
        return False
    with tempfile.TemporaryDirectory() as directory:
        files = {name: Path(directory) / name for name in ("key", "signature", "message")}
        files["key"].write_bytes(spki)
        files["signature"].write_bytes(signature)
        files["message"].write_bytes(message)
        command = [program, "dgst", "-sha256", "-keyform", "DER", "-verify", str(files["key"])]
        command += ["-signature", str(files["signature"]), str(files["message"])]
        done = subprocess.run(command, capture_output=True, timeout=OPENSSL_PATIENCE_S, check=False)  # noqa: S603 -- a fixed command over our own files
        return done.returncode == 0


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature covers: `DSSEv1 LEN TYPE LEN PAYLOAD` (DSSE v1.0.0, PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def decode_base64(text: object, place: str) -> bytes:
    """Strict standard base64: padded, canonical, nothing else in it.

    Raises:
        MalformedError: otherwise.
    """
    if isinstance(text, str):
        try:
            raw = base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raw = None
        if raw is not None and base64.b64encode(raw).decode() == text:
            return raw
    raise malformed(place, "padded standard base64", text)


def sha256_hex(raw: bytes) -> str:
    """Lower-case hex of the SHA-256."""
    return hashlib.sha256(raw).hexdigest()
