"""The path of an attempt's log file, which two processes compute without asking each other.

Called by the claim verbs, which record the path, and by ``jobdb work``, which has the file written. Pure: builds text.
"""

from __future__ import annotations

import hashlib
import re

MAX_NAME_BYTES = 200
"""The longest name of a job's folder; file systems allow 255 bytes, and a little less when they encrypt names."""

_PLAIN = re.compile(r"[A-Za-z0-9_@-][A-Za-z0-9_.:@-]{0,199}").fullmatch
_UNSAFE = re.compile(rb"[^A-Za-z0-9_.:@-]|^\.")


def log_path(log_dir: str, job_id: str, attempt: int) -> str:
    """Return the path of an attempt's log file: ``<log_dir>/<folder of the job>/<attempt>.log``.

    Two different attempts never get the same path in one folder.

    Args:
        log_dir: the folder of all logs.
        job_id: the job; :func:`folder_name` makes its folder's name of it.
        attempt: the number of the attempt.
    """
    return f"{log_dir.rstrip('/')}/{folder_name(job_id)}/{attempt}.log"


def folder_name(job_id: str) -> str:
    """Return a file name for any text, different texts having different names.

    A job id that the protocol allows is its own name. In other text, each byte of its UTF-8 form that is not a letter,
    a digit or one of ``_ . : @ -`` is percent-encoded, as is a leading dot. What would be longer than
    :data:`MAX_NAME_BYTES` is cut and ends in ``%-`` and the text's SHA-256: no encoded byte looks like that.
    """
    if _PLAIN(job_id):
        return job_id
    raw = job_id.encode("utf-8", "surrogatepass")
    name = _UNSAFE.sub(lambda byte: b"%%%02X" % ord(byte[0]), raw).decode("ascii")
    if not name:
        return "%"
    if len(name) <= MAX_NAME_BYTES:
        return name
    ending = "%-" + hashlib.sha256(raw).hexdigest()
    return name[: MAX_NAME_BYTES - len(ending)] + ending
