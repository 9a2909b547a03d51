"""MLflow's webhooks and objects, turned into drafts. Pure: what needs a second call was fetched before.

A webhook names no actor, and its signature proves which server sent it, not who acted. What MLflow says of runs is
claimed by whoever logged it; no digest in it is a file's unless its kind says so.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from auditportal.catalog.services import pairs
from auditportal.ingest.errors import NotUnderstoodError
from auditportal.ledger.drafts import UNKNOWN, Actor, Draft, Related, Sealed, Subject, instant
from auditproof import events
from auditproof.canonical import encode

SIGNATURE_AGE = timedelta(seconds=300)  # MLflow's own bound
TEST_NAMES = ("example_model", "example_prompt")
TEST_RUN = "abcd1234abcd5678"  # stands in every test delivery, which is signed like a real one
APPROVAL_KEY = re.compile(r"approv|sign.?off|review", re.IGNORECASE)
_DATASET_KEY = re.compile(r"(dataset|data)[_.]?sha256")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_IDENTITY = re.compile(r"[A-Za-z0-9_.-]{1,200}")
MOST_CHARS = 500  # of a native text that is repeated in an event
MOST_MEMBERS = 200  # parameters and metrics of a run that stand in its event; the rest is counted
MOST_BYTES = 48_000  # of each of the two: with names of four bytes a character a body would exceed its bound
MOST_NAME = 400  # characters of a name: with a version behind it, still an id (FORMAT.md §1)
MOST_CHANGES = 50  # of one object that are named in its event
TOLD = {"told": "by a delivery alone"}  # the snapshot of an object that the server itself never showed
ADOPTED_MS = 60_000  # between the creation of an object and the delivery that tells of it
PROMPT_TAG = "mlflow.prompt.is_prompt"
LEAST_REFUSED, LEAST_ADMITTED = 2**53, 1e21  # between them a body may hold no number (FORMAT.md §1)


def verify_signature(
    *, secret: str, delivery_id: str, timestamp: str, signature: str, body: bytes, now: datetime
) -> bool:
    """The delivery was signed with this secret, and not long ago (MLflow webhooks, `X-MLflow-Signature`)."""
    if not secret or not re.fullmatch(r"\d{1,12}", timestamp) or not signature.startswith("v1,"):
        return False
    if abs(now.timestamp() - int(timestamp)) > SIGNATURE_AGE.total_seconds():
        return False
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    wanted = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(wanted.encode(), signature.removeprefix("v1,").encode())


@dataclass(frozen=True, slots=True)
class Hook:
    """One delivery: `entity.action`, when it was sent, and its data."""

    name: str
    timestamp: str
    data: Mapping[str, Any]

    @property
    def is_test(self) -> bool:
        return self.data.get("name") in TEST_NAMES or self.data.get("run_id") == TEST_RUN


def read(raw: bytes) -> Hook:
    """The delivery's content.

    Raises:
        NotUnderstoodError: it is none of MLflow's.
    """
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NotUnderstoodError("the body is not JSON") from error
    if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
        raise NotUnderstoodError("the body has no data, as MLflow's deliveries have")
    entity, action = value.get("entity"), value.get("action")
    if not isinstance(entity, str) or not isinstance(action, str):
        raise NotUnderstoodError("the body names no entity and action")
    try:
        moment = datetime.fromisoformat(str(value.get("timestamp")))
    except ValueError as error:
        raise NotUnderstoodError("the body has no time") from error
    if moment.tzinfo is None:
        raise NotUnderstoodError("the body's time has no offset")
    return Hook(f"{entity}.{action}", instant(moment.astimezone(UTC)), value["data"])


MARKS = {
    "model_version_alias.created": "alias.set",
    "model_version_alias.deleted": "alias.removed",
    "model_version_tag.set": "tag.set",
    "model_version_tag.deleted": "tag.removed",
}  # told by the webhook alone: MLflow keeps no history of them, so nothing can be checked at the source


@dataclass(frozen=True, slots=True)
class Mark:
    """An alias or tag that a delivery tells of: which member of which object, and what stands there now."""

    field: str  # `aliases` of the model, `tags` of the version
    key: str
    value: str | None  # None: removed

    @property
    def place(self) -> str:
        return f"{self.field}.{self.key}"

    def is_so(self, members: Mapping[str, Any]) -> bool:
        """Whether the object as the server shows it agrees."""
        found = members.get(self.field)
        return isinstance(found, dict) and found.get(self.key) == self.value


def mark(hook: Hook) -> Mark:
    """What the delivery says of an alias or tag.

    Raises:
        NotUnderstoodError: a member is missing.
    """
    is_alias = hook.name.startswith("model_version_alias")
    key = _member(hook, "alias" if is_alias else "key")
    if MARKS[hook.name].endswith(".removed"):
        value = None
    else:
        value = str(hook.data.get("version" if is_alias else "value") or "")
    return Mark("aliases" if is_alias else "tags", key, value)


def names(hook: Hook) -> tuple[str, str]:
    """The model and version a delivery is about; the version may be empty.

    Raises:
        NotUnderstoodError: it names no model.
    """
    version = hook.data.get("version")
    return _member(hook, "name"), "".join(c for c in str(version or "") if c.isprintable())[:MOST_NAME]


def mark_draft(
    hook: Hook, *, label: str, before: str | None, stands: bool | None, source_id: str, delivery_id: str, raw: bytes
) -> Draft:
    """An alias or tag, set or removed: of the version `label`, or of the model where no version is named.

    `before` is what our last look had seen there; `stands` whether the server agreed when it was asked, if it answered.

    Raises:
        NotUnderstoodError: a member is missing.
    """
    said = mark(hook)
    name, _ = names(hook)
    is_tag = said.field == "tags"
    metadata: dict[str, Any] = {
        "state": "checked" if stands else "reported only",
        ("tag" if is_tag else "alias"): said.key,
    }
    if stands is False:
        metadata["note"] = "the server showed something else when it was asked"
    # Tags hold whatever people write, names among it.
    if said.value is not None:
        metadata["value"] = Sealed(_short(said.value)) if is_tag else _short(said.value)
    if before is not None and before != said.value:
        metadata["before"] = Sealed(_short(before)) if is_tag else _short(before)
    if APPROVAL_KEY.search(said.key):
        metadata["caution"] = "a tag is a claim of whoever could write it, never an approval"
    return Draft(
        action=MARKS[hook.name],
        actor=UNKNOWN,
        subject=Subject("model_version", label) if label else Subject("model", name),
        timestamp=hook.timestamp,
        timestamp_kind="claimed",
        event_id=events.event_id_of(source_id, [delivery_id]),
        native_id=delivery_id,
        metadata=metadata,
        source_id=source_id,
        raw=raw,
        submitted=encode(["webhook", delivery_id]),
    )


def model_draft(value: Mapping[str, Any], *, source_id: str, raw: bytes) -> Draft:
    """A registered model, known by name and creation time: a name can be made anew."""
    name, created = str(value["name"]), _milliseconds(value.get("creation_timestamp"))
    key = ["registered_model", name, str(value.get("creation_timestamp"))]
    return Draft(
        action="model.created",
        actor=UNKNOWN,
        subject=Subject("model", name),
        timestamp=created,
        timestamp_kind="claimed",
        event_id=events.event_id_of(source_id, key),
        metadata={"state": "reported only"},
        source_id=source_id,
        raw=raw,
        submitted=encode([*key]),
    )


def version_draft(value: Mapping[str, Any], *, label: str, source_id: str, raw: bytes) -> Draft:
    """A model version as MLflow tells it; the webhook and the pull make one and the same event of it."""
    key = ["model_version", str(value["name"]), str(value["version"]), str(value.get("creation_timestamp"))]
    related = []
    run, model_id = str(value.get("run_id") or ""), str(value.get("model_id") or "")
    logged = re.fullmatch(r"models:/(m-[0-9a-f]{8,64})", str(value.get("source") or ""))
    if re.fullmatch(_IDENTITY, run):
        related.append(Related("run", run, "trained by"))
    if re.fullmatch(_IDENTITY, model_id) or logged:
        related.append(Related("logged_model", logged[1] if logged else model_id, "registered from"))
    return Draft(
        action="register",
        actor=UNKNOWN,
        subject=Subject("model_version", label),
        timestamp=_milliseconds(value.get("creation_timestamp")),
        timestamp_kind="claimed",
        event_id=events.event_id_of(source_id, key),
        related=related,
        metadata={"state": "reported only", "artifact": _short(value.get("source") or "not reported")},
        source_id=source_id,
        raw=raw,
        submitted=encode([*key]),
    )


def run_draft(value: Mapping[str, Any], *, actor: Actor, source_id: str, raw: bytes) -> Draft:
    """A run that ended: `train`. What the run does not say stands as not reported."""
    info = value["info"]
    parameters, tags = data_of(value, "params"), data_of(value, "tags")
    metrics = {name: number for name, number in metrics_of(value).items() if _is_number(number)}
    datasets = _datasets(value, {**tags, **parameters})
    # A run can be reopened and ended again: each end is an event of its own.
    key = ["run", str(info["run_id"]), str(info.get("end_time")), str(info.get("status"))]
    metadata: dict[str, Any] = {
        "state": "reported only",
        "name": _short(info.get("run_name") or ""),
        "parameters": _few(parameters),
        "metrics": _few(metrics),
        "datasets": datasets or "not reported",
        "commit": _short(tags.get("mlflow.source.git.commit") or "not reported"),
    }
    for name, found in (("seed", ("random_state", "seed", "random_seed")), ("samples", ("n_samples", "samples"))):
        said = next((parameters[item] for item in found if item in parameters), None)
        if said is not None:
            metadata[name] = _short(said)[:64]
    experiment = str(info.get("experiment_id") or "")
    related = [Related("experiment", experiment, "part of")] if _IDENTITY.fullmatch(experiment) else []
    related += [
        Related("dataset", f"{item['kind']}:{item['digest']}", "trained on")
        for item in datasets
        if _IDENTITY.fullmatch(item["digest"])
    ]
    return Draft(
        action="train",
        actor=actor,
        subject=Subject("run", str(info["run_id"])),
        timestamp=_milliseconds(info.get("end_time")),
        timestamp_kind="claimed",
        outcome="done" if info.get("status") == "FINISHED" else "failed",
        event_id=events.event_id_of(source_id, key),
        related=related,
        metadata=metadata,
        source_id=source_id,
        raw=raw,
        submitted=encode([*key]),
    )


def _datasets(value: Mapping[str, Any], marks: Mapping[str, str]) -> list[dict[str, str]]:
    """Digests with their kind: a hash of pandas rows, a file's, and MLflow's 8 digits are never compared."""
    found = [
        {"kind": "sha256_of_unknown_content", "digest": text, "name": name[:64]}
        for name, text in sorted(marks.items())
        if _DATASET_KEY.fullmatch(name) and _SHA256.fullmatch(text)
    ]
    inputs = value.get("inputs")
    named = inputs.get("dataset_inputs") if isinstance(inputs, dict) else None
    for item in named[:20] if isinstance(named, list) else []:
        dataset = item.get("dataset") if isinstance(item, dict) else None
        if isinstance(dataset, dict) and dataset.get("digest"):
            found.append(
                {
                    "kind": "mlflow_md5_8",
                    "digest": _short(dataset["digest"])[:64],
                    "name": _short(dataset.get("name") or "")[:64],
                }
            )
    return found


def data_of(run: Mapping[str, Any], member: str) -> dict[str, str]:
    """`params` or `tags` of a run."""
    data = run.get("data")
    return pairs(data.get(member)) if isinstance(data, dict) else {}


def metrics_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a run; MLflow shows the last value of each."""
    data = run.get("data")
    found = data.get("metrics") if isinstance(data, dict) else None
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return {str(item["key"]): item.get("value") for item in items if "key" in item}


def check_names(kind: str, value: Mapping[str, Any]) -> None:
    """The object has what it is known by.

    Raises:
        NotUnderstoodError: a name that is missing, too long, or cannot be shown.
    """
    named = [value.get("name")] if kind != "run" else [value["info"].get("run_id")]
    if kind == "model_version":
        named.append(value.get("version"))
    if not all(isinstance(text, str) and text.isprintable() and 0 < len(text) <= MOST_NAME for text in named):
        raise NotUnderstoodError(f"a {kind} without a name that can be recorded")
    created = value.get("creation_timestamp", 0)
    if type(created) is not int or not 0 <= created < LEAST_REFUSED:
        raise NotUnderstoodError(f"a {kind} whose creation time is none")


def kept(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared at the next look: everything that people can change, and nothing that moves by itself."""
    if value.get("told"):
        return dict(TOLD)
    if kind == "run":
        info = value["info"]
        return {
            **{name: info.get(name) or "" for name in ("status", "end_time", "run_name", "user_id", "lifecycle_stage")},
            "params": data_of(value, "params"),
            "tags": data_of(value, "tags"),
            "metrics": metrics_of(value),
        }
    members = {"description": value.get("description") or "", "tags": pairs(value.get("tags"))}
    if kind == "registered_model":
        aliases = value.get("aliases")
        items = [item for item in aliases if isinstance(item, dict)] if isinstance(aliases, list) else []
        return {**members, "aliases": {str(item.get("alias")): str(item.get("version")) for item in items}}
    return {
        **members,
        "stage": value.get("current_stage") or "",
        "artifact": value.get("source") or "",
        "run_id": value.get("run_id") or "",
        "status": value.get("status") or "",
    }


OPEN_FIELDS = ("aliases", "stage", "status", "run_id", "lifecycle_stage", "metrics", "end_time")  # never personal
Changes = dict[str, tuple[dict[str, Any], dict[str, Any]]]


def differences(changed: Mapping[str, tuple[Any, Any]]) -> Changes:
    """By member, and within a member by key: what stood there and what stands there, an empty part where nothing did.

    The first part holds what may be personal and is sealed, the second what is shown.
    """
    found: Changes = {}
    for field, (before, after) in changed.items():
        if isinstance(before, dict) and isinstance(after, dict):
            for key in sorted(before.keys() | after.keys()):
                if (key in before, before.get(key)) != (key in after, after.get(key)):
                    found[f"{field}.{key}"] = _difference(field, before.get(key), after.get(key))
        else:
            found[field] = _difference(field, before, after)
    return found


def _difference(field: str, before: object, after: object) -> tuple[dict[str, Any], dict[str, Any]]:
    parts = {name: _short(value) for name, value in (("before", before), ("after", after)) if value is not None}
    return ({}, parts) if field in OPEN_FIELDS else (parts, {})


def change_draft(
    *,
    subject: Subject,
    source_id: str,
    before: str,
    after: str,
    changes: Changes,
    last_seen: datetime,
    now: datetime,
) -> Draft:
    """A difference found by comparing: nobody knows who made it or when, only between which two looks."""
    shown = sorted(changes)[:MOST_CHANGES]
    metadata: dict[str, Any] = {
        "source": source_id,
        "fields": [_short(name) for name in shown],
        "changes": {
            _short(name): {**{part: Sealed(text) for part, text in changes[name][0].items()}, **changes[name][1]}
            for name in shown
        },
        "before_sha256": before,
        "after_sha256": after,
    }
    if len(changes) > len(shown):
        metadata["left_out"] = len(changes) - len(shown)
    return Draft(
        action="source.changed_object",
        actor=UNKNOWN,
        subject=subject,
        timestamp=now,
        timestamp_kind="observed",
        not_before=last_seen,
        metadata=metadata,
    )


def _member(hook: Hook, name: str) -> str:
    value = hook.data.get(name)
    text = "".join(c for c in value if c.isprintable())[: events.MAX_ID_CHARS] if isinstance(value, str) else ""
    if not text:
        raise NotUnderstoodError(f"{hook.name} without {name}")
    return text


def _milliseconds(value: object) -> str:
    """MLflow's epoch milliseconds; clients may write any, so what cannot be a time is the epoch."""
    try:
        return instant(datetime.fromtimestamp((value if isinstance(value, int) else 0) / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return instant(datetime.fromtimestamp(0, UTC))


def _short(value: object) -> str:
    text = str(value).encode("utf-8", "replace").decode().replace("\x00", "")
    return text if len(text) <= MOST_CHARS else text[:MOST_CHARS] + "…"


def _few(members: Mapping[str, Any]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    size = 0
    for name, value in sorted(members.items())[:MOST_MEMBERS]:
        shown = _short(value) if isinstance(value, str) else value
        size += len(_short(name).encode()) + (len(shown.encode()) if isinstance(shown, str) else 24)
        if size > MOST_BYTES:
            break
        if name != "$sealed":
            chosen[_short(name)] = shown
    left = len(members) - len(chosen)
    return {**chosen, "left out": left} if left else chosen


def _is_number(value: object) -> bool:
    """Numbers that a body may hold; MLflow writes NaN as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and not LEAST_REFUSED <= abs(value) < LEAST_ADMITTED
