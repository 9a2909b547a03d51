"""Appending events, from their bytes to the commit, against raw COPY of the same bytes into the same tables.

Measured: a batch of 1,000 native events (strict admission, pseudonyms, hashes, append, commit), the part of it under
the lock of the log's head, batches of 500 posted to the real granian, and append, seal and projections together. The
tables of the baseline have the same columns, indexes and checks, without the triggers that guard the log.

Not measured: single events with group commit, connectors, other peers than plain Django and Django REST framework,
and the seal beside the append (it runs after it here).
"""

# ruff: noqa: E402 -- the portal's apps can only be imported once their settings stand

from __future__ import annotations

import http.client
import io
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bench import common

OPTIONS = common.begin(__doc__, events=0, rounds=7)

import orjson
from django.db import connection, connections, models, transaction
from django.utils import timezone
from rest_framework import serializers
from rest_framework.parsers import JSONParser

from auditportal.accounts import services as accounts
from auditportal.ingest import native, services
from auditportal.ledger import sealing
from auditportal.ledger.drafts import SYSTEM
from bench.events import NOBODY, SOURCE, Producer, prepared, seal
from tests.portal import Portal

BATCH = 1_000
BATCHES = 3  # of each round
POSTED = 500  # events of a request
REQUESTS = 8  # of each round
CLIENTS = 2  # one a core
COPIED = {
    "ledger_entry": "seq, source, event_id, header, leaf_hash",
    "ledger_body": "seq, salt, body, streams, fingerprint",
}
COPY_NAME = "raw COPY of the same bytes"
LOCKS = "SELECT size, leaf, t FROM ledger_head"


class NaiveEvent(models.Model):
    """What a portal without proofs would store: one row, the rest as JSON."""

    event_id = models.UUIDField(unique=True)
    action = models.TextField()
    outcome = models.TextField()
    actor = models.JSONField()
    subject = models.JSONField()
    related = models.JSONField()
    environment = models.TextField()
    reason = models.TextField()
    timestamp = models.DateTimeField()
    metadata = models.JSONField()
    objects: ClassVar[models.Manager[NaiveEvent]] = models.Manager()

    class Meta:
        app_label = "ledger"
        db_table = "bench_naive"
        managed = False


class NaiveSerializer(serializers.Serializer[NaiveEvent]):
    event_id = serializers.UUIDField()
    action = serializers.CharField()
    outcome = serializers.CharField()
    actor = serializers.JSONField()
    subject = serializers.JSONField()
    related = serializers.JSONField()
    environment = serializers.CharField()
    reason = serializers.CharField(required=False, default="")
    timestamp = serializers.DateTimeField()
    metadata = serializers.JSONField()


def make_tables() -> None:
    """Unguarded copies of the log's tables and the naive one, which the application's role may write."""
    common.owner_executes(*(f"CREATE TABLE bench_{name} (LIKE {name} INCLUDING ALL)" for name in COPIED))
    with connections["owner"].schema_editor() as editor:
        editor.create_model(NaiveEvent)
    connections["owner"].close()


@dataclass(slots=True)
class Appender:
    """Appends batches, and knows the bytes of what it appended last."""

    name: str
    producer: Producer
    size: int = BATCH
    count: int = BATCHES
    _raws: list[bytes] = field(default_factory=list)
    _first: int = 0
    _last: int = -1
    _locked_at: float = 0.0

    def append(self) -> Mapping[str, float]:
        self._raws = [self.producer.batch(self.size) for _ in range(self.count)]
        spent = dict.fromkeys(("read", "prepare", "record", "locked"), 0.0)
        places: list[int] = []
        with connection.execute_wrapper(self._note_lock):
            began = time.perf_counter()
            for raw in self._raws:
                places += self._append_one(raw, spent)
            took = time.perf_counter() - began
        self._first, self._last = places[0], places[-1]
        return {self.name: took} | {f"{self.name} {part}": value for part, value in spent.items()}

    def _append_one(self, raw: bytes, spent: dict[str, float]) -> list[int]:
        times = [time.perf_counter()]
        submissions, _ = native.read(raw, source_id=SOURCE, nobody=NOBODY)
        times.append(time.perf_counter())
        items = services.prepare(submissions, now=timezone.now())
        times.append(time.perf_counter())
        recorded = services.record(items, source_id=SOURCE, submitter=NOBODY, now=timezone.now())
        times.append(time.perf_counter())
        for index, part in enumerate(("read", "prepare", "record")):
            spent[part] += times[index + 1] - times[index]
        spent["locked"] += times[-1] - self._locked_at
        return [item.seq for item in recorded]

    def _note_lock(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: ANN401, FBT001 -- Django's signature
        answer = execute(sql, params, many, context)
        if sql.startswith(LOCKS):
            self._locked_at = time.perf_counter()
        return answer

    def copy(self) -> Mapping[str, float]:
        """The rows that were appended last, byte for byte, in as many transactions."""
        streams = [
            [(f"bench_{table}", columns, _stored(table, columns, start)) for table, columns in COPIED.items()]
            for start in range(self._first, self._last + 1, BATCH)
        ]
        return {f"{self.name} copy": common.seconds(lambda: [_copy(batch) for batch in streams])}


def _stored(table: str, columns: str, start: int) -> bytes:
    query = f"SELECT {columns} FROM {table} WHERE seq >= {start} AND seq < {start + BATCH} ORDER BY seq"
    with connection.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT BINARY") as copy:
        return b"".join(map(bytes, copy))


@transaction.atomic
def _copy(batch: list[tuple[str, str, bytes]]) -> None:
    with connection.cursor() as cursor:
        for table, columns, raw in batch:
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN BINARY") as copy:
                copy.write(raw)


def measure_batches(table: common.Table) -> None:
    named = Appender("named", Producer(seed=2, expected=100_000))
    token = Appender("token", Producer(seed=3, expected=100_000, is_named=False))
    times = common.interleaved(OPTIONS.rounds, named.append, named.copy, token.append, token.copy)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM bench_ledger_entry e JOIN bench_ledger_body b USING (seq)")
        if cursor.fetchone()[0] != (OPTIONS.rounds + 1) * 2 * BATCHES * BATCH:
            raise RuntimeError("the baseline did not copy what was appended")
    for item, who in ((named, "actors named"), (token, "the token acts")):
        name = f"batch of 1,000, {who}"
        copied = times[f"{item.name} copy"]
        table.speed(f"{name}: admission to commit", COPY_NAME, times[item.name], copied, 0.20)
        for part, says in (("read", "strict admission"), ("prepare", "preparation"), ("record", "append and commit")):
            table.cost(f"  of it {says}", COPY_NAME, times[f"{item.name} {part}"], copied)
        table.cost(f"{name}: under the head lock", COPY_NAME, times[f"{item.name} locked"], copied, 2.0)


@dataclass(slots=True)
class Posting:
    """Clients that post batches at the same time, each over a connection that stays open."""

    port: int
    token: str
    producer: Producer
    statuses: list[int] = field(default_factory=list)

    def post(self) -> Mapping[str, float]:
        raws = [self.producer.batch(POSTED) for _ in range(REQUESTS)]
        clients = [threading.Thread(target=self._client, args=(raws[at::CLIENTS],)) for at in range(CLIENTS)]
        began = time.perf_counter()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        took = time.perf_counter() - began
        if self.statuses != [201] * REQUESTS:
            raise RuntimeError(f"the portal answered {self.statuses}")
        self.statuses.clear()
        return {"http": took}

    def _client(self, raws: list[bytes]) -> None:
        channel = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        for raw in raws:
            channel.request("POST", "/api/v1/events", raw, headers)
            answer = channel.getresponse()
            answer.read()
            self.statuses.append(answer.status)
        channel.close()


def measure_http(table: common.Table) -> None:
    _, token = accounts.issue_token(
        name="bench", source_id=SOURCE, scopes=["events:write"], actor=SYSTEM, now=timezone.now()
    )
    portal = Portal(OPTIONS.directory)
    portal.spawn("web")
    try:
        portal.wait()
        posting = Posting(portal.port, token, Producer(seed=4, expected=100_000))
        alone = Appender("alone", Producer(seed=5, expected=100_000), size=POSTED, count=REQUESTS)
        naive = Producer(seed=6, expected=100_000)
        times = common.interleaved(OPTIONS.rounds, posting.post, alone.append, lambda: {"drf": _drf(naive)})
    finally:
        portal.stop()
    table.speed(
        "HTTP batches of 500, two clients", "the same append in one process", times["http"], times["alone"], 0.7
    )
    table.speed("HTTP batches of 500, two clients", "DRF serializer, bulk_create", times["http"], times["drf"], 3.0)


def _drf(producer: Producer) -> float:
    raws = [producer.batch(POSTED) for _ in range(REQUESTS)]
    return common.seconds(lambda: [_store_naively(raw) for raw in raws])


@transaction.atomic
def _store_naively(raw: bytes) -> None:
    serializer = NaiveSerializer(data=JSONParser().parse(io.BytesIO(raw)), many=True)
    serializer.is_valid(raise_exception=True)
    NaiveEvent.objects.bulk_create(NaiveEvent(**value) for value in serializer.validated_data)


def measure_bulk(table: common.Table) -> None:
    """Append, seal and projections of a batch: all that an event costs until it is found and proven."""
    producer = Producer(seed=7, expected=100_000)
    plain = Producer(seed=8, expected=100_000)
    seal()

    def whole() -> Mapping[str, float]:
        raw = producer.batch(BATCH)
        appended = common.seconds(lambda: services.append_alone(prepared(raw)))
        sealed = common.seconds(
            lambda: sealing.seal_once(signer=sealing.default_signer(), now=timezone.now(), most=BATCH)
        )
        return {"whole": appended + sealed, "appended": appended, "sealed": sealed}

    def bulk_create() -> Mapping[str, float]:
        items = [_naive(value) for value in orjson.loads(plain.batch(BATCH))]
        return {"plain": common.seconds(_bulk_create, items)}

    times = common.interleaved(OPTIONS.rounds, whole, bulk_create)
    name, baseline = "1,000 in bulk: append, seal, projections", "bulk_create of one plain model"
    table.cost(name, baseline, times["whole"], times["plain"])
    table.cost("  of it seal and projections", baseline, times["sealed"], times["plain"])


def _naive(value: dict[str, Any]) -> NaiveEvent:
    value = {name: part for name, part in value.items() if name != "v"}
    return NaiveEvent(**({"reason": ""} | value | {"event_id": uuid.UUID(value["event_id"])}))


@transaction.atomic
def _bulk_create(items: list[NaiveEvent]) -> None:
    NaiveEvent.objects.bulk_create(items)


def main() -> None:
    table = common.Table("Append")
    make_tables()
    measure_bulk(table)
    measure_batches(table)
    measure_http(table)
    table.note("django-pghistory, django-simple-history and django-auditlog are not installed: not compared")
    table.note("the sealer does not run beside the posted batches; DRF is measured in one process, without HTTP")
    table.finish(OPTIONS)


if __name__ == "__main__":
    main()
