"""The name under which a person answers questions: USER@HOST.

Called by the ``answer`` and ``watch`` commands; imports nothing of the package.
"""

from __future__ import annotations

import os
import pwd
import socket


def user_at_host() -> str:
    """Return this process's user, by name if it has one, and this host."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:256]
