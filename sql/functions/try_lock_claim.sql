-- try_lock_claim: takes a claim's ending lock until the transaction ends, or says false at once. Two claims whose ids
-- agree in their low 31 bits share a key, which costs a retry and nothing else. The class number is "awa" and 2.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  claim advisory (by TRY)
-- Model:  TryLockClaim
CREATE OR REPLACE FUNCTION awa.try_lock_claim(p_claim_id int8) RETURNS bool
LANGUAGE sql VOLATILE AS $$
    SELECT pg_try_advisory_xact_lock(1635213570, (p_claim_id & 2147483647)::int4)
$$;
