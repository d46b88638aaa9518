"""Test the advice in errors: the library names methods, the command line names commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from jobdb import Registry
from jobdb.errors import IllegalTransition, InvalidInput, JobdbError, MovedOrCopied, StaleAttempt, UnknownJob


def _get_unknown(registry: Registry) -> None:
    registry.get("nosuchjob")


def _publish_with_stale_attempt(registry: Registry) -> None:
    registry.publish("claimed", "progress", attempt=7)


def _publish_after_the_end(registry: Registry) -> None:
    registry.publish("ended", "progress")


@pytest.mark.parametrize(
    ("error_class", "call", "arguments"),
    [
        (UnknownJob, _get_unknown, ("show", "nosuchjob")),
        (StaleAttempt, _publish_with_stale_attempt, ("publish", "claimed", "progress", "--attempt", "7")),
        (IllegalTransition, _publish_after_the_end, ("publish", "ended", "progress")),
    ],
)
def test_the_library_names_methods_and_the_command_names_commands(
    cli: Any, error_class: type[JobdbError], call: Callable[[Registry], None], arguments: tuple[str, ...]
) -> None:
    for job in ("claimed", "ended"):
        cli.register("--job-id", job)
        cli("claim", "--job", job)
    cli("complete", "ended", "--attempt", "1")
    with cli.open_registry() as registry, pytest.raises(error_class) as raised:
        call(registry)
    library_message = str(raised.value)
    printed = cli(*arguments, code=error_class.exit_code).err
    assert "jobdb " not in library_message, "the library advises in its own words"
    assert "Registry." in library_message or "registry." in library_message
    assert "jobdb " in printed.removeprefix("jobdb: "), "the command line advises in its own words"
    assert "registry." not in printed.lower()


def test_the_main_function_prints_the_command_lines_advice(cli: Any) -> None:
    program = (
        "import jobdb.registry, sys; from jobdb.errors import InvalidInput; sys.argv = ['jobdb', 'list']\n"
        "def refuse(*a, **k): raise InvalidInput('m', advice='call method()', command=\"run 'jobdb this'\")\n"
        "jobdb.registry.Registry.open = refuse\n"
        "from jobdb.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], env=cli.env, capture_output=True, text=True, timeout=120)
    assert done.returncode == InvalidInput.exit_code
    assert done.stderr == "jobdb: m; run 'jobdb this'\n"


def test_a_refused_delivery_prints_the_command_lines_advice(
    cli: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobdb.cli.delivery import deliver_job

    import jobdb.mqtt

    def refuse(*_arguments: object, **_options: object) -> None:
        raise MovedOrCopied("it was copied", advice="call method()", command="run 'jobdb identity'")

    monkeypatch.setattr(jobdb.mqtt, "RegistryOutbox", refuse)
    with cli.open_registry() as registry:
        deliver_job(registry, "some-job")
    printed = capsys.readouterr().err
    assert "it was copied; run 'jobdb identity'" in printed and "method()" not in printed
