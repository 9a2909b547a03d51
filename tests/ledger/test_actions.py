from __future__ import annotations

from auditportal.ledger import actions

FROZEN = [
    "ingest",
    "validate",
    "train",
    "evaluate",
    "register",
    "package",
    "scan",
    "attest",
    "request",
    "approve",
    "reject",
    "withdraw",
    "promote",
    "deploy",
    "configure",
    "rollback",
    "inference.batch",
    "drift",
    "deprecate",
    "retire",
    "archive",
    "delete",
    "model.created",
    "alias.set",
    "alias.removed",
    "tag.set",
    "tag.removed",
    "grant_access",
    "revoke_access",
    "access.view",
    "access.download",
    "ledger.genesis",
    "ledger.streams",
    "ledger.key",
    "ledger.credential",
    "ledger.erased",
    "policy.created",
    "policy.changed",
    "source.registered",
    "source.changed",
    "source.conflict",
    "source.changed_object",
    "finding.opened",
    "finding.closed",
    "case.opened",
    "case.closed",
    "bundle.requested",
    "bundle.issued",
    "bundle.cancelled",
    "key.issued",
    "key.revoked",
    "job.started",
    "job.finished",
    "job.cancelled",
]


def test_names_are_never_changed():
    """They stand in signed events: this list may only grow."""
    assert list(actions.NAMES) == FROZEN


def test_registering_a_name_twice_raises():
    import pytest

    with pytest.raises(ValueError, match="twice"):
        actions._register("train", "x", "x")


def test_unknown_action_has_a_sentence_and_is_custom():
    assert actions.sentence("frobnicate", "done") == "did frobnicate on"
    assert actions.is_custom("frobnicate")
    assert actions.tone("frobnicate", "refused") == actions.Tone.BAD
