"""Unique jobs: what makes two jobs the same, and for how long."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from attrs import Attribute, field, frozen

from awa.errors import InvalidJob
from awa.job import JobState

OnConflict = Literal["raise", "skip", "return_existing", "replace"]

UNFINISHED: Final[tuple[JobState, ...]] = ("available", "scheduled", "retryable", "running", "waiting")
"""A job always holds its key in these: else a rescue or a retry could bring a second live job of one key about."""

KEY_VERSION: Final = b"\x01"  # a change of what goes into a key makes new keys of all


class UniqueClaim(NamedTuple):
    """The key that a planned job wants."""

    key: bytes
    period: float | None  # seconds
    states: tuple[str, ...]
    on_conflict: OnConflict


def _by_args(instance: object, attribute: Attribute[Any], value: bool | tuple[str, ...]) -> None:
    if isinstance(value, bool):
        return
    if not value or not all(isinstance(name, str) for name in value):
        raise InvalidJob("unique.by_args", f"must be True, False or names of arguments, not {value!r}")


def _period(instance: object, attribute: Attribute[Any], value: float | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 10 * 365 * 86400:
        raise InvalidJob("unique.period", f"must be a positive number of seconds up to ten years, not {value!r}")


def _states(instance: object, attribute: Attribute[Any], value: tuple[str, ...] | None) -> None:
    if value is None:
        return
    known = get_args(JobState)
    for state in value:
        if state not in known:
            raise InvalidJob("unique.states", f"{state!r} is none of {', '.join(known)}")
    if missing := [state for state in UNFINISHED if state not in value]:
        raise InvalidJob(
            "unique.states",
            f"must include {', '.join(missing)}: a key that is free while its job is unfinished would let a retry or rescue "
            "bring a duplicate to life",
        )


def _on_conflict(instance: object, attribute: Attribute[Any], value: str) -> None:
    if value not in get_args(OnConflict):
        raise InvalidJob("unique.on_conflict", f"must be one of {', '.join(get_args(OnConflict))}, not {value!r}")


def _names(value: bool | str | Sequence[str]) -> bool | tuple[str, ...]:
    return value if isinstance(value, bool) else (value,) if isinstance(value, str) else tuple(value)


def _optional_tuple(value: Sequence[JobState] | None) -> tuple[JobState, ...] | None:
    return None if value is None else tuple(value)


@frozen(kw_only=True)
class Unique:
    """At most one job of a key at a time. The key: the kind, and what is named here.

    Args:
        by_args: all arguments, none, or these of them.
        by_queue: the queue, too.
        period: seconds after which the key is free whatever became of its job; with it, a completed job holds its key too.
        states: in which a job holds its key: all unfinished ones (the default), and as many of completed, failed, cancelled,
            dead_lettered as you like.
        on_conflict: `raise` UniqueConflict, with nothing enqueued; `skip` the job; `return_existing`, the holder's id;
            `replace` a holder that has not begun.

    Raises:
        InvalidJob: naming the field.

    >>> Unique(by_args=["user_id"], period=60).on_conflict
    'raise'
    """

    by_args: bool | tuple[str, ...] = field(default=True, converter=_names, validator=_by_args)
    by_queue: bool = False
    period: float | None = field(default=None, validator=_period)
    states: tuple[JobState, ...] | None = field(default=None, converter=_optional_tuple, validator=_states)
    on_conflict: OnConflict = field(default="raise", validator=_on_conflict)

    def claim(self, kind: str, queue: str, args: str) -> UniqueClaim:
        """The key that a job wants.

        Args:
            kind: of the job.
            queue: it goes to.
            args: its arguments, as JSON text.

        Raises:
            InvalidJob: an argument named in `by_args` is missing.
        """
        states = self.states or ((*UNFINISHED, "completed") if self.period is not None else UNFINISHED)
        return UniqueClaim(self._key(kind, queue, args), self.period, states, self.on_conflict)

    def _key(self, kind: str, queue: str, args: str) -> bytes:
        chosen: Mapping[str, Any] | None = None
        if self.by_args is not False:
            chosen = json.loads(args)
            if not isinstance(self.by_args, bool):
                if missing := [name for name in self.by_args if name not in chosen]:
                    raise InvalidJob("unique.by_args", f"the job has no argument {', '.join(map(repr, missing))}")
                chosen = {name: chosen[name] for name in self.by_args}
        parts = [kind, queue if self.by_queue else None, chosen]
        text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.blake2b(KEY_VERSION + text.encode(), digest_size=16).digest()
