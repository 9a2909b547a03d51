from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from auditportal.catalog import queries, services
from auditportal.catalog.models import Model, Placement, Snapshot, TagObservation, Version
from tests import kits
from tests.factories import NOON

pytestmark = pytest.mark.django_db
LATER = NOON + timedelta(hours=1)


def test_kit_becomes_a_version_with_its_layers_facts_and_card():
    version = kits.observe("0.1.0")
    assert (version.label, version.name, version.model.name) == (
        "acme/rf-model-audit:0.1.0",
        "0.1.0",
        "acme/rf-model-audit",
    )
    assert (version.format, version.check_state, version.check_note) == ("kit", "reported only", kits.UNREAD)
    assert version.manifest_digest == kits.digest_of("acme/rf-model-audit:0.1.0")
    assert (version.metrics, version.run_id) == ({"accuracy": 0.9667}, "a1b2c3d4e5f60718293a4b5c6d7e8f90")
    assert [(layer.position, layer.kind) for layer in queries.layers(version)] == [
        (0, "Model"),
        (1, "Code"),
        (2, "Dataset"),
        (3, "Docs"),
    ]
    assert (version.card_state, version.card.startswith("---")) == ("checked", True)
    assert kits.observe("0.2.0").card_state == "missing"


def test_the_same_manifest_is_one_version_under_any_tag():
    first = kits.observe("0.2.0")
    again, is_new = services.observe_kit(kits.recorded("latest"), tag="latest", now=LATER)
    assert (again.pk, is_new) == (first.pk, False)
    assert Version.objects.count() == 1


def test_moving_or_missing_tag_names_no_version():
    kit = kits.recorded("latest")
    version, _ = services.observe_kit(kit, tag="latest", now=NOON)
    assert version.name == "sha256-" + kit.digest[7:19]
    other, _ = services.observe_kit(kits.recorded("0.1.0"), tag="", now=NOON)
    assert other.name.startswith("sha256-")


def test_same_manifest_elsewhere_is_another_version():
    kits.observe("0.1.0")
    kits.observe("0.1.0", source="mirror")
    labels = list(Version.objects.order_by("id").values_list("label", flat=True))
    assert labels == ["acme/rf-model-audit:0.1.0", "acme/rf-model-audit:0.1.0~2"]


def test_tag_pushed_anew_gets_a_tilde_and_the_first_keeps_its_name():
    names = [
        kits.observed(kits.make_kit({"model": {"name": str(n)}}), tag="1.0").label.rpartition(":")[2] for n in range(3)
    ]
    assert names == ["1.0", "1.0~2", "1.0~3"]


def test_what_was_unreadable_is_filled_in_once_it_can_be_read():
    whole = kits.recorded("0.1.0")
    silent = replace(
        whole, manifest=None, config=None, kit=None, state="unreachable", note="no answer", card=None, card_state=""
    )
    version, is_new = services.observe_kit(silent, tag="0.1.0", now=NOON)
    assert (is_new, version.check_state, version.layers.count()) == (True, "unreachable", 0)
    services.observe_kit(silent, tag="0.1.0", now=LATER)
    assert Version.objects.get().manifest is None
    services.observe_kit(whole, tag="0.1.0", now=LATER)
    version.refresh_from_db()
    assert (version.check_state, version.check_note, version.layers.count()) == ("reported only", kits.UNREAD, 4)
    services.observe_kit(silent, tag="0.1.0", now=LATER)
    version.refresh_from_db()
    assert (version.layers.count(), version.check_state) == (4, "reported only")


def test_config_and_card_that_could_not_be_read_are_filled_in_too():
    whole = kits.recorded("0.1.0")
    half = kits.make_kit({}, manifest=whole.manifest, config=None, digest=whole.digest, card_state="unreachable")
    version, _ = services.observe_kit(half, tag="0.1.0", now=NOON)
    assert version.kitfile == {}
    services.observe_kit(replace(whole, card=None, card_state="unreachable"), tag="0.1.0", now=LATER)
    version.refresh_from_db()
    assert (version.kitfile["package"]["version"], version.card_state) == ("0.1.0", "unreachable")
    services.observe_kit(whole, tag="0.1.0", now=LATER)
    version.refresh_from_db()
    assert (version.card_state, version.card[:3]) == ("checked", "---")


def test_a_reading_of_all_bytes_is_not_overruled_by_filling_in():
    whole = kits.recorded("0.1.0")
    version, _ = services.observe_kit(replace(whole, card_state="unreachable"), tag="0.1.0", now=NOON)
    services.note_check(version, state="mismatch", note="other bytes", now=LATER, is_complete=True)
    services.observe_kit(whole, tag="0.1.0", now=LATER)
    version.refresh_from_db()
    assert (version.check_state, version.check_note, version.card_state) == ("mismatch", "other bytes", "checked")


def test_kit_without_a_digest_is_no_version():
    with pytest.raises(ValueError, match="no identity"):
        services.observe_kit(replace(kits.recorded("0.1.0"), digest=""), tag="x", now=NOON)
    assert Version.objects.count() == 0


def test_hostile_kitfile_is_kept_without_what_the_database_refuses():
    deep: dict[str, Any] = {"a": 1}
    for _ in range(200):
        deep = {"a": deep}
    kitfile = {
        "package": {"name": "nul\0 \ud800", "deep": deep, "nan": float("nan"), "big": 1e400},
        "model": {"name": "\0" * 3, "path": "p"},
    }
    version = kits.observed(kits.make_kit(kitfile, layers=[("model.v1.tar", b"x")], card="nul\0"), tag="1")
    version.refresh_from_db()
    assert version.kitfile["package"]["name"] == "nul\ufffd ?"
    assert "nested too deeply" in str(version.kitfile)
    assert (version.kitfile["package"]["nan"], version.kitfile["package"]["big"]) == ("nan", "inf")
    assert version.card == "nul\ufffd"
    assert version.layers.get().name == "\ufffd" * 3
    assert b"u0000" in bytes(version.config)


def test_mlflow_version_is_known_by_its_creation_time():
    first = kits.observe_mlflow(tags=[{"key": "team", "value": "risk"}], description="nul\0")
    assert (first.label, first.check_state, first.run_id) == ("churn:14", "reported only", "c07d2e")
    assert first.facts == {"description": "nul\ufffd", "tags": {"team": "risk"}}
    assert "no digest" in first.check_note
    again = kits.observe_mlflow(current_stage="Production")
    assert (again.pk, again.facts) == (first.pk, {"current_stage": "Production", "tags": {}})
    anew = kits.observe_mlflow(creation_timestamp=1_770_000_000_000)
    assert (anew.label, anew.name, anew.native_version) == ("churn:14~2", "14~2", "14")
    untimed = [kits.observe_mlflow("other", creation_timestamp=None).pk for _ in range(2)]
    assert untimed[0] == untimed[1]


def test_tags_have_a_history_that_only_grows():
    def see(digest, **given):
        found = services.observe_tag(source="r", repository="a", tag="latest", digest=digest, now=NOON, **given)
        return found and found.digest

    assert [see("sha256:1", actor="usr_1"), see("sha256:1"), see("sha256:2"), see(""), see("sha256:1")] == [
        None,
        None,
        "sha256:1",
        "sha256:2",
        "",
    ]
    rows = list(TagObservation.objects.order_by("id").values_list("digest", "actor"))
    assert rows == [("sha256:1", "usr_1"), ("sha256:2", ""), ("", ""), ("sha256:1", "")]


def snapshot(value):
    return services.observe_snapshot(source="m", type="registered_model", native_id="churn", value=value, now=NOON)


def test_snapshots_tell_exactly_what_changed():
    assert snapshot({"a": 1, "b": "x", "big": 2**60}) is None
    assert snapshot({"big": 2**60, "b": "x", "a": 1}) is None
    found = snapshot({"a": True, "b": "x", "c": None})
    assert found.changed == {"a": (1, True), "big": (2**60, None), "c": (None, None)}
    assert found.before_sha256 != found.after_sha256
    assert found.last_seen == NOON
    assert snapshot({"a": True, "b": "x", "c": None}) is None
    assert services.has_snapshot(source="m", type="registered_model", native_id="churn")
    assert not services.has_snapshot(source="m", type="registered_model", native_id="other")


def test_snapshot_keeps_hostile_texts():
    snapshot({"a": "nul\0"})
    assert Snapshot.objects.get().value == {"a": "nul\ufffd"}
    assert snapshot({"a": "nul\0"}) is None


def test_what_is_gone_is_told_once_and_may_come_back():
    snapshot({"a": 1})
    gone = [
        [item.native_id for item in services.mark_gone(source="m", type="registered_model", native_ids={"churn"})]
        for _ in range(2)
    ]
    assert gone == [["churn"], []]
    snapshot({"a": 1})
    assert not Snapshot.objects.get().is_gone
    assert services.mark_gone(source="m", type="registered_model", native_ids={"other"}) == []


def test_placing_a_version_says_which_one_it_replaced():
    first, second = kits.observe("0.1.0"), kits.observe("0.2.0")
    assert services.place(version=first, environment="production", request="1", now=NOON) is None
    assert services.place(version=second, environment="production", request="2", now=LATER) == first
    assert services.place(version=first, environment="staging", request="3", now=LATER) is None
    placed = list(Placement.objects.order_by("environment").values_list("environment", "version", "since", "request"))
    assert placed == [("production", second.pk, LATER, "2"), ("staging", first.pk, LATER, "3")]


def test_incomplete_check_leaves_the_time_of_the_last_complete_one():
    version = kits.observe("0.1.0", state="checked")
    services.note_check(version, state="unreachable", note="x" * 900, now=LATER, is_complete=False)
    version.refresh_from_db()
    assert (version.check_state, version.checked_at, version.attempted_at) == ("unreachable", NOON, LATER)
    assert len(version.check_note) == 500


def test_model_is_known_by_its_name_from_its_first_sight():
    assert services.model_named("a/b", NOON) == services.model_named("a/b", LATER)
    assert Model.objects.get().first_seen == NOON
