-- settle_tombstones: lanes whose cancelled jobs have all been passed by the cursor need not look for tombstones any more.
-- Returns how many lanes that were. A lane that is busy waits for the next time.
-- Reads:  queue_lanes, ready_tombstones, lease_claim_batches, queue_claim_heads
-- Writes: queue_lanes
-- Locks:  lane advisory (by TRY, one at a time: callers commit after each call)
-- Model:  SettleTombstones
CREATE OR REPLACE FUNCTION awa.settle_tombstones() RETURNS int4
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off AS $$
DECLARE
    v_lane_id int4;
    v_settled int4 := 0;
    v_count int4;
BEGIN
    FOR v_lane_id IN SELECT l.lane_id FROM awa.queue_lanes l WHERE l.has_tombstones ORDER BY l.lane_id LOOP
        CONTINUE WHEN NOT awa.try_lock_lane(v_lane_id);
        UPDATE awa.queue_lanes l SET has_tombstones = false
        WHERE l.lane_id = v_lane_id AND awa.lane_tombstones(v_lane_id) = 0;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_settled := v_settled + v_count;
    END LOOP;
    RETURN v_settled;
END
$$;
