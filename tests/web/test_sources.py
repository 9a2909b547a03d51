from __future__ import annotations

import pytest
from django.urls import reverse
from django.utils import timezone

from auditportal.ingest import sources
from auditportal.ingest.models import Delivery, Source
from auditportal.jobs.models import Job
from auditportal.ledger.drafts import SYSTEM
from auditportal.ledger.models import Entry
from tests.ingest.conftest import bodies

HOSTILE = b"<script>alert(1)</script>\x00\xff\xe2\x80\xae<img src=x onerror=alert(1)>"
OCI = {"kind": "oci", "id": "registry", "url": "https://r.test"}
MLFLOW = {"kind": "mlflow", "id": "mlflow:prod/eu", "url": "http://m.test", "hook_secret": "s3cret"}


def make_source(**changes):
    given = {**MLFLOW, "actor": SYSTEM, "now": timezone.now(), **changes}
    return sources.register(**given)


def make_delivery(source=None, **changes):
    now = timezone.now()
    given = {"source": source, "kind": "oci", "body": b"{}", "received_at": now, "next_attempt_at": now}
    return Delivery.objects.create(**given | changes)


@pytest.fixture
def admin(as_person):
    return as_person("frank")


def text(answer):
    return answer.content.decode()


@pytest.mark.parametrize("count", [1, 3])
def test_list_of_sources_needs_the_same_queries_for_any_number(admin, count, django_assert_num_queries):
    for n in range(count):
        source = make_source(id=f"s{n}")
        make_delivery(source)
        make_delivery(source, state="not understood")
    admin.get("/settings/sources/")
    with django_assert_num_queries(5):
        page = text(admin.get("/settings/sources/"))
    assert f"s{count - 1}" in page


@pytest.mark.parametrize("count", [1, 3])
def test_page_of_a_source_needs_the_same_queries_for_any_number(admin, count, django_assert_num_queries):
    source = make_source()
    for n in range(count):
        make_delivery(source, events=[0])
        Job.objects.create(kind="pull", key=source.pk, state="done", parameters={"full": n == 0}, result={"runs": n},
                           requested_by="system", requested_type="system", created_at=timezone.now())  # fmt: skip
    address = reverse("settings-source", args=[source.pk])
    admin.get(address)
    with django_assert_num_queries(7):
        assert text(admin.get(address)).count("runs, ") == count


@pytest.mark.parametrize("count", [1, 3])
def test_list_of_deliveries_needs_the_same_queries_for_any_number(admin, count, django_assert_num_queries):
    for _ in range(count):
        make_delivery(events=[0, 1])
    admin.get("/settings/deliveries/")
    with django_assert_num_queries(6):
        assert text(admin.get("/settings/deliveries/")).count("<tr>") == count + 1


@pytest.mark.parametrize("given", [OCI, MLFLOW])
def test_source_is_added_shown_and_recorded(admin, people, given):
    answer = admin.post("/settings/sources/", given | {"hosts": "cdn.test\nauth.test:8443"}, follow=True)
    page = text(answer)
    assert answer.redirect_chain == [(reverse("settings-source", args=[given["id"]]), 302)]
    assert f"{given['id']} is a source from now on" in page
    [body] = bodies(action="source.registered")
    assert body["actor"]["id"] == people["frank"].actor.id
    assert body["metadata"]["hosts"] == ["cdn.test", "auth.test:8443"]
    assert "s3cret" not in page
    assert ("/hooks/oci/" in page) == (given["kind"] == "oci")
    assert ("Pull now" in page) == (given["kind"] == "mlflow")
    assert given["id"] in text(admin.get("/settings/sources/"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "auditportal"}, "and not `auditportal`"),
        ({"url": "ftp://x"}, "an address is http:// or https:// and a host"),
        ({"url": ""}, "This field is required"),
        ({"hosts": "https://x"}, "no `host` or `host:port`: https://x"),
        ({"repositories": "UPPER"}, "no repository name: UPPER"),
        ({"username": "a"}, "a user name and a password belong together"),
        ({"hook_secret": "x"}, "A registry signs nothing"),
        ({"kind": "mlflow", "repositories": "a"}, "MLflow has no repositories"),
        ({"kind": "else"}, "Select a valid choice"),
    ],
)
def test_source_that_cannot_be_is_refused_with_a_reason_and_what_was_typed(admin, change, said):
    before = Entry.objects.count()
    answer = admin.post("/settings/sources/", {**OCI, "password": "", **change})
    page = text(answer).replace("&#x27;", "'")
    assert answer.status_code == 400
    assert said in page
    assert 'role="alert"' in page
    assert (Source.objects.count(), Entry.objects.count()) == (0, before)


def test_password_is_never_sent_back(admin):
    page = text(admin.post("/settings/sources/", {**OCI, "url": "x", "username": "a", "password": "pa55word"}))
    assert "pa55word" not in page


def test_second_source_of_a_name_is_refused(admin):
    make_source(**OCI, hook_secret="")
    assert "there is a source registry already" in text(admin.post("/settings/sources/", OCI))


def test_pull_now_is_a_job_of_the_person_who_asked(admin, people):
    source = make_source()
    for data in ({}, {"full": "1"}):
        page = text(admin.post(reverse("settings-source-pull", args=[source.pk]), data, follow=True))
        assert "by the next free worker" in page
    assert [(job.parameters["full"], job.requested_by) for job in Job.objects.order_by("id")] == [
        (False, people["frank"].actor.id),
        (True, people["frank"].actor.id),
    ]


def test_registry_or_a_source_switched_off_is_not_pulled(admin):
    registry, off = make_source(**OCI, hook_secret=""), make_source(id="off")
    sources.set_active(source=off, is_active=False, reason="x", actor=SYSTEM, now=timezone.now())
    for source in (registry, off):
        page = text(admin.post(reverse("settings-source-pull", args=[source.pk]), follow=True))
        assert "Nothing is pulled" in page
    assert Job.objects.count() == 0


def test_switching_off_and_on_needs_a_reason(admin, people):
    source = make_source()
    address = reverse("settings-source-switch", args=[source.pk])
    assert "give a reason" in text(admin.post(address, {"is_active": "off", "reason": " "}, follow=True))
    assert Source.objects.get().is_active
    assert "is not asked any more" in text(admin.post(address, {"is_active": "off", "reason": "moves"}, follow=True))
    assert not Source.objects.get().is_active
    assert "is asked from now on" in text(admin.post(address, {"is_active": "on", "reason": "moved"}, follow=True))
    assert [(body["reason"], body["actor"]["id"]) for body in bodies(action="source.changed")] == [
        ("moves", people["frank"].actor.id),
        ("moved", people["frank"].actor.id),
    ]


@pytest.mark.parametrize("name", ["alice", "erin", "mallory", "dave", "carol"])
def test_others_change_nothing(as_person, name):
    source = make_source()
    client = as_person(name)
    assert client.post("/settings/sources/", OCI).status_code == 403
    assert client.post(reverse("settings-source-pull", args=[source.pk])).status_code == 403
    answer = client.post(reverse("settings-source-switch", args=[source.pk]), {"is_active": "off", "reason": "x"})
    assert answer.status_code == 403
    assert Source.objects.get().is_active
    assert Job.objects.count() == 0


@pytest.mark.parametrize("name", ["alice", "bob", "erin", "mallory", "carol", "dave", "frank"])
def test_raw_deliveries_are_for_those_who_may_disclose_and_sources_for_admins(as_person, client, name):
    source, delivery = make_source(), make_delivery()
    pages = [f"/settings/deliveries/{delivery.pk}/", f"/settings/deliveries/{delivery.pk}/raw"]
    page = reverse("settings-source", args=[source.pk])
    assert {client.get(address).status_code for address in [*pages, page]} == {302}
    person = as_person(name)
    wanted = 200 if name in ("carol", "dave", "frank") else 403
    assert {person.get(address).status_code for address in pages} == {wanted}
    assert person.get(page).status_code == (200 if name == "frank" else 403)
    assert len(bodies(action="access.view")) == (wanted == 200)


def test_unknown_source_and_delivery_are_not_found(admin):
    for address in (
        "/settings/sources/nothing/",
        "/settings/sources/%00/",
        "/settings/sources/A B/",
        "/settings/deliveries/7/",
        f"/settings/deliveries/{2**70}/raw",
    ):
        assert admin.get(address).status_code == 404
    assert admin.post("/settings/sources/nothing/pull/").status_code == 404


def test_body_is_shown_with_visible_escapes_and_looking_is_an_event(admin, people):
    delivery = make_delivery(body=HOSTILE, headers={"user-agent": "<b>\u202e"}, note="<i>", state="not understood")
    page = text(admin.get(f"/settings/deliveries/{delivery.pk}/"))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;⟨U+0000⟩\\xff⟨U+202E⟩&lt;img" in page
    assert "&lt;b&gt;⟨U+202E⟩" in page
    assert "&lt;i&gt;" in page
    [body] = bodies(action="access.view")
    assert body["subject"] == {"type": "delivery", "id": str(delivery.pk)}
    assert body["actor"]["id"] == people["frank"].actor.id


def test_bytes_are_downloaded_and_never_opened(as_person, people):
    delivery = make_delivery(body=HOSTILE)
    answer = as_person("dave").get(f"/settings/deliveries/{delivery.pk}/raw")
    assert answer.content == HOSTILE
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"] == f'attachment; filename="delivery-{delivery.pk}.bin"'
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert bodies(action="access.download")[0]["actor"]["id"] == people["dave"].actor.id


def test_large_body_is_cut_on_the_page(admin):
    delivery = make_delivery(body=b"x" * 70_000 + b"END")
    page = text(admin.get(f"/settings/deliveries/{delivery.pk}/"))
    assert "The first 64 KiB are shown" in page
    assert "END" not in page


def test_list_links_events_filters_and_continues(admin):
    source = make_source()
    for n in range(60):
        make_delivery(source, state="recorded", events=[1234], note=f"note {n}")
    odd = make_delivery(None, state="not understood", note="odd <b>")
    page = text(admin.get("/settings/deliveries/"))
    assert '<a class="link" href="/events/1234/">1,234</a>' in page
    assert "odd &lt;b&gt;" in page
    assert ">note 59<" in page
    assert ">note 10<" not in page
    older = page.partition('href="?before=')[2].partition('"')[0]
    page = text(admin.get(f"/settings/deliveries/?before={older}"))
    assert ">note 10<" in page
    assert "Load 50 older" not in page
    page = text(admin.get("/settings/deliveries/?state=not+understood"))
    assert f"/settings/deliveries/{odd.pk}/" in page
    assert "note 59" not in page
    page = text(admin.get("/settings/deliveries/", {"source": source.pk}))
    assert "odd" not in page
    assert "None of this kind" in text(admin.get("/settings/deliveries/?source=nothing"))


@pytest.mark.parametrize(
    "query",
    ["before=x", "before=-1", "before=²", "before=" + "9" * 30, "state=odd", "source=%00", "source=" + "x" * 5000],
)
def test_list_survives_any_query(admin, query):
    assert admin.get(f"/settings/deliveries/?{query}").status_code == 200


def test_source_that_does_not_answer_shows_it(admin):
    source = make_source()
    Source.objects.update(pull_error="answered 500: <b>")
    for address in ("/settings/sources/", reverse("settings-source", args=[source.pk])):
        page = text(admin.get(address))
        assert "unreachable" in page
        assert "answered 500: &lt;b&gt;" in page


def test_new_portal_says_how_to_begin(admin):
    page = text(admin.get("/settings/sources/"))
    assert "No source yet" in page
    assert "manage.py add_source" in page
    assert "Nothing has arrived yet" in text(admin.get("/settings/deliveries/"))


def test_auditor_sees_deliveries_and_no_other_setting(as_person):
    page = text(as_person("dave").get("/settings/deliveries/"))
    assert "/settings/deliveries/" in page
    assert "/settings/people/" not in page
