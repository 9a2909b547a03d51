"""The Merkle tree of RFC 9162 §2.1 over leaf hashes: roots, proofs, and the compact range that grows with the log.

A leaf here is already its hash (`headers.leaf_hash`). The verifying functions share no code with the proving ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from .errors import ConsistencyError, InclusionError, Name

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """`H(0x01 || left || right)`."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A compact range [0, size): the roots of its perfect subtrees, largest first.

    An append costs two hashes on average, the root log2(size), whatever the size of the log.
    """

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Takes up a range that was stored as its size and hashes.

        Raises:
            ValueError: as many hashes as the size has one bits, of 32 bytes each, are needed.
        """
        if size < 0 or len(hashes) != size.bit_count() or any(len(item) != HASH_BYTES for item in hashes):
            raise ValueError(f"a range of {size} has {size.bit_count()} hashes of 32 bytes")
        self.size = size
        self.hashes = list(hashes)

    def append(self, leaf: bytes) -> None:
        """The range is one leaf longer."""
        merges = (~self.size & (self.size + 1)).bit_length() - 1  # trailing one bits of the size
        for _ in range(merges):
            leaf = node_hash(self.hashes.pop(), leaf)
        self.hashes.append(leaf)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """The range is longer by these leaves."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> bytes:
        """The root of the tree over the range (RFC 9162 §2.1.1)."""
        if not self.hashes:
            return EMPTY_ROOT
        result = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            result = node_hash(left, result)
        return result


def root(leaves: Iterable[bytes]) -> bytes:
    """The root over these leaf hashes (RFC 9162 §2.1.1)."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The subtrees [start, end) whose hashes are the inclusion path of a leaf, in order (RFC 9162 §2.1.3.1).

    Raises:
        ValueError: the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} has no leaf {index}")
    ranges: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(old_size: int, new_size: int) -> list[tuple[int, int]]:
    """The subtrees [start, end) whose hashes are the consistency path, in order (RFC 9162 §2.1.4.1).

    Raises:
        ValueError: the old tree is empty or larger than the new one.
    """
    if not 0 < old_size <= new_size:
        raise ValueError(f"no consistency path leads from {old_size} to {new_size}")
    ranges: list[tuple[int, int]] = []
    start, end = 0, new_size
    whole = True  # the old tree is the subtree [0, old_size) itself, whose hash the verifier has
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
            whole = False
    if not whole:
        ranges.append((start, end))
    return ranges[::-1]


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The inclusion path of a leaf, from its sibling upwards.

    Raises:
        ValueError: there is no such leaf.
    """
    return [root(leaves[start:end]) for start, end in inclusion_ranges(index, len(leaves))]


def consistency_path(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """The consistency path from the tree over the first `old_size` leaves to that over all.

    Raises:
        ValueError: the old tree is empty or larger than the new one.
    """
    return [root(leaves[start:end]) for start, end in consistency_ranges(old_size, len(leaves))]


def verify_inclusion(*, leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """The tree of this size and root holds the leaf at the index (RFC 9162 §2.1.3.2).

    Raises:
        InclusionError: it does not, or the path has another length than the tree asks for.
    """
    place = f"index {index}"
    if not 0 <= index < size:
        raise InclusionError(Name.INCLUSION, place, f"an index below {size}", str(index))
    _check_hashes(path, place)
    position, last = index, size - 1
    result = leaf
    for sibling in path:
        if last == 0:
            raise InclusionError(Name.INCLUSION, place, "no further hashes", f"{len(path)} of them")
        if position & 1 or position == last:
            result = node_hash(sibling, result)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            result = node_hash(result, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise InclusionError(Name.INCLUSION, place, "more hashes", f"{len(path)} of them")
    if result != root:
        raise InclusionError(Name.INCLUSION, place, root.hex(), result.hex())


def _check_hashes(path: Sequence[bytes], place: str) -> None:
    if any(len(item) != HASH_BYTES for item in path):
        raise InclusionError(Name.INCLUSION, place, "hashes of 32 bytes", "another length")


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]
) -> None:
    """The new tree begins with the old one (RFC 9162 §2.1.4.2). From size 0 the path is empty.

    Raises:
        ConsistencyError: ROLLBACK for a smaller size, FORK for the same size with another root, else CONSISTENCY.
    """
    place = f"size {old_size} to {new_size}"
    if new_size < old_size:
        raise ConsistencyError(Name.ROLLBACK, place, f"at least {old_size} entries", str(new_size))
    if new_size == old_size and new_root != old_root:
        raise ConsistencyError(Name.FORK, place, old_root.hex(), new_root.hex())
    if old_size in (0, new_size):
        _check_trivial(old_size, old_root, path, place)
        return
    _verify_growth(old_size, new_size, old_root, new_root, list(path), place)


def _check_trivial(old_size: int, old_root: bytes, path: Sequence[bytes], place: str) -> None:
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise ConsistencyError(Name.CONSISTENCY, place, EMPTY_ROOT.hex(), old_root.hex())
    if path:
        raise ConsistencyError(Name.CONSISTENCY, place, "an empty path", f"{len(path)} hashes")


def _verify_growth(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: list[bytes], place: str
) -> None:
    if not path or any(len(item) != HASH_BYTES for item in path):
        raise ConsistencyError(Name.CONSISTENCY, place, "hashes of 32 bytes", f"{len(path)} items")
    if old_size & (old_size - 1) == 0:
        path = [old_root, *path]  # the old tree is perfect: its root is the first subtree
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old_result = new_result = path[0]
    for item in path[1:]:
        if last == 0:
            raise ConsistencyError(Name.CONSISTENCY, place, "no further hashes", f"{len(path)} of them")
        if position & 1 or position == last:
            old_result = node_hash(item, old_result)
            new_result = node_hash(item, new_result)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new_result = node_hash(new_result, item)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ConsistencyError(Name.CONSISTENCY, place, "more hashes", f"{len(path)} of them")
    if old_result != old_root:
        raise ConsistencyError(Name.CONSISTENCY, place, old_root.hex(), old_result.hex())
    if new_result != new_root:
        raise ConsistencyError(Name.CONSISTENCY, place, new_root.hex(), new_result.hex())
