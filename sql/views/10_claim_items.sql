-- claim_items: every item of every claim with its job and, when it has ended, how and when; outcome NULL: running.
-- Reads:  lease_claim_batches, receipt_completion_batches, lease_claim_closures
-- Writes: nothing
-- Locks:  none
-- Model:  ClaimItems
CREATE VIEW awa.claim_items AS
SELECT b.claim_slot, b.claim_id, b.lane_id, b.runtime_id, b.claimed_at, i.item, i.job_id, i.run_lease,
       c.outcome, c.closed_at
FROM awa.lease_claim_batches b
CROSS JOIN LATERAL (
    SELECT u.item::int2 AS item, u.job_id, u.run_lease
    FROM unnest(b.job_ids, b.run_leases) WITH ORDINALITY AS u (job_id, run_lease, item)
) i
LEFT JOIN LATERAL (SELECT * FROM awa.closed_items(b.claim_slot, b.claim_id)) c ON c.item = i.item;
