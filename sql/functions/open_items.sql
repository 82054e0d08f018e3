-- open_items: the items of a claim that have not ended, in order.
-- Reads:  lease_claim_batches and what closed_items reads
-- Writes: nothing
-- Locks:  none
-- Model:  OpenItems
CREATE OR REPLACE FUNCTION awa.open_items(p_claim_slot int2, p_claim_id int8) RETURNS TABLE (item int2)
LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT i.item::int2
    FROM awa.lease_claim_batches b
    CROSS JOIN LATERAL generate_series(1, b.n) AS i (item)
    WHERE b.claim_slot = p_claim_slot AND b.claim_id = p_claim_id
      AND NOT EXISTS (SELECT 1 FROM awa.closed_items(p_claim_slot, p_claim_id) c WHERE c.item = i.item)
    ORDER BY i.item
$$;
