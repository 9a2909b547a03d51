from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from webauthn import verify_authentication_response
from webauthn.helpers.structs import AuthenticationCredential, AuthenticatorAssertionResponse

from auditproof import approvals, events, signatures
from auditproof.errors import MalformedError, ProofError, SignatureError

KNOWN = json.loads((Path(__file__).parents[1] / "vectors" / "ledger-v1.json").read_text())["approval"]
STATEMENT = KNOWN["statement"].encode()
ASSERTION = {
    "statement": STATEMENT,
    "client_data": KNOWN["client_data"].encode(),
    "auth_data": bytes.fromhex(KNOWN["auth_data"]),
    "signature": bytes.fromhex(KNOWN["signature"]),
    "key": bytes.fromhex(KNOWN["key_spki"]),
}
CREDENTIAL = {"rp_id": "audit.example.org", "origins": {"https://audit.example.org"}, "place": "seq 14"}


def test_assertion_of_the_known_answers_holds():
    approvals.verify_passkey(**ASSERTION, **CREDENTIAL)


@pytest.mark.parametrize("part", sorted(ASSERTION))
def test_every_changed_byte_of_an_assertion_fails(part):
    for at in range(len(ASSERTION[part])):
        changed = bytearray(ASSERTION[part])
        changed[at] ^= 0x01
        with pytest.raises(SignatureError):
            approvals.verify_passkey(**(ASSERTION | {part: bytes(changed)}), **CREDENTIAL)


def signed(*, client=None, flags=5, rp="audit.example.org", raw_client=None):
    """A correctly signed assertion of a key of ours, so that only the named fault is left to find."""
    key = ec.generate_private_key(ec.SECP256R1())
    data = {
        "type": "webauthn.get",
        "challenge": base64.urlsafe_b64encode(approvals.challenge(STATEMENT)).rstrip(b"=").decode(),
        "origin": "https://audit.example.org",
        "crossOrigin": False,
    } | (client or {})
    client_data = raw_client or json.dumps(data).encode()
    auth_data = hashlib.sha256(rp.encode()).digest() + bytes([flags]) + bytes(4)
    return {
        "statement": STATEMENT,
        "client_data": client_data,
        "auth_data": auth_data,
        "signature": key.sign(auth_data + hashlib.sha256(client_data).digest(), ec.ECDSA(SHA256())),
        "key": key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    }


def test_assertion_made_here_holds_and_an_independent_library_agrees():
    given = signed(client={"extra": "browsers may add members"})
    approvals.verify_passkey(**given, **CREDENTIAL)
    import cbor2
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    numbers = load_der_public_key(given["key"]).public_numbers()
    cose = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")})
    verify_authentication_response(
        credential=AuthenticationCredential(
            id="AA",
            raw_id=b"\0",
            response=AuthenticatorAssertionResponse(
                client_data_json=given["client_data"],
                authenticator_data=given["auth_data"],
                signature=given["signature"],
            ),
        ),
        expected_challenge=approvals.challenge(STATEMENT),
        expected_rp_id="audit.example.org",
        expected_origin="https://audit.example.org",
        credential_public_key=cose,
        credential_current_sign_count=0,
        require_user_verification=True,
    )


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ({"client": {"type": "webauthn.create"}}, "type"),
        ({"client": {"challenge": "AAAA"}}, "challenge"),
        ({"client": {"origin": "https://evil.example"}}, "origin"),
        ({"client": {"crossOrigin": True}}, "crossOrigin"),
        ({"flags": 1}, "user verification"),
        ({"flags": 4}, "user presence"),
        ({"rp": "evil.example"}, "RP id"),
        ({"raw_client": b"[]"}, "client data"),
        ({"raw_client": b'{"type":"webauthn.get","type":"webauthn.get"}'}, "client data"),
        ({"raw_client": b"\xff"}, "client data"),
        ({"raw_client": b"[" * 4000}, "client data"),
    ],
)
def test_each_demand_of_the_ceremony_is_made(fault, what):
    with pytest.raises(SignatureError) as caught:
        approvals.verify_passkey(**signed(**fault), **CREDENTIAL)
    assert caught.value.place.endswith(what)


def test_assertion_for_another_statement_is_refused():
    other = STATEMENT.replace(b'"request":"212"', b'"request":"213"')
    with pytest.raises(SignatureError, match="challenge"):
        approvals.verify_passkey(**(ASSERTION | {"statement": other}), **CREDENTIAL)


def test_other_curve_or_rubbish_is_no_p256_key():
    wrong = (
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    for key in (wrong, b"", b"x" * 91):
        with pytest.raises(SignatureError):
            signatures.verify_p256(key, ASSERTION["signature"], b"", place="")


def test_service_signs_the_statement_in_dsse():
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = key.sign(signatures.pre_authentication(approvals.PAYLOAD_TYPE, STATEMENT))
    approvals.verify_service(statement=STATEMENT, signature=signature, key=public, place="seq 1")
    with pytest.raises(SignatureError):
        approvals.verify_service(statement=STATEMENT + b" ", signature=signature, key=public, place="seq 1")


def test_dsse_pae_is_the_specifications_example():
    assert (
        signatures.pre_authentication("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def event():
    statement = json.loads(STATEMENT)
    return {
        "action": "approve",
        "environment": statement["environment"],
        "subject": statement["subject"],
        "actor": {"id": statement["signer"]["id"]},
        "metadata": {"request": statement["request"]},
    }


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"action": "reject"}, "intent"), ({"environment": "staging"}, "environment"), ({"subject": {"id": "x", "type": "run"}}, "subject"),
        ({"actor": {"id": "usr_x"}}, "signer"), ({"metadata": {"request": "213"}}, "request"),
    ],
)  # fmt: skip
def test_event_and_statement_must_agree(change, what):
    statement = approvals.parse_statement(STATEMENT)
    approvals.check_agreement(statement, event(), origin="audit.example.org/ledger", place="seq 1")
    with pytest.raises(SignatureError) as caught:
        approvals.check_agreement(statement, event() | change, origin="audit.example.org/ledger", place="seq 1")
    assert caught.value.place.endswith(what)
    with pytest.raises(SignatureError):
        approvals.check_agreement(statement, event(), origin="else.example/log", place="seq 1")


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"intent": "x"},
        {"method": "fax"},
        {"signer": {}},
        {"checkpoint": {}},
        {"at": "now"},
        {"extra": 1},
        {"log": ".."},
    ],
)
def test_statement_of_another_form_is_malformed(change):
    with pytest.raises(ProofError):
        approvals.parse_statement(
            json.dumps(json.loads(STATEMENT) | change, sort_keys=True, separators=(",", ":")).encode()
        )
    with pytest.raises(MalformedError):
        approvals.parse_statement(STATEMENT + b" ")


def test_metadata_names_exactly_this_statement_signature_and_key():
    given = {"statement": STATEMENT, "signature": ASSERTION["signature"], "key": ASSERTION["key"], "place": "seq 1"}
    approvals.check_metadata(KNOWN["metadata"], **given)
    for name in KNOWN["metadata"]:
        with pytest.raises(SignatureError):
            approvals.check_metadata(KNOWN["metadata"] | {name: "00" * 32}, **given)


def test_signed_event_of_a_producer_binds_log_and_source():
    sent = json.loads((Path(__file__).parents[1] / "vectors" / "ledger-v1.json").read_text())["sent"]
    given = {
        "origin": "audit.example.org/ledger", "source_id": sent["source"], "sent": sent["bytes"].encode(),
        "signature": base64.b64decode(sent["signature"]), "public_key": bytes.fromhex(sent["public_key"]),
    }  # fmt: skip
    events.verify_sent(**given)
    for change in (
        {"origin": "x/y"},
        {"source_id": "other"},
        {"sent": b"{}"},
        {"signature": bytes(64)},
        {"public_key": bytes(32)},
    ):
        with pytest.raises(SignatureError):
            events.verify_sent(**(given | change))
