"""Test the reader of the mount table: escapes, shadowed mounts, and any other text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobdb.filesystem.mounts import Mount, mount_for, parse_mountinfo, read_mounts, unescape
from tests.support.requirements import require

TABLE = """\
22 27 0:21 / /proc rw,nosuid - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 0:40 / /home rw,relatime shared:7 master:2 - nfs4 filer:/home rw,vers=4.2,local_lock=none
31 30 254:0 /srv/alice /home/alice rw,relatime - ext4 /dev/vda rw,discard
32 27 0:41 / /mnt/with\\040space\\134and\\011tab rw - tmpfs none rw
"""


def mount_of(path: str, text: str = TABLE) -> Mount:
    found = mount_for(path, parse_mountinfo(text))
    assert found is not None
    return found


def test_fields() -> None:
    mount = mount_of("/home/bob")
    assert (mount.mount_id, mount.parent_id, mount.device, mount.root) == (30, 27, "0:40", "/")
    assert (mount.fs_type, mount.source) == ("nfs4", "filer:/home")
    assert mount.option_value("local_lock") == "none" and mount.option_value("vers") == "4.2"
    assert (
        mount.has_option("relatime")
        and mount.has_option("vers")
        and not mount.has_option("ver")
        and not mount.has_option("nolock")
    )
    assert mount.option_value("relatime") is None


@pytest.mark.parametrize(
    ("path", "fs_type"),
    [
        ("/", "ext4"),
        ("/homestead/x", "ext4"),  # a name that begins with a mount point's name is not below it
        ("/home", "nfs4"),
        ("/home/bob/.jobdb", "nfs4"),
        ("/home/alice/.jobdb", "ext4"),  # a bind mount of a local folder below a network mount
        ("/mnt/with space\\and\ttab/x", "tmpfs"),
    ],
)
def test_a_path_belongs_to_the_nearest_mount_above_it(path: str, fs_type: str) -> None:
    assert mount_of(path).fs_type == fs_type


def test_a_later_mount_on_the_same_point_covers_the_earlier_one() -> None:
    text = TABLE + "40 30 0:50 / /home rw - tmpfs tmpfs rw\n"
    assert mount_of("/home/bob", text).fs_type == "tmpfs"


def test_mount_above_covers_those_below() -> None:
    # /home/alice hangs on the NFS mount, which is covered now: the longest prefix would be wrong.
    text = TABLE + "40 30 0:50 / /home rw - tmpfs tmpfs rw\n"
    assert mount_of("/home/alice/.jobdb", text).fs_type == "tmpfs"


def test_later_mount_on_a_parent_folder_covers_deeper_mounts() -> None:
    text = (
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        "2 1 0:9 / /data/a/b rw - nfs srv:/b rw,local_lock=none\n"
        "3 1 8:2 / /data rw - xfs /dev/sdb rw\n"
    )
    assert mount_of("/data/a/b/c", text).fs_type == "xfs"


def test_table_without_a_root_falls_back_to_the_longest_prefix() -> None:
    text = "50 49 8:1 / /data rw - xfs /dev/sda rw\n51 50 0:3 / /data/n rw - nfs srv:/n rw\n"
    assert mount_of("/data/n/x", text).fs_type == "nfs"
    assert mount_of("/data/m", text).fs_type == "xfs"
    assert mount_for("/elsewhere", parse_mountinfo(text)) is None


def test_overlay_options_with_commas_stay_whole() -> None:
    text = "1 0 0:9 / / rw - overlay overlay rw,lowerdir=/a\\134,b:/c,upperdir=/var/lib/up\\054per,workdir=/w\n"
    mount = mount_of("/x", text)
    assert mount.option_value("upperdir") == "/var/lib/up,per"
    assert mount.option_value("lowerdir") == "/a\\,b:/c"


def test_empty_source_and_no_super_options() -> None:
    text = "1 0 0:9 / / rw - tmpfs  rw,size=4k\n2 1 0:10 / /x rw - fuse.y y\n"
    assert mount_of("/", text).source == "" and mount_of("/", text).option_value("size") == "4k"
    assert mount_of("/x", text).options == ("rw",)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "garbage",
        "1 0 8:1 / / rw",
        "1 0 8:1 / / rw -",
        "1 0 8:1 / / rw - ext4",
        "x 0 8:1 / / rw - ext4 s rw",
        "1 0 8:1 / rel rw - ext4 s rw",
    ],
)
def test_invalid_lines_are_skipped(line: str) -> None:
    assert parse_mountinfo(f"{line}\n{TABLE}") == parse_mountinfo(TABLE)


def test_own_table_agrees_with_the_kernel() -> None:
    mounts = read_mounts()
    require(mounts, "there is no mount table on this system")
    for path in ("/", "/proc", str(Path.cwd()), "/dev/shm"):
        mount = mount_for(os.path.realpath(path), mounts)
        if mount is not None and mount.fs_type not in ("btrfs", "overlay"):  # these give other device numbers
            device = os.stat(path).st_dev
            assert mount.device == f"{os.major(device)}:{os.minor(device)}", path


# What a kernel can put into a path: any text without NUL and newline-in-the-middle kept as octal.
names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
paths = st.lists(names.filter(lambda n: n not in (".", "..")), max_size=4).map(lambda parts: "/" + "/".join(parts))


def escape(text: str) -> str:
    """Escape a path as the kernel's seq_path does."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in text)


@given(paths)
def test_escaping_round_trips(path: str) -> None:
    assert unescape(escape(path)) == path


@given(st.binary(max_size=12).filter(lambda raw: b"\0" not in raw))
def test_any_escaped_bytes_round_trip(raw: bytes) -> None:
    escaped = "".join(f"\\{byte:03o}" for byte in raw)
    assert unescape(escaped).encode("utf-8", "surrogateescape") == raw


@given(st.lists(st.tuples(paths, names), min_size=1, max_size=8, unique_by=lambda pair: pair[0]), paths)
def test_parsed_mounts_are_what_was_written(points: list[tuple[str, str]], asked: str) -> None:
    text = "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
    for number, (point, source) in enumerate(points, start=2):
        text += f"{number} 1 0:{number} / {escape(point)} rw shared:3 - tmpfs {escape(source)} rw\n"
    mounts = parse_mountinfo(text)
    assert [(m.mount_point, m.source) for m in mounts[1:]] == points
    found = mount_for(asked, mounts)
    assert found is not None
    inside = asked == found.mount_point or asked.startswith(found.mount_point.rstrip("/") + "/")
    assert inside


@given(st.text(max_size=200))
def test_any_text_is_parsed_without_an_error(text: str) -> None:
    mounts = parse_mountinfo(text)
    assert mount_for("/any/where", mounts) in [None, *mounts]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), paths), max_size=7), paths)
def test_any_mount_tree_even_with_cycles_is_searched_in_finite_time(
    tree: list[tuple[int, int, str]], asked: str
) -> None:
    mounts = [Mount(point, "tmpfs", "t", (), number, parent) for number, parent, point in tree]
    found = mount_for(asked, mounts)
    above = [m for m in mounts if asked == m.mount_point or asked.startswith(m.mount_point.rstrip("/") + "/")]
    assert (found is None) == (not above)
