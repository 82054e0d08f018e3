-- settled_snapshot: the current snapshot with the calling transaction itself counted as in progress. pg_current_snapshot leaves
-- its own transaction out, which reads as "over": a claim in a transaction that has enqueued would then put the cursor past
-- whatever that transaction enqueues later, and those jobs would never run.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  SettledSnapshot
CREATE OR REPLACE FUNCTION awa.settled_snapshot() RETURNS pg_snapshot
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_snapshot pg_snapshot := pg_current_snapshot();
    v_own xid8 := pg_current_xact_id_if_assigned();
BEGIN
    IF v_own IS NULL OR v_own >= pg_snapshot_xmax(v_snapshot) THEN
        RETURN v_snapshot;
    END IF;
    RETURN (
        SELECT format('%s:%s:%s', least(v_own, pg_snapshot_xmin(v_snapshot)), pg_snapshot_xmax(v_snapshot),
                      string_agg(x.xid::text, ',' ORDER BY x.xid))
        FROM (SELECT v_own AS xid UNION SELECT pg_snapshot_xip(v_snapshot)) x
    )::pg_snapshot;
END
$$;
