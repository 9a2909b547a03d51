"""Events as producers post them, with the skew of real logs, and logs filled with them.

Models, actors, actions and words are drawn so that few are common and most are rare; the same seed gives the same
events. Their bodies come to some 750 bytes.
"""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta

import orjson
from django.utils import timezone

from auditportal.ingest import native, services
from auditportal.ledger import sealing
from auditportal.ledger.drafts import Actor, instant
from auditportal.ledger.preparation import Prepared
from bench.common import owner_executes

SOURCE = "bench"
NOBODY = Actor(type="service", id="svc_00000000000000000000")
BEGINNING = datetime(2024, 11, 20, tzinfo=UTC)
END = datetime(2026, 11, 20, tzinfo=UTC)
MODELS, ACTORS, WORDS = 2_000, 300, 2_000
ACTIONS = {
    "train": 300, "evaluate": 240, "register": 140, "package": 100, "scan": 80, "deploy": 60, "approve": 40,
    "promote": 20, "drift": 10, "configure": 6, "deprecate": 3, "retire": 0.5,
}  # fmt: skip  # in thousandths; the rarest is one of two thousand
ENVIRONMENTS = {"production": 50, "staging": 30, "development": 19, "shadow": 1}
OUTCOMES = {"done": 97, "failed": 2, "refused": 1}
WITH_REASON = 0.42
REASON_WORDS = 8
FILL_BATCH = 1_000


def word(rank: int) -> str:
    """A word of the reasons; rank 0 is the commonest."""
    return f"w{rank:04d}x"


class Producer:
    """An endless stream of distinct events, in order of time but for some jitter."""

    def __init__(self, *, seed: int, expected: int, is_named: bool = True) -> None:
        self._chance = random.Random(seed)
        self._step = (END - BEGINNING) / expected
        self._is_named = is_named
        self._count = 0

    def batch(self, count: int) -> bytes:
        """The body of a request with so many fresh events."""
        return orjson.dumps([self._event() for _ in range(count)])

    def _event(self) -> dict[str, object]:
        chance = self._chance
        jitter = timedelta(seconds=chance.uniform(0, 3600))
        when = min(BEGINNING + self._step * self._count + jitter, END)
        self._count += 1
        model = f"model-{self._skewed(MODELS):04d}"
        run = f"{chance.getrandbits(64):016x}"
        event: dict[str, object] = {
            "v": 1,
            "event_id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "action": self._one(ACTIONS),
            "outcome": self._one(OUTCOMES),
            "timestamp": instant(when),
            "subject": {"type": "model_version", "id": f"{model}:v{self._skewed(40)}"},
            "related": [
                {"type": "run", "id": run, "relation": "produced_by"},
                {"type": "dataset", "id": f"dataset-{self._skewed(400):03d}", "relation": "used"},
            ],
            "environment": self._one(ENVIRONMENTS),
            "metadata": {
                "commit": f"{chance.getrandbits(160):040x}",
                "environment_hash": f"sha256:{chance.getrandbits(256):064x}",
                "metrics": {"auc": round(chance.random(), 4), "loss": round(chance.random(), 4)},
                "samples": chance.randrange(10_000_000),
            },
        }
        if self._is_named:
            event["actor"] = {"type": "user", "id": actor_name(self._skewed(ACTORS))}
        if chance.random() < WITH_REASON:
            event["reason"] = " ".join(word(self._skewed(WORDS)) for _ in range(REASON_WORDS))
        return event

    def _skewed(self, count: int) -> int:
        return int(count * self._chance.random() ** 3)

    def _one(self, weights: dict[str, float] | dict[str, int]) -> str:
        return self._chance.choices(list(weights), list(weights.values()))[0]


def actor_name(rank: int) -> str:
    return f"user-{rank:03d}"


def prepared(raw: bytes) -> list[Prepared]:
    """Read, checked and made ready to append, as the portal's API does it."""
    submissions, _ = native.read(raw, source_id=SOURCE, nobody=NOBODY)
    return services.prepare(submissions, now=timezone.now())


def seal() -> int:
    return sealing.seal_all(signer=sealing.default_signer(), now=timezone.now())


def fill(count: int) -> int:
    """The log has so many events more, sealed, and the planner knows it; the size reached."""
    producer = Producer(seed=1, expected=count)
    left = count
    while left:
        batch = min(left, FILL_BATCH)
        services.append_alone(prepared(producer.batch(batch)))
        left -= batch
    size = seal()
    owner_executes("VACUUM ANALYZE")
    return size
