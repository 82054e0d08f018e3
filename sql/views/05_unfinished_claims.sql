-- unfinished_claims: claims with an item that has not ended. Two sums a claim; which items those are say closed_items and open_items.
-- Reads:  lease_claim_batches, receipt_completion_batches, lease_claim_closures
-- Writes: nothing
-- Locks:  none
-- Model:  UnfinishedClaims
CREATE VIEW awa.unfinished_claims AS
SELECT b.claim_slot, b.claim_id, b.lane_id, b.runtime_id, b.token, b.n - completed.n - closed.n AS open
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
WHERE b.n > completed.n + closed.n;
