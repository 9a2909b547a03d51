"""DER, certificates and CMS: made by `cryptography`, read by ours; every changed byte is found."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings, strategies as st

from auditproof import certificates, cms, der
from auditproof.errors import MalformedError, ProofError, SignatureError

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 26, tzinfo=UTC)
DATA = b"the tag manifest\n"


def usage(**given: bool) -> x509.KeyUsage:
    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign encipher_only decipher_only"
    return x509.KeyUsage(**(dict.fromkeys(names.split(), False) | given))


class Authority:
    """A key with its certificate; issues others."""

    def __init__(
        self, name, above=None, *, ca=True, since=SINCE, days=3650, extensions=(), key_usage=None, digest=None
    ):
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(above.certificate.subject if above else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(since + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        default = usage(key_cert_sign=True) if ca else usage(digital_signature=True, content_commitment=True)
        builder = builder.add_extension(key_usage or default, critical=True)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        self.certificate = builder.sign(above.key if above else self.key, digest or SHA256())

    @property
    def parsed(self) -> certificates.Certificate:
        return certificates.parse(self.certificate.public_bytes(Encoding.DER))

    def sign(self, *others: x509.Certificate, options=(), data: bytes = DATA) -> bytes:
        builder = pkcs7.PKCS7SignatureBuilder().set_data(data).add_signer(self.certificate, self.key, SHA256())
        for other in others:
            builder = builder.add_certificate(other)
        if pkcs7.PKCS7Options.NoAttributes not in options:
            options = [pkcs7.PKCS7Options.NoCapabilities, *options]
        return builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary, *options])


DETACHED = pkcs7.PKCS7Options.DetachedSignature
ROOT = Authority("root")
SIGNER = Authority("signer", ROOT, ca=False)


def check(raw: bytes, *, roots=(ROOT,), at=NOW, data: bytes = DATA) -> None:
    signed = cms.verify_detached(raw, data)
    certificates.check_chain(signed.signer, signed.others, roots=[item.parsed for item in roots], at=at, place="chain")


def test_detached_signature_leads_to_the_root():
    check(SIGNER.sign(options=[DETACHED]))


def test_chain_over_an_intermediate_holds_and_a_stranger_beside_it_does_not():
    middle = Authority("middle", ROOT)
    signer = Authority("signer", middle, ca=False)
    check(signer.sign(middle.certificate, options=[DETACHED]))
    check(signer.sign(middle.certificate, ROOT.certificate, options=[DETACHED]))  # the root itself may lie inside
    with pytest.raises(SignatureError, match="no other certificate"):
        check(signer.sign(middle.certificate, Authority("stranger").certificate, options=[DETACHED]))
    with pytest.raises(SignatureError, match="leads to the given root"):
        check(signer.sign(options=[DETACHED]))


def test_every_changed_byte_is_found():
    raw = SIGNER.sign(options=[DETACHED])
    for at in range(len(raw)):
        for bit in (0x01, 0x80):
            with pytest.raises(ProofError):
                check(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])


def test_every_cut_and_every_appended_byte_is_found():
    raw = SIGNER.sign(options=[DETACHED])
    for length in range(len(raw)):
        with pytest.raises(SignatureError):
            cms.verify_detached(raw[:length], DATA)
    for more in (b"\x00", b"\x05\x00", raw):
        with pytest.raises(SignatureError, match="nothing after"):
            cms.verify_detached(raw + more, DATA)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_arbitrary_bytes_raise_nothing_else(raw):
    with pytest.raises(ProofError):
        cms.verify_detached(raw, DATA)
    with pytest.raises(ProofError):
        certificates.parse(raw)
    with contextlib.suppress(MalformedError):
        der.read(raw, "der")


def test_other_content_and_other_forms_are_refused():
    raw = SIGNER.sign(options=[DETACHED])
    with pytest.raises(SignatureError):
        cms.verify_detached(raw, DATA + b"x")
    with pytest.raises(SignatureError):
        cms.verify_detached(SIGNER.sign(), DATA)  # the content inside
    with pytest.raises(SignatureError):
        cms.verify_detached(SIGNER.sign(options=[DETACHED, pkcs7.PKCS7Options.NoAttributes]), DATA)
    with pytest.raises(SignatureError):
        cms.verify_detached(SIGNER.sign(options=[DETACHED, pkcs7.PKCS7Options.NoCerts]), DATA)


def test_two_signers_are_refused():
    builder = pkcs7.PKCS7SignatureBuilder().set_data(DATA)
    for item in (SIGNER, Authority("second", ROOT, ca=False)):
        builder = builder.add_signer(item.certificate, item.key, SHA256())
    raw = builder.sign(Encoding.DER, [DETACHED, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities])
    with pytest.raises(SignatureError):
        cms.verify_detached(raw, DATA)


PURPOSE = ExtendedKeyUsageOID
REFUSED = {
    "an authority that signs": {"ca": True, "key_usage": usage(digital_signature=True, key_cert_sign=True)},
    "a key for something else": {"key_usage": usage(key_agreement=True)},
    "a purpose for something else": {"extensions": [(x509.ExtendedKeyUsage([PURPOSE.CODE_SIGNING]), False)]},
    "a critical extension nobody knows": {
        "extensions": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]
    },
    "an expired certificate": {"days": 30},
    "one that is not valid yet": {"since": datetime(2027, 1, 1, tzinfo=UTC)},
}


@pytest.mark.parametrize("what", REFUSED)
def test_certificate_that_is_unfit_is_refused(what):
    signer = Authority("signer", ROOT, **({"ca": False} | REFUSED[what]))
    with pytest.raises(SignatureError, match="SIGNATURE"):
        check(signer.sign(options=[DETACHED]))


@pytest.mark.parametrize(
    "purposes", [[PURPOSE.EMAIL_PROTECTION], [PURPOSE.CODE_SIGNING, x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")]]
)
def test_certificate_for_mail_or_documents_is_fit(purposes):
    signer = Authority("signer", ROOT, ca=False, extensions=[(x509.ExtendedKeyUsage(purposes), False)])
    check(signer.sign(options=[DETACHED]))


def test_root_that_is_no_authority_or_of_the_same_name_only_is_refused():
    look_alike = Authority("root")
    with pytest.raises(SignatureError, match="leads to the given root"):
        check(SIGNER.sign(options=[DETACHED]), roots=[look_alike])
    no_authority = Authority("root", ca=False)
    signer = Authority("signer", no_authority, ca=False)
    with pytest.raises(SignatureError, match="an authority above"):
        check(signer.sign(options=[DETACHED]), roots=[no_authority])
    with pytest.raises(SignatureError):
        check(ROOT.sign(options=[DETACHED]))  # the root signs itself
    expired = Authority("old", days=30)
    with pytest.raises(SignatureError, match="valid at"):
        check(Authority("signer", expired, ca=False).sign(options=[DETACHED]), roots=[expired])


def test_other_algorithms_are_named():
    with pytest.raises(MalformedError, match="ECDSA with SHA-256"):
        _ = Authority("other", digest=SHA384()).parsed


def test_certificates_in_pem_are_read():
    text = "".join(item.certificate.public_bytes(Encoding.PEM).decode() for item in (ROOT, SIGNER))
    found = certificates.parse_pem("Some words before\n" + text, "file")
    assert [item.raw for item in found] == [ROOT.parsed.raw, SIGNER.parsed.raw]
    for wrong in ("", "no certificate", text.replace("M", "!", 1)):
        with pytest.raises(MalformedError):
            certificates.parse_pem(wrong[: wrong.find("-----END") + 25] if "END" in wrong else wrong, "file")


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x30", b"\x30\x80\x00\x00", b"\x30\x81\x01\x00", b"\x30\x82\x00\x80" + bytes(128), b"\x1f\x01\x00", b"\x30\x84\x00\x00\x00\x01\x00",
     b"\x30\x02\x05", b"\x30\x00\x00"],
)  # fmt: skip
def test_other_encodings_than_der_are_refused(raw):
    with pytest.raises(MalformedError):
        der.read(raw, "der")


@pytest.mark.parametrize(
    ("read", "raw"),
    [
        (der.oid, b"\x06\x00"), (der.oid, b"\x06\x02\x80\x01"), (der.oid, b"\x06\x01\x81"), (der.oid, b"\x04\x01\x2a"),
        (der.bits, b"\x03\x00"), (der.bits, b"\x03\x01\x01"), (der.bits, b"\x03\x02\x08\x00"), (der.bits, b"\x03\x02\x01\x01"),
        (der.octets, b"\x03\x02\x01\x02"), (der.octets, b"\x03\x00"), (der.boolean, b"\x01\x01\x01"), (der.boolean, b"\x01\x02\xff\xff"),
        (der.instant, b"\x17\x0d261332000000Z"), (der.instant, b"\x17\x0b2611260000Z"), (der.instant, b"\x18\x0d261126000000Z"),
        (der.instant, b"\x17\x0d26112600000+Z"),
    ],
)  # fmt: skip
def test_values_have_one_spelling(read, raw):
    with pytest.raises(MalformedError):
        read(der.read(raw, "der"), "der")


def test_times_of_both_centuries_are_told_apart():
    assert der.instant(der.read(b"\x17\x0d490101000000Z", "t"), "t").year == 2049
    assert der.instant(der.read(b"\x17\x0d500101000000Z", "t"), "t").year == 1950
    assert der.instant(der.read(b"\x18\x0f20660101000000Z", "t"), "t").year == 2066
