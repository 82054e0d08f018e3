"""Who a worker is in the database."""

from __future__ import annotations

import os
import socket

from attrs import define, field

from awa.storage.claim import random_id


@define(eq=False)
class RuntimeIdentity:
    """`runtime_id` is new for every incarnation, also for that of a process that was declared dead and lives."""

    supervisor_id: int = field(factory=random_id)  # of the process that beats
    runtime_id: int = field(factory=random_id)
    pid: int = field(factory=os.getpid)
    hostname: str = field(factory=socket.gethostname)

    def renew(self) -> None:
        """Be somebody else from now on."""
        self.runtime_id = random_id()
