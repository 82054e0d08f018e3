-- claim_jobs: hands out up to p_limit jobs of a queue to one runtime, most urgent lane first, one claim row per lane.
-- p_token is random per call and travels in every receipt; p_deadline_after is in seconds and shared by the claim's jobs.
-- What is constant for a claim stands in its first row only; a job's item is its 1-based place among its claim's rows. A row
-- without a kind is a job that was cancelled before: its item is closed here, and nobody is to run it.
-- Refuses (AWA03) a runtime that is not registered or was declared dead: nobody would rescue what it claims.
-- Aborting the transaction undoes claim and cursor together. The commit may be asynchronous: a claim lost in a crash is
-- claimed again, and an ending for a claim that is gone is refused.
-- Reads:  queue_controls, queue_lanes, runtime_instances, lease_claim_batches, queue_claim_heads, ready_entries,
--         ready_tombstones, ring_rotations
-- Writes: lease_claim_batches, lease_claim_closures
-- Locks:  lane advisory (by TRY; one bounded wait, only while holding none)
-- Model:  ClaimJobs
CREATE OR REPLACE FUNCTION awa.claim_jobs(
    p_queue text, p_limit int4, p_runtime_id int8, p_token int8, p_deadline_after float8 DEFAULT NULL
) RETURNS TABLE (
    claim_id int8, claim_slot int2, priority int2, claimed_at timestamptz, deadline_at timestamptz,
    job_id int8, kind text, args json, attempt int2, max_attempts int2, run_lease int4,
    run_at timestamptz, created_at timestamptz, payload jsonb
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_slot int2;
    v_lanes int4[];
    v_lane_id int4;
    v_priority int2;
    v_best_busy int4;
    v_holds_lane bool := false;
    v_left int4 := p_limit;
    v_got int4;
    v_advanced bool;
    v_window record;
    v_now timestamptz;
    v_deadline timestamptz;
    v_s_prev pg_snapshot;
    v_s_cur pg_snapshot;
    v_pos_xid xid8;
    v_pos_seq int8;
    v_has_tombstones bool;
    v_lives bool;
BEGIN
    -- A snapshot older than the lane's lock would miss the previous claim and hand its jobs out a second time.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'awa.claim_jobs needs READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'AWA01', HINT = 'Claim on a connection of its own with the default isolation level.';
    END IF;
    IF p_limit NOT BETWEEN 1 AND 32767 THEN
        RAISE EXCEPTION 'awa.claim_jobs: p_limit must be between 1 and 32767, not %', p_limit USING ERRCODE = 'AWA02';
    END IF;

    -- Few statements: an idle server's first microseconds are its slowest, and a lone job waits for each of them.
    SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM awa.queue_controls q WHERE q.queue = p_queue AND q.paused_at IS NOT NULL)
                THEN ARRAY(SELECT l.lane_id FROM awa.queue_lanes l WHERE l.queue = p_queue) END,
           EXISTS (SELECT 1 FROM awa.runtime_instances r WHERE r.runtime_id = p_runtime_id AND r.dead_at IS NULL)
    INTO v_lanes, v_lives;
    IF NOT v_lives THEN
        RAISE EXCEPTION 'awa.claim_jobs: runtime % is not registered or was declared dead', p_runtime_id
            USING ERRCODE = 'AWA03', HINT = 'Register under a new id.';
    END IF;
    IF cardinality(v_lanes) > 1 THEN
        v_lanes := awa.lanes_by_urgency(v_lanes);
    END IF;
    FOR v_pass IN 1..2 LOOP
        FOREACH v_lane_id IN ARRAY coalesce(v_lanes, '{}') LOOP
            EXIT WHEN v_left = 0;
            IF v_pass = 1 AND NOT awa.try_lock_lane(v_lane_id) THEN
                v_best_busy := coalesce(v_best_busy, v_lane_id);
                CONTINUE;
            ELSIF v_pass = 2 AND NOT awa.wait_lock_lane(v_lane_id) THEN
                RETURN;
            END IF;
            v_holds_lane := true;

            -- A new statement after the lock: its snapshot sees what the lane's previous holder committed.
            SELECT c.s_prev, c.s_cur, c.pos_xid, c.pos_seq, l.priority, l.has_tombstones, s.slot
            INTO v_s_prev, v_s_cur, v_pos_xid, v_pos_seq, v_priority, v_has_tombstones, v_slot
            FROM awa.lane_cursor(v_lane_id) c, awa.queue_lanes l, awa.current_slot('claim') s
            WHERE l.lane_id = v_lane_id;
            v_got := NULL;
            v_now := clock_timestamp();
            v_deadline := v_now + make_interval(secs => p_deadline_after);
            v_advanced := false;
            LOOP
                IF v_s_prev::text = v_s_cur::text OR v_got = 0 THEN
                    -- The window is used up: the next one holds whatever has committed since it was taken.
                    EXIT WHEN v_advanced;
                    v_s_prev := v_s_cur;
                    v_s_cur := awa.settled_snapshot();
                    v_pos_xid := '0';
                    v_pos_seq := 0;
                    v_advanced := true;
                END IF;
                v_window := awa.window_ranges(v_lane_id, v_s_prev, v_s_cur, v_pos_xid, v_pos_seq);
                RETURN QUERY
                WITH picked AS MATERIALIZED (
                    SELECT row_number() OVER () AS item, w.enq_xid, w.lane_seq, w.ready_slot, w.job_id, w.kind, w.args,
                           w.attempt, w.max_attempts, w.run_lease, w.run_at, w.created_at, w.payload
                    FROM awa.window_rows(v_lane_id, v_s_cur, v_window.from_xids, v_window.from_seqs, v_window.to_xids,
                                         v_left) AS w
                ), claim AS (
                    INSERT INTO awa.lease_claim_batches (
                        claim_id, token, runtime_id, claimed_at, deadline_at, lane_id, n, ready_slots, claim_slot,
                        s_prev, s_cur, pos_xid, pos_seq, job_ids, run_leases)
                    -- Only a claim that hands something out takes a number: idle polls write nothing at all.
                    SELECT nextval('awa.claim_id_seq'), p_token, p_runtime_id, v_now, v_deadline, v_lane_id, count(*),
                           bit_or(1 << p.ready_slot::int4), v_slot,
                           -- Fewer than asked for: the window is used up, and the cursor says so by being empty.
                           CASE WHEN count(*) < v_left THEN v_s_cur ELSE v_s_prev END, v_s_cur,
                           CASE WHEN count(*) < v_left THEN '0' ELSE (array_agg(p.enq_xid))[count(*)] END,
                           CASE WHEN count(*) < v_left THEN 0 ELSE (array_agg(p.lane_seq))[count(*)] END,
                           array_agg(p.job_id), array_agg(p.run_lease + 1)
                    FROM (SELECT * FROM picked ORDER BY item) AS p
                    HAVING count(*) > 0
                    RETURNING claim_id
                )
                SELECT CASE WHEN p.item = 1 THEN (SELECT c.claim_id FROM claim c) END, CASE WHEN p.item = 1 THEN v_slot END,
                       CASE WHEN p.item = 1 THEN v_priority END, CASE WHEN p.item = 1 THEN v_now END,
                       CASE WHEN p.item = 1 THEN v_deadline END,
                       p.job_id,
                       CASE WHEN NOT v_has_tombstones OR NOT EXISTS (
                                SELECT 1 FROM awa.ready_tombstones t
                                WHERE t.lane_id = v_lane_id AND t.enq_xid = p.enq_xid AND t.lane_seq = p.lane_seq)
                            THEN p.kind END,
                       p.args, (p.attempt + 1)::int2, p.max_attempts, p.run_lease + 1,
                       p.run_at, p.created_at, p.payload
                FROM picked p
                ORDER BY p.item;
                GET DIAGNOSTICS v_got = ROW_COUNT;
                IF v_has_tombstones AND v_got > 0 THEN
                    INSERT INTO awa.lease_claim_closures (claim_id, flush_id, closed_at, item, claim_slot, outcome)
                    SELECT b.claim_id, -1, v_now, i.item, v_slot, 'buried'
                    FROM awa.lease_claim_batches b
                    CROSS JOIN LATERAL unnest(b.job_ids, b.run_leases) WITH ORDINALITY AS i (job_id, run_lease, item)
                    JOIN awa.ready_entries r ON r.job_id = i.job_id AND r.run_lease = i.run_lease - 1
                    JOIN awa.ready_tombstones t
                      ON t.lane_id = r.lane_id AND t.enq_xid = r.enq_xid AND t.lane_seq = r.lane_seq
                    WHERE b.claim_slot = v_slot AND b.claim_id = currval('awa.claim_id_seq') AND b.lane_id = v_lane_id;
                END IF;
                v_left := v_left - v_got;
                EXIT WHEN v_got > 0;
            END LOOP;
        END LOOP;
        EXIT WHEN v_holds_lane OR v_best_busy IS NULL;
        v_lanes := ARRAY[v_best_busy];
    END LOOP;
END
$$;
