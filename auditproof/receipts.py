"""Receipts: the inclusion proof of one entry with its checkpoint (C2SP tlog-proof)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import checkpoints, merkle, notes
from .errors import malformed
from .signatures import decode_base64

FIRST_LINE = "c2sp.org/tlog-proof@v1"
MAX_PATH = 64  # hashes; a tree of 2^64 leaves is no deeper
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Receipt:
    """One entry's place, the path up to the root, and the signed checkpoint of that root."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: str


def format_receipt(*, index: int, path: Sequence[bytes], checkpoint: str) -> str:
    """The text of a receipt."""
    lines = [FIRST_LINE, f"index {index}", *(base64.b64encode(item).decode() for item in path), "", checkpoint]
    return "\n".join(lines)


def parse_receipt(text: str) -> Receipt:
    """The parts of a receipt; an `extra` line is allowed and ignored, since nothing authenticates it.

    Raises:
        MalformedError: not the form of C2SP tlog-proof.
    """
    head, separator, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if not separator or lines[0] != FIRST_LINE or "\r" in text:
        raise malformed("receipt", "a C2SP tlog-proof", text)
    rest = lines[1:]
    if rest and rest[0].startswith("extra "):
        decode_base64(rest.pop(0)[len("extra ") :], "receipt")
    match = _INDEX.fullmatch(rest[0]) if rest else None
    if match is None:
        raise malformed("receipt", "a line `index N`", text)
    if len(rest) - 1 > MAX_PATH:
        raise malformed("receipt", f"at most {MAX_PATH} hashes", len(rest) - 1)
    path = tuple(decode_base64(line, "receipt") for line in rest[1:])
    if any(len(item) != merkle.HASH_BYTES for item in path):
        raise malformed("receipt", "hashes of 32 bytes", "another length")
    return Receipt(int(match[1]), path, checkpoint)


def verify_receipt(text: str, *, leaf: bytes, origin: str, keys: Iterable[notes.VerifierKey]) -> checkpoints.Checkpoint:
    """The checkpoint under which the entry with this leaf hash stands at the receipt's index.

    Raises:
        ProofError: MALFORMED, SIGNATURE, ORIGIN or INCLUSION.
    """
    receipt = parse_receipt(text)
    checkpoint = checkpoints.open_checkpoint(receipt.checkpoint, origin=origin, keys=keys)
    merkle.verify_inclusion(
        leaf=leaf, index=receipt.index, size=checkpoint.size, path=receipt.path, root=checkpoint.root
    )
    return checkpoint
