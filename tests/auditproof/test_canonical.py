from __future__ import annotations

import json
import math
import struct

import jcs
import pytest
import rfc8785
from hypothesis import given, settings, strategies as st

from auditproof import canonical
from auditproof.errors import MalformedError

numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda x: abs(x) < 2**53 or abs(x) >= 1e21
)
texts = st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"))
names = texts.filter(lambda text: text != "$sealed")  # refused on purpose; a test of its own says so
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(values)
@settings(max_examples=300)
def test_written_form_is_rfc_8785_and_reads_back(value):
    raw = canonical.encode(value)
    assert raw == rfc8785.dumps(value)
    assert raw == jcs.canonicalize(value)
    assert canonical.encode(canonical.admit(raw)) == raw


@pytest.mark.parametrize(
    ("bits", "text"),
    [  # RFC 8785 appendix B, those inside the profile
        ("0000000000000000", "0"), ("8000000000000000", "0"), ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"), ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("433fffffffffffff", "9007199254740991"), ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"), ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef50", "1e+21"), ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"), ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"), ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"), ("becbf647612f3696", "-0.0000033333333333333333"),
    ],
)  # fmt: skip
def test_numbers_of_rfc_8785(bits, text):
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical.format_number(number) == text


@given(st.binary(min_size=8, max_size=8))
@settings(max_examples=500)
def test_every_double_of_the_profile_reads_back(raw):
    (number,) = struct.unpack(">d", raw)
    if math.isnan(number) or math.isinf(number) or 2**53 <= abs(number) < 1e21:
        with pytest.raises(MalformedError):
            canonical.encode(number)
    else:
        assert canonical.admit(canonical.encode(number)) == number


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b'\xef\xbb\xbf{"a":1}', "byte 0"),
        ('{"a":1}'.encode("utf-16"), "byte 0"),
        (b'"\xed\xa0\x80"', "byte 1"),
        (b"\xff", "byte 0"),
        (b'{"a":1,"a":1}', "/a"),
        (b'{"x":{"a":1,"b":2,"a":1}}', "/x/a"),
        (b'[1,{"a/b~":NaN}]', "/1/a~1b~0"),
        (b"[Infinity]", "/0"),
        (b"[-Infinity]", "/0"),
        (b"[1e400]", "/0"),
        (b"[9007199254740992]", "/0"),
        (b"[-9007199254740993]", "/0"),
        (b"[9007199254740992.0]", "/0"),
        (b"[1e20]", "/0"),
        (b"[" + b"1" * 5000 + b"]", "/0"),
        (b'["\\ud800"]', "/0"),
        (b'["\\udc00\\ud800"]', "/0"),
        (b'["\\u0000"]', "/0"),
        (b'{"\\u0000":1}', "/\0"),
        (b'{"$sealed":"sha256:00"}', "/$sealed"),
        (b'{"a":{"\\u0024sealed":1}}', "/a/$sealed"),
        (b"[" * 33 + b"]" * 33, "/0" * 32),
        (b"[" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
        (b"", "character 0"),
        (b"{", "character 1"),
        (b"[1,]", None),
        (b"[1] x", "character 4"),
        (b"['a']", "character 1"),
        (b"[01]", None),
        (b"[+1]", "character 1"),
        (b"[.5]", "character 1"),
        (b"[1.]", None),
        (b'["\n"]', None),
        (b'["\\x41"]', None),
        (b"nul", "character 0"),
    ],
)
def test_refused_on_arrival_with_the_place(raw, place):
    with pytest.raises(MalformedError) as caught:
        canonical.admit(raw)
    assert caught.value.name == "MALFORMED"
    assert caught.value.expected
    assert place is None or caught.value.place == place


def test_what_lies_on_the_border_is_taken():
    assert canonical.admit(b"[9007199254740991, -9007199254740991, 1e21, 1e-400, -0.0]") == [
        2**53 - 1,
        1 - 2**53,
        1e21,
        0,
        0,
    ]
    deep = b"[" * 32 + b"]" * 32
    assert canonical.encode(canonical.admit(deep)) == deep
    assert canonical.admit(b'{"a":"' + b"x" * 100 + b'"}', max_bytes=108)
    with pytest.raises(MalformedError):
        canonical.admit(b'{"a":"' + b"x" * 101 + b'"}', max_bytes=108)


def test_sealed_values_are_refused_from_producers_and_allowed_in_bodies():
    raw = b'{"metadata":{"who":{"$sealed":"sha256:' + b"0" * 64 + b'"}}}'
    assert canonical.admit(raw, sealed="allowed") == json.loads(raw)
    for wrong in (
        raw.replace(b"0" * 64, b"0" * 63),
        raw.replace(b"}}}", b',"x":1}}}'),
        raw.replace(b"sha256", b"sha512"),
    ):
        with pytest.raises(MalformedError):
            canonical.admit(wrong, sealed="allowed")


@given(st.binary(max_size=60) | st.text(alphabet='{}[],:"0123456789eE+-.\\u$aNIn \x00é', max_size=40).map(str.encode))
@settings(max_examples=800)
def test_any_bytes_are_a_value_or_a_named_error(raw):
    try:
        value = canonical.admit(raw)
    except MalformedError:
        return
    assert canonical.admit(canonical.encode(value)) == value


@pytest.mark.parametrize(
    "value", [{1: 2}, {None: 1}, object(), b"x", (1,), {"a": {1}}, 2**53, float("nan"), "\ud800", {"\ud800": 1}, "\0"]
)
def test_values_without_a_form_are_refused(value):
    with pytest.raises(MalformedError):
        canonical.encode(value)
