from __future__ import annotations

from datetime import timedelta

import pytest

from auditportal.catalog import comparison, queries, services
from auditportal.catalog.diff import Change
from tests import kits
from tests.factories import NOON

pytestmark = pytest.mark.django_db
LATER = NOON + timedelta(hours=1)


def test_list_of_models_shows_the_newest_and_the_one_in_production():
    first = kits.observe("0.1.0", state="checked")
    kits.observe("0.2.0", now=LATER)
    kits.observe_mlflow()
    services.place(version=first, environment="production", request="", now=NOON)
    services.place(version=first, environment="staging", request="", now=NOON)
    shown = (
        "name",
        "version_count",
        "newest_name",
        "newest_check",
        "newest_card",
        "production_name",
        "production_check",
    )
    assert list(queries.models().values_list(*shown)) == [
        ("acme/rf-model-audit", 2, "0.2.0", "reported only", "missing", "0.1.0", "checked"),
        ("churn", 1, "14", "reported only", "", None, None),
    ]
    assert queries.models().count() == 2
    assert queries.check_counts() == {"checked": 1, "reported only": 2}


def test_versions_come_newest_first_with_their_size_and_without_their_bytes():
    first, second = kits.observe("0.1.0"), kits.observe("0.2.0")
    found = queries.versions_of(first.model)
    assert [v.pk for v in found] == [second.pk, first.pk]
    assert queries.sizes_of([*found, kits.observe_mlflow()]) == {second.pk: 20_658, first.pk: 30_888}
    assert {"manifest", "config", "card"} <= found[0].get_deferred_fields()
    assert [v.pk for v in queries.versions_of(first.model, most=1)] == [second.pk]
    assert [v.pk for v in queries.versions_of(first.model, before=second.pk)] == [first.pk]


def test_finding_by_name_and_label():
    version = kits.observe("0.1.0")
    assert queries.find_version("acme/rf-model-audit:0.1.0") == version
    assert queries.find_version("acme/rf-model-audit:9") is None
    assert queries.find_reference("acme/rf-model-audit:0.1.0") == version
    assert queries.find_reference(f"{version.repository}@{version.manifest_digest}") == version
    assert queries.find_reference(f"other@{version.manifest_digest}") is None
    assert queries.find_model("acme/rf-model-audit") == version.model
    assert queries.find_model("acme") is None
    assert queries.version_named(version.model, "0.1.0") == version
    assert queries.version_named(kits.observe_mlflow().model, "0.1.0") is None
    assert queries.newest_version(version.model) == version
    assert queries.newest_version(services.model_named("empty", NOON)) is None


def test_tags_stand_where_they_were_last_seen_and_gone_ones_nowhere():
    first, second = kits.observe("0.1.0"), kits.observe("0.2.0")
    see = {"source": kits.SOURCE, "repository": kits.REPOSITORY, "now": LATER}
    services.observe_tag(tag="latest", digest=first.manifest_digest, actor="usr_erin", **see)
    services.observe_tag(tag="latest", digest=second.manifest_digest, actor="usr_bob", **see)
    services.observe_tag(tag="0.1.0", digest="", **see)
    assert [queries.tags_of(version) for version in (first, second)] == [[], ["0.2.0", "latest"]]
    assert queries.tags_of(kits.observe_mlflow()) == []
    place = (kits.SOURCE, kits.REPOSITORY)
    assert queries.tags_by_digest([first, second]) == {
        (*place, second.manifest_digest): ["0.2.0", "latest"],
        (*place, ""): ["0.1.0"],
    }
    assert queries.packers([first, second]) == {
        first.manifest_digest: "usr_erin",
        second.manifest_digest: "usr_bob",
    }
    history = [(item.tag, item.digest) for item in queries.tag_history(first)]
    assert history == [
        ("0.1.0", ""),
        ("latest", second.manifest_digest),
        ("latest", first.manifest_digest),
        ("0.1.0", first.manifest_digest),
    ]


def test_in_production_is_by_model_and_leaves_the_bytes():
    for version in (kits.observe_mlflow(), kits.observe("0.1.0")):
        services.place(version=version, environment="production", request="", now=NOON)
    services.place(version=kits.observe("0.2.0"), environment="staging", request="", now=NOON)
    found = queries.in_production(most=5)
    assert [item.version.label for item in found] == ["acme/rf-model-audit:0.1.0", "churn:14"]
    assert "manifest" in found[0].version.get_deferred_fields()
    assert [item.environment for item in queries.placements(found[0].model)] == ["production", "staging"]


def test_comparison_of_the_recorded_kits():
    found = comparison.compare(kits.observe("0.1.0"), kits.observe("0.2.0"))
    assert [(pair.change, pair.shown.title) for pair in found.pairs] == [
        (Change.CHANGED, "iris"),
        (Change.CHANGED, "rf_model"),
        (Change.REMOVED, "README.md"),
        (Change.SAME, "src"),
    ]
    assert (found.is_identical, found.doubts, found.gaps, found.changed_layers) == (False, [], [], 3)
    assert (len(found.fields), found.lines.added, found.lines.removed) == (12, 4, 7)
    assert len(found.warnings) == 2
    assert "Changed Layers:\n  ~ Dataset" in found.text()


def test_equal_versions_are_identical():
    version, twin = kits.observe("0.1.0"), kits.observe("0.1.0", source="mirror")
    for head in (version, twin):
        found = comparison.compare(version, head)
        assert (found.is_identical, found.text()) == (True, "ModelKits are identical\n")
        assert {pair.change for pair in found.pairs} == {Change.SAME}
    mlflow = kits.observe_mlflow()
    assert comparison.compare(mlflow, mlflow).is_identical


@pytest.mark.parametrize("state", ["mismatch", "truncated", "missing"])
def test_versions_that_did_not_stand_their_check_are_same_in_nothing(state):
    version, twin = kits.observe("0.1.0"), kits.observe("0.1.0", source="mirror", state=state)
    found = comparison.compare(version, twin)
    assert (found.is_identical, len(found.doubts)) == (False, 1)
    assert {pair.change for pair in found.pairs} == {Change.UNKNOWN}
    assert found.text().startswith("WARNING: acme/rf-model-audit:0.1.0~2 ")
    assert "identical to" not in found.text()


@pytest.mark.parametrize("state", ["checked", "reported only", "unreachable"])
def test_other_states_leave_digests_comparable(state):
    found = comparison.compare(kits.observe("0.1.0"), kits.observe("0.1.0", source="mirror", state=state))
    assert (found.is_identical, found.doubts) == (True, [])


def test_what_was_never_read_is_a_gap_and_not_an_addition():
    kit = kits.make_kit({}, manifest=None, config=None, kit=None, state="unreachable", note="no answer")
    found = comparison.compare(kits.observed(kit, tag="9"), kits.observe("0.1.0"))
    assert (found.pairs, found.fields, len(found.gaps)) == ([], [], 1)
    assert "could not be read yet (unreachable)" in found.text()
    mixed = comparison.compare(kits.observe_mlflow(), kits.observe("0.1.0"))
    assert (mixed.pairs, mixed.fields) == ([], [])
    assert "MLflow, which keeps no digest" in mixed.gaps[0]


def test_other_order_of_keys_is_said_to_be_only_that():
    one = kits.observed(kits.make_kit({"package": {"name": "a", "version": "1"}}), tag="1")
    other = kits.observed(kits.make_kit({"package": {"version": "1", "name": "a"}}), tag="2")
    found = comparison.compare(one, other)
    assert (found.fields, found.is_reordered, found.is_identical) == ([], True, False)


def test_old_kit_and_modelpack_compare_too():
    old, pack = kits.observe("v0", repository="acme/old"), kits.observe("v1", repository="acme/mp")
    found = comparison.compare(old, pack)
    assert [(pair.change, pair.shown.kind) for pair in found.pairs] == [(Change.CHANGED, "Model")]
    assert found.gaps == []
