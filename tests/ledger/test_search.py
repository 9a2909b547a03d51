from __future__ import annotations

from datetime import timedelta

import pytest

from auditportal.ledger import search
from auditportal.ledger.drafts import Related, Sealed, Subject
from auditportal.ledger.query import parse
from tests.factories import NOON, make_draft, record

pytestmark = pytest.mark.django_db
VERSION = Subject("model_version", "churn:14")


@pytest.fixture
def events(seal):
    """Seqs by name, in the order they were recorded; their own times go the other way."""
    drafts = {
        "train": make_draft(timestamp=NOON - timedelta(days=1), native_id="run-77", metadata={"metrics": {"auc": 0.9}}),
        "attest": make_draft(action="attest", subject=VERSION, related=[], metadata={"kind": "fairness", "digest": "ab" * 32}),
        "promote": make_draft(action="promote", subject=VERSION, related=[], environment="production", reason="quarterly refresh"),
        "refused": make_draft(
            action="promote", subject=Subject("model_version", "fraud:3"), related=[], outcome="refused",
            environment="production", source_id="deployer",
        ),
        "deploy": make_draft(action="deploy", subject=Subject("deployment", "D-4"), related=[Related("model_version", "churn:14")]),
        "sealed": make_draft(action="validate", metadata={"who": Sealed("Ada")}, subject=Subject("dataset", "é/DS 1"), related=[]),
    }  # fmt: skip
    found = dict(zip(drafts, (item.seq for item in record(*drafts.values())), strict=True))
    seal()
    return found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("action:promote", {"promote", "refused"}),
        ("action:promote model:churn", {"promote"}),
        ("action:promote,deploy outcome:done", {"promote", "deploy"}),
        ("model:churn", {"train", "attest", "promote", "deploy"}),
        ("-model:churn -source:auditportal", {"refused", "sealed"}),
        ("model:fr*", {"refused"}),
        ("version:churn:14", {"train", "attest", "promote", "deploy"}),
        ("subject:model_version:churn:14", {"attest", "promote"}),
        ("deployment:D-4", {"deploy"}),
        ('dataset:"é/DS 1"', {"sealed"}),
        ("outcome:refused", {"refused"}),
        ("environment:production source:deployer", {"refused"}),
        ("source:deployer", {"refused"}),
        ("id:run-77", {"train"}),
        ("quarterly", {"promote"}),
        ("QUARTERLY refresh", {"promote"}),
        ('"refresh quarterly"', {"promote"}),
        ("quart*", {"promote"}),
        ("nothinglikeit", set()),
        ("digest:abababab", {"attest"}),
        ("on:2026-11-19", {"train"}),
        ("before:2026-11-20", {"train"}),
        ("action:promote has:attestation.fairness", {"promote"}),
        ("action:promote -has:attestation.fairness", {"refused"}),
        ("has:sealed", {"sealed"}),
        ("has:reason -source:auditportal", {"promote"}),
        ("meta.metrics.auc:0.9", {"train"}),
        ("meta.kind:fairness", {"attest"}),
        ("meta.kind:robustness", set()),
        ("Ada", set()),
        ("proof:waiting", set()),
        ("actor:erin -source:auditportal", {"train", "attest", "promote", "refused", "deploy", "sealed"}),
    ],
)
def test_query_finds(events, text, names):
    def resolve(name):
        return ["usr_00000000000000000000"] if name == "erin" else []

    page = search.page(parse(text), now=NOON, resolve=resolve, after=None)
    assert set(page.seqs) == {events[name] for name in names}
    assert search.count(parse(text), now=NOON, resolve=resolve) == search.Count(len(names), is_capped=False)


def test_attestation_counts_only_from_its_place_in_the_log_on(events, seal):
    [later] = record(
        make_draft(
            action="attest", subject=Subject("model_version", "fraud:3"), related=[], metadata={"kind": "fairness"}
        )
    )
    seal()
    page = search.page(parse("action:promote -has:attestation.fairness"), now=NOON, resolve=lambda _: [], after=None)
    assert page.seqs == [events["refused"]]
    assert later.seq > events["refused"]


def test_text_that_looks_like_a_mark_is_none(seal):
    record(
        make_draft(
            action="attest", metadata={"kind": "x", "note": "has attestation.fairness"}, subject=VERSION, related=[]
        )
    )
    [promotion] = record(make_draft(action="promote", subject=VERSION, related=[]))
    seal()
    assert search.page(parse("has:attestation.fairness"), now=NOON, resolve=lambda _: [], after=None).seqs == []
    page = search.page(parse("action:promote -has:attestation.fairness"), now=NOON, resolve=lambda _: [], after=None)
    assert page.seqs == [promotion.seq]


def test_pages_follow_each_other_without_a_gap_or_a_repetition(seal):
    record(*(make_draft(timestamp=NOON + timedelta(minutes=n % 3)) for n in range(23)))
    seal()
    seen, after = [], None
    for _ in range(10):
        page = search.page(parse("source:ci-train"), now=NOON, resolve=lambda _: [], after=after, most=5)
        seen += page.seqs
        after = page.older
        if after is None:
            break
        assert search.Cursor.parse(str(after)) == after
    assert len(seen) == len(set(seen)) == 23


def test_order_is_the_events_own_time_or_the_logs(events):
    own = search.page(parse("source:ci-train"), now=NOON, resolve=lambda _: [], after=None).seqs
    recorded = search.page(parse("source:ci-train sort:recorded"), now=NOON, resolve=lambda _: [], after=None).seqs
    assert own[-1] == events["train"]
    assert recorded == sorted(recorded, reverse=True)


def test_histogram_and_facets_count_what_the_rows_show(events):
    found = search.histogram(parse("-source:auditportal"), now=NOON, resolve=lambda _: [])
    assert sum(bar.done for bar in found.bars) == 5
    assert sum(bar.other for bar in found.bars) == 1
    facets = search.facets(parse("outcome:refused"), now=NOON, resolve=lambda _: [], most=6)
    assert [(item.value, item.count) for item in facets["action"]] == [("promote", 1)]
    assert {item.value for item in facets["outcome"]} == {"done", "refused"}
    assert search.newer_than(parse("action:promote"), events["promote"], now=NOON, resolve=lambda _: []).number == 1


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "2026-11-20T12:00:00.000000Z",
        "2026-13-20T12:00:00.000000Z_1",
        "_1",
        "2026-11-20T12:00:00.000000Z_" + "9" * 30,
    ],
)
def test_cursor_that_is_not_ours_is_none(text):
    assert search.Cursor.parse(text) is None


def test_search_that_takes_too_long_gives_up_and_leaves_its_transaction_usable(events, monkeypatch):
    monkeypatch.setattr(search, "PATIENCE_MS", 30)
    with pytest.raises(search.SearchTooSlowError):
        search._rows("SELECT pg_sleep(%s)", [5])
    monkeypatch.setattr(search, "PATIENCE_MS", 5_000)
    assert search.page(parse("action:deploy"), now=NOON, resolve=lambda _: [], after=None).seqs == [events["deploy"]]
