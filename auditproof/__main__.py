"""`python -m auditproof`: what an auditor runs. Exit codes: 0 all well, 1 something failed, 2 a wrong call."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import vectors
from .errors import NotCheckedError

OK, FAILED, WRONG_CALL = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; its exit code."""
    parser = argparse.ArgumentParser(prog="auditproof", description="Checks the proofs of an AuditPortal log.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("vectors", help="check a known-answer file; one line a failure")
    check.add_argument("file", type=Path)
    check.set_defaults(run=_vectors)
    options = parser.parse_args(arguments)
    return int(options.run(options))


def _vectors(options: argparse.Namespace) -> int:
    try:
        raw = options.file.read_bytes()
    except OSError as error:
        print(f"{options.file}: {error.strerror}", file=sys.stderr)
        return WRONG_CALL
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


if __name__ == "__main__":
    sys.exit(main())
