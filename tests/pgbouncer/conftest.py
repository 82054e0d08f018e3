"""A PgBouncer of the session's own, in front of the tests' server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import awa
from tests.waiting import PATIENCE, wait_for

POOL_SIZE = 2
"""Fewer server sessions than clients, so that every session serves many of them."""

CONFIGURATION = """
[databases]
* = {server}
[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 300
server_reset_query =
logfile = {folder}/pgbouncer.log
"""


class PgBouncer:
    """A process that can be killed and started again."""

    def __init__(self, server: str) -> None:
        binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        assert binary is not None
        self.folder = Path(mkdtemp(prefix="awa-pgbouncer-"))
        self.folder.chmod(0o777)
        kept = {
            name: value for name, value in conninfo_to_dict(server).items() if name in ("host", "port", "user", "password")
        }
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(
                server=" ".join(f"{name}={value}" for name, value in kept.items()), folder=self.folder, pool_size=POOL_SIZE
            )
        )
        self._command = [binary, str(configuration)]
        if os.geteuid() == 0:  # as which it refuses to run; the server's socket may be for the server's user only
            host = Path(str(kept.get("host", "")))
            self._command.append(f"--user={host.owner() if host.is_absolute() else 'nobody'}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(self._answers, what="PgBouncer to answer")
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """At once."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(PATIENCE)

    def dsn(self, database: str) -> str:
        """Connection string of a database, through it."""
        return make_conninfo("", host=str(self.folder), port="6432", dbname=database, user="app")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "pgbouncer.log").read_text()
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@pytest.fixture(scope="session")
def pgbouncer(server: str) -> Iterator[PgBouncer]:
    """Running."""
    if not (shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")):
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    bouncer = PgBouncer(server)
    bouncer.start()
    yield bouncer
    bouncer.stop()
    shutil.rmtree(bouncer.folder)


@pytest.fixture
def own_pgbouncer(pgbouncer: PgBouncer, server: str) -> Iterator[PgBouncer]:
    """One that may be killed."""
    bouncer = PgBouncer(server)
    bouncer.start()
    yield bouncer
    bouncer.stop()
    shutil.rmtree(bouncer.folder)


@pytest.fixture
def pooled_dsn(dsn: str, pgbouncer: PgBouncer) -> str:
    """This test's database, through PgBouncer."""
    return pgbouncer.dsn(str(conninfo_to_dict(dsn)["dbname"]))


@pytest.fixture
def pooled_client(pooled_dsn: str) -> Iterator[awa.Client]:
    """A client behind PgBouncer."""
    with awa.Client(pooled_dsn) as client:
        yield client
