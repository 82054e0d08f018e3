-- enqueue_unique: enqueues jobs that have a unique key, unless the key belongs to another. One object a job: lane_id, kind,
-- args, max_attempts, run_at, payload, deferred, unique_key (hex), period (seconds or null), states, replace. Returns a row a
-- job: its place in p_jobs, its id or that of the key's holder, and whether it was enqueued. Never raises for a conflict: what a
-- conflict means is the client's policy; with replace a holder that has not begun is cancelled and makes room.
-- Keys are taken in their order, so two batches cannot wait for each other. A key taken by an open transaction makes the others
-- who want that key wait for its end; nobody else.
-- Reads:  job_unique_claims, ring_rotations and what get_job and cancel_job read
-- Writes: job_unique_claims, ready_entries, deferred_jobs and, with replace, what cancel_job writes
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
    v_holder awa.job_unique_claims;
    v_id int8;
    v_expires_at timestamptz;
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
        v_expires_at := coalesce(p_now + make_interval(secs => v_job.period), 'infinity');
        LOOP
            INSERT INTO awa.job_unique_claims (unique_key, job_id, expires_at, states)
            VALUES (v_job.key, v_id, v_expires_at, v_job.states)
            ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND;
            -- Without a lock: a conflict that changes nothing must make nobody wait for this transaction.
            SELECT u.* INTO v_holder FROM awa.job_unique_claims u WHERE u.unique_key = v_job.key;
            CONTINUE WHEN NOT FOUND;
            IF awa.holds_unique_key(v_holder.job_id, v_holder.expires_at, v_holder.states, p_now) THEN
                IF NOT (v_job.replace
                        AND EXISTS (SELECT 1 FROM awa.get_job(v_holder.job_id) h
                                    WHERE h.state IN ('available', 'scheduled', 'retryable'))
                        AND awa.cancel_job(v_holder.job_id) = 'cancelled') THEN
                    v_id := NULL;
                    EXIT;
                END IF;
            END IF;
            UPDATE awa.job_unique_claims u SET job_id = v_id, expires_at = v_expires_at, states = v_job.states
            WHERE u.unique_key = v_job.key AND u.job_id = v_holder.job_id;
            EXIT WHEN FOUND;
        END LOOP;
        IF v_id IS NULL THEN
            RETURN QUERY SELECT v_job.place, v_holder.job_id, false;
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
