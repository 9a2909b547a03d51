"""The stream map: a binary Merkle trie over the states of all streams, which proves completeness (FORMAT.md §5).

Position is the bits of the stream hash, most significant first. An empty subtree is 32 zero bytes; a subtree with one
stream is that stream's leaf; any other is `H(0x04 || left || right)`. A verifier turns by the bits of its *own* stream
hash, so that one stream cannot stand in two places.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import CompletenessError, Name

ACC0 = bytes(32)
EMPTY = bytes(32)
HASH_BITS = 256
_MAX_COUNT = 2**63


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream after some prefix of the log: how many events, the last one's seq, and their accumulator."""

    count: int
    last_seq: int
    acc: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """A stream's leaf as it stands in the map."""

    stream: bytes
    state: StreamState


@dataclass(frozen=True, slots=True)
class MapProof:
    """Siblings from the root down, and what stands where the walk ends (None: nothing)."""

    siblings: tuple[bytes, ...]
    standing: Standing | None


def fold(acc: bytes, leaf: bytes) -> bytes:
    """The accumulator one event further: `H(0x02 || acc || leaf hash)`."""
    return hashlib.sha256(b"\x02" + acc + leaf).digest()


def leaf_hash(stream: bytes, state: StreamState) -> bytes:
    """`H(0x03 || stream hash || u64be count || u64be last seq || acc)`."""
    return hashlib.sha256(b"\x03" + stream + struct.pack(">QQ", state.count, state.last_seq) + state.acc).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """`H(0x04 || left || right)`."""
    return hashlib.sha256(b"\x04" + left + right).digest()


def bit(stream: bytes, depth: int) -> int:
    """The bit of the hash that decides the turn at this depth."""
    return stream[depth >> 3] >> (7 - (depth & 7)) & 1


class StreamMap:
    """The map over some states; building it costs one hash a stream and one a branching."""

    def __init__(self, states: Mapping[bytes, StreamState]) -> None:
        """Sorts the streams; the states are taken as they are."""
        self._streams = sorted(states)
        self._states = dict(states)

    def __len__(self) -> int:
        """How many streams stand in the map."""
        return len(self._streams)

    def root(self) -> bytes:
        """The map's root, 32 bytes; zero bytes for the empty map."""
        return self._subtree(0, len(self._streams), 0)

    def prove(self, stream: bytes) -> MapProof:
        """The proof of what stands for this stream: its own leaf, another's, or nothing."""
        siblings: list[bytes] = []
        low, high, depth = 0, len(self._streams), 0
        while high - low > 1:
            middle = self._middle(low, high, depth)
            if bit(stream, depth):
                siblings.append(self._subtree(low, middle, depth + 1))
                low = middle
            else:
                siblings.append(self._subtree(middle, high, depth + 1))
                high = middle
            depth += 1
        if low == high:
            return MapProof(tuple(siblings), None)
        standing = self._streams[low]
        return MapProof(tuple(siblings), Standing(standing, self._states[standing]))

    def _middle(self, low: int, high: int, depth: int) -> int:
        """The first stream of [low, high) whose bit at this depth is 1; before it they share a prefix."""
        prefix = int.from_bytes(self._streams[low], "big") >> (HASH_BITS - depth) << 1 | 1 if depth else 1
        return bisect_left(self._streams, (prefix << (HASH_BITS - depth - 1)).to_bytes(32, "big"), low, high)

    def _subtree(self, low: int, high: int, depth: int) -> bytes:
        if low == high:
            return EMPTY
        if high - low == 1:
            stream = self._streams[low]
            return leaf_hash(stream, self._states[stream])
        middle = self._middle(low, high, depth)
        return node_hash(self._subtree(low, middle, depth + 1), self._subtree(middle, high, depth + 1))


def verify_map_proof(proof: MapProof, *, stream: bytes, root: bytes, place: str = "map") -> StreamState | None:
    """The stream's state under this root; None when the map proves that it has no event.

    Raises:
        CompletenessError: STREAM_MAP.
    """
    siblings = proof.siblings
    if len(siblings) > HASH_BITS or any(len(item) != len(EMPTY) for item in siblings):
        raise CompletenessError(Name.STREAM_MAP, place, "at most 256 siblings of 32 bytes", f"{len(siblings)} items")
    result = _standing_hash(proof.standing, stream, len(siblings), place)
    for depth in range(len(siblings) - 1, -1, -1):
        pair = (siblings[depth], result) if bit(stream, depth) else (result, siblings[depth])
        result = node_hash(*pair)
    if result != root:
        raise CompletenessError(Name.STREAM_MAP, place, root.hex(), result.hex())
    if proof.standing is None or proof.standing.stream != stream:
        return None
    return proof.standing.state


def _standing_hash(standing: Standing | None, stream: bytes, depth: int, place: str) -> bytes:
    if standing is None:
        return EMPTY
    state = standing.state
    if len(standing.stream) != len(EMPTY) or len(state.acc) != len(ACC0):
        raise CompletenessError(Name.STREAM_MAP, place, "hashes of 32 bytes", "another length")
    if not (0 <= state.last_seq < _MAX_COUNT and 0 <= state.count < _MAX_COUNT):
        raise CompletenessError(Name.STREAM_MAP, place, "counts below 2^63", "another")
    if any(bit(standing.stream, at) != bit(stream, at) for at in range(depth)):
        raise CompletenessError(Name.STREAM_MAP, place, "a stream that shares every bit walked", "another place")
    return leaf_hash(standing.stream, state)


def check_state(state: StreamState | None, size: int, place: str) -> StreamState:
    """The state as a map of this size may hold it; an absent stream has no events.

    Raises:
        CompletenessError: STREAM_MAP.
    """
    if state is None:
        return StreamState(0, -1, ACC0)
    if not 1 <= state.count <= state.last_seq + 1 <= size:
        found = f"{state.count} events, the last at {state.last_seq}"
        raise CompletenessError(Name.STREAM_MAP, place, f"1 <= count <= last seq + 1 <= {size}", found)
    return state


def replay(states: dict[bytes, StreamState], *, seq: int, leaf: bytes, streams: Sequence[bytes]) -> None:
    """Folds one entry into the states of its streams."""
    for stream in streams:
        before = states.get(stream)
        states[stream] = StreamState(before.count + 1 if before else 1, seq, fold(before.acc if before else ACC0, leaf))
