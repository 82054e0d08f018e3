-- end_job: ends a job from outside, wherever it is: p_outcome 'cancelled' ends what has not ended and keeps it as such, 'deleted' removes
-- a job in any state and keeps nothing. Returns p_outcome, 'ended' (it had, and is not to be deleted), 'unknown' (no committed job of
-- that id) or 'busy' (something holds its lane or claim for longer than a moment: again). A running one is announced on the channel
-- awa_cancel, and its late ending is refused. Runs in a short transaction: it may hold its lane's lock until the end of it.
-- Reads:  leases, ready_entries, ready_tombstones, done_entries, dlq_entries, lease_claim_batches, queue_claim_heads,
--         receipt_completion_tombstones, ring_rotations, queue_lanes and what get_job and finalize_attempts read
-- Writes: deferred_jobs, done_entries, dlq_entries, ready_tombstones, receipt_completion_tombstones, queue_lanes and what
--         finalize_attempts writes
-- Locks:  lane advisory (a wait of 10 ms) or claim advisory (by TRY); deferred_jobs row
-- Model:  EndJob
CREATE OR REPLACE FUNCTION awa.end_job(p_job_id int8, p_outcome text) RETURNS text
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off SET lock_timeout = '1s' AS $$
DECLARE
    v_row awa.ready_entries;
    v_lease awa.leases;
    v_claim awa.lease_claim_batches;
    v_item int2;
    v_cursor record;
    v_verdict text;
    v_error jsonb;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'awa.end_job needs READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'AWA01', HINT = 'End jobs on a connection of its own with the default isolation level.';
    END IF;
    -- Each look is a statement of its own: a job that moves on between two of them is met by the next round.
    FOR v_round IN 1..5 LOOP
        WITH gone AS (
            DELETE FROM awa.deferred_jobs d WHERE d.job_id = p_job_id RETURNING d.*
        ), done AS (
            INSERT INTO awa.done_entries (job_id, run_at, created_at, finalized_at, lane_id, run_lease, terminal_slot, attempt,
                                          max_attempts, state, kind, args, unique_key, payload)
            SELECT g.job_id, g.run_at, g.created_at, clock_timestamp(), g.lane_id, g.run_lease, s.slot, g.attempt,
                   g.max_attempts, 'cancelled', g.kind, g.args, g.unique_key, g.payload
            FROM gone g, awa.current_slot('terminal') s
            WHERE p_outcome = 'cancelled'
        )
        SELECT p_outcome INTO v_verdict FROM gone;
        IF FOUND THEN
            RETURN v_verdict;
        END IF;
        IF p_outcome = 'deleted' THEN
            DELETE FROM awa.done_entries e WHERE e.job_id = p_job_id;
            IF FOUND THEN
                RETURN 'deleted';
            END IF;
            DELETE FROM awa.dlq_entries e WHERE e.job_id = p_job_id;
            IF FOUND THEN
                RETURN 'deleted';
            END IF;
        ELSIF EXISTS (SELECT 1 FROM awa.done_entries e WHERE e.job_id BETWEEN p_job_id AND p_job_id)
              OR EXISTS (SELECT 1 FROM awa.dlq_entries e WHERE e.job_id = p_job_id) THEN
            RETURN 'ended';
        END IF;
        v_claim := NULL;
        SELECT l.* INTO v_lease FROM awa.leases l WHERE l.job_id = p_job_id;
        IF FOUND THEN
            v_claim.claim_slot := v_lease.claim_slot;
            v_claim.claim_id := v_lease.claim_id;
            v_claim.token := v_lease.token;
            v_claim.runtime_id := v_lease.runtime_id;
            v_item := v_lease.item;
        ELSE
            SELECT r.* INTO v_row FROM awa.ready_entries r WHERE r.job_id = p_job_id ORDER BY r.run_lease DESC LIMIT 1;
            IF NOT FOUND THEN
                -- A job without a body may have ended, or its lease may have moved, between two of the looks: one look settles it.
                CONTINUE WHEN EXISTS (SELECT 1 FROM awa.get_job(p_job_id));
                RETURN 'unknown';
            END IF;
            IF NOT awa.wait_lock_lane(v_row.lane_id) THEN
                RETURN 'busy';
            END IF;
            -- A new statement after the lock: it sees what the last claim has taken.
            SELECT c.* INTO v_cursor FROM awa.lane_cursor(v_row.lane_id) c;
            IF NOT awa.is_consumed(v_row.enq_xid, v_row.lane_seq, v_cursor.s_prev, v_cursor.s_cur, v_cursor.pos_xid,
                                   v_cursor.pos_seq) THEN
                IF EXISTS (SELECT 1 FROM awa.ready_tombstones t WHERE t.job_id = p_job_id AND t.enq_xid = v_row.enq_xid
                           AND t.lane_seq = v_row.lane_seq) THEN
                    -- Cancelled while these looks were taken, or deleted.
                    CONTINUE WHEN EXISTS (SELECT 1 FROM awa.get_job(p_job_id));
                    RETURN 'unknown';
                END IF;
                INSERT INTO awa.ready_tombstones (ready_slot, lane_id, enq_xid, lane_seq, job_id, reason)
                VALUES (v_row.ready_slot, v_row.lane_id, v_row.enq_xid, v_row.lane_seq, p_job_id, p_outcome);
                UPDATE awa.queue_lanes l SET has_tombstones = true WHERE l.lane_id = v_row.lane_id AND NOT l.has_tombstones;
                INSERT INTO awa.done_entries (job_id, run_at, created_at, finalized_at, lane_id, run_lease, terminal_slot,
                                              attempt, max_attempts, state, kind, args, unique_key, payload)
                -- The claim that will pass over it uses up one more lease, so that no pair of job and lease comes twice.
                SELECT v_row.job_id, v_row.run_at, v_row.created_at, clock_timestamp(), v_row.lane_id, v_row.run_lease + 1,
                       s.slot, v_row.attempt, v_row.max_attempts, 'cancelled', v_row.kind, v_row.args, v_row.unique_key,
                       v_row.payload
                FROM awa.current_slot('terminal') s
                WHERE p_outcome = 'cancelled';
                RETURN p_outcome;
            END IF;
            v_claim := awa.claim_of(v_row.lane_id, v_row.enq_xid, v_row.lane_seq);
            v_item := awa.item_of(v_claim, p_job_id, v_row.run_lease + 1);
            IF v_item IS NULL THEN
                CONTINUE WHEN EXISTS (SELECT 1 FROM awa.get_job(p_job_id));
                RETURN 'unknown';
            END IF;
            IF EXISTS (SELECT 1 FROM awa.closed_items(v_claim.claim_slot, v_claim.claim_id) c
                       WHERE c.item = v_item AND c.outcome = 'completed') THEN
                IF p_outcome = 'cancelled' THEN
                    RETURN CASE WHEN EXISTS (SELECT 1 FROM awa.get_job(p_job_id)) THEN 'ended' ELSE 'unknown' END;
                END IF;
                -- Its completion stays, as every closure does; the tombstone says that it counts no more. Of a claim that is being
                -- pruned there is none to be left behind.
                INSERT INTO awa.receipt_completion_tombstones (claim_id, item, claim_slot)
                SELECT b.claim_id, v_item, b.claim_slot FROM awa.lease_claim_batches b
                WHERE b.claim_slot = v_claim.claim_slot AND b.claim_id = v_claim.claim_id
                ON CONFLICT DO NOTHING;
                RETURN CASE WHEN FOUND THEN 'deleted' ELSE 'unknown' END;
            END IF;
        END IF;
        v_error := CASE p_outcome WHEN 'cancelled' THEN
            jsonb_build_object('at', clock_timestamp(), 'type', 'Cancel', 'message', 'cancelled while it ran') END;
        v_verdict := NULL;
        SELECT f.verdict INTO v_verdict FROM awa.finalize_attempts(v_claim.runtime_id, -1, json_build_array(json_build_object(
            'claim_slot', v_claim.claim_slot, 'claim_id', v_claim.claim_id, 'token', v_claim.token, 'item', v_item,
            'outcome', p_outcome, 'error', v_error))) f;
        IF v_verdict IS NULL THEN
            PERFORM pg_notify('awa_cancel', v_claim.claim_id || ':' || v_item);
            RETURN p_outcome;
        ELSIF v_verdict = 'busy' THEN
            RETURN 'busy';
        ELSIF NOT EXISTS (SELECT 1 FROM awa.get_job(p_job_id)) THEN
            RETURN 'unknown';  -- the attempt had ended, and the job was deleted then or later
        END IF;
    END LOOP;
    RETURN 'busy';
EXCEPTION WHEN lock_not_available THEN
    RETURN 'busy';
END
$$;
