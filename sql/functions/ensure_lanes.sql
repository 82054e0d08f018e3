-- ensure_lanes: the ids of a queue's lanes of one priority, one a shard in the order of the shards, made on their first use.
-- Hazard: to be committed at once, as ensure_lane.
-- Reads:  what enqueue_shards and ensure_lane read
-- Writes: what ensure_lane writes
-- Locks:  none
-- Model:  EnsureLanes
CREATE OR REPLACE FUNCTION awa.ensure_lanes(p_queue text, p_priority int2) RETURNS int4[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_lanes int4[] := '{}';
BEGIN
    FOR v_shard IN 0..awa.enqueue_shards(p_queue) - 1 LOOP
        v_lanes := v_lanes || awa.ensure_lane(p_queue, p_priority, v_shard::int2);
    END LOOP;
    RETURN v_lanes;
END
$$;
