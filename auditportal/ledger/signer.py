"""The signer: it keeps the log's key and the last tree head it signed, both outside the database.

So whoever owns the database alone can neither shorten nor rewrite the log unnoticed: before it signs, the signer
demands a consistency proof from what it signed last (RFC 9162 §2.1.4). Embedded it is this class in the sealer's
process; the interface is what a separate process or a key service would offer.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from auditportal.ledger.errors import SignerRefusedError
from auditproof import checkpoints, merkle, notes
from auditproof.errors import ProofError

PROOF = Callable[[int, int], Sequence[bytes]]  # (old size, new size) -> consistency path


@dataclass(frozen=True, slots=True)
class Memory:
    """The last tree head signed; size 0 with the empty root before the first."""

    size: int
    root: bytes


class Signer(Protocol):
    """What the sealer needs of a signer."""

    @property
    def vkey(self) -> str: ...

    def remembered(self) -> Memory: ...

    def sign(self, checkpoint: checkpoints.Checkpoint, prove: PROOF) -> str: ...


class FileSigner:
    """A signer whose key and memory are files of one directory (mode 0700, files 0600)."""

    def __init__(self, directory: Path, origin: str) -> None:
        self._directory = directory
        self._origin = origin
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key = self._load_or_create_key()

    @property
    def vkey(self) -> str:
        """The public key as a C2SP verifier key."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return notes.VerifierKey.ed25519(self._origin, raw).text

    def remembered(self) -> Memory:
        """What was signed last.

        Raises:
            SignerRefusedError: the memory is there and cannot be read; signing blind would defeat its purpose.
        """
        try:
            state = json.loads((self._directory / "memory.json").read_text())
            return Memory(int(state["size"]), bytes.fromhex(state["root"]))
        except FileNotFoundError:
            return Memory(0, merkle.EMPTY_ROOT)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SignerRefusedError("ROLLBACK", f"the signer's memory is unreadable: {error}") from error

    def sign(self, checkpoint: checkpoints.Checkpoint, prove: PROOF) -> str:
        """The signed note of this checkpoint; afterwards it is the one remembered.

        Asking again for the same tree head gives the same bytes (Ed25519 is deterministic).

        Raises:
            SignerRefusedError: another origin, a smaller size (ROLLBACK), the same size with another root (FORK),
                or no valid consistency proof from what was signed last (CONSISTENCY).
        """
        with self._locked():
            last = self.remembered()
            self._refuse_contradiction(last, checkpoint, prove)
            text = checkpoint.text()
            key = notes.VerifierKey.parse(self.vkey)
            line = notes.signature_line(self._origin, key.key_id, self._key.sign(text.encode()))
            if (last.size, last.root) != (checkpoint.size, checkpoint.root):
                self._remember(checkpoint)
            return f"{text}\n{line}"

    def _refuse_contradiction(self, last: Memory, checkpoint: checkpoints.Checkpoint, prove: PROOF) -> None:
        if checkpoint.origin != self._origin:
            raise SignerRefusedError("ORIGIN", f"this key signs for {self._origin}, not for {checkpoint.origin}")
        if checkpoint.size < last.size:
            raise SignerRefusedError("ROLLBACK", f"size {last.size} was signed; the log now has {checkpoint.size}")
        if checkpoint.size == last.size:
            if checkpoint.root != last.root:
                raise SignerRefusedError("FORK", f"size {last.size} was signed with root {last.root.hex()}")
            return
        if last.size == 0:
            return
        try:
            merkle.verify_consistency(
                old_size=last.size,
                new_size=checkpoint.size,
                old_root=last.root,
                new_root=checkpoint.root,
                path=prove(last.size, checkpoint.size),
            )
        except ProofError as error:
            raise SignerRefusedError("CONSISTENCY", f"size {last.size} was signed, and {error}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two sealers of one directory take turns, so that compare and store are one step."""
        with (self._directory / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _remember(self, checkpoint: checkpoints.Checkpoint) -> None:
        state = f'{{"size": {checkpoint.size}, "root": "{checkpoint.root.hex()}"}}\n'
        _write_durably(self._directory / "memory.json", state.encode())

    def _load_or_create_key(self) -> Ed25519PrivateKey:
        path = self._directory / "log.key"
        with self._locked():
            if not path.exists():
                raw = Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
                _write_durably(path, base64.b64encode(raw) + b"\n")
            return Ed25519PrivateKey.from_private_bytes(base64.b64decode(path.read_bytes()))


def _write_durably(path: Path, content: bytes) -> None:
    """The file has exactly this content, also after a power cut: either the old bytes or the new, never half."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
