-- rebuild_terminal_counters: makes the counters say what there is, and returns what they said before, as check_terminal_counters does.
-- Whoever ends jobs widely waits meanwhile; claims and compact completions do not. Raises 55P03 when the tables are not to be had
-- within p_wait seconds, for which everybody behind the request waits: call it again. Empties queue_terminal_count_deltas.
-- Reads:  what compare_terminal_counts reads
-- Writes: queue_terminal_live_counts, queue_terminal_count_deltas, ring_slots
-- Locks:  prune advisory (by TRY), queue_terminal_live_counts (SHARE ROW EXCLUSIVE, bounded wait), ring children (ACCESS EXCLUSIVE
--         on deltas, bounded wait)
-- Model:  RebuildTerminalCounters
CREATE OR REPLACE FUNCTION awa.rebuild_terminal_counters(p_wait float8 DEFAULT 0.05) RETURNS TABLE (
    ring text, slot int2, queue text, state text, counted int8, actual int8
)
LANGUAGE plpgsql VOLATILE
SET jit = off SET lock_timeout = '50ms' AS $$
DECLARE
    v_found jsonb;
BEGIN
    PERFORM awa.need_read_committed('rebuild_terminal_counters');
    IF NOT awa.try_prune_lock() THEN
        RAISE EXCEPTION 'awa.rebuild_terminal_counters: maintenance or an exact read is under way' USING ERRCODE = '55P03';
    END IF;
    -- First, because nobody waits for it but maintenance: a claim slot that is being proved closed is counted whole, or not yet.
    PERFORM set_config('lock_timeout', greatest(ceil(p_wait * 1000), 1)::int4::text, true);
    LOCK TABLE awa.queue_terminal_live_counts IN SHARE ROW EXCLUSIVE MODE;
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
    -- One by one: who waits for one of them holds their parent, which a TRUNCATE of it would wait for.
    FOR v_slot IN 0..7 LOOP
        EXECUTE format('TRUNCATE awa.queue_terminal_count_deltas_%s', v_slot);
    END LOOP;
    UPDATE awa.ring_slots s SET prunes = s.prunes + 1 WHERE s.ring = 'terminal' AND s.slot = 0;
    RETURN QUERY
    SELECT f.* FROM jsonb_to_recordset(v_found) AS f (ring text, slot int2, queue text, state text, counted int8, actual int8);
END
$$;
