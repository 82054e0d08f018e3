-- expire_attempt: ends one attempt of a runtime, running or leased, as past its deadline: its process does not answer any more.
-- Returns finalize_attempts' verdict, NULL when it was accepted, 'unknown' when there is no such attempt.
-- Reads:  lease_claim_batches, leases and what finalize_attempts reads
-- Writes: what finalize_attempts writes
-- Locks:  claim advisory (by TRY)
-- Model:  ExpireAttempt
CREATE OR REPLACE FUNCTION awa.expire_attempt(p_runtime_id int8, p_claim_id int8, p_item int2) RETURNS text
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off AS $$
DECLARE
    v_claim record;
BEGIN
    SELECT b.claim_slot, b.token INTO v_claim FROM awa.lease_claim_batches b
    WHERE b.claim_id = p_claim_id AND b.runtime_id = p_runtime_id;
    IF NOT FOUND THEN
        SELECT l.claim_slot, l.token INTO v_claim FROM awa.leases l
        WHERE l.claim_id = p_claim_id AND l.item = p_item AND l.runtime_id = p_runtime_id;
    END IF;
    IF NOT FOUND THEN
        RETURN 'unknown';
    END IF;
    RETURN (SELECT f.verdict FROM awa.finalize_attempts(p_runtime_id, -1, json_build_array(json_build_object(
        'claim_slot', v_claim.claim_slot, 'claim_id', p_claim_id, 'token', v_claim.token, 'item', p_item,
        'outcome', 'expired'))) f);
END
$$;
