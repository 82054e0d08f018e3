-- lane_backlog: how many committed jobs of a lane are still to be claimed, up to p_limit (all when NULL), and the earliest due
-- time among them: the rest of the lane's window, then all that has committed since. Costs the rows counted, not the history.
-- Cancelled jobs that no claim has passed yet are among them.
-- Reads:  lease_claim_batches, queue_claim_heads, ready_entries
-- Writes: nothing
-- Locks:  none
-- Model:  LaneBacklog
CREATE OR REPLACE FUNCTION awa.lane_backlog(p_lane_id int4, p_limit int4, OUT n int8, OUT oldest_run_at timestamptz)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_cursor record;
    v_window record;
    v_until pg_snapshot;
    v_n int8;
    v_run_at timestamptz;
BEGIN
    n := 0;
    SELECT * INTO v_cursor FROM awa.lane_cursor(p_lane_id);
    FOR v_pass IN 1..2 LOOP
        IF v_pass = 1 THEN
            v_until := v_cursor.s_cur;
            v_window := awa.window_ranges(p_lane_id, v_cursor.s_prev, v_until, v_cursor.pos_xid, v_cursor.pos_seq);
        ELSE
            v_until := awa.settled_snapshot();
            v_window := awa.window_ranges(p_lane_id, v_cursor.s_cur, v_until, '0', 0);
        END IF;
        SELECT count(*), min(w.run_at) INTO v_n, v_run_at
        FROM awa.window_rows(p_lane_id, v_until, v_window.from_xids, v_window.from_seqs, v_window.to_xids, p_limit - n::int4) AS w;
        n := n + v_n;
        oldest_run_at := least(oldest_run_at, v_run_at);
        EXIT WHEN n >= p_limit;
    END LOOP;
END
$$;
