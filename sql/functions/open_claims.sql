-- open_claims: a runtime's claims with an item that has not ended, oldest first.
-- Reads:  what unfinished_claims reads
-- Writes: nothing
-- Locks:  none
-- Model:  OpenClaims
CREATE OR REPLACE FUNCTION awa.open_claims(p_runtime_id int8) RETURNS TABLE (claim_slot int2, claim_id int8, lane_id int4)
LANGUAGE sql STABLE
SET enable_seqscan = off SET jit = off AS $$
    SELECT u.claim_slot, u.claim_id, u.lane_id FROM awa.unfinished_claims u WHERE u.runtime_id = p_runtime_id ORDER BY u.claim_id
$$;
