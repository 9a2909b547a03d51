"""Parts of the bundle's verification that a portal of one key and whole histories never makes."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auditproof import bundles, checkpoints, claims, exports, keys, merkle, notes
from auditproof.bags import Bag
from auditproof.canonical import encode
from auditproof.errors import HashMismatchError, ProofError

ORIGIN = "test.invalid/log"
LEAVES = [hashlib.sha256(bytes([n])).digest() for n in range(8)]


class Files(Bag):
    def __init__(self, **files: bytes) -> None:
        self._files = files
        self.sizes = {name: len(raw) for name, raw in files.items()}

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        yield io.BytesIO(self._files[name])


class LogKey:
    def __init__(self) -> None:
        self._private = Ed25519PrivateKey.generate()
        raw = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = notes.VerifierKey.ed25519(ORIGIN, raw)

    def line(self, text: str) -> str:
        return notes.signature_line(ORIGIN, self.public.key_id, self._private.sign(text.encode()))


OLD, NEW = LogKey(), LogKey()
OLD_RANGE = keys.KeyRange(OLD.public, 0, last_size=5)
NEW_RANGE = keys.KeyRange(NEW.public, 4)  # announced by the event at seq 3


def head(size: int) -> checkpoints.Checkpoint:
    return checkpoints.Checkpoint(ORIGIN, size, merkle.root(LEAVES[:size]))


def note(size: int, *by: LogKey) -> str:
    text = head(size).text()
    return text + "\n" + "".join(key.line(text) for key in by)


def check(last: str, *, rotations: list[str], given: LogKey = OLD, proofs: dict[int, bytes] | None = None) -> str:
    bag = Files(**{"data/proofs/rotation.json": encode({"checkpoints": list(rotations)})})
    support = bundles._Support(
        control=exports.Control(),
        ranges=[OLD_RANGE, NEW_RANGE],
        announced=[(0, keys.KeyRange(OLD.public, 0)), (3, NEW_RANGE)],
        genesis=OLD.public,
        end=exports.EMPTY_MAP,
        lines=0,
    )
    known = {4: head(4).root, 5: head(5).root} if proofs is None else proofs
    return bundles._trusted_signature(bag, last, head(8), given.public, support, known)[1]


def failing(*args, **kwargs) -> str:
    with pytest.raises(ProofError) as caught:
        check(*args, **kwargs)
    return str(caught.value.name)


def test_old_key_leads_over_the_rotation_to_the_new_one():
    assert "by 1 rotations" in check(note(8, NEW), rotations=[note(5, OLD, NEW)])
    assert "under the given key" in check(note(8, NEW), rotations=[], given=NEW)


def test_rotation_is_followed_only_over_checkpoints_of_trusted_keys():
    assert failing(note(8, NEW), rotations=[]) == "SIGNATURE"
    assert failing(note(8, NEW), rotations=[note(5, NEW)]) == "SIGNATURE"
    assert failing(note(8, NEW), rotations=[note(5, OLD, NEW)], proofs={}) == "CONSISTENCY"
    assert failing(note(8, NEW), rotations=[note(5, OLD, NEW)], proofs={5: bytes(32)}) == "CONSISTENCY"
    assert (
        failing(note(8, NEW), rotations=[note(3, OLD)], proofs={3: head(3).root}) == "SIGNATURE"
    )  # before it was announced
    assert failing(note(8, LogKey()), rotations=[note(5, OLD, NEW)]) == "SIGNATURE"


def test_key_outside_its_range_is_refused():
    assert failing(note(8, OLD, NEW), rotations=[note(5, OLD, NEW)]) == "KEY_RANGE"
    assert failing(note(8, OLD), rotations=[]) == "KEY_RANGE"


CLAIMS: list[dict[str, Any]] = [
    {"id": "events", "text": "Events", "value": 1021, "evidence": "x", "check": "recount"},
    {"id": "who", "text": "Who", "value": {"name": "<b>\u202e"}, "evidence": "x", "check": "recount"},
    {"id": "none", "text": "None", "value": [], "evidence": "x", "check": "recount"},
]
HONEST = (
    '<p><data data-claim="/events">1,021</data> of <data data-claim="/who/name">&lt;b&gt;⟨U+202E⟩</data>'
    " <code>openssl x509 1</code></p><style>p{margin:1px}</style>"
)


def test_report_shows_its_claims_and_nothing_else():
    claims.check_report(HONEST.encode(), CLAIMS)


@pytest.mark.parametrize(
    "report",
    [
        HONEST.replace("1,021", "1,020"),
        HONEST.replace("1,021", "1021"),
        HONEST.replace("1,021", "1,021<i>0</i>"),
        HONEST.replace("/events", "/event"),
        HONEST.replace("/events", ""),
        HONEST.replace("/events", "/events/0"),
        HONEST.replace("/who/name", "/who"),
        HONEST + "7 refusals",
        HONEST + "<p>٣</p>",
        HONEST + '<a href="https://x.invalid">x</a>',
        HONEST + "<img>",
        HONEST + '<p onclick="x()">x</p>',
        HONEST + "<script>x</script>",
        HONEST.replace('<data data-claim="/who/name">', "<span>").replace("⟩</data>", "⟩</span>"),
        "",
    ],
)
def test_report_that_says_more_or_less_is_refused(report):
    with pytest.raises(HashMismatchError, match="CLAIM"):
        claims.check_report(report.encode(), CLAIMS)


def test_report_in_another_encoding_is_refused():
    with pytest.raises(HashMismatchError, match="CLAIM"):
        claims.check_report(base64.b64decode("/w=="), CLAIMS)


def test_claims_are_compared_whole():
    claims.check([dict(claim) for claim in CLAIMS], CLAIMS)
    for wrong in (None, [], CLAIMS[:2], [*CLAIMS[:2], 5], [CLAIMS[0] | {"text": "Other"}, *CLAIMS[1:]]):
        with pytest.raises(HashMismatchError, match="CLAIM"):
            claims.check(wrong, CLAIMS)
