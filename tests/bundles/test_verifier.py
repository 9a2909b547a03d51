"""The tamper matrix: what each tool sees of each manipulation, and that ours sees all, under the right name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone

from auditportal.bundles import signing
from auditportal.bundles.models import Bundle
from auditportal.ledger import queries as ledger
from auditproof import bags, bundles, certificates, exports, notes, report, verdicts
from auditproof.canonical import encode
from auditproof.errors import ProofError
from tests import databases
from tests.bundles import forging
from tests.bundles.conftest import Issued, live, make_version, names, reject, verify, world_in

ROOT = Path(__file__).parents[2]


class Kit:
    """One issued bundle for all tests of this module, with the real keys at hand to forge with."""

    def __init__(self, world, bundle: Bundle) -> None:
        self.signer = signing.load()
        self.issued = Issued(
            zip=world.path(bundle),
            vkey=world.vkey,
            root_pem=world.root_pem,
            digest=bundle.digest,
            trust=world.trust(),
        )
        self.earlier = self.same = self.later = ""

    def unpack(self, target: Path) -> Path:
        return self.issued.unpack(target)

    def rebuild(self, directory: Path, *, sign: bool = True) -> None:
        forging.rebuild(directory, self.signer if sign else None)


@pytest.fixture(scope="module")
def kit(django_db_setup, django_db_blocker, tmp_path_factory) -> Iterator[Kit]:
    directory = tmp_path_factory.mktemp("kit")
    with django_db_blocker.unblock(), databases.cloned(), world_in(directory) as world:
        live()
        reject(make_version(), world.people)
        earlier = world.request()  # its map and checkpoint are the earlier ones
        head = ledger.head()  # read once: the sealer goes on
        from auditportal.jobs import services as jobs

        jobs.run_due()
        bundle = world.build(known_size=head.size)
        assert bundle.job.error == ""
        found = Kit(world, bundle)
        found.earlier = head.note
        found.same = zipfile.ZipFile(world.path(bundle)).read("data/proofs/checkpoint-to.txt").decode()
        assert ledger.wait_for_checkpoint(bundle.issued_seq, timeout_s=20)
        found.later = ledger.head().note
        assert Bundle.objects.get(pk=earlier.pk).is_ready
        yield found


@pytest.fixture
def bag(kit: Kit, tmp_path: Path) -> Path:
    return kit.unpack(tmp_path / "bag")


def run(command: str, directory: Path, **files: str) -> int:
    """A command of the README, in bash, with ROOT.pem and log.vkey beside."""
    for name, text in files.items():
        (directory.parent / name).write_text(text)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=directory, capture_output=True, text=True, check=False
    )
    return done.returncode


def sha256sum(directory: Path) -> bool:
    return (
        run("sha256sum --quiet -c manifest-sha256.txt && sha256sum --quiet -c tagmanifest-sha256.txt", directory) == 0
    )


def diff(directory: Path) -> bool:
    return (
        run("diff <(find data -type f | LC_ALL=C sort) <(cut -c67- manifest-sha256.txt | LC_ALL=C sort)", directory)
        == 0
    )


def cms(directory: Path, root_pem: str) -> bool:
    (directory.parent / "ROOT.pem").write_text(root_pem)
    return run(
        "openssl cms -verify -binary -inform DER -in signatures/tagmanifest-sha256.txt.p7s"
        " -content tagmanifest-sha256.txt -CAfile ../ROOT.pem -out /dev/null",
        directory,
    ) == 0  # fmt: skip


def bagit_valid(directory: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import bagit

        try:
            return bool(bagit.Bag(str(directory)).is_valid())
        except bagit.BagError:
            return False


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flip(path: Path, at: int = -2) -> None:
    edit(path, lambda raw: raw[: at % len(raw)] + bytes([raw[at] ^ 1]) + raw[at % len(raw) + 1 :])


# ---- the honest bundle ----------------------------------------------------------------------------------------------


def test_honest_bundle_passes_every_tool(kit, bag):
    assert sha256sum(bag)
    assert diff(bag)
    assert cms(bag, kit.issued.root_pem)
    assert bagit_valid(bag)
    for path in (kit.issued.zip, bag):
        result = verify(path, kit.issued.trust)
        assert (result.verdict, names(result)) == (verdicts.RELATIVE, set())
        assert result.digest == kit.issued.digest


def test_every_command_of_the_readme_passes(kit, bag):
    (bag.parent / "ROOT.pem").write_text(kit.issued.root_pem)
    (bag.parent / "log.vkey").write_text(kit.issued.vkey + "\n")
    lines = (bag / "README.txt").read_text().splitlines()
    commands = [line.strip() for line in lines if line.startswith("  ") and not line.strip().startswith(("#", "data/"))]
    start = next(at for at, line in enumerate(commands) if line.startswith("sha256sum"))
    script = "\n".join(f"{command} || exit {10 + at}" for at, command in enumerate(commands[start:]))
    script = script.replace("ROOT.pem", "../ROOT.pem").replace(" log.vkey", " ../log.vkey")
    done = subprocess.run(["bash", "-c", script], cwd=bag, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "CMS Verification successful\n"), done
    assert done.stdout.count("Signature Verified Successfully") == 2
    assert len(commands[start:]) == 13


def test_fingerprint_of_the_readme_is_what_openssl_prints(kit, bag):
    (bag.parent / "ROOT.pem").write_text(kit.issued.root_pem)
    done = subprocess.run(
        ["openssl", "x509", "-in", "../ROOT.pem", "-noout", "-fingerprint", "-sha256"],
        cwd=bag, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split("=")[1].strip().replace(":", "").lower() in (bag / "README.txt").read_text()


def test_securesystemslib_verifies_the_statement_and_refuses_another(kit, bag):
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # it does not list what it offers

    raw = (bag / bags.STATEMENT).read_text()
    [keyid] = [item["keyid"] for item in json.loads(raw)["signatures"]]

    def check(public_key: ec.EllipticCurvePublicKey) -> None:
        key = SSlibKey.from_crypto(public_key, keyid=keyid, scheme="ecdsa-sha2-nistp256")
        Envelope.from_dict(json.loads(raw)).verify([key], 1)

    check(kit.signer.key.public_key())
    with pytest.raises(VerificationError):
        check(ec.generate_private_key(ec.SECP256R1()).public_key())


@pytest.mark.parametrize("search", ["openssl", "nothing"])
def test_verifier_in_the_bundle_runs_under_a_bare_python(kit, bag, tmp_path, search):
    """No packages (-S), no environment (-E), an empty directory; P-256 by the openssl program, where there is one."""
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(bag / "verify.pyz", empty)
    shutil.copy(kit.issued.zip, empty / "bundle.zip")
    (tmp_path / "log.vkey").write_text(kit.issued.vkey)
    (tmp_path / "ROOT.pem").write_text(kit.issued.root_pem)
    command = [
        Path(sys.base_prefix) / "bin" / "python3",
        "-S",
        "-E",
        "verify.pyz",
        "verify",
        "bundle.zip",
        "--key",
        "../log.vkey",
    ]
    path = os.environ["PATH"] if search == "openssl" else str(tmp_path)
    rooted = subprocess.run(
        [*command, "--root", "../ROOT.pem"], cwd=empty, env={"PATH": path}, capture_output=True, text=True, check=False
    )
    plain = subprocess.run(command, cwd=empty, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert plain.returncode == 0, plain.stdout + plain.stderr
    assert plain.stdout.endswith("Verdict: complete relative to the map\n")
    if search == "openssl":
        assert rooted.returncode == 0, rooted.stdout
        assert "ok           certificate of the signer" in rooted.stdout
    else:
        assert rooted.returncode == 1
        assert "NOT CHECKED  signature over the manifests: P-256" in rooted.stdout
        assert rooted.stdout.endswith("Verdict: failed: SIGNATURE\n")


# ---- the matrix -----------------------------------------------------------------------------------------------------


def test_edited_event(kit, bag):
    edit(bag / "data/events/events-00000.jsonl", lambda raw: raw.replace(b"run-3", b"run-X", 1))
    assert not sha256sum(bag)
    assert cms(bag, kit.issued.root_pem)
    assert not bagit_valid(bag)
    result = verify(bag, kit.issued.trust)
    assert names(result) == {"BODY_COMMITMENT", "MANIFEST"}
    assert result.verdict.text.startswith("failed at seq ")
    assert result.verdict.text.endswith(": BODY_COMMITMENT")


def test_edited_event_with_both_manifests_mended(kit, bag):
    edit(bag / "data/events/events-00000.jsonl", lambda raw: raw.replace(b"run-3", b"run-X", 1))
    kit.rebuild(bag, sign=False)
    assert sha256sum(bag)
    assert bagit_valid(bag)
    assert not cms(bag, kit.issued.root_pem)
    assert names(verify(bag, kit.issued.trust)) == {"BODY_COMMITMENT", "SIGNATURE"}


@pytest.mark.parametrize("at", [0, 7, -1])
def test_operator_drops_an_event_and_rebuilds_everything_with_the_real_keys(kit, bag, at):
    forging.drop_event(bag, at)
    kit.rebuild(bag)
    assert sha256sum(bag)
    assert diff(bag)
    assert cms(bag, kit.issued.root_pem)
    assert bagit_valid(bag)
    result = verify(bag, kit.issued.trust)
    assert names(result) == {"INCOMPLETE_STREAM"}
    assert result.verdict.text == "failed: INCOMPLETE_STREAM"


def test_look_alike_certificate_of_the_same_name(kit, bag, tmp_path, settings):
    settings.BUNDLE_SIGNER = tmp_path / "other"
    settings.BUNDLE_SIGNER.mkdir()
    other = signing._make(settings.BUNDLE_SIGNER, timezone.now())
    raw = (bag / bags.TAG_MANIFEST).read_bytes()
    (bag / bags.SIGNATURE).write_bytes(other.sign_detached(raw))
    assert not cms(bag, kit.issued.root_pem)
    assert bagit_valid(bag)
    assert names(verify(bag, kit.issued.trust)) == {"SIGNATURE"}


def test_another_root_is_not_accepted(kit, bag, tmp_path):
    (tmp_path / "other").mkdir()
    other = signing._make(tmp_path / "other", timezone.now())
    assert not cms(bag, other.root_pem)
    trust = bundles.Trust(
        at=kit.issued.trust.at, key=kit.issued.trust.key, roots=tuple(certificates.parse_pem(other.root_pem, "root"))
    )
    assert names(verify(bag, trust)) == {"SIGNATURE"}


@pytest.mark.parametrize(
    ("name", "by_bagit", "expected"),
    [
        ("data/artifacts/" + "a" * 64, False, "UNLISTED_FILE"),
        ("data/events/more.jsonl", False, "UNLISTED_FILE"),
        ("verify-me.sh", True, "UNLISTED_FILE"),
        ("signatures/more.p7s", True, "UNLISTED_FILE"),
        ("VERIFY-ME.sh", True, "MALFORMED"),
        ("data/Events.csv", False, "MALFORMED"),
        ("data/é.txt", False, "MALFORMED"),
        ("data/.hidden", False, "MALFORMED"),
    ],
)
def test_extra_file(kit, bag, name, by_bagit, expected):
    (bag / name).write_text("run me")
    assert sha256sum(bag)
    assert cms(bag, kit.issued.root_pem)
    assert diff(bag) == (not name.startswith("data/"))
    assert bagit_valid(bag) == by_bagit
    assert names(verify(bag, kit.issued.trust)) == {expected}


def test_missing_payload_file(kit, bag):
    (bag / "data/events/events.csv").unlink()
    assert not sha256sum(bag)
    assert cms(bag, kit.issued.root_pem)
    assert not bagit_valid(bag)
    assert names(verify(bag, kit.issued.trust)) == {"MANIFEST"}


def test_symlink_in_the_payload(kit, bag):
    path = bag / "data/events/events.csv"
    shutil.move(path, bag.parent / "elsewhere.csv")
    path.symlink_to(bag.parent / "elsewhere.csv")
    assert not diff(bag)
    assert cms(bag, kit.issued.root_pem)
    assert not bagit_valid(bag)
    assert names(verify(bag, kit.issued.trust)) == {"MALFORMED"}


def test_path_upwards_in_a_manifest(kit, bag):
    edit(bag / bags.MANIFEST, lambda raw: raw + b"0" * 64 + b"  data/../../evil\n")
    assert not diff(bag)
    assert not bagit_valid(bag)
    assert names(verify(bag, kit.issued.trust)) == {"MALFORMED"}


def test_bytes_appended_to_the_signature(kit, bag):
    edit(bag / bags.SIGNATURE, lambda raw: raw + b"\x00")
    assert sha256sum(bag)
    assert cms(bag, kit.issued.root_pem)  # openssl takes no notice
    assert bagit_valid(bag)
    assert names(verify(bag, kit.issued.trust)) == {"SIGNATURE"}


def test_edited_size_of_the_checkpoint_with_all_else_rebuilt(kit, bag):
    path = bag / "data/proofs/checkpoint-to.txt"
    lines = path.read_text().split("\n")
    size = int(lines[1])
    lines[1] = str(size + 1)
    path.write_text("\n".join(lines))
    value = json.loads((bag / bags.BUNDLE).read_text())
    value["checkpoint_to"]["size"] = size + 1
    (bag / bags.BUNDLE).write_bytes(encode(value))
    kit.rebuild(bag)
    assert sha256sum(bag)
    assert cms(bag, kit.issued.root_pem)
    result = verify(bag, kit.issued.trust)
    assert "SIGNATURE" in names(result)
    without_key = bundles.Trust(at=kit.issued.trust.at)
    assert names(verify(bag, without_key))


def test_edited_checkpoint_alone(kit, bag):
    edit(bag / "data/proofs/checkpoint-to.txt", lambda raw: raw.replace(b"test.invalid", b"best.invalid", 1))
    assert not sha256sum(bag)
    assert names(verify(bag, kit.issued.trust)) == {"MANIFEST", "ORIGIN"}


def test_wrong_key(kit):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    trust = bundles.Trust(
        at=kit.issued.trust.at, key=notes.VerifierKey.ed25519("test.invalid/log", raw), roots=kit.issued.trust.roots
    )
    result = verify(kit.issued.zip, trust)
    assert names(result) == {"SIGNATURE"}
    assert result.verdict.text == "failed: SIGNATURE"


def test_without_a_key_nothing_is_authenticated(kit):
    result = verify(kit.issued.zip, bundles.Trust(at=kit.issued.trust.at))
    assert names(result) == set()
    assert result.verdict == verdicts.UNAUTHENTICATED
    unchecked = {check.what for check in result.checks if check.status == bundles.Status.NOT_CHECKED}
    assert {"key of the log", "certificate of the signer", "an earlier checkpoint"} <= unchecked


def against(kit, note: str) -> bundles.Result:
    given = kit.issued.trust
    return verify(kit.issued.zip, bundles.Trust(at=given.at, key=given.key, roots=given.roots, against=note))


def test_earlier_checkpoint_that_was_asked_for_is_the_beginning_of_this_one(kit):
    for note in (kit.earlier, kit.same):
        assert against(kit, note).verdict == verdicts.RELATIVE


def test_later_checkpoint_shows_a_rollback(kit):
    assert names(against(kit, kit.later)) == {"ROLLBACK"}


def test_same_size_with_another_root_is_a_fork(kit):
    lines = kit.same.split("\n")
    lines[2] = "A" * 43 + "="
    assert names(against(kit, "\n".join(lines))) == {"FORK"}


def test_earlier_checkpoint_with_another_root_is_no_beginning(kit):
    lines = kit.earlier.split("\n")
    lines[2] = "A" * 43 + "="
    assert names(against(kit, "\n".join(lines))) == {"CONSISTENCY"}


def test_earlier_checkpoint_without_a_proof_is_never_green(kit):
    lines = kit.earlier.split("\n")
    lines[1] = "2"
    result = against(kit, "\n".join(lines))
    assert names(result) == {"CONSISTENCY"}
    assert not result.verdict.is_green


def test_checkpoint_of_another_log_is_refused(kit):
    assert names(against(kit, kit.earlier.replace("test.invalid", "best.invalid"))) == {"ORIGIN"}


def test_expired_certificate(kit):
    given = kit.issued.trust
    late = datetime.now(UTC) + timedelta(days=365 * 31)
    assert names(verify(kit.issued.zip, bundles.Trust(at=late, key=given.key, roots=given.roots))) == {"SIGNATURE"}


def all_files(kit: Kit) -> list[str]:
    return zipfile.ZipFile(kit.issued.zip).namelist()


def test_a_flipped_byte_in_any_file_is_found(kit, tmp_path):
    """First, middle and last byte of each file."""
    bag = kit.unpack(tmp_path / "bag")
    for name in all_files(kit):
        path = bag / name
        honest = path.read_bytes()
        for at in {0, len(honest) // 2, len(honest) - 1}:
            path.write_bytes(honest[:at] + bytes([honest[at] ^ 1]) + honest[at + 1 :])
            result = verify(bag, kit.issued.trust)
            assert not result.verdict.is_green, (name, at)
            assert result.verdict.text.startswith("failed"), (name, at)
        path.write_bytes(honest)
    assert verify(bag, kit.issued.trust).verdict == verdicts.RELATIVE


def again(raw: bytes) -> bytes:
    return raw + raw.splitlines(keepends=True)[-1]


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: raw.replace(old, new, 1)


REPORT, EVENTS, PATHS = bags.REPORT, "data/events/events-00000.jsonl", "data/proofs/inclusion-00000.json"
REFUSALS = b'"id":"refusals","text":"Attempts refused","value":'
OPENED = b'"disclosures":[{"pointer":"/metadata/x","salt":"00000000000000000000000000000000","value":"1"}]'
SIGNED_ANEW: dict[str, tuple[str, Callable[[bytes], bytes], set[str]]] = {
    "a number of the report": (REPORT, replaced(b'"/refusals">1<', b'"/refusals">0<'), {"CLAIM"}),
    "a number beside the claims": (REPORT, replaced(b"</body>", b"<p>0 refusals</p></body>"), {"CLAIM"}),
    "a script in the report": (REPORT, replaced(b"</body>", b"<script>alert()</script></body>"), {"CLAIM"}),
    "a claim that is none": (REPORT, replaced(b'data-claim="/events"', b'data-claim="/nothing"'), {"CLAIM"}),
    "a claim not shown": (REPORT, replaced(b'data-claim="/events"', b'data-claim="/scope"'), {"CLAIM"}),
    "a style that writes into the report": (
        REPORT,
        replaced(b"</style>", b"[data-claim='/refusals']::after{content:' of 0'}</style>"),
        {"CLAIM"},
    ),
    "a report that goes elsewhere": (
        REPORT,
        replaced(b"<title>", b'<meta http-equiv="refresh" content="0;url=https://x.invalid/"><title>'),
        {"CLAIM"},
    ),
    "a line of custody": (bags.CUSTODY, lambda raw: raw[raw.index(b"\n") + 1 :], {"CLAIM"}),
    "a claim": (bags.BUNDLE, replaced(REFUSALS + b"1", REFUSALS + b"0"), {"CLAIM"}),
    "the text of a claim": (bags.BUNDLE, replaced(b"Attempts refused", b"Attempts allowed"), {"CLAIM"}),
    "the format": (bags.BUNDLE, replaced(b"bundle/v1", b"bundle/v2"), {"MALFORMED"}),
    "the profile": (bags.BUNDLE, replaced(b'"pseudonyms"', b'"everything"'), {"MALFORMED"}),
    "the spelling": (bags.BUNDLE, lambda raw: b" " + raw, {"MALFORMED"}),
    "the last entry before the checkpoint": (
        bags.SUPPORT,
        lambda raw: raw[: raw[:-1].rindex(b"\n") + 1],
        {"SEQ_GAP"},
    ),
    "genesis": (bags.SUPPORT, lambda raw: raw[raw.index(b"\n") + 1 :], {"INCOMPLETE_STREAM"}),
    "a disclosure": (EVENTS, replaced(b'"disclosures":[]', OPENED), {"DISCLOSURE"}),
    "an event twice": (EVENTS, again, {"MALFORMED"}),
    "the last line feed": (EVENTS, lambda raw: raw[:-1], {"MALFORMED"}),
    "an empty line": (EVENTS, lambda raw: b"\n" + raw, {"MALFORMED"}),
    "a path": (PATHS, replaced(b'"paths":[[0', b'"paths":[[1'), {"INCLUSION"}),
    "a path to nowhere": (PATHS, replaced(b'"paths":[[0', b'"paths":[[99999'), {"MALFORMED"}),
    "a rotation": ("data/proofs/rotation.json", lambda _: b'{"checkpoints":["x"]}', {"MALFORMED"}),
    "the key inside": ("data/keys/log.vkey", replaced(b"test", b"best"), set()),  # nothing is believed because of it
}


@pytest.mark.parametrize("what", SIGNED_ANEW)
def test_operator_edits_a_file_and_signs_anew(kit, bag, what):
    name, change, expected = SIGNED_ANEW[what]
    before = (bag / name).read_bytes()
    edit(bag / name, change)
    assert (bag / name).read_bytes() != before
    kit.rebuild(bag)
    result = verify(bag, kit.issued.trust)
    assert names(result) == expected
    assert result.verdict.is_green == (not expected)


HOSTILE: list[Any] = [None, True, -1, 0, 2**52, "", "x", "0" * 64, [], {}, [[]], {"a": 1}, 1.5, "\ud83d\ude00\u202e"]


def mutate(value: Any, random: Random) -> Any:
    """The same JSON with one value somewhere exchanged, dropped or doubled."""
    places: list[tuple[Any, Any]] = []

    def walk(item: Any) -> None:
        for key, child in item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ():
            places.append((item, key))
            walk(child)

    walk(value)
    parent, key = random.choice(places)
    act = random.randrange(4)
    if act == 0:
        del parent[key]
    elif act == 1 and isinstance(parent, dict):
        parent["another"] = random.choice(HOSTILE)
    elif act == 2 and isinstance(parent, list):
        parent.insert(key, parent[key])
    else:
        parent[key] = random.choice(HOSTILE)
    return value


@pytest.mark.parametrize("seed", range(8))
def test_no_json_however_hostile_escapes_as_anything_but_a_failure(kit, bag, seed):
    """One value of one file changed, all else rebuilt and signed: named failures, never an exception, never green."""
    random = Random(seed)
    files = [name for name in all_files(kit) if name.endswith((".json", ".jsonl")) and name.startswith("data/")]
    for _ in range(25):
        path = bag / random.choice(files)
        honest = path.read_bytes()
        if path.suffix == ".jsonl":
            lines = honest.splitlines()
            at = random.randrange(len(lines))
            lines[at] = dumps(mutate(json.loads(lines[at]), random))
            changed = b"\n".join(lines) + b"\n"
        else:
            changed = dumps(mutate(json.loads(honest), random))
        if changed != honest:
            path.write_bytes(changed)
            kit.rebuild(bag, sign=False)
            raw = (bag / bags.TAG_MANIFEST).read_bytes()
            (bag / bags.SIGNATURE).write_bytes(kit.signer.sign_detached(raw))
            result = verify(bag, kit.issued.trust)
            # The statement no longer speaks of this manifest, so the file's own failure must be beside that one.
            own = [check for check in result.checks if check.error and check.what != "in-toto statement"]
            assert own, path
            assert not result.verdict.is_green, path
        path.write_bytes(honest)


def dumps(value: Any) -> bytes:
    """Canonical where it can be; the verifier must bear both."""
    try:
        return encode(value)
    except ProofError:
        return json.dumps(value).encode()


def test_forged_map_proof_fails(kit, bag):
    path = bag / "data/proofs/completeness.json"
    for change in ("count", "last_seq", "siblings", "absent"):
        value = json.loads(path.read_text())
        honest = path.read_bytes()
        entry = next(item for item in value["streams"] if item["stream"] == "model:churn")
        if change == "siblings":
            entry["siblings"] = entry["siblings"][:-1]
        elif change == "absent":
            entry["stands"] = None
        else:
            entry["stands"][change] -= 1
        path.write_bytes(encode(value))
        kit.rebuild(bag)
        assert names(verify(bag, kit.issued.trust)) == {"STREAM_MAP"}
        path.write_bytes(honest)


def test_hidden_control_stream_fails(kit, bag):
    path = bag / "data/proofs/completeness.json"
    value = json.loads(path.read_text())
    value["streams"] = [item for item in value["streams"] if item["stream"] != "action:ledger.erased"]
    path.write_bytes(encode(value))
    kit.rebuild(bag)
    assert names(verify(bag, kit.issued.trust)) == {"INCOMPLETE_STREAM"}


def test_swapped_statement_and_name_of_an_approval_fail(kit, bag):
    [directory] = (bag / "data/approvals").iterdir()
    statement, name = directory / "statement.json", directory / "printed-name.json"
    honest = statement.read_bytes(), name.read_bytes()
    statement.write_bytes(honest[0].replace(b'"meaning":"rejected"', b'"meaning":"approved"'))
    kit.rebuild(bag)
    assert names(verify(bag, kit.issued.trust)) == {"SIGNATURE"}
    statement.write_bytes(honest[0])
    name.write_bytes(honest[1].replace(b"Alice", b"Carol"))
    kit.rebuild(bag)
    assert names(verify(bag, kit.issued.trust)) == {"DISCLOSURE"}
    shutil.rmtree(directory)
    kit.rebuild(bag)
    assert names(verify(bag, kit.issued.trust)) == {"UNEXPLAINED_ABSENCE"}


def test_approval_beside_no_event_of_the_scope_fails(kit, bag):
    [directory] = (bag / "data/approvals").iterdir()
    shutil.copytree(directory, bag / "data/approvals/3")
    kit.rebuild(bag)
    assert names(verify(bag, kit.issued.trust)) == {"UNLISTED_FILE"}


def test_exchanged_artifact_fails(kit, bag):
    path = min((bag / "data/artifacts").iterdir())
    path.write_bytes(b"another manifest")
    kit.rebuild(bag)
    assert names(verify(bag, kit.issued.trust)) == {"MANIFEST"}


def test_withheld_body_makes_the_verdict_partial(kit, bag):
    """One body taken out and declared as withheld: provable still, and never green."""
    events = bag / "data/events/events-00000.jsonl"
    lines = events.read_bytes().splitlines()
    item = exports.open_line(exports.parse_line(json.loads(lines[2]), "line"), origin="test.invalid/log")
    lines[2] = encode(
        {"absent": "withheld", "header": item.line.header.decode(), "streams": [h.hex() for h in item.hashes]}
    )
    events.write_bytes(b"\n".join(lines) + b"\n")
    description = bag / bags.BUNDLE
    value = json.loads(description.read_text())
    count = value["counts"]["events"]
    value["counts"] |= {"bodies": count - 1, "withheld": 1}
    for claim in value["claims"]:
        if claim["id"] == "withheld":
            claim["value"] = 1
        if claim["id"] == "actions":
            claim["value"] = [a | {"count": a["count"] - (a["action"] == "train")} for a in claim["value"]]
    description.write_bytes(encode(value))
    (bag / bags.REPORT).write_bytes(report.render(value["claims"]))
    kit.rebuild(bag)
    result = verify(bag, kit.issued.trust)
    assert names(result) == set()
    assert result.verdict == verdicts.partial(count - 1, count)
    assert not result.verdict.is_green


# ---- the command line -----------------------------------------------------------------------------------------------


def cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "auditproof", "verify", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )


def test_command_says_one_line_a_check_and_exits_by_the_verdict(kit, tmp_path):
    (tmp_path / "ROOT.pem").write_text(kit.issued.root_pem)
    (tmp_path / "kept.txt").write_text(kit.earlier)
    green = cli(
        str(kit.issued.zip), "--key", kit.issued.vkey, "--root", "ROOT.pem", "--against", "kept.txt", cwd=tmp_path
    )
    assert green.returncode == 0, green.stdout + green.stderr
    assert green.stdout.endswith("\nVerdict: complete relative to the map\n")
    assert "FAILED" not in green.stdout
    assert "not provable that what was recorded is true" in green.stdout
    plain = cli(str(kit.issued.zip), cwd=tmp_path)
    assert (plain.returncode, plain.stdout.splitlines()[-1]) == (1, "Verdict: self-consistent, not authenticated")
    told = json.loads(cli(str(kit.issued.zip), "--key", kit.issued.vkey, "--json", cwd=tmp_path).stdout)
    assert (told["verdict"], told["green"], told["bundle"]) == ("complete relative to the map", True, kit.issued.digest)


@pytest.mark.parametrize(
    "arguments", [["nothing.zip"], ["x.zip", "--key", "a+b+c"], ["x.zip", "--root", "nothing.pem"], ["x.zip", "--against", "x.zip"], ["x.zip", "--at", "9" * 30], []]
)  # fmt: skip
def test_wrong_call_is_told_apart(tmp_path, arguments):
    (tmp_path / "x.zip").write_bytes(b"no zip, no note")
    assert cli(*arguments, cwd=tmp_path).returncode == 2


def test_no_zip_is_a_failure_and_no_crash(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    done = cli("x.zip", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (1, "Verdict: failed: MALFORMED", "")
