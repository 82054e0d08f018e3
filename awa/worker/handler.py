"""A task made ready to be run often: everything about its signature is decided once."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from contextvars import copy_context
from typing import Any

import cattrs

from awa.context import JobContext, current_job, enter_job
from awa.hooks import hooks
from awa.task import Task

_converter = cattrs.Converter(forbid_extra_keys=False)


class Handler:
    """Runs one task's jobs."""

    def __init__(self, task: Task[..., Any, Any], loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.kind = task.kind
        self.policy = task.policy
        self.stores_result = task.policy.result
        self._call = self._on_loop if task.is_async else task.function
        self._hooked_call = self._on_loop if task.is_async else self._hooked
        self._function = task.function
        self._loop = loop
        parameters = inspect.signature(task.function).parameters.values()
        self._positional_only = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
        self._context_parameter = task.context_parameter
        self._record_class = task.record_class
        self._record_parameter = task.record_parameter if task.record_class else ""

    def run(self, job: JobContext, args: str) -> Any:
        """Run the handler to its end in a context of its own; what it returns or raises goes to the caller."""
        enter_job(job)
        kwargs = json.loads(args)
        if self._record_class is not None:
            kwargs = {self._record_parameter: _converter.structure(kwargs, self._record_class)}
        if self._context_parameter is not None:
            kwargs[self._context_parameter] = job
        args_in_order = []
        for name in self._positional_only:
            if name not in kwargs:
                break
            args_in_order.append(kwargs.pop(name))
        # A copy, so that what the handler sets in context variables ends with it.
        return copy_context().run(self._hooked_call if hooks else self._call, *args_in_order, **kwargs)

    def _hooked(self, /, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for hook in tuple(hooks):
                if hook.around is not None:
                    stack.enter_context(hook.around(current_job()))
            return self._function(*args, **kwargs)

    async def _hooked_coroutine(self, /, *args: Any, **kwargs: Any) -> Any:
        async with AsyncExitStack() as stack:
            for hook in tuple(hooks):
                if hook.around_coroutine is not None:
                    await stack.enter_async_context(hook.around_coroutine(current_job()))
            return await self._function(*args, **kwargs)

    def _on_loop(self, /, *args: Any, **kwargs: Any) -> Any:
        # The waiting thread is what counts the coroutine against the queue's concurrency.
        call = self._hooked_coroutine if hooks else self._function
        future = asyncio.run_coroutine_threadsafe(call(*args, **kwargs), self._loop())
        state = current_job().attempt_state()
        state.future = future
        if state.told is not None:  # before there was a future to cancel
            future.cancel()
        try:
            return future.result()
        finally:
            state.future = None
