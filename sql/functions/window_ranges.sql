-- window_ranges: where the unconsumed rows of a lane's window lie, as index ranges in position order: first each straggler (a
-- transaction that was in progress in s_prev, is over in s_cur, is not behind pos and has a row in the lane), one range each,
-- because a bulk load that ran for ten seconds is one straggler with a million rows; then all that began after s_prev.
-- Once pos is past the stragglers they cost nothing, so a lane pays for old transactions only at a window's start.
-- A range is every position after (from_xid, from_seq) up to the transaction to_xid. Called under its callers' settings.
-- Reads:  ready_entries
-- Writes: nothing
-- Locks:  none
-- Model:  WindowRanges
CREATE OR REPLACE FUNCTION awa.window_ranges(
    p_lane_id int4, p_s_prev pg_snapshot, p_s_cur pg_snapshot, p_pos_xid xid8, p_pos_seq int8,
    OUT from_xids xid8[], OUT from_seqs int8[], OUT to_xids xid8[]
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_xmax xid8 := pg_snapshot_xmax(p_s_prev);
BEGIN
    IF p_pos_xid >= v_xmax THEN
        from_xids := ARRAY[p_pos_xid];
        from_seqs := ARRAY[p_pos_seq];
        to_xids := ARRAY[pg_snapshot_xmax(p_s_cur)];
        RETURN;
    END IF;
    IF pg_snapshot_xmin(p_s_prev) < v_xmax THEN
        SELECT array_agg(x.xid), array_agg(CASE WHEN x.xid = p_pos_xid THEN p_pos_seq ELSE 0 END)
        INTO from_xids, from_seqs
        FROM (
            SELECT s.xid
            FROM pg_snapshot_xip(p_s_prev) AS s (xid)
            -- LIMIT keeps this a probe a transaction; an EXISTS could be planned as one hash of the whole slot.
            CROSS JOIN LATERAL (
                SELECT 1 FROM awa.ready_entries r WHERE r.lane_id = p_lane_id AND r.enq_xid = s.xid LIMIT 1
            ) AS has_row
            WHERE s.xid >= p_pos_xid AND pg_visible_in_snapshot(s.xid, p_s_cur)
            ORDER BY s.xid
        ) x;
    END IF;
    -- lane_seq begins at 1, so a range that begins at (xid, 0) holds all of xid.
    to_xids := from_xids || pg_snapshot_xmax(p_s_cur);
    from_xids := from_xids || v_xmax;
    from_seqs := from_seqs || 0::int8;
END
$$;
