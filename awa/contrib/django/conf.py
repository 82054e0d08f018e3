"""The project's `AWA` setting."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import Attribute, field, fields, frozen
from django.conf import settings
from django.core.signals import setting_changed

from awa.config import DEFAULT_QUEUE, ClientSettings, WorkerSettings
from awa.errors import AwaError, ConfigurationError
from awa.partitions import AnyQueue, checked_queues, expand_queues


def _text(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"must be text, not {value!r}")


def _queue(instance: object, attribute: Attribute[Any], value: AnyQueue) -> None:
    checked_queues(value)


def _expanded(value: object) -> object:
    return expand_queues(value) if isinstance(value, Mapping) else value


def _queues(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"must be a dict of queue names and jobs at a time, as in {{'default': 10}}, not {value!r}")
    WorkerSettings(queues=value)


def _modules(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple | list) or not all(isinstance(name, str) and name for name in value):
        raise ConfigurationError(f"must be a list of module names, as in ['tasks'], not {value!r}")


def _bool(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"must be True or False, not {value!r}")


def _client(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"must be a dict, not {value!r}")
    known = [attribute.name for attribute in fields(ClientSettings)]
    if unknown := [name for name in value if name not in known]:
        raise ConfigurationError(f"{unknown[0]!r} is none of {', '.join(known)}")
    ClientSettings(**value)


@frozen(kw_only=True)
class AwaSettings:
    """`AWA`, one field a key; the keys are upper case."""

    database: str = field(default="default", validator=_text)  # alias in DATABASES
    default_queue: AnyQueue = field(default=DEFAULT_QUEUE, validator=_queue)  # of jobs and tasks that name none
    # Of `manage.py awa worker`; by physical queue.
    queues: Mapping[str, int] = field(factory=lambda: {DEFAULT_QUEUE: 10}, converter=_expanded, validator=_queues)
    autodiscover: Iterable[str] = field(default=("tasks",), validator=_modules)  # of every installed app
    migrate: bool = field(default=True, validator=_bool)  # whether `manage.py migrate` brings the schema up to date
    check_schema: bool = field(default=True, validator=_bool)  # whether `check --database` looks at it
    client: Mapping[str, Any] = field(factory=dict, validator=_client)  # keywords of awa.Client


def problems(given: object) -> list[tuple[str, str]]:
    """What is wrong with an `AWA` setting: the key and why, for every key.

    >>> problems({"QUEUES": {"default": 0}, "DATABSE": "default"})[1]
    ('DATABSE', 'there is no such key: DATABASE, DEFAULT_QUEUE, QUEUES, AUTODISCOVER, MIGRATE, CHECK_SCHEMA, CLIENT')
    """
    if not isinstance(given, Mapping):
        return [("", f"must be a dict, not {given!r}")]
    known = {attribute.name.upper(): attribute for attribute in fields(AwaSettings)}
    found = []
    for key, value in given.items():
        if key not in known:
            found.append((str(key), f"there is no such key: {', '.join(known)}"))
            continue
        try:
            AwaSettings(**{key.lower(): value})
        except (AwaError, TypeError, ValueError) as error:
            found.append((key, str(error)))
    return found


def awa_settings() -> AwaSettings:
    """The project's settings, validated.

    Raises:
        ConfigurationError: naming the key.
    """
    return _read()


@functools.cache
def _read() -> AwaSettings:
    given = getattr(settings, "AWA", {})
    for key, problem in problems(given):
        raise ConfigurationError(f"settings.AWA{f'[{key!r}]' if key else ''}: {problem}")
    return AwaSettings(**{key.lower(): value for key, value in given.items()})


def _forget(*, setting: str, **_: object) -> None:
    if setting == "AWA":
        _read.cache_clear()


setting_changed.connect(_forget)
