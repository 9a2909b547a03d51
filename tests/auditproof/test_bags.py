"""The container of a bundle: what two programs could read differently is refused before anything is believed."""

from __future__ import annotations

import io
import os
import struct
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from auditproof import bags
from auditproof.errors import ProofError

CONTENT = b'{"a": "content of some length, so that it deflates"}\n' * 3
EVENTS = "data/events/events-00000.jsonl"
NAMES = [*sorted(bags.REQUIRED), EVENTS]


def entry(name: str, *, mode: int = 0o100644, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr, info.compress_type = 3, mode << 16, method
    return info


def packed(*more: tuple[zipfile.ZipInfo, bytes], names: list[str] = NAMES) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(entry(name), CONTENT)
        for info, raw in more:
            archive.writestr(info, raw)
    return buffer.getvalue()


def opened(raw: bytes) -> bags.Bag:
    return bags.ZipBag(io.BytesIO(raw))


def refused(raw: bytes, name: str = "MALFORMED") -> None:
    with pytest.raises(ProofError) as caught:
        bag = opened(raw)
        for item in bag.sizes:
            bag.read(item)
    assert caught.value.name == name


def test_plain_bundle_is_read():
    bag = opened(packed())
    assert sorted(bag.sizes) == sorted(NAMES)
    assert bag.read(EVENTS) == CONTENT
    assert list(bag.lines(EVENTS)) == CONTENT.splitlines()


def test_streamed_zip_with_descriptors_is_read_too():
    class Sink(io.RawIOBase):
        def __init__(self) -> None:
            self.raw = b""

        def writable(self) -> bool:
            return True

        def write(self, raw) -> int:
            self.raw += bytes(raw)
            return len(raw)

    sink = Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in NAMES:
            with archive.open(entry(name), "w", force_zip64=True) as file:
                file.write(CONTENT)
    assert opened(sink.raw).read(EVENTS) == CONTENT


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/etc/passwd", "MALFORMED"),
        ("../evil", "MALFORMED"),
        ("data/../../evil", "MALFORMED"),
        ("data/./x", "MALFORMED"),
        ("data//x", "MALFORMED"),
        ("data\\events\\x", "MALFORMED"),
        ("c:/x", "MALFORMED"),
        ("data/keys/a b", "MALFORMED"),
        ("data/keys/LOG.vkey", "MALFORMED"),
        ("readme.txt", "UNLISTED_FILE"),
        ("Readme.txt", "MALFORMED"),
        ("data/keys/\u00e9", "MALFORMED"),
        (unicodedata.normalize("NFD", "data/keys/\u00e9"), "MALFORMED"),
        ("data/keys/x\u202e", "MALFORMED"),
        ("data/keys/", "MALFORMED"),
        ("data/keys/.x", "MALFORMED"),
        ("data/keys/-x", "MALFORMED"),
        ("verify-me.sh", "UNLISTED_FILE"),
        ("data/x.bin", "UNLISTED_FILE"),
        ("data/events/events-1.jsonl", "UNLISTED_FILE"),
        ("data/approvals/01/statement.json", "UNLISTED_FILE"),
        ("data/artifacts/abc", "UNLISTED_FILE"),
        ("signatures/x.p7s", "UNLISTED_FILE"),
    ],
)
def test_name_outside_the_format_is_refused(name, expected):
    info = entry("x")
    info.filename = name
    refused(packed((info, b"x")), expected)


def test_missing_file_of_the_format_is_named():
    refused(packed(names=[name for name in NAMES if name != "bagit.txt"]), "MANIFEST")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_name_twice_is_refused():
    refused(packed((entry(EVENTS), b"other")))


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o010644, 0o060644])
def test_links_directories_and_devices_are_refused(mode):
    refused(packed((entry("data/keys/x", mode=mode), b"/etc/passwd")))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressors_are_refused(method):
    refused(packed((entry("data/keys/x", method=method), CONTENT)))


def test_bomb_is_refused_before_it_is_read():
    refused(packed((entry("data/keys/x"), bytes(1_000_000))))


def edited(raw: bytes, at: int, new: bytes) -> bytes:
    return raw[:at] + new + raw[at + len(new) :]


def central(raw: bytes, name: str) -> int:
    """Where the central header of this name begins."""
    at = raw.rindex(name.encode())
    return at - 46


def local(raw: bytes, name: str) -> int:
    return raw.index(name.encode()) - 30


def test_encrypted_entry_is_refused():
    raw = packed()
    for at in (central(raw, EVENTS) + 8, local(raw, EVENTS) + 6):
        (flags,) = struct.unpack_from("<H", raw, at)
        raw = edited(raw, at, struct.pack("<H", flags | 1))
    refused(raw)


@pytest.mark.parametrize(
    ("offset", "new"),
    [(30, b"data/events/events-00001"), (14, b"\x00\x01\x02\x03"), (18, b"\x01\x00\x00\x00"), (22, b"\x01\x00\x00\x00"), (6, b"\x00\x08"), (8, b"\x00\x00")],
    ids=["name", "checksum", "packed size", "size", "flags", "method"],
)  # fmt: skip
def test_local_header_that_differs_from_the_directory_is_refused(offset, new):
    raw = packed()
    at = local(raw, EVENTS) + offset
    assert raw[at : at + len(new)] != new
    refused(edited(raw, at, new))


def test_declared_size_that_is_not_the_real_one_is_refused():
    raw = packed()
    for at in (central(raw, EVENTS) + 24, local(raw, EVENTS) + 22):
        raw = edited(raw, at, struct.pack("<I", len(CONTENT) - 1))
    refused(raw)


@pytest.mark.parametrize("at", ["before", "between", "after", "comment"])
def test_bytes_beside_the_entries_are_refused(at):
    raw = packed()
    if at == "before":
        raw = b"#!/bin/sh\n" + raw
    elif at == "after":
        raw += b"more"
    elif at == "comment":
        raw = raw[:-2] + struct.pack("<H", 4) + b"more"
    else:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in NAMES:
                archive.writestr(entry(name), CONTENT)
            archive.fp.write(b"hidden")
            archive.start_dir = archive.fp.tell()
        raw = buffer.getvalue()
        assert zipfile.ZipFile(io.BytesIO(raw)).testzip() is None  # other programs take no notice
    refused(raw)


def test_two_entries_over_the_same_bytes_are_refused():
    raw = packed()
    first, second = central(raw, EVENTS), central(raw, "bagit.txt")
    offset = raw[first + 42 : first + 46]
    refused(edited(raw, second + 42, offset))


@given(st.integers(0, len(packed()) - 1), st.integers(1, 255))
@settings(max_examples=400, deadline=None)
def test_any_changed_byte_is_refused_or_changes_nothing(at, change):
    """Only times and version numbers of the packer may differ: they say nothing of the content."""
    honest = packed()
    raw = edited(honest, at, bytes([honest[at] ^ change]))
    try:
        bag = opened(raw)
        found = {name: bag.read(name) for name in bag.sizes}
    except ProofError:
        return
    assert found == dict.fromkeys(NAMES, CONTENT)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_zip_at_all_is_refused(raw):
    with pytest.raises(ProofError):
        opened(raw)
    with pytest.raises(ProofError):
        opened(raw + packed()[-22:])


# ---- a directory ----------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(CONTENT)
    return tmp_path


def test_directory_is_read_like_the_zip(directory):
    (directory / "data" / "standards").mkdir()  # an empty one says nothing
    bag = bags.DirectoryBag(directory)
    assert bag.sizes == opened(packed()).sizes
    assert bag.read(EVENTS) == CONTENT


def test_links_and_pipes_in_a_directory_are_refused(directory):
    (directory / "data/keys").mkdir()
    (directory / "data/keys/x").symlink_to("/etc/passwd")
    with pytest.raises(ProofError, match="MALFORMED"):
        bags.DirectoryBag(directory)
    (directory / "data/keys/x").unlink()
    os.mkfifo(directory / "data/keys/x")
    with pytest.raises(ProofError, match="MALFORMED"):
        bags.DirectoryBag(directory)
    (directory / "data/keys/x").unlink()
    (directory / "data/keys").rmdir()
    (directory / "data/keys").symlink_to("/etc")
    with pytest.raises(ProofError, match="MALFORMED"):
        bags.DirectoryBag(directory)


def test_link_put_there_later_is_not_followed(directory):
    bag = bags.DirectoryBag(directory)
    (directory / EVENTS).unlink()
    (directory / EVENTS).symlink_to("/etc/passwd")
    with pytest.raises(ProofError, match="MALFORMED"):
        bag.read(EVENTS)


def test_long_lines_and_open_ends_are_refused(directory):
    for raw in (b"x" * (bags.MAX_LINE_BYTES + 1) + b"\n", b"x", b"\n", b"x\n\n"):
        (directory / EVENTS).write_bytes(raw)
        with pytest.raises(ProofError, match="MALFORMED"):
            list(bags.DirectoryBag(directory).lines(EVENTS))
    (directory / EVENTS).write_bytes("a\u2028b\n".encode())
    assert list(bags.DirectoryBag(directory).lines(EVENTS)) == ["a\u2028b".encode()]


@pytest.mark.parametrize(
    "text",
    ["", "x", "0" * 64 + "  data/x", "0" * 64 + " data/x\n", "0" * 63 + "  data/x\n", "G" * 64 + "  data/x\n", "0" * 64 + "  /x\n",
     "0" * 64 + "  data/../x\n", "0" * 64 + "  data/b\n" + "0" * 64 + "  data/a\n", ("0" * 64 + "  data/x\n") * 2, "0" * 64 + "  data/x\r\n", "é\n"],
)  # fmt: skip
def test_manifest_has_one_spelling(text):
    with pytest.raises(ProofError, match="MALFORMED"):
        bags.parse_manifest(text.encode(), "manifest")
