"""Database URLs: parsed here for the registry and the command line, and shown without the password.

Called by the registry, the engines, the operations and the command line; imports only ``errors`` and opens no database.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import InvalidInput, StorageFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL = "sqlite:///.jobdb/jobs.db"
_SCHEME = r"(?i)(postgres(?:ql)?|sqlite):"
_SECRET_PARAMETER = r"(?i)([?&](?:ssl)?password=)[^&]*"


class DatabaseUrl(NamedTuple):
    """A parsed URL.

    Attributes:
        engine: "sqlite" or "postgresql".
        path: the file, for SQLite.
        text: the URL as given, with its password; for PostgreSQL, the connection string.
    """

    engine: str
    path: Path | None
    text: str

    def __str__(self) -> str:
        """Return the URL without its password."""
        scheme, _, rest = re.sub(_SECRET_PARAMETER, r"\1…", self.text).partition("://")
        credentials, at, place = rest.rpartition("@")
        if at and ":" in credentials:
            credentials = credentials.partition(":")[0] + ":…"
        return f"{scheme}://{credentials}{at}{place}"

    def __repr__(self) -> str:
        return str(self)


def parse_url(text: str | os.PathLike[str]) -> DatabaseUrl:
    """Parse ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://…`` or a plain file name.

    Raises:
        InvalidInput: the scheme is unknown, or the URL names no file.

    Example:
        >>> parse_url("jobs.db")
        sqlite:///jobs.db
        >>> parse_url("postgresql://me:secret@host/jobs")
        postgresql://me:…@host/jobs
    """
    try:
        text = os.fspath(text)
    except TypeError:
        raise InvalidInput(f"the URL of a database must be text or a path, not {type(text).__name__}") from None
    if not isinstance(text, str):
        raise InvalidInput("the URL of a database must be text, not bytes", advice="use os.fsdecode to convert a path")
    scheme, separator, rest = text.partition("://")
    if not separator and (mistyped := re.match(_SCHEME, text)):
        # The rest is not shown: it may contain a password.
        raise InvalidInput(f"invalid URL: two slashes must follow {mistyped[1]}:", advice=f"write {mistyped[1]}://…")
    if not separator:
        scheme, rest = "sqlite", "/" + text
        text = f"sqlite:///{text}"
    if scheme in ("postgresql", "postgres"):
        return DatabaseUrl("postgresql", None, text)
    if scheme != "sqlite":
        raise InvalidInput(
            f"unknown URL scheme: {scheme[:20]!r}", advice="use sqlite:///FILE or postgresql://HOST/NAME"
        )
    name = rest[1:] if rest.startswith("/") else ""
    if name == ":memory:":
        raise InvalidInput("an in-memory database would be lost with its process", advice="name a file")
    if not name or "\0" in name:
        raise InvalidInput(
            f"{text!r} names no file", advice="write sqlite:///relative/jobs.db or sqlite:////absolute/jobs.db"
        )
    _require_utf8(name)
    return DatabaseUrl("sqlite", Path(name), text)


def _require_utf8(name: str) -> None:
    """Refuse a file that SQLite cannot open because its name or the current folder's name is not valid UTF-8."""
    with suppress(FileNotFoundError):  # the current folder was removed: opening the file reports that
        try:
            os.path.abspath(name).encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidInput(
                f"{os.path.abspath(name)!r} is not valid UTF-8, which SQLite requires",
                advice="rename it, or name another file",
            ) from None


def require_current_folder(place: DatabaseUrl) -> None:
    """Refuse a relative file name if the current folder was removed.

    Raises:
        StorageFailed: the current folder was removed.
    """
    if place.path is not None and not place.path.is_absolute() and (gone := missing_folder_reason()):
        raise StorageFailed(gone)


def missing_folder_reason() -> str | None:
    """Return a message if the current folder was removed, so that relative names cannot be resolved; else None."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current folder was removed; change to another one, or give absolute paths (sqlite:////FOLDER/FILE)"
    except OSError:
        pass  # it exists; only its name cannot be read
    return None


def default_url(environ: Mapping[str, str] = os.environ) -> str:
    """Return ``$JOBDB_URL`` or, if that is not set, ``sqlite:///.jobdb/jobs.db`` in the current folder."""
    return environ.get("JOBDB_URL") or DEFAULT_URL
