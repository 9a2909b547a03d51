"""What two versions are made from, side by side, and what of it a reader should look at first.

All of it is stated by the packer and not checked, apart from digests of layers. Unlike kinds of digest are never
compared: a hash of a file, of a layer and of a data frame differ though the data is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from auditportal.catalog.diff import MARKS, Change, Pair, Part

NO_HASH = "no hash is stated, so only the address is compared"
UNLIKE = "one side states the digest of the content, the other only that of the packing: unlike digests"
UNSAFE_FORMATS = ("pickle", "pkl", "joblib", "dill", "cloudpickle")  # loading one runs what is inside


@dataclass(frozen=True, slots=True)
class Made:
    """What one version says of its making."""

    kitfile: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = ""
    parts: Sequence[Part] = ()

    @property
    def parameters(self) -> Mapping[str, Any]:
        return _object(_object(self.kitfile.get("model")).get("parameters"))

    def stated(self, section: str, name: str) -> str:
        value = _object(self.kitfile.get(section)).get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Origin:
    """`kind` says what the values are."""

    kind: str
    name: str
    before: str
    after: str
    change: Change
    note: str = ""

    @property
    def mark(self) -> str:
        return MARKS[self.change]


def origins(before: Made, after: Made) -> list[Origin]:
    """Run, commit and datasets of both; what neither names is left to the caller to say."""
    found = [
        _plain("MLflow run", before.run_id, after.run_id),
        _plain("Commit", _parameter(before, "git_commit"), _parameter(after, "git_commit")),
        _plain("dataset_sha256 as declared", _parameter(before, "dataset_sha256"), _parameter(after, "dataset_sha256")),
    ]
    return [item for item in found if item.before or item.after] + _datasets(before, after) + _remote(before, after)


def _plain(kind: str, before: str, after: str) -> Origin:
    return Origin(kind, "", before, after, _change(before, after))


def _change(before: str, after: str) -> Change:
    if before == after:
        return Change.SAME
    return Change.ADDED if not before else Change.REMOVED if not after else Change.CHANGED


def _parameter(made: Made, name: str) -> str:
    value = made.parameters.get(name)
    return value if isinstance(value, str) else ""


def _datasets(before: Made, after: Made) -> list[Origin]:
    left, right = ({part.title: part for part in made.parts if part.section == "datasets"} for made in (before, after))
    return [_dataset(name, left.get(name), right.get(name)) for name in sorted(left.keys() | right.keys())]


def _dataset(name: str, one: Part | None, other: Part | None) -> Origin:
    kind = "Dataset in the kit"
    if one is None or other is None:
        shown = [part.content or part.digest if part else "" for part in (one, other)]
        return Origin(kind, name, shown[0], shown[1], Change.ADDED if one is None else Change.REMOVED)
    if one.content and other.content:
        return Origin(kind, name, one.content, other.content, _change(one.content, other.content))
    if one.digest == other.digest:
        return Origin(kind, name, one.digest, other.digest, Change.SAME)
    note = UNLIKE if one.content or other.content else "both state only the digest of the packing"
    return Origin(kind, name, one.content or one.digest, other.content or other.digest, Change.UNKNOWN, note)


def _remote(before: Made, after: Made) -> list[Origin]:
    left, right = (_remote_datasets(made) for made in (before, after))
    found = []
    for name in sorted(left.keys() | right.keys()):
        (path, digest), (other_path, other_digest) = left.get(name, ("", "")), right.get(name, ("", ""))
        if digest and other_digest:
            found.append(Origin("Remote dataset", name, digest, other_digest, _change(digest, other_digest)))
        elif path and other_path:
            change = Change.CHANGED if path != other_path else Change.UNKNOWN
            found.append(Origin("Remote dataset", name, path, other_path, change, NO_HASH))
        else:
            found.append(Origin("Remote dataset", name, path, other_path, _change(path, other_path)))
    return found


def _remote_datasets(made: Made) -> dict[str, tuple[str, str]]:
    items = made.kitfile.get("datasets")
    return {
        str(item.get("name") or item["remotePath"]): (str(item["remotePath"]), str(item.get("remoteHash") or ""))
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and item.get("remotePath")
    }


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def warnings(before: Made, after: Made, pairs: Sequence[Pair]) -> list[str]:
    """What of the difference carries risk, as sentences."""
    found = []
    licenses = [made.stated("model", "license") or made.stated("package", "license") for made in (before, after)]
    if licenses[0] != licenses[1]:
        found.append(f"The licence changed from {licenses[0] or 'none stated'} to {licenses[1] or 'none stated'}.")
    formats = [made.stated("model", "format").lower() for made in (before, after)]
    if formats[1] in UNSAFE_FORMATS and formats[0] != formats[1]:
        found.append(
            f"The model is now a {formats[1]}: loading it runs the code inside. Before: {formats[0] or 'not stated'}."
        )
    if before.run_id and before.run_id == after.run_id and _has_other_data(before, after):
        found.append(
            f"Both versions name the MLflow run {before.run_id}, with different datasets: one of them is wrong."
        )
    lost = [pair.shown.title for pair in pairs if pair.change == Change.REMOVED and pair.shown.kind == "Docs"]
    if lost:
        found.append(f"Documentation was removed: {', '.join(lost)}.")
    return found


def _has_other_data(before: Made, after: Made) -> bool:
    return any(item.change == Change.CHANGED for item in _datasets(before, after))
