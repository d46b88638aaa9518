"""The environment of child processes (a handler per event, a reader, a browser), without secrets.

Called by everything that starts a process: the command line, the query process, the probe and the import; only reads
the environment. A variable that holds a secret is removed. One that names a file or folder (``JOBDB_KEY_FILE``,
``PGPASSFILE``, ``CREDENTIALS_DIRECTORY``) stays: the file has its own owner and mode, and a handler that calls
``jobdb`` finds its key there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

SECRET_VARIABLES = ("JOBDB_KEY", "MQTT_PASSWORD", "PGPASSWORD")
"""The variables whose value is a secret. ``JOBDB_URL`` is passed on without the password that it may contain."""

_PASSWORD_PARAMETER = re.compile(r"(?i)(?<=[?&])(?:ssl)?password=[^&]*&?")


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for another program, without the secrets that give access to the registry.

    Args:
        environ: the environment to copy, such as ``os.environ``.
    """
    kept = {name: value for name, value in environ.items() if name not in SECRET_VARIABLES}
    if "JOBDB_URL" in kept:
        kept["JOBDB_URL"] = _strip_password(kept["JOBDB_URL"])
    return kept


def absolute_path_entries(path: str) -> str:
    """Return a ``PATH`` without relative entries: others may have put a program into the current folder."""
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if os.path.isabs(entry))


def _strip_password(url: str) -> str:
    """Return a database URL without the password that it may contain."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "sqlite":
        return url
    address, question, parameters = rest.partition("?")
    authority, slash, name = address.partition("/")
    user, at, host = authority.rpartition("@")
    if not at and ":" in authority and "@" in name:
        # A password that contains a slash, which libpq does not recognize.
        user, at, host = address.rpartition("@")
        slash = name = ""
    place = f"{user.partition(':')[0]}{at}{host}{slash}{name}"
    return _PASSWORD_PARAMETER.sub("", f"{scheme}://{place}{question}{parameters}").rstrip("?&")
