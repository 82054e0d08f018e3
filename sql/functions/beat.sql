-- beat: says that these processes of a supervisor live. Returns those that were declared dead meanwhile: a beat revives nobody.
-- Reads:  runtime_instances
-- Writes: runtime_instances
-- Locks:  runtime_instances rows
-- Model:  Beat
CREATE OR REPLACE FUNCTION awa.beat(p_supervisor_id int8, p_pids int4[], p_now timestamptz DEFAULT clock_timestamp())
RETURNS SETOF int4
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE awa.runtime_instances r SET last_seen = p_now
    WHERE r.supervisor_id = p_supervisor_id AND r.pid = ANY (p_pids) AND r.dead_at IS NULL;
    RETURN QUERY
    SELECT r.pid FROM awa.runtime_instances r
    WHERE r.supervisor_id = p_supervisor_id AND r.pid = ANY (p_pids) AND r.dead_at IS NOT NULL
      -- A process that has taken a new identity since is alive under that one.
      AND NOT EXISTS (SELECT 1 FROM awa.runtime_instances n
                      WHERE n.supervisor_id = r.supervisor_id AND n.pid = r.pid AND n.dead_at IS NULL);
END
$$;
