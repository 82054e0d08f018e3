-- enqueue_unique: enqueues jobs that have a unique key, unless the key belongs to another. One object a job: lane_id, kind,
-- args, max_attempts, run_at, payload, deferred, unique_key (hex), period (seconds or null), states, replace. Returns a row a
-- job: its place in p_jobs, its id or that of the key's holder, and whether it was enqueued. Never raises for a conflict: what a
-- conflict means is the client's policy; with replace a holder that has not begun is cancelled and makes room.
-- Keys are taken in their order, so two batches cannot wait for each other.
-- Reads:  ring_rotations and what take_unique_key reads
-- Writes: ready_entries, deferred_jobs and what take_unique_key writes
-- Locks:  job_unique_claims rows, sorted; with replace the locks of cancel_job
-- Model:  EnqueueUnique
CREATE OR REPLACE FUNCTION awa.enqueue_unique(
    p_jobs json, p_notify text[] DEFAULT NULL, p_now timestamptz DEFAULT clock_timestamp()
) RETURNS TABLE (place int4, job_id int8, is_new bool)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_slot int2;
    v_job record;
    v_holder int8;
    v_id int8;
BEGIN
    SELECT s.slot INTO v_slot FROM awa.current_slot('queue') s;
    FOR v_job IN
        SELECT o.ord::int4 AS place, j.*, decode(j.unique_key, 'hex') AS key
        FROM json_array_elements(p_jobs) WITH ORDINALITY AS o (value, ord)
        CROSS JOIN LATERAL json_to_record(o.value) AS j (
            lane_id int4, kind text, args json, max_attempts int2, run_at timestamptz, payload jsonb, deferred bool,
            unique_key text, period float8, states text[], replace bool)
        ORDER BY j.unique_key, o.ord
    LOOP
        v_id := nextval('awa.job_id_seq');
        v_holder := awa.take_unique_key(v_job.key, v_id, coalesce(p_now + make_interval(secs => v_job.period), 'infinity'),
                                        v_job.states, v_job.replace, NULL, p_now);
        IF v_holder IS NOT NULL THEN
            RETURN QUERY SELECT v_job.place, v_holder, false;
            CONTINUE;
        END IF;
        IF v_job.deferred THEN
            INSERT INTO awa.deferred_jobs (job_id, lane_id, kind, args, max_attempts, run_at, payload, unique_key)
            VALUES (v_id, v_job.lane_id, v_job.kind, v_job.args, v_job.max_attempts, v_job.run_at, v_job.payload, v_job.key);
        ELSE
            INSERT INTO awa.ready_entries (job_id, ready_slot, lane_id, kind, args, max_attempts, run_at, payload, unique_key)
            VALUES (v_id, v_slot, v_job.lane_id, v_job.kind, v_job.args, v_job.max_attempts, coalesce(v_job.run_at, now()),
                    v_job.payload, v_job.key);
        END IF;
        RETURN QUERY SELECT v_job.place, v_id, true;
    END LOOP;
    PERFORM pg_notify('awa', q.queue) FROM unnest(p_notify) AS q (queue);
END
$$;
