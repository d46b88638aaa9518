"""Broker discovery: chooses the broker to subscribe at, and the credentials, if the caller does not specify both.

Called by the command ``subscribe`` and by programs; reads the live jobs' brokers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..core import arguments
from ..engines.sql.rows import broker_from_json
from ..errors import InvalidInput
from .settings import BrokerSettings, Environment, parse_broker_address
from .statements import SUBSCRIBER

if TYPE_CHECKING:
    from ..model import Broker
    from ..registry import Registry


def subscriber_settings(
    registry: Registry, job_id: str | None = None, *, address: str | None = None, environment: Environment | None = None
) -> BrokerSettings:
    """Return the broker to subscribe at: the given one, the job's, the environment's, or the only one of all jobs.

    If the environment names that broker and a user, we subscribe as that user: a job's own user may only be allowed to
    publish on its job's topic.

    Args:
        registry: the registry with the jobs' brokers and their passwords.
        job_id: the job to follow; None: all.
        address: ``host``, ``host:port`` or ``mqtts://user@host:port``; None: find one.
        environment: read now when None.

    Raises:
        UnknownJob: there is no job with that id.
        InvalidInput: no broker is known, or several are.
    """
    environment = environment or Environment.read()
    if job_id is not None and address is None:
        broker, password = registry.engine.broker(arguments.job_id(job_id))
        if broker is not None:
            return _environment_login(broker, environment) or environment.settings(broker, password)
    known = _known_brokers(registry, environment)
    if address is not None:
        named = parse_broker_address(address)
        own_settings = _environment_login(named, environment)
        if own_settings is not None and named.username in (None, own_settings.username):
            return own_settings
        for settings in known:
            if (
                settings.is_at(named.host, named.port)
                and named.username in (None, settings.username)
                and (settings.tls or not named.tls)
            ):
                return settings
        return environment.settings(named, None)
    if environment.broker is not None:
        return environment.broker
    if len(known) == 1:
        return known[0]
    if not known:
        raise InvalidInput(
            "no broker is known",
            advice="pass its address, or set MQTT_BROKER",
            command="name one with --broker HOST[:PORT], or set MQTT_BROKER",
        )
    names = ", ".join(sorted({str(settings) for settings in known}))
    raise InvalidInput(
        f"the live jobs have several brokers ({names})",
        advice="pass the address of one",
        command="name one with --broker HOST:PORT",
    )


def _environment_login(broker: Broker, environment: Environment) -> BrokerSettings | None:
    """Return the environment's settings for a broker if it names that broker and a user or certificate for it."""
    own_settings = environment.broker
    if own_settings is None or not own_settings.is_at(broker.host, broker.port):
        return None
    if own_settings.username is None and own_settings.certfile is None:
        return None
    return replace(own_settings, tls=own_settings.tls or broker.tls)


def _known_brokers(registry: Registry, environment: Environment) -> list[BrokerSettings]:
    """Return the brokers of the live jobs; each combination of broker and credentials once."""
    store = registry.store
    with store.read() as tx:
        rows = tx.all(SUBSCRIBER.brokers_of_live_jobs)
    found: dict[BrokerSettings, None] = {}
    for text, job_id, has_password in rows:
        record = broker_from_json(text, bool(has_password))
        assert record is not None
        _broker, password = registry.engine.broker(job_id) if has_password else (None, None)
        found.setdefault(environment.settings(record, password))
    return list(found)
