-- claim_of: the claim that consumed a position: the oldest of the lane's claims whose cursor has passed it. Cursors of a lane
-- only move forward, so it is found by halving the range of claim ids. NULL when no claim row of the lane has passed it.
-- Reads:  lease_claim_batches
-- Writes: nothing
-- Locks:  none
-- Model:  ClaimOf
CREATE OR REPLACE FUNCTION awa.claim_of(p_lane_id int4, p_enq_xid xid8, p_lane_seq int8)
RETURNS awa.lease_claim_batches
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_low int8;
    v_high int8;
    v_middle int8;
    v_claim awa.lease_claim_batches;
    v_found awa.lease_claim_batches;
BEGIN
    -- As in lane_cursor: conditions and order that only the lane's own index can serve.
    SELECT b.claim_id INTO v_low FROM awa.lease_claim_batches b
    WHERE b.lane_id BETWEEN p_lane_id AND p_lane_id ORDER BY b.lane_id, b.claim_id LIMIT 1;
    SELECT b.claim_id INTO v_high FROM awa.lease_claim_batches b
    WHERE b.lane_id BETWEEN p_lane_id AND p_lane_id ORDER BY b.lane_id DESC, b.claim_id DESC LIMIT 1;
    WHILE v_low <= v_high LOOP
        v_middle := v_low + (v_high - v_low) / 2;
        SELECT b.* INTO v_claim FROM awa.lease_claim_batches b
        WHERE (b.lane_id, b.claim_id) >= (p_lane_id, v_middle) AND (b.lane_id, b.claim_id) <= (p_lane_id, v_high)
        ORDER BY b.lane_id, b.claim_id LIMIT 1;
        IF NOT FOUND THEN
            v_high := v_middle - 1;
        ELSIF awa.is_consumed(p_enq_xid, p_lane_seq, v_claim.s_prev, v_claim.s_cur, v_claim.pos_xid, v_claim.pos_seq) THEN
            v_found := v_claim;
            v_high := v_middle - 1;
        ELSE
            v_low := v_claim.claim_id + 1;
        END IF;
    END LOOP;
    RETURN v_found;
END
$$;
