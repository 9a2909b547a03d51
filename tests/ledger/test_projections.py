from __future__ import annotations

import orjson
import pytest
from django.db import connection
from hypothesis import given, settings as hypothesis_settings, strategies as st

from auditportal.ledger import projections, rows, verification
from auditportal.ledger.models import Event, EventText
from tests.factories import make_draft, record, record_many

texts = st.text(st.sampled_from("aBz09 _-/.:'\\\n\tÉΣςİß😀"), max_size=12) | st.sampled_from(
    ["x" * 199, "y" * 200, "z" * 201, "Ab" * 150 + " c", "", " "]
)
values = st.recursive(
    texts | st.integers(-9, 9) | st.booleans() | st.none() | st.just({"$sealed": "sha256:00"}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def body_of(**members):
    return {
        "action": "attest", "event_id": "7d444840-9dc0-41d1-b245-5ffdce74fad2", "source": {"id": "ci", "native_id": "Run/7"},
        "subject": {"type": "model_version", "id": "Churn:14"}, "related": [{"type": "run", "id": "R_1"}], "models": ["Churn"],
    } | members  # fmt: skip


@given(st.lists(texts, max_size=8), st.lists(st.just("has reason"), max_size=1))
@hypothesis_settings(max_examples=600)
def test_words_of_all_texts_at_once_are_those_of_each(found, marks):
    usual = projections._usual_words(marks, found)
    assert usual is None or usual == projections._all_words(marks, found)


def test_usual_texts_are_split_at_once_and_limits_are_kept():
    assert projections._usual_words([], ["Run/7", "a b"]) == {"run/7", "run", "7", "a", "b"}
    many = [f"w{number}" for number in range(projections.MOST_WORDS + 5)]
    assert projections._usual_words([], many) is None
    assert len(projections.words(body_of(metadata={"many": many}))) == projections.MOST_WORDS
    assert projections.words(body_of(reason="x" * 300))[-1] == "x" * projections.LONGEST_WORD


@given(values)
@hypothesis_settings(max_examples=300)
def test_sealed_values_are_marked_and_never_words(value):
    found = projections.words(body_of(metadata={"kind": "Fairness", "value": value}))
    assert ("has sealed" in found) == (b"$sealed" in orjson.dumps(value))
    assert "has attestation.fairness" in found
    assert "has reason" not in found
    assert not any("sha256" in word for word in found)


@pytest.mark.django_db
@given(st.lists(texts.filter(bool), unique=True))
@hypothesis_settings(max_examples=100)
def test_vector_is_what_postgresql_writes(found):
    found.sort()
    with connection.cursor() as cursor:
        cursor.execute("SELECT array_to_tsvector(%s::text[])::text", [found])
        assert cursor.fetchone()[0] == projections.vector(found)


def test_texts_of_a_row_are_those_of_its_times(db, seal):
    record(make_draft(timestamp="0099-01-02T03:04:05.000006Z"), make_draft(timestamp="9999-12-31T23:59:59.999999Z"))
    end = seal()
    entries = [rows.prove(row) for row in rows.between(0, end, end)]
    stored = verification._stored(projections.SELECTED_TEXTS, "event", 0, end)
    assert stored == [projections.event_texts(entry.seq, entry.header.t, entry.body) for entry in entries]


def test_whole_log_agrees_without_a_closer_look(db, seal, monkeypatch):
    record_many(5, reason="it's a \\ test: é", metadata={"deep": [{"Ünï": "x y"}]})
    end = seal()
    told = verification.Told()
    for row in rows.between(0, end, end):
        told.add(rows.prove(row))
    assert told.is_stored(0, end)
    for change in (
        lambda: Event.objects.filter(seq=3).update(native_id="x"),
        lambda: EventText.objects.filter(seq=3).delete(),
    ):
        change()
        assert not told.is_stored(0, end)
