-- lane_in_transaction: the id of a lane for the caller's transaction, made on first use without making anybody wait. A lane made here
-- is unseen until the caller commits: whoever needs one meanwhile makes a spare, a lane of the same queue and priority with a
-- shard from the top of the range. Once any of them is committed it serves everybody; shard 0, which clients make, comes first.
-- Hazard: with all spares in the making at once it waits as ensure_lane does.
-- Reads:  queue_lanes
-- Writes: queue_lanes
-- Locks:  an advisory lock of the transaction per spare in the making, by TRY
-- Model:  LaneInTransaction
CREATE OR REPLACE FUNCTION awa.lane_in_transaction(p_queue text, p_priority int2) RETURNS int4
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_spares  CONSTANT int4 := 16;
    v_lane_id int4;
BEGIN
    FOR v_spare IN 0 .. v_spares LOOP
        SELECT l.lane_id INTO v_lane_id FROM awa.queue_lanes l
        WHERE l.queue = p_queue AND l.priority = p_priority
          AND (l.enqueue_shard = 0 OR l.enqueue_shard > 32767 - v_spares)
        ORDER BY l.enqueue_shard = 0 DESC, l.enqueue_shard DESC LIMIT 1;
        IF FOUND THEN
            RETURN v_lane_id;
        END IF;
        CONTINUE WHEN v_spare = v_spares OR NOT pg_try_advisory_xact_lock(
            1635213575, hashtext(format('%s %s %s', v_spare, p_priority, p_queue)));
        BEGIN
            INSERT INTO awa.queue_lanes (queue, priority, enqueue_shard) VALUES (p_queue, p_priority, 32767 - v_spare)
            RETURNING lane_id INTO v_lane_id;
            RETURN v_lane_id;
        EXCEPTION WHEN unique_violation OR serialization_failure THEN
            NULL;  -- committed a moment ago, or after the snapshot of a REPEATABLE READ transaction, which takes the next
        END;
    END LOOP;
    RETURN awa.ensure_lane(p_queue, p_priority);
END
$$;
