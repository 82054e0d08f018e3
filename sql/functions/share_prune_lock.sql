-- share_prune_lock: no slot is pruned until the calling transaction ends: for reads of awa.jobs and awa.terminal_jobs that have to be
-- exact, in statements after this one, under READ COMMITTED. Waits for a prune that is under way (milliseconds).
-- The class number is "awa" and 3.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  prune advisory (shared)
-- Model:  SharePruneLock
CREATE OR REPLACE FUNCTION awa.share_prune_lock() RETURNS void
LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock_shared(1635213571)
$$;
