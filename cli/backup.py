"""The commands that save a database and put a saved one back: backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .context import get_settings, open_registry
from .parameters import Json

if TYPE_CHECKING:
    from jobdb.operations.restore import RestoreReport
    from jobdb.operations.since_backup import ChangesSinceBackup


def backup(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make; it must not be there.")],
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", metavar="N", min=1, help="Put the moment into the file's name and keep the newest N of them."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Save the whole database into one file, while it is in use.

    The copy is one moment's state and holds everything that was acknowledged before it began. It is verified
    (opened, integrity, references) and synced before it gets its name, and only you may read it. Tokens in it
    stay sealed: keep the master key somewhere else.

    \b
    Examples:
      jobdb backup /backups/jobs.db
      jobdb backup /backups/jobs.db --keep 14      # /backups/jobs-20260619T093200Z.db, …
    """
    from jobdb.operations.backup import back_up

    with open_registry(ctx) as registry:
        saved = back_up(registry, file, keep=keep)
    for path in saved.in_future:
        output.warn(
            f"{path} is named after a time that is yet to come; it is not counted and stays. The clock was wrong when "
            "it was made, or it is now: rename or remove it"
        )
    if json:
        output.json_line(saved.as_dict())
        return
    output.line(str(saved.path))
    output.note(f"saved and verified: {saved.jobs} jobs, {saved.events} events, {saved.size_bytes} bytes")
    for path in saved.removed:
        output.note(f"removed {path}")


def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="BACKUP", help="The saved file; it stays.")],
    revoke_since: Annotated[
        bool,
        typer.Option(
            "--revoke-since",
            help="Revoke again the tokens that were revoked or rotated after the backup was made; otherwise they are "
            "valid again.",
        ),
    ] = False,
    same_registry: Annotated[
        bool,
        typer.Option(
            "--same-registry",
            help="It goes on as the registry that was saved, with its broker sessions and tickets. Only where that one "
            "is gone for good.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Put a saved database in the place of the present one, which is kept.

    The backup is verified first. Refused while anybody has the present database open (exit code 4). What was
    there is renamed, not deleted; its new name is printed. To brokers and to holders of tickets the restored
    database is another registry, unless --same-registry is given.

    Subscribers go back to what they had accepted when the backup was made, and tokens that were revoked since
    are valid again: --revoke-since takes the revocations over from the database that is replaced.

    \b
    Examples:
      jobdb --db /var/lib/jobs/jobs.db restore /backups/jobs-20260619T093200Z.db --revoke-since --same-registry
      jobdb --db rehearsal/jobs.db restore /backups/jobs-20260619T093200Z.db
    """
    from jobdb.operations.backup_file import resolve_backup, sqlite_path, verify
    from jobdb.operations.restore import restore_registry
    from jobdb.operations.since_backup import changes_since
    from jobdb.urls import default_url, parse_url

    settings = get_settings(ctx)
    url = parse_url(settings.db or default_url())
    exists = sqlite_path(url).exists()
    resolve_backup(file)
    if exists and not yes:
        jobs, events = verify(file)
        output.note(
            f"{file} holds {jobs} jobs and {events} events; the database at {url.path} will be kept under another name"
        )
        if not revoke_since:
            _warn_of_tokens(changes_since(file, url), done=False)
        typer.confirm("Replace it?", abort=True, err=True)
    elif not exists:
        output.note(f"nothing is at {url} yet")
    done = restore_registry(
        file,
        url,
        busy_sec=min(settings.busy_timeout_sec, 5.0),
        revoke_since=revoke_since,
        same_registry=same_registry,
    )
    from jobdb.engines.trust import record_trust

    record_trust(done.path)
    _print_restored(done, asked=revoke_since)
    if json:
        output.json_line(
            {
                "url": str(url),
                "path": str(done.path),
                "kept": str(done.kept) if done.kept else None,
                "set_aside": [str(path) for path in done.set_aside],
                "jobs": done.jobs,
                "events": done.events,
                "since": done.since.as_dict() if done.since else None,
                "revoked": done.revoked,
                "same_registry": done.same_registry,
            }
        )
        return
    output.note(
        f"restored {url}: {done.jobs} jobs, {done.events} events"
        + (f"; what was there is now {done.kept}" if done.kept else "")
    )
    output.hint("next: jobdb doctor --full")


def _print_restored(done: RestoreReport, *, asked: bool) -> None:
    """Say what a restore has taken back, which nothing else shows."""
    _warn_of_key(done.key_id)
    for path in done.set_aside:
        output.warn(f"kept as {path}: what the database that was there had not yet copied into its file")
    since = done.since
    if since is None:
        cause = "cannot be read, or has no job in common with it" if done.kept else "is gone, or there was none"
        say = output.warn if asked else output.note
        say(
            f"what was revoked since the backup cannot be known, as the database that was there {cause}: such tokens "
            f"are valid again{' (none was revoked)' if asked else ''}; 'jobdb token rotate JOB' gives a job a new one"
        )
    elif done.revoked:
        output.note(
            f"revoked in the restored database too: {since.tokens} tokens of {since.jobs} jobs; 'jobdb token rotate "
            "JOB' gives a job a new one"
        )
    else:
        _warn_of_tokens(since, done=True)
    if since is not None and since.jobs_gone:
        output.note(
            f"{since.jobs_gone} jobs of the backup were no more in the database that was replaced; whether their "
            "tokens were revoked cannot be known"
        )
    ahead = f" ({since.subscriptions} had accepted more)" if since is not None and since.subscriptions else ""
    output.note(
        f"subscribers go back to what they had accepted when the backup was made{ahead}: what they accepted since may "
        "be accepted again"
    )
    if not done.same_registry:
        output.note(
            "to brokers and tickets this is another registry: sessions begin anew, and tickets are to be issued anew. "
            "Where it goes on in the place of the one that was saved, restore with --same-registry"
        )


def _warn_of_key(needed: str | None) -> None:
    """Whose secrets cannot be unsealed here signs and verifies nothing."""
    if needed is None:
        return
    from jobdb.crypto.vault import Vault
    from jobdb.errors import KeyProblem

    try:
        found = Vault.open(create=False).key_id
    except KeyProblem:
        found = None
    if found != needed:
        here = f"the key found here is {found}" if found else "no key is found here"
        output.warn(
            f"its secrets are sealed under master key {needed}, and {here}: no event is signed or verified without it "
            "(JOBDB_KEY_FILE names a file that holds the key)"
        )


def _warn_of_tokens(since: ChangesSinceBackup | None, *, done: bool) -> None:
    if since is not None and since.tokens:
        output.warn(
            f"{since.tokens} tokens of {since.jobs} jobs were revoked or rotated since the backup and "
            f"{'are' if done else 'will be'} valid again; --revoke-since revokes them in the restored database"
            + (". To do so now, restore what was kept, and then the backup once more" if done else "")
        )
