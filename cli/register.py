"""The command that delegates a job: register."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import InvalidInput

from . import inputs, token_options
from .context import open_registry
from .output import hint, json_line, line
from .parameters import Json

if TYPE_CHECKING:
    from jobdb.model import Broker


def register(
    ctx: typer.Context,
    agent: Annotated[
        str, typer.Option("--agent", "-a", metavar="NAME", help="Who is to do it: claude-code, codex, human, …")
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="What is to be done; '-' reads it from stdin.")
    ] = None,
    prompt_file: Annotated[
        str | None, typer.Option("--prompt-file", metavar="FILE", help="Read the prompt from a file; '-' is stdin.")
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--job-id", metavar="ID", help="The job's id; one is made otherwise.")
    ] = None,
    agent_session: Annotated[
        str | None,
        typer.Option("--agent-session", metavar="NAME", help="The agent's session that it is for, as tmux:work."),
    ] = None,
    priority: Annotated[int, typer.Option("--priority", metavar="N", help="Higher is claimed first.")] = 0,
    topic_prefix: Annotated[
        str | None,
        typer.Option(
            "--topic-prefix", metavar="TOPIC", help="Events go to TOPIC/events; jobdb/jobs/<job id> otherwise."
        ),
    ] = None,
    timeout_sec: Annotated[
        int, typer.Option("--timeout-sec", metavar="SEC", help="'reap' ends it after running so long; 0: never.")
    ] = 3600,
    idle_timeout_sec: Annotated[
        int,
        typer.Option(
            "--idle-timeout-sec", metavar="SEC", help="'reap' ends it after so long without an event; 0: never."
        ),
    ] = 120,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect", metavar="PATH", help="A file that it should make, as a relative path; may be repeated."
        ),
    ] = None,
    extra: Annotated[
        str | None,
        typer.Option("--extra", metavar="JSON", help="Further fields to keep: a JSON object or @FILE."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key", metavar="KEY", help="Registering again with the same key answers with the same job."
        ),
    ] = None,
    broker_host: Annotated[
        str | None,
        typer.Option(
            "--broker-host",
            metavar="HOST",
            help="The MQTT broker that gets the job's events; that of MQTT_BROKER otherwise, or none.",
        ),
    ] = None,
    broker_port: Annotated[
        int | None, typer.Option("--broker-port", metavar="PORT", help="Its port; 1883, or 8883 with TLS, otherwise.")
    ] = None,
    broker_tls: Annotated[bool, typer.Option("--broker-tls", help="Speak TLS with the broker.")] = False,
    broker_username: Annotated[
        str | None, typer.Option("--broker-username", metavar="NAME", help="The user name for the broker.")
    ] = None,
    broker_password_file: Annotated[
        str | None,
        typer.Option(
            "--broker-password-file", metavar="FILE", help="A file with the password for the broker; kept encrypted."
        ),
    ] = None,
    no_broker: Annotated[
        bool, typer.Option("--no-broker", help="No broker gets its events, although MQTT_BROKER is set.")
    ] = False,
    auth: Annotated[
        str,
        typer.Option(
            "--auth",
            metavar="WHEN",
            help="'required', or 'never': no token, events unsigned. Refused where the broker is secured.",
        ),
    ] = "required",
    auth_token: token_options.Token = None,
    auth_token_file: token_options.TokenFile = None,
    auth_token_stdin: token_options.TokenStdin = False,
    auth_token_fd: token_options.TokenFd = None,
    auth_token_env: token_options.TokenEnv = None,
    json: Json = False,
) -> None:
    """Register a job and print its id.

    The job is pending until somebody claims it. A token that signs its events is made with it and kept
    encrypted; 'jobdb token show JOB' prints it. With --json the record is printed, without the token.

    Where MQTT_BROKER is set and no option names a broker, the record gets the broker of the environment:
    MQTT_BROKER, MQTT_PORT, MQTT_TLS, MQTT_USERNAME and, encrypted, MQTT_PASSWORD.

    \b
    Examples:
      jobdb register --agent claude-code "sort ten problems"
      jobdb register --agent codex --prompt-file task.md --expect report.md
      generate-task | jobdb register --agent human --idempotency-key nightly-2026-06-19 -
    """
    prompt_source = _prompt_source(prompt, prompt_file)
    if auth_token_stdin and prompt_source == inputs.STDIN:
        raise InvalidInput("the prompt and the token cannot both come from stdin; give one of them from a file")
    token = token_options.read_token(
        value=auth_token,
        file=auth_token_file,
        stdin=auth_token_stdin,
        descriptor=auth_token_fd,
        variable=auth_token_env,
    )
    broker, password = _broker_from_options(
        broker_host, broker_port, broker_tls, broker_username, broker_password_file, no_broker
    )
    text = _read_prompt(prompt, prompt_source)
    from jobdb.core import arguments

    with open_registry(ctx) as registry:
        job = registry.register(
            agent=agent,
            prompt=text,
            job_id=job_id,
            agent_session=agent_session,
            priority=priority,
            topic_prefix=topic_prefix,
            broker=broker,
            broker_password=password,
            timeout_sec=timeout_sec,
            idle_timeout_sec=idle_timeout_sec,
            expected_artifacts=expect or (),
            extra=inputs.json_object(extra, option="--extra"),
            idempotency_key=idempotency_key,
            auth=arguments.auth_mode(auth),
            auth_token=token,
        )
    if json:
        json_line(job.as_dict())
        return
    line(job.job_id)
    hint(f"next: jobdb claim --job {job.job_id}; and to follow it: jobdb events {job.job_id} --follow")


def _prompt_source(prompt: str | None, prompt_file: str | None) -> str | None:
    """Where the prompt is to be read; None when it is the argument itself."""
    if prompt is not None and prompt_file is not None:
        raise InvalidInput("the prompt is given twice, as an argument and with --prompt-file; give one of them")
    if prompt is None and prompt_file is None:
        raise InvalidInput("the prompt is missing; give it as an argument, with --prompt-file FILE, or '-' for stdin")
    return inputs.STDIN if prompt == inputs.STDIN else prompt_file


def _read_prompt(prompt: str | None, source: str | None) -> str:
    from jobdb.core.registration import MAX_PROMPT_CHARS
    from jobdb.system.terminal import has_visible_text

    if source is not None:
        prompt = inputs.read_text(source, label="prompt", max_chars=MAX_PROMPT_CHARS)
    assert prompt is not None
    if not has_visible_text(prompt):
        where = "" if source is None else " from stdin" if source == inputs.STDIN else f" in {source!r}"
        why = "; was the command before it successful?" if source == inputs.STDIN else "; say what is to be done"
        raise InvalidInput(f"the prompt{where} is empty{why}")
    return prompt


def _broker_from_options(
    host: str | None, port: int | None, tls: bool, username: str | None, password_file: str | None, no_broker: bool
) -> tuple[Broker | None, str | None]:
    """The broker that the options name, else that of the environment, and its password."""
    if host is None:
        if port is not None or tls or username is not None or password_file is not None:
            raise InvalidInput("options for a broker were given without --broker-host; name the host")
        return (None, None) if no_broker else _broker_from_environment()
    if no_broker:
        raise InvalidInput("--no-broker and --broker-host exclude each other; give one of them")
    from jobdb.crypto.secret_input import read_from_file
    from jobdb.model import Broker

    password = read_from_file(password_file, label="broker password") if password_file is not None else None
    port = (8883 if tls else 1883) if port is None else port
    if not 1 <= port <= 65_535:
        raise InvalidInput(f"--broker-port is {port}; it may be 1 to 65535")
    return Broker(host, port, tls, username, password is not None), password


def _broker_from_environment() -> tuple[Broker | None, str | None]:
    """The variables are those of the old scripts; their records too hold the broker with its user and password."""
    import os

    if not os.environ.get("MQTT_BROKER"):
        return None, None
    from jobdb.mqtt import Environment

    return Environment.read().as_record()
