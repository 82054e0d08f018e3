"""Imported by every worker process as it starts: loads the application as `flask` does, and runs jobs in its context."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from os import environ

from flask.cli import ScriptInfo

from awa.context import JobContext
from awa.hooks import around_jobs

app = ScriptInfo(app_import_path=environ.get("FLASK_APP")).load_app()


@contextmanager
def in_app_context(job: JobContext) -> Iterator[None]:
    """A context of the application's for each job, whose end takes down what a request's end would."""
    with app.app_context():
        yield


@asynccontextmanager
async def in_app_context_of_coroutines(job: JobContext) -> AsyncIterator[None]:
    """The same for a coroutine."""
    with app.app_context():
        yield


around_jobs(in_app_context, coroutines=in_app_context_of_coroutines)
