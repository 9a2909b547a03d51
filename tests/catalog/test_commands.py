from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from tests import kits

pytestmark = pytest.mark.django_db


def run(*arguments):
    out = io.StringIO()
    try:
        call_command("diff", *arguments, stdout=out)
    except SystemExit as exited:
        return exited.code, out.getvalue()
    return 0, out.getvalue()


@pytest.fixture(autouse=True)
def _both():
    kits.observe("0.1.0")
    kits.observe("0.2.0")


def test_diff_prints_what_differs_and_exits_only_when_asked():
    labels = ["acme/rf-model-audit:0.1.0", "acme/rf-model-audit:0.2.0"]
    code, text = run(*labels)
    assert code == 0
    assert text.startswith("Comparing:\n  ModelKit1: acme/rf-model-audit:0.1.0  sha256:a09f306b")
    assert run(*labels, "--exit-code") == (1, text)


def test_identical_versions_exit_with_zero_by_label_or_digest():
    by_digest = "acme/rf-model-audit@" + kits.digest_of("acme/rf-model-audit:0.1.0")
    assert run("acme/rf-model-audit:0.1.0", by_digest, "--exit-code") == (0, "ModelKits are identical\n")


def test_unknown_version_is_trouble_and_not_a_difference():
    with pytest.raises(CommandError, match="no version is recorded as x:1") as caught:
        run("acme/rf-model-audit:0.1.0", "x:1")
    assert caught.value.returncode == 2
