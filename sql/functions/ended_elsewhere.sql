-- ended_elsewhere: which of these attempts have ended although their handlers still run: cancelled, expired or rescued.
-- Reads:  receipt_completion_batches, lease_claim_closures, leases
-- Writes: nothing
-- Locks:  none
-- Model:  EndedElsewhere
CREATE OR REPLACE FUNCTION awa.ended_elsewhere(p_claim_slots int2[], p_claim_ids int8[], p_items int2[])
RETURNS TABLE (claim_id int8, item int2, outcome text)
LANGUAGE sql STABLE
SET enable_seqscan = off SET jit = off AS $$
    SELECT i.claim_id, i.item, c.outcome
    FROM unnest(p_claim_slots, p_claim_ids, p_items) AS i (claim_slot, claim_id, item)
    CROSS JOIN LATERAL awa.closed_items(i.claim_slot, i.claim_id) c
    WHERE c.item = i.item
      -- Materialised: it goes on as a lease, and has ended when that is gone.
      AND NOT (c.outcome = 'materialised'
               AND EXISTS (SELECT 1 FROM awa.leases l WHERE l.claim_id = i.claim_id AND l.item = i.item))
$$;
