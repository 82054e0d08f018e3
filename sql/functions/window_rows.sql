-- window_rows: the unconsumed rows of a lane's window in position order, at most p_limit: first the stragglers, a transaction
-- at a time (a bulk load that ran for ten seconds is one straggler with a million rows, which must not be sorted),
-- then the range from s_prev's end to s_cur's. Every arm is an index range. Inlined into its callers.
-- The arms of UNION ALL run in order, each is ordered by itself, and every straggler lies before the range.
-- Reads:  ready_entries
-- Writes: nothing
-- Locks:  none
-- Model:  WindowRows
CREATE OR REPLACE FUNCTION awa.window_rows(
    p_lane_id int4, p_s_prev pg_snapshot, p_s_cur pg_snapshot, p_pos_xid xid8, p_pos_seq int8,
    p_stragglers xid8[], p_limit int4
) RETURNS SETOF awa.ready_entries
LANGUAGE sql STABLE AS $$
    SELECT w.* FROM (
        SELECT s.* FROM (
            SELECT r.*
            FROM unnest(p_stragglers) AS x (xid)
            CROSS JOIN LATERAL (
                SELECT e.* FROM awa.ready_entries e
                WHERE e.lane_id = p_lane_id AND e.enq_xid = x.xid
                  AND e.lane_seq > CASE WHEN x.xid = p_pos_xid THEN p_pos_seq ELSE 0 END
                ORDER BY e.lane_seq
                LIMIT p_limit
            ) AS r
        ) AS s
        UNION ALL
        SELECT t.* FROM (
            SELECT e.* FROM awa.ready_entries e
            WHERE e.lane_id = p_lane_id
              AND (e.enq_xid, e.lane_seq) > (greatest(p_pos_xid, pg_snapshot_xmax(p_s_prev)),
                                             CASE WHEN p_pos_xid >= pg_snapshot_xmax(p_s_prev) THEN p_pos_seq ELSE 0 END)
              AND e.enq_xid < pg_snapshot_xmax(p_s_cur)
              AND pg_visible_in_snapshot(e.enq_xid, p_s_cur)
            ORDER BY e.enq_xid, e.lane_seq
            LIMIT p_limit
        ) AS t
    ) AS w
    LIMIT p_limit
$$;
