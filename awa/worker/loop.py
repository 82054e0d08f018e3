"""The one thread that runs `async def` handlers."""

from __future__ import annotations

import asyncio
import logging
import threading

log = logging.getLogger("awa.worker")


class LoopThread:
    """An event loop in a thread, started when the first coroutine needs it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stopping = False

    def get(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        if self._loop is None:
            with self._starting:
                if self._loop is None:
                    loop = asyncio.new_event_loop()
                    self._thread = threading.Thread(target=self._run, args=(loop,), name="awa-loop", daemon=True)
                    self._thread.start()
                    self._loop = loop
        return self._loop

    def stop(self) -> None:
        """Cancel what still runs, and end the thread."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # asyncio lets these two out of the loop as well as into the coroutine's result; the other coroutines go on.
                log.debug("a coroutine tried to end the process", exc_info=True)


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
