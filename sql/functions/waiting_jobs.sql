-- waiting_jobs: the jobs of a lane that no claim has taken yet, in the lane's order; lane_backlog counts them. Costs the backlog, not the
-- history. Cancelled jobs that no claim has passed yet are among them.
-- Reads:  what lane_cursor and window_ranges and window_rows read
-- Writes: nothing
-- Locks:  none
-- Model:  WaitingJobs
CREATE OR REPLACE FUNCTION awa.waiting_jobs(p_lane_id int4) RETURNS TABLE (job_id int8, kind text)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_cursor record;
    v_window record;
    v_until pg_snapshot;
BEGIN
    SELECT * INTO v_cursor FROM awa.lane_cursor(p_lane_id);
    FOR v_pass IN 1..2 LOOP
        IF v_pass = 1 THEN
            v_until := v_cursor.s_cur;
            v_window := awa.window_ranges(p_lane_id, v_cursor.s_prev, v_until, v_cursor.pos_xid, v_cursor.pos_seq);
        ELSE
            v_until := awa.settled_snapshot();
            v_window := awa.window_ranges(p_lane_id, v_cursor.s_cur, v_until, '0', 0);
        END IF;
        RETURN QUERY
        SELECT w.job_id, w.kind
        FROM awa.window_rows(p_lane_id, v_until, v_window.from_xids, v_window.from_seqs, v_window.to_xids, NULL) AS w;
    END LOOP;
END
$$;
