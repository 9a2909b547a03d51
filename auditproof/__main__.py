"""`python -m auditproof`: what an auditor runs. Exit codes: 0 all well, 1 something failed, 2 a wrong call."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import bags, bundles, canonical, certificates, claims, notes, vectors
from .bundles import Result, Status, Trust
from .errors import NotCheckedError, ProofError

OK, FAILED, WRONG_CALL = 0, 1, 2


class WrongCallError(Exception):
    """The command line names something that cannot be used; the message says what."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; its exit code."""
    parser = argparse.ArgumentParser(prog="auditproof", description="Checks the proofs of an AuditPortal log.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("vectors", help="check a known-answer file; one line a failure")
    check.add_argument("file", type=Path)
    check.set_defaults(run=_vectors)
    verify = commands.add_parser("verify", help="check an audit bundle; one line a check, then the verdict")
    verify.add_argument("bundle", type=Path, help="the zip file, or the directory it was unpacked to")
    verify.add_argument("--key", help="the log's vkey, or a file with it; from elsewhere than the bundle")
    verify.add_argument("--root", type=Path, help="PEM file with the root above the bundle's signer; from elsewhere")
    verify.add_argument("--against", type=Path, help="an earlier checkpoint of the log, as a file that you kept")
    verify.add_argument("--at", type=int, help="check certificates at this time (Unix seconds) instead of now")
    verify.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    verify.set_defaults(run=_verify)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except WrongCallError as error:
        print(f"auditproof: {error}", file=sys.stderr)
        return WRONG_CALL


def _vectors(options: argparse.Namespace) -> int:
    raw = _read(options.file)
    try:
        failures = vectors.check_file(raw)
    except NotCheckedError as error:
        print(f"signatures NOT checked: {error.what}")
        return FAILED
    for failure in failures:
        print(failure)
    if failures:
        print(f"{len(failures)} of {len(vectors.SECTIONS)} sections differ")
        return FAILED
    print(f"all {len(vectors.SECTIONS)} sections agree")
    return OK


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WrongCallError(f"{path}: {error.strerror}") from None


def _verify(options: argparse.Namespace) -> int:
    trust = _trust(options)
    path: Path = options.bundle
    with contextlib.ExitStack() as stack:
        try:
            file = None if path.is_dir() else stack.enter_context(path.open("rb"))
        except OSError as error:
            raise WrongCallError(f"{path}: {error.strerror}") from None
        try:
            result = bundles.verify(bags.open_bag(path, file), trust)
        except ProofError as error:
            result = bundles.unreadable(error)
    if options.json:
        print(canonical.encode(_as_json(result)).decode())
    else:
        _print(result)
    return OK if result.verdict.is_green else FAILED


def _trust(options: argparse.Namespace) -> Trust:
    try:
        at = datetime.fromtimestamp(time.time() if options.at is None else options.at, UTC)
        key = _key(options.key) if options.key else None
        roots = certificates.parse_pem(_text(options.root), str(options.root)) if options.root else []
        against = _text(options.against) if options.against else None
        if against is not None:
            notes.parse_note(against)
    except ProofError as error:
        raise WrongCallError(str(error)) from None
    except (OverflowError, ValueError, OSError):
        raise WrongCallError(f"--at {options.at} is no time") from None
    return Trust(at=at, key=key, roots=tuple(roots), against=against)


def _key(given: str) -> notes.VerifierKey:
    """The key itself, or the one in the file of that name."""
    is_file = given.count("+") < 2 or Path(given).is_file()  # noqa: PLR2004 -- NAME+ID+KEY
    key = notes.VerifierKey.parse(_text(Path(given)).strip() if is_file else given)
    if key.type != notes.KeyType.ED25519:
        raise WrongCallError("--key takes the key of a log, not that of a witness")
    return key


def _text(path: Path) -> str:
    try:
        return _read(path).decode("utf-8")
    except UnicodeDecodeError:
        raise WrongCallError(f"{path}: not UTF-8") from None


def _print(result: Result) -> None:
    for check in result.checks:
        mark = {Status.OK: "ok", Status.FAILED: "FAILED", Status.NOT_CHECKED: "NOT CHECKED"}[check.status]
        print(f"{mark:<12} {check.what}" + (f": {claims.display(check.detail)}" if check.detail else ""))
    for text in bundles.NOT_PROVEN:
        print(f"{'not provable':<12} {text}")
    if result.scope:
        size = result.scope["checkpoint_to"]["size"]
        print(f"\nModel    {claims.display(result.scope['model'])}, log {claims.display(result.scope['log'])}")
        print(f"Between  map {result.scope['map_from']} and map {result.scope['map_to']}, under checkpoint {size}")
    print(f"\nVerdict: {result.verdict.text}")


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "bundle": result.digest,
        "checks": [
            {"what": check.what, "status": str(check.status), "detail": check.detail}
            | ({"name": str(check.error.name), "place": check.error.place} if check.error else {})
            for check in result.checks
        ],
        "green": result.verdict.is_green,
        "not_checked": [check.what for check in result.checks if check.status == Status.NOT_CHECKED],
        "not_provable": list(bundles.NOT_PROVEN),
        "scope": result.scope,
        "verdict": result.verdict.text,
    }


if __name__ == "__main__":
    sys.exit(main())
