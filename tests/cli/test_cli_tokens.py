"""Test the token commands, tokens given by options, and where secrets may appear."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import pytest

TOKEN = "A-given-token_of_43_base64url_characters-xyz"


def test_show_prints_only_the_token(cli: Any) -> None:
    job = cli.register()
    shown = cli("token", "show", job)
    token = shown.out.rstrip("\n")
    assert len(token) == 43 and shown.out == token + "\n" and shown.err == ""
    assert cli("token", "show", job, "--json").json == {"job_id": job, "kid": 1, "token": token}
    assert cli("token", "show", job, "--kid", "1").out == shown.out
    cli("token", "show", job, "--kid", "7", code=2)
    cli("token", "show", "nosuch", code=2)


def test_a_job_without_a_token(cli: Any) -> None:
    job = cli.register("--auth", "never")
    assert cli("show", job, "--json").json["auth"] == "never"
    cli("token", "show", job, code=2)
    assert cli("token", "list", job).out == ""
    assert "hmac_sig" not in cli("publish", job, "started", "--json").out
    cli("register", "--agent", "a", "--auth", "never", "p", env={"JOBDB_REQUIRE_AUTH": "1"}, code=2)


def test_rotate_revoke_and_list(cli: Any) -> None:
    job = cli.register()
    old = cli("publish", job, "started", "--json").out
    assert cli("token", "rotate", job, "--overlap-sec", "3600").out == "2\n"
    new = cli("publish", job, "progress", "--json")
    assert new.json["data"]["hmac_kid"] == 2
    assert cli("accept", "-s", "s", input=old).out.startswith("accepted")
    assert cli("token", "revoke", job, "1", "--json").json == {"job_id": job, "kid": 1, "was_current": False}
    assert cli("accept", "-s", "t", input=old, code=1).out.startswith("revoked_key")
    tokens = cli("token", "list", job, "--json").json_lines
    assert [(token["kid"], token["state"]) for token in tokens] == [(1, "revoked"), (2, "current")]
    revoked = cli("token", "revoke", job, "2")
    assert "token rotate" in revoked.err
    assert "token rotate" in cli("publish", job, "progress", code=5).err
    assert cli("token", "rotate", job, "--json").json == {"job_id": job, "kid": 3}
    cli("publish", job, "progress")
    assert "STATE" in cli.run_in_terminal("token", "list", job)
    cli("token", "revoke", job, "9", code=2)
    cli("token", "rotate", job, "--overlap-sec", "-1", code=2)


@pytest.mark.parametrize("command", ["register", "rotate"])
def test_tokens_from_each_source(cli: Any, tmp_path: Path, command: str) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")

    def give(*options: str, **more: Any) -> str:
        if command == "register":
            return str(cli("register", "--agent", "a", *options, "p", **more).out.strip())
        job = str(cli.register())
        cli("token", "rotate", job, *options, **more)
        return job

    jobs = [
        give("--auth-token-file", "token"),
        give("--auth-token-stdin", input=TOKEN),
        give("--auth-token-env", "MY_TOKEN", env={"MY_TOKEN": TOKEN}),
    ]
    descriptor = os.open(tmp_path / "token", os.O_RDONLY)
    jobs.append(give("--auth-token-fd", str(descriptor), pass_fds=(descriptor,)))
    os.close(descriptor)
    for job in jobs:
        assert cli("token", "show", job).out.strip() == TOKEN


def test_a_token_on_the_command_line_works_and_warns(cli: Any) -> None:
    done = cli("register", "--agent", "a", "--auth-token", TOKEN, "p")
    assert done.err.startswith("jobdb: warning: ") and TOKEN not in done.err
    assert cli("token", "show", done.out.strip()).out.strip() == TOKEN


@pytest.mark.parametrize(
    "options",
    [
        ("--auth-token", "short"),
        ("--auth-token", ""),
        ("--auth-token-file", "missing"),
        ("--auth-token-env", "NOT_SET"),
        ("--auth-token-fd", "77"),
        ("--auth-token-stdin",),
        ("--auth-token-stdin", "--prompt-file", "-"),
        ("--auth-token", TOKEN, "--auth-token-env", "HOME"),
        ("--auth-token", TOKEN, "--auth", "never"),
    ],
)
def test_tokens_that_are_refused(cli: Any, options: tuple[str, ...]) -> None:
    prompt = () if "--prompt-file" in options else ("p",)
    done = cli("register", "--agent", "a", *options, *prompt, code=2)
    assert done.out == "" and TOKEN not in done.err
    assert cli("list").out == ""


def test_rekey_changes_the_master_key(cli: Any, tmp_path: Path) -> None:
    job = cli.register()
    token = cli("token", "show", job).out
    new = tmp_path / "new.key"
    new.write_text(secrets.token_hex(32))
    new.chmod(0o600)
    assert cli("token", "rekey", "--new-key-file", new).out == "1\n"
    cli("token", "show", job, code=5)
    cli("publish", job, "started", code=5)
    del cli.env["JOBDB_KEY"]
    cli.env["JOBDB_KEY_FILE"] = str(new)
    assert cli("token", "show", job).out == token
    assert set(cli("token", "rekey", "--new-key-file", new, "--json").json) == {"sealed", "key_id"}
    cli("token", "rekey", "--new-key-file", tmp_path / "missing", code=5)


def test_the_first_command_creates_a_master_key_in_the_users_folder(cli_without_database: Any) -> None:
    del cli_without_database.env["JOBDB_KEY"]
    cli_without_database("init")
    job = cli_without_database.register()
    key = cli_without_database.folder / ".config" / "jobdb" / "master.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    assert "key" in cli_without_database("token", "show", job, code=5).err


def test_files_that_others_can_read_cause_a_warning(cli: Any) -> None:
    cli.register()
    cli.database.chmod(0o644)
    warned = cli("list").err
    assert warned.startswith("jobdb: warning: ") and "chmod" in warned and len(warned.splitlines()) == 1


def test_secrets_are_only_where_they_were_requested(cli: Any, tmp_path: Path) -> None:
    password = "broker-password-" + secrets.token_hex(8)
    (tmp_path / "password").write_text(password)
    broker = ("--broker-host", "127.0.0.1", "--broker-username", "u", "--broker-password-file", "password")
    outputs = []

    def run(*arguments: str, code: int = 0, input: str = "") -> str:
        done = cli("-vv", *arguments, code=code, input=input)
        outputs.append(done.out + done.err)
        return str(done.out)

    jobs = [run("register", "--agent", "a", *broker, "p").strip(), run("register", "--agent", "a", "p").strip()]
    jobs.append(run("register", "--agent", "a", "--auth-token-stdin", "--json", "p", input=TOKEN).split('"')[5])
    tokens = [TOKEN, password]
    for job in jobs:
        tokens.append(cli("token", "show", job).out.strip())
        run("token", "rotate", job)
        tokens.append(cli("token", "show", job).out.strip())
        run("claim", "--json")
        payload = run("publish", job, "started", "--attempt", "1", "--json")
        run("accept", "-s", "s", "--json", input=payload)
        run("accept", "-s", "s", "--json", input=payload.replace("started", "progress"), code=1)
        run("token", "list", job, "--json")
        run("show", job, "--json")
        run("show", job)
        run("events", job, "--json")
        run("publish", job, "nonsense", code=2)
        run("publish", job, "progress", code=1)
        run("complete", job, "--attempt", "1")
        run("subscribe", job, "-s", "t", "--exec", "env; cat")
        run("wait", job, "--json")
    run("list", "--json")
    run("stats", "--json")
    run("export", "exported")
    assert len(set(tokens)) == 7
    places = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "password"}
    assert cli.database in places and any(path.name.endswith("-wal") for path in places)
    for token in tokens:
        assert not [words for words in outputs if token in words]
        assert not [path for path, content in places.items() if token.encode() in content]
