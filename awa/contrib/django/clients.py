"""A client whose jobs belong to Django's transactions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from attrs import evolve
from django.core.signals import setting_changed
from psycopg.rows import TupleRow

from awa.client import Client
from awa.connections import AnyConnection, unwrap_connection
from awa.contrib.django.conf import awa_settings
from awa.contrib.django.conninfo import conninfo, wrapper_of
from awa.job import JobOptions
from awa.migrate import guarded_schema
from awa.plan import JobTemplate, PlannedJob
from awa.postgres import connect
from awa.storage.copy import Copied
from awa.task import Task


class DjangoClient(Client):
    """A client on Django's own connection to a database alias.

    Inside `transaction.atomic()` of the alias an enqueue is part of that transaction, and reads see what it has done;
    outside it an enqueue is committed when it returns, as the ORM's writes are. What must commit by itself (`cancel`,
    `retry`, `pause_queue`, answers to waiting jobs) takes a short connection of its own inside a transaction.

    Database errors are Django's (`django.db.OperationalError` and the like), as those of the ORM.

    Args:
        alias: in DATABASES.

    >>> from awa.contrib.django import DjangoClient
    >>> DjangoClient("default").enqueue("send_email", {"to": "ada@example.com"}) > 0
    True
    """

    def __init__(self, alias: str) -> None:
        super().__init__(**awa_settings().client)
        self.alias = alias

    def _template(self, task_or_kind: Task[..., Any, Any] | str, options: JobOptions) -> JobTemplate:
        if not options.names_queue and not (isinstance(task_or_kind, Task) and task_or_kind.defaults.names_queue):
            options = evolve(options, queue=awa_settings().default_queue)
        return super()._template(task_or_kind, options)

    def _append(self, planned: list[PlannedJob], given: AnyConnection) -> list[int]:
        if given is not None or not self._is_in_transaction():
            return super()._append(planned, given)
        if self.diversion is not None:
            return super()._append(planned, wrapper_of(self.alias))
        with self._own_connection():
            return super()._append(planned, wrapper_of(self.alias))

    def _append_copy(
        self,
        planned: Iterator[PlannedJob],
        given: AnyConnection,
        progress: Callable[[int], object] | None,
        *,
        with_ids: bool,
    ) -> Copied:
        if given is not None or not self._is_in_transaction():
            return super()._append_copy(planned, given, progress, with_ids=with_ids)
        if self.diversion is not None:
            return super()._append_copy(planned, wrapper_of(self.alias), progress, with_ids=with_ids)
        with self._own_connection():
            return super()._append_copy(planned, wrapper_of(self.alias), progress, with_ids=with_ids)

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[TupleRow]]:
        if not self._is_in_transaction():
            with self._own_connection() as own:
                yield own
            return
        with connect(conninfo(self.alias), "awa client", connect_timeout=self.settings.connect_timeout) as conn:
            self._check(conn)
            yield conn

    def _reading(self) -> Any:
        return self._own_connection()

    def _is_in_transaction(self) -> bool:
        wrapper = wrapper_of(self.alias)
        if self.diversion is not None and wrapper.connection is None:
            return False  # to ask a connection that is not there would make it, for jobs that need none
        return bool(wrapper.in_atomic_block or not wrapper.get_autocommit())

    @contextmanager
    def _own_connection(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """Django's connection of this thread, as psycopg has it."""
        wrapper = wrapper_of(self.alias)
        with wrapper.wrap_database_errors, guarded_schema():
            own = unwrap_connection(wrapper)
            self._check(own)
            yield own


def client(alias: str | None = None) -> DjangoClient:
    """The client of a database alias, by default of `AWA["DATABASE"]`; `task.enqueue` uses the latter.

    >>> from awa.contrib import django
    >>> django.client() is django.client("default")
    True
    """
    return _made(awa_settings().database if alias is None else alias)


@functools.cache
def _made(alias: str) -> DjangoClient:
    return DjangoClient(alias)


def _forget(*, setting: str, **_: object) -> None:
    if setting == "AWA":
        _made.cache_clear()


setting_changed.connect(_forget)
