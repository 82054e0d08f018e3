-- lanes_by_urgency: those of the given lanes that have a job to hand out, most urgent first: by the priority that its head has
-- reached (one step per queue_meta.priority_aging_after seconds waited), then by the head's due time, then by priority.. NULL: none has
-- Reads:  queue_lanes, queue_meta, lease_claim_batches, queue_claim_heads, ready_entries
-- Writes: nothing
-- Locks:  none
-- Model:  LanesByUrgency
CREATE OR REPLACE FUNCTION awa.lanes_by_urgency(p_lane_ids int4[]) RETURNS int4[]
LANGUAGE sql STABLE AS $$
    WITH heads AS MATERIALIZED (
        SELECT l.lane_id, l.priority, (awa.lane_backlog(l.lane_id, 1)).oldest_run_at AS run_at
        FROM awa.queue_lanes l WHERE l.lane_id = ANY (p_lane_ids)
    )
    SELECT array_agg(h.lane_id ORDER BY
               greatest(1, h.priority - floor(extract(epoch FROM clock_timestamp() - h.run_at) / m.priority_aging_after)),
               h.run_at, h.priority)
    FROM heads h CROSS JOIN awa.queue_meta m
    WHERE h.run_at IS NOT NULL
$$;
