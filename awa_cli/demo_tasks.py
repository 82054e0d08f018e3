"""What `awa demo` runs: a mixed load as an application has it."""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections import Counter
from datetime import UTC, datetime

import awa

waited: dict[str, list[float]] = {"email": [], "images": [], "reminders": []}
"""Milliseconds between a job's due time and its start, by queue."""

failures: Counter[str] = Counter()


@awa.task(queue="email")
def send_email(ctx: awa.JobContext, to: str, subject: str) -> None:
    """Talk to a slow mail server; one in a hundred first tries is turned away."""
    _note(ctx)
    time.sleep(random.uniform(0.002, 0.008))
    if ctx.attempt == 1 and ctx.id % 100 == 0:
        failures["email"] += 1
        raise ConnectionError(f"the mail server turned {to} away, try again later")


@awa.task(queue="images", priority=3)
def make_thumbnail(ctx: awa.JobContext, width: int, height: int, factor: int) -> None:
    """Shrink a picture in pure Python and pack it as PNG: real work for the CPU."""
    _note(ctx)
    source = [bytes((x * y + ctx.id) % 256 for x in range(width)) for y in range(height)]
    rows = []
    for top in range(0, height, factor):
        band = source[top : top + factor]
        rows.append(bytes(sum(sum(row[x : x + factor]) for row in band) // factor**2 for x in range(0, width, factor)))
    png(width // factor, rows)


@awa.task(queue="reminders")
def send_reminder(ctx: awa.JobContext, user: int) -> None:
    """Scheduled for later when it was enqueued."""
    _note(ctx)


def png(width: int, rows: list[bytes]) -> bytes:
    """A grey PNG picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, len(rows), 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _note(ctx: awa.JobContext) -> None:
    if ctx.attempt == 1:
        waited[ctx.queue].append((datetime.now(UTC) - ctx.run_at).total_seconds() * 1000)
