"""awa: a PostgreSQL job queue. See the README for a first look and `docs/` for the rest."""

from awa.client import Client, default_client
from awa.context import JobContext, current_job
from awa.errors import (
    AwaError,
    ConfigurationError,
    DatabaseUnavailable,
    DuplicateKind,
    InvalidJob,
    IsolationError,
    SchemaError,
    SchemaOutOfDate,
)
from awa.job import Job, JobOptions, NewJob, QueueCounts
from awa.task import Task, task
from awa.version import __version__
from awa.worker.runtime import Worker, WorkerStats

__all__ = [
    "AwaError",
    "Client",
    "ConfigurationError",
    "DatabaseUnavailable",
    "DuplicateKind",
    "InvalidJob",
    "IsolationError",
    "Job",
    "JobContext",
    "JobOptions",
    "NewJob",
    "QueueCounts",
    "SchemaError",
    "SchemaOutOfDate",
    "Task",
    "Worker",
    "WorkerStats",
    "__version__",
    "current_job",
    "default_client",
    "task",
]
