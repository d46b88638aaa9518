"""The classes of jobdb's errors. Raised by every layer; the command line prints them and exits with their code.

    JobdbError                     exit code of the command line
    ├── InvalidInput               2   also a ValueError
    │   ├── UnknownJob             2
    │   └── UnknownQuestion        2
    ├── Refused                    1   the state of the database does not allow it
    │   ├── IllegalTransition
    │   ├── StaleAttempt
    │   │   └── AttemptRequired
    │   ├── AlreadyAnswered
    │   └── AlreadyExists
    ├── TimedOut                   3
    ├── Busy                       4
    └── Unusable                   5   the database, its file system or its key cannot be used
        ├── DatabaseMissing
        ├── DatabaseReplaced
        ├── NotAJobdbDatabase
        ├── SchemaMismatch
        ├── UntrustedDatabase
        ├── UnsafeFileSystem
        ├── MovedOrCopied
        ├── StorageFailed
        │   └── SyncFailed
        ├── Unavailable
        ├── ForkedRegistry
        └── KeyProblem

Each message says what happened, to what, and what to do next. No message contains a secret. The advice names the
library's functions; where the command line differs, the error also carries advice that names its commands. Each error
can be copied and pickled, so that it can pass between processes.

This module imports nothing from jobdb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class JobdbError(Exception):
    """The base class of all errors of jobdb; never raised itself.

    Args:
        message: what happened, to what.
        advice: what to do next, in terms of the library.
        command: what to do next on the command line, if that differs.

    Attributes:
        exit_code: the exit status with which the command line ends.

    Example:
        >>> error = JobdbError("job abc has ended", advice="see registry.get('abc')", command="see 'jobdb show abc'")
        >>> str(error)
        "job abc has ended; see registry.get('abc')"
        >>> error.for_command_line()
        "job abc has ended; see 'jobdb show abc'"
    """

    exit_code = 1

    def __init__(self, message: str = "", *, advice: str = "", command: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.message = message
        self.advice = advice
        self.command = command

    def for_command_line(self) -> str:
        """Return the message with the command line's advice, or with the library's if there is no other."""
        advice = self.command or self.advice
        return f"{self.message}; {advice}" if advice else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is not called again: its parameters are not those in ``args``.
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(kind: type[JobdbError], args: tuple[Any, ...]) -> JobdbError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class InvalidInput(JobdbError, ValueError):
    """Raised for an invalid argument; nothing was written."""

    exit_code = 2


class UnknownJob(InvalidInput):
    """Raised when the database has no job with the given id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"no job {job_id!r} in this database",
            advice="Registry.jobs() lists the jobs",
            command="'jobdb list' lists the jobs",
        )
        self.job_id = job_id


class UnknownQuestion(InvalidInput):
    """Raised when a job has no question with the given key, or no open question."""

    def __init__(self, job_id: str, key: str) -> None:
        super().__init__(
            f"job {job_id!r} has no question {key!r}" if key else f"job {job_id!r} has no open question",
            advice=f"registry.questions(job_id={job_id!r}) lists its questions",
            command="'jobdb questions' lists the open questions",
        )
        self.job_id = job_id
        self.key = key


class Refused(JobdbError):
    """Raised when the arguments are valid but the database's state does not allow the verb; nothing was written."""

    exit_code = 1


class IllegalTransition(Refused):
    """Raised when the status of the job does not allow the verb or event."""


class StaleAttempt(Refused):
    """Raised when the claim with the given attempt was taken over or released, or its job has ended."""


class AttemptRequired(StaleAttempt):
    """Raised when a job is held under a lease and the call does not name the attempt of its claim."""


class AlreadyAnswered(Refused):
    """Raised when a question has an answer: the first one is final."""


class AlreadyExists(Refused):
    """Raised when the thing to create already exists and differs."""


class TimedOut(JobdbError):
    """Raised when a wait reaches the time limit that the caller gave."""

    exit_code = 3


class Busy(JobdbError):
    """Raised when another writer held the database lock for longer than the limit; nothing was written.

    Attributes:
        waited_sec: how long this call waited, in seconds.
        holder: the process that holds the lock; None if that cannot be known.
    """

    exit_code = 4

    def __init__(
        self, message: str, *, waited_sec: float, holder: str | None = None, advice: str = "", command: str = ""
    ) -> None:
        super().__init__(message, advice=advice, command=command)
        self.waited_sec = waited_sec
        self.holder = holder


class Unusable(JobdbError):
    """Raised when the database, its file system or its key cannot be used; the base class of the errors below."""

    exit_code = 5


class DatabaseMissing(Unusable):
    """Raised when there is no database at the URL."""


class DatabaseReplaced(Unusable):
    """Raised when the files of the database were removed, renamed or replaced while it was open.

    Other processes do not see the latest writes. The registry that raised it refuses every further verb: inspect the
    database that is at the URL now, then open a new registry.
    """


class NotAJobdbDatabase(Unusable):
    """Raised when the file exists and is not a jobdb database."""


class SchemaMismatch(Unusable):
    """Raised when the schema of the database is older or newer than this jobdb."""


class UntrustedDatabase(Unusable):
    """Raised when no URL was given and the database in the current folder is not known to be this user's."""


class UnsafeFileSystem(Unusable):
    """Raised when the folder's file system does not give the guarantees that the journal needs."""


class MovedOrCopied(Unusable):
    """Raised when the database is not at its recorded place.

    It may be a copy, and a copy must not connect to a broker in the name of the original.
    """


class StorageFailed(Unusable):
    """Raised when the disk is full, fails, or is not writable; the verb changed nothing."""


class SyncFailed(StorageFailed):
    """Raised when the disk does not confirm a commit, so that it may be lost in a power failure.

    The registry that raised it refuses every further verb: open a new one, read the state, and decide from there.
    """


class Unavailable(Unusable):
    """Raised when the database server cannot be reached, or the connection fails before the outcome is known."""


class ForkedRegistry(Unusable):
    """Raised in a forked child that uses its parent's registry, or opens a file that its parent had open.

    Start the child with spawn or exec, or close every registry on the file before forking.
    """


class KeyProblem(Unusable):
    """Raised when the master key is missing or unreadable, or is not the key that sealed a secret."""
