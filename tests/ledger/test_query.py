from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from auditportal.ledger.query import KEYS, Form, Query, QueryError, Term, Value, parse, period

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def day(*parts):
    return datetime(*parts, tzinfo=UTC)


def test_the_query_of_the_compliance_officer_reads_as_typed():
    query = parse("action:promote environment:production model:churn during:2026-Q2 -has:attestation.fairness")
    assert [(term.key, term.is_negated, str(term.values[0])) for term in query.terms] == [
        ("action", False, "promote"), ("environment", False, "production"), ("model", False, "churn"),
        ("during", False, "2026-Q2"), ("has", True, "attestation.fairness"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("fairness", [Term("", (Value(Form.EXACT, "fairness"),), start=0, end=8)]),
        ('"two words"', [Term("", (Value(Form.EXACT, "two words"),), start=0, end=11)]),
        ("-noise", [Term("", (Value(Form.EXACT, "noise"),), is_negated=True, start=0, end=6)]),
        ("fair*", [Term("", (Value(Form.PREFIX, "fair"),), start=0, end=5)]),
        ("version:churn:14", [Term("version", (Value(Form.EXACT, "churn:14"),), start=0, end=16)]),
        ("model:a,b", [Term("model", (Value(Form.EXACT, "a"), Value(Form.EXACT, "b")), start=0, end=9)]),
        ('model:"a, b"', [Term("model", (Value(Form.EXACT, "a, b"),), start=0, end=12)]),
        ("seq:>=10", [Term("seq", (Value(Form.FROM, "10"),), start=0, end=8)]),
        ("seq:10..20", [Term("seq", (Value(Form.RANGE, "10", "20"),), start=0, end=10)]),
        ("model:churn*", [Term("model", (Value(Form.PREFIX, "churn"),), start=0, end=12)]),
        ("meta.metrics.auc:0.9", [Term("meta.metrics.auc", (Value(Form.EXACT, "0.9"),), start=0, end=20)]),
        ("09:03", [Term("", (Value(Form.EXACT, "09:03"),), start=0, end=5)]),
        ("-", [Term("", (Value(Form.EXACT, "-"),), start=0, end=1)]),
    ],
)
def test_forms(text, terms):
    assert list(parse(text).terms) == terms


@pytest.mark.parametrize(
    ("text", "message", "span"),
    [
        ("model:a acton:promote", "did you mean action:?", (8, 13)),
        ("outcome:won", "done, refused, failed", (0, 11)),
        ("seq:ten", "whole numbers", (0, 7)),
        ("digest:abc", "hex digits", (0, 10)),
        ("during:soon", "takes a time", (0, 11)),
        ("during:2026-13", "takes a time", (0, 14)),
        ("after:2026-02-30", "takes a time", (0, 16)),
        ("subject:churn", "type:id", (0, 13)),
        ("has:everything", "attestation", (0, 14)),
        ("model:", "needs a value", (0, 6)),
        ('model:"a', "does not end", (6, 8)),
        ('""', "finds nothing", (0, 2)),
        ("model:a,", "is missing", (8, 8)),
        ("x" * 2001, "2000 characters", (2000, 2001)),
        ("a " * 31, "30 terms", (60, 61)),
    ],
)
def test_faults_say_what_and_where(text, message, span):
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert message in caught.value.message
    assert (caught.value.start, caught.value.end) == span


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("during:2026", day(2026, 1, 1), day(2027, 1, 1)),
        ("during:2026-Q4", day(2026, 10, 1), day(2027, 1, 1)),
        ("during:2026-12", day(2026, 12, 1), day(2027, 1, 1)),
        ("during:24h", NOW - timedelta(hours=24), None),
        ("during:7d", NOW - timedelta(days=7), None),
        ("on:2026-11-20", day(2026, 11, 20), day(2026, 11, 21)),
        ("before:2026-11-20", None, day(2026, 11, 20)),
        ("after:2026-11-20", day(2026, 11, 20), None),
        ("after:>2026-11-20", day(2026, 11, 21), None),
        ("before:2026-11-20T14:00:00+02:00", None, day(2026, 11, 20, 12)),
        ("recorded:2026-11-20..2026-11-21", day(2026, 11, 20), day(2026, 11, 22)),
        ("during:<=2026-Q1", None, day(2026, 4, 1)),
    ],
)
def test_time_words_become_half_open_ranges(text, since, until):
    [term] = parse(text).terms
    found = period(term, now=NOW)
    assert (found.since, found.until) == (since, until)


def test_canonical_form_is_one_for_equal_queries():
    assert parse("model:b  -x action:a model:b").canonical() == parse("action:a model:b -x").canonical()


def test_toggle_adds_and_takes_away():
    query = parse("model:churn action:train")
    added = query.toggled("action", "deploy")
    assert added.canonical() == "action:train,deploy model:churn"
    assert added.toggled("action", "train").toggled("action", "deploy").canonical() == "model:churn"
    assert query.without(query.terms[0]).canonical() == "action:train"


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["-", '"', ",", ":", "..", ">", "*", " ", *KEYS]), max_size=12).map("".join)
)
def test_any_text_is_a_query_or_a_named_fault(text):
    fault = None
    try:
        assert isinstance(parse(text), Query)
    except QueryError as error:
        fault = error
    if fault is not None:
        assert fault.message
        assert 0 <= fault.start <= fault.end <= max(len(text), 1)


words = st.text(
    alphabet=st.characters(blacklist_characters='"', blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12
)


@given(st.lists(st.tuples(st.sampled_from(["", "model", "actor", "action", "id"]), st.booleans(), words), max_size=6))
def test_canonical_reads_back_as_itself(parts):
    terms = tuple(Term(key, (Value(Form.EXACT, word),), negated) for key, negated, word in parts)
    text = Query(terms).canonical()
    again = parse(text)
    assert again.canonical() == text
    assert {(term.key, term.is_negated, term.values) for term in again.terms} == {
        (term.key, term.is_negated, term.values) for term in terms
    }
