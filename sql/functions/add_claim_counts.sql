-- add_claim_counts: adds the completions of a slot's claims up to p_to to the live counts, each claim once and only when every item of
-- it has ended; the others are remembered, and looked at again in the next call. How many claims it counted.
-- Hazard: p_to has to be settled, so that no claim up to it can still appear in the slot: see await_lanes.
-- Reads:  lease_claim_batches, receipt_completion_batches, lease_claim_closures, queue_lanes and what unfinished_claims reads
-- Writes: ring_slots, queue_terminal_live_counts
-- Locks:  the slot's row in ring_slots, counter rows, sorted
-- Model:  AddClaimCounts
CREATE OR REPLACE FUNCTION awa.add_claim_counts(p_slot int2, p_to int8) RETURNS int4
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_counted_to int8;
    v_uncounted int8[];
    v_counted int4;
BEGIN
    -- Two at once take turns.
    SELECT s.counted_to, s.uncounted INTO v_counted_to, v_uncounted
    FROM awa.ring_slots s WHERE s.ring = 'claim' AND s.slot = p_slot FOR NO KEY UPDATE;
    -- A new statement after the lock, on one slot's children, planned for what is in them now.
    EXECUTE format($sql$
        WITH looked AS MATERIALIZED (
            SELECT b.claim_id, b.lane_id FROM awa.%1$I b WHERE b.claim_id > $1 AND b.claim_id <= $2 OR b.claim_id = ANY ($3)
        ), unfinished AS MATERIALIZED (
            SELECT u.claim_id FROM awa.unfinished_claims u
            WHERE u.claim_slot = %4$s AND (u.claim_id > $1 AND u.claim_id <= $2 OR u.claim_id = ANY ($3))
        ), counted AS MATERIALIZED (
            SELECT k.claim_id, k.lane_id FROM looked k WHERE NOT EXISTS (SELECT 1 FROM unfinished u WHERE u.claim_id = k.claim_id)
        ), completed AS (
            SELECT k.lane_id, c.n FROM counted k
            CROSS JOIN LATERAL (SELECT x.n FROM awa.%2$I x WHERE x.claim_id = k.claim_id OFFSET 0) c
            UNION ALL
            SELECT k.lane_id, 1 FROM counted k
            -- The index begins with the slot: without it, servers that cannot skip a column read it whole for each claim.
            CROSS JOIN LATERAL (SELECT 1 FROM awa.%3$I x WHERE x.claim_slot = %4$s AND x.claim_id = k.claim_id
                                AND x.outcome = 'completed' OFFSET 0) c
        ), added AS (
            INSERT INTO awa.queue_terminal_live_counts AS t (ring, slot, queue, state, n)
            SELECT 'claim', %4$s, l.queue, 'completed', sum(c.n)
            FROM completed c JOIN awa.queue_lanes l ON l.lane_id = c.lane_id
            GROUP BY l.queue
            ORDER BY l.queue
            ON CONFLICT (ring, slot, queue, state) DO UPDATE SET n = t.n + excluded.n
        ), marked AS (
            UPDATE awa.ring_slots s
            SET counted_to = greatest($1, $2), uncounted = ARRAY(SELECT u.claim_id FROM unfinished u ORDER BY u.claim_id)
            WHERE s.ring = 'claim' AND s.slot = %4$s
        )
        SELECT count(*) FROM counted
        $sql$, 'lease_claim_batches_' || p_slot, 'receipt_completion_batches_' || p_slot, 'lease_claim_closures_' || p_slot, p_slot)
    INTO v_counted USING v_counted_to, p_to, v_uncounted;
    RETURN v_counted;
END
$$;
