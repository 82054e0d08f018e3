"""A PostgreSQL for the length of a test run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from awa.embedded import EmbeddedPostgres

# Nothing that a test asserts survives a power cut.
FAST_SETTINGS: Final[Mapping[str, str]] = {"fsync": "off", "shared_buffers": "64MB", "max_wal_size": "1GB"}


@contextmanager
def temporary_server() -> Iterator[str]:
    """The connection string of a new server's database; the server is deleted after the block.

    Raises:
        ConfigurationError: the extra awa-queue[embedded] is not installed.

    >>> from awa.testing.server import temporary_server
    >>> with temporary_server() as test_dsn:  # doctest: +SKIP
    ...     print(test_dsn)
    """
    folder = Path(tempfile.mkdtemp(prefix="awa-test-"))
    folder.chmod(0o755)  # as root, the server runs as another user
    try:
        with EmbeddedPostgres(folder / "data", settings=FAST_SETTINGS) as server:
            yield server.dsn
    finally:
        shutil.rmtree(folder, ignore_errors=True)
