"""SQL callers whose sessions read text constants the old way."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from awa.postgres import connect

ENQUEUE = "SELECT awa.enqueue(%s::text, %s::json)"


@pytest.mark.parametrize("setting", ["on", "off"])
def test_enqueue_judges_alike_whatever_a_session_makes_of_backslashes(
    dsn: str, conn: psycopg.Connection[Any], setting: str
) -> None:
    with connect(dsn, "legacy") as caller:
        try:
            caller.execute("SELECT set_config('standard_conforming_strings', %s, false)", (setting,))
        except psycopg.errors.FeatureNotSupported:
            assert setting == "off"
            pytest.skip("this server knows one way only")
        ((job_id,),) = caller.execute(ENQUEUE, ("k", '{"n": "\\u0041"}')).fetchall()
        assert conn.execute("SELECT args->>'n' FROM awa.jobs WHERE job_id = %s", (job_id,)).fetchall() == [("A",)]
        for bad in ('{"n": "\\u0000"}', '{"n": "\\ud800"}'):
            with pytest.raises(psycopg.Error, match=r"args: contains NUL \(\\u0000\) or a lone surrogate"):
                caller.execute(ENQUEUE, ("k", bad))
        with pytest.raises(psycopg.Error, match="kind: contains control or unprintable characters"):
            caller.execute(ENQUEUE, ("k\x01", "{}"))
