"""From a settled scope to the files of its bundle: a function of the log, the same each time (FORMAT.md §8).

Events pass through one by one; what is held in memory are counts, sequence numbers, and the proofs of one shard.
"""

from __future__ import annotations

import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import IO, Any

from django.conf import settings

from auditportal.bundles import approvals, signing, verifier
from auditportal.bundles.archive import Archive
from auditportal.bundles.errors import ChangedError
from auditportal.catalog.models import Version
from auditportal.ledger import exports as log, queries as ledger
from auditportal.ledger.canonical import encode
from auditportal.ledger.rows import Proven
from auditproof import bags, bundles, claims, dsse, exports, report, streammap, streams
from auditproof.approvals import parse_statement
from auditproof.signatures import sha256_hex

SHARD_EVENTS, SHARD_BYTES = 8_000, 32 * 1024 * 1024  # the proofs of one shard stay below 16 MiB in the largest log
CONTROL = ("ledger.credential", "ledger.erased", "ledger.key", "ledger.streams")
WITHHELD = "it names its authors"
README = Path(__file__).with_name("readme.txt")
COLUMNS = (
    "seq", "recorded", "timestamp", "timestamp_kind", "action", "outcome", "actor", "assurance", "subject_type",
    "subject_id", "environment", "reason", "source",
)  # fmt: skip
FORMULA = tuple("=+-@|\t\r\n＝＋－＠")  # noqa: RUF001 -- the full-width forms open a formula too

Progress = Callable[[int, int, str], None]  # (events done, events in all, what is being done)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a bundle holds, settled before it is built."""

    model: str
    recipient: str
    purpose: str
    known_size: int | None
    map_size: int
    map_seq: int
    map_root: bytes
    proofs: Sequence[Mapping[str, Any]]
    artifacts: Sequence[Mapping[str, Any]]
    checkpoint_size: int


@dataclass(frozen=True, slots=True)
class Built:
    digest: str
    events: int
    root: str  # of the checkpoint, hex


@dataclass(slots=True)
class _Read:
    """What one pass over the events leaves behind."""

    facts: claims.Facts = field(default_factory=claims.Facts)
    shards: list[array[int]] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)  # sizes of earlier tree heads that the events speak of


def streams_of(model: str) -> list[str]:
    """The streams whose completeness a bundle of this model proves."""
    return [*(f"action:{action}" for action in CONTROL), "model:" + streams.escape(model)]


def proof_entries(proofs: Mapping[str, streammap.MapProof]) -> list[dict[str, Any]]:
    """The entries of `completeness.json`."""
    return [
        {
            "stream": key,
            "siblings": [item.hex() for item in proof.siblings],
            "stands": None
            if proof.standing is None
            else {
                "stream": proof.standing.stream.hex(),
                "count": proof.standing.state.count,
                "last_seq": proof.standing.state.last_seq,
                "acc": proof.standing.state.acc.hex(),
            },
        }
        for key, proof in proofs.items()
    ]


def artifacts_of(model: str) -> list[dict[str, str]]:
    """What the catalog keeps of the model's versions, by digest; a Kitfile is listed and withheld."""
    found: dict[str, dict[str, str]] = {}
    for version in Version.objects.filter(model__name=model).order_by("pk").defer("config"):
        listed: list[tuple[str, str, dict[str, str]]] = [(digest, "model card", {}) for digest in _card_digest(version)]
        if version.manifest is not None:
            listed.append((f"sha256:{sha256_hex(bytes(version.manifest))}", "manifest", {}))
        if version.config_digest:
            listed.append((version.config_digest, "Kitfile", {"withheld": WITHHELD}))
        for digest, kind, more in listed:
            found.setdefault(digest, {"digest": digest, "kind": kind, "of": version.label, **more})
    return [found[digest] for digest in sorted(found)]


def _card_digest(version: Version) -> list[str]:
    return [f"sha256:{sha256_hex(version.card.encode())}"] if version.card else []


def build(scope: Scope, path: Path, signer: signing.Signer, progress: Progress) -> Built:
    """The bundle stands at `path`; its identity is the returned digest.

    Raises:
        ChangedError: something in scope was erased or changed since the scope was settled.
        LogBrokenError: an entry does not prove itself.
    """
    checkpoint = log.checkpoint_at(scope.checkpoint_size)
    with Archive(path) as archive, tempfile.TemporaryFile() as table:
        archive.write("bagit.txt", bags.BAGIT)
        read = _write_events(archive, scope, table, progress)
        count = read.facts.events

        def proving() -> None:
            progress(count, count, "proofs")

        support, bagging_date = _write_support(archive, scope, proving)
        _copy(archive, bags.TABLE, table)
        _write_proofs(archive, scope, read, checkpoint.note, proving)
        signatures = _write_approvals(archive, read)
        _write_artifacts(archive, scope)
        archive.write(bags.CUSTODY, claims.custody_lines(read.facts))
        archive.write("data/keys/log.vkey", f"{ledger.vkey()}\n".encode())
        archive.write("data/keys/signer.pem", signer.certificate_pem.encode())
        description = _describe(scope, read.facts, support, bytes(checkpoint.root), signatures)
        archive.write(bags.BUNDLE, encode(description))
        archive.write(bags.REPORT, report.render(description["claims"]))
        archive.write("README.txt", _readme(signer))
        archive.write("verify.pyz", verifier.build())
        progress(count, count, "signatures")
        tags = archive.finish(_info(scope, bagging_date))
        digest = sha256_hex(tags)
        statement = dsse.make_statement(
            subject=bags.TAG_MANIFEST, sha256=digest, predicate=bundles.predicate(description)
        )
        archive.write(bags.SIGNATURE, signer.sign_detached(tags))
        archive.write(bags.STATEMENT, signer.sign_statement(statement))
    return Built(digest, count, bytes(checkpoint.root).hex())


# ---- events ---------------------------------------------------------------------------------------------------------


def _write_events(archive: Archive, scope: Scope, table: IO[bytes], progress: Progress) -> _Read:
    read = _Read()
    seqs = log.model_seqs(scope.model, scope.map_size)
    explained = log.explained(scope.checkpoint_size)
    table.write("\ufeff".encode() + _csv(COLUMNS))
    entries = log.entries(seqs)
    entry = next(entries, None)
    while entry is not None:
        shard: array[int] = array("q")
        with archive.open(f"data/events/events-{len(read.shards):05d}.jsonl") as output:
            while entry is not None and len(shard) < SHARD_EVENTS and output.size < SHARD_BYTES:
                line = _line(entry, explained)
                output.write(encode(line) + b"\n")
                shard.append(entry.seq)
                item = exports.open_line(exports.parse_line(line, f"seq {entry.seq}"), origin=settings.LOG_ORIGIN)
                read.facts.add(item)
                read.seen |= _sizes_in(item)
                table.write(_csv(_row(item)))
                progress(read.facts.events, len(seqs), "events")
                entry = next(entries, None)
        read.shards.append(shard)
    return read


def _line(entry: Proven, explained: Mapping[int, int]) -> dict[str, Any]:
    """The event line of an entry (FORMAT.md §8).

    Raises:
        ChangedError: its body is gone, by an event after the checkpoint.
    """
    header = entry.row.header.decode("ascii")
    if entry.body is not None and entry.row.body is not None and entry.row.salt is not None:
        body = entry.row.body.decode("utf-8")
        return {"body": body, "disclosures": [], "header": header, "salt": entry.row.salt.hex()}
    if entry.seq not in explained:
        raise ChangedError(f"event {entry.seq} was erased meanwhile")
    hashes = [item.hex() for item in entry.stream_hashes]
    return {"absent": "erased", "by": explained[entry.seq], "header": header, "streams": hashes}


def _sizes_in(item: exports.Opened) -> set[int]:
    """Sizes of tree heads that somebody was given earlier: the bundles of this model issued before."""
    if item.body is None or item.body["action"] != "bundle.issued" or item.body["outcome"] != "done":
        return set()
    return {int(item.body["metadata"]["checkpoint"]["size"])}


def _csv(cells: Iterable[str]) -> bytes:
    """One line of RFC 4180, every cell quoted."""
    return (",".join('"' + text.replace('"', '""') + '"' for text in cells) + "\r\n").encode()


def _row(item: exports.Opened) -> list[str]:
    body = item.body
    if body is None:
        return [str(item.seq), item.header.t, *[""] * 2, str(item.line.absent), *[""] * 8]
    reason = body.get("reason", "")
    cells = [
        body["timestamp"],
        body["timestamp_kind"],
        body["action"],
        body["outcome"],
        body["actor"]["id"],
        body["actor"]["assurance"],
        body["subject"]["type"],
        body["subject"]["id"],
        body.get("environment", ""),
        reason if isinstance(reason, str) else "sealed",
        body["source"]["id"],
    ]
    return [str(item.seq), item.header.t, *map(cell, cells)]


def cell(text: str) -> str:
    """A text as a spreadsheet shows it and never runs it."""
    return claims.display(f"'{text}" if text.startswith(FORMULA) else text)


def _write_support(archive: Archive, scope: Scope, proving: Callable[[], None]) -> tuple[int, str]:
    """Genesis, control events up to the map, and every entry from there to the checkpoint; lines, and the last day."""
    control = {0}
    for action in CONTROL:
        control.update(log.action_seqs(action, scope.map_size))
    opened = {streams.stream_hash(f"action:{action}") for action in CONTROL}
    prover = log.Prover(scope.checkpoint_size)
    count, day = 0, ""
    with archive.open(bags.SUPPORT) as output:
        for entry in log.entries([*sorted(control), *range(scope.map_size, scope.checkpoint_size)]):
            is_control = entry.seq < scope.map_size or not opened.isdisjoint(entry.stream_hashes)
            line = _line(entry, {}) if is_control else _context(entry)
            path = [prover.hashes[index].hex() for index in prover.path(entry.seq)]
            output.write(encode(line | {"seq": entry.seq, "path": path}) + b"\n")
            count, day = count + 1, entry.header.t[:10]
            proving()
    return count, day


def _context(entry: Proven) -> dict[str, Any]:
    hashes = [item.hex() for item in entry.stream_hashes]
    return {"absent": "context", "header": entry.row.header.decode("ascii"), "streams": hashes}


def _copy(archive: Archive, name: str, file: IO[bytes]) -> None:
    file.seek(0)
    with archive.open(name) as output:
        shutil.copyfileobj(file, output)


# ---- proofs ---------------------------------------------------------------------------------------------------------


def _write_proofs(archive: Archive, scope: Scope, read: _Read, note: str, proving: Callable[[], None]) -> None:
    size = scope.checkpoint_size
    archive.write("data/proofs/checkpoint-to.txt", note.encode())
    archive.write("data/proofs/completeness.json", encode({"streams": list(scope.proofs)}))
    rotations = [
        checkpoint
        for seq in log.action_seqs("ledger.key", scope.map_size)
        if (checkpoint := log.first_checkpoint_above(seq)) is not None
    ]
    archive.write("data/proofs/rotation.json", encode({"checkpoints": [item.note for item in rotations]}))
    sizes = read.seen | {item.size for item in rotations} | _seen_by_signers(read)
    sizes |= {scope.known_size} if scope.known_size else set()
    archive.write("data/proofs/consistency.json", encode({"proofs": _consistency(sizes, size)}))
    for number, shard in enumerate(read.shards):
        prover = log.Prover(size)
        paths = []
        for seq in shard:
            paths.append(prover.path(seq))
            proving()
        hashes = [item.hex() for item in prover.hashes]
        raw = encode({"hashes": hashes, "paths": paths, "size": size})
        archive.write(f"data/proofs/inclusion-{number:05d}.json", raw)


def _consistency(sizes: Iterable[int], to: int) -> list[dict[str, Any]]:
    return [
        {
            "size": size,
            "root": log.tree_head(size).hex(),
            "path": [item.hex() for item in log.consistency(size, to)],
        }
        for size in sorted(sizes)
        if 0 < size < to
    ]


def _seen_by_signers(read: _Read) -> set[int]:
    found = approvals.statements(read.facts.signed)
    return {int(parse_statement(item.raw)["checkpoint"]["size"]) for item in found.values()}


# ---- what stands beside the events ----------------------------------------------------------------------------------


def _write_approvals(archive: Archive, read: _Read) -> list[dict[str, Any]]:
    found = approvals.statements(read.facts.signed)
    signatures = []
    for seq, statement in sorted(found.items()):
        name = {"salt": statement.name_salt.hex(), "value": statement.printed_name}
        archive.write(f"data/approvals/{seq}/statement.json", statement.raw)
        archive.write(f"data/approvals/{seq}/printed-name.json", encode(name))
        signatures.append(
            bundles.describe_signature(
                seq, read.facts.signed[seq], parse_statement(statement.raw), statement.printed_name
            )
        )
    return signatures


def _write_artifacts(archive: Archive, scope: Scope) -> None:
    """The bytes behind the listed digests.

    Raises:
        ChangedError: the catalog no longer has one of them.
    """
    wanted = {item["digest"] for item in scope.artifacts if "withheld" not in item}
    for version in Version.objects.filter(model__name=scope.model).order_by("pk").defer("config"):
        for raw in (version.manifest, version.card.encode() if version.card else None):
            if raw is None:
                continue
            digest = f"sha256:{sha256_hex(bytes(raw))}"
            if digest in wanted:
                wanted.remove(digest)
                archive.write("data/artifacts/" + digest.removeprefix("sha256:"), bytes(raw))
    if wanted:
        raise ChangedError(f"the catalog no longer holds {min(wanted)}")


def _describe(
    scope: Scope, facts: claims.Facts, support: int, root: bytes, signatures: list[dict[str, Any]]
) -> dict[str, Any]:
    checkpoint = {"size": scope.checkpoint_size, "root": root.hex()}
    issued_to = {"recipient": scope.recipient, "purpose": scope.purpose}
    end = exports.MapState(scope.map_size, scope.map_root, scope.map_seq)
    stream = "model:" + streams.escape(scope.model)
    return {
        "format": bundles.FORMAT,
        "log": settings.LOG_ORIGIN,
        "scope": {"model": scope.model, "streams": [stream], "filter": _filter(scope.model)},
        "map_from": {"size": 0, "seq": None},
        "map_to": {"size": scope.map_size, "seq": scope.map_seq, "root": scope.map_root.hex()},
        "checkpoint_to": checkpoint,
        "counts": {
            "events": facts.events,
            "bodies": facts.events - facts.erased - facts.withheld,
            "erased": facts.erased,
            "withheld": facts.withheld,
            "support": support,
        },
        "privacy": {"profile": bundles.PROFILE},
        "artifacts": list(scope.artifacts),
        **issued_to,
        "claims": claims.make(
            facts,
            model=scope.model,
            issued_to=issued_to,
            map_to=end,
            checkpoint=checkpoint,
            signatures=signatures,
        ),
    }


def _filter(model: str) -> str:
    """The scope as a query of the timeline, in canonical form."""
    return f'model:"{model}"' if any(char in model for char in ' ,"') else f"model:{model}"


def _readme(signer: signing.Signer) -> bytes:
    text = Template(README.read_text(encoding="utf-8"))
    return text.substitute(origin=settings.LOG_ORIGIN, root=signer.root_fingerprint).encode()


def _info(scope: Scope, day: str) -> str:
    return (
        f"Bagging-Date: {day}\n"
        f"External-Identifier: {settings.LOG_ORIGIN} map {scope.map_size} checkpoint {scope.checkpoint_size}\n"
        "Bag-Software-Agent: AuditPortal\n"
    )
