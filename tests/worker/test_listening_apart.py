"""A listening connection of the worker's own, as behind a pooler, that dies without a word."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import awa
from tests.waiting import wait_for
from tests.worker.support import wait_for_counts


class ForgetfulRouter:
    """Passes bytes on, until it forgets its connections: what is sent on one from then on is answered with a reset."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self._forgotten = threading.Event()
        self.resets = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self) -> None:
        """As a router does that has restarted, or has seen nothing of a connection for long."""
        self._forgotten.set()

    def close(self) -> None:
        """Accept no more."""
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                if isinstance(self._target, str):
                    far = socket.socket(socket.AF_UNIX)
                    far.connect(self._target)
                else:
                    far = socket.create_connection(self._target)
                threading.Thread(target=self._pass, args=(near, far), daemon=True).start()
                threading.Thread(target=self._answer, args=(far, near), daemon=True).start()

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if self._forgotten.is_set():
                    self.resets += 1
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    near.close()
                    return
                far.sendall(data)

    def _answer(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if not self._forgotten.is_set():
                    near.sendall(data)


@pytest.fixture
def router(dsn: str) -> Iterator[ForgetfulRouter]:
    where = conninfo_to_dict(dsn)
    host, port = str(where["host"]), int(str(where.get("port", 5432)))
    with closing(ForgetfulRouter(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port))) as router:
        yield router


def test_a_worker_outlives_its_listening_connection(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any], router: ForgetfulRouter
) -> None:
    @awa.task(kind="noop")
    def noop() -> None: ...

    listen_dsn = make_conninfo(dsn, host="127.0.0.1", port=router.port, sslmode="disable", gssencmode="disable")
    with awa.Worker({"q": 1}, dsn=dsn, listen_dsn=listen_dsn, probe_every=0.2, poll_every=0.1) as worker:
        assert worker.wait_until_ready()
        router.forget()
        wait_for(lambda: router.resets, what="something said on the forgotten connection")
        client.enqueue("noop", queue="q")
        wait_for_counts(client, "q", completed=1)
