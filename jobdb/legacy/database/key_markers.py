"""The markers among the names in ``imports.absent``, which distinguish an imported key from one that was created here.

Called by the normalization, which writes them, and by `JobRow` and the plan, which read them. Pure: imports nothing
from jobdb. ``imports.absent`` is a space-separated list of the names of fields that a record did not
have; names with ``=`` are markers.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

EMPTY_TOKEN_MARKER = "auth_token=empty"
"""The marker of an ``auth_token`` that is an empty string: no secret, but not null either."""

_KID = "kid="
"""The marker of a current token with a version later than 1, followed by the version."""

_NO_TOKEN = "closed="
"""The marker of a job that came without a token, followed by the reason. It accepts no event until it is given one. Its
key is a random secret that nobody knows, and revoked."""


class NoTokenReason(StrEnum):
    """The reason why nobody has the key of an imported job. The values are stored."""

    OMITTED = "left_out"
    """The token was left out of the export."""

    REVOKED = "revoked"
    """It was revoked."""

    REQUIRED = "secured"
    """The job never had one, and this environment requires one."""


def add_key_markers(absent: str, kid: int, no_token_reason: NoTokenReason | None) -> str:
    """Return the absent names with the markers of a key, replacing any previous markers.

    Args:
        absent: the names, with or without markers.
        kid: the version of the key.
        no_token_reason: why nobody has it; None if somebody has.
    """
    names = [name for name in absent.split(" ") if name and not name.startswith((_KID, _NO_TOKEN))]
    if kid > 1:
        names.append(f"{_KID}{kid}")
    if no_token_reason:
        names.append(_NO_TOKEN + no_token_reason.value)
    return " ".join(names)


def imported_kid(absent: str | None) -> int:
    """Return the version of the token that the record had."""
    return next((int(name[len(_KID) :]) for name in _markers(absent) if name.startswith(_KID)), 1)


def imported_no_token_reason(absent: str | None) -> NoTokenReason | None:
    """Return why nobody had the key when the job was imported; None if somebody had."""
    found = (name[len(_NO_TOKEN) :] for name in _markers(absent) if name.startswith(_NO_TOKEN))
    return next(map(NoTokenReason, found), None)


def _markers(absent: str | None) -> Iterable[str]:
    return absent.split(" ") if absent and "=" in absent else ()
