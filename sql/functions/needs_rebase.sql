-- needs_rebase: whether the database stores transaction ids from the future, as after a restore from pg_dump into a younger cluster.
-- Cursors would take new jobs for consumed then, so nothing may be enqueued or claimed before awa.rebase().
-- Reads:  queue_lanes, ready_entries and what lane_cursor reads
-- Writes: nothing
-- Locks:  none
-- Model:  NeedsRebase
CREATE OR REPLACE FUNCTION awa.needs_rebase() RETURNS bool
LANGUAGE sql STABLE
SET enable_seqscan = off SET jit = off AS $$
    SELECT EXISTS (
        SELECT 1
        FROM awa.queue_lanes l
        CROSS JOIN LATERAL awa.lane_cursor(l.lane_id) c
        LEFT JOIN LATERAL (
            SELECT r.enq_xid FROM awa.ready_entries r
            WHERE r.lane_id BETWEEN l.lane_id AND l.lane_id ORDER BY r.lane_id DESC, r.enq_xid DESC, r.lane_seq DESC LIMIT 1
        ) newest ON true
        -- xmax is the first id that was not given out: a cursor may end there, a row may not have it.
        WHERE pg_snapshot_xmax(c.s_cur) > pg_snapshot_xmax(pg_current_snapshot())
           OR newest.enq_xid >= pg_snapshot_xmax(pg_current_snapshot())
    )
$$;
