-- closed_items: the items of a claim that have ended, each once, with their outcome. The only text that says "closed".
-- Inlined into its callers; a claim's evidence lies in the claim's own slot, so one partition is touched.
-- Reads:  receipt_completion_batches, lease_claim_closures
-- Writes: nothing
-- Locks:  none
-- Model:  ClosedItems
CREATE OR REPLACE FUNCTION awa.closed_items(p_claim_slot int2, p_claim_id int8)
RETURNS TABLE (item int2, outcome text, flush_id int8, closed_at timestamptz)
LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT i.item, 'completed', c.flush_id, c.completed_at
    FROM awa.receipt_completion_batches c
    -- items is NULL when one flush completed the whole claim, whose size is then its own n
    CROSS JOIN LATERAL unnest(coalesce(c.items, ARRAY(SELECT generate_series(1, c.n)::int2))) AS i (item)
    WHERE c.claim_slot = p_claim_slot AND c.claim_id = p_claim_id
    UNION ALL
    SELECT x.item, x.outcome, x.flush_id, x.closed_at
    FROM awa.lease_claim_closures x
    WHERE x.claim_slot = p_claim_slot AND x.claim_id = p_claim_id
$$;
