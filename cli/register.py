"""The ``register`` command, which delegates a job to an agent.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls the registry. ``token_options`` reads a
token that is given. ``jobdb.mqtt`` is imported only when the environment names a broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import InvalidInput

from . import inputs
from .context import open_registry
from .messages import print_hint
from .output import print_json, print_line
from .parameters import AsJson
from .token_options import TokenOptions, with_token_options

if TYPE_CHECKING:
    from jobdb.model import Broker


@with_token_options
def register(
    ctx: typer.Context,
    agent: Annotated[
        str,
        typer.Option(
            "--agent", "-a", metavar="NAME", help="The agent that is to do the job: claude-code, codex, human, …"
        ),
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="What is to be done; '-' reads it from stdin.")
    ] = None,
    prompt_file: Annotated[
        str | None, typer.Option("--prompt-file", metavar="FILE", help="Read the prompt from a file; '-' is stdin.")
    ] = None,
    job_id: Annotated[
        str | None, typer.Option("--job-id", metavar="ID", help="The job's id. Default: a generated one.")
    ] = None,
    agent_session: Annotated[
        str | None,
        typer.Option("--agent-session", metavar="NAME", help="The agent's session for the job, such as tmux:work."),
    ] = None,
    priority: Annotated[
        int, typer.Option("--priority", metavar="N", help="Jobs of higher priority are claimed first.")
    ] = 0,
    topic_prefix: Annotated[
        str | None,
        typer.Option(
            "--topic-prefix",
            metavar="TOPIC",
            help="Publish the job's events to TOPIC/events. Default: jobdb/jobs/<job id>.",
        ),
    ] = None,
    timeout_sec: Annotated[
        int,
        typer.Option(
            "--timeout-sec", metavar="SEC", help="'reap' ends the job after SEC seconds of running; 0: never."
        ),
    ] = 3600,
    idle_timeout_sec: Annotated[
        int,
        typer.Option(
            "--idle-timeout-sec",
            metavar="SEC",
            help="'reap' ends the job after SEC seconds without a sign of life, unless a live lease or an open "
            "question protects it; 0: never.",
        ),
    ] = 0,
    max_attempts: Annotated[
        int | None,
        typer.Option(
            "--max-attempts",
            metavar="N",
            help="The number of tries: an expired lease uses one up, and so does an agent's failure under 'jobdb "
            "work'; after the last one the job ends as error. Default: three expired leases, one failure.",
            show_default=False,
            min=1,
        ),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect", metavar="PATH", help="A file that the job should create, as a relative path; may be repeated."
        ),
    ] = None,
    extra: Annotated[
        str | None,
        typer.Option("--extra", metavar="JSON", help="Further fields to store: a JSON object, or @FILE."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key", metavar="KEY", help="Registering again with the same key returns the same job."
        ),
    ] = None,
    broker_host: Annotated[
        str | None,
        typer.Option(
            "--broker-host",
            metavar="HOST",
            help="The MQTT broker for the job's events. Default: MQTT_BROKER, else none.",
        ),
    ] = None,
    broker_port: Annotated[
        int | None, typer.Option("--broker-port", metavar="PORT", help="Its port. Default: 1883, or 8883 with TLS.")
    ] = None,
    broker_tls: Annotated[bool, typer.Option("--broker-tls", help="Connect to the broker with TLS.")] = False,
    broker_username: Annotated[
        str | None, typer.Option("--broker-username", metavar="NAME", help="The user name for the broker.")
    ] = None,
    broker_password_file: Annotated[
        str | None,
        typer.Option(
            "--broker-password-file", metavar="FILE", help="A file with the password for the broker; stored encrypted."
        ),
    ] = None,
    no_broker: Annotated[bool, typer.Option("--no-broker", help="Use no broker, even if MQTT_BROKER is set.")] = False,
    auth: Annotated[
        str,
        typer.Option(
            "--auth",
            metavar="WHEN",
            help="'required', or 'never' for a job without a token, whose events are not signed; refused for a broker "
            "with TLS or a login.",
        ),
    ] = "required",
    *,
    token: TokenOptions,
    as_json: AsJson = False,
) -> None:
    """Register a job and print its id.

    The job is pending until a worker claims it. A token that signs its events is generated and stored encrypted;
    'jobdb token show JOB' prints it. --json prints the job's record, without the token.

    If MQTT_BROKER is set and no option names a broker, the job gets the broker of the environment: MQTT_BROKER,
    MQTT_PORT, MQTT_TLS, MQTT_USERNAME and, stored encrypted, MQTT_PASSWORD.

    \b
    Examples:
      jobdb register --agent claude-code "sort ten problems"
      jobdb register --agent codex --prompt-file task.md --expect report.md
      generate-task | jobdb register --agent human --idempotency-key nightly-2026-06-19 -
    """
    prompt_source = _prompt_source(prompt, prompt_file)
    if token.stdin and prompt_source == inputs.STDIN:
        raise InvalidInput("the prompt and the token cannot both be read from stdin; read one of them from a file")
    auth_token = token.read()
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
            max_attempts=max_attempts,
            expected_artifacts=expect or (),
            extra=inputs.parse_json_object(extra, option="--extra"),
            idempotency_key=idempotency_key,
            auth=arguments.auth_mode(auth),
            auth_token=auth_token,
        )
    if as_json:
        print_json(job.as_dict())
        return
    print_line(job.job_id)
    print_hint(f"next: jobdb claim --job {job.job_id}; to follow it: jobdb events {job.job_id} --follow", ctx)


def _prompt_source(prompt: str | None, prompt_file: str | None) -> str | None:
    """Return the file to read the prompt from, or ``-`` for stdin; None when the argument itself is the prompt."""
    if prompt is not None and prompt_file is not None:
        raise InvalidInput("the prompt is given twice, as an argument and with --prompt-file; give it once")
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
        advice = "did the command before the pipe fail?" if source == inputs.STDIN else "describe what is to be done"
        raise InvalidInput(f"the prompt{where} is empty; {advice}")
    return prompt


def _broker_from_options(
    host: str | None, port: int | None, tls: bool, username: str | None, password_file: str | None, no_broker: bool
) -> tuple[Broker | None, str | None]:
    """Return the broker that the options name, else that of the environment, and its password."""
    if host is None:
        if port is not None or tls or username is not None or password_file is not None:
            raise InvalidInput("the other --broker options need --broker-host; name the host")
        return (None, None) if no_broker else _broker_from_environment()
    if no_broker:
        raise InvalidInput("--no-broker and --broker-host exclude each other; give one of them")
    from jobdb.crypto.secret_input import read_from_file
    from jobdb.model import Broker

    password = read_from_file(password_file, label="broker password") if password_file is not None else None
    port = (8883 if tls else 1883) if port is None else port
    if not 1 <= port <= 65_535:
        raise InvalidInput(f"--broker-port is {port}; the range is 1 to 65535")
    return Broker(host, port, tls, username, password is not None), password


def _broker_from_environment() -> tuple[Broker | None, str | None]:
    """Return the broker of the MQTT_* variables and its password, as the old scripts recorded them."""
    import os

    if not os.environ.get("MQTT_BROKER"):
        return None, None
    from jobdb.mqtt import Environment

    return Environment.read().as_record()
