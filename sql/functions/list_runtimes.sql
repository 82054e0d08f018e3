-- list_runtimes: the processes that work, and those that died not long ago.
-- Reads:  runtime_instances, leader
-- Writes: nothing
-- Locks:  none
-- Model:  ListRuntimes
CREATE OR REPLACE FUNCTION awa.list_runtimes() RETURNS TABLE (
    runtime_id int8, supervisor_id int8, pid int4, hostname text, release text, queues jsonb, started_at timestamptz,
    last_seen timestamptz, dead_at timestamptz, is_leader bool
)
LANGUAGE sql STABLE AS $$
    SELECT r.runtime_id, r.supervisor_id, r.pid, r.hostname, r.release, r.queues, r.started_at, r.last_seen, r.dead_at,
           coalesce(l.runtime_id = r.runtime_id AND l.expires_at >= clock_timestamp(), false)
    FROM awa.runtime_instances r LEFT JOIN awa.leader l ON true
    ORDER BY r.dead_at IS NOT NULL, r.hostname, r.pid, r.started_at
$$;
