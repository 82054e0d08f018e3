-- is_consumed: whether a lane's cursor has passed a position. The only text that says so.
-- A row is consumed when its transaction was over in s_prev, or was over in s_cur and the row lies at or before pos.
-- Pure arithmetic on stored values: it needs no lock and holds in every database that stores the same values.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  IsConsumed
CREATE OR REPLACE FUNCTION awa.is_consumed(
    p_enq_xid xid8, p_lane_seq int8, p_s_prev pg_snapshot, p_s_cur pg_snapshot, p_pos_xid xid8, p_pos_seq int8
) RETURNS bool
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT pg_visible_in_snapshot(p_enq_xid, p_s_prev)
        OR (pg_visible_in_snapshot(p_enq_xid, p_s_cur) AND (p_enq_xid, p_lane_seq) <= (p_pos_xid, p_pos_seq))
$$;
