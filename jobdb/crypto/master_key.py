"""The master key: 32 bytes that seal all secrets of a database, and the sources in which it is looked up.

Called by the vault, the doctor and the ``token`` commands; calls the file system and, if enabled, ``keyring``. The
first source that exists is used; the order is defined only here, and a ``MasterKey`` names its source:

    JOBDB_KEY                          the key itself, 64 hex digits or base64
    JOBDB_KEY_FILE                     a file that holds it, as text or as 32 raw bytes
    $CREDENTIALS_DIRECTORY/jobdb.key   a systemd credential
    the system keyring                 only with JOBDB_KEYRING=1
    ~/.config/jobdb/master.key         created for the first secret; not beside the database, which may be copied
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from ..errors import KeyProblem, StorageFailed
from ..filesystem.mode_report import file_warning, folder_warning
from ..filesystem.permissions import make_private_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_BYTES = 32

_FINGERPRINT_PREFIX = b"jobdb master key fingerprint v1\x00"
_MAX_FILE_BYTES = 4096
_KEY_FORMATS = "64 hex digits or the base64 of 32 bytes, such as 'openssl rand -hex 32' prints"


class MasterKey:
    """A master key and its source.

    Attributes:
        secret: the 32 bytes; not in the repr, and not compared.
        source: where it was found, in words.
        key_id: 16 hex digits that identify the key and reveal nothing about it: safe to store and to print.
        private_file: the file that holds it, if its mode must keep others out; None for a key from the environment or
            the keyring, and for a systemd credential, to which systemd grants access.
        private_folder: the folder that jobdb has created for that file; None if the file is elsewhere.
    """

    __slots__ = ("key_id", "private_file", "private_folder", "secret", "source")

    def __init__(
        self, secret: bytes, source: str, *, private_file: str | None = None, private_folder: str | None = None
    ) -> None:
        if len(secret) != KEY_BYTES:
            raise KeyProblem(f"the master key from {source} has {len(secret)} bytes; it must have 32")
        self.secret = secret
        self.source = source
        self.private_file = private_file
        self.private_folder = private_folder
        self.key_id = hashlib.sha256(_FINGERPRINT_PREFIX + secret).hexdigest()[:16]

    def privacy_warnings(self) -> list[str]:
        """Return a warning each for the key's file and folder if others may access it, with the chmod that fixes it."""
        sentences = [
            None if self.private_file is None else file_warning(self.private_file),
            None if self.private_folder is None else folder_warning(self.private_folder),
        ]
        return [sentence for sentence in sentences if sentence]

    def __repr__(self) -> str:
        return f"MasterKey(source={self.source!r}, key_id={self.key_id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MasterKey) and (self.source, self.key_id) == (other.source, other.key_id)

    def __hash__(self) -> int:
        return hash((self.source, self.key_id))


def generate_key() -> str:
    """Generate a master key from the system's random source, as base64url text without padding."""
    import secrets  # imported here: most processes find their key and do not create one

    return secrets.token_urlsafe(KEY_BYTES)


def parse_key(text: str) -> bytes:
    """Parse a key written as 64 hex digits or as base64 (either alphabet, padded or not) to its 32 bytes.

    Raises:
        KeyProblem: it is neither; the message does not repeat it.
    """
    key = _decode(text.strip())
    if key is None:
        raise KeyProblem(f"invalid master key: {len(text.strip())} characters; it must be {_KEY_FORMATS}")
    return key


def _decode(text: str) -> bytes | None:
    # The decoders' own errors carry the text: none of them may leave this function, not even as a context.
    try:
        if len(text) == 2 * KEY_BYTES:
            return bytes.fromhex(text) if text.isalnum() else None
        if len(text.rstrip("=")) == 43 and len(text) <= 44:
            standard = text.rstrip("=").replace("-", "+").replace("_", "/")
            return binascii.a2b_base64(standard + "=", strict_mode=True)
    except (ValueError, binascii.Error):
        pass
    return None


def find_master_key(*, create: bool, env: Mapping[str, str] | None = None) -> MasterKey:
    """Find the master key, in the order at the top of this file.

    A source that is named but does not work is an error and never skipped: otherwise secrets would be sealed under a
    key that the operator does not know of, and lost with it.

    Args:
        create: create the file in the user's configuration folder if there is no key anywhere. Processes that do so at
            the same time agree on one key, and it is on disk when this returns.
        env: the environment to read; None for the process's own.

    Raises:
        KeyProblem: there is no key, or the one that is named cannot be used.

    Example:
        key = find_master_key(create=False)
        print(key.key_id, "from", key.source)
    """
    env = os.environ if env is None else env
    if "JOBDB_KEY" in env:
        source = "the environment variable JOBDB_KEY"
        return MasterKey(_parse_content(env["JOBDB_KEY"].encode("utf-8", "replace"), source), source)
    if "JOBDB_KEY_FILE" in env:
        return _from_named_file(env)
    credentials = env.get("CREDENTIALS_DIRECTORY")
    if credentials:
        path = os.path.join(credentials, "jobdb.key")
        if os.path.exists(path):
            # Its mode does not matter: systemd grants access by an ACL, whose mask shows as the group's rights.
            source = f"the systemd credential {path}"
            return MasterKey(_read(path, source), source)
    if env.get("JOBDB_KEYRING") == "1":
        return _from_keyring()
    return _from_user_folder(env, create=create)


def default_key_path(env: Mapping[str, str] | None = None) -> str:
    """Return the path of the user's own key file: ``${XDG_CONFIG_HOME:-~/.config}/jobdb/master.key``.

    A relative XDG_CONFIG_HOME is ignored, as the XDG Base Directory Specification requires.

    Raises:
        KeyProblem: this user has no home folder.
    """
    env = os.environ if env is None else env
    base = env.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        home = env.get("HOME") or os.path.expanduser("~")
        if not os.path.isabs(home):
            raise KeyProblem(
                "there is no place for a master key: this user has no home folder; "
                "set JOBDB_KEY_FILE to a file that holds the key"
            )
        base = os.path.join(home, ".config")
    return os.path.join(base, "jobdb", "master.key")


def read_key_file(path: str | os.PathLike[str]) -> MasterKey:
    """Read the master key from a file, as text or as 32 raw bytes; warn if others may access the file.

    Raises:
        KeyProblem: the file cannot be read or holds no key.
    """
    path = os.fspath(path)
    source = f"the file {path}"
    key = MasterKey(_read(path, source), source, private_file=path)
    _warn_if_not_private(key)
    return key


def create_key_file(path: str | os.PathLike[str]) -> None:
    """Create a file of mode 0600 with a new master key, and its folder; leave an existing file unchanged.

    The file is written under a temporary name and then linked to its final one, so that of several processes the first
    one wins, and nobody ever reads half a key. Both the key and its name are on disk when this returns.

    Raises:
        KeyProblem: the file cannot be created.
    """
    path = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(path))
    temporary = f"{path}.{os.urandom(8).hex()}.new"
    try:
        make_private_folder(folder)
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(generate_key().encode("ascii") + b"\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
            from ..filesystem.folder_sync import sync_folder

            sync_folder(folder)
        finally:
            os.unlink(temporary)
    except StorageFailed as problem:
        raise KeyProblem(f"cannot create a master key: {problem}") from problem
    except OSError as problem:
        raise KeyProblem(
            f"cannot create the master key {path}, in a folder that must be writable and allow hard links: "
            f"{problem.strerror}; create one elsewhere with '(umask 077; openssl rand -hex 32 > FILE)' "
            "and set JOBDB_KEY_FILE to FILE"
        ) from problem


def _from_named_file(env: Mapping[str, str]) -> MasterKey:
    path = env["JOBDB_KEY_FILE"]
    if not path:
        raise KeyProblem("JOBDB_KEY_FILE is set but empty; name the file that holds the master key, or unset it")
    source = f"the file {path} (JOBDB_KEY_FILE)"
    secret = _read(path, source)
    credentials = env.get("CREDENTIALS_DIRECTORY")
    is_credential = bool(credentials) and os.path.dirname(os.path.abspath(path)) == os.path.abspath(credentials or "")
    key = MasterKey(secret, source, private_file=None if is_credential else path)
    _warn_if_not_private(key)
    return key


def _from_keyring() -> MasterKey:
    source = "the system keyring (service jobdb, user master-key)"
    try:
        import keyring
    except ImportError:
        raise KeyProblem(
            "JOBDB_KEYRING=1 selects the system keyring, but the package 'keyring' is not installed; "
            "pip install 'jobdb[keyring]', or unset JOBDB_KEYRING"
        ) from None
    try:
        text = keyring.get_password("jobdb", "master-key")
    except Exception as problem:  # each backend has errors of its own, without a common base
        raise KeyProblem(
            f"{source} does not answer ({type(problem).__name__}); unlock it, or use JOBDB_KEY_FILE instead"
        ) from problem
    if text is None:
        raise KeyProblem(
            f"{source} holds no master key; put one there with: openssl rand -hex 32 | keyring set jobdb master-key"
        )
    return MasterKey(_parse_content(text.encode("utf-8", "replace"), source), source)


def _from_user_folder(env: Mapping[str, str], *, create: bool) -> MasterKey:
    path = default_key_path(env)
    folder = os.path.dirname(path)
    source = f"the file {path}"
    if not os.path.lexists(path):
        if not create:
            raise KeyProblem(
                "there is no master key: neither JOBDB_KEY nor JOBDB_KEY_FILE nor a systemd credential "
                f"'jobdb.key' is set, and {path} does not exist; give the key under which this database's "
                "secrets were sealed"
            )
        create_key_file(path)
    key = MasterKey(_read(path, source), source, private_file=path, private_folder=folder)
    if os.stat(path).st_nlink > 1:
        # Its creator still holds the temporary name, so the new one may not be on disk yet.
        from ..filesystem.folder_sync import sync_folder

        sync_folder(folder)
    _warn_if_not_private(key)
    return key


def _read(path: str, source: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as problem:
        raise KeyProblem(
            f"cannot read the master key from {source}: {problem.strerror}; make it readable for this user, "
            "or name another source (JOBDB_KEY_FILE)"
        ) from problem
    return _parse_content(content, source, raw=True)


def _parse_content(content: bytes, source: str, *, raw: bool = False) -> bytes:
    if not content.strip():
        raise KeyProblem(f"{source} is empty; put the master key there: {_KEY_FORMATS}")
    # 32 raw bytes that are all printable are not a random key but text, for instance a hex key of half the length.
    if raw and len(content) == KEY_BYTES and not all(0x20 <= byte < 0x7F or byte in b"\r\n" for byte in content):
        return content
    key = _decode(content.strip().decode("ascii", "replace"))
    if key is None:
        raise KeyProblem(
            f"{source} holds no usable master key ({len(content)} bytes, not repeated here): it must be {_KEY_FORMATS}"
        )
    return key


def _warn_if_not_private(key: MasterKey) -> None:
    for sentence in key.privacy_warnings():
        from ..system.caller_warnings import warn_caller  # imported here: mostly there is nothing to warn about

        warn_caller(f"the master key is not private: {sentence}")
