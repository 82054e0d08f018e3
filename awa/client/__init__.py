"""Enqueueing and looking: what an application's own code does with the queue."""

from __future__ import annotations

from collections.abc import Callable

from awa.client.ended import Ended
from awa.client.ending import Ending
from awa.client.enqueueing import Enqueueing
from awa.client.looking import Looking
from awa.client.queues import Queues
from awa.client.storage import Storage

__all__ = ["Client", "default_client", "set_default_client"]


class Client(Enqueueing, Looking, Ending, Ended, Queues, Storage):
    """Puts jobs into the queue and reads them. Safe to share between threads; connects on first use.

    Args:
        dsn: a libpq URL or keyword string; `None` takes `AWA_DSN`, `DATABASE_URL` or libpq's variables.
        min_connections: kept open by the pool.
        max_connections: opened by the pool at the most.
        connect_timeout: seconds to wait for a connection.
        max_args_bytes: the largest JSON text of a job's arguments.
        on_enqueued: called after every enqueue with the number of jobs by physical queue, as a counter wants it; for jobs in
            your own transaction before your commit. What it raises is logged.

    Raises:
        ConfigurationError: on first use, when nothing names a database.

    >>> import awa
    >>> with awa.Client(dsn) as client:
    ...     job_id = client.enqueue("send_email", {"to": "ada@example.com"}, queue="docs")
    ...     client.get_job(job_id).state
    'available'
    """


_default = Client()
_provider: Callable[[], Client] | None = None


def default_client() -> Client:
    """The client that `task.enqueue` uses: it finds its database in the environment, or a framework's settings say more.

    >>> import awa
    >>> awa.default_client() is awa.default_client()
    True
    """
    return _default if _provider is None else _provider()


def set_default_client(provider: Callable[[], Client] | None) -> Callable[[], Client] | None:
    """Let `default_client` ask `provider`, as frameworks do whose settings know the database; None undoes it.

    Args:
        provider: called at every use, so that it may answer by thread or by settings; it should keep what it makes.

    Returns:
        The former provider.

    >>> from awa.client import set_default_client
    >>> before = set_default_client(lambda: client)
    >>> awa.default_client() is client
    True
    >>> _ = set_default_client(before)
    """
    global _provider
    _provider, before = provider, _provider
    return before
