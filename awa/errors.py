"""Everything awa raises on purpose.

    AwaError
    ├── ConfigurationError          a setting is missing or makes no sense
    │   └── DuplicateKind           two tasks want one kind
    ├── InvalidJob                  a job refused before the database saw it (also a ValueError)
    ├── DatabaseUnavailable         no usable connection in time
    ├── IsolationError              the caller's transaction has the wrong isolation level
    ├── RuntimeDeclaredDead         a worker that was thought dead claims: it must take a new identity
    └── SchemaError                 the database's awa schema and this release do not fit
        ├── SchemaOutOfDate         behind this release: migrate
        ├── SchemaNewer             ahead of this release: upgrade awa
        ├── MigrationEdited         an applied migration file is not what it was
        └── MigrationBlocked        live traffic held a lock for longer than the migration may wait

A class's docstring is its default message. `from_database` is the one place that reads SQLSTATEs.
"""

from __future__ import annotations

import inspect
from typing import Final

import psycopg


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


class DatabaseUnavailable(AwaError):
    """No usable database connection in time."""


class IsolationError(AwaError):
    """This needs a READ COMMITTED transaction."""


class RuntimeDeclaredDead(AwaError):
    """This worker was not heard of for too long and was declared dead: its jobs were given to others."""


class SchemaError(AwaError):
    """The database's awa schema and this release do not fit."""


class SchemaOutOfDate(SchemaError):
    """The awa schema is missing or older than this release: run `awa migrate`."""


class SchemaNewer(SchemaError):
    """The awa schema is newer than this release: upgrade the awa-queue package here."""


class MigrationEdited(SchemaError):
    """A migration file was edited after it had been applied."""


class MigrationBlocked(SchemaError):
    """Live traffic held a lock for longer than the migration may wait: nothing was changed, run it again."""


NO_DATABASE: Final = (
    "no database given: pass --dsn (or set AWA_DSN, DATABASE_URL or libpq's PG* variables), "
    "or pass --embedded to run a private PostgreSQL"
)

_WRONG_ISOLATION: Final = "AWA01"
_RUNTIME_DEAD: Final = "AWA03"
_NO_SUCH_SCHEMA: Final = "3F000"
_NO_SUCH_OBJECT: Final = frozenset({"42P01", "42883", "42703", _NO_SUCH_SCHEMA})


def from_database(error: psycopg.Error) -> AwaError | None:
    """The typed error for what the server said, or None when it is not awa's to explain."""
    if error.sqlstate == _WRONG_ISOLATION:
        return IsolationError(error.diag.message_primary)
    if error.sqlstate == _RUNTIME_DEAD:
        return RuntimeDeclaredDead()
    # A missing schema is named alone and quoted as the server's language does.
    name = "awa" if error.sqlstate == _NO_SUCH_SCHEMA else "awa."
    if error.sqlstate in _NO_SUCH_OBJECT and name in (error.diag.message_primary or ""):
        return SchemaOutOfDate()
    return None
