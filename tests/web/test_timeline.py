from __future__ import annotations

import dataclasses

import pytest

from auditportal.ledger.drafts import Subject
from auditportal.web.rows import Row
from tests.factories import make_draft, record, record_many

HTMX = {"HX-Request": "true"}


@pytest.mark.parametrize("count", [1, 3])
def test_number_of_queries_does_not_depend_on_rows(as_person, seal, count, django_assert_num_queries):
    record_many(count)
    seal()
    client = as_person("dave")
    client.get("/timeline/?q=source:ci-train")
    with django_assert_num_queries(18):
        client.get("/timeline/?q=source:ci-train")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("address", ["/timeline/facets/?q=source:ci-train", "/timeline/histogram/?q=source:ci-train"])
def test_fragments_need_a_fixed_number_of_queries(as_person, seal, count, address, django_assert_max_num_queries):
    record_many(count)
    seal()
    client = as_person("dave")
    client.get(address)
    with django_assert_max_num_queries(25):
        client.get(address)


def test_rows_tell_who_did_what_to_what(as_person, seal):
    record(
        make_draft(
            action="promote",
            outcome="refused",
            reason="1 of 2 approvals",
            environment="production",
            subject=Subject("model_version", "churn:14"),
        )
    )
    seal()
    page = as_person("dave").get("/timeline/?q=source:ci-train").content.decode()
    assert "tried to promote" in page
    assert "churn:14" in page
    assert "1 of 2 approvals" in page
    assert "promote refused" in page
    assert 'aria-label="checked"' in page


def test_hostile_texts_are_shown_and_never_run(as_person, seal):
    evil = "<script>alert(1)</script>\u202egnp.exe\u200b"
    record(
        make_draft(
            subject=Subject("run", evil.replace("\u202e", "").replace("\u200b", "")), reason=evil, environment="<b>x"
        )
    )
    seal()
    page = as_person("dave").get("/timeline/").content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "⟨U+202E⟩gnp.exe⟨U+200B⟩" in page
    assert "\u202e" not in page


@pytest.mark.parametrize(
    "q", ["<script>x</script>", '"><img src=x>', "acton:promote", "{{ 1 }}", "%", "\x00", "'" * 50, "model:\u202ex"]
)
def test_hostile_queries_are_answered(as_person, q):
    answer = as_person("dave").get("/timeline/", {"q": q})
    assert answer.status_code == 200
    assert "<script>x" not in answer.content.decode()
    assert "<img" not in answer.content.decode()


def test_faulty_query_keeps_rows_and_points_at_the_fault(as_person, seal):
    record()
    seal()
    page = as_person("dave").get("/timeline/?q=model:churn+acton:promote").content.decode()
    assert "did you mean action:?" in page
    assert "            ^^^^^" in page
    assert "trained" in page


def test_search_without_a_match_counts_what_each_term_costs(as_person, seal):
    record_many(2)
    seal()
    page = as_person("dave").get("/timeline/?q=source:ci-train+action:deploy").content.decode()
    assert "No event matches" in page
    assert 'Without <code>action:deploy</code>: <a class="link" href="/timeline/?q=source%3Aci-train">2</a>' in page


def test_older_rows_follow_by_link_and_as_a_fragment(as_person, seal):
    record_many(53)
    seal()
    client = as_person("dave")
    page = client.get("/timeline/?q=source:ci-train")
    href = page.context["older"]
    assert page.content.decode().count('class="ev"') == 50
    assert client.get(href).content.decode().count('class="ev"') == 3
    fragment = client.get(href, headers=HTMX).content.decode()
    assert "<html" not in fragment
    assert fragment.count('class="ev"') == 3


def test_newer_rows_are_counted_and_do_not_move(as_person, seal):
    record_many(2)
    seal()
    client = as_person("dave")
    assert "Show 1 newer" in client.get("/timeline/newer/?q=source:ci-train&seen=8").content.decode()
    assert "newer" not in client.get("/timeline/newer/?q=source:ci-train&seen=9").content.decode()
    assert client.get("/timeline/newer/?seen=x").status_code == 204


def test_broken_row_stands_out_and_shows_nothing_of_its_body(as_person, seal, people):
    record_many(2)
    seal()
    from django.db import connection

    with connection.cursor() as cursor:  # the projection alone: what the application's own role could change
        cursor.execute("UPDATE ledger_event SET outcome = 'refused' WHERE seq = %s", [8])
    page = as_person("dave").get("/timeline/?q=source:ci-train").content.decode()
    assert page.count("is-broken") == 1
    assert "PROJECTION_MISMATCH" in page
    event = as_person("dave").get("/events/8/").content.decode()
    assert "does not match the log" in event
    assert "PROJECTION_MISMATCH" in event
    assert "0.921" not in event
    assert as_person("dave").get("/events/8/json").status_code == 409


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("12", "/events/12/"),
        ("#1,204", "/events/1204/"),
        ("churn", "/timeline/?q=churn"),
        ("action:train", "/timeline/?q=action%3Atrain"),
        ("", "/timeline/"),
        ("9" * 40, "/timeline/?q=" + "9" * 40),
    ],
)
def test_jump_opens_a_seq_and_searches_the_rest(as_person, typed, place):
    answer = as_person("dave").get("/jump/", {"q": typed})
    assert (answer.status_code, answer["Location"]) == (302, place)


def test_facets_toggle_and_chips_remove(as_person, seal):
    record_many(2)
    seal()
    client = as_person("dave")
    facets = client.get("/timeline/facets/?q=action:train", headers=HTMX).content.decode()
    assert 'href="/timeline/?q=action%3Atrain+outcome%3Adone"' in facets
    assert 'aria-current="true"' in facets
    page = client.get("/timeline/?q=action:train+-model:x").content.decode()
    assert 'aria-label="Remove filter not model x"' in page


def test_event_page_number_of_queries_is_bounded(as_person, seal, django_assert_max_num_queries):
    record_many(3)
    seal()
    client = as_person("dave")
    client.get("/events/8/")
    with django_assert_max_num_queries(40):
        client.get("/events/8/")


def test_event_page_shows_facts_proof_and_what_was_not_reported(as_person, seal):
    [item] = record()
    seal()
    page = as_person("dave").get(f"/events/{item.seq}/").content.decode()
    for text in (
        "Proof holds",
        "Included in the checkpoint of size",
        "self-attested",
        "Not reported by the producer",
        "commit",
        "DS:2026-11",
        "usr_00000000000000000000",
    ):
        assert text in page
    assert item.leaf_hash.hex() in page


def test_waiting_event_says_so_and_its_proof_comes_later(as_person):
    [item] = record()
    client = as_person("dave")
    page = client.get(f"/events/{item.seq}/").content.decode()
    assert "waiting for a checkpoint" in page
    answer = client.get(f"/events/{item.seq}/proof")
    assert (answer.status_code, answer["Retry-After"]) == (404, "1")


def test_json_is_exactly_the_recorded_bytes(as_person, seal):
    from auditportal.ledger.models import Body

    [item] = record()
    seal()
    answer = as_person("dave").get(f"/events/{item.seq}/json")
    assert answer.content == bytes(Body.objects.get(seq=item.seq).body or b"")


def test_unknown_event_is_a_helpful_404(as_person):
    answer = as_person("dave").get("/events/999/")
    assert answer.status_code == 404
    assert "is not recorded in this log" in answer.content.decode()
    assert answer["X-Request-ID"] in answer.content.decode()


@pytest.mark.parametrize("field", [item.name for item in dataclasses.fields(Row) if item.type == "str"])
def test_no_text_of_a_row_is_markup(field):
    texts = {item.name: item.name for item in dataclasses.fields(Row) if item.type == "str"}
    texts |= {"mark": "check", "failure": ""}
    hostile = "\"><script>alert('x')</script>&"
    row = Row(**(texts | {"seq": 1, "tags": [hostile], "is_custom": False, field: hostile}))
    assert "<script" not in row.html
    assert "alert('" not in row.html
    assert row.html.count("&lt;script&gt;") >= 1
