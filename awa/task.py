"""Tasks: functions that run as jobs, and the registry of their kinds."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import attrs
from attrs import evolve

from awa.connections import AnyConnection
from awa.context import JobContext
from awa.errors import ConfigurationError, DuplicateKind
from awa.job import UNSET, JobOptions, given
from awa.outcome import check_delay
from awa.partitions import AnyQueue
from awa.plan import make_template, merge_options
from awa.retry import RetryPolicy, check_policy
from awa.unique import Unique

if TYPE_CHECKING:
    from awa.client import Client

C = ParamSpec("C")  # how the function is called
P = ParamSpec("P")  # how its job is enqueued: without the context
R = TypeVar("R")


def _timeout(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not check_delay(value, "timeout") > 0:
        raise ConfigurationError("timeout must be positive")


def _retry(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        check_policy(value, "retry")


def _retry_for(instance: object, attribute: attrs.Attribute[Any], value: Mapping[Any, object]) -> None:
    for cls, policy in value.items():
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise ConfigurationError(f"retry_for: {cls!r} is not an exception class")
        check_policy(policy, f"retry_for[{cls.__name__}]")


@attrs.frozen(kw_only=True)
class TaskPolicy:
    """What a worker does with a task's attempts: known to the code that runs them, not to the database."""

    retry: RetryPolicy | None = attrs.field(default=None, validator=_retry)  # None: Backoff()
    retry_for: Mapping[type[BaseException], RetryPolicy] = attrs.field(factory=dict, validator=_retry_for)
    timeout: float | None = attrs.field(default=None, validator=_timeout)  # seconds; None: the queue's
    dead_letter: bool | None = None  # None: the queue's
    result: bool = False


class Task(Generic[C, P, R]):
    """A function that runs as a job. Calling the task calls the function.

    Made by `awa.task`. `kind` is its name in the database, `defaults` its options, `policy` what workers do with it.

    >>> import awa
    >>> @awa.task(queue="images")
    ... def shrink(path: str) -> None: ...
    >>> shrink.kind, shrink.defaults.queue
    ('shrink', 'images')
    """

    def __init__(self, function: Callable[C, R], kind: str, defaults: JobOptions, policy: TaskPolicy | None = None) -> None:
        make_template(kind, defaults)  # refuses at import what every enqueue would refuse
        if any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values()):
            raise ConfigurationError(f"task {kind!r}: a job's arguments have names, which *args has not")
        self.function = function
        self.kind = kind
        self.defaults = defaults
        self.policy = TaskPolicy() if policy is None else policy
        self.is_async = inspect.iscoroutinefunction(function)
        self._signature = inspect.signature(function)
        functools.update_wrapper(self, function)

    def __call__(self, *args: C.args, **kwargs: C.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<awa task {self.kind!r}>"

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """Enqueue a job that will call the function with these arguments, by the default client; returns its id.

        Raises:
            TypeError: the arguments do not fit the function.
            InvalidJob, SchemaOutOfDate, DatabaseUnavailable: as `Client.enqueue`.

        >>> import awa
        >>> @awa.task(queue="email")
        ... def greet(name: str) -> None: ...
        >>> greet.options(client=client).enqueue("Ada") > 0
        True
        """
        return BoundTask(self, JobOptions(), None, None).enqueue(*args, **kwargs)

    def options(
        self,
        *,
        queue: AnyQueue | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        ordering_key: str | bytes | None = None,
        connection: AnyConnection = None,
        client: Client | None = None,
    ) -> BoundTask[C, P, R]:
        """The task with other options for what is enqueued next; arguments as for `Client.enqueue`.

        >>> import awa
        >>> @awa.task
        ... def report(day: str) -> None: ...
        >>> report.options(queue="slow", client=client).enqueue(day="2026-01-01") > 0
        True
        """
        options = JobOptions(
            queue=given(queue),
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            tags=tags,
            metadata=metadata,
            unique=unique,
            ordering_key=given(ordering_key),
        )
        return BoundTask(self, options, connection, client)

    def bind(self, *args: Any, **kwargs: Any) -> object:
        """The job's arguments for a call of the function: its one record argument, or an object of all of them."""
        if self.record_class is not None:
            record = self._signature_without_context().bind(*args, **kwargs)
            record.apply_defaults()
            return next(iter(record.arguments.values()))
        bound = self._signature_without_context().bind(*args, **kwargs)
        variadic = {p.name for p in self._signature.parameters.values() if p.kind is p.VAR_KEYWORD}
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name in variadic:
                arguments.update(value)
            else:
                arguments[name] = value
        return arguments

    @functools.cached_property
    def context_parameter(self) -> str | None:
        """The parameter annotated as `JobContext`."""
        names = [name for name, hint in self._hints.items() if hint is JobContext and name in self._signature.parameters]
        return names[0] if names else None

    @functools.cached_property
    def record_class(self) -> type[Any] | None:
        """The attrs or dataclass type that takes the job's whole arguments, when the function has just that parameter."""
        parameters = list(self._signature_without_context().parameters.values())
        if len(parameters) != 1 or parameters[0].kind not in (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.KEYWORD_ONLY,
        ):
            return None
        hint = self._hints.get(parameters[0].name)
        is_record = isinstance(hint, type) and (attrs.has(hint) or dataclasses.is_dataclass(hint))
        return typing.cast("type[Any]", hint) if is_record else None

    @functools.cached_property
    def record_parameter(self) -> str:
        """The name of the parameter that takes the record."""
        return next(iter(self._signature_without_context().parameters))

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.function)
        except NameError as error:
            raise ConfigurationError(f"task {self.kind!r}: {error}, so its parameters cannot be told apart") from error

    def _signature_without_context(self) -> inspect.Signature:
        kept = [p for p in self._signature.parameters.values() if p.name != self.context_parameter]
        return self._signature.replace(parameters=kept)


class BoundTask(Generic[C, P, R]):
    """A task with options for what is enqueued next, from `Task.options`."""

    def __init__(self, task: Task[C, P, R], options: JobOptions, connection: AnyConnection, client: Client | None) -> None:
        self._task = task
        self._options = options
        self._connection = connection
        self._client = client

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> int:
        """As `Task.enqueue`, with these options."""
        client = self._client
        if client is None:
            from awa.client import default_client  # the client builds on this module

            client = default_client()
        merged = merge_options(self._task.defaults, self._options)
        return client.enqueue(
            self._task,
            self._task.bind(*args, **kwargs),
            queue=None if merged.queue is UNSET else merged.queue,
            priority=merged.priority,
            max_attempts=merged.max_attempts,
            run_at=merged.run_at,
            tags=merged.tags,
            metadata=merged.metadata,
            unique=merged.unique,
            ordering_key=None if merged.ordering_key is UNSET else merged.ordering_key,
            connection=self._connection,
        )


_registry: dict[str, Task[..., Any, Any]] = {}


def registered_tasks() -> dict[str, Task[..., Any, Any]]:
    """Every task made in this process, by kind."""
    return dict(_registry)


def restore_registry(tasks: Mapping[str, Task[..., Any, Any]]) -> None:
    """Forget every task but these, as tests do that make tasks of their own."""
    _registry.clear()
    _registry.update(tasks)


class _TaskDecorator(typing.Protocol):
    @overload
    def __call__(self, function: Callable[Concatenate[JobContext, P], R], /) -> Task[Concatenate[JobContext, P], P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, P, R]: ...


@overload
def task(function: Callable[Concatenate[JobContext, P], R], /) -> Task[Concatenate[JobContext, P], P, R]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, P, R]: ...
@overload
def task(
    *,
    kind: str | None = None,
    queue: AnyQueue | None = None,
    priority: int | None = None,
    max_attempts: int | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    unique: Unique | None = None,
    retry: RetryPolicy | None = None,
    retry_for: Mapping[type[BaseException], RetryPolicy] | None = None,
    timeout: float | None = None,
    dead_letter: bool | None = None,
    result: bool = False,
) -> _TaskDecorator: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    kind: str | None = None,
    queue: AnyQueue | None = None,
    priority: int | None = None,
    max_attempts: int | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    unique: Unique | None = None,
    retry: RetryPolicy | None = None,
    retry_for: Mapping[type[BaseException], RetryPolicy] | None = None,
    timeout: float | None = None,
    dead_letter: bool | None = None,
    result: bool = False,
) -> Any:
    """Make a function a task, with or without options.

    A parameter annotated `awa.JobContext` receives the running job; for type checkers it should come first. A function
    whose only other parameter is an attrs class or dataclass receives the job's whole arguments as one.

    Args:
        kind: the job's name in the database; by default the function's name, so that moving a module strands no jobs.
        queue, priority, max_attempts, tags, metadata, unique: defaults for its jobs, as for `Client.enqueue`.
        retry: when a failed attempt is tried again: an `awa.Backoff` (the default), a list of seconds of which the last is
            repeated, a function of attempt and error that returns seconds or None (no other try), or False.
        retry_for: the same by exception class; the most specific one wins over `retry`.
        timeout: seconds an attempt may run; `None` takes the worker's for the queue.
        dead_letter: whether exhausted jobs go to the dead-letter queue; `None` takes the queue's word.
        result: store what the function returns, for `Client.result`: JSON of at most 64 KiB.

    Raises:
        DuplicateKind: another function has the kind.
        InvalidJob: an option that every enqueue would refuse.
        ConfigurationError: a policy that makes no sense.

    >>> import awa
    >>> @awa.task(queue="email", max_attempts=5)
    ... def send_welcome(to: str) -> str:
    ...     return f"welcome, {to}"
    >>> send_welcome("ada")
    'welcome, ada'
    """

    def decorate(function: Callable[..., Any]) -> Task[..., Any, Any]:
        options = JobOptions(
            queue=given(queue), priority=priority, max_attempts=max_attempts, tags=tags, metadata=metadata, unique=unique
        )
        policy = TaskPolicy(retry=retry, retry_for=retry_for or {}, timeout=timeout, dead_letter=dead_letter, result=result)
        made: Task[..., Any, Any] = Task(function, kind or function.__name__, evolve(options), policy)
        known = _registry.get(made.kind)
        if known is not None and _where(known.function) != _where(function):
            raise DuplicateKind(
                f"kind {made.kind!r} is {_where(known.function)} already, and {_where(function)} wants it too: "
                "give one of them another with kind="
            )
        _registry[made.kind] = made
        return made

    return decorate if function is None else decorate(function)


def _where(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
