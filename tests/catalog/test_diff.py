from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from auditportal.catalog import diff, kitfiles, lines, origins
from auditportal.catalog.diff import Change, Field, Pair, Part, compare_fields, compare_numbers, flatten, pair_layers
from auditportal.catalog.origins import Made
from tests import kits

SAMPLES = Path(__file__).parents[1] / "samples/oci/diff"
A, B, C = ("sha256:" + digit * 64 for digit in "abc")


def part(name="", path="", digest=A, diff_id="", section="datasets", kind="Dataset", size=10, form="tar+gzip"):
    return Part(kind, section, name, path, digest, diff_id, size, f"application/vnd.kitops.modelkit.dataset.v1.{form}")


def verdicts(before, after, **options):
    return [(pair.change, pair.shown.title) for pair in pair_layers(before, after, **options)]


def test_six_verdicts_and_their_order():
    before = [
        part("same", "s", A),
        part("packed", "p", B, C),
        part("changed", "c", B, B),
        part("gone", "g", "sha256:1", "sha256:1", kind="Docs", section="docs"),
        part("", "old", "sha256:2", section="code", kind="Code"),
    ]
    after = [
        part("", "new", "sha256:2", section="code", kind="Code"),
        part("came", "n", "sha256:3", "sha256:3", kind="Prompt", section="prompts"),
        part("changed", "c", C, A, size=30),
        part("packed", "p", A, C),
        part("same", "s", A),
    ]
    pairs = pair_layers(before, after)
    assert [(pair.change, pair.mark, pair.shown.title) for pair in pairs] == [
        (Change.CHANGED, "~", "changed"),
        (Change.ADDED, "+", "came"),
        (Change.REMOVED, "−", "gone"),  # noqa: RUF001 -- the sign as people read it
        (Change.MOVED, "→", "new"),
        (Change.RECOMPRESSED, "≈", "packed"),
        (Change.SAME, "=", "same"),
    ]
    assert [pair.size_delta for pair in pairs] == [20, 10, -10, 0, 0, 0]


def test_names_pair_before_bytes_so_a_swap_of_contents_is_two_changes():
    before = [part("train", "t", A, A), part("test", "e", B, B)]
    after = [part("train", "t", B, B), part("test", "e", A, A)]
    assert verdicts(before, after) == [(Change.CHANGED, "test"), (Change.CHANGED, "train")]


def test_equal_bytes_in_place_pair_with_each_other_whatever_the_order():
    two = [part("", "a", A), part("", "b", A)]
    assert verdicts(two, two[::-1]) == [(Change.SAME, "a"), (Change.SAME, "b")]


def test_a_copy_is_an_addition_and_the_original_stays_the_same():
    assert verdicts([part("a", "a", A)], [part("b", "b", A), part("a", "a", A)]) == [
        (Change.ADDED, "b"),
        (Change.SAME, "a"),
    ]


def test_a_renamed_path_pairs_by_name_and_has_moved():
    assert verdicts([part("iris", "a.csv", A, A)], [part("iris", "b.csv", A, A)]) == [(Change.MOVED, "iris")]


def test_moved_content_may_be_repacked_on_the_way():
    before, after = part("", "a", A, C, section="code"), part("", "b", B, C, section="docs")
    assert verdicts([before], [after]) == [(Change.MOVED, "b")]


def test_the_only_layers_of_a_kind_pair_without_any_name():
    one, other = part(digest=A, section="", form="tar"), part(digest=B, section="", form="tar")
    assert verdicts([one], [other]) == [(Change.CHANGED, "Dataset")]
    assert verdicts([one], [other, part(digest=C, section="", form="tar")]) == [
        (Change.ADDED, "Dataset"),
        (Change.ADDED, "Dataset"),
        (Change.REMOVED, "Dataset"),
    ]


def test_packed_layers_without_diff_id_are_not_called_changed():
    before, after = part("iris", "d", A), part("iris", "d", B)
    assert verdicts([before], [after]) == [(Change.UNKNOWN, "iris")]
    assert verdicts([before], [part("iris", "d", B, C)]) == [(Change.UNKNOWN, "iris")]
    plain = [part("iris", "d", digest, form="tar") for digest in (A, B)]
    assert verdicts(plain[:1], plain[1:]) == [(Change.CHANGED, "iris")]


def test_a_plain_layer_and_its_packed_form_have_the_same_content():
    assert verdicts([part("iris", "d", A, form="tar")], [part("iris", "d", B, A)]) == [(Change.RECOMPRESSED, "iris")]


def test_nothing_is_the_same_on_unsound_bytes():
    before = [part("same", "s", A), part("packed", "p", B, C), part("", "old", C, section="code"), part("x", "x", A, A)]
    after = [part("same", "s", A), part("packed", "p", A, C), part("", "new", C, section="code"), part("x", "x", B, B)]
    assert verdicts(before, after, is_sound=False) == [
        (Change.CHANGED, "x"),
        (Change.UNKNOWN, "new"),
        (Change.UNKNOWN, "packed"),
        (Change.UNKNOWN, "same"),
    ]


few = st.sampled_from(["", "a", "b", "c"])
layers = st.lists(
    st.builds(
        Part,
        kind=st.sampled_from(["Model", "Dataset"]),
        section=st.sampled_from(["", "datasets", "code"]),
        name=few,
        path=few,
        digest=st.sampled_from([A, B, C]),
        diff_id=st.sampled_from(["", A, B, C]),
        size=st.integers(0, 9),
        media_type=st.sampled_from(["x.tar", "x.tar+gzip"]),
    ),
    max_size=8,
)


@given(layers, layers)
def test_every_layer_stands_in_exactly_one_pair(before, after):
    pairs = pair_layers(before, after)
    assert Counter(pair.before for pair in pairs if pair.before) == Counter(before)
    assert Counter(pair.after for pair in pairs if pair.after) == Counter(after)
    for pair in pairs:
        assert (pair.change == Change.ADDED) == (pair.before is None)
        assert (pair.change == Change.REMOVED) == (pair.after is None)
        if pair.change == Change.SAME:
            assert pair.before.digest == pair.after.digest
        if pair.change == Change.CHANGED:
            assert pair.before.digest != pair.after.digest


@given(layers)
def test_a_version_is_the_same_as_itself(some):
    assert {pair.change for pair in pair_layers(some, some[::-1])} <= {Change.SAME}


def test_ten_thousand_layers_pair_without_comparing_each_with_each():
    before = [part("", f"f{n}", f"sha256:{n}") for n in range(10_000)]
    pairs = pair_layers(before, before[::-1])
    assert Counter(pair.change for pair in pairs) == {Change.SAME: 10_000}


def kitfile_of(tag):
    kit = kits.recorded(tag)
    return kitfiles.original(kit.manifest, kit.config)


def test_recorded_kits_differ_in_the_twelve_recorded_fields():
    expected = json.loads((SAMPLES / "kitfile-field-diff-0.1.0-0.2.0.json").read_bytes())
    found = compare_fields(kitfile_of("0.1.0"), kitfile_of("0.2.0"))
    text = ["" if item is None else str(item) for entry in expected for item in (entry["from"], entry["to"])]
    assert [(f.pointer, f.change) for f in found] == [(item["pointer"], item["change"]) for item in expected]
    assert [side for f in found for side in (f.before, f.after)] == text
    assert sum(f.is_noise for f in found) == 6


def recorded_pairs():
    sides = []
    for tag in ("0.1.0", "0.2.0"):
        kit = kits.recorded(tag).kit
        sides.append(
            [Part(i.kind, i.section, i.name, i.path, i.digest, i.diff_id, i.size, i.media_type) for i in kit.layers]
        )
    return pair_layers(*sides)


def test_recorded_kits_share_what_kit_diff_says_they_share():
    text = (SAMPLES / "kit-diff-0.1.0-0.2.0.emulated.txt").read_text()
    shared, first, second = (block.split("\n\n")[0] for block in text.split("Layers")[1:])
    for pair in recorded_pairs():
        for side, block in ((pair.before, first), (pair.after, second)):
            if side is not None:
                assert (side.digest[:17] in shared) == (pair.change == Change.SAME)
                assert (side.digest[:17] in block) == (pair.change != Change.SAME)
    assert [(pair.change, pair.shown.kind) for pair in recorded_pairs()] == [
        (Change.CHANGED, "Dataset"),
        (Change.CHANGED, "Model"),
        (Change.REMOVED, "Docs"),
        (Change.SAME, "Code"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {"a": "1"}, [("/a", Change.CHANGED, "1", '"1"')]),
        ({"a": 1}, {"a": True}, [("/a", Change.CHANGED, "1", "true")]),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": None}, {}, [("/a", Change.REMOVED, "null", "")]),
        ({"a": ""}, {}, [("/a", Change.REMOVED, "", "")]),
        ({}, {"a": {}}, [("/a", Change.ADDED, "", "{}")]),
        ({"a/b": 1}, {"a": {"b": 1}}, [("/a/b", Change.ADDED, "", "1"), ("/a~1b", Change.REMOVED, "1", "")]),
        ({"d": [{"name": "x"}, {"name": "y"}]}, {"d": [{"name": "y"}, {"name": "x"}]}, []),
        ({"d": [{"name": "x", "v": 1}] * 2}, {"d": [{"name": "x", "v": 1}]},
         [("/d[x~~1]/name", Change.REMOVED, "x", ""), ("/d[x~~1]/v", Change.REMOVED, "1", "")]),
        ({"created": 1, "digest": "x"}, {"created": 2, "digest": "y"},
         [("/created", Change.CHANGED, "1", "2"), ("/digest", Change.CHANGED, "x", "y")]),
    ],
)  # fmt: skip
def test_fields_differ_by_value_and_type(before, after, expected):
    assert [(f.pointer, f.change, f.before, f.after) for f in compare_fields(before, after)] == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab/~[]1", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("ab/~[]1", max_size=2) | st.just("name"), inner, max_size=4)
    ),
    max_leaves=12,
)


def leaves(value):
    if isinstance(value, dict) and value:
        return sum(map(leaves, value.values()))
    return sum(map(leaves, value)) if isinstance(value, list) and value else 1


@given(st.dictionaries(st.text("ab/~[]1", max_size=2), json_values, min_size=1, max_size=4))
def test_no_leaf_hides_behind_another(value):
    found = list(flatten(value))
    assert len(found) == len(dict(found)) == leaves(value)


@given(st.dictionaries(st.text("ab", max_size=2), json_values, max_size=4))
def test_equal_documents_have_no_differing_field(value):
    assert compare_fields(value, json.loads(json.dumps(value))) == []


def test_deep_documents_need_no_deep_stack():
    value: dict[str, Any] = {"a": 1}
    for _ in range(5000):
        value = {"a": [value]}
    [(pointer, leaf)] = flatten(value)
    assert (leaf, pointer.count("/a")) == (1, 5001)


def test_metrics_of_either_side():
    found = compare_numbers({"auc": 0.5, "old": 1, "name": "x"}, {"auc": 0.75, "new": 2, "name": True})
    assert [(n.name, n.before, n.after, n.delta, n.change, n.mark) for n in found] == [
        ("auc", 0.5, 0.75, 0.25, Change.CHANGED, "~"),
        ("name", None, None, None, Change.ADDED, "+"),
        ("new", None, 2.0, None, Change.ADDED, "+"),
        ("old", 1.0, None, None, Change.REMOVED, "−"),  # noqa: RUF001 -- the sign as people read it
    ]


def text_of(pairs=(), fields=(), **given):
    values = {"names": ("a:1", "a:2"), "digests": (A, B), "configs": (A, B)}
    return diff.as_text(**(values | given), pairs=pairs, fields=fields)


def test_text_reads_as_kit_diff_and_adds_fields():
    fields = compare_fields(kitfile_of("0.1.0"), kitfile_of("0.2.0"))
    text = text_of(recorded_pairs(), fields)
    assert [line for line in text.splitlines() if line and not line.startswith(" ")] == [
        "Comparing:",
        "Configurations:",
        "Shared Layers:",
        "Repacked Layers (same content):",
        "Changed Layers:",
        "Layers not compared:",
        "Unique Layers to ModelKit1 (a:1):",
        "Unique Layers to ModelKit2 (a:2):",
        "Kitfile:",
    ]
    assert "  = Code         sha256:52ba897056        10240  src" in text
    assert "  ~ /model/parameters/metrics/accuracy: 0.9667 -> 0.9733" in text


def test_text_of_identical_kits_is_kits_own_sentence():
    assert text_of(is_identical=True) == "ModelKits are identical\n"
    assert "identical" not in text_of(digests=(A, A))


def test_text_says_doubts_first_and_unread_configs():
    text = text_of(doubts=["a:1 is missing"], configs=("", B))
    assert text.startswith("WARNING: a:1 is missing\n\nComparing:")
    assert "not compared: a config could not be read" in text


def test_foreign_names_make_no_lines_of_their_own():
    evil = part("x\nModelKits are identical\u202e\x1b[2J", "p", A, A)
    text = text_of([Pair(Change.ADDED, None, evil)], [Field("/a\nb", Change.ADDED, "", "c\rd", is_noise=False)])
    assert r"x\u000aModelKits are identical\u202e\u001b[2J" in text
    assert r"/a\u000ab: - -> c\u000dd" in text


def test_lines_fold_what_is_equal_and_mark_words():
    before = "".join(f"line {n}\n" for n in range(30))
    found = lines.compare_lines(before, before.replace("line 15\n", "line fifteen\nnew\n"))
    assert (found.added, found.removed, found.left_out) == (2, 1, 0)
    assert [row.folded for row in found.rows if row.folded] == [12, 11]
    changed = [row for row in found.rows if row.is_changed]
    assert [(s.text, s.is_changed) for s in changed[0].before.segments] == [("line ", False), ("15", True)]
    assert [(s.text, s.is_changed) for s in changed[0].after.segments] == [("line ", False), ("fifteen", True)]
    assert (changed[1].before, changed[1].after.number) == (None, 17)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30))
def test_lines_lose_nothing(before, after):
    found = lines.compare_lines("\n".join(before), "\n".join(after))
    for side, expected in ((lambda r: r.before, before), (lambda r: r.after, after)):
        shown = sum(side(row) is not None for row in found.rows) + sum(row.folded for row in found.rows)
        assert shown == len(expected)
        for row in found.rows:
            if line := side(row):
                assert "".join(s.text for s in line.segments) == expected[line.number - 1]


def test_lines_are_bounded():
    assert lines.compare_lines("x\n" * 5001, "") is None
    found = lines.compare_lines("x\n" * 4000, "y\n" * 4000)
    assert (len(found.rows), found.left_out) == (1000, 3000)


def test_words_are_compared_within_a_budget():
    before, after = ("\n".join(f"{letter} " * 500 + str(n) for n in range(100)) for letter in "ab")
    found = lines.compare_lines(before, after)
    marked = [any(s.is_changed for s in row.before.segments) for row in found.rows]
    assert (marked[0], marked[-1]) == (True, False)
    assert [row.before.segments[0].text for row in found.rows[-1:]] == ["a " * 500 + "99"]


def test_kitfile_as_written_leaves_out_what_packing_adds():
    written = kitfiles.as_written(kitfile_of("0.1.0"))
    text = kitfiles.as_yaml(written)
    assert "diffId" not in text
    assert "digest:" not in text
    assert text.startswith("manifestVersion: 1.0.0\npackage:\n  name: rf-model-audit\n")
    assert "dataset_sha256: dadd2ce0" in text


def test_kitfile_too_deep_or_too_large_is_not_shown_as_yaml():
    deep: dict[str, Any] = {}
    for _ in range(3000):
        deep = {"a": deep}
    assert kitfiles.as_yaml(deep) is None
    assert kitfiles.as_yaml({"a": "x" * 300_000}) is None
    assert kitfiles.as_yaml({}) == ""
    assert kitfiles.original(b"[]", b"{}") == {}
    assert kitfiles.original(None, None) == {}


def made(tag):
    kit = kits.recorded(tag)
    parts = [Part(i.kind, i.section, i.name, i.path, i.digest, i.diff_id, i.size, i.media_type) for i in kit.kit.layers]
    return Made(kit.kit.kitfile, kit.kit.run_id, parts)


def test_recorded_kits_come_from_one_run_with_two_datasets():
    found = origins.origins(made("0.1.0"), made("0.2.0"))
    assert [(item.kind, item.name, item.change) for item in found] == [
        ("MLflow run", "", Change.SAME),
        ("dataset_sha256 as declared", "", Change.CHANGED),
        ("Dataset in the kit", "iris", Change.CHANGED),
    ]
    warnings = origins.warnings(made("0.1.0"), made("0.2.0"), recorded_pairs())
    assert warnings == [
        "Both versions name the MLflow run a1b2c3d4e5f60718293a4b5c6d7e8f90, with different datasets: one of them is wrong.",
        "Documentation was removed: README.md.",
    ]
    assert origins.warnings(made("0.1.0"), made("0.1.0"), []) == []


def test_unlike_digests_of_a_dataset_are_not_compared():
    def sides(one, other):
        [item] = origins.origins(Made(parts=[one]), Made(parts=[other]))
        return item.change, bool(item.note)

    assert sides(part("iris", "d", A), part("iris", "d", B, C)) == (Change.UNKNOWN, True)
    assert sides(part("iris", "d", A), part("iris", "d", B)) == (Change.UNKNOWN, True)
    assert sides(part("iris", "d", A), part("iris", "d", A, C)) == (Change.SAME, False)
    assert sides(part("iris", "d", A, C), part("iris", "d", B, C)) == (Change.SAME, False)


def test_remote_datasets_compare_by_hash_where_both_state_one():
    def change(one, other):
        sides = [Made({"datasets": [{"name": "s3", "remotePath": path, "remoteHash": h}]}) for path, h in (one, other)]
        [item] = origins.origins(*sides)
        return item.change

    assert change(("s3://a", "1"), ("s3://b", "1")) == Change.SAME
    assert change(("s3://a", "1"), ("s3://a", "2")) == Change.CHANGED
    assert change(("s3://a", ""), ("s3://a", "")) == Change.UNKNOWN
    assert change(("s3://a", "1"), ("s3://b", "")) == Change.CHANGED


def test_licence_and_format_are_looked_at_first():
    before = Made({"model": {"license": "MIT", "format": "safetensors"}})
    after = Made({"package": {"license": "GPL-3.0"}, "model": {"format": "Pickle"}})
    assert origins.warnings(before, after, []) == [
        "The licence changed from MIT to GPL-3.0.",
        "The model is now a pickle: loading it runs the code inside. Before: safetensors.",
    ]
