-- declare_stale: declares dead whoever has not been seen for p_stale_after seconds; returns the runtimes. Rows of runtimes that
-- died a day ago and have nothing left to rescue are forgotten.
-- Reads:  runtime_instances
-- Writes: runtime_instances
-- Locks:  runtime_instances rows (SKIP LOCKED)
-- Model:  DeclareStale
CREATE OR REPLACE FUNCTION awa.declare_stale(p_stale_after float8, p_now timestamptz DEFAULT clock_timestamp())
RETURNS SETOF int8
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM awa.runtime_instances r
    WHERE r.dead_at < p_now - interval '1 day' AND r.look_at IS NULL;
    RETURN QUERY
    UPDATE awa.runtime_instances r SET dead_at = p_now, look_at = p_now
    WHERE r.runtime_id IN (
        SELECT s.runtime_id FROM awa.runtime_instances s
        WHERE s.dead_at IS NULL AND s.last_seen < p_now - make_interval(secs => p_stale_after)
        FOR UPDATE SKIP LOCKED  -- who is beating at this moment is not stale
    )
    RETURNING r.runtime_id;
END
$$;
