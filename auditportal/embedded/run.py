"""`bin/run`: from nothing to a portal that answers, and back to nothing running at Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from auditportal.embedded import environment
from auditportal.embedded.engines import Endpoints, Engines
from auditportal.embedded.environment import ROOT
from auditportal.embedded.places import EngineError
from auditportal.embedded.processes import Process

PORT = 8000
DEMO_PORT = 8090
PORTS_TRIED = 100
READY_S = 120.0
STOPPING_S = 30.0
OUTSIDE = ("DATABASE_URL", "REDIS_URL")
DEMO_PEOPLE = (
    "alice and bob (leads), carol (compliance), dave (auditor), erin (engineer), frank (admin), mallory (no role)"
)


class Stopped(Exception):  # noqa: N818 -- a signal, not an error
    """SIGINT or SIGTERM came."""


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    data = (options.data or environment.default_data()).absolute()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        with _alone(data):
            if options.fresh:
                _forget(data)
            return _run(data, port=options.port, demo=options.demo)
    except Stopped:
        return 0
    except EngineError as error:
        print(f"bin/run: {error}", file=sys.stderr)
        return 1


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/run", description="Starts the whole portal, with its own PostgreSQL and Valkey and demo data."
    )
    parser.add_argument("--port", type=int, default=PORT, help="of the web server (8000; a busy one is replaced)")
    parser.add_argument("--data", type=Path, help="directory of this instance (var, beside manage.py)")
    parser.add_argument("--fresh", action="store_true", help="forget the instance's data and begin anew")
    parser.add_argument(
        "--no-demo", dest="demo", action="store_false", help="an empty log, without demo people and data"
    )
    return parser.parse_args(arguments)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """One `bin/run` a data directory.

    Raises:
        EngineError: another one runs; says where.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data / "run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            url = environment.read(environment.path_for(data)).get("AUDITPORTAL_URL", "")
            raise EngineError(
                f"this portal runs already at {url} (data in {data}); stop it first, or use --data"
            ) from None
        yield


def _forget(data: Path) -> None:
    """The instance's data, keys and env file are gone; nothing else is."""
    _end_left_processes(data)
    Engines(data).remove()
    shutil.rmtree(data / "portal", ignore_errors=True)
    environment.path_for(data).unlink(missing_ok=True)


def _run(data: Path, *, port: int, demo: bool) -> int:
    _end_left_processes(data)
    engines = None if any(os.environ.get(name) for name in OUTSIDE) else Engines(data)
    try:
        endpoints = _start_engines(engines, data)
        chosen = _free_port(port)
        file = environment.path_for(data)
        demo_port = _demo_port(environment.read(file), chosen) if demo else 0
        values = environment.write(file, data=data, port=chosen, demo=demo, endpoints=endpoints, demo_port=demo_port)
        variables = os.environ | {"AUDITPORTAL_ENV_FILE": str(file), "PYTHONUNBUFFERED": "1"}
        _prepare(data, variables)
        _serve(data, values, variables, chosen)
    finally:
        # A second Ctrl-C must not leave the database running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if engines is not None:
            _say("stopping the database")
            engines.stop()
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _start_engines(engines: Engines | None, data: Path) -> Endpoints | None:
    if engines is None:
        missing = [name for name in ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL") if not os.environ.get(name)]
        if missing:
            raise EngineError(f"{', '.join(missing)} must be set too when one of them is")
        _say("database and queue: yours, from DATABASE_URL and REDIS_URL")
        return None
    _say(f"database and queue: embedded, data in {data}")
    return engines.start()


def _free_port(wanted: int) -> int:
    """The port, or the next free one; probed by binding, since two servers can share a port unnoticed."""
    for port in range(wanted, wanted + PORTS_TRIED):
        if _is_free(port):
            if port != wanted:
                _say(f"port {wanted} is busy, using {port}")
            return port
    raise EngineError(f"no free port from {wanted} on; choose one with --port")


def _demo_port(values: Mapping[str, str], web_port: int) -> int:
    """Where the demo's registry listens: as before, so that its address stays, unless somebody took it."""
    before = int(values.get("AUDITPORTAL_DEMO_PORT") or 0)
    if before and before != web_port and _is_free(before):
        return before
    for port in range(DEMO_PORT, DEMO_PORT + PORTS_TRIED):
        if port != web_port and _is_free(port):
            return port
    raise EngineError(f"no free port from {DEMO_PORT} on for the demo's registry")


def _is_free(port: int) -> bool:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address, port))
        except OSError as error:
            if family == socket.AF_INET6 and error.errno not in (98, 48):  # EADDRINUSE on Linux and macOS
                continue  # a machine without IPv6
            return False
    return True


def _prepare(data: Path, variables: Mapping[str, str]) -> None:
    """Tables, static files, in a fresh demo its people, and a first verification of the log."""
    _manage(variables, "setup_database")
    _manage(variables, "setup_signing")
    digest = _static_digest()
    note = data / "portal" / "static.sha256"
    if not note.exists() or note.read_text() != digest:
        _manage(variables, "collectstatic", "--noinput", "--clear", "--verbosity", "0")
        note.write_text(digest)
    _manage(variables, "setup_demo")
    try:
        _manage(variables, "verify_ledger", "--quiet")
    except EngineError:
        _say("the log does not prove itself; the portal starts and says so on every page")


def _static_digest() -> str:
    found = hashlib.sha256()
    for path in sorted((ROOT / "static").rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    found.update((ROOT / "requirements.lock").read_bytes())
    return found.hexdigest()


def _manage(variables: Mapping[str, str], *arguments: str) -> None:
    done = subprocess.run([sys.executable, str(ROOT / "manage.py"), *arguments], env=dict(variables), check=False)
    if done.returncode != 0:
        raise EngineError(f"manage.py {arguments[0]} failed; its message stands above")


def _serve(data: Path, values: Mapping[str, str], variables: Mapping[str, str], port: int) -> None:
    """The four processes run under supervisor until a signal comes or supervisor ends."""
    config = _write_supervisor_config(data, port, values)
    command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-s", "-c", str(config)]
    child = subprocess.Popen(command, env=dict(variables), cwd=ROOT, start_new_session=True)
    process = Process.of(child.pid)
    (data / "supervisor.note").write_text(json.dumps([child.pid, process.started if process else ""]))  # noqa: TID251 -- a note to ourselves
    try:
        _await_ready(port, child)
        _tell_story(values, variables)
        _announce(values)
        child.wait()
        raise EngineError(f"the portal's processes ended; see {data / 'log'}")
    finally:
        if child.poll() is None:
            _say("\nstopping the portal")
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(STOPPING_S)
            if child.poll() is None:
                child.kill()
        (data / "supervisor.note").unlink(missing_ok=True)


def _await_ready(port: int, child: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if child.poll() is not None:
            raise EngineError("supervisor ended at once; its message stands above")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                if answer.status == 200:  # noqa: PLR2004 -- HTTP
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise EngineError("the portal does not answer; see the log directory of its data")


def _tell_story(values: Mapping[str, str], variables: Mapping[str, str]) -> None:
    """In a demo the portal is filled through its public doors; what was told before is not told again."""
    if values.get("AUDITPORTAL_DEMO") != "1":
        return
    command = [sys.executable, "-m", "demo.story", "--url", values["AUDITPORTAL_URL"]]
    command += ["--directory", values["AUDITPORTAL_DATA"]]
    subprocess.run(command, env=dict(variables), cwd=ROOT, check=False)


def _announce(values: Mapping[str, str]) -> None:
    _say(f"\nAuditPortal runs at {values['AUDITPORTAL_URL']}")
    if values.get("AUDITPORTAL_DEMO") == "1":
        _say(f"sign in as {DEMO_PEOPLE}\npassword of all of them: {values['AUDITPORTAL_DEMO_PASSWORD']}")
    _say("Ctrl-C stops everything")


def _write_supervisor_config(data: Path, port: int, values: Mapping[str, str]) -> Path:
    logs = data / "log"
    logs.mkdir(exist_ok=True)
    python = sys.executable
    bin_directory = Path(python).parent
    web = [str(bin_directory / "granian"), "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)]
    web += [
        "--workers",
        "2",
        "--blocking-threads",
        "8",
        "--respawn-failed-workers",
        "--no-ws",
        "auditportal.wsgi:application",
    ]
    programs = {
        "web": web,
        "sealer": [python, str(ROOT / "manage.py"), "run_sealer"],
        "worker": [
            python,
            "-m",
            "celery",
            "-A",
            "auditportal",
            "worker",
            "--loglevel",
            "WARNING",
            "--concurrency",
            "2",
        ],
        "beat": [python, "-m", "celery", "-A", "auditportal", "beat", "--loglevel", "WARNING", "--pidfile="],
    }
    if values.get("AUDITPORTAL_DEMO") == "1":
        programs["demo"] = [python, "-m", "demo.server", "--port", values["AUDITPORTAL_DEMO_PORT"]]
    files = f"logfile={_plain(logs / 'supervisor.log')}\npidfile={_plain(data / 'supervisor.pid')}\n"
    sections = [f"[supervisord]\n{files}childlogdir={_plain(logs)}\nnodaemon=true\n"]
    for name, command in programs.items():
        sections.append(
            f"[program:{name}]\ncommand={_plain(shlex.join(command))}\ndirectory={_plain(ROOT)}\nautorestart=true\n"
            f"startsecs=1\nstartretries=1000000\nstopwaitsecs=20\nstopasgroup=true\nkillasgroup=true\n"
            f"redirect_stderr=true\nstdout_logfile={_plain(logs / name)}.log\nstdout_logfile_maxbytes=10MB\n"
        )
    path = data / "supervisor.conf"
    path.write_text("\n".join(sections))
    return path


def _plain(text: object) -> str:
    return str(text).replace("%", "%%")  # supervisor expands %(name)s


def _end_left_processes(data: Path) -> None:
    """After a kill -9 of an earlier `bin/run` its processes go on: they are ended before new ones start."""
    note = data / "supervisor.note"
    try:
        pid, started = json.loads(note.read_text())
    except (OSError, ValueError):
        return
    left = Process(int(pid), str(started))
    if left.is_alive():
        _say("ending what an earlier start left running")
        left.end(STOPPING_S)
    note.unlink(missing_ok=True)
