"""Everything awa raises on purpose.

    AwaError
    ├── ConfigurationError          a setting is missing or makes no sense
    │   └── DuplicateKind           two tasks want one kind
    ├── InvalidJob                  a job refused before the database saw it (also a ValueError)
    ├── UniqueConflict              another job has the unique key; nothing was enqueued
    ├── JobBusy                     something held the job's lane or claim for too long: try again
    ├── StorageBusy                 something held the engine's tables for too long: try again
    ├── JobNotFound                 there is no such job
    ├── JobUnsuccessful             the job whose result is wanted has failed or was cancelled
    ├── WaitTimeout                 what was waited for did not happen in time (also a TimeoutError)
    ├── DatabaseUnavailable         no usable connection in time
    ├── UnusableConnection          the connection given is closed or busy, or its transaction has failed
    ├── IsolationError              the caller's transaction has the wrong isolation level
    ├── AttemptLost                 this attempt was cancelled, rescued or ended otherwise: its writes are undone
    ├── RuntimeDeclaredDead         a worker that was thought dead claims: it must take a new identity
    └── SchemaError                 the database's awa schema and this release do not fit
        ├── SchemaOutOfDate         behind this release: migrate
        ├── SchemaNewer             ahead of this release: upgrade awa
        ├── RebaseNeeded            restored from a dump into a younger cluster: rebase
        ├── MigrationEdited         an applied migration file is not what it was
        └── MigrationBlocked        live traffic held a lock for longer than the migration may wait

    JobInterrupted                  raised inside a handler that is to stop: a BaseException, so that `except Exception`
    ├── JobTimeout                      does not swallow it
    └── JobCancelled

A class's docstring is its default message. `from_database` is the one place that reads SQLSTATEs.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Final

import psycopg

if TYPE_CHECKING:
    from awa.job import Job


class AwaError(Exception):
    """Something in awa went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or ""))


class ConfigurationError(AwaError):
    """A setting is missing or makes no sense."""


class DuplicateKind(ConfigurationError):
    """Two tasks want the same kind: give one of them another with kind=."""


class InvalidJob(AwaError, ValueError):
    """A job was refused before the database saw it.

    Attributes:
        field: the path of the bad value, as in `args.items[3].price` or `priority`.
        reason: what is wrong with it, and the limit.
    """

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


class UniqueConflict(AwaError):
    """Another job has the unique key: nothing was enqueued.

    Attributes:
        job_id: the job that has it.
        index: the place in the batch of the job that wanted it.
    """

    def __init__(self, job_id: int, index: int = 0) -> None:
        self.job_id = job_id
        self.index = index
        super().__init__(f"jobs[{index}]: job {job_id} has the unique key; nothing was enqueued")


class JobBusy(AwaError):
    """Something held the job's lane or claim for too long: nothing was changed, try again."""


class StorageBusy(AwaError):
    """Live traffic or maintenance held the tables for too long: nothing was changed, try again."""


class JobNotFound(AwaError):
    """There is no such job: it was never committed, or its history has been pruned."""


class JobUnsuccessful(AwaError):
    """The job whose result is wanted has failed or was cancelled.

    Attributes:
        job: as it ended.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        last = job.errors[-1].get("message", "") if job.errors else ""
        super().__init__(f"job {job.id} ({job.kind}) is {job.state}{f': {last}' if last else ''}")


class WaitTimeout(AwaError, TimeoutError):
    """What was waited for did not happen in time."""


class DatabaseUnavailable(AwaError):
    """No usable database connection in time."""


class UnusableConnection(AwaError):
    """The connection given cannot take a job now: it is closed or busy, or its transaction has failed."""


class IsolationError(AwaError):
    """This needs a READ COMMITTED transaction."""


class AttemptLost(AwaError):
    """This attempt was cancelled, rescued or ended otherwise: what it wrote in this transaction is undone."""


class JobInterrupted(BaseException):
    """Raised inside a handler that is to stop."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or ""))


class JobTimeout(JobInterrupted):
    """The handler ran for longer than its timeout."""


class JobCancelled(JobInterrupted):
    """The job was cancelled, or ended otherwise, while its handler ran."""


class RuntimeDeclaredDead(AwaError):
    """This worker was not heard of for too long and was declared dead: its jobs were given to others."""


class SchemaError(AwaError):
    """The database's awa schema and this release do not fit."""


class SchemaOutOfDate(SchemaError):
    """The awa schema is missing or older than this release: run `awa migrate`."""


class SchemaNewer(SchemaError):
    """The awa schema is newer than this release: upgrade the awa-queue package here."""


class RebaseNeeded(SchemaError):
    """The database was restored from a dump of another cluster: stop all that uses it and run `awa storage rebase`."""


class MigrationEdited(SchemaError):
    """A migration file was edited after it had been applied."""


class MigrationBlocked(SchemaError):
    """Live traffic held a lock for longer than the migration may wait: nothing was changed, run it again."""


NO_DATABASE: Final = (
    "no database given: pass --dsn (or set AWA_DSN, DATABASE_URL or libpq's PG* variables), "
    "or pass --embedded to run a private PostgreSQL"
)

_WRONG_ISOLATION: Final = "AWA01"
_REFUSED_JOB: Final = "AWA02"
_RUNTIME_DEAD: Final = "AWA03"
_NO_SUCH_SCHEMA: Final = "3F000"
_NO_SUCH_OBJECT: Final = frozenset({"42P01", "42883", "42703", _NO_SUCH_SCHEMA})


def from_database(error: psycopg.Error) -> AwaError | None:
    """The typed error for what the server said, or None when it is not awa's to explain."""
    if error.sqlstate == _WRONG_ISOLATION:
        return IsolationError(error.diag.message_primary)
    if error.sqlstate == _REFUSED_JOB and (field := error.diag.column_name):
        return InvalidJob(field, (error.diag.message_primary or "").removeprefix(f"{field}: "))
    if error.sqlstate == _RUNTIME_DEAD:
        return RuntimeDeclaredDead()
    # A missing schema is named alone and quoted as the server's language does.
    name = "awa" if error.sqlstate == _NO_SUCH_SCHEMA else "awa."
    if error.sqlstate in _NO_SUCH_OBJECT and name in (error.diag.message_primary or ""):
        return SchemaOutOfDate()
    return None
