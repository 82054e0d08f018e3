"""Tasks that end in every way an attempt can, for a run whose trace is replayed."""

from __future__ import annotations

import os
import signal
import threading

import awa


@awa.task(kind="works")
def works() -> None:
    """Succeed."""


@awa.task(kind="fails_twice", retry=[0.02])
def fails_twice(ctx: awa.JobContext) -> None:
    """Fail, fail, succeed."""
    if ctx.attempt < 3:
        raise RuntimeError("not yet")


@awa.task(kind="always_fails", retry=[0.02], max_attempts=2)
def always_fails() -> None:
    """Fail until no attempt is left."""
    raise RuntimeError("never")


@awa.task(kind="fails_until_retried")
def fails_until_retried(ctx: awa.JobContext) -> None:
    """Fail the first time it is claimed."""
    if ctx.run_lease == 1:
        raise RuntimeError("not yet")


@awa.task(kind="gives_up")
def gives_up() -> None:
    """Fail for good."""
    raise awa.Fail("no other try")


@awa.task(kind="snoozes")
def snoozes(ctx: awa.JobContext) -> None:
    """Put itself off once."""
    if ctx.run_lease == 1:
        raise awa.Snooze(0.02)


@awa.task(kind="withdraws")
def withdraws() -> None:
    """Cancel itself."""
    raise awa.Cancel("nobody wants it")


@awa.task(kind="reports")
def reports(ctx: awa.JobContext) -> None:
    """Go on with a lease."""
    ctx.checkpoint({"line": 1})
    ctx.checkpoint({"line": 2})


@awa.task(kind="asks", retry=[0.02])
def asks(ctx: awa.JobContext) -> None:
    """Wait for an answer from outside."""
    ctx.register_callback()
    ctx.wait_for_callback(timeout=600)


@awa.task(kind="in_transaction")
def in_transaction(ctx: awa.JobContext) -> None:
    """Complete with its own writes."""
    with ctx.transaction():
        pass


@awa.task(kind="patient")
def patient() -> None:
    """Run until told to stop."""
    while True:
        threading.Event().wait(0.05)  # short, so that it can be told


@awa.task(kind="comes_too_late")
def comes_too_late(ctx: awa.JobContext) -> None:
    """Be cancelled before it ends."""
    with awa.Client() as client:
        client.cancel(ctx.id)


@awa.task(kind="dies_once", max_attempts=3)
def dies_once(ctx: awa.JobContext) -> None:
    """Take its process along, the first time."""
    if ctx.run_lease == 1:
        os.kill(os.getpid(), signal.SIGKILL)
