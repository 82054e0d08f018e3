"""Jobs of a batch that differ from it: whose options they have, and each combination validated once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from attrs import evolve

from awa.errors import InvalidJob
from awa.job import JobOptions, NewJob
from awa.plan import JobTemplate, merge_options

Opts = Callable[[Any], JobOptions | None] | Iterable[JobOptions | None]
"""Options of each job of a batch: from a function of what the batch holds, or one for each beside it."""

MAX_SHAPES: Final = 1000
"""Combinations of options that a batch remembers; further ones are validated job by job."""


def with_options(jobs: Iterable[object], opts: Opts) -> Iterator[NewJob]:
    """Each job with its own options: a `NewJob`'s before those of `opts`.

    Raises:
        InvalidJob: an iterable of options that is shorter or longer than `jobs`, or holds something else.
    """
    beside = None if callable(opts) else iter(opts)
    index = -1
    for index, job in enumerate(jobs):
        if beside is None:
            assert callable(opts)
            own = opts(job)
        else:
            try:
                own = next(beside)
            except StopIteration:
                raise InvalidJob("opts", f"has {index} elements, and there are more jobs") from None
        if own is not None and not isinstance(own, JobOptions):
            raise InvalidJob(f"jobs[{index}].opts", f"must be awa.JobOptions or None, not {type(own).__name__}")
        if not isinstance(job, NewJob):
            yield NewJob(job, options=own)
        else:
            yield job if job.options is not None else evolve(job, options=own)
    if beside is not None and next(beside, beside) is not beside:
        raise InvalidJob("opts", f"has more than {index + 1} elements, and there are no more jobs")


class Shapes:
    """Templates of one batch's jobs.

    Args:
        make: the template of a kind and its options.
        batch: the options of the batch.
    """

    def __init__(self, make: Callable[[Any, JobOptions], JobTemplate], batch: JobOptions) -> None:
        self._make = make
        self._batch = batch
        # By identity, with the options kept so that no other can take their place: jobs of one shape often share one object.
        self._by_object: dict[tuple[object, int], tuple[JobOptions | None, JobTemplate]] = {}
        self._by_value: dict[tuple[object, ...], JobTemplate] = {}

    def template(self, kind: Any, own: JobOptions | None) -> JobTemplate:
        """The template for a kind and the options of one job, its ordering key aside.

        Raises:
            InvalidJob: naming the field and its limit.
        """
        known = self._by_object.get((kind, id(own)))
        if known is not None:
            return known[1]
        key = None
        if own is not None and own.run_at is None and own.metadata is None and own.unique is None:
            numbers = (own.priority, own.max_attempts)
            # With their types: True equals 1, and is not a priority.
            key = (kind, own.queue, own.tags, numbers, *map(type, numbers))
            try:
                if template := self._by_value.get(key):
                    return template
            except TypeError:  # an option that cannot be hashed is about to be refused
                key = None
        template = self._make(kind, merge_options(self._batch, own))
        if key is not None and len(self._by_value) < MAX_SHAPES:
            self._by_value[key] = template
        if len(self._by_object) < MAX_SHAPES:
            self._by_object[kind, id(own)] = (own, template)
        return template
