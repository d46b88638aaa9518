"""Test the policy with lines of the mount table as real systems have them."""

from __future__ import annotations

import json

import pytest

from jobdb.filesystem.mounts import Mount, parse_mountinfo
from jobdb.filesystem.placement import Placement, decide
from jobdb.filesystem.policy import type_of_magic

MAGIC = {
    "ext4": 0xEF53,
    "xfs": 0x58465342,
    "btrfs": 0x9123683E,
    "zfs": 0x2FC12FC1,
    "tmpfs": 0x01021994,
    "overlay": 0x794C7630,
    "nfs": 0x6969,
    "nfs4": 0x6969,
    "cifs": 0xFF534D42,
    "smb3": 0xFE534D42,
    "9p": 0x01021997,
    "virtiofs": 0x65735546,
    "ceph": 0x00C36400,
    "lustre": 0x0BD00BD0,
    "afs": 0x5346414F,
    "gfs2": 0x01161970,
    "drvfs": 0x53464846,
}


def parse_mount(line: str) -> Mount:
    (mount,) = parse_mountinfo(f"36 27 0:52 / /data rw,relatime shared:1 - {line}\n")
    return mount


def decide_for(line: str, *, shared: bool = False, smb_name_cache: bool = True) -> Placement:
    """Decide on a line of the mount table, with the matching statfs number."""
    mount = parse_mount(line)
    family = "virtiofs" if mount.fs_type.startswith("fuse") else mount.fs_type
    return decide(mount, statfs_magic=MAGIC.get(family), shared=shared, smb_name_cache=smb_name_cache)


LOCAL = [
    "ext4 /dev/nvme0n1p2 rw,errors=remount-ro",
    "xfs /dev/mapper/rhel-home rw,attr2,inode64,logbufs=8,logbsize=32k,noquota",
    "btrfs /dev/sda3 rw,ssd,space_cache=v2,subvolid=257,subvol=/@home",
    "zfs rpool/USERDATA/home rw,xattr,posixacl",
    "tmpfs tmpfs rw,size=1618212k,nr_inodes=404553,mode=700,uid=1000",
    "f2fs /dev/mmcblk0p1 rw,lazytime,background_gc=on",
    "bcachefs /dev/sdb rw,compression=zstd",
    "apfs /dev/disk3s5 rw",
]


@pytest.mark.parametrize("line", LOCAL)
def test_local_file_systems_allow_wal(line: str) -> None:
    placement = decide_for(line)
    assert (placement.journal, placement.needs_probe, placement.advice) == ("wal", False, None)


@pytest.mark.parametrize("line", LOCAL)
def test_the_shared_mark_rules_out_wal_on_a_local_disk(line: str) -> None:
    placement = decide_for(line, shared=True)
    assert (placement.journal, placement.needs_probe) == ("delete", True)
    assert "shared" in placement.reason


def test_docker_volume_is_a_folder_of_the_hosts_disk() -> None:
    text = (
        "720 700 0:60 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A:"
        "/var/lib/docker/overlay2/l/B,upperdir=/var/lib/docker/overlay2/f/diff,workdir=/var/lib/docker/overlay2/f/work\n"
        "733 720 259:2 /var/lib/docker/volumes/jobs/_data /data rw,relatime master:1 - ext4 /dev/nvme0n1p2 rw\n"
    )
    mount = parse_mountinfo(text)[1]
    assert decide(mount, statfs_magic=MAGIC["ext4"], shared=False).journal == "wal"


NFS4 = "nfs4 filer:/export rw,vers=4.2,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,sec=sys,"
NFS3 = "nfs filer:/export rw,vers=3,rsize=65536,wsize=65536,namlen=255,hard,proto=tcp,mountaddr=10.0.0.1,"


@pytest.mark.parametrize("base", [NFS4, NFS3])
@pytest.mark.parametrize("lookupcache", ["none", "pos"])
def test_nfs_with_safe_options_allows_delete(base: str, lookupcache: str) -> None:
    placement = decide_for(f"{base}lookupcache={lookupcache},local_lock=none,addr=10.0.0.1")
    assert (placement.journal, placement.needs_probe, placement.needs_peer_probe) == ("delete", True, False)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("local_lock=none", "lookupcache"),  # the default mount
        ("lookupcache=all,local_lock=none", "lookupcache"),
        ("lookupcache=none,local_lock=all", "local_lock=all"),
        ("lookupcache=none,local_lock=posix", "local_lock=posix"),
        ("lookupcache=none,local_lock=flock", "local_lock=flock"),
        ("nolock,lookupcache=none,local_lock=all", "nolock"),
        ("nolock,lookupcache=none,local_lock=none", "nolock"),
        ("lookupcache=none", "local_lock=none"),
        ("nocto,lookupcache=none,local_lock=none", "nocto"),
    ],
)
@pytest.mark.parametrize("base", [NFS4, NFS3])
def test_nfs_is_refused_with_the_mount_line_that_fixes_it(base: str, options: str, reason: str) -> None:
    placement = decide_for(f"{base}{options},addr=10.0.0.1")
    assert placement.refused and not placement.needs_probe
    assert reason in placement.reason
    version = "4.2" if base is NFS4 else "3"
    mount_line = f"mount -t nfs -o vers={version},hard,local_lock=none,lookupcache=none filer:/export /data"
    assert placement.advice is not None and mount_line in placement.advice


def test_the_suggested_nfs_mount_line_is_accepted() -> None:
    advice = decide_for(f"{NFS4}local_lock=none").advice
    assert advice is not None
    options = advice.split("-o ")[1].split(" ")[0]
    assert decide_for(f"nfs4 filer:/export rw,{options}").journal == "delete"


def test_a_soft_nfs_mount_causes_a_warning() -> None:
    placement = decide_for(f"{NFS4.replace('hard', 'soft')}lookupcache=none,local_lock=none")
    assert placement.journal == "delete" and placement.advice is not None and "hard" in placement.advice


CIFS = "//nas/jobs rw,vers=3.1.1,sec=ntlmssp,username=jobs,uid=0,file_mode=0755,dir_mode=0755,soft,mapposix,actimeo=1"


@pytest.mark.parametrize("kind", ["cifs", "smb3"])
@pytest.mark.parametrize("cache", ["none", "strict"])
def test_smb_needs_a_client_that_does_not_cache_missing_names(kind: str, cache: str) -> None:
    line = f"{kind} {CIFS},cache={cache}"
    default = decide_for(line)
    assert default.refused
    assert default.advice is not None and "echo 0 > /proc/fs/cifs/LookupCacheEnabled" in default.advice
    assert "umount" not in default.advice
    mended = decide_for(line, smb_name_cache=False)
    assert (mended.journal, mended.needs_probe) == ("delete", True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [("cache=strict,nobrl", "nobrl"), ("cache=loose", "cache=loose"), ("nobrl", "nobrl"), ("cache=ro", "cache=ro")],
)
@pytest.mark.parametrize("kind", ["cifs", "smb3"])
def test_smb_is_refused_with_the_mount_line_that_fixes_it(kind: str, options: str, reason: str) -> None:
    placement = decide_for(f"{kind} {CIFS},{options}", smb_name_cache=False)
    assert placement.refused and reason in placement.reason
    assert placement.advice is not None and "mount -t cifs -o cache=none,brl //nas/jobs /data" in placement.advice


@pytest.mark.parametrize(
    "line",
    [
        "fuse.sshfs alice@host:/srv rw,user_id=1000,group_id=1000",
        "fuse.gcsfuse bucket rw,user_id=0,group_id=0,default_permissions",
        "fuse.s3fs s3fs rw,user_id=0,group_id=0",
        "fuse.rclone remote: rw,user_id=0,group_id=0",
        "lustre 10.0.0.2@tcp:/fs rw,checksum,noflock,user_xattr",
        "lustre 10.0.0.2@tcp:/fs rw,checksum,localflock,user_xattr",
        "afs #root.cell rw",
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_some_types_are_refused_with_any_options(line: str, shared: bool) -> None:
    placement = decide_for(line, shared=shared)
    assert placement.refused
    assert placement.advice is not None and ("postgresql://" in placement.advice)


@pytest.mark.parametrize(
    "line",
    [
        "ceph 10.0.0.1:6789,10.0.0.2:6789:/ rw,name=admin,secret=<hidden>,acl,mon_addr=10.0.0.1:6789",
        "fuse.glusterfs gv0 rw,user_id=0,group_id=0,default_permissions,allow_other,max_read=131072",
        "lustre 10.0.0.2@tcp:/fs rw,checksum,flock,user_xattr",
        "gfs2 /dev/mapper/shared rw,lockproto=lock_dlm",
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_cluster_file_systems_allow_delete(line: str, shared: bool) -> None:
    placement = decide_for(line, shared=shared)
    assert (placement.journal, placement.needs_probe, placement.needs_peer_probe) == ("delete", True, False)


@pytest.mark.parametrize(
    "line",
    [
        "9p hostshare rw,sync,dirsync,access=client,trans=virtio",
        "virtiofs myfs rw",
        r"9p drvfs rw,dirsync,aname=drvfs;path=C:\134;uid=1000;gid=1000;symlinkroot=/mnt/,cache=5,trans=fd",
        "drvfs C: rw,noatime,uid=1000,gid=1000,case=off",
        "fuse.grpcfuse grpcfuse rw,user_id=0,group_id=0",
        "fuse.vmhgfs-fuse vmhgfs-fuse rw,user_id=0",
        "fuse.bindfs /srv/data rw,user_id=0,group_id=0,allow_other",
        "fuse.fuse-overlayfs fuse-overlayfs rw,user_id=0,group_id=0",
        "fuseblk /dev/sdb1 rw,user_id=0,group_id=0,allow_other,blksize=4096",
    ],
)
def test_one_machine_only_until_two_hosts_have_probed(line: str) -> None:
    alone = decide_for(line)
    assert (alone.journal, alone.needs_probe, alone.needs_peer_probe) == ("delete", True, False)
    shared = decide_for(line, shared=True)
    if "cache=5" in line:  # cached pages are not visible to a second host
        assert shared.refused
    else:
        assert (shared.journal, shared.needs_peer_probe) == ("delete", True)
        assert shared.advice is not None and "probe DIR --peer NAME" in shared.advice


def test_9p_with_a_cache_cannot_be_shared() -> None:
    placement = decide_for("9p hostshare rw,trans=virtio,cache=loose", shared=True)
    assert placement.refused and placement.advice is not None and "cache=none" in placement.advice
    assert decide_for("9p hostshare rw,trans=virtio,cache=none", shared=True).journal == "delete"


@pytest.mark.parametrize("line", ["fuse /srv/data rw,user_id=0", "fuse.somenewfs x rw", "beegfs b rw", "wekafs w rw"])
def test_unknown_types_need_two_hosts_to_have_probed(line: str) -> None:
    placement = decide_for(line)
    assert (placement.journal, placement.needs_probe, placement.needs_peer_probe) == ("delete", True, True)


OVERLAY = "overlay overlay rw,lowerdir=/low,upperdir=/up,workdir=/work"


@pytest.mark.parametrize(
    "upper",
    [
        *LOCAL,
        f"{NFS4}local_lock=none",
        f"{NFS3}lookupcache=none,local_lock=none",
        f"cifs {CIFS},cache=strict",
        f"smb3 {CIFS},cache=none,nobrl",
        "9p hostshare rw,trans=virtio",
        "virtiofs myfs rw",
        "fuse.sshfs h:/ rw",
        "fuse /srv rw",
        "fuse.gcsfuse bucket rw",
        "ceph 10.0.0.1:/ rw",
        "fuse.glusterfs gv0 rw",
        "lustre 10.0.0.2@tcp:/fs rw,flock",
        "lustre 10.0.0.2@tcp:/fs rw,noflock",
        r"9p drvfs rw,aname=drvfs;path=C:\134,cache=5",
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_an_overlay_is_treated_as_its_upper_folder(upper: str, shared: bool) -> None:
    over = decide(parse_mount(OVERLAY), statfs_magic=MAGIC["overlay"], shared=shared, upper=parse_mount(upper))
    below = decide(parse_mount(upper), statfs_magic=None, shared=shared)
    assert (over.journal, over.needs_peer_probe) == (below.journal, below.needs_peer_probe)
    assert over.fs_type == "overlay"


def test_an_overlay_with_an_invisible_upper_folder_is_local() -> None:
    assert decide_for(OVERLAY).journal == "wal"
    assert decide_for(OVERLAY, shared=True).journal == "delete"
    volatile = decide_for(f"{OVERLAY},volatile")
    assert volatile.advice is not None and "power loss" in volatile.advice


# --- the type that statfs reports


def test_a_network_type_seen_only_by_statfs_wins() -> None:
    placement = decide(parse_mount("ext4 /dev/sda rw"), statfs_magic=MAGIC["nfs"], shared=False)
    assert placement.refused and "statfs says nfs" in placement.reason


@pytest.mark.parametrize("magic", [MAGIC["tmpfs"], MAGIC["overlay"], 0x12345678])
def test_another_local_or_unknown_type_seen_by_statfs_rules_out_wal(magic: int) -> None:
    placement = decide(parse_mount("ext4 /dev/sda rw"), statfs_magic=magic, shared=False)
    assert (placement.journal, placement.needs_probe) == ("delete", True)


def test_fuse_seen_by_statfs_under_a_local_name_needs_a_peer_probe() -> None:
    placement = decide(parse_mount("ext4 /dev/sda rw"), statfs_magic=MAGIC["virtiofs"], shared=False)
    assert placement.journal == "delete" and placement.needs_peer_probe


def test_local_type_seen_by_statfs_does_not_soften_a_network_mount() -> None:
    placement = decide(parse_mount(f"{NFS4}local_lock=none"), statfs_magic=MAGIC["ext4"], shared=False)
    assert placement.refused


def test_statfs_alone_is_not_enough_for_wal() -> None:
    placement = decide(None, statfs_magic=MAGIC["ext4"], shared=False, folder="/data")
    assert (placement.folder, placement.journal, placement.needs_probe) == ("/data", "delete", True)
    assert decide(None, statfs_magic=MAGIC["nfs"], shared=False).refused
    nothing = decide(None, statfs_magic=None, shared=False)
    assert nothing.journal == "delete" and nothing.needs_peer_probe


@pytest.mark.parametrize("line", [*LOCAL[:5], f"{NFS4}lookupcache=none,local_lock=none", OVERLAY])
def test_an_agreeing_statfs_type_changes_nothing(line: str) -> None:
    mount = parse_mount(line)
    alone = decide(mount, statfs_magic=None, shared=False)
    assert decide(mount, statfs_magic=MAGIC[mount.fs_type], shared=False) == alone


def test_the_policy_covers_the_type_of_every_magic_number() -> None:
    for magic in MAGIC.values():
        fs_type = type_of_magic(magic)
        if fs_type is not None:
            assert decide(None, statfs_magic=magic, shared=False).reason


def test_a_read_only_mount_is_reported() -> None:
    (mount,) = parse_mountinfo("36 27 0:52 / /data ro,relatime - ext4 /dev/sda rw\n")
    placement = decide(mount, statfs_magic=None, shared=False)
    assert placement.advice is not None and "read-only" in placement.advice


def test_as_dict_is_plain_json() -> None:
    placement = decide_for(f"{NFS4}local_lock=none")
    shown = json.loads(json.dumps(placement.as_dict()))
    assert shown["journal"] is None and shown["fs_type"] == "nfs4" and "local_lock=none" in shown["options"]
    assert set(shown) == {
        "folder", "fs_type", "source", "mount_point", "options", "journal", "reason", "advice",
        "needs_probe", "needs_peer_probe",
    }  # fmt: skip


def test_names_with_spaces_are_quoted_in_the_suggested_mount_line() -> None:
    (mount,) = parse_mountinfo("36 27 0:52 / /my\\040data rw - nfs4 filer:/my\\040export rw,local_lock=none\n")
    advice = decide(mount, statfs_magic=None, shared=False).advice
    assert advice is not None and "'filer:/my export' '/my data'" in advice
