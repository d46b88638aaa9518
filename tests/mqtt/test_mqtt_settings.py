"""Test where settings come from, and that secrets go to no other broker and are not shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobdb import Broker, InvalidInput, Registry
from jobdb.mqtt import BrokerSettings, Environment, subscriber_settings
from jobdb.mqtt.settings import parse_broker_address
from tests.support.mqtt.brokers import Mosquitto
from tests.support.mqtt.certificates import Authority
from tests.support.mqtt.harness import BrokerHarness, collect
from tests.support.requirements import find_program
from tests.support.waiting import TIMEOUT_SEC

FULL = {
    "MQTT_BROKER": "broker.example",
    "MQTT_PORT": "8884",
    "MQTT_TLS": "1",
    "MQTT_USERNAME": "relay",
    "MQTT_PASSWORD": "the environment's password",
    "MQTT_CA_CERTS": "/etc/ca.pem",
    "MQTT_CERTFILE": "/etc/client.pem",
    "MQTT_KEYFILE": "/etc/client.key",
    "MQTT_CLIENT_ID_PREFIX": "mam-",
}


def test_all_variables_of_the_old_scripts_are_read() -> None:
    found = Environment.read(FULL).broker
    assert found == BrokerSettings(
        "broker.example", 8884, True, "relay", "the environment's password",
        "/etc/ca.pem", "/etc/client.pem", "/etc/client.key", "mam",
    )  # fmt: skip
    assert found.client_id("relay", "x").startswith("mam-relay-")


def test_there_is_no_default_broker() -> None:
    assert Environment.read({}).broker is None
    assert Environment.read({}).as_record() == (None, None)


def test_a_record_is_completed_from_the_environment_if_it_names_the_same_broker() -> None:
    found = Environment.read(FULL).settings(Broker("Broker.Example", 8884), None)
    assert found.password == "the environment's password" and found.tls and found.certfile == "/etc/client.pem"


def test_a_records_own_credentials_take_precedence() -> None:
    found = Environment.read(FULL).settings(Broker("broker.example", 8884, True, "worker", True), "its own")
    assert (found.username, found.password) == ("worker", "its own")


@pytest.mark.parametrize("broker", [Broker("evil.example", 8884, True), Broker("broker.example", 1883)])
def test_secrets_of_the_environment_go_to_no_other_broker(broker: Broker) -> None:
    found = Environment.read(FULL).settings(broker, None)
    assert found.password is None and found.username is None and found.certfile is None and found.keyfile is None
    assert found.ca_certs == "/etc/ca.pem", "certificates of authorities are not secret"


def test_the_user_of_a_record_does_not_get_another_users_password() -> None:
    found = Environment.read(FULL).settings(Broker("broker.example", 8884, True, "somebody"), None)
    assert (found.username, found.password) == ("somebody", None)


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "٣"])
def test_an_invalid_port_is_refused(port: str) -> None:
    with pytest.raises(InvalidInput, match="MQTT_PORT"):
        Environment.read({"MQTT_BROKER": "b", "MQTT_PORT": port})


@pytest.mark.parametrize(
    ("text", "broker"),
    [
        ("b", Broker("b", 1883)),
        ("b:99", Broker("b", 99)),
        ("mqtt://b", Broker("b", 1883)),
        ("mqtts://u@b", Broker("b", 8883, True, "u")),
        ("[::1]:99", Broker("::1", 99)),
    ],
)
def test_broker_addresses(text: str, broker: Broker) -> None:
    assert parse_broker_address(text) == broker


@pytest.mark.parametrize("text", ["", "http://b", "b:x", "b:99999", "mqtt://b/topic", "mqtt://u:secret@b"])
def test_an_invalid_address_is_refused_without_repeating_a_password(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_broker_address(text)
    assert "secret" not in str(caught.value)


def test_no_password_is_shown() -> None:
    settings = Environment.read(FULL).broker
    assert "password" not in f"{settings!r} {settings}".replace("has_password", "")
    assert "the environment's" not in repr(Environment.read(FULL))


def test_the_broker_of_a_subscriber(tmp_path: Path) -> None:
    with Registry.open(tmp_path / "jobs.db", create=True) as registry:
        nothing, named = Environment.read({}), Environment.read({"MQTT_BROKER": "from.env"})
        with pytest.raises(InvalidInput, match="no broker is known"):
            subscriber_settings(registry, environment=nothing)
        one = registry.register(agent="a", prompt="p", broker=Broker("one", 1, False, "u"), broker_password="pw1")
        assert subscriber_settings(registry, one.job_id, environment=named).password == "pw1"
        assert subscriber_settings(registry, environment=nothing).host == "one"
        assert subscriber_settings(registry, environment=named).host == "from.env"
        assert subscriber_settings(registry, address="one:1", environment=nothing).password == "pw1"
        assert subscriber_settings(registry, address="one:2", environment=nothing).password is None
        registry.register(agent="a", prompt="p", broker=Broker("two", 2))
        with pytest.raises(InvalidInput, match=r"several brokers \(one:1, two:2\)"):
            subscriber_settings(registry, environment=nothing)


def test_the_subscriber_uses_the_environments_user_for_the_broker_that_it_names(tmp_path: Path) -> None:
    """The user of a job's worker may only write to the job's topic."""
    reader = {"MQTT_BROKER": "One", "MQTT_PORT": "1", "MQTT_USERNAME": "orchestrator", "MQTT_PASSWORD": "pw2"}
    with Registry.open(tmp_path / "jobs.db", create=True) as registry:
        record = Broker("one", 1, True, "worker")
        job = registry.register(agent="a", prompt="p", broker=record, broker_password="pw1")
        for found in (
            subscriber_settings(registry, job.job_id, environment=Environment.read(reader)),
            subscriber_settings(registry, address="mqtts://one:1", environment=Environment.read(reader)),
            subscriber_settings(registry, address="mqtts://orchestrator@one:1", environment=Environment.read(reader)),
        ):
            assert (found.username, found.password, found.tls) == ("orchestrator", "pw2", True)
        worker = subscriber_settings(registry, address="worker@one:1", environment=Environment.read(reader))
        assert (worker.username, worker.password) == ("worker", "pw1")
        nameless = Environment.read({"MQTT_BROKER": "one", "MQTT_PORT": "1"})
        assert subscriber_settings(registry, job.job_id, environment=nameless).username == "worker"
        elsewhere = Environment.read(reader | {"MQTT_PORT": "2"})
        assert subscriber_settings(registry, job.job_id, environment=elsewhere).username == "worker"


# -- TLS, against a real broker


@pytest.fixture
def tls_broker(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> tuple[Mosquitto, Authority]:
    """A broker with TLS, required client certificates, a password file and access rules."""
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("localhost")
    passwords = tmp_path / "passwords"
    program = Path(find_program("mosquitto") or "").with_name("mosquitto_passwd")
    program = program if program.exists() else Path("/usr/bin/mosquitto_passwd")
    passwords.touch(0o600)
    subprocess.run(
        [program, "-b", passwords, "relay", "broker pw"], check=True, capture_output=True, timeout=TIMEOUT_SEC
    )
    rules = tmp_path / "acl"
    rules.write_text("user relay\ntopic readwrite jobdb/jobs/#\n")
    server = mosquitto(
        anonymous=False,
        lines=f"password_file {passwords}\nacl_file {rules}",
        listener=f"cafile {authority.file}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true",
    )
    return server, authority


def _make_harness(tmp_path: Path, server: Mosquitto, **settings: object) -> BrokerHarness:
    return BrokerHarness(tmp_path / "db" / "jobs.db", server.port, tls=True, **settings)


def _client(authority: Authority) -> dict[str, str]:
    certificate, key = authority.issue("relay")
    return {"ca_certs": str(authority.file), "certfile": str(certificate), "keyfile": str(key)}


def test_the_whole_path_over_tls_with_client_certificate_and_password(
    tmp_path: Path, tls_broker: tuple[Mosquitto, Authority]
) -> None:
    server, authority = tls_broker
    with _make_harness(tmp_path, server, username="relay", password="broker pw", **_client(authority)) as harness:
        job = harness.job(broker_password="broker pw")
        with harness.relaying(), harness.follow() as follower:
            harness.run_job(job, events=4)
            assert [event.seq for event in collect(follower, 4)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ca_certs": None}, "TLS: "),
        ({"password": "wrong"}, "Not authorized"),
        ({"ca_certs": "/nowhere/ca.pem"}, "cannot read /nowhere/ca.pem"),
        ({"tls": False}, ""),
    ],
)
def test_nothing_is_sent_to_a_broker_that_is_unverified_or_refuses_the_login(
    tmp_path: Path, tls_broker: tuple[Mosquitto, Authority], change: dict[str, object], message: str
) -> None:
    from dataclasses import replace

    server, authority = tls_broker
    with _make_harness(tmp_path, server, username="relay", password="broker pw", **_client(authority)) as harness:
        harness.settings = replace(harness.settings, **change)  # type: ignore[arg-type]
        harness.environment = Environment(harness.settings, harness.settings.ca_certs, harness.settings.prefix)
        job = harness.job()
        harness.registry.publish(job.job_id, "started")
        done = harness.relay().run(until_empty=True, one_try=True, timeout_sec=TIMEOUT_SEC)
        assert done.delivered == 0 and harness.registry.engine.outbox_size()[0] == 1
        assert any("no connection to the broker" in line and message in line for line in harness.messages), (
            harness.messages
        )
        assert not any("broker pw" in line or "wrong" in line for line in harness.messages)


def test_a_server_certificate_of_another_authority_is_refused(
    tmp_path: Path, tls_broker: tuple[Mosquitto, Authority]
) -> None:
    server, authority = tls_broker
    other = Authority(tmp_path / "other", "somebody else")
    files = _client(authority) | {"ca_certs": str(other.file)}
    with _make_harness(tmp_path, server, username="relay", password="broker pw", **files) as harness:
        harness.registry.publish(harness.job().job_id, "started")
        assert harness.relay().run(until_empty=True, one_try=True, timeout_sec=TIMEOUT_SEC).delivered == 0
        assert any("TLS: " in line for line in harness.messages)


def test_a_server_certificate_for_another_name_is_refused(tmp_path: Path, mosquitto: Callable[..., Mosquitto]) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("elsewhere", address="192.0.2.1")
    server = mosquitto(listener=f"certfile {certificate}\nkeyfile {key}")
    with _make_harness(tmp_path, server, ca_certs=str(authority.file)) as harness:
        harness.registry.publish(harness.job().job_id, "started")
        assert harness.relay().run(until_empty=True, one_try=True, timeout_sec=TIMEOUT_SEC).delivered == 0
        assert any("TLS: IP address mismatch" in line for line in harness.messages), harness.messages


def test_without_paho_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['paho'] = None; sys.modules['paho.mqtt.client'] = None\n"
        "import jobdb.mqtt\n"
        "from jobdb.mqtt.paho_client import import_paho\n"
        "try: import_paho()\n"
        "except jobdb.InvalidInput as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_SEC)
    assert "pip install 'jobdb[mqtt]'" in done.stdout, done.stderr


def test_the_package_is_imported_without_paho() -> None:
    code = "import sys, jobdb.mqtt; print([name for name in sys.modules if name.startswith('paho')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_SEC)
    assert done.stdout.strip() == "[]", done.stderr
