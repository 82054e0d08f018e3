"""Tasks for workers that are going to suffer. Each attempt writes its effect by a connection of its own."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading

import psycopg

import awa
from awa.notify import Listener
from awa.postgres import Connection, connect
from awa.worker import services
from awa.worker.dispatcher import Dispatcher

_local = threading.local()
_die_after: list[str] = []  # the step at which this process kills itself


def _effects() -> psycopg.Connection[tuple[object, ...]]:
    conn: psycopg.Connection[tuple[object, ...]] | None = getattr(_local, "conn", None)
    if conn is None or conn.closed:
        conn = _local.conn = connect(os.environ["AWA_DSN"], "effects")
    return conn


@awa.task(kind="effect", retry=[0.05])
def effect(ctx: awa.JobContext, n: int) -> None:
    """Leave a trace; every tenth job fails the first time."""
    _effects().execute("INSERT INTO effects VALUES (%s, %s, %s)", (ctx.id, ctx.run_lease, ctx.attempt))
    if n % 10 == 0 and ctx.attempt == 1:
        raise RuntimeError("this job fails once")


@awa.task(kind="exactly_once")
def exactly_once(ctx: awa.JobContext, step: str) -> None:
    """Write and complete in one transaction; the first time the process dies at `step`."""
    wanted = step if ctx.run_lease == 1 else "never"

    def die_at(name: str) -> None:
        if wanted == name:
            os.kill(os.getpid(), signal.SIGKILL)

    die_at("before")
    with ctx.transaction() as conn:
        die_at("begun")
        conn.execute("INSERT INTO business VALUES (%s, 1)", (ctx.id,))
        die_at("between")
        conn.execute("INSERT INTO business VALUES (%s, 2)", (ctx.id,))
        die_at("written")
        if wanted == "completed":
            _die_after.append("completed")
    die_at("committed")


@awa.task(kind="go_deaf")
def go_deaf(ctx: awa.JobContext) -> None:
    """Let this process's claiming connection hear nothing any more, without a word to its owner."""
    _effects().execute("INSERT INTO effects VALUES (%s, %s, %s)", (ctx.id, ctx.run_lease, ctx.attempt))
    for found in gc.get_objects():
        if isinstance(found, Dispatcher):
            _deafen(found.listener)


def _deafen(listener: Listener) -> None:
    """In the thread that owns the connection, the next time it comes by."""
    before = listener.probe_if_due

    def unlisten(conn: Connection) -> None:
        conn.execute("UNLISTEN *")
        listener.probe_if_due = before  # type: ignore[method-assign]

    listener.probe_if_due = unlisten  # type: ignore[method-assign]


@awa.task(kind="patient")
def patient(seconds: float) -> None:
    """Wait as handlers do that wait."""
    threading.Event().wait(seconds)


@awa.task(kind="stubborn", timeout=0.3)
def stubborn() -> None:
    """Block in C, where no exception arrives."""
    threading.Event().wait(300)


@awa.task(kind="stubborn_in_c", timeout=0.3)
def stubborn_in_c() -> None:
    """The same, and nothing else of the process runs."""
    ctypes.PyDLL(None).sleep(300)


@awa.task(kind="hold_the_gil")
def hold_the_gil(seconds: int) -> None:
    """Sleep in C without giving the interpreter up, as a long computation in an extension does."""
    ctypes.PyDLL(None).sleep(seconds)


_complete = services.AttemptServices._complete


def _complete_and_die(
    self: services.AttemptServices, conn: psycopg.Connection[tuple[object, ...]], job: awa.JobContext
) -> None:
    _complete(self, conn, job)
    if _die_after:
        os.kill(os.getpid(), signal.SIGKILL)


services.AttemptServices._complete = _complete_and_die  # type: ignore[method-assign]
