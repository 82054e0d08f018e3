-- count_closed_claims: counts the completions of claim slots that are not proved closed yet, the current one too, when more than
-- p_min_claims of their claims are not counted; how many claims it counted. A fast count looks at the rest claim by claim.
-- Does nothing when a lane stays busy, or somebody else is about it: there is a next time.
-- Reads:  ring_slots, lease_claim_batches
-- Writes: what add_claim_counts writes
-- Locks:  what await_lanes and add_claim_counts lock
-- Model:  CountClosedClaims
CREATE OR REPLACE FUNCTION awa.count_closed_claims(p_min_claims int4) RETURNS int4
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET lock_timeout = '10ms' AS $$
DECLARE
    v_slot record;
    v_newest int8;
    v_many bool;
    v_counted int4 := 0;
BEGIN
    FOR v_slot IN
        SELECT s.slot, s.counted_to, s.uncounted FROM awa.ring_slots s WHERE s.ring = 'claim' AND s.closed_at IS NULL ORDER BY s.slot
    LOOP
        EXECUTE format($sql$
            SELECT cardinality($2) + (SELECT count(*) FROM (SELECT 1 FROM awa.%1$I b WHERE b.claim_id > $1 LIMIT $3 + 1) b) > $3,
                   (SELECT max(b.claim_id) FROM awa.%1$I b)
            $sql$, 'lease_claim_batches_' || v_slot.slot)
        INTO v_many, v_newest USING v_slot.counted_to, v_slot.uncounted, p_min_claims;
        CONTINUE WHEN NOT v_many;
        -- Claims with smaller ids may be under way on other lanes.
        IF NOT awa.await_lanes() THEN
            EXIT;
        END IF;
        v_counted := v_counted + awa.add_claim_counts(v_slot.slot, v_newest);
    END LOOP;
    RETURN v_counted;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END
$$;
