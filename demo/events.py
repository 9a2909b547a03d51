"""Two weeks in the life of three models, as their pipelines would have told it; every time in it is claimed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

DAYS = 14
_NAMES = uuid.UUID("5d3f1a70-6b1e-4a55-9a0e-2f0d3c9b7e11")


@dataclass(frozen=True, slots=True)
class Told:
    """An event and the source that tells it."""

    source: str
    event: dict[str, Any]


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def _told(source: str, at: datetime, key: str, **members: Any) -> Told:  # noqa: ANN401 -- members of an event
    event_id = str(uuid.uuid5(_NAMES, f"{source}/{key}"))
    return Told(source, {"event_id": event_id, "timestamp": at.isoformat(timespec="seconds"), **members})


def story(end: datetime) -> list[Told]:
    """All of it, oldest first; `end` is now."""
    start = (end - timedelta(days=DAYS)).replace(hour=7, minute=0, second=0, microsecond=0)
    found = [*_churn(start), *_fraud(start), *_credit(start), *_daily(start)]
    return sorted(
        (item for item in found if item.event["timestamp"] < end.isoformat()), key=lambda t: t.event["timestamp"]
    )


def _training(
    source: str, at: datetime, model: str, version: str, person: str, auc: float, data: str
) -> Iterator[Told]:
    run = _digest(model, version)[:12]
    yield _told(
        source, at, f"ingest/{data}", action="ingest", subject=f"dataset:{data}", actor=f"{source}-pipeline",
        metadata={"rows": 184_220, "file_sha256": _digest("data", data)}, related=[f"model:{model}"],
    )  # fmt: skip
    yield _told(
        source, at + timedelta(minutes=14), f"validate/{data}/{version}", action="validate", subject=f"dataset:{data}",
        actor=f"{source}-pipeline", metadata={"expectations": 41, "failed": 0}, related=[f"model:{model}"],
    )  # fmt: skip
    yield _told(
        source, at + timedelta(hours=2), f"train/{version}", action="train", subject=f"run:{run}", actor=person,
        related=[
            {"type": "dataset", "id": data, "relation": "trained on"},
            {"type": "model_version", "id": f"{model}:{version}", "relation": "trained"},
        ],
        metadata={
            "commit": _digest("commit", model, version)[:40], "datasets": [data], "seed": 42, "samples": 184_220,
            "preprocessing": "drop-nulls, one-hot, clip-p99", "parameters": {"max_depth": 6, "eta": 0.1},
            "metrics": {"auc": auc}, "environment_hash": _digest("lock", model),
        },
    )  # fmt: skip
    yield _told(
        source, at + timedelta(hours=2, minutes=6), f"evaluate/{version}", action="evaluate",
        subject=f"model:{model}:{version}", actor=f"{source}-pipeline",
        metadata={"metrics": {"auc": auc, "calibration_error": 0.021}, "holdout": f"{data}-holdout"},
    )  # fmt: skip
    yield _told(
        source, at + timedelta(hours=2, minutes=9), f"register/{version}", action="register",
        subject=f"model:{model}:{version}", actor=person, related=[f"run:{run}"],
    )  # fmt: skip


def _churn(start: datetime) -> Iterator[Told]:
    for number, (version, auc) in enumerate((("12", 0.904), ("13", 0.911), ("14", 0.921))):
        at = start + timedelta(days=4 * number, minutes=11)
        yield from _training("ci-churn", at, "churn", version, "d.ferreira", auc, f"customers-2026-{40 + number}")
        yield _told(
            "ci-churn", at + timedelta(hours=3), f"attest/{version}", action="attest", subject=f"model:churn:{version}",
            actor="c.okafor", metadata={"kind": "fairness", "digest": _digest("fairness", version), "groups": 6},
        )  # fmt: skip
        yield _told(
            "ci-churn", at + timedelta(hours=5), f"deploy/{version}", action="deploy", actor="ci-churn-deploy",
            subject=f"deployment:churn-{version}", environment="staging", related=[f"model:churn:{version}"],
            metadata={"manifest_digest": "sha256:" + _digest("kit", version), "change_id": f"CHG-{4100 + number}"},
        )  # fmt: skip
    yield _told(
        "ci-churn", start + timedelta(days=9, hours=2), "promote/13", action="promote", subject="model:churn:13",
        environment="production", actor="d.ferreira", reason="promoted by script, before this portal was asked",
    )  # fmt: skip
    yield _told(
        "ci-churn", start + timedelta(days=12, hours=2), "promote/14", action="promote", subject="model:churn:14",
        environment="production", outcome="refused", actor="d.ferreira", reason="no fairness attestation for the north",
    )  # fmt: skip


def _fraud(start: datetime) -> Iterator[Told]:
    for number, (version, auc) in enumerate((("7", 0.962), ("8", 0.958))):
        at = start + timedelta(days=1 + 5 * number, hours=1)
        yield from _training("ci-fraud", at, "fraud-detector", version, "m.haddad", auc, f"transactions-{90 + number}")
        yield _told(
            "ci-fraud", at + timedelta(hours=4), f"scan/{version}", action="scan", actor="scanner",
            subject=f"model:fraud-detector:{version}", outcome="failed" if version == "8" else "done",
            metadata={"scanner": "picklescan 0.0.31", "findings": 1 if version == "8" else 0},
        )  # fmt: skip
    yield _told(
        "ci-fraud", start + timedelta(days=8, hours=9), "rollback/8", action="rollback", environment="production",
        subject="model:fraud-detector:7", actor="s.lindqvist", reason="recall fell after the deployment of 8",
    )  # fmt: skip
    yield _told(
        "ci-fraud", start + timedelta(days=10, hours=6), "drift/7", action="drift", subject="model:fraud-detector:7",
        environment="production", actor="monitor", metadata={"psi": 0.31, "feature": "merchant_category"},
    )  # fmt: skip


def _credit(start: datetime) -> Iterator[Told]:
    yield from _training(
        "ci-credit", start + timedelta(days=3, hours=4), "credit-scoring", "2026.10", "m.haddad", 0.887, "loans-2026-q3"
    )
    yield _told(
        "ci-credit", start + timedelta(days=11, hours=3), "retire/2025.04", action="retire",
        subject="model:credit-scoring:2025.04", actor="c.okafor", reason="replaced by 2026.10",
    )  # fmt: skip


def _daily(start: datetime) -> Iterator[Told]:
    for day in range(DAYS):
        for model, version, count in (("churn", "13", 41_000), ("fraud-detector", "7", 612_000)):
            at = start + timedelta(days=day, hours=16, minutes=30)
            yield _told(
                "serving", at, f"batch/{model}/{at:%Y-%m-%d}", action="inference.batch", environment="production",
                subject=f"deployment:{model}-{version}", related=[f"model:{model}:{version}"], actor="serving",
                metadata={"count": count + 37 * day, "root": _digest("predictions", model, at)},
            )  # fmt: skip
