"""Secrets of sources at rest: encrypted with a key derived from the portal's own, so that a dump gives none away."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


def seal(text: str) -> bytes:
    return _fernet().encrypt(text.encode()) if text else b""


def open_sealed(token: bytes | memoryview) -> str:
    """The secret; nothing when there is none, or when the portal's key is no longer the one it was sealed with."""
    if not token:
        return ""
    try:
        return _fernet().decrypt(bytes(token)).decode()
    except InvalidToken:
        return ""


def _fernet() -> Fernet:
    key = HKDF(SHA256(), 32, salt=None, info=b"auditportal/source-secrets/v1").derive(settings.SECRET_KEY.encode())
    return Fernet(base64.urlsafe_b64encode(key))
