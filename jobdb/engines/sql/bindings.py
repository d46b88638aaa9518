"""The rows that sealed secrets are bound to: a secret opens in its own row and in no other."""

from __future__ import annotations


def token_binding(job_id: str, kid: int) -> str:
    """Return what a sealed token is bound to: its job and version."""
    return f"token {kid} of {job_id}"


def password_binding(job_id: str) -> str:
    """Return what a sealed broker password is bound to: its job."""
    return f"broker password of {job_id}"
