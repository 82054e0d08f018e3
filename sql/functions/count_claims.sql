-- count_claims: by lane, how many items of claims are open, and how many are completed. Exact: of all claims. Otherwise of those whose
-- completions are not in the live counts; no item of the others is open. In the snapshot of the statement that calls it.
-- Reads:  ring_slots, lease_claim_batches, receipt_completion_batches, lease_claim_closures
-- Writes: nothing
-- Locks:  none
-- Model:  CountClaims
CREATE OR REPLACE FUNCTION awa.count_claims(p_exact bool) RETURNS TABLE (lane_id int4, open int8, completed int8)
LANGUAGE sql STABLE
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
    WITH slots AS MATERIALIZED (
        -- After which claim, and which before it, a claim slot's claims are counted one by one.
        SELECT s.slot, CASE WHEN p_exact THEN 0 ELSE s.counted_to END AS after, CASE WHEN p_exact THEN '{}' ELSE s.uncounted END AS besides
        FROM awa.ring_slots s WHERE s.ring = 'claim'
    ), claims AS (
        -- Grouped, not joined: whatever the planner expects to find, that is done in one pass.
        SELECT max(u.lane_id) AS lane_id, sum(u.open) AS open, sum(u.completed) AS completed
        FROM (SELECT s.slot, i.*
              FROM slots s
              CROSS JOIN LATERAL (
                  SELECT b.claim_id, b.lane_id, b.n AS open, 0 AS completed FROM awa.lease_claim_batches b
                  WHERE b.claim_slot = s.slot AND (b.claim_id > s.after OR b.claim_id = ANY (s.besides))
                  UNION ALL
                  SELECT c.claim_id, NULL, -c.n, c.n FROM awa.receipt_completion_batches c
                  WHERE c.claim_slot = s.slot AND (c.claim_id > s.after OR c.claim_id = ANY (s.besides))
                  UNION ALL
                  SELECT x.claim_id, NULL, -1, (x.outcome = 'completed')::int4 FROM awa.lease_claim_closures x
                  WHERE x.claim_slot = s.slot AND (x.claim_id > s.after OR x.claim_id = ANY (s.besides))
              ) i) u
        GROUP BY u.slot, u.claim_id
    )
    SELECT c.lane_id, sum(c.open)::int8, sum(c.completed)::int8 FROM claims c GROUP BY c.lane_id
$$;
