-- lane_cursor: where a lane stands: the newest by claim_id of its claims, its saved head and the beginning of time.
-- Slots are not pruned in order, so an older claim row can outlive a newer saved head: neither kind is preferred as such.
-- The beginning is an empty window that ends before the first transaction; the first claim advances past it like past any.
-- Reads:  lease_claim_batches, queue_claim_heads
-- Writes: nothing
-- Locks:  none (a claimer holds the lane's lock and calls this in a statement after it)
-- Model:  LaneCursor
CREATE OR REPLACE FUNCTION awa.lane_cursor(p_lane_id int4)
RETURNS TABLE (claim_id int8, s_prev pg_snapshot, s_cur pg_snapshot, pos_xid xid8, pos_seq int8)
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT c.claim_id, c.s_prev, c.s_cur, c.pos_xid, c.pos_seq
    FROM (
        (SELECT b.claim_id, b.s_prev, b.s_cur, b.pos_xid, b.pos_seq
         FROM awa.lease_claim_batches b
         -- BETWEEN and both sort keys, so that only the lane's own index gives the order: for "lane_id =" a planner that knows
         -- of one lane finds the index on claim_id as good, and reads every claim of the others for a lane that has none.
         WHERE b.lane_id BETWEEN p_lane_id AND p_lane_id ORDER BY b.lane_id DESC, b.claim_id DESC LIMIT 1)
        UNION ALL
        SELECT h.claim_id, h.s_prev, h.s_cur, h.pos_xid, h.pos_seq
        FROM awa.queue_claim_heads h WHERE h.lane_id = p_lane_id
        UNION ALL
        SELECT 0, '1:1:'::pg_snapshot, '1:1:'::pg_snapshot, '0'::xid8, 0
    ) c
    ORDER BY c.claim_id DESC
    LIMIT 1
$$;
