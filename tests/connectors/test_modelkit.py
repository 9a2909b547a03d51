"""ModelKits read from bytes: the samples, what older kits left out, and what nobody should send."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from auditportal.connectors import modelkit
from auditportal.connectors.foreign import TOO_DEEP, clean
from auditportal.connectors.modelkit import KIT_CONFIG, KIT_MANIFEST, PACK_MANIFEST

SAMPLES = Path(__file__).parents[1] / "samples" / "oci"
LAYERS = SAMPLES / "layout" / "blobs" / "sha256"
A, B, C = (f"sha256:{digit * 64}" for digit in "abc")


def sample(reference):
    """Manifest and config of an artifact in the layout."""
    index = json.loads((SAMPLES / "layout" / "index.json").read_bytes())
    named = {item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"] for item in index["manifests"]}
    manifest = json.loads((LAYERS / named[reference].removeprefix("sha256:")).read_bytes())
    return manifest, (LAYERS / manifest["config"]["digest"].removeprefix("sha256:")).read_bytes()


def kit(kitfile, *, layers=(), **manifest):
    given = {"config": {"mediaType": KIT_CONFIG, "digest": C, "size": 9}, "layers": list(layers), **manifest}
    return modelkit.read(given, kitfile if isinstance(kitfile, bytes) else json.dumps(kitfile).encode())


def layer(digest=A, kind="model", form="tar", **more):
    return {"mediaType": f"application/vnd.kitops.modelkit.{kind}.v1.{form}", "digest": digest, "size": 5, **more}


def test_kit_with_every_section():
    found = modelkit.read(*sample("acme/rf-model-audit:0.1.0"))
    assert found.format == "kit"
    assert [(item.kind, item.section, item.path, item.compression) for item in found.layers] == [
        ("Model", "model", "models/model.pkl", ""),
        ("Code", "code", "src", ""),
        ("Dataset", "datasets", "data/iris.csv", "gzip"),
        ("Docs", "docs", "README.md", ""),
    ]
    assert all(item.diff_id for item in found.layers)
    assert found.layers[2].diff_id != found.layers[2].digest
    assert found.metrics["accuracy"] == 0.9667
    assert found.run_id
    assert found.license


def test_old_kit_without_digests_pairs_by_order():
    manifest, config = sample("acme/old:v0")
    assert "artifactType" not in manifest
    found = modelkit.read(manifest, config)
    assert found.format == "kit"
    assert [item.section for item in found.layers] == ["model"]
    assert found.layers[0].name


def test_modelpack_gives_its_kitfile_from_the_annotation():
    found = modelkit.read(*sample("acme/mp:v1"))
    assert found.format == "modelpack"
    assert found.kitfile["package"]["name"]
    assert found.layers[0].kind == "Model"


def test_artifact_of_another_kind_is_still_shown():
    found = modelkit.read({"layers": [{"mediaType": "application/x", "digest": A, "size": 1}]}, None)
    assert (found.format, found.layers[0].kind, found.kitfile) == ("artifact", "application/x", {})


def test_blobs_are_distinct_and_have_their_sizes():
    manifest, _ = sample("acme/rf-model-audit:0.1.0")
    doubled = {**manifest, "layers": [*manifest["layers"], manifest["layers"][0]]}
    assert len(modelkit.blobs_of(doubled)) == 5
    assert min(modelkit.blobs_of(doubled).values()) == 168


def test_format_needs_only_one_of_both_marks():
    assert modelkit.read({"artifactType": KIT_MANIFEST}, None).format == "kit"
    assert modelkit.read({"config": {"mediaType": KIT_CONFIG, "digest": A}}, b"{}").format == "kit"
    assert modelkit.read({"artifactType": PACK_MANIFEST}, None).format == "modelpack"
    assert modelkit.read({}, None).format == "artifact"


def test_prompts_are_code_layers_with_a_mark():
    found = kit(
        {"code": [{"path": "src"}], "prompts": [{"path": "p.md"}]},
        layers=[
            layer(A, "code"),
            layer(B, "code", annotations={"ml.kitops.modelkit.layer-subtype": "prompt"}),
        ],
    )
    assert [(item.kind, item.section, item.path) for item in found.layers] == [
        ("Code", "code", "src"),
        ("Prompt", "prompts", "p.md"),
    ]


def test_remote_dataset_has_no_layer():
    found = kit(
        {"datasets": [{"name": "far", "remotePath": "s3://b/x"}, {"name": "near", "path": "d.csv"}]},
        layers=[layer(A, "dataset")],
    )
    assert [item.name for item in found.layers] == ["near"]


def test_digest_beats_order():
    found = kit(
        {"code": [{"path": "one", "digest": B}, {"path": "two", "digest": A}]},
        layers=[layer(A, "code"), layer(B, "code"), layer(C, "code")],
    )
    assert [item.path for item in found.layers] == ["two", "one", ""]


@pytest.mark.parametrize(
    ("parameters", "run"),
    [
        ({"mlflow_run_id": "a41f"}, "a41f"),
        ({"mlflow_provenance": {"mlflow_run_id": "b"}}, "b"),
        ({"mlflow": {"run_id": "c"}}, "c"),
        ({"mlflow_run_id": "not a run"}, ""),
        ({"mlflow_run_id": 7}, ""),
        ([], ""),
    ],
)
def test_run_is_found_wherever_people_put_it(parameters, run):
    assert kit({"model": {"parameters": parameters}}).run_id == run


def test_metrics_are_numbers_and_may_stand_where_kit_refuses_them():
    assert kit({"model": {"parameters": {"metrics": {"auc": 1, "on": True, "note": "x"}}}}).metrics == {"auc": 1.0}
    assert kit({"model": {"metrics": {"auc": 0.5}}}).metrics == {"auc": 0.5}
    hostile = b'{"model":{"metrics":{"a":1' + b"0" * 400 + b',"b":NaN,"c":1e999,"d":2}}}'
    assert kit(hostile).metrics == {"d": 2.0}


def test_unknown_keys_are_kept_and_signature_tags_known():
    assert kit({"mood": {"x": [1]}}).kitfile == {"mood": {"x": [1]}}
    digits = "a" * 64
    assert [modelkit.is_signature_tag(f"sha256-{digits}{end}") for end in ("", ".sig", ".att", ".sbom", ".x")] == [
        True, True, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [None, b"", b"[]", b"7", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b'{"model":7,"code":{},"datasets":[7]}', b"1" * 5000],
)  # fmt: skip
def test_kitfile_that_is_none_leaves_the_layers(config):
    found = modelkit.read({"artifactType": KIT_MANIFEST, "layers": [layer()]}, config)
    assert [item.digest for item in found.layers] == [A]
    assert found.metrics == {}
    assert (found.run_id, found.license) == ("", "")


@pytest.mark.parametrize(
    "item",
    [7, None, {}, {"digest": "sha256:x"}, {"digest": 7}, {"digest": A.upper()}, {"digest": "sha512:" + "a" * 128}],
)
def test_layers_without_a_digest_are_left_out(item):
    assert modelkit.read({"layers": [item, layer()]}, None).layers[0].digest == A
    assert modelkit.blobs_of({"layers": [item], "config": item}) == {}
    assert modelkit.config_of({"config": item}) is None


@pytest.mark.parametrize("size", [-1, 2**70, "5", None, 1.5, True])
def test_size_that_is_none_is_zero(size):
    assert modelkit.read({"layers": [layer(size=size)]}, None).layers[0].size == 0


def test_what_no_database_keeps_is_replaced_visibly():
    raw = b'{"package":{"name":"a\\u0000b\\ud800"},"n":NaN,"i":1e999,"deep":' + b'{"x":' * 60 + b"1" + b"}" * 60 + b"}"
    found = kit(raw, layers=[layer(annotations={"org.cncf.model.filepath": "p\x00q"})])
    assert found.kitfile["package"]["name"] == "a\ufffdb?"
    assert (found.kitfile["n"], found.kitfile["i"]) == ("nan", "inf")
    assert TOO_DEEP in json.dumps(found.kitfile)
    assert found.layers[0].path == "p\ufffdq"
    assert "\\u0000" not in json.dumps(found.kitfile)


def test_huge_kits_are_paired_in_one_pass():
    layers = [layer(f"sha256:{n:064x}") for n in range(20_000)]
    parts = [{"path": f"p{n}", "digest": f"sha256:{n:064x}"} for n in range(20_000)]
    found = kit({"code": parts}, layers=layers)
    assert len(found.layers) == modelkit.MOST_LAYERS
    assert found.layers[-1].path == f"p{modelkit.MOST_LAYERS - 1}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=30,
)
MEMBERS = st.dictionaries(
    st.sampled_from(["config", "layers", "annotations", "artifactType", "digest", "size", "mediaType", "model", "code"]), JSON
)  # fmt: skip


@given(MEMBERS, MEMBERS)
def test_reading_never_fails_and_gives_what_can_be_stored(manifest, kitfile):
    found = modelkit.read({"artifactType": KIT_MANIFEST, **manifest}, json.dumps(kitfile).encode())
    stored = json.dumps([found.kitfile, found.metrics], allow_nan=False)
    assert "\\u0000" not in stored.replace("\\\\", "")
    assert (found.run_id, found.license) is not None


@given(JSON)
def test_cleaning_is_idempotent(value):
    once = clean(value)
    assert json.dumps(clean(once)) == json.dumps(once)
