-- finalize_attempts: ends attempts in any way but a compact success. Each outcome is one object: claim_slot, claim_id, token,
-- item, outcome and, as they apply, delay_after (seconds), error, result (JSON as text), ready, deferred, notify (follow-up
-- jobs, as enqueue_jobs takes them). Outcomes:
--   completed  success with a result (kept beside its claim) or follow-up jobs, or of an attempt that has a lease
--   failed     the attempt counts; tried again after delay_after, unless it was the last or delay_after is null
--   rescued    as failed: its worker is gone          expired   as failed: it ran past its deadline
--   snoozed    the attempt does not count; back after delay_after
--   released   the attempt does not count; back to its lane at once, or after delay_after
--   cancelled  ended by request          deleted  ended by request, and no trace kept
--   waiting    parked as a lease until it is ended from outside, or until delay_after has passed (null: for ever)
-- A job that will not be tried again goes where dead_letters says. An attempt's body is its ready row or, when it has one, its
-- lease. A flush handed in again under its id is accepted again; what the engine ends by itself is no flush and has a negative id,
-- which nothing repeats. Returns what was not accepted, as complete_jobs does, and writes nothing for it.
-- Reads:  lease_claim_batches, receipt_completion_batches, lease_claim_closures, ready_entries, ring_rotations, leases,
--         kind_controls, queue_controls, queue_lanes
-- Writes: lease_claim_closures, receipt_results, ready_entries, deferred_jobs, done_entries, dlq_entries, leases
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
    v_now timestamptz;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'awa.finalize_attempts needs READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'AWA01', HINT = 'End attempts on a connection with the default isolation level.';
    END IF;
    -- An outcome that no branch below knows would close the attempt and leave the job nowhere.
    IF EXISTS (SELECT 1 FROM json_to_recordset(p_outcomes) AS o (outcome text, delay_after float8)
               WHERE o.outcome IS NULL
                  OR o.outcome NOT IN ('completed', 'failed', 'rescued', 'expired', 'snoozed', 'released', 'cancelled', 'deleted',
                                       'waiting')
                  OR o.delay_after < 0) THEN
        RAISE EXCEPTION 'awa.finalize_attempts: an outcome is completed, failed, rescued, expired, snoozed, released, cancelled, '
            'deleted or waiting, and delay_after is not negative' USING ERRCODE = 'AWA02';
    END IF;
    SELECT coalesce(array_agg(l.claim_id), '{}') INTO v_locked
    FROM (
        SELECT s.claim_id, awa.try_lock_claim(s.claim_id) AS locked
        FROM (SELECT DISTINCT o.claim_id FROM json_to_recordset(p_outcomes) AS o (claim_id int8) ORDER BY o.claim_id) s
    ) l
    WHERE l.locked;
    v_now := clock_timestamp();

    -- A new statement after the locks: it sees every ending committed by their previous holders.
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT DISTINCT ON (o.claim_id, o.item) o.*, o.claim_id = ANY (v_locked) AS locked
        FROM json_to_recordset(p_outcomes) AS o (
            claim_slot int2, claim_id int8, token int8, item int2, outcome text, delay_after float8, error jsonb,
            result text, ready text, deferred text, notify text[])
    ), closed AS MATERIALIZED (
        -- Once a claim: expanded for every item, the endings of a large claim would be read as often as it has failures.
        SELECT s.claim_id, array_agg(c.item) AS items
        FROM (SELECT DISTINCT g.claim_slot, g.claim_id FROM given g WHERE g.locked) s
        CROSS JOIN LATERAL awa.closed_items(s.claim_slot, s.claim_id) c
        GROUP BY s.claim_id
    ), attempt AS MATERIALIZED (
        SELECT g.claim_slot, g.claim_id, g.item, g.outcome, g.delay_after, g.error, g.result, g.ready, g.deferred, g.notify,
               g.token, false AS has_lease, b.claimed_at, i.run_lease AS new_run_lease,
               r.lane_id, r.job_id, r.run_at, r.created_at, r.attempt, r.max_attempts, r.kind, r.args, r.unique_key, r.payload
        FROM given g
        CROSS JOIN LATERAL (
            SELECT c.claimed_at, c.job_ids, c.run_leases FROM awa.lease_claim_batches c
            WHERE c.claim_slot = g.claim_slot AND c.claim_id = g.claim_id
              AND c.token = g.token AND c.runtime_id = p_runtime_id
            LIMIT 1  -- keeps this a probe an outcome, whatever was in the slot when the plan was made
        ) b
        CROSS JOIN LATERAL (SELECT b.job_ids[g.item] AS job_id, b.run_leases[g.item] AS run_lease) i
        CROSS JOIN LATERAL (
            -- BETWEEN, ORDER BY and LIMIT leave the planner no way but a probe, even of slots it believes to be empty.
            SELECT x.* FROM awa.ready_entries x
            WHERE x.job_id BETWEEN i.job_id AND i.job_id AND x.run_lease = i.run_lease - 1
            ORDER BY x.job_id LIMIT 1
        ) r
        WHERE g.locked AND NOT EXISTS (SELECT 1 FROM closed c WHERE c.claim_id = g.claim_id AND g.item = ANY (c.items))
        UNION ALL
        SELECT g.claim_slot, g.claim_id, g.item, g.outcome, g.delay_after, g.error, g.result, g.ready, g.deferred, g.notify,
               g.token, true, l.claimed_at, l.run_lease,
               l.lane_id, l.job_id, l.run_at, l.created_at, l.attempt, l.max_attempts, l.kind, l.args, l.unique_key, l.payload
        FROM given g
        CROSS JOIN LATERAL (
            SELECT x.* FROM awa.leases x
            WHERE x.claim_id = g.claim_id AND x.item = g.item AND x.token = g.token AND x.runtime_id = p_runtime_id
            LIMIT 1
        ) l
        WHERE g.locked
    ), body AS MATERIALIZED (
        SELECT a.*, (a.attempt + 1)::int2 AS this_attempt,
               CASE
                   WHEN a.outcome = 'completed' AND a.has_lease THEN 'stored'
                   WHEN a.outcome NOT IN ('failed', 'rescued', 'expired') THEN a.outcome
                   WHEN awa.is_exhausted((a.attempt + 1)::int2, a.max_attempts) THEN 'dead'
                   WHEN a.outcome = 'failed' AND a.delay_after IS NULL THEN 'dead'
                   ELSE 'retryable'
               END AS verdict,
               coalesce(a.delay_after, CASE WHEN a.outcome IN ('rescued', 'expired') THEN awa.default_delay(a.attempt) ELSE 0 END)
                   AS seconds,
               awa.append_error(a.payload, coalesce(a.error, CASE a.outcome
                   WHEN 'rescued' THEN jsonb_build_object('attempt', a.attempt + 1, 'at', v_now, 'type', 'WorkerDied',
                                                          'message', 'the worker that ran it is gone')
                   WHEN 'expired' THEN jsonb_build_object('attempt', a.attempt + 1, 'at', v_now, 'type', 'DeadlineExpired',
                                                          'message', 'it had not ended by its deadline')
               END)) AS new_payload
        FROM attempt a
    ), closure AS (
        INSERT INTO awa.lease_claim_closures (claim_id, flush_id, closed_at, item, claim_slot, outcome)
        SELECT b.claim_id, p_flush_id, clock_timestamp(), b.item, b.claim_slot,
               CASE WHEN b.outcome = 'waiting' THEN 'materialised'
                    WHEN b.outcome IN ('rescued', 'expired') THEN b.outcome
                    WHEN b.verdict = 'dead' THEN 'failed'
                    ELSE b.verdict END
        FROM body b
        WHERE NOT b.has_lease  -- whose item was closed when it got its lease
    ), result AS (
        INSERT INTO awa.receipt_results (claim_id, item, claim_slot, result)
        SELECT b.claim_id, b.item, b.claim_slot, b.result::jsonb
        FROM body b
        WHERE b.verdict = 'completed' AND b.result IS NOT NULL
    ), unleased AS (
        DELETE FROM awa.leases l USING body b
        WHERE b.has_lease AND b.outcome <> 'waiting' AND l.claim_id = b.claim_id AND l.item = b.item AND l.token = b.token
    ), parked AS (
        UPDATE awa.leases l SET state = 'waiting', deadline_at = v_now + make_interval(secs => b.delay_after)
        FROM body b
        WHERE b.has_lease AND b.outcome = 'waiting' AND l.claim_id = b.claim_id AND l.item = b.item AND l.token = b.token
    ), leased AS (
        INSERT INTO awa.leases (job_id, claim_id, token, runtime_id, claimed_at, deadline_at, run_at, created_at, lane_id,
                                run_lease, lease_slot, claim_slot, item, attempt, max_attempts, state, kind, args, unique_key,
                                payload)
        SELECT b.job_id, b.claim_id, b.token, p_runtime_id, b.claimed_at, v_now + make_interval(secs => b.delay_after), b.run_at,
               b.created_at, b.lane_id, b.new_run_lease, s.slot, b.claim_slot, b.item, b.attempt, b.max_attempts, 'waiting',
               b.kind, b.args, b.unique_key, b.payload
        FROM body b, awa.current_slot('lease') s
        WHERE b.outcome = 'waiting' AND NOT b.has_lease
    ), ready AS (
        INSERT INTO awa.ready_entries (ready_slot, lane_id, job_id, run_at, created_at, run_lease, attempt, max_attempts,
                                       kind, args, unique_key, payload)
        SELECT s.slot, b.lane_id, b.job_id, b.run_at, b.created_at, b.new_run_lease,
               CASE WHEN b.verdict = 'retryable' THEN b.this_attempt ELSE b.attempt END,
               b.max_attempts, b.kind, b.args, b.unique_key, b.new_payload
        FROM body b, awa.current_slot('queue') s
        WHERE b.seconds <= 0
          AND (b.outcome = 'released' OR (b.verdict = 'retryable' AND b.outcome IN ('rescued', 'expired')))
        ORDER BY b.claim_id, b.item
    ), deferred AS (
        INSERT INTO awa.deferred_jobs (job_id, run_at, created_at, lane_id, run_lease, attempt, max_attempts, state,
                                       kind, args, unique_key, payload)
        SELECT b.job_id, v_now + make_interval(secs => b.seconds), b.created_at, b.lane_id, b.new_run_lease,
               CASE WHEN b.verdict = 'retryable' THEN b.this_attempt ELSE b.attempt END, b.max_attempts,
               CASE WHEN b.verdict = 'retryable' THEN 'retryable' ELSE 'scheduled' END,
               b.kind, b.args, b.unique_key, b.new_payload
        FROM body b
        WHERE b.outcome = 'snoozed' OR (b.outcome = 'failed' AND b.verdict = 'retryable')
           OR (b.seconds > 0 AND (b.outcome = 'released' OR b.verdict = 'retryable'))
    ), done AS (
        INSERT INTO awa.done_entries (job_id, run_at, created_at, claimed_at, finalized_at, lane_id, run_lease,
                                      terminal_slot, attempt, max_attempts, state, kind, args, unique_key, payload)
        SELECT b.job_id, b.run_at, b.created_at, b.claimed_at, v_now, b.lane_id, b.new_run_lease,
               s.slot, b.this_attempt, b.max_attempts,
               CASE b.verdict WHEN 'dead' THEN 'failed' WHEN 'stored' THEN 'completed' ELSE 'cancelled' END,
               b.kind, b.args, b.unique_key,
               awa.with_result(b.new_payload, b.result::jsonb)
        FROM body b, awa.current_slot('terminal') s
        WHERE b.verdict IN ('stored', 'cancelled') OR (b.verdict = 'dead' AND NOT awa.dead_letters(b.lane_id, b.kind))
    ), dead AS (
        INSERT INTO awa.dlq_entries (job_id, run_at, created_at, claimed_at, finalized_at, lane_id, run_lease, attempt,
                                     max_attempts, kind, args, unique_key, payload)
        SELECT b.job_id, b.run_at, b.created_at, b.claimed_at, v_now, b.lane_id, b.new_run_lease, b.this_attempt,
               b.max_attempts, b.kind, b.args, b.unique_key, b.new_payload
        FROM body b
        WHERE b.verdict = 'dead' AND awa.dead_letters(b.lane_id, b.kind)
    ), follow_ups AS MATERIALIZED (
        SELECT count(*)
        FROM body b
        CROSS JOIN LATERAL awa.enqueue_jobs(b.ready::json, b.deferred::json, b.notify)
        WHERE b.ready IS NOT NULL OR b.deferred IS NOT NULL
    )
    SELECT g.claim_id, g.item, CASE WHEN g.locked THEN 'refused' ELSE 'busy' END
    FROM given g
    WHERE (SELECT f.count FROM follow_ups f) >= 0  -- what nobody reads is not run
      AND NOT EXISTS (SELECT 1 FROM body b WHERE b.claim_id = g.claim_id AND b.item = g.item)
      -- The same flush again after a lost acknowledgement: accepted the first time.
      AND NOT EXISTS (SELECT 1 FROM awa.closed_items(g.claim_slot, g.claim_id) c
                      WHERE c.item = g.item AND c.flush_id = p_flush_id AND p_flush_id >= 0
                        AND (c.outcome IN ('completed', 'stored')) = (g.outcome = 'completed'));
END
$$;
