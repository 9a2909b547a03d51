"""A BagIt bag written as one zip, file by file, in constant memory (FORMAT.md §8).

The same files give the same bytes before compression: names, order, times and attributes are fixed.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from auditproof import bags

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
PLAIN_FILE = 0o100644 << 16
UNIX = 3
LEVEL = 6


def entry(name: str) -> zipfile.ZipInfo:
    """A zip entry that says nothing of when and where it was made."""
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system, info.external_attr = UNIX, PLAIN_FILE
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


class Output:
    """A file being written, hashed and counted on its way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, raw: bytes) -> None:
        self._file.write(raw)
        self._hash.update(raw)
        self.size += len(raw)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class Archive:
    """Knows the digest of every file written, so that the manifests can come last."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL)
        self.digests: dict[str, str] = {}
        self.payload_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    @contextmanager
    def open(self, name: str) -> Iterator[Output]:
        with self._zip.open(entry(name), "w", force_zip64=True) as file:
            output = Output(file)
            yield output
        self.digests[name] = output.hexdigest()
        if name.startswith("data/"):
            self.payload_bytes += output.size

    def write(self, name: str, raw: bytes) -> None:
        with self.open(name) as output:
            output.write(raw)

    def finish(self, info: str) -> bytes:
        """Writes `bag-info.txt` and both manifests; the tag manifest, whose digest is the bundle's identity."""
        payload = sorted(name for name in self.digests if name.startswith("data/"))
        self.write(bags.INFO, f"{info}Payload-Oxum: {self.payload_bytes}.{len(payload)}\n".encode())
        self.write(bags.MANIFEST, self._manifest(payload))
        tags = self._manifest(sorted(name for name in self.digests if not name.startswith("data/")))
        self.write(bags.TAG_MANIFEST, tags)
        return tags

    def _manifest(self, names: list[str]) -> bytes:
        return "".join(f"{self.digests[name]}  {name}\n" for name in names).encode()
