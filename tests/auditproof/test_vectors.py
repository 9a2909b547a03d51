"""Known answers, made by an independent program, and that no change of them goes unnoticed."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from auditproof import vectors

FILE = Path(__file__).parents[1] / "vectors" / "ledger-v1.json"
ROOT = Path(__file__).parents[2]
KNOWN = json.loads(FILE.read_text())


def run(*arguments, env=None, python=sys.executable, cwd=ROOT):
    done = subprocess.run([python, *arguments], capture_output=True, text=True, cwd=cwd, env=env, check=False)
    return done.returncode, done.stdout + done.stderr


def leaves(value, path=()):
    """The place of every text and number in the file."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path


def changed(path):
    value = copy.deepcopy(KNOWN)
    parent = value
    for step in path[:-1]:
        parent = parent[step]
    item = parent[path[-1]]
    if isinstance(item, int):
        parent[path[-1]] = item + 1
    else:
        at = len(item) // 2
        parent[path[-1]] = item[:at] + ("0" if item[at : at + 1] != "0" else "1") + item[at + 1 :]
    return json.dumps(value).encode()


def sample():
    """Up to 24 places of each section, spread evenly: every kind of member, in a bounded time."""
    for section in KNOWN:
        places = list(leaves(KNOWN[section], (section,)))
        step = max(1, len(places) // 24)
        yield from places[::step]


SAMPLE = list(sample())


def test_all_sections_agree():
    assert vectors.check_file(FILE.read_bytes()) == []


def test_every_section_of_the_file_is_checked():
    assert set(KNOWN) == set(vectors.SECTIONS)


@pytest.mark.parametrize("path", SAMPLE, ids=str)
def test_one_changed_value_anywhere_is_a_failure(path):
    assert vectors.check_file(changed(path)) != []


@pytest.mark.parametrize("section", sorted(KNOWN))
def test_missing_empty_or_misshapen_section_is_a_failure_and_never_an_exception(section):
    wrongs: list[object] = [None, [], {}, "", 0, [None], [[]], {"x": 1}, "text", 7, [{"x": 1}]]
    for wrong in wrongs:
        value = dict(KNOWN) | {section: wrong}
        assert vectors.check_file(json.dumps(value).encode()) != [], wrong
    value = {key: item for key, item in KNOWN.items() if key != section}
    assert vectors.check_file(json.dumps(value).encode()) != []


def test_unknown_section_is_a_failure():
    assert str(vectors.check_file(json.dumps(KNOWN | {"extra": 1}).encode())[0]).startswith("extra:")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":1,"a":1}'])
def test_file_that_is_none_is_a_failure(raw):
    assert vectors.check_file(raw) != []


def test_command_line_tells_success_and_failure(tmp_path):
    assert run("-m", "auditproof", "vectors", str(FILE)) == (0, "all 16 sections agree\n")
    wrong = tmp_path / "wrong.json"
    wrong.write_bytes(changed(("roots", "6")))
    code, said = run("-m", "auditproof", "vectors", str(wrong))
    assert code == 1
    assert "roots/6: expected" in said
    assert run("-m", "auditproof", "vectors", str(tmp_path / "none"))[0] == 2
    assert run("-m", "auditproof")[0] == 2


BLOCKER = "import sys\nsys.modules['cryptography'] = None\nimport runpy\nsys.argv = ['auditproof', *sys.argv[1:]]\nrunpy.run_module('auditproof', run_name='__main__', alter_sys=True)\n"


def test_without_cryptography_the_openssl_program_serves():
    assert run("-c", BLOCKER, "vectors", str(FILE)) == (0, "all 16 sections agree\n")


def test_without_either_it_says_so_and_fails(tmp_path):
    code, said = run("-c", BLOCKER, "vectors", str(FILE), env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)})
    assert code == 1
    assert said.startswith("signatures NOT checked")


def test_as_one_file_without_the_repository(tmp_path):
    archive = tmp_path / "verify.pyz"
    zipapp.create_archive(
        ROOT, archive, main="auditproof.__main__:main", filter=lambda path: path.parts[0] == "auditproof"
    )
    env = {"PATH": os.environ["PATH"]}
    assert run(str(archive), "vectors", str(FILE), env=env, cwd=tmp_path) == (0, "all 16 sections agree\n")
