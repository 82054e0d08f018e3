"""awa: a PostgreSQL job queue. See the README for a first look and `docs/` for the rest."""

from awa.client import Client, default_client
from awa.context import JobContext, current_job
from awa.errors import (
    AwaError,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidJob,
    SchemaOutOfDate,
    UniqueConflict,
)
from awa.job import Job, JobOptions, NewJob, QueueCounts
from awa.outcome import Cancel, Fail, Retry, Snooze
from awa.partitions import PartitionedQueue
from awa.retry import Backoff
from awa.statement import enqueue_sql
from awa.task import Task, task
from awa.unique import Unique
from awa.version import __version__ as __version__
from awa.worker.runtime import Worker

__all__ = [
    "AwaError",
    "Backoff",
    "Cancel",
    "Client",
    "ConfigurationError",
    "DatabaseUnavailable",
    "Fail",
    "InvalidJob",
    "Job",
    "JobContext",
    "JobOptions",
    "NewJob",
    "PartitionedQueue",
    "QueueCounts",
    "Retry",
    "SchemaOutOfDate",
    "Snooze",
    "Task",
    "Unique",
    "UniqueConflict",
    "Worker",
    "current_job",
    "default_client",
    "enqueue_sql",
    "task",
]
