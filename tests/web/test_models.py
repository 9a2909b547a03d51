from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from urllib.parse import quote

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from auditportal.accounts import services as accounts
from auditportal.approvals import queries as approval_queries, services as approvals
from auditportal.approvals.models import Promotion
from auditportal.catalog import services as catalog
from auditportal.catalog.models import Version
from auditportal.ingest import sources
from auditportal.ledger.drafts import SYSTEM, Subject
from auditportal.web.catalog import address
from auditportal.web.formats import short_digest
from tests import kits
from tests.conftest import PASSWORD
from tests.factories import NOON, make_draft, record

KIT = "/models/acme/rf-model-audit/"
LATER = NOON + timedelta(hours=1)
HOSTILE = [
    "plain",
    "ä ö/ü",
    "二号 模型",
    'quote" onmouseover="alert(1)',
    "<script>alert(1)</script>",
    "a/../b",
    "..",
    ".",
    "/lead",
    "trail/",
    "a//b",
    "per%2Fcent?x=1#y&z",
    "line\nfeed",
    "bidi\u202egpj.exe",
    "back\\slash",
    "x/versions/1",
    "x/compare/1..2",
    "name={{ x }}",
]


def text_of(answer) -> str:
    """What a reader sees, tags away and spaces folded."""
    page = answer.content.decode().split("<main", 1)[1].split("</main>", 1)[0]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


@pytest.fixture
def both(people):
    return kits.observe("0.1.0", state="checked"), kits.observe("0.2.0", now=LATER)


@pytest.fixture
def dave(as_person):
    return as_person("dave")


def test_empty_list_says_how_models_appear(dave):
    assert "No model is known yet." in text_of(dave.get("/models/"))


def test_list_tells_production_newest_check_and_card(both, dave):
    catalog.place(version=both[0], environment="production", request="", now=NOON)
    kits.observe_mlflow()
    page = text_of(dave.get("/models/"))
    assert "2 models" in page
    assert "acme/rf-model-audit 0.1.0 checked 0.2.0" in page
    assert "reported only missing 2" in page
    assert "churn none 14" in page
    assert "never looked for 1" in page
    found = text_of(dave.get("/models/?q=CHUR"))
    assert "1 model with “CHUR” in their name" in found
    assert "rf-model-audit" not in found
    assert "No model has this in its name." in text_of(dave.get("/models/?q=%00nothing"))


def test_list_goes_on_over_pages(people, dave):
    for n in range(51):
        catalog.model_named(f"m{n:02}", NOON)
    first = dave.get("/models/")
    assert "m49" in text_of(first)
    assert "m50" not in text_of(first)
    assert 'href="?page=2"' in first.content.decode()
    assert "m50" in text_of(dave.get("/models/?page=2"))
    assert dave.get("/models/?page=nonsense").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/models/",
        KIT,
        f"{KIT}?tab=history",
        f"{KIT}versions/0/",
        f"{KIT}versions/0/?tab=card",
        f"{KIT}compare/0..0/",
        "/",
    ],
)
def test_number_of_queries_does_not_depend_on_rows(people, dave, path):
    counts = []
    for n in (0, 1, 2):
        kit = kits.make_kit(
            {"model": {"name": str(n)}}, layers=[("model.v1.tar", b"%d" % item) for item in range(n + 1)]
        )
        version = kits.observed(kit, tag=str(n))
        catalog.observe_tag(
            source=kits.SOURCE,
            repository=kits.REPOSITORY,
            tag="x",
            digest=kit.digest,
            now=NOON,
            actor=people["erin"].actor.id,
        )
        catalog.place(version=kits.observe_mlflow(f"m{n}"), environment="production", request="", now=NOON)
        catalog.place(version=version, environment=f"env{n}", request="", now=NOON)
        if n == 1:
            continue
        dave.get(path)
        with CaptureQueriesContext(connection) as queries:
            assert dave.get(path).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_versions_show_state_size_tags_packer_and_metrics(both, people, dave):
    name = accounts.actor_for_alias(source_id=kits.SOURCE, name="ci-bot", type="user", now=NOON)
    catalog.observe_tag(
        source=kits.SOURCE,
        repository=kits.REPOSITORY,
        tag="latest",
        digest=both[1].manifest_digest,
        now=LATER,
        actor=name.id,
    )
    page = text_of(dave.get(KIT))
    assert (
        f"0.2.0 {short_digest(both[1].manifest_digest)} reported only 0.2.0 latest Fri 20 Nov 2026 ci-bot, claimed 20.7 kB"
        in page
    )
    assert "20.7 kB accuracy 0.9733 missing" in page
    assert f"0.1.0 {short_digest(both[0].manifest_digest)} checked" in page
    assert "nobody reported 30.9 kB accuracy 0.9667 present" in page
    assert "No version stands in any environment" in page


def test_stage_is_not_explained_by_what_a_stranger_sends(both, dave, seal):
    """Whoever holds a token may post `promote`; only the portal's own event says what stands where."""
    catalog.place(version=both[0], environment="production", request="", now=NOON)
    promote = {"action": "promote", "subject": Subject("model_version", both[0].label), "related": []}
    [item] = record(make_draft(**promote, environment="production"))
    seal()
    page = dave.get(KIT)
    assert f'href="/events/{item.seq}/">event {item.seq}</a>' not in page.content.decode()
    said = "not proven no request is recorded since 20 Nov 2026 12:00:00.000 UTC · search its event"
    assert f"production 0.1.0 checked {said}" in text_of(page)


def test_contents_tell_layers_commands_and_what_is_stated(both, dave):
    sources.register(id=kits.SOURCE, kind="oci", url="https://kits.example:5000", actor=SYSTEM, now=NOON)
    answer = dave.get(f"{KIT}versions/0.1.0/")
    page, raw = text_of(answer), answer.content.decode()
    for layer in both[0].layers.all():
        assert layer.digest in raw
        assert layer.diff_id in raw
        assert layer.media_type in raw
    assert f"kit pull kits.example:5000/acme/rf-model-audit@{both[0].manifest_digest}" in page
    assert "kit pull kits.example:5000/acme/rf-model-audit:0.1.0" in page
    assert "Packed 2026-11-20T10:00:00Z Format KitOps ModelKit Metrics accuracy 0.9667" in page
    assert "Dataset data/iris.csv iris 168 B" in page
    assert "a1b2c3d4e5f60718293a4b5c6d7e8f90 reported only" in page


def test_source_that_is_not_configured_is_said(both, dave):
    assert "The source registry is not configured here" in text_of(dave.get(f"{KIT}versions/0.1.0/"))


def test_card_is_rendered_or_its_absence_said(both, dave):
    page = text_of(dave.get(f"{KIT}versions/0.1.0/?tab=card"))
    assert "Model card present license apache-2.0 Model card" in page
    assert "Model card missing: no docs layer" in text_of(dave.get(f"{KIT}versions/0.2.0/?tab=card"))
    lost = kits.observed(kits.make_kit({"package": {}}, card_state="unreachable"), tag="9")
    assert "could not be looked for" in text_of(dave.get(address(lost.model.name, "9", tab="card")))
    mlflow = kits.observe_mlflow()
    assert "never looked for MLflow versions hold no model card" in text_of(
        dave.get(address(mlflow.model.name, "14", tab="card"))
    )


def test_card_cannot_run_anything(dave, people):
    evil = "# Hi\n<script>alert(1)</script>\n[x](javascript:alert(1)) ![y](https://evil.example/p.png)"
    kits.observed(kits.make_kit({}, card=evil, card_state="checked"), tag="1")
    page = dave.get(f"{KIT}versions/1/?tab=card").content.decode().split("<main", 1)[1].split("</main>", 1)[0]
    assert "<script" not in page
    assert 'href="javascript' not in page
    assert "<img" not in page


def test_kitfile_is_shown_as_written_and_as_stored(both, dave):
    page = unescape(dave.get(f"{KIT}versions/0.1.0/?tab=kitfile").content.decode())
    assert "package:\n  name: rf-model-audit\n  version: 0.1.0\n" in page
    assert '"diffId":"sha256:f5dbe18a' in page
    kits.observe_mlflow()
    assert "MLflow versions have no Kitfile" in text_of(dave.get("/models/churn/versions/14/?tab=kitfile"))


def test_history_has_all_events_of_the_model_and_refused_ones(both, dave, seal):
    subject = Subject("model_version", both[0].label)
    record(make_draft(action="promote", outcome="refused", subject=subject, related=[], reason="no approval"))
    record(make_draft(action="package", subject=subject, related=[]))
    record(make_draft(action="package", subject=Subject("model_version", "other:1"), related=[]))
    seal()
    page = text_of(dave.get(f"{KIT}?tab=history"))
    assert "tried to promote acme/rf-model-audit:0.1.0 no approval" in page
    assert "packed acme/rf-model-audit:0.1.0" in page
    assert "other:1" not in page
    assert "No event names this model yet" in text_of(
        dave.get(address(kits.observe_mlflow().model.name, tab="history"))
    )


def test_history_goes_back_by_pages(both, dave, seal):
    subject = Subject("model_version", both[0].label)
    record(
        *(
            make_draft(action="package", subject=subject, related=[], timestamp=NOON + timedelta(seconds=n))
            for n in range(51)
        )
    )
    seal()
    page = dave.get(f"{KIT}?tab=history").content.decode()
    assert page.count('class="ev"') == 50
    older = unescape(re.search(r'href="([^"]*cursor=[^"]*)"', page)[1])
    assert dave.get(older).content.decode().count('class="ev"') == 1


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("checked", "checked"),
        ("reported only", "reported only"),
        ("unreachable", "neither a match nor a loss"),
        ("missing", "no longer holds what was recorded"),
        ("mismatch", "no longer holds what was recorded"),
        ("truncated", "no longer holds what was recorded"),
    ],
)
def test_each_state_is_a_word_of_its_own(people, dave, state, word):
    kits.observe("0.1.0", state=state)
    words = {"checked", "reported only", "unreachable", "missing", "mismatch", "truncated"}
    head = text_of(dave.get(f"{KIT}versions/0.1.0/?tab=kitfile")).split("Version 0.1.0 ")[1].split(" Label")[0]
    assert head == state
    assert word in text_of(dave.get(f"{KIT}versions/0.1.0/"))
    row = text_of(dave.get(KIT)).split("8f3d65 ")[1]
    assert row.startswith(state)
    assert {w for w in words if row.startswith(w)} == {state}


def test_unread_version_says_that_nothing_is_known_of_it(people, dave):
    kit = kits.make_kit({}, manifest=None, config=None, kit=None, card_state="", state="unreachable", note="no answer")
    kits.observed(kit, tag="9")
    assert "could not be read yet, so the layers are not known (unreachable)" in text_of(dave.get(f"{KIT}versions/9/"))
    assert "The card was never looked for" in text_of(dave.get(f"{KIT}versions/9/?tab=card"))
    assert "so the Kitfile is not known" in text_of(dave.get(f"{KIT}versions/9/?tab=kitfile"))
    assert "not known not reported never looked for" in text_of(dave.get(KIT))


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_has_a_page_for_each_tab_and_shows_as_text(people, dave, name):
    one, other = kits.observe_mlflow(name, "1"), kits.observe_mlflow(name, "2")
    listing = dave.get("/models/").content.decode()
    assert "<script>alert" not in listing
    href = unescape(re.search(r'<th scope="row" class="path"><a class="link" href="([^"]*)"', listing)[1])
    assert href == address(name)
    assert "/../" not in href.split("?")[0]
    page = dave.get(href)
    assert page.status_code == 200
    shown = text_of(page)
    assert "2 no digest: MLflow keeps none reported only" in shown
    for link in re.findall(
        r'href="([^"]*)"', page.content.decode().split('aria-label="About this model"')[1].split("</nav>")[0]
    ):
        assert dave.get(unescape(link)).status_code == 200
    answer = dave.get("/compare/", {"a": one.label, "b": other.label}, follow=True)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.content.decode()
    text = dave.get("/compare.txt", {"a": one.label, "b": other.label}).content.decode()
    assert text.count("\n  ModelKit1: ") == 1


def test_version_name_that_is_no_path_is_reached_by_parameters(people, dave):
    kits.observed(kits.make_kit({"package": {}}), tag="..")
    kits.observed(kits.make_kit({"package": {"name": "x"}}), tag="1..2")
    assert dave.get(address(kits.REPOSITORY, "..")).status_code == 200
    assert dave.get(address(kits.REPOSITORY, "1..2")).status_code == 200
    answer = dave.get("/compare/", {"a": f"{kits.REPOSITORY}:..", "b": f"{kits.REPOSITORY}:1..2"})
    assert answer.status_code == 200
    kits.observed(kits.make_kit({"package": {"name": "y"}}), tag="3")
    answer = dave.get(f"{KIT}compare/1..2..3/")
    assert "rf-model-audit: 1..2 to 3" in text_of(answer)


@pytest.mark.parametrize(
    "path",
    [
        "/models/nobody/",
        "/models/acme/",
        f"{KIT}versions/9/",
        f"{KIT}?tab=nothing",
        "/models/?name=nobody",
        "/models/?name=%00",
        f"/models/?name={quote('acme/rf-model-audit')}&version=9",
        f"{KIT}compare/0.1.0..9/",
        f"{KIT}compare/9..0.1.0/",
        "/models/nobody/compare/1..2/",
        "/compare.txt",
        "/compare.txt?a=acme/rf-model-audit:0.1.0&b=x",
        "/compare/?a=acme/rf-model-audit:0.1.0&b=x",
    ],
)
def test_what_is_not_there_is_not_found(both, dave, path):
    assert dave.get(path).status_code == 404


def test_model_without_versions_has_its_page(people, dave):
    catalog.model_named("empty", NOON)
    assert "No version is known yet" in text_of(dave.get("/models/empty/"))
    assert dave.get("/models/empty/?tab=history").status_code == 200
    assert dave.get("/models/empty/?tab=contents").status_code == 404


def test_versions_go_back_by_pages(people, dave):
    for n in range(101):
        kits.observe_mlflow("many", str(n), creation_timestamp=n)
    page = dave.get("/models/many/").content.decode()
    older = unescape(re.search(r'href="([^"]*before=[^"]*)"', page)[1])
    assert page.count('name="a"') == 100
    assert dave.get(older).content.decode().count('name="a"') == 1
    assert dave.get("/models/many/?before=x").content.decode().count('name="a"') == 100


def test_choosing_two_leads_to_their_comparison(both, dave):
    answer = dave.get("/compare/", {"a": both[0].label, "b": both[1].label})
    assert (answer.status_code, answer["Location"]) == (302, f"{KIT}compare/0.1.0..0.2.0/")
    assert "Choose two versions." in text_of(dave.get("/compare/"))


def test_comparison_shows_changes_first_and_folds_the_rest(both, dave):
    answer = dave.get(f"{KIT}compare/0.1.0..0.2.0/")
    page = text_of(answer)
    assert "acme/rf-model-audit: 0.1.0 to 0.2.0" in page
    assert "Layers 3 of 4 changed" in page
    assert "2 changed, 1 removed, 1 the same" in page
    wanted = ["~ changed data/iris.csv", "\u2212 removed README.md", "1 unchanged layer", "= same src"]
    order = [page.index(text) for text in wanted]
    assert order == sorted(order)
    assert "Both versions name the MLflow run a1b2c3d4" in page
    assert "accuracy 0.9667 0.9733 +0.0066" in page
    assert "~ changed /model/version 0.1.0 0.2.0" in page
    assert "6 fields that change with the packed bytes" in page
    assert "Model card lost 0.2.0 has no model card; 0.1.0 has one." in page
    assert "= same MLflow run" in page
    assert "~ changed dataset_sha256 as declared" in page
    assert "identical" not in page


def test_comparison_with_itself_is_identical(both, dave):
    page = text_of(dave.get(f"{KIT}compare/0.1.0..0.1.0/"))
    assert "The two are identical" in page
    assert "not all of its bytes" not in page
    assert "not all of its bytes were read" in text_of(dave.get(f"{KIT}compare/0.2.0..0.2.0/"))


@pytest.mark.parametrize("state", ["mismatch", "truncated", "missing"])
def test_nothing_is_the_same_on_bytes_that_did_not_stand(both, dave, state):
    catalog.note_check(both[1], state=state, note="", now=LATER, is_complete=True)
    for path in ("0.1.0..0.2.0", "0.2.0..0.2.0"):
        answer = dave.get(f"{KIT}compare/{path}/")
        page = text_of(answer)
        assert "Recorded bytes did not stand their check" in page
        layers = page.split("Where it came from")[0]
        assert "= same" not in layers
        assert "the same," not in layers
        assert "? not compared" in layers
        assert "identical" not in page


def test_versions_of_two_models_compare_in_place(both, dave):
    other = kits.observe("v1", repository="acme/mp")
    answer = dave.get("/compare/", {"a": both[0].label, "b": other.label})
    assert answer.status_code == 200
    assert "acme/rf-model-audit:0.1.0 to acme/mp:v1" in text_of(answer)


def test_mlflow_version_is_not_compared_by_layers(both, dave):
    mlflow = kits.observe_mlflow()
    page = text_of(dave.get("/compare/", {"a": mlflow.label, "b": both[0].label}))
    assert "keeps no digest of its files: its layers are not compared" in page
    assert "Layers Not compared" in page
    assert "added" not in page.split("Where it came from")[0]


def test_text_is_a_download_and_says_what_the_page_says(both, dave):
    answer = dave.get("/compare.txt", {"a": both[0].label, "b": both[1].label})
    assert answer["Content-Disposition"] == 'attachment; filename="comparison.txt"'
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    text = answer.content.decode()
    assert "Changed Layers:\n  ~ Dataset      sha256:bd8d72eda7" in text
    assert "/model/parameters/metrics/accuracy: 0.9667 -> 0.9733" in text


def test_kit_of_very_many_layers_is_shown_in_part_and_that_is_said(people, dave):
    for tag, count in (("1", 1003), ("2", 1)):
        content = [("model.v1.tar", b"%d" % n) for n in range(count)]
        kits.observed(kits.make_kit({"package": {"name": tag}}, layers=content), tag=tag)
    page = text_of(dave.get(f"{KIT}versions/1/"))
    assert "1,003, 2.9 kB in all; digests as the manifest states them; the first 1,000 are shown" in page
    page = text_of(dave.get(f"{KIT}compare/1..2/"))
    assert "up to 3 rows are not shown" in page
    assert "1,002 removed, 1 the same" in page
    text = dave.get("/compare.txt", {"a": f"{kits.REPOSITORY}:1", "b": f"{kits.REPOSITORY}:2"}).content.decode()
    assert text.count("Model") >= 1003


def test_hostile_kitfile_is_only_text_everywhere(people, dave):
    evil = "<img src=x onerror=alert(1)>\u202e"
    kitfile = {
        "package": {"name": evil, evil: evil},
        "model": {"name": evil, "path": evil, "parameters": {"metrics": {evil: 1.0}, "git_commit": evil}},
        "datasets": [{"name": evil, "remotePath": evil}],
    }
    kits.observed(kits.make_kit(kitfile, layers=[("model.v1.tar", b"1")], card=evil, card_state="checked"), tag="1")
    kits.observed(kits.make_kit({"model": {"name": evil}}, layers=[("model.v1.tar", b"2")]), tag="2")
    for path in ("", "versions/1/", "versions/1/?tab=card", "versions/1/?tab=kitfile", "compare/1..2/"):
        answer = dave.get(KIT + path)
        assert answer.status_code == 200
        assert "<img" not in answer.content.decode()
        assert "\u202e" not in answer.content.decode().replace('value="', "")


@pytest.mark.parametrize("person", ["alice", "bob", "carol", "dave", "erin", "frank"])
def test_links_to_other_pages_are_there_for_those_who_may(both, as_person, person):
    page = as_person(person).get(KIT).content.decode()
    for text, route, allowed in (
        ("Ask for promotion", "approvals-new", {"alice", "bob", "erin"}),
        ("Audit bundle", "bundles-new", {"alice", "bob", "carol", "dave"}),
    ):
        assert (text in page) == (person in allowed and is_route(route))


def is_route(name: str) -> bool:
    from django.urls import NoReverseMatch, reverse

    try:
        return bool(reverse(name))
    except NoReverseMatch:
        return False


def test_overview_counts_and_tells_what_stands_in_production(both, dave, seal):
    page = text_of(dave.get("/"))
    assert "Refused and failed 0 attempts" in page
    assert "Versions whose bytes match 1 of 2 1 reported only" in page
    assert "Nothing stands in production" in page
    catalog.place(version=both[0], environment="production", request="", now=NOON)
    catalog.place(version=both[1], environment="staging", request="", now=NOON)
    record(make_draft(outcome="refused"), make_draft(outcome="failed"), make_draft())
    seal()
    answer = dave.get("/")
    page = text_of(answer)
    assert "Refused and failed 2 attempts" in page
    row = "acme/rf-model-audit 0.1.0 20 Nov 2026 12:00:00.000 UTC not proven no request is recorded checked 20 Nov 2026 12:00:00.000 UTC"
    assert row in page
    assert "acme/rf-model-audit 0.2.0" not in page
    assert f'href="{KIT}versions/0.1.0/"' in answer.content.decode()


def test_overview_names_who_signed_for_what_is_in_production(both, people, dave, seal):
    promotion = approvals.open_promotion(
        version=both[0], environment="production", reason="r", user=people["erin"], now=NOON
    )
    sign(promotion, people["carol"])
    Version.objects.filter(pk=both[0].pk).update(run_id="other")  # so that it is stale
    sign(promotion, people["alice"])
    sign(promotion, people["bob"])
    seal()
    page = text_of(dave.get("/"))
    assert "UTC Alice Example, Bob Example checked" in page
    assert "Carol" not in page.split("Newest events")[0]
    assert f"event {Promotion.objects.get().decided_seq}" in text_of(dave.get(KIT))


def sign(promotion, user):
    seen = approval_queries.packet(promotion, now=NOON).fingerprint
    return approvals.sign(
        promotion=promotion, user=user, intent="approve", meaning="approved for use", comment="", password=PASSWORD,
        seen=seen, now=NOON,
    )  # fmt: skip
