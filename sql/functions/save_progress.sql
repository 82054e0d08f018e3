-- save_progress: keeps what a running attempt says of itself, on a lease of its own, which it gets here the first time: the item
-- of its claim is closed as materialised, and the lease is what ends from then on. NULL leaves the former progress or
-- checkpoint. Returns 'saved', 'refused' (the attempt has ended) or 'busy' (its claim is being ended by somebody: again).
-- Reads:  lease_claim_batches, receipt_completion_batches, lease_claim_closures, ready_entries, ring_rotations, leases
-- Writes: leases, lease_claim_closures
-- Locks:  claim advisory (by TRY)
-- Model:  SaveProgress
CREATE OR REPLACE FUNCTION awa.save_progress(
    p_runtime_id int8, p_claim_slot int2, p_claim_id int8, p_token int8, p_item int2, p_progress jsonb, p_checkpoint jsonb
) RETURNS text
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_said jsonb := '{}';
BEGIN
    IF NOT awa.try_lock_claim(p_claim_id) THEN
        RETURN 'busy';
    END IF;
    IF p_progress IS NOT NULL THEN
        v_said := v_said || jsonb_build_object('progress', p_progress);
    END IF;
    IF p_checkpoint IS NOT NULL THEN
        v_said := v_said || jsonb_build_object('checkpoint', p_checkpoint);
    END IF;
    UPDATE awa.leases l SET payload = coalesce(l.payload, '{}') || v_said
    WHERE l.claim_id = p_claim_id AND l.item = p_item AND l.token = p_token AND l.runtime_id = p_runtime_id;
    IF FOUND THEN
        RETURN 'saved';
    END IF;
    WITH body AS (
        SELECT b.claimed_at, b.deadline_at, i.run_lease AS new_run_lease, r.*
        FROM awa.lease_claim_batches b
        CROSS JOIN LATERAL unnest(b.job_ids, b.run_leases) WITH ORDINALITY AS i (job_id, run_lease, item)
        JOIN awa.ready_entries r ON r.job_id = i.job_id AND r.run_lease = i.run_lease - 1
        WHERE b.claim_slot = p_claim_slot AND b.claim_id = p_claim_id AND b.token = p_token AND b.runtime_id = p_runtime_id
          AND i.item = p_item
          AND NOT EXISTS (SELECT 1 FROM awa.closed_items(p_claim_slot, p_claim_id) c WHERE c.item = p_item)
    ), closure AS (
        INSERT INTO awa.lease_claim_closures (claim_id, flush_id, closed_at, item, claim_slot, outcome)
        SELECT p_claim_id, -1, clock_timestamp(), p_item, p_claim_slot, 'materialised' FROM body
    )
    INSERT INTO awa.leases (job_id, claim_id, token, runtime_id, claimed_at, deadline_at, run_at, created_at, lane_id, run_lease,
                            lease_slot, claim_slot, item, attempt, max_attempts, state, kind, args, unique_key, payload)
    SELECT b.job_id, p_claim_id, p_token, p_runtime_id, b.claimed_at, b.deadline_at, b.run_at, b.created_at, b.lane_id,
           b.new_run_lease, s.slot, p_claim_slot, p_item, b.attempt, b.max_attempts, 'running', b.kind, b.args, b.unique_key,
           coalesce(b.payload, '{}') || v_said
    FROM body b, awa.current_slot('lease') s;
    RETURN CASE WHEN FOUND THEN 'saved' ELSE 'refused' END;
END
$$;
