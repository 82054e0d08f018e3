-- end_external: ends an attempt that waits for the world outside, on its behalf: by its job (only while it waits) or by its
-- receipt (from the moment it was registered, so that an answer may overtake the parking). p_outcome is one outcome of
-- finalize_attempts without a receipt; failed with delay_after -1 takes the default delay. Returns 'accepted', 'refused' or
-- 'busy' (it is being ended by somebody: again).
-- Reads:  leases, queue_lanes, ring_slots and what finalize_attempts reads
-- Writes: what finalize_attempts writes
-- Locks:  claim advisory (by TRY)
-- Model:  EndExternal
CREATE OR REPLACE FUNCTION awa.end_external(
    p_job_id int8, p_claim_id int8, p_item int2, p_token int8, p_outcome jsonb
) RETURNS text
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_lease awa.leases;
    v_epoch int8;
    v_verdict text;
    v_outcome jsonb := p_outcome;
BEGIN
    LOOP
        v_epoch := awa.prune_epoch();
        IF p_job_id IS NULL THEN
            SELECT l.* INTO v_lease FROM awa.leases l
            WHERE l.claim_id = p_claim_id AND l.item = p_item AND l.token = p_token;
        ELSE
            SELECT l.* INTO v_lease FROM awa.leases l WHERE l.job_id = p_job_id AND l.state = 'waiting';
        END IF;
        EXIT WHEN FOUND;
        IF awa.prune_epoch() = v_epoch THEN  -- else it may have moved to another slot under the look
            RETURN 'refused';
        END IF;
    END LOOP;
    IF (v_outcome ->> 'delay_after')::float8 = -1 THEN
        v_outcome := v_outcome || jsonb_build_object('delay_after', awa.default_delay(v_lease.attempt + 1));
    END IF;
    IF v_outcome ? 'error' THEN
        v_outcome := jsonb_set(v_outcome, '{error,attempt}', to_jsonb(v_lease.attempt + 1));
    END IF;
    SELECT f.verdict INTO v_verdict FROM awa.finalize_attempts(v_lease.runtime_id, -1, json_build_array(
        v_outcome || jsonb_build_object('claim_slot', v_lease.claim_slot, 'claim_id', v_lease.claim_id,
                                        'token', v_lease.token, 'item', v_lease.item))) f;
    IF v_verdict IS NULL THEN
        PERFORM pg_notify('awa', q.queue) FROM awa.queue_lanes q WHERE q.lane_id = v_lease.lane_id;
    END IF;
    RETURN coalesce(v_verdict, 'accepted');
END
$$;
