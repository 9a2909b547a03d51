"""What an operator with the real keys could do to an unpacked bundle: everything but what the log itself proves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from auditportal.bundles import signing
from auditproof import bags, bundles, claims, dsse, exports, report
from auditproof.canonical import encode


def rebuild(directory: Path, signer: signing.Signer | None) -> None:
    """Sizes, manifests and, with the signer, both signatures are those of the files as they are now."""
    payload = sorted(str(p.relative_to(directory)) for p in (directory / "data").rglob("*") if p.is_file())
    size = sum((directory / name).stat().st_size for name in payload)
    info = (directory / bags.INFO).read_text().splitlines()[:-1]
    (directory / bags.INFO).write_text("\n".join([*info, f"Payload-Oxum: {size}.{len(payload)}"]) + "\n")
    (directory / bags.MANIFEST).write_text(_manifest(directory, payload))
    tags = sorted(p.name for p in directory.iterdir() if p.is_file() and p.name != bags.TAG_MANIFEST)
    (directory / bags.TAG_MANIFEST).write_text(_manifest(directory, tags))
    if signer is None:
        return
    raw = (directory / bags.TAG_MANIFEST).read_bytes()
    (directory / bags.SIGNATURE).write_bytes(signer.sign_detached(raw))
    predicate = bundles.predicate(json.loads((directory / bags.BUNDLE).read_text()))
    statement = dsse.make_statement(
        subject=bags.TAG_MANIFEST, sha256=hashlib.sha256(raw).hexdigest(), predicate=predicate
    )
    (directory / bags.STATEMENT).write_bytes(signer.sign_statement(statement))


def _manifest(directory: Path, listed: list[str]) -> str:
    return "".join(f"{hashlib.sha256((directory / name).read_bytes()).hexdigest()}  {name}\n" for name in listed)


def drop_event(bag: Path, at: int) -> None:
    """The event, its proof, and every number that told of it, gone without a trace."""
    events = bag / "data/events/events-00000.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    del lines[at]
    events.write_bytes(b"".join(lines))
    proofs = bag / "data/proofs/inclusion-00000.json"
    value = json.loads(proofs.read_text())
    del value["paths"][at]
    proofs.write_bytes(encode(value))
    description = bag / bags.BUNDLE
    value = json.loads(description.read_text())
    value["counts"]["events"] -= 1
    value["counts"]["bodies"] -= 1
    facts = claims.Facts()
    for raw in lines:
        facts.add(exports.open_line(exports.parse_line(json.loads(raw), "line"), origin=value["log"]))
    known = {claim["id"]: claim["value"] for claim in value["claims"]}
    value["claims"] = claims.make(
        facts,
        model=known["scope"],
        issued_to=known["issued_to"],
        map_to=exports.MapState(known["map"]["size"], bytes.fromhex(known["map"]["root"]), known["map"]["seq"]),
        checkpoint=known["checkpoint"],
        signatures=known["signatures"],
    )
    description.write_bytes(encode(value))
    (bag / bags.REPORT).write_bytes(report.render(value["claims"]))
    (bag / bags.CUSTODY).write_bytes(claims.custody_lines(facts))
