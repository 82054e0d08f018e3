-- snapshot_is_pruned: whether a table of awa was truncated since the snapshot that this statement reads by, so that what it had is seen
-- neither there nor where it went. Under READ COMMITTED a new statement is enough to see it; an older snapshot stays blind, and prune_epoch
-- in it, too. TRUNCATE gives a table a new file: pg_class says which one was the snapshot's, pg_relation_filenode which one there is.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  SnapshotIsPruned
CREATE OR REPLACE FUNCTION awa.snapshot_is_pruned() RETURNS bool
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT 1 FROM pg_class c
        WHERE c.relnamespace = 'awa'::regnamespace AND c.relkind = 'r' AND c.relfilenode <> pg_relation_filenode(c.oid)
    )
$$;
