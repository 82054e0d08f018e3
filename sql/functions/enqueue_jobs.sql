-- enqueue_jobs: appends any number of jobs in the caller's transaction and returns their ids, first those of p_ready, then
-- those of p_deferred, each in the order given. Which is which, the lanes and the limits are the client's plan (awa.plan).
-- p_notify names the queues to wake when the transaction commits: NULL when the caller wakes them itself after the commit.
-- Reads:  ring_rotations
-- Writes: ready_entries, deferred_jobs
-- Locks:  none: an open transaction that has enqueued blocks nobody
-- Model:  EnqueueJobs
CREATE OR REPLACE FUNCTION awa.enqueue_jobs(p_ready json, p_deferred json, p_notify text[] DEFAULT NULL)
RETURNS SETOF int8
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_slot int2;
BEGIN
    IF p_ready IS NOT NULL THEN
        SELECT s.slot INTO v_slot FROM awa.current_slot('queue') s;  -- once, not once a row
        RETURN QUERY
        INSERT INTO awa.ready_entries (ready_slot, lane_id, kind, args, max_attempts, run_at, payload)
        SELECT v_slot, j.lane_id, j.kind, j.args, j.max_attempts, coalesce(j.run_at, now()), j.payload
        FROM json_to_recordset(p_ready)
             AS j (lane_id int4, kind text, args json, max_attempts int2, run_at timestamptz, payload jsonb)
        RETURNING job_id;
    END IF;
    IF p_deferred IS NOT NULL THEN
        RETURN QUERY
        INSERT INTO awa.deferred_jobs (lane_id, kind, args, max_attempts, run_at, payload)
        SELECT j.lane_id, j.kind, j.args, j.max_attempts, j.run_at, j.payload
        FROM json_to_recordset(p_deferred)
             AS j (lane_id int4, kind text, args json, max_attempts int2, run_at timestamptz, payload jsonb)
        RETURNING job_id;
    END IF;
    IF p_notify IS NOT NULL THEN
        PERFORM pg_notify('awa', q.queue) FROM unnest(p_notify) AS q (queue);
    END IF;
END
$$;
