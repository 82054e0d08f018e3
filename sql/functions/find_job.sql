-- find_job: one job as awa.jobs shows it, found by point probes whatever the size of the history. No row: no such job, or a prune
-- came between: see get_job.
-- Reads:  deferred_jobs, done_entries, dlq_entries, leases, ready_entries, ready_tombstones, queue_lanes, lease_claim_batches,
--         queue_claim_heads, receipt_completion_batches, lease_claim_closures, receipt_completion_tombstones, receipt_results
-- Writes: nothing
-- Locks:  none
-- Model:  FindJob
CREATE OR REPLACE FUNCTION awa.find_job(p_job_id int8) RETURNS TABLE (
    job_id int8, queue text, priority int2, kind text, args json, state text, attempt int2, max_attempts int2,
    run_lease int4, run_at timestamptz, created_at timestamptz, claimed_at timestamptz, finalized_at timestamptz,
    runtime_id int8, payload jsonb
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_row awa.ready_entries;
    v_claim awa.lease_claim_batches;
    v_item int2;
    v_outcome text;
    v_closed_at timestamptz;
    v_consumed bool;
    v_result jsonb;
BEGIN
    RETURN QUERY
        SELECT d.job_id, l.queue, l.priority, d.kind, d.args, d.state, d.attempt, d.max_attempts, d.run_lease, d.run_at,
               d.created_at, NULL::timestamptz, NULL::timestamptz, NULL::int8, d.payload
        FROM awa.deferred_jobs d JOIN awa.queue_lanes l ON l.lane_id = d.lane_id WHERE d.job_id = p_job_id;
    IF FOUND THEN RETURN; END IF;
    RETURN QUERY
        SELECT e.job_id, l.queue, l.priority, e.kind, e.args, e.state, e.attempt, e.max_attempts, e.run_lease, e.run_at,
               e.created_at, e.claimed_at, e.finalized_at, NULL::int8, e.payload
        -- BETWEEN and ORDER BY leave the planner no index but job_id's, even when the slots were empty as it made the plan.
        FROM (SELECT x.* FROM awa.done_entries x
              WHERE x.job_id BETWEEN p_job_id AND p_job_id ORDER BY x.job_id LIMIT 1) e
        JOIN awa.queue_lanes l ON l.lane_id = e.lane_id;
    IF FOUND THEN RETURN; END IF;
    RETURN QUERY
        SELECT e.job_id, l.queue, l.priority, e.kind, e.args, 'dead_lettered', e.attempt, e.max_attempts, e.run_lease, e.run_at,
               e.created_at, e.claimed_at, e.finalized_at, NULL::int8, e.payload
        FROM awa.dlq_entries e JOIN awa.queue_lanes l ON l.lane_id = e.lane_id WHERE e.job_id = p_job_id;
    IF FOUND THEN RETURN; END IF;
    RETURN QUERY
        SELECT e.job_id, l.queue, l.priority, e.kind, e.args, e.state, (e.attempt + 1)::int2, e.max_attempts, e.run_lease,
               e.run_at, e.created_at, e.claimed_at, NULL::timestamptz,
               CASE WHEN e.state = 'running' THEN e.runtime_id END, e.payload
        FROM (SELECT x.* FROM awa.leases x
              WHERE x.job_id BETWEEN p_job_id AND p_job_id ORDER BY x.job_id LIMIT 1) e
        JOIN awa.queue_lanes l ON l.lane_id = e.lane_id;
    IF FOUND THEN RETURN; END IF;

    -- Of a job that was put back there are several bodies; the one of its latest claim or the unclaimed one counts.
    SELECT r.* INTO v_row FROM awa.ready_entries r WHERE r.job_id = p_job_id ORDER BY r.run_lease DESC LIMIT 1;
    IF NOT FOUND THEN RETURN; END IF;
    SELECT awa.is_consumed(v_row.enq_xid, v_row.lane_seq, c.s_prev, c.s_cur, c.pos_xid, c.pos_seq) INTO v_consumed
    FROM awa.lane_cursor(v_row.lane_id) c;
    IF v_consumed THEN
        v_claim := awa.claim_of(v_row.lane_id, v_row.enq_xid, v_row.lane_seq);
        v_item := awa.item_of(v_claim, p_job_id, v_row.run_lease + 1);
        IF v_item IS NULL THEN RETURN; END IF;
        SELECT c.outcome, c.closed_at INTO v_outcome, v_closed_at
        FROM awa.closed_items(v_claim.claim_slot, v_claim.claim_id) c WHERE c.item = v_item;
        -- Ended otherwise than completed and in none of the tables above: it was deleted.
        IF v_outcome <> 'completed' OR EXISTS (
            SELECT 1 FROM awa.receipt_completion_tombstones t
            WHERE t.claim_slot = v_claim.claim_slot AND t.claim_id = v_claim.claim_id AND t.item = v_item) THEN
            RETURN;
        END IF;
        SELECT x.result INTO v_result FROM awa.receipt_results x
        WHERE x.claim_slot = v_claim.claim_slot AND x.claim_id = v_claim.claim_id AND x.item = v_item;
    ELSIF EXISTS (SELECT 1 FROM awa.ready_tombstones t
                  WHERE t.lane_id = v_row.lane_id AND t.enq_xid = v_row.enq_xid AND t.lane_seq = v_row.lane_seq) THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT v_row.job_id, l.queue, l.priority, v_row.kind, v_row.args,
               CASE WHEN NOT v_consumed THEN 'available' ELSE coalesce(v_outcome, 'running') END,
               CASE WHEN v_consumed THEN (v_row.attempt + 1)::int2 ELSE v_row.attempt END, v_row.max_attempts,
               CASE WHEN v_consumed THEN v_row.run_lease + 1 ELSE v_row.run_lease END, v_row.run_at, v_row.created_at,
               v_claim.claimed_at, v_closed_at, CASE WHEN v_consumed AND v_outcome IS NULL THEN v_claim.runtime_id END,
               awa.with_result(v_row.payload, v_result)
        FROM awa.queue_lanes l WHERE l.lane_id = v_row.lane_id;
END
$$;
