"""The closed registry of actions: each with the sentence a reader sees and the metadata its completeness asks for.

Plain verbs belong to the life of a model, dotted names to the portal's own acts. Names are never changed: they stand
in signed events. An action from outside that is not here is kept and shown as custom.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tone(StrEnum):
    """How an action is marked in lists; the word always stands beside the mark."""

    PLAIN = ""
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Action:
    """`done`, `refused` and `failed` are the verb phrases between actor and subject.

    `expected` names members of `metadata` that a complete record has. What a producer does not say is shown as
    "not reported" and counts against completeness; it is never invented.
    """

    name: str
    done: str
    refused: str
    failed: str
    tone: Tone = Tone.PLAIN
    expected: tuple[str, ...] = ()

    @property
    def is_reserved(self) -> bool:
        """Whether only the portal itself may record it."""
        return "." in self.name and self.name not in OPEN_DOTTED


# Dotted actions of other systems: producers send the first, our adapters make the others from what MLflow tells.
OPEN_DOTTED = frozenset({"inference.batch", "model.created", "alias.set", "alias.removed", "tag.set", "tag.removed"})
_registry: dict[str, Action] = {}


def _register(name: str, done: str, to: str, *, tone: Tone = Tone.PLAIN, expected: tuple[str, ...] = ()) -> None:
    if name in _registry:
        raise ValueError(f"the action {name} is registered twice")
    _registry[name] = Action(name, done, f"tried to {to}", f"failed to {to}", tone, expected)


TRAINING = ("commit", "datasets", "preprocessing", "parameters", "metrics", "seed", "samples", "environment_hash")
DEPLOYMENT = ("manifest_digest", "config_digest", "change_id", "build_id")

_register("ingest", "ingested", "ingest")
_register("validate", "validated", "validate")
_register("train", "trained", "train", expected=TRAINING)
_register("evaluate", "evaluated", "evaluate", expected=("metrics",))
_register("register", "registered", "register")
_register("package", "packed", "pack", expected=("digests",))
_register("scan", "scanned", "scan", expected=("scanner", "findings"))
_register("attest", "attached an attestation to", "attach an attestation to", expected=("kind", "digest"))
_register("request", "asked to promote", "ask to promote", tone=Tone.INFO)
_register("approve", "signed an approval on", "approve", tone=Tone.GOOD)
_register("reject", "rejected", "reject", tone=Tone.WARN)
_register("withdraw", "withdrew", "withdraw")
_register("promote", "promoted", "promote", tone=Tone.GOOD)
_register("deploy", "deployed", "deploy", tone=Tone.GOOD, expected=DEPLOYMENT)
_register("configure", "configured", "configure")
_register("rollback", "rolled back", "roll back", tone=Tone.WARN)
_register("inference.batch", "recorded predictions of", "record predictions of", expected=("count", "root"))
_register("drift", "reported drift in", "report drift in", tone=Tone.WARN)
_register("deprecate", "deprecated", "deprecate")
_register("retire", "retired", "retire")
_register("archive", "archived", "archive")
_register("delete", "deleted", "delete", tone=Tone.WARN)
_register("model.created", "created the model", "create the model")
_register("alias.set", "set an alias on", "set an alias on")
_register("alias.removed", "removed an alias from", "remove an alias from")
_register("tag.set", "set a tag on", "set a tag on")
_register("tag.removed", "removed a tag from", "remove a tag from")
_register("grant_access", "granted access to", "grant access to", tone=Tone.INFO)
_register("revoke_access", "revoked access of", "revoke access of", tone=Tone.INFO)
_register("access.view", "viewed", "view")
_register("access.download", "downloaded", "download")
_register("ledger.genesis", "began the log", "begin the log", tone=Tone.INFO)
_register("ledger.streams", "recorded the stream map of", "record the stream map of")
_register("ledger.key", "changed the keys of", "change the keys of", tone=Tone.INFO)
_register("ledger.credential", "registered a signing credential of", "register a signing credential of")
_register("ledger.erased", "erased parts of", "erase parts of", tone=Tone.WARN)
_register("policy.created", "created the policy", "create the policy", tone=Tone.INFO)
_register("policy.changed", "changed the policy", "change the policy", tone=Tone.INFO)
_register("source.registered", "registered the source", "register the source", tone=Tone.INFO)
_register("source.changed", "changed the source", "change the source", tone=Tone.INFO)
_register(
    "source.conflict",
    "sent other content under a known id as",
    "record other content under a known id as",
    tone=Tone.WARN,
)
_register("source.changed_object", "found a change in", "compare", tone=Tone.WARN)
_register("finding.opened", "opened a finding on", "open a finding on", tone=Tone.BAD)
_register("finding.closed", "closed a finding on", "close a finding on", tone=Tone.GOOD)
_register("case.opened", "opened the case", "open the case", tone=Tone.WARN)
_register("case.closed", "closed the case", "close the case")
_register("bundle.requested", "asked for the bundle", "ask for the bundle")
_register("bundle.issued", "issued the bundle", "issue the bundle", tone=Tone.INFO)
_register("bundle.cancelled", "cancelled the bundle", "cancel the bundle")
_register("key.issued", "issued the token", "issue the token", tone=Tone.INFO)
_register("key.revoked", "revoked the token", "revoke the token", tone=Tone.INFO)
_register("job.started", "started", "start")
_register("job.finished", "finished", "finish")
_register("job.cancelled", "cancelled", "cancel")

ACTIONS: dict[str, Action] = dict(_registry)
NAMES: tuple[str, ...] = tuple(ACTIONS)


def describe(name: str) -> Action:
    """The registered action, or one made for a custom name."""
    known = ACTIONS.get(name)
    return known or Action(name, f"did {name} on", f"tried {name} on", f"failed {name} on")


def is_custom(name: str) -> bool:
    return name not in ACTIONS


def sentence(name: str, outcome: str) -> str:
    """The words between actor and subject."""
    action = describe(name)
    return {"done": action.done, "refused": action.refused, "failed": action.failed}[outcome]


def tone(name: str, outcome: str) -> Tone:
    if outcome != "done":
        return Tone.BAD
    return describe(name).tone
