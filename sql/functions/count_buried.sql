-- count_buried: by lane, how many completions that are counted were deleted. From the tombstones, which are few, to their claims, and
-- not the other way round. In the snapshot of the statement that calls it.
-- Reads:  receipt_completion_tombstones, lease_claim_batches
-- Writes: nothing
-- Locks:  none
-- Model:  CountBuried
CREATE OR REPLACE FUNCTION awa.count_buried() RETURNS TABLE (lane_id int4, n int8)
LANGUAGE sql STABLE
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT b.lane_id, sum(t.n)::int8
    FROM (SELECT t.claim_slot, t.claim_id, count(*) AS n FROM awa.receipt_completion_tombstones t
          GROUP BY t.claim_slot, t.claim_id OFFSET 0) t
    CROSS JOIN LATERAL (SELECT b.lane_id FROM awa.lease_claim_batches b
                        WHERE b.claim_slot = t.claim_slot AND b.claim_id = t.claim_id OFFSET 0) b
    GROUP BY b.lane_id
$$;
