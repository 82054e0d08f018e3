-- window_stragglers: the transactions that were in progress in s_prev, are over in s_cur, are not behind pos and have a row
-- in the lane, in order. Empty once pos has left them behind, so a lane pays for old transactions only at a window's start.
-- Reads:  ready_entries
-- Writes: nothing
-- Locks:  none
-- Model:  WindowStragglers
CREATE OR REPLACE FUNCTION awa.window_stragglers(
    p_lane_id int4, p_s_prev pg_snapshot, p_s_cur pg_snapshot, p_pos_xid xid8
) RETURNS xid8[]
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
    IF p_pos_xid >= pg_snapshot_xmax(p_s_prev) THEN
        RETURN '{}';
    END IF;
    RETURN ARRAY(
        SELECT x.xid
        FROM pg_snapshot_xip(p_s_prev) AS x (xid)
        -- LIMIT keeps this a probe a transaction; an EXISTS could be planned as one hash of the whole slot.
        CROSS JOIN LATERAL (
            SELECT 1 FROM awa.ready_entries r WHERE r.lane_id = p_lane_id AND r.enq_xid = x.xid LIMIT 1
        ) AS has_row
        WHERE x.xid >= p_pos_xid AND pg_visible_in_snapshot(x.xid, p_s_cur)
        ORDER BY x.xid
    );
END
$$;
