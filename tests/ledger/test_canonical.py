from __future__ import annotations

import math
import struct

import pytest
import rfc8785
from hypothesis import given, settings as hypothesis_settings, strategies as st

from auditportal.ledger import canonical
from auditproof import canonical as exact
from auditproof.errors import MalformedError

numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda x: abs(x) < 2**53 or abs(x) >= 1e21
)
texts = st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"))
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
@hypothesis_settings(max_examples=400)
def test_fast_form_is_the_exact_one(value):
    assert canonical.encode(value) == exact.encode(value) == rfc8785.dumps(value)


@given(st.binary(min_size=8, max_size=8))
@hypothesis_settings(max_examples=600)
def test_any_double_is_written_as_rfc_8785_says(raw):
    (number,) = struct.unpack(">d", raw)
    try:
        found = canonical.encode([number])
    except MalformedError:
        assert math.isnan(number) or abs(number) == float("inf") or 2**53 <= abs(number) < 1e21
    else:
        assert found == rfc8785.dumps([number])


def test_members_sort_by_utf16_unit():
    emoji, letter = "\U0001f600", "\ufb33"
    assert canonical.encode({letter: 2, emoji: 1}) == f'{{"{emoji}":1,"{letter}":2}}'.encode()


@pytest.mark.parametrize(
    "value",
    [
        2**53,
        float("nan"),
        float("inf"),
        "\ud800",
        {"a": {1, 2}},
        b"x",
        "\0",
        {"\0": 1},
        {1: 2},
        {None: 1},
        (1,),
        [[2**53]],
    ],
)
def test_what_has_no_form_is_refused(value):
    with pytest.raises(MalformedError):
        canonical.encode(value)


@pytest.mark.parametrize("depth", [31, 32, 33])
def test_nesting_ends_where_the_exact_writer_ends_it(depth):
    value: object = 0.5
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    if depth > 32:
        with pytest.raises(MalformedError):
            canonical.encode(value)
    else:
        assert canonical.encode(value) == exact.encode(value)


SCALARS = (
    "0", "-0", "-0.0", "1.0", "100.00", "0.1", "1e-7", "1E5", "1e400", "1e21", "1e20", "9007199254740991", "9007199254740992",
    "-9007199254740993", "9007199254740992.5", "18446744073709551616", "123456789012345678901234567890", "1" * 400, "01", "1.",
    ".5", "+1", "NaN", "-Infinity", "true", "null", "nul", '""', '"a:b"', '"a\\u003ab"', '"a\\u003Ab"', '"::"', '"\\u0000"',
    '"\\\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\ud83d\ude00"', '"é"', '"\\u00e9"', '"$sealed"', '"\t"', '"\\t"', "'a'", "",
)  # fmt: skip
NAMES = (
    '"a"',
    '"b"',
    '"\\u0061"',
    '"é"',
    '"$sealed"',
    '"\\u0024sealed"',
    '"a:b"',
    '"a\\u003ab"',
    '""',
    '"\\u0000"',
    "a",
)
SPACES = st.sampled_from(["", "", "", " ", "\n\t\r ", "\f", "\ufeff"])


def _spaced(*parts):
    return st.tuples(*(part for item in parts for part in (SPACES, item))).map("".join)


def _containers(inner):
    members = st.lists(_spaced(st.sampled_from(NAMES), st.just(":"), inner), max_size=4).map(",".join)
    items = st.lists(inner, max_size=4).map(",".join)
    return _spaced(st.just("{"), members, st.just("}")) | _spaced(st.just("["), items, st.just("]"))


def _outcome(admit, raw, **limits):
    """`repr` tells 1 from 1.0 and True, and keeps the order of members."""
    try:
        return repr(admit(raw, **limits))
    except MalformedError as error:
        return str(error)


@given(st.recursive(st.sampled_from(SCALARS), _containers, max_leaves=12), st.sampled_from([2, 3, 32]))
@hypothesis_settings(max_examples=2000)
def test_fast_reader_takes_and_refuses_what_the_exact_one_does(text, max_depth):
    raw = text.encode("utf-8", "surrogatepass")
    assert _outcome(canonical.admit, raw, max_depth=max_depth) == _outcome(exact.admit, raw, max_depth=max_depth)


@given(values, st.data())
@hypothesis_settings(max_examples=400)
def test_fast_reader_of_damaged_bytes_is_the_exact_one(value, data):
    raw = bytearray(exact.encode(value))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.binary(max_size=2) | st.sampled_from([b'"', b":", b"\\", b"0", b","])
    )
    assert _outcome(canonical.admit, bytes(raw)) == _outcome(exact.admit, bytes(raw))


@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("form", ["%s", "[%s]", '{"a":%s,"b":1}', '[{"a":{"b":[%s]}},{"a":1}]', '{"a":%s,"a":1}'])
def test_fast_reader_of_each_oddity_is_the_exact_one(scalar, form):
    raw = (form % scalar).encode("utf-8", "surrogatepass")
    assert _outcome(canonical.admit, raw) == _outcome(exact.admit, raw)


def test_fast_reader_keeps_the_limits():
    assert _outcome(canonical.admit, b"[1, 2]", max_bytes=5) == _outcome(exact.admit, b"[1, 2]", max_bytes=5)
    for depth in (31, 32, 33, 400, 100_000):
        raw = b"[" * depth + b"]" * depth
        assert _outcome(canonical.admit, raw) == _outcome(exact.admit, raw)


def test_usual_text_does_not_need_the_exact_reader(monkeypatch):
    def refuse(*_args, **_limits):
        raise AssertionError("the exact reader was asked")

    monkeypatch.setattr(exact, "admit", refuse)
    raw = '[{"a": {"b": [1, 2.5, 1.0, -0.0, null, true, "é: \\u20ac"]}, "c:d": ":"}]'.encode()
    assert repr(canonical.admit(raw)) == repr([{"a": {"b": [1, 2.5, 1, 0, None, True, "é: €"]}, "c:d": ":"}])


@given(st.recursive(st.sampled_from(SCALARS), _containers, max_leaves=12))
@hypothesis_settings(max_examples=600)
def test_what_was_read_as_usual_may_be_written_without_another_look(text):
    raw = f"[{text}]".encode("utf-8", "surrogatepass")
    try:
        reading = canonical.read(raw, max_depth=33)
    except MalformedError:
        return
    if reading.is_usual:
        assert canonical.write(reading.value) == exact.encode(reading.value)


@pytest.mark.parametrize(
    ("raw", "is_usual"), [(b"[1, 2.5, 1.0]", True), (b"[[1e-7]]", False), (b'{"a":{"b":0.00001}}', True)]
)
def test_usual_are_numbers_that_both_write_alike(raw, is_usual):
    assert canonical.read(raw).is_usual == is_usual
