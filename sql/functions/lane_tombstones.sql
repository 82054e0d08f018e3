-- lane_tombstones: how many cancelled jobs of a lane its cursor has still to pass.
-- Reads:  ready_tombstones, lease_claim_batches, queue_claim_heads
-- Writes: nothing
-- Locks:  none
-- Model:  LaneTombstones
CREATE OR REPLACE FUNCTION awa.lane_tombstones(p_lane_id int4) RETURNS int8
LANGUAGE sql STABLE AS $$
    SELECT count(*)
    FROM awa.ready_tombstones t
    CROSS JOIN awa.lane_cursor(p_lane_id) c
    WHERE t.lane_id = p_lane_id
      AND NOT awa.is_consumed(t.enq_xid, t.lane_seq, c.s_prev, c.s_cur, c.pos_xid, c.pos_seq)
$$;
