"""The container of a bundle: a BagIt bag (RFC 8493) as a zip file or as the directory it unpacks to.

Nothing is extracted and no link is followed. What two programs could read differently is refused: names outside the
format, a name twice, local headers that differ from the central directory, bytes between or after the entries,
encryption, links, sizes beyond what is declared.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from .errors import CompletenessError, HashMismatchError, MalformedError, Name, malformed

MAX_FILES = 20_000  # a bundle of 100 million events has a third of it
MAX_RATIO = 200  # what holds digests deflates to a third; 1,000 is a bomb
MAX_TAG_BYTES = 16 * 1024 * 1024  # of a file that is read whole
MAX_LINE_BYTES = 4 * 1024 * 1024  # an event line: body and header as JSON text, both bounded
CHUNK = 1 << 20
BAGIT = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
MANIFEST, TAG_MANIFEST, INFO = "manifest-sha256.txt", "tagmanifest-sha256.txt", "bag-info.txt"
SIGNATURE = f"signatures/{TAG_MANIFEST}.p7s"
STATEMENT = "signatures/statement.intoto.json"
SUPPORT, BUNDLE, REPORT, CUSTODY = (
    "data/events/support.jsonl",
    "data/bundle.json",
    "data/report.html",
    "data/custody.jsonl",
)
TABLE = "data/events/events.csv"
REQUIRED = frozenset(
    {
        "bagit.txt", INFO, "README.txt", MANIFEST, TAG_MANIFEST, SIGNATURE, STATEMENT, SUPPORT, BUNDLE, REPORT, CUSTODY,
        "data/proofs/checkpoint-to.txt", "data/proofs/consistency.json", "data/proofs/completeness.json",
        "data/proofs/rotation.json",
    }
)  # fmt: skip
_SEGMENT = r"[a-z0-9][a-z0-9._-]*"
_NAME = re.compile(rf"README\.txt|{_SEGMENT}(/{_SEGMENT})*")
_LISTED = re.compile(
    r"bagit\.txt|bag-info\.txt|README\.txt|(tag)?manifest-sha256\.txt|verify\.(pyz|html)"
    r"|signatures/tagmanifest-sha256\.txt\.p7s(\.tsr)?|signatures/statement\.intoto\.json"
    r"|data/(bundle\.json|report\.(html|pdf)|custody\.jsonl)"
    r"|data/events/(events-[0-9]{5}\.jsonl|support\.jsonl|events\.csv)"
    r"|data/approvals/(0|[1-9][0-9]*)/"
    r"(statement\.json|client-data\.json|auth-data\.bin|signature\.der|key\.pem|printed-name\.json)"
    r"|data/artifacts/[0-9a-f]{64}"
    r"|data/proofs/(checkpoint-(from|to)\.txt|(consistency|completeness|rotation)\.json|inclusion-[0-9]{5}\.json)"
    rf"|data/keys/{_SEGMENT}|data/standards/{_SEGMENT}"
)
_MANIFEST_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
_OXUM = re.compile(r"^Payload-Oxum: (0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,9})$", re.MULTILINE)
_LOCAL = struct.Struct("<4s5H3L2H")  # APPNOTE 4.3.7
_END_BYTES, _END_MAGIC = 22, b"PK\x05\x06"
_DESCRIPTOR_BYTES = (12, 16, 20, 24)  # with and without signature, 32 or 64 bits (APPNOTE 4.3.9)
_ENCRYPTED, _DESCRIBED, _UTF8 = 0x1, 0x8, 0x800
_ALLOWED_FLAGS = _DESCRIBED | _UTF8 | 0x6  # and the two bits that name a deflate level


class Bag(ABC):
    """The files of a bundle by name, each with the size its container declares."""

    sizes: Mapping[str, int]

    @abstractmethod
    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """The file's bytes as a stream.

        Raises:
            MalformedError: there is no such file, or it cannot be read as declared.
        """

    def read(self, name: str, *, most: int = MAX_TAG_BYTES) -> bytes:
        """The whole file.

        Raises:
            MalformedError: missing, unreadable, or longer than `most`.
        """
        if self.sizes.get(name, 0) > most:
            raise malformed(name, f"at most {most} bytes", self.sizes[name])
        with self.open(name) as file:
            raw = file.read(most + 1)
        if len(raw) > most:
            raise malformed(name, f"at most {most} bytes", len(raw))
        return raw

    def digest(self, name: str) -> str:
        """Hex SHA-256 of the file.

        Raises:
            MalformedError: as `open`.
        """
        found = hashlib.sha256()
        with self.open(name) as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
        return found.hexdigest()

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of the file without their line feeds, one at a time.

        Raises:
            MalformedError: a line without an end, an empty one, or one beyond `MAX_LINE_BYTES`.
        """
        with self.open(name) as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if not line.endswith(b"\n") or len(line) == 1:
                    place = f"{name} line {number}"
                    raise malformed(place, f"text of at most {MAX_LINE_BYTES} bytes and a line feed", len(line))
                yield line[:-1]


def check_names(names: list[str]) -> None:
    """The names are of the format, each once, and none is required and missing.

    Raises:
        MalformedError: a name that no bundle may hold, or one twice.
        CompletenessError: UNLISTED_FILE.
        HashMismatchError: MANIFEST, a required file is missing.
    """
    if len(names) > MAX_FILES:
        raise malformed("bundle", f"at most {MAX_FILES} files", len(names))
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise malformed("bundle", "names of the format", name)
    name, times = Counter(names).most_common(1)[0] if names else ("", 0)
    if times > 1:
        raise malformed("bundle", "each name once", name)
    for name in names:
        if _LISTED.fullmatch(name) is None:
            raise CompletenessError(Name.UNLISTED_FILE, name, "only files of the format", "this one")
    for name in sorted(REQUIRED - set(names)):
        raise HashMismatchError(Name.MANIFEST, name, "this file", "none")


class DirectoryBag(Bag):
    """A bundle that somebody has unpacked."""

    def __init__(self, root: Path) -> None:
        """Lists the files; links and special files are refused, empty directories mean nothing."""
        self._root = root
        self.sizes = dict(self._walk(root, ""))
        check_names(list(self.sizes))

    def _walk(self, directory: Path, prefix: str) -> Iterator[tuple[str, int]]:
        try:
            with os.scandir(directory) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise malformed(prefix or "bundle", "a directory that can be read", error.strerror) from None
        for entry in entries:
            name = prefix + entry.name
            state = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(state.st_mode):
                yield from self._walk(directory / entry.name, name + "/")
            elif stat.S_ISREG(state.st_mode):
                yield name, state.st_size
            else:
                raise malformed(
                    os.fsencode(name).decode("ascii", "backslashreplace"), "a plain file", "a link or device"
                )

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """As `Bag.open`; a link put there since is not followed."""
        if name not in self.sizes:
            raise malformed(name, "this file", "none")
        try:
            descriptor = os.open(self._root / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError as error:
            raise malformed(name, "a plain file", error.strerror) from None
        with os.fdopen(descriptor, "rb") as file:
            yield file


class ZipBag(Bag):
    """A bundle as it was handed out."""

    def __init__(self, file: BinaryIO) -> None:
        """Reads and checks the directory of the zip; nothing is unpacked."""
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error, OverflowError) as error:
            raise malformed("bundle", "a zip file", str(error)) from None
        self._file = file
        infos = self._zip.infolist()
        for info in infos:
            _check_entry(info)
        self.sizes = {info.filename: info.file_size for info in infos}
        check_names([info.filename for info in infos])
        self._check_layout(infos)

    def _check_layout(self, infos: list[zipfile.ZipInfo]) -> None:
        """The entries lie one behind the other from the first byte on, and the directory ends the file."""
        position, is_described = 0, False
        for info in sorted(infos, key=lambda item: item.header_offset):
            self._check_gap(info.header_offset - position, is_described=is_described)
            position = info.header_offset + self._check_local(info) + info.compress_size
            is_described = bool(info.flag_bits & _DESCRIBED)
        start: int = self._zip.start_dir
        self._check_gap(start - position, is_described=is_described)
        self._file.seek(-_END_BYTES, os.SEEK_END)
        end = self._file.read(_END_BYTES)
        if not end.startswith(_END_MAGIC) or end[-2:] != b"\x00\x00":
            raise malformed("bundle", "nothing after the directory", end)

    @staticmethod
    def _check_gap(gap: int, *, is_described: bool) -> None:
        if gap and not (is_described and gap in _DESCRIPTOR_BYTES):
            raise malformed("bundle", "entries one behind the other, without bytes between them", gap)

    def _check_local(self, info: zipfile.ZipInfo) -> int:
        """The local header says what the directory says; its length."""
        self._file.seek(info.header_offset)
        raw = self._file.read(_LOCAL.size)
        if len(raw) != _LOCAL.size or not raw.startswith(b"PK\x03\x04"):
            raise malformed(info.filename, "a local header", raw)
        _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(raw)
        name, extra = self._file.read(name_length), self._file.read(extra_length)
        packed, size = _wide(extra, packed, size)
        told = (info.CRC, info.compress_size, info.file_size)
        is_later = bool(flags & _DESCRIBED) and (crc, packed, size) == (0, 0, 0)
        same = (name, flags, method) == (info.filename.encode(), info.flag_bits, info.compress_type)
        if not same or not (is_later or (crc, packed, size) == told):
            raise malformed(info.filename, "a local header as the directory says", name)
        return int(_LOCAL.size + name_length + extra_length)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """As `Bag.open`; the size and checksum that were declared are what is read."""
        if name not in self.sizes:
            raise malformed(name, "this file", "none")
        try:
            with self._zip.open(name) as file:
                yield file
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise malformed(name, "content as declared", str(error)) from None


def _wide(extra: bytes, packed: int, size: int) -> tuple[int, int]:
    """Sizes of a local header, taken from its zip64 field where they stand there (APPNOTE 4.5.3)."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1 and length == 16 and (packed, size) == (0xFFFFFFFF, 0xFFFFFFFF):  # noqa: PLR2004 -- two of 64 bits
            size, packed = struct.unpack_from("<QQ", extra.ljust(at + 20), at + 4)
        at += 4 + length
    return packed, size


def _check_entry(info: zipfile.ZipInfo) -> None:
    mode = info.external_attr >> 16
    if info.orig_filename != info.filename or info.is_dir():
        raise malformed("bundle", "names of files", info.orig_filename)
    if mode and not stat.S_ISREG(mode):
        raise malformed(info.filename, "a plain file", oct(mode))
    if info.flag_bits & ~_ALLOWED_FLAGS or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise malformed(info.filename, "stored or deflated, not encrypted", hex(info.flag_bits))
    if info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise malformed(info.filename, f"at most {MAX_RATIO} times its packed size", info.file_size)


def open_bag(path: Path, file: BinaryIO | None) -> Bag:
    """The bundle at this path: a directory, or the opened zip file.

    Raises:
        ProofError: MALFORMED, UNLISTED_FILE or MANIFEST.
    """
    return DirectoryBag(path) if file is None else ZipBag(file)


def parse_manifest(raw: bytes, place: str) -> dict[str, str]:
    """Digests by name, as BagIt lists them: ascending here, so that there is one spelling.

    Raises:
        MalformedError: otherwise.
    """
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise malformed(place, "ASCII", raw) from None
    found: dict[str, str] = {}
    if not text.endswith("\n"):
        raise malformed(place, "lines that end in a line feed", raw[-20:])
    for line in text[:-1].split("\n"):
        match = _MANIFEST_LINE.fullmatch(line)
        if match is None or _NAME.fullmatch(match[2]) is None:
            raise malformed(place, "a digest, two spaces and a name of the format", line)
        if match[2] in found:
            raise malformed(place, "each name once", match[2])
        found[match[2]] = match[1]
    if list(found) != sorted(found):
        raise malformed(place, "names in order", "another order")
    return found


def check_manifests(bag: Bag) -> list[MalformedError | HashMismatchError | CompletenessError]:
    """Every fault of the two manifests against the files; none when each file is what its manifest says."""
    faults: list[MalformedError | HashMismatchError | CompletenessError] = []
    payload = {name for name in bag.sizes if name.startswith("data/")}
    tags = {name for name in bag.sizes if "/" not in name and name != TAG_MANIFEST}
    try:
        if bag.read("bagit.txt") != BAGIT:
            raise malformed("bagit.txt", "BagIt 1.0 in UTF-8", bag.read("bagit.txt"))
        listed = [
            (MANIFEST, parse_manifest(bag.read(MANIFEST), MANIFEST), payload),
            (TAG_MANIFEST, parse_manifest(bag.read(TAG_MANIFEST), TAG_MANIFEST), tags),
        ]
    except (MalformedError, HashMismatchError) as error:
        return [error]
    for manifest, digests, present in listed:
        faults += [
            CompletenessError(Name.UNLISTED_FILE, name, f"a line in {manifest}", "none")
            for name in sorted(present - digests.keys())
        ]
        for name, digest in digests.items():
            try:
                found = bag.digest(name) if name in present else "no such file"
            except MalformedError as error:
                faults.append(error)
                continue
            if found != digest:
                faults.append(HashMismatchError(Name.MANIFEST, name, digest, found))
    if not faults:
        try:
            _check_oxum(bag, payload)
        except (MalformedError, HashMismatchError) as error:
            faults.append(error)
    return faults


def _check_oxum(bag: Bag, payload: set[str]) -> None:
    match = _OXUM.search(bag.read(INFO).decode("utf-8", "replace"))
    declared = (int(match[1]), int(match[2])) if match else None
    found = (sum(bag.sizes[name] for name in payload), len(payload))
    if declared != found:
        raise HashMismatchError(Name.MANIFEST, INFO, f"Payload-Oxum: {found[0]}.{found[1]}", str(declared))
