-- list_jobs: up to p_limit jobs as get_job shows them, the newest ids first, from before p_before_id (NULL: from the newest); of a queue, a
-- kind, a state and ended before an instant where those are given. The last id is the next call's p_before_id: nothing is counted or
-- skipped. Ids are looked up by index where jobs of the state lie, then shown one by one: costs what is shown. Jobs that are available
-- cost the backlog, running ones the claims that are not proved closed, and a rare kind or queue without a state the history.
-- Reads:  queue_lanes, ring_slots, ready_entries, deferred_jobs, leases, done_entries, dlq_entries, lease_claim_batches and what get_job
--         and lane_cursor and waiting_jobs and unfinished_claims and open_items read
-- Writes: nothing
-- Locks:  none
-- Model:  ListJobs
CREATE OR REPLACE FUNCTION awa.list_jobs(
    p_queue text, p_kind text, p_state text, p_ended_before timestamptz, p_before_id int8, p_limit int4
) RETURNS TABLE (
    job_id int8, queue text, priority int2, kind text, args json, state text, attempt int2, max_attempts int2,
    run_lease int4, run_at timestamptz, created_at timestamptz, claimed_at timestamptz, finalized_at timestamptz,
    runtime_id int8, payload jsonb
)
LANGUAGE plpgsql VOLATILE
-- One plan: backwards along the indexes of ids, whatever is known of the tables' sizes.
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashagg = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_lanes int4[] := ARRAY(SELECT l.lane_id FROM awa.queue_lanes l WHERE p_queue IS NULL OR l.queue = p_queue);
    v_before int8 := coalesce(p_before_id, 9223372036854775807);
    v_left int4 := p_limit;
    v_got int4;
    v_ids int8[];
    v_epoch int8;
BEGIN
    LOOP
        LOOP
            v_epoch := awa.prune_epoch();
            v_ids := ARRAY(
                WITH cursors AS MATERIALIZED (
                    SELECT l.lane_id, c.s_prev, c.s_cur, c.pos_xid, c.pos_seq
                    FROM awa.queue_lanes l CROSS JOIN LATERAL awa.lane_cursor(l.lane_id) c
                )
                SELECT c.job_id
                FROM (
                    -- Bodies: what waits, runs or is completed; of a job that was put back there are several.
                    (SELECT DISTINCT r.job_id FROM awa.ready_entries r
                     WHERE p_state IS NULL AND r.job_id < v_before
                       AND (p_queue IS NULL OR r.lane_id = ANY (v_lanes)) AND (p_kind IS NULL OR r.kind = p_kind)
                     ORDER BY r.job_id DESC LIMIT p_limit)
                    UNION ALL
                    (SELECT DISTINCT r.job_id FROM awa.ready_entries r
                     WHERE p_state = 'completed' AND r.job_id < v_before
                       AND (p_queue IS NULL OR r.lane_id = ANY (v_lanes)) AND (p_kind IS NULL OR r.kind = p_kind)
                       AND EXISTS (SELECT 1 FROM cursors k
                                   WHERE k.lane_id = r.lane_id
                                     AND awa.is_consumed(r.enq_xid, r.lane_seq, k.s_prev, k.s_cur, k.pos_xid, k.pos_seq))
                     ORDER BY r.job_id DESC LIMIT p_limit)
                    UNION ALL
                    (SELECT w.job_id FROM unnest(v_lanes) AS l (lane_id) CROSS JOIN LATERAL awa.waiting_jobs(l.lane_id) w
                     WHERE p_state = 'available' AND w.job_id < v_before AND (p_kind IS NULL OR w.kind = p_kind)
                     ORDER BY w.job_id DESC LIMIT p_limit)
                    UNION ALL
                    (SELECT b.job_ids[o.item]
                     FROM awa.unfinished_claims u
                     CROSS JOIN LATERAL awa.open_items(u.claim_slot, u.claim_id) o
                     JOIN awa.lease_claim_batches b ON b.claim_slot = u.claim_slot AND b.claim_id = u.claim_id
                     WHERE p_state = 'running' AND b.job_ids[o.item] < v_before AND u.lane_id = ANY (v_lanes)
                       AND u.claim_slot = ANY (ARRAY(SELECT s.slot FROM awa.ring_slots s
                                                     WHERE s.ring = 'claim' AND s.closed_at IS NULL)))
                    UNION ALL
                    (SELECT e.job_id FROM awa.leases e
                     WHERE (p_state IS NULL OR p_state = e.state) AND e.job_id < v_before
                       AND (p_queue IS NULL OR e.lane_id = ANY (v_lanes)) AND (p_kind IS NULL OR e.kind = p_kind)
                     ORDER BY e.job_id DESC LIMIT p_limit)
                    UNION ALL
                    (SELECT d.job_id FROM awa.deferred_jobs d
                     WHERE (p_state IS NULL OR p_state = d.state) AND d.job_id < v_before
                       AND (p_queue IS NULL OR d.lane_id = ANY (v_lanes)) AND (p_kind IS NULL OR d.kind = p_kind)
                     ORDER BY d.job_id DESC LIMIT p_limit)
                    UNION ALL
                    (SELECT e.job_id FROM awa.done_entries e
                     WHERE (p_state IS NULL OR p_state = e.state) AND e.job_id < v_before
                       AND (p_queue IS NULL OR e.lane_id = ANY (v_lanes)) AND (p_kind IS NULL OR e.kind = p_kind)
                       AND (p_ended_before IS NULL OR e.finalized_at < p_ended_before)
                     ORDER BY e.job_id DESC LIMIT p_limit)
                    UNION ALL
                    (SELECT e.job_id FROM awa.dlq_entries e
                     WHERE (p_state IS NULL OR p_state = 'dead_lettered') AND e.job_id < v_before
                       AND (p_queue IS NULL OR e.lane_id = ANY (v_lanes)) AND (p_kind IS NULL OR e.kind = p_kind)
                       AND (p_ended_before IS NULL OR e.finalized_at < p_ended_before)
                     ORDER BY e.job_id DESC LIMIT p_limit)
                ) c (job_id)
                GROUP BY c.job_id
                ORDER BY c.job_id DESC
                LIMIT p_limit
            );
            -- As in get_job: else a lease that was moved meanwhile might be missed.
            EXIT WHEN awa.prune_epoch() = v_epoch;
        END LOOP;
        -- Each as it is now: what has moved on to another state since is left out.
        RETURN QUERY
        SELECT j.*
        FROM unnest(v_ids) WITH ORDINALITY AS i (job_id, place) CROSS JOIN LATERAL awa.get_job(i.job_id) j
        WHERE (p_queue IS NULL OR j.queue = p_queue) AND (p_kind IS NULL OR j.kind = p_kind)
          AND (p_state IS NULL OR j.state = p_state) AND (p_ended_before IS NULL OR j.finalized_at < p_ended_before)
        ORDER BY i.place
        LIMIT v_left;
        GET DIAGNOSTICS v_got = ROW_COUNT;
        v_left := v_left - v_got;
        EXIT WHEN v_left = 0 OR cardinality(v_ids) < p_limit;
        v_before := v_ids[cardinality(v_ids)];
    END LOOP;
END
$$;
