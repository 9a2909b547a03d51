"""One version read at its registry, object by object: streamed, hashed, and told apart into verdicts.

No verdict is given that was not earned: what the registry did not answer about is unreachable, and a match means that
every byte was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from auditportal.connectors import modelkit
from auditportal.connectors.errors import ConnectorError, MismatchError, MissingError, TruncatedError
from auditportal.connectors.oci import Manifest, Registry
from auditportal.reconciliation.models import Verdict

MANIFEST = "manifest"


@dataclass(frozen=True, slots=True)
class Result:
    """What reading one object found."""

    object: str
    title: str
    verdict: str
    expected: str = ""
    found: str = ""
    detail: str = ""
    bytes_read: int = 0


@dataclass(slots=True)
class Examiner:
    """Reads versions of one registry; each distinct blob of a repository once a run."""

    registry: Registry
    beat: Callable[[int], None]  # told how many bytes came in
    _seen: dict[tuple[str, str], Result] = field(default_factory=dict)

    def examine(self, *, repository: str, digest: str, titles: dict[str, str]) -> Iterator[Result]:
        """The manifest, then each distinct blob it names; blobs only where the manifest is the recorded one."""
        first, manifest = self._manifest(repository, digest)
        yield first
        if manifest is None:
            return
        for blob, size in modelkit.blobs_of(manifest.value()).items():
            yield self._blob(repository, blob, size, titles.get(blob, blob))

    def _manifest(self, repository: str, digest: str) -> tuple[Result, Manifest | None]:
        result = Result(MANIFEST, "Manifest", Verdict.OK, expected=digest)
        try:
            manifest = self.registry.manifest(repository, digest)
            manifest.value()
        except ConnectorError as error:
            return _bad(result, error, missing=Verdict.MISSING_MANIFEST), None
        return replace(result, found=manifest.digest, bytes_read=len(manifest.raw)), manifest

    def _blob(self, repository: str, digest: str, size: int, title: str) -> Result:
        seen = self._seen.get((repository, digest))
        if seen is not None:
            return replace(seen, title=title, bytes_read=0)
        result = Result(digest, title, Verdict.OK, expected=digest)
        try:
            received = self.registry.hash_blob(repository, digest, size=size, progress=self.beat)
            result = replace(result, found=digest, bytes_read=received)
        except ConnectorError as error:
            result = _bad(result, error, missing=Verdict.MISSING_BLOB)
        self._seen[repository, digest] = result
        return result


def _bad(result: Result, error: ConnectorError, *, missing: Verdict) -> Result:
    result = replace(result, detail=error.reason)
    if isinstance(error, MissingError):
        return replace(result, verdict=missing, found="not there")
    if isinstance(error, MismatchError):
        verdict = Verdict.SIZE_MISMATCH if error.expected.endswith(" bytes") else Verdict.DIGEST_MISMATCH
        return replace(result, verdict=verdict, expected=error.expected, found=error.found)
    if isinstance(error, TruncatedError):
        return replace(result, verdict=Verdict.TRUNCATED, found="broke off")
    return replace(result, verdict=Verdict.UNREACHABLE, found="no usable answer")


_STATES = {
    Verdict.DIGEST_MISMATCH: "mismatch",
    Verdict.SIZE_MISMATCH: "mismatch",
    Verdict.MISSING_MANIFEST: "missing",
    Verdict.MISSING_BLOB: "missing",
    Verdict.TRUNCATED: "truncated",
    Verdict.UNREACHABLE: "unreachable",
}


def overall(results: list[Result]) -> tuple[str, str]:
    """The state of a version and the reason: the worst of its objects; checked only when every one of them is ok."""
    for verdict, state in _STATES.items():
        for result in results:
            if result.verdict == verdict:
                return state, f"{result.title}: {result.detail or result.verdict}"
    return "checked", ""
