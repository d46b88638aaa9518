"""The commands about the tokens that sign events: token show, list, rotate, revoke, rekey.

Called by the ``jobdb`` group (``commands.py``), when one of them is run; calls the registry's token verbs.
``token_options`` reads a token that is given.
"""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer

from . import output
from .commands import CONTEXT_SETTINGS, PlainGroup
from .context import open_registry
from .messages import print_hint, print_warning
from .param_conversion import PlainCommand
from .parameters import AsJson, JobId
from .tables import print_table
from .token_options import TokenOptions, with_token_options

app = typer.Typer(
    cls=PlainGroup,
    help="Show, rotate and revoke the tokens that sign events.\n\n"
    "Each job has a token, the HMAC key that signs its events, with a version number (kid) for rotation. Tokens are "
    "stored encrypted under a master key of this user or service.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings=CONTEXT_SETTINGS,
)

Kid = Annotated[int, typer.Argument(metavar="KID", help="The token's version number.")]


@app.command(cls=PlainCommand)
def show(
    ctx: typer.Context,
    job: JobId,
    kid: Annotated[
        int | None, typer.Option("--kid", metavar="KID", help="Print this version instead of the current one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a job's token.

    No other command prints it. Whoever has the token can publish events of the job.

    \b
    Example:
      (umask 077; jobdb token show 0f3a9c2d7b11 > token)
    """
    with open_registry(ctx) as registry:
        if kid is None:
            kid, token = registry.tokens.current(job)
        else:
            token = registry.tokens.show(job, kid=kid)
    if as_json:
        output.print_json({"job_id": job, "kid": kid, "token": token})
    else:
        output.print_line(token)


@app.command("list", cls=PlainCommand)
def list_tokens(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """List a job's tokens, without the secrets.

    One line per token: version, state (current; overlap: an older token that is still valid; expired; revoked),
    time of creation, end of the overlap, time of revocation.

    \b
    Example:
      jobdb token list 0f3a9c2d7b11
    """
    with open_registry(ctx) as registry:
        tokens = [token.as_dict() for token in registry.tokens.list(job)]
    if as_json:
        for token in tokens:
            output.print_json(token)
        return
    print_table(
        ("KID", "STATE", "CREATED", "VALID UNTIL", "REVOKED"),
        [
            (
                str(token["kid"]),
                token["state"],
                token["created_at"],
                token["expires_at"] or "-",
                token["revoked_at"] or "-",
            )
            for token in tokens
        ],
    )


@app.command(cls=PlainCommand)
@with_token_options
def rotate(
    ctx: typer.Context,
    job: JobId,
    overlap_sec: Annotated[
        float, typer.Option("--overlap-sec", metavar="SEC", help="Seconds for which the old tokens stay valid.")
    ] = 3600.0,
    *,
    token: TokenOptions,
    as_json: AsJson = False,
) -> None:
    """Give a job a new token.

    New events are signed with it at once. Events signed with the old tokens are accepted for the overlap, which
    leaves time to pass the new token to workers on other machines. Prints the new version number; 'jobdb token show'
    prints the token.

    \b
    Example:
      jobdb token rotate 0f3a9c2d7b11 --overlap-sec 600
    """
    new_token = token.read()
    with open_registry(ctx) as registry:
        kid = registry.tokens.rotate(job, overlap_sec=overlap_sec, token=new_token)
    if as_json:
        output.print_json({"job_id": job, "kid": kid})
    else:
        output.print_line(str(kid))


@app.command(cls=PlainCommand)
def revoke(ctx: typer.Context, job: JobId, kid: Kid, as_json: AsJson = False) -> None:
    """Invalidate a token at once.

    Events signed with it are refused from now on. If it was the current token, no event of the job can be published
    until the token is rotated.

    \b
    Example:
      jobdb token revoke 0f3a9c2d7b11 1
    """
    with open_registry(ctx) as registry:
        was_current = registry.tokens.revoke(job, kid)
        ended = registry.get(job).terminal
    if as_json:
        output.print_json({"job_id": job, "kid": kid, "was_current": was_current})
    if was_current and not ended:
        print_warning(f"that was the current token of job {job}; create a new one: jobdb token rotate {job}")


@app.command(cls=PlainCommand)
def rekey(
    ctx: typer.Context,
    new_key_file: Annotated[
        str,
        typer.Option("--new-key-file", metavar="FILE", help="The file that holds the new master key."),
    ],
    as_json: AsJson = False,
) -> None:
    """Re-encrypt all secrets under another master key.

    The current key must still be in place. All secrets are re-encrypted in one transaction; afterwards the database
    needs the new key. Prints the number of secrets.

    \b
    Example:
      (umask 077; openssl rand -hex 32 > new.key)
      jobdb token rekey --new-key-file new.key
      export JOBDB_KEY_FILE=$PWD/new.key
    """
    from jobdb.crypto.master_key import read_key_file
    from jobdb.crypto.vault import Vault

    key = read_key_file(new_key_file)
    with open_registry(ctx, checkpoint=True) as registry:
        sealed = registry.tokens.rekey(Vault(key))
    if as_json:
        output.print_json({"sealed": sealed, "key_id": key.key_id})
    else:
        output.print_line(str(sealed))
    path = shlex.quote(os.path.abspath(new_key_file))
    print_hint(f"from now on: export JOBDB_KEY_FILE={path}; keep the old key for old backups")
