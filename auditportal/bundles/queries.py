from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet

from auditportal.bundles.errors import AlteredError
from auditportal.bundles.models import Bundle
from auditportal.ledger import queries as ledger
from auditproof import bags
from auditproof.errors import ProofError


def directory() -> Path:
    """Where finished bundles lie."""
    return Path(settings.DATA) / "bundles"


def bundles() -> QuerySet[Bundle]:
    """Newest first, with what a list shows."""
    found = Bundle.objects.select_related("model", "requested_by", "job").defer("proofs", "artifacts")
    return found.order_by("-requested_at", "-id")


def find(pk: UUID) -> Bundle | None:
    return bundles().filter(pk=pk).first()


def path_of(bundle: Bundle) -> Path:
    return directory() / bundle.file_name


def open_issued(bundle: Bundle) -> BinaryIO:
    """The file of an issued bundle, at its start: what is read from it is what the log says was issued.

    Each file that the manifests list is hashed, not the tag manifest alone, since that one may lie unchanged beside a
    changed event. The signatures stand outside of the manifests; whoever verifies the bundle checks them.

    Raises:
        FileNotFoundError: the file is gone.
        AlteredError: the row or the file is not what the event says.
    """
    _check_row(bundle)
    file = path_of(bundle).open("rb")
    try:
        _check_file(bundle, file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _check_row(bundle: Bundle) -> None:
    seq = bundle.issued_seq
    event = next(iter(ledger.recorded([seq])), None) if seq is not None else None
    if event is None or event.body is None:
        raise AlteredError(f"no event at {seq} proves that it was issued")
    body = event.body
    said = (body["action"], body["outcome"], body["subject"], body["models"])
    if said != ("bundle.issued", "done", {"type": "bundle", "id": str(bundle.pk)}, [bundle.model.name]):
        raise AlteredError(f"event {seq} is not the one that issued it")
    for name, stands in (("bundle", f"sha256:{bundle.digest}"), ("bytes", bundle.size_bytes)):
        if body["metadata"][name] != stands:
            raise AlteredError(f"its row says {stands}, and event {seq} says {body['metadata'][name]}")


def _check_file(bundle: Bundle, file: BinaryIO) -> None:
    size = os.fstat(file.fileno()).st_size
    if size != bundle.size_bytes:
        raise AlteredError(f"its file has {size} bytes instead of {bundle.size_bytes}")
    try:
        bag = bags.open_bag(path_of(bundle), file)
        digest, faults = bag.digest(bags.TAG_MANIFEST), bags.check_manifests(bag)
    except ProofError as error:
        raise AlteredError(f"its file cannot be read as a bundle: {error}") from error
    if digest != bundle.digest:
        raise AlteredError(f"its file has the digest {digest} instead of {bundle.digest}")
    if faults:
        raise AlteredError(f"its file is not what its manifests list: {faults[0]}")
