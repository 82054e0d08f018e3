-- try_prune_lock: keeps readers that want exact answers, and other maintenance, away until the transaction ends, or says false.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  prune advisory (by TRY)
-- Model:  TryPruneLock
CREATE OR REPLACE FUNCTION awa.try_prune_lock() RETURNS bool
LANGUAGE sql VOLATILE AS $$
    SELECT pg_try_advisory_xact_lock(1635213571)
$$;
