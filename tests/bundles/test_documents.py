"""What the documents tell an auditor to type, typed."""

from __future__ import annotations

import re
import shutil
import subprocess

from tests.bundles.conftest import live, make_version, reject
from tests.portal import ROOT


def test_every_command_of_the_guide_works_on_a_real_bundle(world, tmp_path):
    live()
    reject(make_version(), world.people)
    bundle = world.build()
    shutil.copy(world.path(bundle), tmp_path / "bundle.zip")
    (tmp_path / "log.vkey").write_text(world.vkey + "\n")
    (tmp_path / "ROOT.pem").write_text(world.root_pem)
    (tmp_path / "auditproof").symlink_to(ROOT / "auditproof")
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "verifying.md").read_text(), re.DOTALL)
    assert len(blocks) == 8
    script = "set -eu -o pipefail\n" + "\n".join(blocks)
    if shutil.which("unzip") is None:  # bare machines have Python's
        script = script.replace("unzip -q bundle.zip -d bundle", "python3 -m zipfile -e bundle.zip bundle")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Verdict: complete relative to the map" in done.stdout
    assert f"{bundle.digest}  tagmanifest-sha256.txt" in done.stdout
    assert done.stdout.count("Signature Verified Successfully") == 2
    assert "CMS Verification successful" in done.stderr


def test_the_guide_notices_a_changed_statement(world, tmp_path):
    live()
    reject(make_version(), world.people)
    path = world.path(world.build())
    subprocess.run(["python3", "-m", "zipfile", "-e", str(path), str(tmp_path / "bundle")], check=True)
    [statement] = (tmp_path / "bundle" / "data" / "approvals").glob("*/statement.json")
    statement.write_bytes(statement.read_bytes().replace(b"rejected", b"approved"))
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "verifying.md").read_text(), re.DOTALL)
    done = subprocess.run(["bash", "-c", blocks[-1]], cwd=tmp_path / "bundle", check=False)
    assert done.returncode == 1
