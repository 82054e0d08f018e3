"""Functions become tasks and stay what they were."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import attrs
import pytest

import awa
from awa.errors import DuplicateKind
from awa.task import registered_tasks


@attrs.define
class Order:
    number: int
    lines: list[int] = attrs.field(factory=list)


@dataclasses.dataclass
class Parcel:
    to: str


def plain(name: str, times: int = 2, *, loud: bool = False) -> str:
    """Greet."""
    return name * times + "!" * loud


def other_module(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as if it stood in another module."""
    function.__module__ = "elsewhere"
    return function


def test_a_task_is_called_like_its_function_and_keeps_its_signature() -> None:
    task = awa.task(plain)
    assert task("ab", loud=True) == "abab!"
    assert inspect.signature(task) == inspect.signature(plain)
    assert (vars(task)["__name__"], task.__doc__, task.__module__) == ("plain", "Greet.", __name__)
    assert inspect.unwrap(task) is plain
    assert repr(task) == "<awa task 'plain'>"


def test_a_kind_is_the_functions_name_unless_given() -> None:
    assert awa.task(plain).kind == "plain"
    assert awa.task(kind="greetings.v2")(plain).kind == "greetings.v2"
    assert set(registered_tasks()) >= {"plain", "greetings.v2"}


def test_a_kind_belongs_to_one_function() -> None:
    first = awa.task(plain)
    with pytest.raises(DuplicateKind) as caught:
        awa.task(kind="plain")(other_module(lambda: None))
    message = str(caught.value)
    assert all(part in message for part in ("'plain'", f"{__name__}.plain", "elsewhere.", "kind="))
    assert registered_tasks()["plain"] is first


def test_a_module_that_is_imported_again_may_make_its_tasks_again() -> None:
    awa.task(plain)
    again = awa.task(plain)
    assert registered_tasks()["plain"] is again


def test_options_of_the_decorator_are_the_tasks_defaults() -> None:
    task = awa.task(queue="email", priority=1, max_attempts=3, tags=["a"], metadata={"m": 1})(plain)
    assert task.defaults == awa.JobOptions(queue="email", priority=1, max_attempts=3, tags=("a",), metadata={"m": 1})
    assert awa.task(plain).defaults == awa.JobOptions()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"priority": 9}, "priority"),
        ({"queue": ""}, "queue"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"kind": "k" * 201}, "kind"),
    ],
)
def test_an_option_that_every_enqueue_would_refuse_is_refused_at_import(options: dict[str, Any], field: str) -> None:
    with pytest.raises(awa.InvalidJob) as caught:
        awa.task(**options)(plain)
    assert caught.value.field == field
    assert "plain" not in registered_tasks()


def test_arguments_are_bound_by_name() -> None:
    task = awa.task(plain)
    assert task.bind("ada") == {"name": "ada"}
    assert task.bind("ada", 3, loud=True) == {"name": "ada", "times": 3, "loud": True}
    assert task.bind(times=1, name="bob") == {"name": "bob", "times": 1}


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("a", 1, True), {}), (("a",), {"nosuch": 1}), (("a",), {"name": "b"})]
)
def test_arguments_that_do_not_fit_raise_a_type_error_and_enqueue_nothing(
    client: awa.Client, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    task = awa.task(plain)
    with pytest.raises(TypeError):
        task.options(client=client).enqueue(*args, **kwargs)
    with pytest.raises(TypeError):
        plain(*args, **kwargs)
    assert client.list_queues() == []


def test_keyword_arguments_become_fields_of_their_own() -> None:
    @awa.task
    def report(day: str, **filters: int) -> None: ...

    assert report.bind("monday", region=3, team=4) == {"day": "monday", "region": 3, "team": 4}
    assert report.bind("monday") == {"day": "monday"}


def test_the_context_is_no_argument_of_the_job() -> None:
    @awa.task
    def audit(ctx: awa.JobContext, table: str) -> None: ...

    assert audit.context_parameter == "ctx"
    assert audit.bind("users") == audit.bind(table="users") == {"table": "users"}
    with pytest.raises(TypeError):
        audit.bind("users", ctx=None)
    assert awa.task(plain).context_parameter is None


def test_the_context_may_have_any_name_and_place() -> None:
    def late(table: str, *, running: awa.JobContext) -> None: ...

    task = awa.task(late)
    assert task.context_parameter == "running"
    assert task.bind("users") == {"table": "users"}


def take_order(order: Order) -> int:
    """Takes an attrs record."""
    return order.number


def take_parcel(ctx: awa.JobContext, parcel: Parcel) -> None:
    """Takes a dataclass record and the context."""


def take_default(order: Order = Order(7)) -> int:  # noqa: B008 - a record that is given when none is
    """Has a record to fall back on."""
    return order.number


def take_both(order: Order, more: int) -> None:
    """A record is one argument among others."""


@pytest.mark.parametrize(
    ("function", "record_class"),
    [(take_order, Order), (take_parcel, Parcel), (take_default, Order), (take_both, None), (plain, None)],
)
def test_the_only_parameter_may_be_a_record_of_all_arguments(
    function: Callable[..., Any], record_class: type[Any] | None
) -> None:
    assert awa.task(function).record_class is record_class


def test_a_record_is_bound_as_the_whole_of_the_arguments() -> None:
    assert awa.task(take_order).bind(Order(3)) == Order(3)
    assert awa.task(take_parcel).bind(parcel=Parcel("ada")) == Parcel("ada")
    assert awa.task(take_parcel).record_parameter == "parcel"
    with pytest.raises(TypeError):
        awa.task(take_order).bind()


def test_a_records_default_is_what_is_enqueued_when_none_is_given(client: awa.Client) -> None:
    job = client.get_job(awa.task(take_default).options(client=client).enqueue())
    assert job is not None
    assert job.args == {"number": 7, "lines": []}


def test_an_annotation_that_names_nothing_is_explained() -> None:
    @awa.task
    def broken(x: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(awa.ConfigurationError, match="task 'broken': name 'NoSuchName' is not defined"):
        broken.bind(1)


def test_a_coroutine_function_is_known_as_one() -> None:
    @awa.task
    async def fetch(url: str) -> None: ...

    assert fetch.is_async
    assert not awa.task(plain).is_async


def test_options_of_one_enqueue_win_over_the_tasks_and_leave_them_alone(client: awa.Client) -> None:
    task = awa.task(queue="email", priority=1, tags=["always"])(plain)
    once = task.options(priority=4, max_attempts=2, metadata={"by": "ada"}, client=client)
    job = client.get_job(once.enqueue("ada", loud=True))
    assert job is not None
    assert (job.kind, job.queue, job.priority, job.max_attempts) == ("plain", "email", 4, 2)
    assert (job.args, job.tags, job.metadata) == ({"name": "ada", "loud": True}, ("always",), {"by": "ada"})
    again = client.get_job(task.options(client=client).enqueue("bob"))
    assert again is not None
    assert (again.priority, again.max_attempts, again.metadata) == (1, 25, {})


def test_without_options_the_default_client_is_used(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWA_DSN", dsn)
    try:
        job = awa.default_client().get_job(awa.task(plain).enqueue("ada"))
        assert job is not None
        assert job.args == {"name": "ada"}
    finally:
        awa.default_client().close()


def test_a_task_whose_arguments_have_no_names_is_refused() -> None:
    with pytest.raises(awa.ConfigurationError, match=r"\*args"):

        @awa.task
        def collect(*numbers: int) -> None: ...
