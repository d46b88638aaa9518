"""Test the configuration in docs/how-to/deploy-mqtt.md as written: the broker accepts it, and its rules hold."""

from __future__ import annotations

import configparser
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobdb.mqtt import BrokerSettings
from tests.support.mqtt.brokers import Mosquitto
from tests.support.mqtt.certificates import Authority
from tests.support.mqtt.harness import BrokerHarness, collect
from tests.support.paths import DOCS
from tests.support.requirements import find_program, require_mosquitto
from tests.support.waiting import TIMEOUT_SEC

PAGE = DOCS / "how-to" / "deploy-mqtt.md"
USERS = ("relay", "orchestrator", "ours", "theirs")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


class _AsDocumented(Mosquitto):
    """The page's configuration with its paths replaced by the test's."""

    def command(self) -> list[str]:
        program = super().command()
        [text] = _blocks("conf")
        places = {
            "/etc/mosquitto/certs/": f"{self.folder}/",
            "/etc/mosquitto/": f"{self.folder}/",
            "/var/lib/mosquitto/": f"{self.folder}/",
            "listener 8883": f"listener {self.port} 127.0.0.1",
        }
        for documented, ours in places.items():
            assert documented in text
            text = text.replace(documented, ours)
        written = (self.folder / "mosquitto.conf").read_text().splitlines()
        user = written[0] if written[0].startswith("user ") else ""
        (self.folder / "mosquitto.conf").write_text(f"{user}\n{text}")
        return program


@pytest.fixture
def documented(tmp_path: Path) -> Iterator[Callable[[str], BrokerSettings]]:
    """Start the broker as documented; return a function that returns a user's settings."""
    require_mosquitto()
    folder = tmp_path / "documented"
    authority = Authority(folder)
    authority.issue("broker")
    [rules] = _blocks("acl")
    (folder / "jobdb.acl").write_text(rules)
    program = Path(find_program("mosquitto") or "").with_name("mosquitto_passwd")
    program = program if program.exists() else Path("/usr/bin/mosquitto_passwd")
    (folder / "jobdb.passwords").touch(0o600)
    for name in USERS:
        subprocess.run(
            [program, "-b", folder / "jobdb.passwords", name, f"{name} pw"],
            check=True,
            capture_output=True,
            timeout=TIMEOUT_SEC,
        )
    server = _AsDocumented(folder)
    server.start()
    yield lambda user: BrokerSettings(
        "127.0.0.1", server.port, tls=True, username=user, password=f"{user} pw", ca_certs=str(authority.file)
    )
    server.stop()


def _make_harness(tmp_path: Path, settings: BrokerSettings) -> BrokerHarness:
    harness = BrokerHarness(tmp_path / "db" / "jobs.db", settings.port)
    harness.settings = settings
    harness.environment = type(harness.environment)(None, settings.ca_certs, settings.prefix)
    return harness


def test_the_whole_path_with_the_documented_users(tmp_path: Path, documented: Callable[[str], BrokerSettings]) -> None:
    with _make_harness(tmp_path, documented("relay")) as harness:
        job = harness.job(broker_password="relay pw")
        with harness.relaying():
            harness.settings = documented("orchestrator")
            with harness.follow() as follower:
                harness.run_job(job, events=3)
                assert [event.seq for event in collect(follower, 3)] == [1, 2, 3]


@pytest.mark.parametrize(("user", "job_id", "may"), [("ours", "ours", True), ("theirs", "ours", False)])
def test_a_worker_can_write_its_own_jobs_topic_only(
    tmp_path: Path, documented: Callable[[str], BrokerSettings], user: str, job_id: str, may: bool
) -> None:
    with _make_harness(tmp_path, documented(user)) as harness:
        job = harness.job(job_id=job_id, broker_password=f"{user} pw")
        harness.registry.publish(job.job_id, "started")
        done = harness.relay().run(until_empty=True, one_try=True, timeout_sec=TIMEOUT_SEC)
        assert done.delivered == int(may), harness.messages
        assert any("Not authorized" in line for line in harness.messages) is not may


def test_a_worker_cannot_read_the_events_of_others(tmp_path: Path, documented: Callable[[str], BrokerSettings]) -> None:
    with _make_harness(tmp_path, documented("relay")) as harness:
        job = harness.job(broker_password="relay pw")
        overheard: list[object] = []
        harness.settings = documented("ours")
        with harness.follow(subscriber="nosy", on_accepted=overheard.append), harness.relaying():
            harness.settings = documented("orchestrator")
            with harness.follow() as follower:
                harness.run_job(job, events=3)
                assert len(collect(follower, 3)) == 3
        assert overheard == []


def test_the_systemd_units_run_commands_that_exist() -> None:
    from jobdb.cli.app import root_command

    units = _blocks("ini")
    assert len(units) == 2
    for unit in units:
        parser = configparser.ConfigParser(strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(unit)
        program, name, *words = parser["Service"]["ExecStart"].split()
        assert Path(program).name == "jobdb"
        known = {option for parameter in root_command().commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
