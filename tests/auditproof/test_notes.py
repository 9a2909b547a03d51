"""Notes, checkpoints, cosignatures and receipts: every byte counts, and strangers' lines do not."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings, strategies as st

from auditproof import checkpoints, cosignatures, ed25519, headers, keys, notes, receipts, signatures
from auditproof.errors import ChainError, MalformedError, ProofError, SignatureError

KNOWN = json.loads((Path(__file__).parents[1] / "vectors" / "ledger-v1.json").read_text())
ORIGIN = KNOWN["origin"]
KEYS = [notes.VerifierKey.parse(text) for text in KNOWN["keys"]["log"]]
WITNESS = notes.VerifierKey.parse(KNOWN["keys"]["witness"])
NOTE = KNOWN["checkpoints"]["6"]


def open_known(note, keys=KEYS):
    return checkpoints.open_checkpoint(note, origin=ORIGIN, keys=keys)


def test_every_changed_byte_of_a_checkpoint_is_caught():
    open_known(NOTE)
    raw = NOTE.encode()
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 0x01
        with pytest.raises(ProofError) as caught:
            open_known(bytes(changed).decode("utf-8", "surrogateescape"))
        assert caught.value.name in {"MALFORMED", "SIGNATURE", "ORIGIN"}, at


@pytest.mark.parametrize(
    "wrong",
    [
        "", "\n\n", NOTE.rstrip("\n"), NOTE + "\n", NOTE + "x", NOTE.replace("\n", "\r\n"), NOTE.replace("\u2014", "-"),
        NOTE.replace("\n6\n", "\n06\n"), NOTE.replace("\n6\n", "\n-6\n"), NOTE.replace("\n6\n", "\n6\next\n"),
        NOTE.replace("\n6\n", "\n" + "9" * 40 + "\n"), NOTE.split("\n\n")[0] + "\n", NOTE + NOTE.splitlines()[-1] + "\n",
        NOTE.replace("=\n", "\n", 1), "\ud800" + NOTE, NOTE.replace("\n6\n", "\n6\x00\n"), "x" * 70_000,
        NOTE.replace("audit.example.org/ledger\n6", "audit.example.org/../ledger\n6"),
    ],
)  # fmt: skip
def test_note_of_another_form_is_refused(wrong):
    with pytest.raises(ProofError):
        open_known(wrong)


@given(st.text(max_size=200))
@settings(max_examples=300)
def test_any_text_is_a_note_or_a_named_error(text):
    with pytest.raises(ProofError):
        open_known(text)


def test_unknown_signatures_are_ignored_and_their_absence_is_not():
    stranger = notes.signature_line("someone.example", b"\1\2\3\4", bytes(64))
    assert open_known(NOTE + stranger).size == 6
    with pytest.raises(SignatureError):
        open_known(NOTE, keys=[])
    sixteen = "".join(notes.signature_line(f"s{n}.example", bytes([n] * 4), bytes(64)) for n in range(16))
    assert open_known(NOTE + sixteen).size == 6
    with pytest.raises(MalformedError):
        open_known(NOTE + stranger * 101)


def test_known_key_with_a_bad_signature_rejects_the_whole_note():
    lines = NOTE.splitlines(keepends=True)
    bad = notes.signature_line(KEYS[0].name, KEYS[0].key_id, bytes(64))
    with pytest.raises(SignatureError):
        open_known("".join(lines[:-1]) + bad)


def test_other_logs_checkpoint_is_refused():
    with pytest.raises(ChainError, match="ORIGIN"):
        checkpoints.open_checkpoint(NOTE, origin="else.example/log", keys=KEYS)


@pytest.mark.parametrize("at", range(len(KNOWN["keys"]["log"][0])))
def test_every_changed_byte_of_a_key_is_caught(at):
    text = KNOWN["keys"]["log"][0]
    changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
    with pytest.raises(MalformedError):
        notes.VerifierKey.parse(changed)


LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # not canonical
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # not canonical
    "0200000000000000000000000000000000000000000000000000000000000000",  # not on the curve
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_and_non_canonical_points_are_no_keys(point):
    with pytest.raises(MalformedError):
        notes.VerifierKey.ed25519("x.example", bytes.fromhex(point))
    assert not ed25519.verify(bytes.fromhex(point), bytes(64), b"")


@given(st.binary(max_size=40), st.data())
@settings(max_examples=40, deadline=None)
def test_plain_python_and_cryptography_agree(message, data):
    private = Ed25519PrivateKey.from_private_bytes(data.draw(st.binary(min_size=32, max_size=32)))
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = bytearray(private.sign(message))
    assert ed25519.verify(public, bytes(signature), message)
    signatures.verify_ed25519(public, bytes(signature), message, place="")
    signature[data.draw(st.integers(0, 63))] ^= 1 << data.draw(st.integers(0, 7))
    assert not ed25519.verify(public, bytes(signature), message)
    with pytest.raises(SignatureError):
        signatures.verify_ed25519(public, bytes(signature), message, place="")


def test_signature_scalar_beyond_the_order_is_refused():
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = private.sign(b"x")
    scalar = int.from_bytes(signature[32:], "little") + ed25519.ORDER
    assert not ed25519.verify(public, signature[:32] + scalar.to_bytes(32, "little"), b"x")


def test_every_changed_byte_of_a_cosigned_note_is_caught():
    note = KNOWN["cosigned"]["note"]
    assert cosignatures.verify_cosignature(note, WITNESS) == KNOWN["cosigned"]["timestamp"]
    line = next(line for line in note.splitlines() if "witness" in line)
    start = note.encode().index(line.encode())
    for at in range(start, start + len(line.encode())):
        changed = bytearray(note.encode())
        changed[at] ^= 0x01
        with pytest.raises(ProofError):
            cosignatures.verify_cosignature(bytes(changed).decode("utf-8", "surrogateescape"), WITNESS)
    with pytest.raises(SignatureError):
        cosignatures.verify_cosignature(NOTE, WITNESS)
    with pytest.raises(MalformedError):
        cosignatures.verify_cosignature(note, KEYS[0])


def test_receipt_proves_its_entry_and_every_changed_byte_fails():
    text = KNOWN["receipt"]["text"]
    index = KNOWN["receipt"]["index"]
    leaf = headers.leaf_hash(KNOWN["events"][index]["header"].encode())
    given = {"leaf": leaf, "origin": ORIGIN, "keys": KEYS}
    receipts.verify_receipt(text, **given)
    parsed = receipts.parse_receipt(text)
    assert receipts.format_receipt(index=parsed.index, path=parsed.path, checkpoint=parsed.checkpoint) == text
    # Two keys signed: a signature line broken beyond recognition is a stranger's, and the other key still vouches.
    for at in range(text.encode().rindex(b"\n\n")):
        changed = bytearray(text.encode())
        changed[at] ^= 0x01
        with pytest.raises(ProofError):
            receipts.verify_receipt(bytes(changed).decode("utf-8", "surrogateescape"), **given)
    with pytest.raises(ProofError, match="INCLUSION"):
        receipts.verify_receipt(text, **(given | {"leaf": bytes(32)}))


def test_extra_line_is_allowed_and_proves_nothing():
    text = KNOWN["receipt"]["text"].replace("@v1\n", "@v1\nextra " + base64.b64encode(b"x").decode() + "\n", 1)
    assert receipts.parse_receipt(text).index == KNOWN["receipt"]["index"]
    with pytest.raises(MalformedError):
        receipts.parse_receipt(text.replace("extra ", "extra !"))


def body(action, **metadata):
    return {"action": action, "outcome": "done", "source": {"id": "auditportal"}, "metadata": metadata}


def test_keys_have_their_ranges():
    first, second = (key.text for key in KEYS)
    ranges = keys.apply([], seq=0, body=body("ledger.genesis", vkey=first))
    ranges = keys.apply(ranges, seq=10, body=body("ledger.key", vkey=second, first_size=11))
    ranges = keys.apply(ranges, seq=12, body=body("ledger.key", vkey=first, last_size=13))
    assert [(item.first_size, item.last_size) for item in ranges] == [(0, 13), (11, None)]
    assert keys.open_ranged(KNOWN["checkpoints"]["12"], origin=ORIGIN, ranges=ranges).size == 12
    late = keys.apply(ranges, seq=13, body=body("ledger.key", vkey=first, trusted_up_to=5))
    with pytest.raises(SignatureError, match="KEY_RANGE"):
        keys.open_ranged(KNOWN["checkpoints"]["12"], origin=ORIGIN, ranges=late)
    with pytest.raises(SignatureError, match="KEY_RANGE"):
        keys.open_ranged(KNOWN["checkpoints"]["6"], origin=ORIGIN, ranges=[keys.KeyRange(KEYS[0], 7)])
    text, _, signed = KNOWN["checkpoints"]["12"].partition("\n\n")
    alone = f"{text}\n\n{signed.splitlines()[0]}\n"
    with pytest.raises(SignatureError, match="KEY_RANGE"):
        keys.open_ranged(alone, origin=ORIGIN, ranges=ranges)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"vkey": "x"},
        {"vkey": KEYS[0].text},
        {"vkey": KEYS[0].text, "first_size": 3},
        {"vkey": KEYS[0].text, "last_size": -1},
    ],
)
def test_key_event_that_says_what_it_may_not_is_refused(metadata):
    with pytest.raises(ProofError):
        keys.apply([], seq=10, body=body("ledger.key", **metadata))


def test_control_events_of_others_or_refused_ones_change_nothing():
    event = body("ledger.key", vkey=KEYS[1].text, first_size=11)
    assert keys.apply([], seq=10, body=event | {"source": {"id": "ci"}}) == []
    assert keys.apply([], seq=10, body=event | {"outcome": "refused"}) == []
