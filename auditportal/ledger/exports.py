"""Reads of the log for exports: which entries a stream has, their lines, and proofs of many at once.

Every row is proven from its own bytes before it leaves here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from django.db import connection

from auditportal.ledger import erasures, rows, tiles
from auditportal.ledger.models import Checkpoint
from auditproof import merkle, streams

CHUNK = 500  # rows read at a time: with bodies of up to 256 KiB some 10 MB as a rule
MOST_TILES = 4_096  # kept while proofs are made: 32 MB


def model_seqs(model: str, until: int) -> array[int]:
    """The entries below `until` of the stream `model:MODEL`, ascending; eight bytes each."""
    return _with_erased(
        "SELECT seq FROM ledger_eventmodel WHERE model = %s AND seq < %s",
        model,
        "model:" + streams.escape(model),
        until,
    )


def action_seqs(action: str, until: int) -> array[int]:
    """The entries below `until` of the stream `action:ACTION`, ascending."""
    return _with_erased(
        "SELECT seq FROM ledger_event WHERE action = %s AND seq < %s",
        action,
        "action:" + streams.escape(action),
        until,
    )


def _with_erased(query: str, value: str, key: str, until: int) -> array[int]:
    """What search rows name, and the erased entries, whose search rows a rebuild leaves out."""
    with connection.cursor() as cursor:
        cursor.execute(query, [value, until])
        found = {seq for (seq,) in cursor}
    wanted = streams.stream_hash(key)
    erased = [seq for seq in erasures.explanations() if seq < until and seq not in found]
    found.update(seq for seq, row in rows.at(erased).items() if wanted in rows.prove(row).stream_hashes)
    return array("q", sorted(found))


def entries(seqs: Iterable[int]) -> Iterator[rows.Proven]:
    """The entries at these positions, in the order asked, each proven from its bytes.

    Raises:
        LogBrokenError: one does not prove itself.
    """
    waiting = iter(seqs)
    while chunk := list(islice(waiting, CHUNK)):
        found = rows.at(chunk)
        for seq in chunk:
            yield rows.prove(found[seq])


def explained(until: int) -> dict[int, int]:
    """The entries whose body was erased by an event below `until`, and by which."""
    return {seq: by for seq, (by, _) in erasures.explanations().items() if by < until}


class Prover:
    """Inclusion paths of many entries under one size; hashes that they share are computed once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.hashes: list[bytes] = []
        self._places: dict[tuple[int, int], int] = {}
        self._tiles: dict[tiles.Place, bytes] = {}

    def path(self, seq: int) -> list[int]:
        """The path of this entry as places in `hashes`."""
        found = []
        for span in merkle.inclusion_ranges(seq, self.size):
            if span not in self._places:
                self._places[span] = len(self.hashes)
                self.hashes.append(tiles.subtree(*span, self._read))
            found.append(self._places[span])
        return found

    def _read(self, places: Iterable[tiles.Place]) -> dict[tiles.Place, bytes]:
        wanted = set(places)
        missing = wanted - self._tiles.keys()
        if missing:
            if len(self._tiles) > MOST_TILES:
                self._tiles.clear()
                missing = wanted
            self._tiles |= tiles.read_from_database(missing)
        return {place: self._tiles[place] for place in wanted if place in self._tiles}


def tree_head(size: int) -> bytes:
    """The root over the first `size` entries."""
    return tiles.subtree(0, size) if size else merkle.EMPTY_ROOT


def first_checkpoint_above(seq: int) -> Checkpoint | None:
    """The smallest checkpoint that covers this entry."""
    return Checkpoint.objects.filter(size__gt=seq).order_by("size").first()


def checkpoint_at(size: int) -> Checkpoint:
    """The checkpoint of this size."""
    return Checkpoint.objects.get(size=size)


def consistency(old_size: int, new_size: int) -> Sequence[bytes]:
    """The path that shows the smaller tree to be the beginning of the larger; empty from size 0."""
    return tiles.consistency_path(old_size, new_size) if old_size else []
