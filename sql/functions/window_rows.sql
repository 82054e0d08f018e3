-- window_rows: the unconsumed rows of a lane's window in position order, at most p_limit (all when NULL). Inlined into its
-- callers. The nested loop takes the ranges in their order and the index gives each in its own, so nothing is ever sorted.
-- Reads:  ready_entries
-- Writes: nothing
-- Locks:  none
-- Model:  WindowRows
CREATE OR REPLACE FUNCTION awa.window_rows(
    p_lane_id int4, p_s_cur pg_snapshot, p_from_xids xid8[], p_from_seqs int8[], p_to_xids xid8[], p_limit int4
) RETURNS SETOF awa.ready_entries
LANGUAGE sql STABLE AS $$
    SELECT r.*
    FROM unnest(p_from_xids, p_from_seqs, p_to_xids) AS w (from_xid, from_seq, to_xid)
    CROSS JOIN LATERAL (
        SELECT e.* FROM awa.ready_entries e
        WHERE e.lane_id = p_lane_id
          AND (e.enq_xid, e.lane_seq) > (w.from_xid, w.from_seq)
          AND e.enq_xid <= w.to_xid
          AND pg_visible_in_snapshot(e.enq_xid, p_s_cur)
        ORDER BY e.enq_xid, e.lane_seq
        LIMIT p_limit
    ) AS r
    LIMIT p_limit
$$;
