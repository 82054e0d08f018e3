-- rebuild_terminal_counters: makes the counters say what there is, and returns what they said before, as check_terminal_counters does.
-- Whoever ends jobs widely waits meanwhile; claims and compact completions do not. Raises 55P03 when the tables are not to be had
-- within p_wait seconds, for which everybody behind the request waits: call it again.
-- Reads:  what compare_terminal_counts reads
-- Writes: queue_terminal_live_counts, queue_terminal_count_deltas, ring_slots
-- Locks:  prune advisory (by TRY), ring children (ACCESS EXCLUSIVE on deltas, bounded wait), counter rows
-- Model:  RebuildTerminalCounters
CREATE OR REPLACE FUNCTION awa.rebuild_terminal_counters(p_wait float8 DEFAULT 0.05) RETURNS TABLE (
    ring text, slot int2, queue text, state text, counted int8, actual int8
)
LANGUAGE plpgsql VOLATILE
SET jit = off AS $$
DECLARE
    v_found jsonb;
BEGIN
    IF NOT awa.try_prune_lock() THEN
        RAISE EXCEPTION 'awa.rebuild_terminal_counters: maintenance or an exact read is under way' USING ERRCODE = '55P03';
    END IF;
    FOR v_slot IN 0..7 LOOP
        PERFORM awa.lock_slot(ARRAY['queue_terminal_count_deltas'], v_slot::int2, p_wait);
    END LOOP;
    -- A new statement after the locks: it sees all that was ended before them, and nothing can be ended before the commit.
    SELECT jsonb_agg(to_jsonb(c)) INTO v_found FROM awa.compare_terminal_counts() c;
    DELETE FROM awa.queue_terminal_live_counts;
    INSERT INTO awa.queue_terminal_live_counts (ring, slot, queue, state, n)
    SELECT f.ring, f.slot, f.queue, f.state, f.actual
    FROM jsonb_to_recordset(v_found) AS f (ring text, slot int2, queue text, state text, actual int8)
    WHERE f.actual <> 0
    ORDER BY 1, 2, 3, 4;
    TRUNCATE awa.queue_terminal_count_deltas;
    UPDATE awa.ring_slots s SET prunes = s.prunes + 1 WHERE s.ring = 'terminal' AND s.slot = 0;
    RETURN QUERY
    SELECT f.* FROM jsonb_to_recordset(v_found) AS f (ring text, slot int2, queue text, state text, counted int8, actual int8);
END
$$;
