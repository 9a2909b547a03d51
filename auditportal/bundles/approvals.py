"""What a bundle takes from approvals: the signed statements of signing events, in one place."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from auditportal.approvals.models import Decision


@dataclass(frozen=True, slots=True)
class Statement:
    """The exact bytes that were signed, and what opens the printed name sealed in them."""

    raw: bytes
    printed_name: str
    name_salt: bytes


def statements(seqs: Collection[int]) -> dict[int, Statement]:
    """The statements behind the signing events at these positions; one that is gone is absent."""
    found = Decision.objects.filter(seq__in=list(seqs)).values_list("seq", "statement", "printed_name", "name_salt")
    return {seq: Statement(bytes(raw), name, bytes(salt)) for seq, raw, name, salt in found if seq is not None}
