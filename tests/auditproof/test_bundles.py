"""Parts of the bundle's verification that a portal of one key and whole histories never makes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auditproof import bundles, checkpoints, claims, exports, keys, merkle, notes, report
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


FACTS = claims.Facts(events=1021, first="2026-11-01T00:00:00.000000Z", last="2026-11-02T00:00:00.000000Z")
FACTS.actions.update({("train", "done"): 1020, ("promote", "refused"): 1})
FACTS.promotions.append({
    "seq": 7, "recorded": "2026-11-02T00:00:00.000000Z", "outcome": "refused", "version": "churn:14",
    "environment": "production", "request": "",
})  # fmt: skip
CLAIMS = claims.make(
    FACTS,
    model="<b>\u202e",
    issued_to={"recipient": "Audit Office", "purpose": "review"},
    map_to=exports.MapState(2048, bytes(32), 2047),
    checkpoint={"size": 2049, "root": "00" * 32},
    signatures=[],
)
HONEST = report.render(CLAIMS).decode()


def test_report_shows_its_claims_and_nothing_else():
    report.check(HONEST.encode(), CLAIMS)
    assert '<data data-claim="/events">1,021</data>' in HONEST
    assert '<data data-claim="/scope">&lt;b&gt;⟨U+202E⟩</data>' in HONEST
    assert "<b>" not in HONEST


def test_page_of_format_v1_is_made_as_it_always_was():
    """Bundles that were issued hold this page, byte for byte; another layout is another format."""
    assert (
        hashlib.sha256(HONEST.encode()).hexdigest()
        == "a045b5405c17ca8b4104f07e7331f0b9c3d1c3d2834331343222eeea6c4cd335"
    )


def changed(old: str, new: str) -> str:
    assert old in HONEST
    return HONEST.replace(old, new, 1)


def added(html: str) -> str:
    return changed("</body>", f"{html}</body>")


POLICY = '<meta http-equiv="Content-Security-Policy" content="'
FORGED = {
    "nothing": "",
    "another number": changed("1,021", "1,020"),
    "the same number otherwise": changed("1,021", "1021"),
    "a digit more": changed("1,021", "1,021<i>0</i>"),
    "another claim's value": changed('data-claim="/refusals"', 'data-claim="/failures"'),
    "a claim that is none": changed('data-claim="/events"', 'data-claim="/event"'),
    "a number beside the claims": added("<p>0 refusals</p>"),
    "digits of another script": added("<p>٣</p>"),
    "full-width digits": added("<p>\uff10</p>"),
    "a number in words": added("<p>No attempt was refused.</p>"),
    "plain words": changed("Attempts refused", "Attempts granted"),
    "digits in code": added("<code>0 refusals</code>"),
    "a style that writes": added("<style>[data-claim='/refusals']::after{content:' of 0'}</style>"),
    "a style that hides": changed("</style>", "[data-claim='/refusals']{display:none}</style>"),
    "a style that imports": changed("<style>", "<style>@import url(https://x.invalid/x.css);"),
    "an inline style": changed('<data data-claim="/refusals">', '<data data-claim="/refusals" style="font-size:0">'),
    "a page that goes elsewhere": changed("<title>", '<meta http-equiv="refresh" content="0;url=https://x.invalid/"><title>'),
    "no policy": "".join(line for line in HONEST.splitlines(keepends=True) if not line.startswith(POLICY)),
    "a wider policy": changed("default-src 'none'", "default-src *"),
    "a button that sends": added('<button formaction="https://x.invalid/">Verify</button>'),
    "a form": added('<form action="https://x.invalid/"><input></form>'),
    "a second title": changed("</head>", "<title>0 refusals</title></head>"),
    "another title": changed("Audit bundle</title>", "Approved</title>"),
    "hidden": changed('<data data-claim="/refusals">', '<data hidden data-claim="/refusals">'),
    "a text area": changed("<h1>", "<textarea><h1>"),
    "a comment around it": changed("<h2>In numbers</h2>", "<!--<h2>In numbers</h2>-->"),
    "a script": added("<script>x</script>"),
    "a handler": changed("<h1>", '<h1 onclick="x()">'),
    "a picture": added("<img>"),
    "a link": added('<a href="https://x.invalid">x</a>'),
    "a byte order mark": "\ufeff" + HONEST,
    "a space at the end": HONEST + " ",
}  # fmt: skip


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_report_that_is_another_page_is_refused(forged):
    assert forged != HONEST
    with pytest.raises(HashMismatchError, match="CLAIM"):
        report.check(forged.encode(), CLAIMS)


@pytest.mark.parametrize("raw", [b"\xff", HONEST.encode("utf-16"), HONEST.encode() + b"\x00"])
def test_report_in_other_bytes_is_refused(raw):
    with pytest.raises(HashMismatchError, match="CLAIM"):
        report.check(raw, CLAIMS)


def test_claims_are_compared_whole():
    claims.check([dict(claim) for claim in CLAIMS], CLAIMS)
    for wrong in (None, [], CLAIMS[:2], [*CLAIMS[:2], 5], [CLAIMS[0] | {"text": "Other"}, *CLAIMS[1:]]):
        with pytest.raises(HashMismatchError, match="CLAIM"):
            claims.check(wrong, CLAIMS)
