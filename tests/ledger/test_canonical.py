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


@pytest.mark.parametrize("value", [2**53, float("nan"), float("inf"), "\ud800", {"a": {1, 2}}, b"x"])
def test_what_has_no_form_is_refused(value):
    with pytest.raises(MalformedError):
        canonical.encode(value)
