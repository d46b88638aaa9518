"""Where a broker is and how to get in: the job's record, completed by the environment variables of the old scripts.

The record says host, port, TLS, user name and password. The environment (``MQTT_BROKER, MQTT_PORT, MQTT_TLS,
MQTT_USERNAME, MQTT_PASSWORD, MQTT_CA_CERTS, MQTT_CERTFILE, MQTT_KEYFILE, MQTT_CLIENT_ID_PREFIX``) adds what a record
cannot hold. A password or a client key from the environment goes only to the broker that ``MQTT_BROKER`` names: a job's
record must not be able to send it elsewhere. There is no default broker.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

from ..errors import InvalidInput
from ..model import Broker

DEFAULT_PREFIX = "jobdb"
PORT, TLS_PORT = 1883, 8883
_FALSE_VALUES = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """One broker and one way in. Equal settings share a connection.

    Attributes:
        host: name or address.
        port: TCP port.
        tls: speak TLS; the certificate and the host's name are verified.
        username: for the broker's password file; None: none.
        password: in no repr.
        ca_certs: a PEM file of the authorities to trust; None: the system's.
        certfile: a PEM file with the client certificate; None: none.
        keyfile: its key, where it is not in ``certfile``.
        prefix: what client ids begin with.
    """

    host: str
    port: int = PORT
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    prefix: str = DEFAULT_PREFIX

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" + (" (TLS)" if self.tls else "")

    def client_id(self, role: str, *scope: str) -> str:
        """A client id that is the same each time for the same role and scope.

        The broker closes the older of two connections with one id, which is what keeps a relay that was taken over
        from sending on. Source: MQTT 5, sections 3.1.3.1 and 3.1.4.
        """
        scope_digest = hashlib.sha256("\0".join(scope).encode()).hexdigest()[:16]
        return f"{self.prefix}-{role}-{scope_digest}"


@dataclass(frozen=True, slots=True)
class Environment:
    """What the environment says about a broker. Read once, by :meth:`read`."""

    broker: BrokerSettings | None
    ca_certs: str | None
    prefix: str

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Environment:
        """Reads the variables.

        Args:
            environ: the environment; the process's own when None.

        Raises:
            InvalidInput: MQTT_PORT is no port, or MQTT_CLIENT_ID_PREFIX is no part of a client id.
        """
        environ = os.environ if environ is None else environ
        tls = environ.get("MQTT_TLS", "").strip().lower() not in _FALSE_VALUES
        prefix = environ.get("MQTT_CLIENT_ID_PREFIX", "").rstrip("-_") or DEFAULT_PREFIX
        if not re.fullmatch(r"[0-9A-Za-z._:-]{1,32}", prefix):
            raise InvalidInput("MQTT_CLIENT_ID_PREFIX may have up to 32 letters, digits and . _ : -; shorten it")
        ca_certs = environ.get("MQTT_CA_CERTS") or None
        host = environ.get("MQTT_BROKER", "").strip()
        broker = None
        if host:
            broker = BrokerSettings(
                host=host,
                port=_parse_port(environ.get("MQTT_PORT", ""), "MQTT_PORT", tls=tls),
                tls=tls,
                username=environ.get("MQTT_USERNAME") or None,
                password=environ.get("MQTT_PASSWORD") or None,
                ca_certs=ca_certs,
                certfile=environ.get("MQTT_CERTFILE") or None,
                keyfile=environ.get("MQTT_KEYFILE") or None,
                prefix=prefix,
            )
        return cls(broker, ca_certs, prefix)

    def settings(self, broker: Broker, password: str | None) -> BrokerSettings:
        """The settings for a broker of a job's record.

        Args:
            broker: the record's.
            password: the record's, in clear.
        """
        found = BrokerSettings(
            broker.host,
            broker.port,
            broker.tls,
            broker.username,
            password,
            ca_certs=self.ca_certs,
            prefix=self.prefix,
        )
        own_settings = self.broker
        if own_settings is None or own_settings.host.lower() != broker.host.lower() or own_settings.port != broker.port:
            return found
        if broker.username is None and password is None:
            found = replace(found, username=own_settings.username, password=own_settings.password)
        elif password is None and broker.username == own_settings.username:
            found = replace(found, password=own_settings.password)
        return replace(
            found, tls=broker.tls or own_settings.tls, certfile=own_settings.certfile, keyfile=own_settings.keyfile
        )

    def as_record(self) -> tuple[Broker | None, str | None]:
        """The broker of the environment as a job's record holds it, and the password."""
        own_settings = self.broker
        if own_settings is None:
            return None, None
        return Broker(
            own_settings.host,
            own_settings.port,
            own_settings.tls,
            own_settings.username,
            own_settings.password is not None,
        ), own_settings.password


def parse_broker_address(text: str) -> Broker:
    """A broker as a person writes it: ``host``, ``host:port``, ``mqtt://user@host:port`` or ``mqtts://…``.

    Raises:
        InvalidInput: it is none of these, or holds a password.
    """
    address = text if "://" in text else "mqtt://" + text
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = None, None
    if parts is None or parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/"):
        raise InvalidInput(
            f"{_redact_password(text)!r:.80} is no broker; write HOST, HOST:PORT or mqtts://USER@HOST:PORT"
        )
    if parts.password is not None:
        raise InvalidInput("the broker's address holds a password; give it as MQTT_PASSWORD together with MQTT_BROKER")
    tls = parts.scheme == "mqtts"
    user = unquote(parts.username) if parts.username else None
    return Broker(parts.hostname, port or (TLS_PORT if tls else PORT), tls, user)


def _redact_password(text: str) -> str:
    return re.sub(r":[^:@/]*@", ":…@", text)


def _parse_port(text: str, variable: str, *, tls: bool) -> int:
    text = text.strip()
    if not text:
        return TLS_PORT if tls else PORT
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= 65_535:
        raise InvalidInput(f"{variable} is {text!r:.20}; a port is 1 to 65535")
    return int(text)
