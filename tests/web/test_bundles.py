from __future__ import annotations

import io
import zipfile

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from auditportal.bundles import queries, services, signing
from auditportal.bundles.models import Bundle
from auditportal.catalog.models import Model
from auditportal.jobs import services as jobs
from auditportal.ledger import queries as ledger, search
from auditportal.ledger.query import Query
from auditportal.ledger.verification import head_size
from tests.bundles.conftest import live, make_version, verify, world, world_in  # noqa: F401 -- fixtures
from tests.conftest import NOON
from tests.factories import record


@pytest.fixture
def model(db, seal):
    record()
    seal()
    return Model.objects.create(name="churn", first_seen=NOON)


def ask(people, model, **changes):
    given = {"recipient": "Audit Office", "purpose": "yearly review", "known_size": None, "now": timezone.now()}
    return services.request_bundle(**(given | {"model": model, "user": people["dave"]} | changes))


def newest(action):
    """The newest event of this action, as recorded."""
    seqs = search.page(Query(()), now=timezone.now(), resolve=lambda _: [], after=None, most=50).seqs
    return next(event for event in ledger.recorded(sorted(seqs, reverse=True)) if event.action == action)


def test_form_asks_for_a_bundle_and_seals_who_gets_it(model, people, as_person, seal):
    answer = as_person("dave").post(
        "/bundles/new/", {"model": "churn", "recipient": "Jane Roe", "purpose": "inspection"}
    )
    bundle = Bundle.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, f"/bundles/{bundle.pk}/")
    seal()
    event = newest("bundle.requested")
    assert event.body["actor"]["id"] == people["dave"].actor.id
    assert event.body["models"] == ["churn"]
    assert b"Jane Roe" not in event.raw_body
    assert ledger.disclosures(event.seq) == {"/metadata/recipient": b'"Jane Roe"', "/metadata/purpose": b'"inspection"'}
    assert bundle.job.state == "queued"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "nobody"}, "No registered model has this name"),
        ({"recipient": ""}, "This field is required"),
        ({"recipient": "a\u202eb"}, "give a recipient of at most 200 characters on one line"),
        ({"purpose": "p" * 501}, "at most 500 characters"),
        ({"known_size": "99999"}, "the newest checkpoint has"),
        ({"known_size": "-1"}, "greater than or equal to 1"),
    ],
)
def test_request_that_cannot_be_names_the_fault(model, as_person, given, said):
    values = {"model": "churn", "recipient": "Jane Roe", "purpose": "inspection"} | given
    answer = as_person("dave").post("/bundles/new/", values)
    assert answer.status_code == 200
    assert said in answer.content.decode()
    assert not Bundle.objects.exists()


def test_link_from_a_model_fills_in_its_name(model, as_person):
    assert 'value="churn"' in as_person("dave").get("/bundles/new/?model=churn").content.decode()


def test_page_shows_the_steps_and_htmx_gets_them_alone(model, people, as_person):
    bundle = ask(people, model)
    client = as_person("dave")
    page = client.get(f"/bundles/{bundle.pk}/").content.decode()
    assert "waiting for a worker" in page
    assert 'hx-trigger="every 2s"' in page
    assert f'href="/bundles/{bundle.pk}/">Refresh' in page
    part = client.get(f"/bundles/{bundle.pk}/", headers={"HX-Request": "true"})
    assert part.content.decode().startswith('<ol class="steps">')
    assert "HX-Refresh" not in part


def test_cancelled_bundle_is_on_the_record_under_who_cancelled(model, people, as_person, seal):
    bundle = ask(people, model)
    client = as_person("carol")
    assert client.post(f"/bundles/{bundle.pk}/cancel/").status_code == 302
    bundle.refresh_from_db()
    assert bundle.state == Bundle.State.CANCELLED
    seal()
    assert newest("bundle.cancelled").body["actor"]["id"] == people["carol"].actor.id
    assert "It was cancelled before it was issued" in client.get(f"/bundles/{bundle.pk}/").content.decode()
    assert "It had ended already" in client.post(f"/bundles/{bundle.pk}/cancel/", follow=True).content.decode()
    assert client.get(f"/bundles/{bundle.pk}/", headers={"HX-Request": "true"})["HX-Refresh"] == "true"


def test_bundle_that_cannot_be_built_says_why(model, people, as_person, seal, settings, tmp_path):
    settings.BUNDLE_SIGNER = tmp_path / "nothing"
    bundle = ask(people, model)
    jobs.run_due()
    bundle.refresh_from_db()
    assert bundle.state == Bundle.State.FAILED
    seal()
    event = newest("bundle.issued")
    assert (event.body["outcome"], event.body["reason"]) == (
        "failed",
        "no bundle can be signed: run manage.py setup_signing",
    )
    page = as_person("dave").get(f"/bundles/{bundle.pk}/").content.decode()
    assert "run manage.py setup_signing" in page


def test_other_people_get_nowhere(model, people, as_person, client):
    bundle = ask(people, model)
    for name in ("erin", "frank", "mallory"):
        assert as_person(name).get(f"/bundles/{bundle.pk}/").status_code == 403
        assert as_person(name).get(f"/bundles/{bundle.pk}/download").status_code == 403
        assert as_person(name).post(f"/bundles/{bundle.pk}/cancel/").status_code == 403
        assert as_person(name).post("/bundles/new/", {}).status_code == 403
    assert client.get(f"/bundles/{bundle.pk}/download").status_code == 302
    assert Bundle.objects.get().is_building


def test_unknown_and_unfinished_bundles_are_not_there(model, people, as_person):
    client, bundle = as_person("dave"), ask(people, model)
    assert client.get("/bundles/00000000-0000-4000-8000-000000000000/").status_code == 404
    assert client.get(f"/bundles/{bundle.pk}/download").status_code == 404


@pytest.mark.parametrize("count", [1, 3])
def test_list_needs_as_many_queries_for_three_as_for_one(model, people, as_person, django_assert_num_queries, count):
    for _ in range(count):
        ask(people, model)
    client = as_person("dave")
    client.get("/bundles/")
    with django_assert_num_queries(5):
        assert client.get("/bundles/").content.decode().count("Audit Office") == count


def test_hostile_names_are_shown_and_never_run(model, people, as_person):
    ask(people, model, recipient="<script>alert(1)</script>", purpose='" onload=x')
    page = as_person("dave").get("/bundles/").content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page


def test_finished_bundle_downloads_verifies_and_each_download_is_an_event(world):  # noqa: F811 -- the fixture
    live()
    make_version()
    bundle = world.build(known_size=2)
    client = Client()
    client.force_login(world.people["dave"], backend="django.contrib.auth.backends.ModelBackend")
    page = client.get(f"/bundles/{bundle.pk}/").content.decode()
    assert " ".join(bundle.digest[at : at + 4] for at in range(0, 64, 4)) in page
    assert f"auditproof verify bundle-{bundle.pk}.zip --key log.vkey --root ROOT.pem" in page
    assert world.vkey in page
    answer = client.get(f"/bundles/{bundle.pk}/download")
    assert answer["Content-Disposition"] == f'attachment; filename="bundle-{bundle.pk}.zip"'
    copy = world.directory / "copy.zip"
    copy.write_bytes(answer.getvalue())
    answer.close()
    assert verify(copy, world.trust()).verdict.is_green
    assert zipfile.ZipFile(copy).testzip() is None
    assert client.head(f"/bundles/{bundle.pk}/download").status_code == 405
    assert ledger.wait_for_checkpoint(head_size() - 1, timeout_s=10)
    event = newest("access.download")
    assert event.body["subject"] == {"type": "bundle", "id": str(bundle.pk)}
    assert event.body["metadata"] == {"bundle": f"sha256:{bundle.digest}", "bytes": bundle.size_bytes}


def test_bundle_that_is_not_the_issued_one_is_not_sent(world, caplog):  # noqa: F811 -- the fixture
    live()
    make_version()
    bundle, other = world.build(), world.build()
    client = Client()
    client.force_login(world.people["dave"], backend="django.contrib.auth.backends.ModelBackend")
    path = queries.path_of(bundle)
    honest = path.read_bytes()
    size = head_size()

    def refused(status: int, said: str) -> None:
        caplog.clear()
        answer = client.get(f"/bundles/{bundle.pk}/download")
        assert (answer.status_code, answer["Content-Type"]) == (status, "text/plain; charset=utf-8")
        assert said in answer.content.decode()
        assert "Content-Disposition" not in answer
        [line] = [line for line in caplog.records if line.name == "auditportal.security.bundles"]
        assert (line.levelname, line.bundle) == ("ERROR", str(bundle.pk))
        assert head_size() == size  # nothing was taken, so no download is on record

    def edited(**columns: object) -> None:
        before = Bundle.objects.values(*columns).get(pk=bundle.pk)
        assert before != columns
        assignments = ", ".join(f"{name} = %s" for name in columns)
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE bundles_bundle SET {assignments} WHERE id = %s", [*columns.values(), bundle.pk])
        refused(409, "not what the log says was issued")
        Bundle.objects.filter(pk=bundle.pk).update(**before)

    edited(digest="0" * 64)
    edited(size_bytes=bundle.size_bytes + 1)
    edited(digest=other.digest, size_bytes=other.size_bytes)
    edited(digest=other.digest, size_bytes=other.size_bytes, issued_seq=other.issued_seq)
    edited(issued_seq=None)
    edited(issued_seq=2**40)
    edited(issued_seq=bundle.requested_seq)

    path.write_bytes(queries.path_of(other).read_bytes())  # a bundle, and not this one
    refused(409, "Nothing is sent")
    path.write_bytes(honest + b"x")
    refused(409, f"has {len(honest) + 1} bytes instead of {len(honest)}")
    path.write_bytes(bytes(len(honest)))
    refused(409, "cannot be read as a bundle")
    path.write_bytes(with_another_event(honest))
    refused(409, "Nothing is sent")
    path.unlink()
    refused(410, "The file of this bundle is gone")

    path.write_bytes(honest)
    answer = client.get(f"/bundles/{bundle.pk}/download")
    assert (answer.status_code, answer.getvalue()) == (200, honest)
    answer.close()
    assert head_size() == size + 1


def with_another_event(raw: bytes) -> bytes:
    """The bundle with a byte of its events changed where they lie deflated; the tag manifest is as it was."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        info = archive.getinfo("data/events/events-00000.jsonl")
    middle = info.header_offset + info.compress_size // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


def test_root_and_key_are_there_for_anyone(db, client, settings, tmp_path):
    settings.BUNDLE_SIGNER = tmp_path / "bundle-signer"
    assert client.get("/bundles/root.pem").status_code == 404
    assert signing.set_up(now=NOON)
    assert client.get("/bundles/root.pem").content.decode() == signing.load().root_pem
    assert client.get("/bundles/log.vkey").content.decode() == ledger.vkey() + "\n"
