"""An empty queue for the next test."""

from __future__ import annotations

from typing import Final

import psycopg

from awa.client import Client, default_client
from awa.errors import AwaError

KEPT: Final = (
    "leader",
    "queue_lanes",  # clients remember their ids
    "queue_meta",
    "ring_rotations",
    "ring_slots",
    "schema_migrations",
    "schema_objects",
    "storage_settings",
)
"""Tables that say how the queue is set up, not what is in it."""

# Not a function of the schema: a production database should have none that empties it. Only what has rows is truncated: each
# TRUNCATE makes new files for a table and its indexes.
CLEAR: Final = """
DO $clear$
DECLARE
    v_table text;
    v_full text[] := '{}';
    v_has_rows bool;
BEGIN
    FOR v_table IN
        SELECT format('awa.%I', c.relname)
        FROM pg_class c
        LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
        LEFT JOIN pg_class p ON p.oid = i.inhparent
        WHERE c.relnamespace = 'awa'::regnamespace AND c.relkind = 'r'
          AND coalesce(p.relname, c.relname) <> ALL (string_to_array(current_setting('awa.kept_tables'), ','))
        ORDER BY c.relname
    LOOP
        EXECUTE 'SELECT EXISTS (SELECT 1 FROM ' || v_table || ')' INTO v_has_rows;
        IF v_has_rows THEN
            v_full := v_full || v_table;
        END IF;
    END LOOP;
    IF v_full <> '{}' THEN
        EXECUTE 'TRUNCATE ' || array_to_string(v_full, ', ');
    END IF;
END
$clear$
"""
LOCK_TIMEOUT: Final = 10.0
"""Seconds to wait for transactions that a test has left open."""


def clear_jobs(client: Client | None = None) -> None:
    """Delete every job, running ones too, and all that is known of them, of workers and of paused queues.

    For test databases. Lanes stay, so clients go on working.

    Args:
        client: of the database to clear; `None` takes the default client's.

    Raises:
        AwaError: a transaction that was left open holds on to the tables.

    >>> from awa.testing import all_enqueued, clear_jobs
    >>> _ = client.enqueue("greet", queue="docs")
    >>> clear_jobs(client)
    >>> all_enqueued(client=client)
    []
    """
    with (client or default_client())._connection() as conn, conn.transaction():
        conn.execute("SELECT set_config('awa.kept_tables', %s, true)", (",".join(KEPT),))
        conn.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_TIMEOUT * 1000:.0f}ms",))
        try:
            conn.execute(CLEAR)
        except psycopg.errors.LockNotAvailable as error:
            raise AwaError(
                f"the queue cannot be cleared: for {LOCK_TIMEOUT:g} s a transaction that was left open has held on to it"
            ) from error
