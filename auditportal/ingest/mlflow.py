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
from auditportal.ledger.drafts import UNKNOWN, Actor, Draft, Related, Subject, instant
from auditproof import events
from auditproof.canonical import encode

SIGNATURE_AGE = timedelta(seconds=300)  # MLflow's own bound
TEST_NAMES = ("example_model", "example_prompt")
TEST_RUN = "abcd1234abcd5678"  # stands in every test delivery, which is signed like a real one
APPROVAL_KEY = re.compile(r"approv|sign.?off|review", re.IGNORECASE)
_DATASET_KEY = re.compile(r"(dataset|data)[_.]?sha256")
_SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_CHARS = 500  # of a native text that is repeated in an event
MOST_MEMBERS = 200  # parameters and metrics of a run that stand in its event; the rest is counted
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


def mark_draft(hook: Hook, *, source_id: str, delivery_id: str, raw: bytes) -> Draft:
    """An alias or tag, set or removed.

    Raises:
        NotUnderstoodError: a member is missing.
    """
    name = _member(hook, "name")
    is_alias = hook.name.startswith("model_version_alias")
    key = _member(hook, "alias" if is_alias else "key")
    version = str(hook.data.get("version") or "")
    subject = Subject("model_version", f"{name}:{version}") if version else Subject("model", name)
    metadata: dict[str, Any] = {"state": "reported only", ("alias" if is_alias else "key"): key}
    if "value" in hook.data:
        metadata["value"] = _short(hook.data["value"])
    if APPROVAL_KEY.search(key):
        metadata["caution"] = "a tag is a claim of whoever could write it, never an approval"
    return Draft(
        action=MARKS[hook.name],
        actor=UNKNOWN,
        subject=subject,
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
    if run:
        related.append(Related("run", run, "trained by"))
    if model_id:
        related.append(Related("logged_model", model_id, "registered from"))
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
    data = value.get("data") or {}
    parameters, tags = pairs(data.get("params")), pairs(data.get("tags"))
    metrics = {
        str(item["key"]): item["value"]
        for item in data.get("metrics") or []
        if isinstance(item, dict) and _is_number(item.get("value"))
    }
    datasets = _datasets(value, {**tags, **parameters})
    # A run can be reopened and ended again: each end is an event of its own.
    key = ["run", str(info["run_id"]), str(info.get("end_time")), str(info.get("status"))]
    metadata: dict[str, Any] = {
        "state": "reported only",
        "name": _short(info.get("run_name") or ""),
        "parameters": _few(parameters),
        "metrics": _few(metrics),
        "datasets": datasets or "not reported",
        "commit": tags.get("mlflow.source.git.commit") or "not reported",
    }
    for name, found in (("seed", ("random_state", "seed", "random_seed")), ("samples", ("n_samples", "samples"))):
        said = next((parameters[item] for item in found if item in parameters), None)
        if said is not None:
            metadata[name] = said[:64]
    experiment = str(info.get("experiment_id") or "")
    related = [Related("experiment", experiment, "part of")] if experiment else []
    related += [Related("dataset", f"{item['kind']}:{item['digest']}", "trained on") for item in datasets]
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
    inputs = (value.get("inputs") or {}).get("dataset_inputs") or []
    for item in inputs[:20]:
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


def change_draft(
    *,
    subject: Subject,
    models: list[str],
    source_id: str,
    before: str,
    after: str,
    fields: list[str],
    detail: Mapping[str, Any],
    last_seen: datetime,
    now: datetime,
) -> Draft:
    """A difference found by comparing: nobody knows who made it or when, only between which two looks."""
    return Draft(
        action="source.changed_object",
        actor=UNKNOWN,
        subject=subject,
        timestamp=now,
        timestamp_kind="observed",
        not_before=last_seen,
        models=models,
        metadata={
            "source": source_id,
            "fields": fields[:50],
            "before_sha256": before,
            "after_sha256": after,
            **detail,
        },
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
    chosen = {
        _short(name): _short(value) if isinstance(value, str) else value
        for name, value in sorted(members.items())[:MOST_MEMBERS]
        if name != "$sealed"
    }
    left = len(members) - len(chosen)
    return {**chosen, "left out": left} if left else chosen


def _is_number(value: object) -> bool:
    """Numbers that a body may hold; MLflow writes NaN as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and not LEAST_REFUSED <= abs(value) < LEAST_ADMITTED
