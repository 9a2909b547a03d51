"""Processes by id and start time, so that an id that was given anew is never taken for ours."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    started: str  # as the system tells it; opaque

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The living process with this id."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    def is_alive(self) -> bool:
        return _start_time(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, patience_s: float) -> bool:
        """True once it has ended."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            if not self.is_alive():
                return True
            time.sleep(POLL_S)
        return not self.is_alive()

    def end(self, patience_s: float, first: signal.Signals = signal.SIGTERM) -> None:
        """It has ended afterwards: asked first, then killed."""
        self.send(first)
        if not self.wait(patience_s):
            self.send(signal.SIGKILL)
            self.wait(patience_s)


def _start_time(pid: int) -> str | None:
    """From /proc on Linux, from ps elsewhere; a zombie has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123 -- /proc is no place for Path objects
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if os.path.exists("/proc/self/stat"):  # noqa: PTH110 -- as above
        return None
    done = subprocess.run(["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
