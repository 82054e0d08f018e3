-- end_own_job: ends an attempt of a job that the calling transaction has enqueued itself, as next_own_job gave it. p_outcome is
-- one outcome of finalize_attempts without a receipt, and may have claimed_at (when the attempt began), said (progress and
-- checkpoint, which go into the payload) and, to wait under a name that was given before, claim_id and token. Returns the
-- verdict: the outcome, or what failed means here, retryable or dead; NULL when the transaction has no such job waiting.
-- The job's ready row is deleted and not buried: a row that one transaction writes and deletes was never there for anybody else,
-- whether or not that commits, so no claim, cursor, count or lock can know of it. (A tombstone would have to hold the lane's lock
-- until the end of a transaction that lasts as long as a test.) If the transaction commits, the ending stands like any other.
-- Reads:  ready_entries, ready_tombstones, ring_rotations, kind_controls, queue_controls, queue_lanes
-- Writes: ready_entries, deferred_jobs, done_entries, dlq_entries, leases
-- Locks:  none
-- Model:  EndOwnJob
CREATE OR REPLACE FUNCTION awa.end_own_job(p_job_id int8, p_outcome jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_outcome record;
    v_verdict text;
    v_seconds float8;
    v_payload jsonb;
    v_row awa.ready_entries;
BEGIN
    SELECT o.* INTO v_outcome FROM jsonb_to_record(p_outcome) AS o (
        outcome text, delay_after float8, error jsonb, result text, ready text, deferred text, notify text[],
        claimed_at timestamptz, said jsonb, claim_id int8, token int8);
    IF v_outcome.outcome IS NULL
       OR v_outcome.outcome NOT IN ('completed', 'failed', 'snoozed', 'released', 'cancelled', 'waiting')
       OR v_outcome.delay_after < 0 THEN
        RAISE EXCEPTION 'awa.end_own_job: an outcome is completed, failed, snoozed, released, cancelled or waiting, '
            'and delay_after is not negative' USING ERRCODE = 'AWA02';
    END IF;
    DELETE FROM awa.ready_entries r
    WHERE r.job_id BETWEEN p_job_id AND p_job_id AND r.enq_xid = pg_current_xact_id_if_assigned()
      AND NOT EXISTS (SELECT 1 FROM awa.ready_tombstones t
                      WHERE t.lane_id = r.lane_id AND t.enq_xid = r.enq_xid AND t.lane_seq = r.lane_seq)
    RETURNING r.* INTO v_row;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    v_verdict := CASE
        WHEN v_outcome.outcome <> 'failed' THEN v_outcome.outcome
        WHEN v_outcome.delay_after IS NULL OR awa.is_exhausted((v_row.attempt + 1)::int2, v_row.max_attempts) THEN 'dead'
        ELSE 'retryable' END;
    v_seconds := coalesce(v_outcome.delay_after, 0);
    v_payload := awa.append_error(v_row.payload, v_outcome.error);
    IF v_outcome.said IS NOT NULL THEN
        v_payload := coalesce(v_payload, '{}') || v_outcome.said;
    END IF;

    IF v_verdict = 'released' AND v_seconds <= 0 THEN
        INSERT INTO awa.ready_entries (ready_slot, lane_id, job_id, run_at, created_at, run_lease, attempt, max_attempts,
                                       kind, args, unique_key, payload)
        SELECT s.slot, v_row.lane_id, v_row.job_id, v_row.run_at, v_row.created_at, v_row.run_lease + 1, v_row.attempt,
               v_row.max_attempts, v_row.kind, v_row.args, v_row.unique_key, v_payload
        FROM awa.current_slot('queue') s;
    ELSIF v_verdict IN ('snoozed', 'released', 'retryable') THEN
        INSERT INTO awa.deferred_jobs (job_id, run_at, created_at, lane_id, run_lease, attempt, max_attempts, state,
                                       kind, args, unique_key, payload)
        SELECT v_row.job_id, v_now + make_interval(secs => v_seconds), v_row.created_at, v_row.lane_id, v_row.run_lease + 1,
               v_row.attempt + (v_verdict = 'retryable')::int, v_row.max_attempts,
               CASE WHEN v_verdict = 'retryable' THEN 'retryable' ELSE 'scheduled' END,
               v_row.kind, v_row.args, v_row.unique_key, v_payload;
    ELSIF v_verdict = 'waiting' THEN
        INSERT INTO awa.leases (job_id, claim_id, token, runtime_id, claimed_at, deadline_at, run_at, created_at, lane_id,
                                run_lease, lease_slot, claim_slot, item, attempt, max_attempts, state, kind, args, unique_key,
                                payload)
        SELECT v_row.job_id, coalesce(v_outcome.claim_id, nextval('awa.claim_id_seq')), coalesce(v_outcome.token, 0), 0,
               coalesce(v_outcome.claimed_at, v_now), v_now + make_interval(secs => v_outcome.delay_after), v_row.run_at,
               v_row.created_at, v_row.lane_id, v_row.run_lease + 1, s.slot, c.slot, 1, v_row.attempt, v_row.max_attempts,
               'waiting', v_row.kind, v_row.args, v_row.unique_key, v_payload
        FROM awa.current_slot('lease') s, awa.current_slot('claim') c;
    ELSIF v_verdict = 'dead' AND awa.dead_letters(v_row.lane_id, v_row.kind) THEN
        INSERT INTO awa.dlq_entries (job_id, run_at, created_at, claimed_at, finalized_at, lane_id, run_lease, attempt,
                                     max_attempts, kind, args, unique_key, payload)
        SELECT v_row.job_id, v_row.run_at, v_row.created_at, coalesce(v_outcome.claimed_at, v_now), v_now, v_row.lane_id,
               v_row.run_lease + 1, v_row.attempt + 1, v_row.max_attempts, v_row.kind, v_row.args, v_row.unique_key, v_payload;
    ELSE
        INSERT INTO awa.done_entries (job_id, run_at, created_at, claimed_at, finalized_at, lane_id, run_lease,
                                      terminal_slot, attempt, max_attempts, state, kind, args, unique_key, payload)
        SELECT v_row.job_id, v_row.run_at, v_row.created_at, coalesce(v_outcome.claimed_at, v_now), v_now, v_row.lane_id,
               v_row.run_lease + 1, s.slot, v_row.attempt + 1, v_row.max_attempts,
               CASE v_verdict WHEN 'dead' THEN 'failed' ELSE v_verdict END, v_row.kind, v_row.args, v_row.unique_key,
               awa.with_result(v_payload, v_outcome.result::jsonb)
        FROM awa.current_slot('terminal') s;
    END IF;
    IF v_outcome.ready IS NOT NULL OR v_outcome.deferred IS NOT NULL THEN
        PERFORM awa.enqueue_jobs(v_outcome.ready::json, v_outcome.deferred::json, v_outcome.notify);
    END IF;
    RETURN v_verdict;
END
$$;
