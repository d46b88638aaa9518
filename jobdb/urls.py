"""Where a registry is: the database URL, read once, for the registry and the command line."""

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
    """A parsed URL: the engine's name, and the file (sqlite) or the connection string (postgresql)."""

    engine: str
    path: Path | None
    text: str

    def __str__(self) -> str:
        """The URL without its password."""
        scheme, _, rest = re.sub(_SECRET_PARAMETER, r"\1…", self.text).partition("://")
        credentials, at, place = rest.rpartition("@")
        if at and ":" in credentials:
            credentials = credentials.partition(":")[0] + ":…"
        return f"{scheme}://{credentials}{at}{place}"

    def __repr__(self) -> str:
        return str(self)


def parse_url(text: str | os.PathLike[str]) -> DatabaseUrl:
    """Reads ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://…`` or a plain file name.

    Raises:
        InvalidInput: another scheme, or no file name.
    """
    try:
        text = os.fspath(text)
    except TypeError:
        raise InvalidInput(f"a database's URL must be text or a path, not {type(text).__name__}") from None
    if not isinstance(text, str):
        raise InvalidInput("a database's URL must be text, not bytes; os.fsdecode makes text of a path in bytes")
    scheme, separator, rest = text.partition("://")
    if not separator and (mistyped := re.match(_SCHEME, text)):
        # Not repeated: the rest may hold a password.
        raise InvalidInput(f"after {mistyped[1]}: a URL goes on with two slashes: {mistyped[1]}://…")
    if not separator:
        scheme, rest = "sqlite", "/" + text
        text = f"sqlite:///{text}"
    if scheme in ("postgresql", "postgres"):
        return DatabaseUrl("postgresql", None, text)
    if scheme != "sqlite":
        raise InvalidInput(
            f"no engine for a URL that begins with {scheme[:20]!r}; use sqlite:///FILE or postgresql://HOST/NAME"
        )
    name = rest[1:] if rest.startswith("/") else ""
    if name == ":memory:":
        raise InvalidInput("a registry in memory would be gone with its process; name a file")
    if not name or "\0" in name:
        raise InvalidInput(f"{text!r} names no file; write sqlite:///relative/jobs.db or sqlite:////absolute/jobs.db")
    _require_utf8(name)
    return DatabaseUrl("sqlite", Path(name), text)


def _require_utf8(name: str) -> None:
    """Refuse a file that SQLite cannot open, because its name or the current folder's is no UTF-8."""
    with suppress(FileNotFoundError):  # the current folder was removed, which is said when the file is opened
        try:
            os.path.abspath(name).encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidInput(
                f"{os.path.abspath(name)!r} is not valid UTF-8, which SQLite needs; rename it, or name another file"
            ) from None


def require_current_folder(place: DatabaseUrl) -> None:
    """Refuse a file's name that begins in the current folder where that was removed.

    Raises:
        StorageFailed: it was.
    """
    if place.path is not None and not place.path.is_absolute() and (gone := missing_folder_reason()):
        raise StorageFailed(gone)


def missing_folder_reason() -> str | None:
    """What to say where the current folder was removed, so that no name in it can be found; None where it is there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current folder was removed; go to another one with cd, or give whole paths (sqlite:////FOLDER/FILE)"
    except OSError:
        pass  # only its name is not to be had
    return None


def default_url(environ: Mapping[str, str] = os.environ) -> str:
    """``$JOBDB_URL``, else ``sqlite:///.jobdb/jobs.db`` in the present folder."""
    return environ.get("JOBDB_URL") or DEFAULT_URL
