"""Bringing a database's awa schema to this release.

`sql/migrations` run once each, in order, and never change after they have landed. `sql/functions` and `sql/views` are
applied again whenever their text differs from what the database has. All of it is one transaction under one advisory lock.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from attrs import field, frozen
from psycopg import sql

from awa.errors import MigrationBlocked, MigrationEdited, RebaseNeeded, SchemaNewer, SchemaOutOfDate, from_database
from awa.postgres import Connection, tuple_cursor
from awa.version import __version__

MIGRATION_LOCK: Final = 1635213568  # "awa" and 0, in pg_locks as objid of a one-key advisory lock

LOCK_MIGRATION: Final = "SELECT pg_advisory_xact_lock(%s)"
HAS_LEDGER: Final = "SELECT to_regclass('awa.schema_migrations') IS NOT NULL"
READ_MIGRATIONS: Final = "SELECT version, name, checksum FROM awa.schema_migrations ORDER BY version"
READ_OBJECTS: Final = "SELECT path, checksum FROM awa.schema_objects"
READ_META: Final = """
    SELECT release, sql_digest, install_id::text, install_id || pg_postmaster_start_time()::text FROM awa.queue_meta
"""
NEEDS_REBASE: Final = "SELECT awa.needs_rebase()"
READ_ROUTINES: Final = """
    SELECT format('DROP ROUTINE %%s', p.oid::regprocedure)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'awa' AND p.proname = %s
"""


@frozen
class SqlFile:
    """One file below `sql/`."""

    path: str  # "functions/claim_jobs.sql"
    text: str
    checksum: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "checksum", hashlib.sha256(self.text.encode()).hexdigest())

    @property
    def name(self) -> str:
        """The object or migration named by the file: "claim_jobs", "schema"."""
        return re.sub(r"^\d+_", "", self.path.rsplit("/", 1)[1].removesuffix(".sql"))

    @property
    def version(self) -> int:
        """A migration's number."""
        return int(self.path.rsplit("/", 1)[1].split("_", 1)[0])


@frozen(kw_only=True)
class SqlTree:
    """All SQL of a release."""

    migrations: tuple[SqlFile, ...]
    functions: tuple[SqlFile, ...]
    views: tuple[SqlFile, ...]
    release: str = __version__

    @property
    def version(self) -> int:
        """The newest migration's number."""
        return max((file.version for file in self.migrations), default=0)

    @property
    def digest(self) -> str:
        """A fingerprint of every file: equal digests mean equal schemas."""
        files = (*self.migrations, *self.functions, *self.views)
        return hashlib.sha256("".join(f"{file.path}:{file.checksum}\n" for file in files).encode()).hexdigest()


@frozen
class Step:
    """One thing a migration would do: a label for people and the statements."""

    label: str
    script: str


@frozen(kw_only=True)
class Plan:
    """What a database needs. Empty when it is up to date."""

    steps: tuple[Step, ...]
    from_version: int
    to_version: int

    @property
    def script(self) -> str:
        """The whole plan as one SQL script that leaves the ledger as `migrate` would."""
        body = "\n".join(f"-- {step.label}\n{step.script.rstrip()}\n" for step in self.steps)
        return f"BEGIN;\n\n{body}\nCOMMIT;\n" if self.steps else "-- nothing to do\n"


@frozen
class InstalledSchema:
    """What a database says about itself."""

    install_id: str
    release: str
    digest: str
    incarnation: str  # of this installation on this server since its start
    place: str  # host, port and database


@functools.cache
def load_sql(root: Path | None = None) -> SqlTree:
    """The SQL of this release: from the wheel, or from the working tree beside the package."""
    if root is None:
        packaged = Path(__file__).parent / "sql"
        root = packaged if packaged.is_dir() else Path(__file__).parent.parent / "sql"

    def files(folder: str) -> tuple[SqlFile, ...]:
        found = sorted((item for item in (root / folder).iterdir() if item.name.endswith(".sql")), key=lambda f: f.name)
        return tuple(SqlFile(f"{folder}/{item.name}", item.read_text("utf-8")) for item in found)

    return SqlTree(migrations=files("migrations"), functions=files("functions"), views=files("views"))


def plan_migration(conn: Connection, tree: SqlTree | None = None) -> Plan:
    """What `migrate` would do now. Reads only.

    Raises:
        SchemaNewer: the database was migrated by a later release.
        MigrationEdited: an applied migration's text has changed.
    """
    tree = tree or load_sql()
    cursor = tuple_cursor(conn)
    if not cursor.execute(HAS_LEDGER).fetchall()[0][0]:
        applied: dict[int, str] = {}
        objects: dict[str, str] = {}
        release, digest = "", ""
    else:
        applied = {row[0]: row[2] for row in cursor.execute(READ_MIGRATIONS).fetchall()}
        objects = dict(cursor.execute(READ_OBJECTS).fetchall())
        release, digest, _, _ = cursor.execute(READ_META).fetchall()[0]

    if max(applied, default=0) > tree.version or (_newer(release, tree.release) and digest != tree.digest):
        raise SchemaNewer(
            f"the database is at schema version {max(applied)} of awa {release}, this is version {tree.version} of awa "
            f"{tree.release}: upgrade the awa-queue package here"
        )
    for file in tree.migrations:
        if file.version in applied and applied[file.version] != file.checksum:
            raise MigrationEdited(f"{file.path} was edited after it had been applied: restore it, and write a new migration")

    steps = [
        Step(
            f"apply {file.path}",
            f"{file.text.rstrip()}\n{_ledger_migration(file)}",
        )
        for file in tree.migrations
        if file.version not in applied
    ]
    steps += _repeatable_steps(cursor, tree, objects)
    if steps or digest != tree.digest or _newer(tree.release, release):
        meta = sql.SQL("UPDATE awa.queue_meta SET release = {}, sql_digest = {};").format(tree.release, tree.digest)
        steps.append(Step(f"stamp release {tree.release}", meta.as_string(None)))
    return Plan(steps=tuple(steps), from_version=max(applied, default=0), to_version=tree.version)


def migrate(
    conn: Connection,
    tree: SqlTree | None = None,
    *,
    lock_timeout: float = 5.0,
    statement_timeout: float = 300.0,
    on_step: Callable[[int, int, Step], None] | None = None,
) -> Plan:
    """Bring the database to this release, all in one transaction, and return what was done.

    Two at once: one waits for the other, then finds nothing to do.

    Args:
        conn: an idle autocommit connection.
        tree: the SQL to apply, this release's by default.
        lock_timeout: seconds to wait for any one table lock held by live traffic.
        statement_timeout: seconds any one statement may take.
        on_step: called with (index, total, step) before each step.

    Raises:
        SchemaNewer, MigrationEdited: nothing was changed.
        MigrationBlocked: a timeout was hit; nothing was changed.

    >>> import awa.postgres, awa.migrate
    >>> with awa.postgres.connect(dsn, "docs") as conn:
    ...     awa.migrate.migrate(conn).steps
    ()
    """
    tree = tree or load_sql()
    try:
        with conn.transaction():
            cursor = tuple_cursor(conn)
            # Whatever the role's default: behind the lock we have to see what the other deploy has committed.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            # The other deploy may take its time: only table locks are on the clock.
            cursor.execute(LOCK_MIGRATION, (MIGRATION_LOCK,))
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{round(lock_timeout * 1000)}ms",))
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", (f"{round(statement_timeout * 1000)}ms",))
            plan = plan_migration(conn, tree)
            for index, step in enumerate(plan.steps):
                if on_step:
                    on_step(index, len(plan.steps), step)
                cursor.execute(step.script.encode())
            return plan
    except psycopg.errors.DependentObjectsStillExist as error:
        raise MigrationBlocked(
            f"the migration changed nothing: something of yours depends on awa's views, which have to be made anew "
            f"({error.diag.message_detail}). Drop it, migrate, and make it again"
        ) from error
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
        raise MigrationBlocked(
            f"the migration gave up ({error.diag.message_primary}) and changed nothing: live traffic holds a lock it needs. "
            "Run it again when there is less, or give it more time with --lock-timeout and --statement-timeout"
        ) from error


def read_installed(conn: Connection) -> InstalledSchema:
    """What the database has installed.

    Raises:
        SchemaOutOfDate: no awa schema there.
    """
    cursor = tuple_cursor(conn)
    if not cursor.execute(HAS_LEDGER).fetchall()[0][0]:
        raise SchemaOutOfDate(f"there is no awa schema in database {conn.info.dbname!r}: run `awa migrate`")
    release, digest, install_id, incarnation = cursor.execute(READ_META).fetchall()[0]
    place = f"{conn.info.host}:{conn.info.port}/{conn.info.dbname}"
    return InstalledSchema(install_id, release, digest, incarnation, place)


def check_schema(conn: Connection, tree: SqlTree) -> InstalledSchema:
    """Refuse a database that this release cannot work with; a later release's schema is fine during a rolling deploy.

    Raises:
        SchemaOutOfDate: missing, or migrated by an earlier release and different.
    """
    installed = read_installed(conn)
    if installed.digest != tree.digest and not _newer(installed.release, tree.release):
        raise SchemaOutOfDate(
            f"the awa schema in database {conn.info.dbname!r} is not that of awa {tree.release}: run `awa migrate`"
        )
    return installed


def check_rebase(conn: Connection) -> None:
    """Refuse a database restored from a dump into a younger cluster: what is enqueued there would be taken for done.

    Hazard: reads the rings. In a transaction that stays open its locks would keep slots from being pruned.

    Args:
        conn: a connection that commits at once.

    Raises:
        RebaseNeeded: it is.
    """
    if tuple_cursor(conn).execute(NEEDS_REBASE).fetchall()[0][0]:
        raise RebaseNeeded


@contextmanager
def guarded_schema() -> Iterator[None]:
    """Turn "no such function" of a half-known database into the error that names the command."""
    try:
        yield
    except psycopg.Error as error:
        typed = from_database(error)
        if typed is None:
            raise
        raise typed from error


def _repeatable_steps(cursor: psycopg.Cursor[tuple[object, ...]], tree: SqlTree, objects: dict[str, str]) -> list[Step]:
    """Views go first and come back last, because they hold on to the functions they call."""
    known = {file.path for file in (*tree.functions, *tree.views)}
    changed = [file for file in tree.functions if objects.get(file.path) != file.checksum]
    removed = [SqlFile(path, "") for path in objects if path not in known]
    stale_views = [file for file in tree.views if objects.get(file.path) != file.checksum]
    if not (changed or removed or stale_views):
        return []

    steps = [Step("defer checks of function bodies", "SET LOCAL check_function_bodies = off;")]
    views = sorted({file.path for file in tree.views} | {file.path for file in removed if file.path.startswith("views/")})
    drops = [f"DROP VIEW IF EXISTS awa.{SqlFile(path, '').name};" for path in reversed(views)]
    steps.append(Step("drop views", "\n".join(drops)))
    for file in (*changed, *(file for file in removed if file.path.startswith("functions/"))):
        # By name, so that a changed signature leaves no overload behind.
        cursor.execute(READ_ROUTINES, (file.name,))
        drop = "".join(f"{row[0]};\n" for row in cursor.fetchall())
        create = f"{file.text.rstrip()}\n{_ledger_object(file)}" if file.text else _forget_object(file)
        steps.append(Step(f"{'apply' if file.text else 'remove'} {file.path}", drop + create))
    steps += [Step(f"apply {file.path}", f"{file.text.rstrip()}\n{_ledger_object(file)}") for file in tree.views]
    steps += [Step(f"remove {file.path}", _forget_object(file)) for file in removed if file.path.startswith("views/")]
    return steps


def _ledger(target: str, *values: object) -> str:
    return sql.SQL("INSERT INTO awa.{} VALUES ({});").format(sql.SQL(target), sql.SQL(", ").join(values)).as_string(None)


def _ledger_migration(file: SqlFile) -> str:
    return _ledger("schema_migrations (version, name, checksum)", file.version, file.name, file.checksum)


def _ledger_object(file: SqlFile) -> str:
    insert = _ledger("schema_objects (path, checksum)", file.path, file.checksum)
    return insert.removesuffix(";") + "\nON CONFLICT (path) DO UPDATE SET checksum = excluded.checksum, applied_at = now();"


def _forget_object(file: SqlFile) -> str:
    return sql.SQL("DELETE FROM awa.schema_objects WHERE path = {};").format(file.path).as_string(None)


def _newer(release: str, than: str) -> bool:
    def key(text: str) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", text))

    return key(release) > key(than)
