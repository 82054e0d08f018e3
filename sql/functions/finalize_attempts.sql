-- finalize_attempts: ends attempts in any way but a plain success. Each outcome is one object: claim_slot, claim_id, token,
-- item, outcome and, as they apply, delay_after (seconds) and error. Outcomes:
--   failed    the attempt counts; exhausted: done_entries (failed), else deferred_jobs (retryable) for delay_after
--   released  the attempt does not count; back to its lane at once, or after delay_after through deferred_jobs (scheduled)
-- Returns what was not accepted, as complete_jobs does, and writes nothing for it.
-- Reads:  lease_claim_batches, receipt_completion_batches, lease_claim_closures, ready_entries, ring_rotations
-- Writes: lease_claim_closures, ready_entries, deferred_jobs, done_entries
-- Locks:  claim advisory (by TRY, sorted)
-- Model:  FinalizeAttempts
CREATE OR REPLACE FUNCTION awa.finalize_attempts(p_runtime_id int8, p_flush_id int8, p_outcomes json)
RETURNS TABLE (claim_id int8, item int2, verdict text)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_locked int8[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'awa.finalize_attempts needs READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'AWA01', HINT = 'End attempts on a connection with the default isolation level.';
    END IF;
    -- An outcome that no branch below knows would close the attempt and leave the job nowhere.
    IF EXISTS (SELECT 1 FROM json_to_recordset(p_outcomes) AS o (outcome text, delay_after float8)
               WHERE o.outcome IS NULL OR o.outcome NOT IN ('failed', 'released') OR o.delay_after < 0) THEN
        RAISE EXCEPTION 'awa.finalize_attempts: an outcome is failed or released, and delay_after is not negative'
            USING ERRCODE = 'AWA02';
    END IF;
    SELECT coalesce(array_agg(l.claim_id), '{}') INTO v_locked
    FROM (
        SELECT s.claim_id, awa.try_lock_claim(s.claim_id) AS locked
        FROM (SELECT DISTINCT o.claim_id FROM json_to_recordset(p_outcomes) AS o (claim_id int8) ORDER BY o.claim_id) s
    ) l
    WHERE l.locked;

    -- A new statement after the locks: it sees every ending committed by their previous holders.
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT DISTINCT ON (o.claim_id, o.item) o.*, o.claim_id = ANY (v_locked) AS locked
        FROM json_to_recordset(p_outcomes) AS o (
            claim_slot int2, claim_id int8, token int8, item int2, outcome text, delay_after float8, error jsonb)
    ), body AS MATERIALIZED (
        SELECT g.claim_slot, g.claim_id, g.item, g.outcome, g.delay_after, g.error, b.claimed_at,
               i.run_lease AS new_run_lease, (r.attempt + 1)::int2 AS this_attempt, r.*
        FROM given g
        CROSS JOIN LATERAL (
            SELECT c.claimed_at, c.job_ids, c.run_leases FROM awa.lease_claim_batches c
            WHERE c.claim_slot = g.claim_slot AND c.claim_id = g.claim_id
              AND c.token = g.token AND c.runtime_id = p_runtime_id
            LIMIT 1  -- keeps this a probe an outcome, whatever was in the slot when the plan was made
        ) b
        CROSS JOIN LATERAL (
            SELECT u.job_id, u.run_lease
            FROM unnest(b.job_ids, b.run_leases) WITH ORDINALITY AS u (job_id, run_lease, item)
            WHERE u.item = g.item
        ) i
        JOIN awa.ready_entries r ON r.job_id = i.job_id AND r.run_lease = i.run_lease - 1
        WHERE g.locked
          AND NOT EXISTS (SELECT 1 FROM awa.closed_items(g.claim_slot, g.claim_id) c WHERE c.item = g.item)
    ), closure AS (
        INSERT INTO awa.lease_claim_closures (claim_id, flush_id, closed_at, item, claim_slot, outcome)
        SELECT b.claim_id, p_flush_id, clock_timestamp(), b.item, b.claim_slot,
               CASE WHEN b.outcome = 'failed' AND NOT awa.is_exhausted(b.this_attempt, b.max_attempts) THEN 'retryable'
                    ELSE b.outcome END
        FROM body b
    ), ready AS (
        INSERT INTO awa.ready_entries (ready_slot, lane_id, job_id, run_at, created_at, run_lease, attempt, max_attempts,
                                       kind, args, unique_key, payload)
        SELECT s.slot, b.lane_id, b.job_id, b.run_at, b.created_at, b.new_run_lease, b.attempt,
               b.max_attempts, b.kind, b.args, b.unique_key, b.payload
        FROM body b, awa.current_slot('queue') s
        WHERE b.outcome = 'released' AND coalesce(b.delay_after, 0) <= 0
        ORDER BY b.claim_id, b.item
    ), deferred AS (
        INSERT INTO awa.deferred_jobs (job_id, run_at, created_at, lane_id, run_lease, attempt, max_attempts, state,
                                       kind, args, unique_key, payload)
        SELECT b.job_id, clock_timestamp() + make_interval(secs => coalesce(b.delay_after, 0)), b.created_at, b.lane_id, b.new_run_lease,
               CASE WHEN b.outcome = 'failed' THEN b.this_attempt ELSE b.attempt END, b.max_attempts,
               CASE WHEN b.outcome = 'failed' THEN 'retryable' ELSE 'scheduled' END,
               b.kind, b.args, b.unique_key, awa.append_error(b.payload, b.error)
        FROM body b
        WHERE (b.outcome = 'failed' AND NOT awa.is_exhausted(b.this_attempt, b.max_attempts))
           OR (b.outcome = 'released' AND b.delay_after > 0)
    ), done AS (
        INSERT INTO awa.done_entries (job_id, run_at, created_at, claimed_at, finalized_at, lane_id, run_lease,
                                      terminal_slot, attempt, max_attempts, state, kind, args, unique_key, payload)
        SELECT b.job_id, b.run_at, b.created_at, b.claimed_at, clock_timestamp(), b.lane_id, b.new_run_lease,
               s.slot, b.this_attempt, b.max_attempts, 'failed', b.kind, b.args, b.unique_key,
               awa.append_error(b.payload, b.error)
        FROM body b, awa.current_slot('terminal') s
        WHERE b.outcome = 'failed' AND awa.is_exhausted(b.this_attempt, b.max_attempts)
    )
    SELECT g.claim_id, g.item, CASE WHEN g.locked THEN 'refused' ELSE 'busy' END
    FROM given g
    WHERE NOT EXISTS (SELECT 1 FROM body b WHERE b.claim_id = g.claim_id AND b.item = g.item)
      -- The same flush again after a lost acknowledgement: accepted the first time.
      AND NOT EXISTS (SELECT 1 FROM awa.closed_items(g.claim_slot, g.claim_id) c
                      WHERE c.item = g.item AND c.flush_id = p_flush_id AND c.outcome <> 'completed');
END
$$;
