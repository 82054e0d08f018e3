-- open_claims: a runtime's claims with an item that has not ended, oldest first.
-- Reads:  lease_claim_batches, receipt_completion_batches, lease_claim_closures
-- Writes: nothing
-- Locks:  none
-- Model:  OpenClaims
CREATE OR REPLACE FUNCTION awa.open_claims(p_runtime_id int8) RETURNS TABLE (claim_slot int2, claim_id int8, lane_id int4)
LANGUAGE sql STABLE
SET enable_seqscan = off SET jit = off AS $$
    SELECT b.claim_slot, b.claim_id, b.lane_id
    FROM awa.lease_claim_batches b
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(c.n), 0) AS n FROM awa.receipt_completion_batches c
        WHERE c.claim_slot = b.claim_slot AND c.claim_id = b.claim_id
        OFFSET 0  -- keeps both a probe a claim
    ) completed
    CROSS JOIN LATERAL (
        SELECT count(*) AS n FROM awa.lease_claim_closures x
        WHERE x.claim_slot = b.claim_slot AND x.claim_id = b.claim_id
        OFFSET 0
    ) closed
    WHERE b.runtime_id = p_runtime_id AND b.n > completed.n + closed.n
    ORDER BY b.claim_id
$$;
