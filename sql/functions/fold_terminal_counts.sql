-- fold_terminal_counts: moves the deltas of the slots that have more than p_min_rows of them into the live counts; how many slots.
-- A slot whose deltas are being written stays for the next time.
-- Reads:  queue_terminal_count_deltas
-- Writes: ring_slots and what add_live_counts writes
-- Locks:  prune advisory (by TRY), ring children (ACCESS EXCLUSIVE on deltas, bounded wait), counter rows, sorted
-- Model:  FoldTerminalCounts
CREATE OR REPLACE FUNCTION awa.fold_terminal_counts(p_min_rows int4, p_wait float8 DEFAULT 0.01) RETURNS int4
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '10ms' AS $$
DECLARE
    v_folded int4 := 0;
    v_many bool;
BEGIN
    PERFORM awa.need_read_committed('fold_terminal_counts');
    FOR v_slot IN 0..7 LOOP
        BEGIN
            SELECT count(*) > p_min_rows INTO v_many
            FROM (SELECT 1 FROM awa.queue_terminal_count_deltas d WHERE d.terminal_slot = v_slot LIMIT p_min_rows + 1) d;
            CONTINUE WHEN NOT v_many;
            IF NOT awa.try_prune_lock() THEN
                RETURN v_folded;
            END IF;
            PERFORM awa.lock_slot(ARRAY['queue_terminal_count_deltas'], v_slot::int2, p_wait);
            PERFORM awa.add_live_counts(v_slot::int2);
            EXECUTE format('TRUNCATE awa.%I', 'queue_terminal_count_deltas_' || v_slot);
            UPDATE awa.ring_slots s SET prunes = s.prunes + 1 WHERE s.ring = 'terminal' AND s.slot = v_slot;
            v_folded := v_folded + 1;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN v_folded;
END
$$;
