"""The real job over a real log: built, verified by ourselves, issued; cancelled, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection, connections, transaction
from django.utils import timezone

from auditportal.bundles import builder, queries, services, signing
from auditportal.bundles.errors import BundleError
from auditportal.bundles.models import Bundle
from auditportal.jobs import services as jobs
from auditportal.jobs.models import Job
from auditportal.ledger import exports, queries as ledger, rows, sealing
from auditportal.ledger.drafts import SYSTEM, Draft, Related, Subject
from auditportal.ledger.verification import head_size
from auditproof import bags, verdicts
from auditproof.signatures import sha256_hex
from tests import databases
from tests.bundles.conftest import MODEL, live, make_version, names, reject, verify
from tests.factories import NOON, make_draft, record, record_many
from tests.portal import ROOT, database_url


def actions() -> list[tuple[str, str]]:
    """Every event's action and outcome, from the log's own rows."""
    found = [rows.prove(row).body for row in rows.between(0, head_size(), 10_000)]
    return [(body["action"], body["outcome"]) for body in found if body]


def test_job_builds_a_bundle_that_an_auditor_can_verify(world):
    live()
    reject(make_version(), world.people)
    bundle = world.build()
    assert bundle.job.error == ""
    assert bundle.state == Bundle.State.READY
    result = verify(world.path(bundle), world.trust())
    assert [check for check in result.checks if check.error] == []
    assert result.verdict == verdicts.RELATIVE
    assert result.digest == bundle.digest
    assert actions()[-3:] == [("bundle.requested", "done"), ("ledger.streams", "done"), ("bundle.issued", "done")]
    [issued] = exports.entries([bundle.issued_seq])
    assert issued.body["metadata"]["bundle"] == f"sha256:{bundle.digest}"
    assert issued.body["models"] == [MODEL]
    assert not list(queries.directory().glob(".*"))
    assert queries.directory().stat().st_mode & 0o077 == 0


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_two_builds_of_one_scope_give_the_same_files_except_the_signatures(world):
    live()
    reject(make_version(), world.people)
    bundle = world.build(known_size=3)
    record_many(50, related=[Related("model_version", f"{MODEL}:15")])  # the log goes on, and so does the model
    assert ledger.wait_for_checkpoint(head_size() - 1, timeout_s=20)
    again = world.directory / "again.zip"
    built = builder.build(services.scope_of(bundle), again, signing.load(), lambda *_: None)
    assert built.digest == bundle.digest
    first, second = contents(world.path(bundle)), contents(again)
    assert list(first) == list(second)  # the order too
    differing = {name for name in first if first[name] != second[name]}
    assert differing == {bags.SIGNATURE, bags.STATEMENT}
    assert verify(again, world.trust()).digest == bundle.digest


def test_files_stand_in_the_order_of_the_format(world):
    live()
    make_version()
    order = list(contents(world.path(world.build())))
    assert order[0] == "bagit.txt"
    assert order[1] == "data/events/events-00000.jsonl"
    assert order[-5:] == [bags.INFO, bags.MANIFEST, bags.TAG_MANIFEST, bags.SIGNATURE, bags.STATEMENT]
    assert order.index(bags.BUNDLE) < order.index(bags.REPORT) < order.index("README.txt") < order.index("verify.pyz")


def test_events_are_split_into_shards_and_stay_complete(world, monkeypatch):
    monkeypatch.setattr(builder, "SHARD_EVENTS", 7)
    live()
    make_version()
    bundle = world.build()
    shards = [name for name in contents(world.path(bundle)) if name.startswith("data/events/events-0")]
    assert len(shards) == (bundle.events + 6) // 7
    assert verify(world.path(bundle), world.trust()).verdict == verdicts.RELATIVE


def test_second_bundle_proves_the_first_ones_checkpoint_and_tells_of_it(world):
    live()
    make_version()
    first, second = world.build(), world.build()
    note = contents(world.path(first))["data/proofs/checkpoint-to.txt"].decode()
    result = verify(world.path(second), world.trust(against=note))
    assert result.verdict == verdicts.RELATIVE
    custody = contents(world.path(second))[bags.CUSTODY].decode()
    assert custody.count('"action":"bundle.requested"') == 2
    assert custody.count('"action":"bundle.issued"') == 1
    assert str(first.pk) in custody


def test_spreadsheet_copy_runs_no_formula(world):
    live()
    make_version()
    table = contents(world.path(world.build()))["data/events/events.csv"].decode("utf-8")
    assert table.startswith('\ufeff"seq","recorded",')
    assert '"\'=HYPERLINK(""http://x"")"' in table
    assert "\r\n" in table
    for text in ("=1", "+1", "-5", "@x", "|x", "\tx", "\uff1d1"):
        assert builder.cell(text).startswith("'")
    assert builder.cell("a\u202eb") == "a⟨U+202E⟩b"


# ---- what changes, and what is erased -------------------------------------------------------------------------------


def erase(seq: int) -> None:
    """What an erasure will do: body and salt gone, explained by an event. Only the owner can pass the guards."""
    [entry] = exports.entries([seq])
    targets = [{"seq": seq, "leaf": entry.leaf.hex(), "what": "body"}]
    record(
        Draft(
            action="ledger.erased",
            actor=SYSTEM,
            subject=Subject("log", settings.LOG_ORIGIN),
            timestamp=NOON,
            metadata={"targets": targets, "basis": "request", "approved_by": ["usr_x"]},
        )
    )
    with databases.superuser() as server:
        server.execute("ALTER TABLE ledger_body DISABLE TRIGGER ALL")
        server.execute("UPDATE ledger_body SET body = NULL, salt = NULL WHERE seq = %s", [seq])
        server.execute("ALTER TABLE ledger_body ENABLE TRIGGER ALL")
    assert ledger.wait_for_checkpoint(head_size() - 1, timeout_s=20)


def test_erased_body_is_explained_and_the_bundle_stays_complete(world):
    live()
    make_version()
    [gone] = record(make_draft(subject=Subject("model_version", f"{MODEL}:14"), metadata={"name": "Jane Roe"}))
    assert ledger.wait_for_checkpoint(gone.seq, timeout_s=20)
    erase(gone.seq)
    sealing.rebuild(signer=sealing.default_signer(), now=timezone.now(), progress=lambda _: None)  # forgets its rows
    bundle = world.build()
    assert bundle.job.error == ""
    files = contents(world.path(bundle))
    lines = files["data/events/events-00000.jsonl"].decode().splitlines()
    [erased] = [line for line in lines if '"absent":"erased"' in line]
    assert f'"seq\\":{gone.seq},' in erased
    assert b"Jane Roe" not in b"".join(files.values())
    assert verify(world.path(bundle), world.trust()).verdict == verdicts.RELATIVE


def test_erasure_after_the_map_makes_a_new_map(world):
    live()
    make_version()
    [gone] = record(make_draft(subject=Subject("model_version", f"{MODEL}:14")))
    bundle = world.request()
    assert ledger.wait_for_checkpoint(bundle.requested_seq, timeout_s=20)
    services._record_map(bundle, timezone.now())
    assert ledger.wait_for_checkpoint(bundle.map_seq, timeout_s=20)
    bundle.checkpoint_size = exports.first_checkpoint_above(bundle.map_seq).size
    bundle.save()
    erase(gone.seq)
    jobs.run_due()
    found = Bundle.objects.get(pk=bundle.pk)
    assert found.is_ready
    assert found.map_seq > bundle.map_seq
    assert verify(world.path(found), world.trust()).verdict == verdicts.RELATIVE


def test_card_that_changed_after_the_map_makes_a_new_map(world):
    live()
    version = make_version()
    bundle = world.request()
    assert ledger.wait_for_checkpoint(bundle.requested_seq, timeout_s=20)
    services._record_map(bundle, timezone.now())
    version.card = "# Another card\n"
    version.save()
    jobs.run_due()
    found = Bundle.objects.get(pk=bundle.pk)
    assert found.is_ready
    assert found.map_seq > bundle.map_seq
    assert f"data/artifacts/{sha256_hex(version.card.encode())}" in contents(world.path(found))


def test_bundle_that_does_not_stand_its_own_checks_is_never_handed_out(world):
    live()
    make_version()
    bundle = world.request()
    assert ledger.wait_for_checkpoint(bundle.requested_seq, timeout_s=20)
    services._record_map(bundle, timezone.now())
    bundle.proofs[-1]["stands"]["count"] += 1
    bundle.save()
    jobs.run_due()
    found = Bundle.objects.select_related("job").get(pk=bundle.pk)
    assert found.state == Bundle.State.FAILED
    assert "does not stand its own checks: STREAM_MAP" in found.job.error
    assert not queries.path_of(found).exists()
    assert not list(queries.directory().glob(".*"))
    assert actions()[-1] == ("bundle.issued", "failed")


def test_manipulated_log_gives_no_bundle(world):
    live()
    make_version()
    [last] = record(make_draft(subject=Subject("model_version", f"{MODEL}:14"), metadata={"auc": 0.5}))
    assert ledger.wait_for_checkpoint(last.seq, timeout_s=20)
    with databases.superuser() as server:
        server.execute("ALTER TABLE ledger_body DISABLE TRIGGER ALL")
        server.execute(
            "UPDATE ledger_body SET body = replace(encode(body, 'escape'), '0.5', '0.9')::bytea WHERE seq = %s",
            [last.seq],
        )
        server.execute("ALTER TABLE ledger_body ENABLE TRIGGER ALL")
    bundle = world.build()
    assert bundle.state == Bundle.State.FAILED
    assert f"seq {last.seq}: BODY_COMMITMENT" in bundle.job.error


# ---- cancelled, killed, resumed -------------------------------------------------------------------------------------


@contextmanager
def no_sealing():
    """Nothing is sealed inside: a job waits for its checkpoint and stays where it is."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM ledger_sealing WHERE id = 1 FOR UPDATE")
        yield


def until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_running_build_stops_when_it_is_cancelled(world):
    """The job waits for a checkpoint that does not come, so it is in the middle when somebody cancels."""
    live()
    make_version()

    def work() -> None:
        jobs.run_due()
        connections.close_all()

    def cancel() -> None:
        services.cancel_bundle(bundle=bundle, user=world.people["carol"])
        connections.close_all()

    bundle = world.request()
    with no_sealing():
        threads = [threading.Thread(target=work), threading.Thread(target=cancel)]
        threads[0].start()
        until(lambda: Job.objects.get(pk=bundle.job_id).state == Job.State.RUNNING)
        threads[1].start()  # in a transaction of its own, which the worker sees
        for thread in threads:
            thread.join()
    assert Bundle.objects.get(pk=bundle.pk).state == Bundle.State.CANCELLED
    assert actions()[-1] == ("bundle.cancelled", "done")
    assert not queries.directory().exists() or not list(queries.directory().iterdir())


WORKER = "import django; django.setup(); from auditportal.jobs import services; services.run_due()"


def worker() -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "auditportal.settings",
        "DATABASE_URL": database_url("default"),
        "AUDITPORTAL_SIGNER": str(settings.SIGNER_DIRECTORY),
        "AUDITPORTAL_BUNDLE_SIGNER": str(settings.BUNDLE_SIGNER),
        "AUDITPORTAL_DATA": str(settings.DATA),
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen([sys.executable, "-c", WORKER], cwd=ROOT, env=environment, start_new_session=True)


def test_killed_builder_is_resumed_with_the_same_map(world):
    live()
    make_version()
    record_many(3_000, related=[Related("model_version", f"{MODEL}:14")])  # long enough to be killed in the middle
    bundle = world.request()
    process = worker()
    try:
        until(lambda: any(path.stat().st_size > 0 for path in queries.directory().glob(".*")))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    interrupted = Bundle.objects.select_related("job").get(pk=bundle.pk)
    assert interrupted.is_building
    assert interrupted.job.state == Job.State.RUNNING
    Job.objects.filter(pk=bundle.job_id).update(lease_until=timezone.now())  # as after a minute
    jobs.run_due()
    found = Bundle.objects.select_related("job").get(pk=bundle.pk)
    assert (found.state, found.job.attempts) == (Bundle.State.READY, 2)
    assert (found.map_seq, found.checkpoint_size) == (interrupted.map_seq, interrupted.checkpoint_size)
    assert actions().count(("ledger.streams", "done")) == 1
    assert [path.name for path in queries.directory().iterdir()] == [found.file_name]
    assert verify(queries.path_of(found), world.trust()).verdict == verdicts.RELATIVE


def test_job_that_is_repeated_after_issuing_changes_nothing(world):
    live()
    make_version()
    bundle = world.build()
    before = actions()
    Job.objects.filter(pk=bundle.job_id).update(state=Job.State.RUNNING, lease_until=timezone.now())
    jobs.run_due()
    assert actions() == before
    assert Bundle.objects.get(pk=bundle.pk).digest == bundle.digest


# ---- the signer -----------------------------------------------------------------------------------------------------


def test_setting_up_twice_keeps_the_root_and_records_it_once(world):
    before = world.root_pem
    assert not signing.set_up(now=timezone.now())
    assert world.root_pem == before
    assert actions().count(("key.issued", "done")) == 1
    for path in settings.BUNDLE_SIGNER.iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_command_sets_up_the_signer_and_names_the_root(world, capsys):
    from django.core.management import call_command

    settings.BUNDLE_SIGNER = world.directory / "fresh"
    call_command("setup_signing")
    assert f"bundle signer made; root SHA-256 {signing.load().root_fingerprint}" in capsys.readouterr().out


def test_openssl_reads_the_certificates_as_meant(world):
    for name, words in {
        "signer.pem": ["Digital Signature, Non Repudiation", "E-mail Protection", "CA:FALSE", "prime256v1"],
        "root.pem": ["Certificate Sign, CRL Sign", "CA:TRUE, pathlen:0", "prime256v1"],
    }.items():
        command = ["openssl", "x509", "-in", str(settings.BUNDLE_SIGNER / name), "-noout", "-text"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert [word for word in words if word not in text] == []


def test_missing_signer_is_said(world):
    settings.BUNDLE_SIGNER = world.directory / "nothing"
    with pytest.raises(BundleError, match="run manage.py setup_signing"):
        signing.load()


def test_model_whose_name_is_hostile_can_be_bundled(world):
    from auditportal.catalog.models import Model

    name = '../../etc/<b>"x", = né\u202e😀'
    record(make_draft(subject=Subject("model", name), related=[]))
    Model.objects.create(name=name, first_seen=NOON)
    bundle = world.build(model=Model.objects.get(name=name))
    assert bundle.job.error == ""
    result = verify(world.path(bundle), world.trust())
    assert (names(result), result.verdict) == (set(), verdicts.RELATIVE)
    report = contents(world.path(bundle))[bags.REPORT].decode()
    assert "&lt;b&gt;" in report
    assert "\u202e" not in report
