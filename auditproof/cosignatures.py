"""Cosignatures of witnesses (C2SP tlog-cosignature v1): at that time, this was the largest consistent tree I knew."""

from __future__ import annotations

import struct

from . import notes
from .errors import Name, SignatureError, malformed
from .signatures import verify_ed25519

BLOB_BYTES = 8 + 64


def signed_message(timestamp: int, text: str) -> bytes:
    """What a witness signs: its time in Unix seconds, and the checkpoint's text."""
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


def verify_cosignature(note: str, witness: notes.VerifierKey) -> int:
    """When the witness cosigned, in Unix seconds.

    Raises:
        MalformedError: no note, or a cosignature of another form.
        SignatureError: the witness did not sign, or its signature fails.
    """
    parsed = notes.parse_note(note)
    if witness.type != notes.KeyType.COSIGNATURE:
        raise malformed("vkey", "a witness's key, of type 4", int(witness.type))
    found = notes.find_signatures(parsed, witness)
    if len(found) != 1:
        raise SignatureError(Name.SIGNATURE, f"witness {witness.name}", "one cosignature", str(len(found)))
    blob = found[0].blob
    if len(blob) != BLOB_BYTES:
        raise malformed(f"witness {witness.name}", "a time and a signature", blob)
    (timestamp,) = struct.unpack_from(">Q", blob)
    if not 0 < timestamp < 2**63:
        raise malformed(f"witness {witness.name}", "a time after 1970", timestamp)
    message = signed_message(timestamp, parsed.text)
    verify_ed25519(witness.public_key, blob[8:], message, place=f"witness {witness.name}")
    return int(timestamp)
