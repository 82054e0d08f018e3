"""A worker in a process of its own, to be killed: `python -m tests.chaos.program DSN GATE`.

Each job writes its effect by a connection of its own. A job whose `n` is at least GATE says so and then waits for ever.
"""

from __future__ import annotations

import os
import sys
import threading

import awa
from awa.postgres import connect

_local = threading.local()


def main() -> None:
    dsn, gate = sys.argv[1], int(sys.argv[2])

    @awa.task(kind="effect")
    def effect(ctx: awa.JobContext, n: int) -> None:
        if not hasattr(_local, "conn"):
            _local.conn = connect(dsn, "effects")
        if n >= gate:
            os.write(1, f"blocked {n}\n".encode())  # one write, so that the threads' lines stay whole
            threading.Event().wait()
        _local.conn.execute("INSERT INTO effects VALUES (%s, %s)", (ctx.id, ctx.run_lease))

    awa.Worker({"default": 4}, dsn=dsn).run()


if __name__ == "__main__":
    main()
