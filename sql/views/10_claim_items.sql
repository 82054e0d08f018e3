-- claim_items: every item of every claim with its job and, when it has ended, how and when; outcome NULL: running.
-- Reads:  lease_claim_batches, receipt_completion_batches, lease_claim_closures
-- Writes: nothing
-- Locks:  none
-- Model:  ClaimItems
CREATE VIEW awa.claim_items AS
SELECT b.claim_slot, b.claim_id, b.lane_id, b.runtime_id, b.claimed_at, i.item, i.job_id, i.run_lease,
       i.outcome, i.closed_at
FROM awa.lease_claim_batches b
CROSS JOIN LATERAL (
    SELECT u.item::int2 AS item, u.job_id, u.run_lease, c.outcome, c.closed_at
    FROM unnest(b.job_ids, b.run_leases) WITH ORDINALITY AS u (job_id, run_lease, item)
    LEFT JOIN awa.closed_items(b.claim_slot, b.claim_id) c ON c.item = u.item
    OFFSET 0  -- keeps both expansions at once a claim; flattened, the endings would be expanded again for every item
) i;
