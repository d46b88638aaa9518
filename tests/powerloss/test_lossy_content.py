"""Test the model of a power failure itself: what it may lose, what it must keep, and that it does lose."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.lossyfs.content import Content
from tests.support.lossyfs.faults import Trigger
from tests.support.lossyfs.tree import NameDurability, Tree

UNIT = 16
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 100), st.binary(min_size=1, max_size=50)),
        st.tuples(st.just("truncate"), st.integers(0, 120), st.just(b"")),
        st.tuples(st.just("sync"), st.just(0), st.just(b"")),
        st.tuples(st.just("write_back"), st.just(0), st.just(b"")),
    ),
    max_size=20,
)


def run(content: Content, steps: list[tuple[str, int, bytes]]) -> bytes:
    expected = bytearray()
    for verb, number, data in steps:
        if verb == "write":
            content.write(number, data)
            expected.extend(bytes(max(0, number - len(expected))))
            expected[number : number + len(data)] = data
        elif verb == "truncate":
            content.truncate(number)
            expected[number:] = bytes(max(0, number - len(expected)))
        elif verb == "sync":
            content.sync()
        else:
            content.write_back(Random(0))
    return bytes(expected)


@given(STEPS)
def test_reads_see_every_write_at_once(steps: list[tuple[str, int, bytes]]) -> None:
    content = Content(UNIT)
    assert run(content, steps) == bytes(content.visible)


@given(STEPS, st.integers(0, 1000))
def test_synced_content_is_kept_to_the_byte(steps: list[tuple[str, int, bytes]], seed: int) -> None:
    content = Content(UNIT)
    expected = run(content, steps)
    content.sync()
    assert content.clean
    assert bytes(content.after_power_loss(Random(seed)).visible) == expected


@given(st.integers(0, 1000))
def test_a_unit_is_kept_whole_or_lost_whole(seed: int) -> None:
    content = Content(UNIT, b"a" * 64)
    content.write(0, b"b" * 64)
    found = bytes(content.after_power_loss(Random(seed)).visible)
    assert {found[start : start + UNIT] for start in range(0, 64, UNIT)} <= {b"a" * UNIT, b"b" * UNIT}


def test_unsynced_writes_are_lost_kept_and_mixed() -> None:
    outcomes = set()
    for seed in range(200):
        content = Content(UNIT, b"a" * 64)
        content.write(0, b"b" * 64)
        outcomes.add(bytes(content.after_power_loss(Random(seed)).visible))
    assert b"a" * 64 in outcomes
    assert b"b" * 64 in outcomes
    assert len(outcomes) > 8


def test_the_size_of_an_unsynced_file_is_lost_too() -> None:
    sizes = set()
    for seed in range(100):
        content = Content(UNIT)
        content.write(0, b"b" * 100)
        sizes.add(len(content.after_power_loss(Random(seed)).visible))
    assert 0 in sizes and 100 in sizes and len(sizes) > 4


def test_a_sync_covers_only_what_was_written_before_it_began() -> None:
    content = Content(UNIT)
    content.write(0, b"before")
    pending = content.begin_sync()
    content.write(0, b"after!")
    content.write(20, b"later")
    content.finish_sync(pending)
    assert bytes(content.durable) == b"before"
    assert content.dirty == {0, 1}


def test_a_later_sync_does_not_recover_what_a_failed_one_dropped() -> None:
    content = Content(UNIT, b"old" * 10)
    content.write(0, b"new" * 10)
    content.fail_sync()
    content.sync()
    assert bytes(content.visible) == b"new" * 10
    assert bytes(content.after_power_loss(Random(1)).visible) == b"old" * 10


def names_after_power_loss(tree: Tree) -> set[str]:
    tree.lose_power()
    return set(tree.root.entries)


def test_a_name_is_durable_once_its_folder_was_synced() -> None:
    for seed in range(50):
        tree = Tree(seed)
        tree.create(tree.root, "kept", 0o100600, 0, 0)
        tree.sync(tree.root)
        tree.create(tree.root, "perhaps", 0o100600, 0, 0)
        assert "kept" in names_after_power_loss(tree)


@pytest.mark.parametrize(("names", "always"), [("posix", False), ("ext4", True)])
def test_a_sync_of_the_file_keeps_its_name_only_as_ext4_does(names: NameDurability, always: bool) -> None:
    found = set()
    for seed in range(50):
        tree = Tree(seed, names=names)
        tree.sync(tree.create(tree.root, "file", 0o100600, 0, 0))
        found.add("file" in names_after_power_loss(tree))
    assert found == ({True} if always else {True, False})


def test_unsynced_renames_and_removals_may_be_undone() -> None:
    renamed, removed = set(), set()
    for seed in range(50):
        tree = Tree(seed)
        for name in ("old", "target", "gone"):
            tree.create(tree.root, name, 0o100600, 0, 0)
        tree.sync(tree.root)
        tree.rename(tree.root, "old", tree.root, "target")
        tree.remove(tree.root, "gone")
        names = names_after_power_loss(tree)
        renamed.add("old" not in names)
        removed.add("gone" not in names)
        assert "target" in names
    assert renamed == removed == {True, False}


def test_a_trigger_skips_calls_then_fires_count_times() -> None:
    trigger = Trigger("sync", "*-wal", skip=2, count=2, error=5)
    calls = [("sync", "a-wal"), ("write", "a-wal"), ("sync", "a"), *[("sync", "a-wal")] * 4]
    assert [trigger.fires(*call) for call in calls] == [False, False, False, False, True, True, False]
