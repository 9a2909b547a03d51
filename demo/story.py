"""Fills a fresh demo through the doors that everybody uses: the events API, the hooks and the forms of the pages.

Nothing is written behind the portal's back. Each step is noted when it is done, and each can be repeated, so a story
that was interrupted goes on at the next start.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import http.cookiejar
import json
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo import events

SAMPLES = Path(__file__).resolve().parent.parent / "tests" / "samples"
NOTIFICATIONS = ("03-push-manifest", "05-push-manifest", "06-push-tag", "07-push-tag", "25-push-manifest")
HOOKS = tuple(f"{number:03d}" for number in range(2, 15))  # rf-iris: three versions, their aliases and tags
BATCH = 500
PATIENCE_S = 60.0
KIT = "acme/rf-model-audit"


class StoryError(Exception):
    """The portal answered otherwise than the story expects; it says which step."""


@dataclass(slots=True)
class Teller:
    """Talks to the portal as its users and their systems do. `secrets` is what setting up the demo gave out."""

    url: str
    secrets: dict[str, Any]
    browsers: dict[str, urllib.request.OpenerDirector] = field(default_factory=dict)

    def post_json(self, path: str, body: bytes, headers: dict[str, str]) -> Any:  # noqa: ANN401 -- any JSON
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def browser(self, person: str) -> urllib.request.OpenerDirector:
        """The person's browser, signed in."""
        if person not in self.browsers:
            jar = http.cookiejar.CookieJar()
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
            self.browsers[person] = opener
            self.submit(person, "/account/login/", login=person, password=self.secrets["password"])
        return self.browsers[person]

    def read(self, person: str, path: str) -> str:
        with self.browser(person).open(self.url + path, timeout=60) as answer:
            return str(answer.read().decode())

    def submit(self, person: str, path: str, *, page: str = "", **fields: str) -> str:
        """Fills in and sends a form; the address of the page that answers. Refusals (409) are answers too."""
        opener = self.browsers.get(person) or self.browser(person)
        form = opener.open(self.url + (page or path), timeout=60).read().decode()
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))
        data = urllib.parse.urlencode({**hidden, **fields}).encode()
        request = urllib.request.Request(self.url + path, data, {"Referer": self.url + (page or path)})
        try:
            with opener.open(request, timeout=60) as answer:
                return str(answer.geturl())
        except urllib.error.HTTPError as error:
            if error.code == 409:  # noqa: PLR2004 -- HTTP: the gate refused, which is part of the story
                return self.url + path
            raise StoryError(f"{path} answered {error.code}") from error

    def wait_for_event(self, query: str) -> None:
        """Until the timeline shows an event that matches."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if '<li class="ev' in self.read("erin", f"/timeline/?q={urllib.parse.quote(query)}"):
                return
            time.sleep(0.3)
        raise StoryError(f"no event for {query}")


def tell_events(teller: Teller, end: datetime) -> str:
    """Two weeks of pipelines, each source with its own token."""
    told = events.story(end)
    for source in sorted({item.source for item in told}):
        mine = [item.event for item in told if item.source == source]
        headers = {"Authorization": f"Bearer {teller.secrets['tokens'][source]}"}
        for start in range(0, len(mine), BATCH):
            teller.post_json("/api/v1/events", json.dumps(mine[start : start + BATCH]).encode(), headers)
    return f"{len(told)} events of {len({item.source for item in told})} pipelines"


def tell_registry(teller: Teller, _end: datetime) -> str:
    """A registry's notifications, byte for byte as one sent them."""
    headers = {
        "Authorization": f"Bearer {teller.secrets['tokens']['registry']}",
        "Content-Type": "application/vnd.docker.distribution.events.v1+json",
    }
    files = [next((SAMPLES / "oci" / "notifications").glob(f"{name}*.json")) for name in NOTIFICATIONS]
    for file in files:
        teller.post_json("/hooks/oci/", file.read_bytes(), headers)
    teller.wait_for_event(f"action:package source:registry subject:model_version:{KIT}:0.2.0")
    return f"{len(files)} registry notifications"


def tell_mlflow(teller: Teller, _end: datetime) -> str:
    """MLflow's deliveries: recorded bodies, signed now, since an old signature is refused."""
    for name in HOOKS:
        recorded = json.loads(next((SAMPLES / "mlflow" / "webhooks").glob(f"{name}_*.json")).read_text())
        body = recorded["body_raw"].encode()
        delivery = recorded["headers"]["X-MLflow-Delivery-Id"]
        now = str(int(time.time()))
        secret = teller.secrets["hook_secret"].encode()
        code = hmac.new(secret, f"{delivery}.{now}.".encode() + body, hashlib.sha256).digest()
        headers = {
            "X-MLflow-Delivery-Id": delivery,
            "X-MLflow-Timestamp": now,
            "X-MLflow-Signature": "v1," + base64.b64encode(code).decode(),
        }
        teller.post_json("/hooks/mlflow/", body, headers)
    teller.wait_for_event("action:register source:mlflow")
    return f"{len(HOOKS)} deliveries of MLflow"


def tell_reconciliation(teller: Teller, _end: datetime) -> str:
    """The run that finds the layer whose bytes are not the ones its name promises."""
    teller.submit("erin", "/reconciliation/start/", page="/reconciliation/")
    teller.wait_for_event("action:job.finished")
    teller.wait_for_event("action:finding.opened")
    return "a reconciliation, and what it found"


def _ask(teller: Teller, person: str, version: str, reason: str) -> str:
    label = f"{KIT}:{version}"
    # A step that was interrupted finds its request open.
    known = re.search(
        rf'href="(/approvals/[0-9a-f-]{{36}}/)"[^>]*>{re.escape(label)}<', teller.read(person, "/approvals/")
    )
    if known:
        return known[1]
    where = teller.submit(
        person,
        "/approvals/new/",
        page=f"/approvals/new/?version={urllib.parse.quote(label)}&environment=production",
        version=label,
        environment="production",
        reason=reason,
    )
    path = urllib.parse.urlsplit(where).path
    if not re.fullmatch(r"/approvals/[0-9a-f-]{36}/", path):
        raise StoryError(f"asking for {label} led to {path}")
    return path


def _sign(teller: Teller, person: str, path: str, intent: str, **fields: str) -> None:
    teller.submit(person, f"{path}{intent}/", page=path, password=teller.secrets["password"], **fields)


def tell_approvals(teller: Teller, _end: datetime) -> str:
    """One promotion approved by two people, one refused to its requester and blocked by the finding."""
    path = _ask(teller, "erin", "0.1.0", "First audited version of the iris model.")
    _sign(teller, "alice", path, "approve", meaning="reviewed and approved")
    _sign(teller, "carol", path, "approve", meaning="approved as risk owner")
    teller.wait_for_event("action:promote environment:production model:" + KIT)
    path = _ask(teller, "alice", "0.2.0", "Better accuracy: 0.9733 instead of 0.9667.")
    _sign(teller, "alice", path, "approve", meaning="approved for use")
    _sign(teller, "bob", path, "approve", meaning="reviewed and approved")
    teller.wait_for_event("action:approve outcome:refused")
    return "an approved and a refused promotion"


def tell_bundle(teller: Teller, _end: datetime) -> str:
    """The model's history as a bundle that proves itself."""
    teller.submit(
        "dave",
        "/bundles/new/",
        page=f"/bundles/new/?model={urllib.parse.quote(KIT)}",
        model=KIT,
        recipient="Dave Lindqvist",
        purpose="quarterly audit",
    )
    teller.wait_for_event(f"action:bundle.issued model:{KIT}")
    return "a signed audit bundle"


STEPS: dict[str, Callable[[Teller, datetime], str]] = {
    "events": tell_events,
    "registry": tell_registry,
    "mlflow": tell_mlflow,
    "reconciliation": tell_reconciliation,
    "approvals": tell_approvals,
    "bundle": tell_bundle,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo.story", description="Fills a fresh demo through the public doors.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--directory", type=Path, required=True, help="of demo.json, which setting up wrote")
    options = parser.parse_args()
    secrets = json.loads((options.directory / "demo.json").read_text())
    note = options.directory / "demo.done.json"
    state: dict[str, Any] = {"end": datetime.now(UTC).isoformat(), "done": []}
    if note.exists():
        state = json.loads(note.read_text())
    teller = Teller(options.url, secrets)
    for number, (name, step) in enumerate(STEPS.items(), start=1):
        if name in state["done"]:
            continue
        note.write_text(json.dumps(state))  # the end of the story stays, so that a repeated step tells the same
        try:
            told = step(teller, datetime.fromisoformat(state["end"]))
        except (StoryError, OSError, ValueError) as error:
            print(f"demo data: step {name} failed ({error}); the next start goes on there", file=sys.stderr)
            return 1
        state["done"].append(name)
        note.write_text(json.dumps(state))
        print(f"demo data {number}/{len(STEPS)}: {told}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
