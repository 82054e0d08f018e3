-- lane_head: the due time of the first job a lane would hand out now; NULL when it has none.
-- Reads:  lease_claim_batches, queue_claim_heads, ready_entries
-- Writes: nothing
-- Locks:  none
-- Model:  LaneHead
CREATE OR REPLACE FUNCTION awa.lane_head(p_lane_id int4) RETURNS timestamptz
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_c record;
    v_run_at timestamptz;
BEGIN
    SELECT * INTO v_c FROM awa.lane_cursor(p_lane_id);
    SELECT w.run_at INTO v_run_at
    FROM awa.window_rows(p_lane_id, v_c.s_prev, v_c.s_cur, v_c.pos_xid, v_c.pos_seq,
                         awa.window_stragglers(p_lane_id, v_c.s_prev, v_c.s_cur, v_c.pos_xid), 1) AS w;
    IF NOT FOUND THEN
        SELECT w.run_at INTO v_run_at
        FROM awa.window_rows(p_lane_id, v_c.s_cur, pg_current_snapshot(), '0', 0,
                             awa.window_stragglers(p_lane_id, v_c.s_cur, pg_current_snapshot(), '0'), 1) AS w;
    END IF;
    RETURN v_run_at;
END
$$;
