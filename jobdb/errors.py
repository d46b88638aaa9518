"""Every error that jobdb raises on purpose.

    JobdbError                     exit code of the command line
    ├── InvalidInput               2   also a ValueError
    │   └── UnknownJob             2
    ├── Refused                    1   the answer is no
    │   ├── IllegalTransition
    │   ├── StaleAttempt
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

Each message says what happened, to what, and what to do next. No message carries a secret. What to do next is said in
the library's words; where the command line does it otherwise, the error carries the command line's words too.
"""

from __future__ import annotations


class JobdbError(Exception):
    """Base of all errors of jobdb.

    Args:
        message: what happened, to what.
        advice: what to do next, in the library's words.
        command: what to do next on the command line, where that differs.

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

    def __init__(self, message: str, *, advice: str = "", command: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.message = message
        self.advice = advice
        self.command = command

    def for_command_line(self) -> str:
        """Return the message with the command line's advice, or the library's where there is no other."""
        advice = self.command or self.advice
        return f"{self.message}; {advice}" if advice else self.message


class InvalidInput(JobdbError, ValueError):
    """An argument is not what the verb takes; nothing was written."""

    exit_code = 2


class UnknownJob(InvalidInput):
    """No job of that id is in this database."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"no job {job_id!r} in this database",
            advice="Registry.jobs() lists the jobs there are",
            command="'jobdb list' lists the jobs there are",
        )
        self.job_id = job_id


class Refused(JobdbError):
    """The verb is understood and the answer is no; nothing was written."""

    exit_code = 1


class IllegalTransition(Refused):
    """The job's status does not allow this verb or event."""


class StaleAttempt(Refused):
    """The claim named by the attempt number was taken over, released or has ended."""


class AlreadyExists(Refused):
    """What was to be made is there already, and differs."""


class TimedOut(JobdbError):
    """A wait that the caller limited came to its end first."""

    exit_code = 3


class Busy(JobdbError):
    """The database was locked by another writer for longer than the limit.

    Attributes:
        waited_sec: how long this call waited, in seconds.
        holder: who holds the lock, where that can be known, else None.
    """

    exit_code = 4

    def __init__(
        self, message: str, *, waited_sec: float, holder: str | None = None, advice: str = "", command: str = ""
    ) -> None:
        super().__init__(message, advice=advice, command=command)
        self.waited_sec = waited_sec
        self.holder = holder


class Unusable(JobdbError):
    """The database cannot be used as it is."""

    exit_code = 5


class DatabaseMissing(Unusable):
    """There is no database at that place."""


class DatabaseReplaced(Unusable):
    """The database's files were removed, renamed or replaced while it was open: others do not see what was done.

    The registry that raised it refuses every further verb. Look at what is there, then open a new one.
    """


class NotAJobdbDatabase(Unusable):
    """The file is there and is not a jobdb database."""


class SchemaMismatch(Unusable):
    """The database's schema is older or newer than this jobdb."""


class UntrustedDatabase(Unusable):
    """A database that was found in the current folder, and not named, is not known to be this user's."""


class UnsafeFileSystem(Unusable):
    """The folder's file system does not keep the promises that the journal needs."""


class MovedOrCopied(Unusable):
    """The database is not where it was: a copy must not connect to a broker in the original's name."""


class StorageFailed(Unusable):
    """The disk is full, failed, or may not be written; the verb changed nothing."""


class SyncFailed(StorageFailed):
    """The commit was made but the disk did not confirm it: the outcome after a power loss is unknown.

    The registry that raised it refuses every further verb. Open a new one, read the state, decide from there.
    """


class Unavailable(Unusable):
    """The database server cannot be reached, or the connection broke before the outcome was known."""


class ForkedRegistry(Unusable):
    """A registry was used in a forked child of the process that opened it, or its file was opened there.

    Start the child with spawn or exec, or close every registry on the file before the fork.
    """


class KeyProblem(Unusable):
    """The master key is missing, unreadable, or not the one that sealed this secret."""
