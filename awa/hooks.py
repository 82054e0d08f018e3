"""What frameworks do around every job of this process: close stale connections, push a context.

Unlike `awa.events`, which tell what has happened, a hook runs in the handler's own thread and context, from just before it
to just after it, and what it raises is the attempt's failure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from awa.context import JobContext

Around = Callable[["JobContext"], AbstractContextManager[object]]
AroundCoroutine = Callable[["JobContext"], AbstractAsyncContextManager[object]]


@frozen(eq=False)
class Hook:
    """A registration; `close` ends it, as the end of a `with` block does."""

    around: Around | None
    around_coroutine: AroundCoroutine | None

    def close(self) -> None:
        """Not around the next job."""
        _remove(self)

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


hooks: list[Hook] = []
"""In the order they are entered. Asked for its truth once a job: a worker without hooks pays for nothing else."""
_changing = threading.Lock()


def around_jobs(around: Around | None = None, *, coroutines: AroundCoroutine | None = None) -> Hook:
    """Enter a context manager around every handler that runs in this process from now on.

    Args:
        around: is given the job and makes the context manager for a function, entered in the thread that runs it.
        coroutines: the same for a coroutine: an asynchronous one, entered on the workers' event loop.

    >>> from contextlib import contextmanager
    >>> from awa.hooks import around_jobs
    >>> @contextmanager
    ... def said(job):
    ...     print("before", job.kind)
    ...     yield
    ...     print("after", job.kind)
    >>> with around_jobs(said):
    ...     pass
    """
    hook = Hook(around, coroutines)
    with _changing:
        hooks.append(hook)
    return hook


def _remove(hook: Hook) -> None:
    with _changing:
        if hook in hooks:
            hooks.remove(hook)
