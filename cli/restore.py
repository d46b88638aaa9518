"""The ``restore`` command, which replaces the database with a backup and reports what that has undone.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.operations.restore``, which
replaces the file. It opens no registry: nobody may have the database open.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .formatting import pluralize
from .messages import print_hint, print_note, print_warning
from .parameters import AsJson
from .settings import get_settings

if TYPE_CHECKING:
    from jobdb.operations.restore import RestoreReport
    from jobdb.operations.since_backup import ChangesSinceBackup


def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="BACKUP", help="The backup; it is kept.")],
    revoke_since: Annotated[
        bool,
        typer.Option(
            "--revoke-since",
            help="Revoke again the tokens that were revoked or rotated after the backup; otherwise they become valid "
            "again.",
        ),
    ] = False,
    same_registry: Annotated[
        bool,
        typer.Option(
            "--same-registry",
            help="Keep the identity of the backed-up registry, with its broker sessions and tickets. Only if that "
            "registry is never used again.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replace the database with a backup; the replaced one is kept.

    The backup is verified first. Refused while a process has the current database open (exit code 4). The current
    database is renamed, not deleted; its new name is printed. To brokers and holders of tickets the restored database
    is another registry, unless --same-registry is given.

    Subscribers return to what they had accepted at the time of the backup, and tokens that were revoked since then are
    valid again, unless --revoke-since copies the revocations from the replaced database.

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
        print_note(
            f"{file} has {pluralize(jobs, 'job')} and {pluralize(events, 'event')}; the database at {url.path} "
            "will be kept under another name"
        )
        if not revoke_since:
            _warn_of_valid_tokens(changes_since(file, url), restored=False)
        typer.confirm("Replace it?", abort=True, err=True)
    elif not exists:
        print_note(f"there is no database at {url} yet")
    report = restore_registry(
        file,
        url,
        busy_sec=min(settings.busy_timeout_sec, 5.0),
        revoke_since=revoke_since,
        same_registry=same_registry,
    )
    from jobdb.engines.trust import record_trust

    record_trust(report.path)
    _print_undone(report, revoke_requested=revoke_since)
    if as_json:
        output.print_json(
            {
                "url": str(url),
                "path": str(report.path),
                "kept": str(report.kept) if report.kept else None,
                "set_aside": [str(path) for path in report.set_aside],
                "jobs": report.jobs,
                "events": report.events,
                "since": report.since.as_dict() if report.since else None,
                "revoked": report.revoked,
                "same_registry": report.same_registry,
            }
        )
        return
    print_note(
        f"restored {url}: {pluralize(report.jobs, 'job')}, {pluralize(report.events, 'event')}"
        + (f"; the replaced database is now {report.kept}" if report.kept else "")
    )
    print_hint("next: jobdb doctor --full", ctx)


def _print_undone(report: RestoreReport, *, revoke_requested: bool) -> None:
    """Print what the restore has undone, which nothing else shows."""
    _warn_of_missing_key(report.key_id)
    for path in report.set_aside:
        print_warning(f"kept as {path}: changes that the replaced database had not yet copied into its file")
    since = report.since
    if since is None:
        cause = "cannot be read, or shares no job with it" if report.kept else "is gone, or there was none"
        print_message = print_warning if revoke_requested else print_note
        print_message(
            f"the revocations since the backup are unknown, as the replaced database {cause}: such tokens are valid "
            f"again{' (none was revoked)' if revoke_requested else ''}; 'jobdb token rotate JOB' gives a job a new one"
        )
    elif report.revoked:
        print_note(
            "revoked in the restored database too: "
            f"{pluralize(since.tokens, 'token')} of {pluralize(since.jobs, 'job')}; "
            "'jobdb token rotate JOB' gives a job a new one"
        )
    else:
        _warn_of_valid_tokens(since, restored=True)
    if since is not None and since.jobs_gone:
        print_note(
            f"whether tokens were revoked is unknown for {pluralize(since.jobs_gone, 'job')} of the backup that the "
            "replaced database no longer had"
        )
    ahead = f" ({since.subscriptions} had accepted more)" if since is not None and since.subscriptions else ""
    print_note(
        f"subscribers return to what they had accepted at the time of the backup{ahead}: events that they accepted "
        "since then may be accepted again"
    )
    if not report.same_registry:
        print_note(
            "to brokers and tickets this is another registry: start its sessions again and issue new tickets. If it "
            "continues in place of the registry that was backed up, restore with --same-registry"
        )


def _warn_of_missing_key(needed: str | None) -> None:
    """Print a warning when the secrets cannot be decrypted here: then no event can be signed or verified."""
    if needed is None:
        return
    from jobdb.crypto.vault import Vault
    from jobdb.errors import KeyProblem

    try:
        available = Vault.open(create=False).key_id
    except KeyProblem:
        available = None
    if available != needed:
        here = f"the key here is {available}" if available else "there is no key here"
        print_warning(
            f"its secrets are encrypted under master key {needed}, and {here}: without that key no event can be signed "
            "or verified (set JOBDB_KEY_FILE to a file with the key)"
        )


def _warn_of_valid_tokens(since: ChangesSinceBackup | None, *, restored: bool) -> None:
    if since is not None and since.tokens:
        print_warning(
            f"tokens that were revoked or rotated since the backup {'are' if restored else 'will be'} valid again "
            f"({pluralize(since.tokens, 'token')} of {pluralize(since.jobs, 'job')}); --revoke-since revokes "
            "them in the restored database"
            + (". To do so now, restore the database that was kept, and then this backup again" if restored else "")
        )
