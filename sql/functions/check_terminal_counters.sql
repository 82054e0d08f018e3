-- check_terminal_counters: compare_terminal_counts with no slot pruned or folded under it. Changes nothing.
-- Reads:  what compare_terminal_counts reads
-- Writes: nothing
-- Locks:  prune advisory (shared)
-- Model:  CheckTerminalCounters
CREATE OR REPLACE FUNCTION awa.check_terminal_counters() RETURNS TABLE (
    ring text, slot int2, queue text, state text, counted int8, actual int8
)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM awa.share_prune_lock();
    -- A new statement after the lock.
    RETURN QUERY SELECT c.* FROM awa.compare_terminal_counts() c;
END
$$;
