from __future__ import annotations

import dataclasses
import uuid
from datetime import timedelta

import pytest
from django.db import transaction

from auditportal.ledger import queries, services
from auditportal.ledger.drafts import Sealed
from auditportal.ledger.errors import ConflictError, InvalidEventError
from auditportal.ledger.models import Body, Entry, SealedValue
from auditproof import headers, sealed
from tests.factories import NOON, make_draft, record, record_many

pytestmark = pytest.mark.django_db


def test_append_gives_places_without_a_gap_each_following_the_one_before():
    recorded = record_many(3)
    entries = list(Entry.objects.order_by("seq"))
    assert [item.seq for item in recorded] == [1, 2, 3]
    prev = headers.NO_PREV
    for seq, entry in enumerate(entries):
        body = Body.objects.get(seq=seq)
        header, _ = headers.check_entry(
            bytes(entry.header), seq=seq, origin="test.invalid/log", leaf=bytes(entry.leaf_hash), prev=prev,
            salt=bytes(body.salt or b""), body=bytes(body.body or b""),
        )  # fmt: skip
        assert header.event_id == str(entry.event_id)
        prev = bytes(entry.leaf_hash)


def test_recording_writes_what_inner_services_append_as_one_batch():
    with transaction.atomic(), services.recording():
        assert services.append([make_draft()]) == []
        with services.recording():
            assert services.append([make_draft(), make_draft()]) == []
        assert Entry.objects.count() == 1
    assert Entry.objects.count() == 4


def test_recording_block_that_fails_writes_nothing():
    with pytest.raises(ZeroDivisionError), transaction.atomic(), services.recording():
        services.append([make_draft()])
        raise ZeroDivisionError
    assert Entry.objects.count() == 1
    with transaction.atomic():
        assert [item.seq for item in services.append([make_draft()])] == [1]


def test_same_event_again_keeps_its_place():
    draft = make_draft(event_id=str(uuid.uuid4()))
    first, again = record(draft)[0], record(draft)[0]
    assert again == dataclasses.replace(first, is_new=False)
    assert Entry.objects.count() == 2


def test_same_id_with_other_content_is_a_conflict_and_stores_nothing_of_the_batch():
    event_id = str(uuid.uuid4())
    record(make_draft(event_id=event_id))
    with pytest.raises(ConflictError) as caught:
        record(make_draft(), make_draft(event_id=event_id, metadata={"auc": 0.5}))
    [conflict] = caught.value.conflicts
    assert (conflict.index, conflict.event_id, conflict.seq) == (1, event_id, 1)
    assert Entry.objects.count() == 2


def test_same_id_from_another_source_is_another_event():
    event_id = str(uuid.uuid4())
    record(make_draft(event_id=event_id))
    assert record(make_draft(event_id=event_id, source_id="other"))[0].is_new


def test_equal_and_conflicting_ids_within_one_batch():
    event_id = str(uuid.uuid4())
    draft = make_draft(event_id=event_id)
    first, second = record(draft, draft)
    assert (first.seq, second.seq, second.is_new) == (1, 1, False)
    other = str(uuid.uuid4())
    with pytest.raises(ConflictError) as caught:
        record(make_draft(event_id=other), make_draft(event_id=other, reason="else"))
    assert caught.value.conflicts[0].seq is None


def test_invalid_event_names_index_member_and_rule():
    with pytest.raises(InvalidEventError) as caught:
        record(make_draft(), make_draft(action="Train", outcome="won"))
    [fault] = caught.value.faults
    assert (fault.index, fault.member) == (1, "/action")
    assert Entry.objects.count() == 1


def test_clock_that_falls_back_never_makes_time_fall_in_the_log(monkeypatch):
    record()
    before = headers.parse_header(bytes(Entry.objects.get(seq=1).header)).t
    monkeypatch.setattr("django.utils.timezone.now", lambda: NOON - timedelta(days=900))
    record()
    assert headers.parse_header(bytes(Entry.objects.get(seq=2).header)).t == before


def test_sealed_values_stand_aside_and_open_what_the_body_commits_to():
    record(make_draft(reason=Sealed("because of Ada"), metadata={"who": {"name": Sealed("Ada L.")}, "auc": 1}))
    body = bytes(Body.objects.get(seq=1).body or b"")
    assert b"Ada" not in body
    event = queries.recorded([1])[0]
    found = {item.pointer: item for item in SealedValue.objects.filter(seq=1)}
    assert set(found) == {"/reason", "/metadata/who/name"}
    for pointer, item in found.items():
        sealed.check_disclosure(event.body, pointer=pointer, salt=bytes(item.salt), value=bytes(item.value), place="1")
    assert queries.disclosures(1) == {"/reason": b'"because of Ada"', "/metadata/who/name": b'"Ada L."'}
