-- declare_dead: these processes of a supervisor have ended: nothing they claimed will be ended by them. Returns the runtimes it
-- concerns. Whoever of them led, leads no more.
-- Reads:  runtime_instances
-- Writes: runtime_instances, leader
-- Locks:  runtime_instances rows, leader row
-- Model:  DeclareDead
CREATE OR REPLACE FUNCTION awa.declare_dead(
    p_supervisor_id int8, p_pids int4[], p_now timestamptz DEFAULT clock_timestamp()
) RETURNS SETOF int8
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_dead int8[];
BEGIN
    WITH dead AS (
        UPDATE awa.runtime_instances r SET dead_at = p_now, look_at = p_now
        WHERE r.supervisor_id = p_supervisor_id AND r.pid = ANY (p_pids) AND r.dead_at IS NULL
        RETURNING r.runtime_id
    )
    SELECT array_agg(d.runtime_id) INTO v_dead FROM dead d;
    UPDATE awa.leader l SET expires_at = '-infinity' WHERE l.runtime_id = ANY (v_dead);
    RETURN QUERY SELECT unnest(v_dead);
END
$$;
