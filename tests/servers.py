"""Where the tests get PostgreSQL from: a DSN in the environment, else a container, else the embedded server.

`AWA_TEST_PG=15` (what `make test PG=15` sets) runs that major version's binaries where Debian puts them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import psycopg
from psycopg import sql

from awa.embedded import EmbeddedPostgres

# Nothing a test asserts survives a power cut; pg_ctl's immediate stop loses nothing without fsync either.
FAST_SETTINGS: Mapping[str, str] = {"fsync": "off", "max_connections": "300", "shared_buffers": "128MB"}

MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 4 << 30  # bytes, of which a whole run takes a part


def folder_for_data() -> Path:
    """A new folder, in memory where there is enough: every test's own database is eight hundred files, which a disk may take
    half a second to make. `TMPDIR` overrules that.
    """
    in_memory = "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_NEEDED
    folder = Path(mkdtemp(prefix="awa-test-", dir=MEMORY if in_memory else None))
    folder.chmod(0o755)
    return folder


def debian_binaries(major: str) -> Path:
    """Where Debian installs a major version."""
    found = Path(f"/usr/lib/postgresql/{major}/bin")
    if not (found / "postgres").exists():
        raise RuntimeError(f"PostgreSQL {major} was asked for and {found} has none: apt-get install postgresql-{major}")
    return found


@contextmanager
def private_server() -> Iterator[EmbeddedPostgres]:
    """A server that only the caller uses, deleted afterwards: it may be crashed."""
    major = os.environ.get("AWA_TEST_PG")
    folder = folder_for_data()
    try:
        with EmbeddedPostgres(
            folder / "data", bin_dir=debian_binaries(major) if major else None, settings=FAST_SETTINGS
        ) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@contextmanager
def test_server() -> Iterator[str]:
    """Connection URL of a superuser's database on the server that this run tests against."""
    if dsn := os.environ.get("AWA_TEST_DSN") or os.environ.get("AWA_DSN") or os.environ.get("DATABASE_URL"):
        yield dsn
    elif os.environ.get("AWA_TEST_PG") is None and docker_answers():
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer("postgres:18-alpine", driver=None) as container:
            yield container.get_connection_url()
    else:
        with private_server() as server:
            yield server.dsn


def docker_answers() -> bool:
    """Whether a Docker daemon, not just its client, is there."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0


def create_database(server: str, name: str, template: str = "template0") -> str:
    """A new database's connection URL."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    return psycopg.conninfo.make_conninfo(server, dbname=name)


def drop_database(server: str, name: str) -> None:
    """Drop it, whoever is still connected."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
