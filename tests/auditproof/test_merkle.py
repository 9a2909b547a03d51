from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, strategies as st

from auditproof import merkle
from auditproof.errors import ConsistencyError, InclusionError

LEAVES = [hashlib.sha256(b"\x00" + bytes([n % 256, n // 256])).digest() for n in range(300)]


def by_the_book(leaves):
    """RFC 9162 §2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + by_the_book(leaves[:k]) + by_the_book(leaves[k:])).digest()


# RFC 6962's own example leaves, as certificate transparency's reference code tests them.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_roots_of_the_known_example():
    leaves = [hashlib.sha256(b"\x00" + bytes.fromhex(item)).digest() for item in INPUTS]
    assert [merkle.root(leaves[: n + 1]).hex() for n in range(8)] == ROOTS


@pytest.mark.parametrize("size", [*range(70), 127, 128, 129, 255, 256, 257, 300])
def test_every_leaf_of_every_size_is_proven_and_nothing_else(size):
    leaves = LEAVES[:size]
    root = merkle.root(leaves)
    assert root == by_the_book(leaves)
    for index in range(size):
        path = merkle.inclusion_path(leaves, index)
        merkle.verify_inclusion(leaf=leaves[index], index=index, size=size, path=path, root=root)
        for wrong in (index + 1, index - 1, index + size):
            with pytest.raises(InclusionError):
                merkle.verify_inclusion(leaf=leaves[index], index=wrong, size=size, path=path, root=root)


@pytest.mark.parametrize("new", [*range(1, 40), 64, 65, 127, 130])
def test_every_growth_is_proven_and_nothing_else(new):
    new_root = merkle.root(LEAVES[:new])
    for old in range(1, new + 1):
        path = merkle.consistency_path(LEAVES[:new], old)
        given = {"old_size": old, "new_size": new, "old_root": merkle.root(LEAVES[:old]), "new_root": new_root}
        merkle.verify_consistency(**given, path=path)
        with pytest.raises(ConsistencyError):
            merkle.verify_consistency(**given, path=[*path, bytes(32)])
        for change in (
            {"old_root": bytes(32)},
            {"new_root": bytes(32)},
            {"old_size": old + 1} if old < new else {"old_size": new + 1},
        ):
            with pytest.raises(ConsistencyError):
                merkle.verify_consistency(**(given | change), path=path)


def test_from_nothing_the_path_is_empty():
    merkle.verify_consistency(
        old_size=0, new_size=3, old_root=merkle.EMPTY_ROOT, new_root=merkle.root(LEAVES[:3]), path=[]
    )
    with pytest.raises(ConsistencyError, match="CONSISTENCY"):
        merkle.verify_consistency(old_size=0, new_size=3, old_root=bytes(32), new_root=bytes(32), path=[])
    with pytest.raises(ConsistencyError, match="CONSISTENCY"):
        merkle.verify_consistency(
            old_size=0, new_size=3, old_root=merkle.EMPTY_ROOT, new_root=bytes(32), path=[bytes(32)]
        )


def test_smaller_is_a_rollback_and_equal_size_with_another_root_a_fork():
    with pytest.raises(ConsistencyError, match="ROLLBACK"):
        merkle.verify_consistency(old_size=5, new_size=4, old_root=bytes(32), new_root=bytes(32), path=[])
    with pytest.raises(ConsistencyError, match="FORK"):
        merkle.verify_consistency(old_size=5, new_size=5, old_root=bytes(32), new_root=bytes([1] * 32), path=[])


@given(st.integers(1, 200), st.data())
def test_any_flipped_bit_of_an_inclusion_proof_fails(size, data):
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_path(LEAVES[:size], index)
    parts = [LEAVES[index], merkle.root(LEAVES[:size]), *path]
    at = data.draw(st.integers(0, len(parts) - 1))
    flipped = bytearray(parts[at])
    flipped[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    parts[at] = bytes(flipped)
    with pytest.raises(InclusionError):
        merkle.verify_inclusion(leaf=parts[0], index=index, size=size, path=parts[2:], root=parts[1])


@given(st.integers(2, 200), st.data())
def test_any_flipped_bit_of_a_consistency_proof_fails(new, data):
    old = data.draw(st.integers(1, new - 1))
    path = merkle.consistency_path(LEAVES[:new], old)
    parts = [merkle.root(LEAVES[:old]), merkle.root(LEAVES[:new]), *path]
    at = data.draw(st.integers(0, len(parts) - 1))
    flipped = bytearray(parts[at])
    flipped[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    parts[at] = bytes(flipped)
    with pytest.raises(ConsistencyError):
        merkle.verify_consistency(old_size=old, new_size=new, old_root=parts[0], new_root=parts[1], path=parts[2:])


@pytest.mark.parametrize("path", [[b""], [bytes(31)], [bytes(33)], []])
def test_hashes_of_another_length_or_number_fail(path):
    with pytest.raises(InclusionError):
        merkle.verify_inclusion(leaf=LEAVES[0], index=0, size=2, path=path, root=bytes(32))


@given(st.lists(st.integers(0, 50), max_size=6))
def test_frontier_grown_in_steps_is_the_root_and_reads_back(steps):
    frontier, size = merkle.Frontier(), 0
    for step in steps:
        frontier.extend(LEAVES[size : size + step])
        size += step
        frontier = merkle.Frontier(frontier.size, frontier.hashes)
        assert frontier.root() == merkle.root(LEAVES[:size])


@pytest.mark.parametrize(("size", "hashes"), [(1, []), (0, [bytes(32)]), (3, [bytes(32)]), (1, [bytes(31)]), (-1, [])])
def test_frontier_that_cannot_be_is_refused(size, hashes):
    with pytest.raises(ValueError, match="hashes"):
        merkle.Frontier(size, hashes)


def test_leaf_and_node_are_never_confused():
    """A node's bytes offered as a leaf give another hash: that is what the prefixes are for."""
    left, right = LEAVES[:2]
    assert hashlib.sha256(b"\x00" + left + right).digest() != merkle.node_hash(left, right)
