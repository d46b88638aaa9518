"""The commands about the tokens that sign events: token show, list, rotate, revoke, rekey."""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer

from . import output, token_options
from .commands import CONTEXT_SETTINGS, PlainGroup
from .context import open_registry
from .param_conversion import PlainCommand
from .parameters import JobId, Json

app = typer.Typer(
    cls=PlainGroup,
    help="Show, rotate and revoke the tokens that sign events.\n\n"
    "Each job has a token, the HMAC key of its events, with a version number (kid) for rotation. Tokens are "
    "kept encrypted under a master key of this user or service.",
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
        int | None, typer.Option("--kid", metavar="KID", help="This version instead of the present one.")
    ] = None,
    json: Json = False,
) -> None:
    """Print a job's token.

    The one command that does. Whoever has the token can speak for the job.

    \b
    Example:
      (umask 077; jobdb token show 0f3a9c2d7b11 > token)
    """
    with open_registry(ctx) as registry:
        if kid is None:
            kid, token = registry.tokens.current(job)
        else:
            token = registry.tokens.show(job, kid=kid)
    if json:
        output.json_line({"job_id": job, "kid": kid, "token": token})
    else:
        output.line(token)


@app.command("list", cls=PlainCommand)
def list_tokens(ctx: typer.Context, job: JobId, json: Json = False) -> None:
    """List a job's tokens, without the secrets.

    A line for each: version, state (present, overlap, expired, revoked), creation, end of the overlap,
    revocation.

    \b
    Example:
      jobdb token list 0f3a9c2d7b11
    """
    with open_registry(ctx) as registry:
        tokens = [token.as_dict() for token in registry.tokens.list(job)]
    if json:
        for token in tokens:
            output.json_line(token)
        return
    output.table(
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
def rotate(
    ctx: typer.Context,
    job: JobId,
    overlap_sec: Annotated[
        float, typer.Option("--overlap-sec", metavar="SEC", help="How long the old tokens stay valid.")
    ] = 3600.0,
    auth_token: token_options.Token = None,
    auth_token_file: token_options.TokenFile = None,
    auth_token_stdin: token_options.TokenStdin = False,
    auth_token_fd: token_options.TokenFd = None,
    auth_token_env: token_options.TokenEnv = None,
    json: Json = False,
) -> None:
    """Give a job a new token.

    Events are signed with the new one at once; the old ones verify for the overlap, so that workers
    elsewhere can be told. Prints the new version number; 'jobdb token show' prints the token.

    \b
    Example:
      jobdb token rotate 0f3a9c2d7b11 --overlap-sec 600
    """
    token = token_options.read_token(
        value=auth_token,
        file=auth_token_file,
        stdin=auth_token_stdin,
        descriptor=auth_token_fd,
        variable=auth_token_env,
    )
    with open_registry(ctx) as registry:
        kid = registry.tokens.rotate(job, overlap_sec=overlap_sec, token=token)
    if json:
        output.json_line({"job_id": job, "kid": kid})
    else:
        output.line(str(kid))


@app.command(cls=PlainCommand)
def revoke(ctx: typer.Context, job: JobId, kid: Kid, json: Json = False) -> None:
    """Make a token invalid at once.

    Events that it signed are refused from now on. If it was the present one, nothing can be published for
    the job until it is rotated.

    \b
    Example:
      jobdb token revoke 0f3a9c2d7b11 1
    """
    with open_registry(ctx) as registry:
        was_current = registry.tokens.revoke(job, kid)
        ended = registry.get(job).terminal
    if json:
        output.json_line({"job_id": job, "kid": kid, "was_current": was_current})
    if was_current and not ended:
        output.warn(f"that was the current token of job {job}; make a new one: jobdb token rotate {job}")


@app.command(cls=PlainCommand)
def rekey(
    ctx: typer.Context,
    new_key_file: Annotated[
        str,
        typer.Option("--new-key-file", metavar="FILE", help="The file that holds the new master key."),
    ],
    json: Json = False,
) -> None:
    """Seal all secrets anew under another master key.

    The present key must still be in place. All secrets change over in one transaction; afterwards the
    database opens with the new key only. Prints how many there were.

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
    if json:
        output.json_line({"sealed": sealed, "key_id": key.key_id})
    else:
        output.line(str(sealed))
    place = shlex.quote(os.path.abspath(new_key_file))
    output.hint(f"from now on: export JOBDB_KEY_FILE={place}; keep the old key for old backups", here=False)
