"""Broker settings: the job's record, completed by the environment variables of the old scripts.

The record has host, port, TLS, user name and password. The environment (``MQTT_BROKER, MQTT_PORT, MQTT_TLS,
MQTT_USERNAME, MQTT_PASSWORD, MQTT_CA_CERTS, MQTT_CERTFILE, MQTT_KEYFILE, MQTT_CLIENT_ID_PREFIX``) adds settings that a
record cannot hold. A password or client key from the environment is used only for the broker that ``MQTT_BROKER``
names: a job's record must not be able to send it elsewhere. There is no default broker. Used by every module of this
package and by the command line.
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
    """A broker and the credentials for it. Equal settings share a connection.

    Attributes:
        host: name or address.
        port: TCP port.
        tls: True to use TLS; the certificate and the host name are verified.
        username: the user name; None: none.
        password: the password, never shown in the repr; None: none.
        ca_certs: a PEM file of the certificate authorities to trust; None: the system's.
        certfile: a PEM file with the client certificate; None: none.
        keyfile: the client certificate's key, if it is not in ``certfile``.
        prefix: the beginning of client ids.
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

    def is_at(self, host: str, port: int) -> bool:
        """Return whether the broker has this host and port."""
        return (self.host.lower(), self.port) == (host.lower(), port)

    def client_id(self, role: str, *scope: str) -> str:
        """Return a client id that is always the same for the same role and scope.

        The broker closes the older of two connections with the same id, which stops a relay that was taken over.
        Source: MQTT 5, sections 3.1.3.1 and 3.1.4.
        """
        scope_digest = hashlib.sha256("\0".join(scope).encode()).hexdigest()[:16]
        return f"{self.prefix}-{role}-{scope_digest}"


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment's broker settings, read once by :meth:`read`.

    Attributes:
        broker: the broker that ``MQTT_BROKER`` names; None: none.
        ca_certs: a PEM file of the certificate authorities to trust at every broker; None: the system's.
        prefix: the beginning of client ids.
    """

    broker: BrokerSettings | None
    ca_certs: str | None
    prefix: str

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Environment:
        """Read the variables.

        Args:
            environ: the environment; the process's own if None.

        Raises:
            InvalidInput: MQTT_PORT is not a port, or MQTT_CLIENT_ID_PREFIX cannot be part of a client id.
        """
        environ = os.environ if environ is None else environ
        tls = environ.get("MQTT_TLS", "").strip().lower() not in _FALSE_VALUES
        prefix = environ.get("MQTT_CLIENT_ID_PREFIX", "").rstrip("-_") or DEFAULT_PREFIX
        if not re.fullmatch(r"[0-9A-Za-z._:-]{1,32}", prefix):
            raise InvalidInput(
                "MQTT_CLIENT_ID_PREFIX is not 1 to 32 letters, digits, '.', '_', ':' or '-'",
                advice="shorten or change it",
            )
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
        """Return the settings for the broker of a job's record.

        Args:
            broker: the record's broker.
            password: the record's password, in clear text.
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
        if own_settings is None or not own_settings.is_at(broker.host, broker.port):
            return found
        if broker.username is None and password is None:
            found = replace(found, username=own_settings.username, password=own_settings.password)
        elif password is None and broker.username == own_settings.username:
            found = replace(found, password=own_settings.password)
        return replace(
            found, tls=broker.tls or own_settings.tls, certfile=own_settings.certfile, keyfile=own_settings.keyfile
        )

    def as_record(self) -> tuple[Broker | None, str | None]:
        """Return the environment's broker in the form of a job's record, and the password; None if not set."""
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
    """Parse a broker's address: ``host``, ``host:port``, ``mqtt://user@host:port`` or ``mqtts://…``.

    Raises:
        InvalidInput: it is not of such a form, or it contains a password.
    """
    address = text if "://" in text else "mqtt://" + text
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = None, None
    if parts is None or parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/"):
        raise InvalidInput(
            f"{_redact_password(text)!r:.80} is not a broker's address",
            advice="write HOST, HOST:PORT or mqtts://USER@HOST:PORT",
        )
    if parts.password is not None:
        raise InvalidInput(
            "the broker's address contains a password", advice="set MQTT_PASSWORD together with MQTT_BROKER instead"
        )
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
        raise InvalidInput(f"{variable} is {text!r:.20}, which is not a port", advice="a port is 1 to 65535")
    return int(text)
