"""`bin/run` and `bin/test` as people type them, from start to Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.portal import free_port

ROOT = Path(__file__).parents[1]
OWN = ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL")


def environment(**changes):
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("AUDITPORTAL_") and name not in OWN
    }
    return kept | {"AUDITPORTAL_VENV": str(Path(sys.executable).parents[1])} | changes


class Run:
    """`bin/run` in the background, its words in a file."""

    def __init__(self, data, *options, port=None):
        self.data, self.port = data, port or free_port()
        self.words = data.parent / f"{data.name}.out"
        command = [str(ROOT / "bin" / "run"), "--data", str(data), "--port", str(self.port), *options]
        with self.words.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd="/", env=environment(), stdout=out, stderr=out, start_new_session=True
            )

    def said(self):
        return self.words.read_text()

    def wait_for(self, word, seconds=90):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if word in self.said():
                return
            assert self.process.poll() is None, self.said()
            time.sleep(0.1)
        raise AssertionError(self.said())

    def healthy(self):
        url = re.search(r"runs at (http://localhost:\d+)", self.said())[1]
        with urllib.request.urlopen(f"{url.replace('localhost', '127.0.0.1')}/healthz", timeout=10) as answer:
            return answer.status == 200

    def end(self, number=signal.SIGINT):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


def of_instance(data):
    """Processes that name this data directory, but for pytest itself."""
    found = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if str(data) in line and "-m pytest" not in line]


@pytest.fixture
def data(tmp_path):
    directory = tmp_path / "an instance"
    yield directory
    from auditportal.embedded import run
    from auditportal.embedded.engines import Engines

    run._end_left_processes(directory)
    Engines(directory).remove()


def test_whole_portal_starts_twice_and_leaves_nothing_behind(data):
    first = Run(data)
    first.wait_for("Ctrl-C stops everything")
    assert first.healthy()
    assert "password of all of them" in first.said()
    assert (data / ".env").stat().st_mode & 0o777 == 0o600
    second = Run(data)
    assert second.process.wait(60) == 1
    assert f"runs already at http://localhost:{first.port}" in second.said()
    assert first.end() == 0
    assert of_instance(data) == []
    again = Run(data)
    again.wait_for("Ctrl-C stops everything")
    assert "goes on" in again.said()
    assert "people made" not in again.said()
    assert again.healthy()
    assert again.end(signal.SIGTERM) == 0
    assert of_instance(data) == []


def test_killed_start_is_cleaned_up_by_the_next_and_nothing_is_lost(data):
    first = Run(data, "--no-demo")
    first.wait_for("Ctrl-C stops everything")
    assert "password" not in first.said()
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    assert of_instance(data) != []
    second = Run(data, "--no-demo")
    second.wait_for("Ctrl-C stops everything")
    assert "ending what an earlier start left running" in second.said()
    assert "goes on" in second.said()
    assert second.healthy()
    assert second.end() == 0
    assert of_instance(data) == []


def children_of(data):
    """The portal's processes under supervisor, by what they are."""
    pid = json.loads((data / "supervisor.note").read_text())[0]
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=True
    )
    marks = {"bin/granian": "web", "run_sealer": "sealer", "auditportal worker": "worker", "auditportal beat": "beat"}
    found: dict[str, int] = {}
    for line in listed.stdout.splitlines():
        number, _, command = line.strip().partition(" ")
        found |= {name: int(number) for mark, name in marks.items() if mark in command}
    return found


def all_children(data, names):
    """As `children_of`, once all of these are there."""
    until = time.monotonic() + 90
    while True:
        found = children_of(data)
        if set(names) <= set(found):
            return found
        assert time.monotonic() < until, found
        time.sleep(0.1)


def test_processes_killed_one_after_the_other_come_back_by_themselves(data):
    started = Run(data, "--no-demo")
    started.wait_for("Ctrl-C stops everything")
    names = ("web", "worker", "sealer", "beat")
    before = all_children(data, names)
    for name in names:
        os.killpg(before[name], signal.SIGKILL)
        after = all_children(data, names)
        while after[name] == before[name]:
            after = all_children(data, names)
        before = after
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            assert started.healthy()
            break
        except OSError:
            time.sleep(0.2)
    assert started.healthy()
    assert started.end() == 0
    assert of_instance(data) == []


def test_busy_port_is_replaced_and_said(data):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        started = Run(data, "--no-demo", port=port)
        started.wait_for("Ctrl-C stops everything")
        assert f"port {port} is busy" in started.said()
        assert started.healthy()
    assert started.end() == 0


def test_own_engines_need_all_their_addresses(data):
    done = subprocess.run(
        [str(ROOT / "bin" / "run"), "--data", str(data)], env=environment(DATABASE_URL="postgresql://x@y/z"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "DATABASE_OWNER_URL, REDIS_URL must be set too" in done.stderr


def test_help_and_wrong_options():
    done = subprocess.run(
        [str(ROOT / "bin" / "run"), "--help"], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    for option in ("--port", "--data", "--fresh", "--no-demo"):
        assert option in done.stdout
    assert (
        subprocess.run(
            [str(ROOT / "bin" / "run"), "--x"], env=environment(), capture_output=True, check=False
        ).returncode
        == 2
    )


@pytest.mark.parametrize("script", ["bin/run", "bin/test", "bin/common.sh", ".ci/run"])
def test_scripts_are_plain_sh(script):
    subprocess.run(["sh", "-n", str(ROOT / script)], check=True)


def test_too_old_a_python_is_refused_in_one_line(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/bin:/usr/bin", "AUDITPORTAL_PYTHON": "python3", "HOME": str(tmp_path)}
    copy = tmp_path / "checkout"
    (copy / "bin").mkdir(parents=True)
    for name in ("run", "common.sh"):
        (copy / "bin" / name).write_bytes((ROOT / "bin" / name).read_bytes())
    done = subprocess.run(["sh", str(copy / "bin" / "run")], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Python 3.11, 3.12 or 3.13 is needed" in done.stderr


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"AUDITPORTAL_DEBUG": "1"}, "AUDITPORTAL_DEBUG"),
        ({"AUDITPORTAL_DEMO": "1"}, "AUDITPORTAL_DEMO"),
        ({"AUDITPORTAL_SECRET_KEY": ""}, "AUDITPORTAL_SECRET_KEY"),
        ({"AUDITPORTAL_SECRET_KEY": "short"}, "AUDITPORTAL_SECRET_KEY"),
        ({"AUDITPORTAL_ORIGIN": ""}, "AUDITPORTAL_ORIGIN"),
        ({"AUDITPORTAL_ORIGIN": "demo.invalid/12345678"}, "AUDITPORTAL_ORIGIN"),
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"DATABASE_URL": "sqlite:///x"}, "DATABASE_URL"),
    ],
)
def test_production_refuses_what_must_not_be_there(change, word):
    good = {
        "AUDITPORTAL_MODE": "production",
        "AUDITPORTAL_SECRET_KEY": "k" * 40,
        "AUDITPORTAL_ORIGIN": "audit.example.org/ledger",
        "AUDITPORTAL_ENV_FILE": os.devnull,
        "DATABASE_URL": "postgresql://a:b@c/d",
    }

    def check(env):
        return subprocess.run(
            [sys.executable, "manage.py", "check"],
            cwd=ROOT,
            env=environment(**env),
            capture_output=True,
            text=True,
            check=False,
        )

    assert check(good).returncode == 0, check(good).stderr
    refused = check(good | change)
    assert refused.returncode != 0
    assert word in refused.stderr.splitlines()[-1]
