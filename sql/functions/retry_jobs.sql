-- retry_jobs: puts jobs that have failed, were cancelled or lie in the dead-letter queue back to their lanes, at once and with all their
-- attempts before them; their errors stay. Returns a row for each: 'retried', 'conflict' (another job has its unique key), 'unfinished',
-- 'completed' (enqueue it anew) or 'unknown'. Wakes the queues.
-- Reads:  queue_lanes, ring_rotations and what get_job and retake_unique_key read
-- Writes: done_entries, dlq_entries, ready_entries and what retake_unique_key writes
-- Locks:  rows of done_entries, then of dlq_entries, sorted by job id, as discard_jobs; job_unique_claims rows, sorted, as enqueue_unique
-- Model:  RetryJobs
CREATE OR REPLACE FUNCTION awa.retry_jobs(p_job_ids int8[], p_now timestamptz DEFAULT clock_timestamp())
RETURNS TABLE (job_id int8, verdict text)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_id int8;
    v_job record;
    v_state text;
    v_lanes int4[] := '{}';
BEGIN
    -- All rows before the first key: whoever waited for a row while it held a key could be waited for by an enqueue that holds another.
    PERFORM 1 FROM awa.done_entries e
    WHERE e.job_id = ANY (p_job_ids) AND e.state IN ('failed', 'cancelled') ORDER BY e.job_id FOR UPDATE;
    PERFORM 1 FROM awa.dlq_entries e WHERE e.job_id = ANY (p_job_ids) ORDER BY e.job_id FOR UPDATE;
    FOR v_id IN
        SELECT i.id
        FROM (SELECT DISTINCT u.id FROM unnest(p_job_ids) AS u (id)) i
        LEFT JOIN LATERAL (
            SELECT x.unique_key FROM awa.done_entries x WHERE x.job_id BETWEEN i.id AND i.id AND x.state IN ('failed', 'cancelled')
            ORDER BY x.job_id LIMIT 1
        ) e ON true
        LEFT JOIN awa.dlq_entries d ON d.job_id = i.id
        ORDER BY coalesce(e.unique_key, d.unique_key), i.id
    LOOP
        SELECT e.job_id, e.created_at, e.lane_id, e.run_lease, e.max_attempts, e.kind, e.args, e.unique_key, e.payload, 'done' AS lies
        INTO v_job
        FROM awa.done_entries e
        WHERE e.job_id BETWEEN v_id AND v_id AND e.state IN ('failed', 'cancelled') ORDER BY e.job_id LIMIT 1 FOR UPDATE;
        IF NOT FOUND THEN
            SELECT e.job_id, e.created_at, e.lane_id, e.run_lease, e.max_attempts, e.kind, e.args, e.unique_key, e.payload, 'dlq' AS lies
            INTO v_job
            FROM awa.dlq_entries e WHERE e.job_id = v_id FOR UPDATE;
        END IF;
        IF NOT FOUND THEN
            v_state := (SELECT j.state FROM awa.get_job(v_id) j);
            RETURN QUERY SELECT v_id, CASE WHEN v_state IS NULL THEN 'unknown' WHEN v_state = 'completed' THEN 'completed'
                                           ELSE 'unfinished' END;
            CONTINUE;
        END IF;
        IF v_job.unique_key IS NOT NULL AND NOT awa.retake_unique_key(v_job.unique_key, v_id, p_now) THEN
            RETURN QUERY SELECT v_id, 'conflict';
            CONTINUE;
        END IF;
        IF v_job.lies = 'done' THEN
            DELETE FROM awa.done_entries e WHERE e.job_id = v_id;
        ELSE
            DELETE FROM awa.dlq_entries e WHERE e.job_id = v_id;
        END IF;
        INSERT INTO awa.ready_entries (ready_slot, lane_id, job_id, run_at, created_at, run_lease, attempt, max_attempts,
                                       kind, args, unique_key, payload)
        SELECT s.slot, v_job.lane_id, v_id, p_now, v_job.created_at, v_job.run_lease, 0, v_job.max_attempts, v_job.kind, v_job.args,
               v_job.unique_key, v_job.payload
        FROM awa.current_slot('queue') s;
        v_lanes := v_lanes || v_job.lane_id;
        RETURN QUERY SELECT v_id, 'retried';
    END LOOP;
    PERFORM pg_notify('awa', l.queue) FROM awa.queue_lanes l WHERE l.lane_id = ANY (v_lanes) GROUP BY l.queue;
END
$$;
