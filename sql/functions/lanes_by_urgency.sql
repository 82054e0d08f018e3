-- lanes_by_urgency: the lanes of a queue that have a job to hand out, most urgent first: by the priority that its head has
-- reached (one step per queue_meta.priority_aging_after seconds waited), then by the head's due time, then by priority.
-- A queue's only lane is returned without looking into it.
-- Reads:  queue_lanes, queue_meta, lease_claim_batches, queue_claim_heads, ready_entries
-- Writes: nothing
-- Locks:  none
-- Model:  LanesByUrgency
CREATE OR REPLACE FUNCTION awa.lanes_by_urgency(p_queue text) RETURNS int4[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_lanes int4[] := ARRAY(SELECT l.lane_id FROM awa.queue_lanes l WHERE l.queue = p_queue);
BEGIN
    IF cardinality(v_lanes) <= 1 THEN
        RETURN v_lanes;
    END IF;
    RETURN ARRAY(
        WITH heads AS MATERIALIZED (
            SELECT l.lane_id, l.priority, (awa.lane_backlog(l.lane_id, 1)).oldest_run_at AS run_at
            FROM awa.queue_lanes l WHERE l.lane_id = ANY (v_lanes)
        )
        SELECT h.lane_id
        FROM heads h CROSS JOIN awa.queue_meta m
        WHERE h.run_at IS NOT NULL
        ORDER BY greatest(1, h.priority - floor(extract(epoch FROM clock_timestamp() - h.run_at) / m.priority_aging_after)),
                 h.run_at, h.priority
    );
END
$$;
