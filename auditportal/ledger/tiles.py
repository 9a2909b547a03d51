"""Merkle proofs from the stored tiles (C2SP tlog-tiles layout), reading a handful of rows whatever the log's size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from django.db import connection

from auditportal.ledger.errors import LogBrokenError
from auditproof import merkle

WIDTH = 256  # hashes of a full tile
HEIGHT = 8  # levels of the tree in one tile: 2**8 == WIDTH
HASH_BYTES = 32

Place = tuple[int, int]  # (level, index) of a tile
Read = Callable[[Iterable[Place]], dict[Place, bytes]]


def read_from_database(places: Iterable[Place]) -> dict[Place, bytes]:
    """The stored hashes of these tiles, in one query; a tile that is not there is absent from the answer."""
    wanted = sorted(set(places))
    if not wanted:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t.level, t.index, t.hashes FROM unnest(%s::smallint[], %s::bigint[]) AS w(level, index)"
            " JOIN ledger_tile t ON t.level = w.level AND t.index = w.index",
            [[level for level, _ in wanted], [index for _, index in wanted]],
        )
        return {(level, index): bytes(hashes) for level, index, hashes in cursor.fetchall()}


def inclusion_path(index: int, size: int, read: Read = read_from_database) -> list[bytes]:
    """The inclusion path of leaf `index` in the tree of `size` (RFC 9162 §2.1.3)."""
    return _subtrees(merkle.inclusion_ranges(index, size), read)


def consistency_path(old_size: int, new_size: int, read: Read = read_from_database) -> list[bytes]:
    """The consistency path between two sizes (RFC 9162 §2.1.4)."""
    return _subtrees(merkle.consistency_ranges(old_size, new_size), read)


def subtree(start: int, end: int, read: Read = read_from_database) -> bytes:
    """The hash of the tree over the leaves [start, end), from as few tiles as hold it."""
    return _subtrees([(start, end)], read)[0]


def leaves(start: int, end: int, read: Read = read_from_database) -> bytes:
    """The leaf hashes that stand in the tree from `start` up to `end`, joined; zero bytes where one is not sealed."""
    places = [(0, index) for index in range(start // WIDTH, -(-end // WIDTH))]
    found = read(places)
    skipped = start // WIDTH * WIDTH
    joined = b"".join([found.get(place, b"").ljust(WIDTH * HASH_BYTES, b"\0") for place in places])
    return joined[(start - skipped) * HASH_BYTES : (end - skipped) * HASH_BYTES]


def leaf_hashes(seqs: Iterable[int], read: Read = read_from_database) -> dict[int, bytes]:
    """The leaf hashes that stand in the tree at these positions; positions not yet sealed are absent."""
    wanted = list(seqs)
    tiles = read((0, seq // WIDTH) for seq in wanted)
    found: dict[int, bytes] = {}
    for seq in wanted:
        at = seq % WIDTH * HASH_BYTES
        leaf = tiles.get((0, seq // WIDTH), b"")[at : at + HASH_BYTES]
        if len(leaf) == HASH_BYTES:
            found[seq] = leaf
    return found


def _subtrees(ranges: Sequence[tuple[int, int]], read: Read) -> list[bytes]:
    """The hash of each subtree [start, end), all tiles fetched at once."""
    pieces = [_aligned(start, end) for start, end in ranges]
    tiles = read(place for parts in pieces for start, exponent in parts for place in [_place(start, exponent)])
    return [_joined([_perfect(start, exponent, tiles) for start, exponent in parts]) for parts in pieces]


def _aligned(start: int, end: int) -> list[tuple[int, int]]:
    """[start, end) as perfect subtrees (start, exponent), largest first: RFC 9162 splits at powers of two."""
    parts: list[tuple[int, int]] = []
    while start < end:
        exponent = (end - start).bit_length() - 1
        parts.append((start, exponent))
        start += 1 << exponent
    return parts


def _place(start: int, exponent: int) -> Place:
    level = exponent // HEIGHT
    return level, (start >> (level * HEIGHT)) // WIDTH


def _perfect(start: int, exponent: int, tiles: dict[Place, bytes]) -> bytes:
    level = exponent // HEIGHT
    place = _place(start, exponent)
    first = (start >> (level * HEIGHT)) % WIDTH
    count = 1 << (exponent - level * HEIGHT)
    hashes = tiles.get(place, b"")[first * HASH_BYTES : (first + count) * HASH_BYTES]
    if len(hashes) != count * HASH_BYTES:
        raise LogBrokenError("INCLUSION", f"tile {level}/{place[1]}", f"{count} hashes from {first}", "fewer")
    return _root_of_perfect(hashes)


def _root_of_perfect(hashes: bytes) -> bytes:
    """The root over a power of two of hashes, level by level; a third of the time of a compact range."""
    while len(hashes) > HASH_BYTES:
        pairs = range(0, len(hashes), 2 * HASH_BYTES)
        hashes = b"".join([hashlib.sha256(b"\x01" + hashes[at : at + 2 * HASH_BYTES]).digest() for at in pairs])
    return hashes


def _joined(parts: list[bytes]) -> bytes:
    """The hash over neighbouring perfect subtrees of falling size: the right ones join first."""
    result = parts[-1]
    for left in reversed(parts[:-1]):
        result = merkle.node_hash(left, result)
    return result


class Writer:
    """Appends leaf hashes to the tiles; `changed` is what the caller has to store."""

    def __init__(self, size: int, read: Read = read_from_database) -> None:
        self.size = size
        self.changed: dict[Place, bytearray] = {}
        self._read = read

    def append(self, leaves: Sequence[bytes]) -> None:
        self._extend(0, self.size, leaves)
        self.size += len(leaves)

    def read(self, places: Iterable[Place]) -> dict[Place, bytes]:
        """Tiles as they are after the appends, from here or from the store."""
        wanted = list(places)
        stored = self._read(place for place in wanted if place not in self.changed)
        return stored | {place: bytes(self.changed[place]) for place in wanted if place in self.changed}

    def _extend(self, level: int, count: int, hashes: Sequence[bytes]) -> None:
        """`count` hashes stand at this level already; full tiles pass their root one level up."""
        roots: list[bytes] = []
        first_full = count // WIDTH
        for offset, value in enumerate(hashes):
            index, at = divmod(count + offset, WIDTH)
            tile = self._tile(level, index, at)
            tile += value
            if at == WIDTH - 1:
                parts = [bytes(tile[start : start + HASH_BYTES]) for start in range(0, len(tile), HASH_BYTES)]
                roots.append(merkle.root(parts))
        if roots:
            self._extend(level + 1, first_full, roots)

    def _tile(self, level: int, index: int, at: int) -> bytearray:
        place = (level, index)
        if place not in self.changed:
            stored = self._read([place]).get(place, b"") if at else b""
            if len(stored) < at * HASH_BYTES:
                raise LogBrokenError(
                    "INCLUSION", f"tile {level}/{index}", f"{at} hashes", str(len(stored) // HASH_BYTES)
                )
            self.changed[place] = bytearray(stored[: at * HASH_BYTES])
        return self.changed[place]
