-- count_available: how many committed jobs of a lane are still to be claimed: the rest of its window and all that has
-- committed since. Costs the unclaimed rows, not the history.
-- Reads:  lease_claim_batches, queue_claim_heads, ready_entries
-- Writes: nothing
-- Locks:  none
-- Model:  CountAvailable
CREATE OR REPLACE FUNCTION awa.count_available(p_lane_id int4) RETURNS int8
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_c record;
    v_now pg_snapshot := pg_current_snapshot();
    v_window int8;
    v_beyond int8;
BEGIN
    SELECT * INTO v_c FROM awa.lane_cursor(p_lane_id);
    SELECT count(*) INTO v_window
    FROM awa.window_rows(p_lane_id, v_c.s_prev, v_c.s_cur, v_c.pos_xid, v_c.pos_seq,
                         awa.window_stragglers(p_lane_id, v_c.s_prev, v_c.s_cur, v_c.pos_xid), NULL);
    SELECT count(*) INTO v_beyond
    FROM awa.window_rows(p_lane_id, v_c.s_cur, v_now, '0', 0,
                         awa.window_stragglers(p_lane_id, v_c.s_cur, v_now, '0'), NULL);
    RETURN v_window + v_beyond;
END
$$;
