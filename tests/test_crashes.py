"""kill -9 of web, worker and sealer while events arrive: nothing acknowledged is lost, nothing doubled, all of it proves itself."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import uuid

import pytest
from django.utils import timezone

from auditportal.accounts import services as accounts
from auditportal.ledger import sealing, verification
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Checkpoint, Entry
from auditportal.ledger.queries import wait_for_checkpoint
from tests.portal import Portal

ROUNDS = 3
SENDERS = 4


class Producer(threading.Thread):
    """Sends events until it is told to stop; repeats each until it is acknowledged, as producers should."""

    def __init__(self, port: int, token: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.token, self.stop_asked = port, token, stop
        self.acknowledged: dict[str, int] = {}
        self.refused: list[str] = []

    def run(self) -> None:
        while not self.stop_asked.is_set():
            event_id = str(uuid.uuid4())
            body = {
                "event_id": event_id,
                "action": "train",
                "subject": f"run:{event_id}",
                "timestamp": "2026-11-20T12:00:00Z",
            }
            seq = None
            while seq is None:
                seq = self.send(json.dumps(body))
            self.acknowledged[event_id] = seq

    def send(self, body: str) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request("POST", "/api/v1/events", body, headers)
            answer = connection.getresponse()
            document = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            time.sleep(0.05)
            return None
        finally:
            connection.close()
        if answer.status in (200, 201):
            return int(document["seq"])
        if answer.status != 503:
            self.refused.append(f"{answer.status} {document}")
        return None


@pytest.fixture
def running(committed, tmp_path):
    portal = Portal(tmp_path)
    try:
        yield portal.start("worker")
    finally:
        portal.stop()


def test_nothing_acknowledged_is_lost_when_processes_are_killed(running):
    _, token = accounts.issue_token(
        name="ci", source_id="ci", scopes=["events:write"], actor=SYSTEM, now=timezone.now()
    )
    stop = threading.Event()
    producers = [Producer(running.port, token, stop) for _ in range(SENDERS)]
    for producer in producers:
        producer.start()
    chance = random.Random(7)
    for _ in range(ROUNDS):
        for name in ("sealer", "worker", "web"):
            time.sleep(chance.uniform(0.3, 0.8))
            running.kill(name)
            running.spawn(name)
        running.wait()
    stop.set()
    for producer in producers:
        producer.join(60)
    acknowledged = {event_id: seq for producer in producers for event_id, seq in producer.acknowledged.items()}
    assert [producer.refused for producer in producers] == [[]] * SENDERS
    assert len(acknowledged) > ROUNDS * SENDERS
    recorded = {
        str(event_id): seq for event_id, seq in Entry.objects.filter(source="ci").values_list("event_id", "seq")
    }
    assert acknowledged.items() <= recorded.items()
    assert len(set(recorded.values())) == len(recorded)
    last = max(recorded.values())
    assert wait_for_checkpoint(last, timeout_s=30)
    run = verification.verify_log(signer=sealing.default_signer(), now=timezone.now, progress=lambda *_: None)
    assert (run.failure, run.size) == ("", Entry.objects.count())
    assert Checkpoint.objects.order_by("-size").first().size == run.size


def test_web_worker_that_dies_is_replaced(running):
    import os
    import signal
    import subprocess

    parent = running.processes["web"].pid
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    ).stdout.split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    time.sleep(1)
    running.wait()
    assert running.processes["web"].poll() is None
